"""What answers are worth: text, n-grams, boxes; means with intervals, and comparisons."""
