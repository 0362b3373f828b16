"""Weights that ship with the package, each with its card: the small base model and the small autoencoder."""
