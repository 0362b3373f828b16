"""The model: family adapters, 3D position encoding, grounding head, packs, saving, and entering a scene."""
