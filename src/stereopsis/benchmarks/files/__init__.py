"""Annotation files and prediction files: reading them, and pairing the one with the other."""
