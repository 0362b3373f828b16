"""Training: strict recipes, scene sources, the optimizer and the Trainer, one run from recipe to model."""
