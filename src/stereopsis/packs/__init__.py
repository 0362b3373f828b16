"""From scenes to what training reads: packs of views and words, their targets, and the order in which they come."""
