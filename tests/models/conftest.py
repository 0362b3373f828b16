"""The tiny models, and hand-made packs."""

from tiny_models import in_double, make_model, make_pack, memorised, run_model, talk, tokenizer, untrained_backbone

__all__ = ["in_double", "make_model", "make_pack", "memorised", "run_model", "talk", "tokenizer", "untrained_backbone"]
