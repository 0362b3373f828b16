"""Pickles from strangers, read without running them."""
