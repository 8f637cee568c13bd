"""The page `/heads/<name>`: scores of every attention head."""
