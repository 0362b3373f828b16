"""Stereopsis: 3D-aware supervision for multimodal LLMs, from posed RGB-D scenes to a model that points."""

__version__ = "0.1.0"
