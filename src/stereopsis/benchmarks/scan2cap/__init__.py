"""Scan2Cap: prompt, metric and card of this benchmark."""
