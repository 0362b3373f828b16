"""What a model imagines of hidden views and of the view from above: draws, figures, pictures."""
