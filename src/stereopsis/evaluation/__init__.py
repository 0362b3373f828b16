"""Evaluation: one encoding per scene, every answer kept, pictures of what the model imagines."""
