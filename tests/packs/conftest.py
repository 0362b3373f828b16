"""Hand-made packs, and the tiny models that read them."""

from tiny_models import in_double, make_model, make_pack, memorised, run_model, talk, tokenizer, untrained_backbone

__all__ = ["in_double", "make_model", "make_pack", "memorised", "run_model", "talk", "tokenizer", "untrained_backbone"]
