"""The page `/prompt`: one prompt on a live model."""
