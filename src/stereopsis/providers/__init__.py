"""Where geometry comes from when a capture has none: cameras and depth estimated from colours alone."""
