"""Views, packs, the visual layout and batches: from scenes to what a model sees."""
