"""Answering questions about scenes: one encoding per scene, every answer kept, however often it is resumed."""
