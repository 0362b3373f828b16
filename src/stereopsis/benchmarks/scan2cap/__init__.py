"""Scan2Cap: reader, prompt, metric and card of this benchmark."""
