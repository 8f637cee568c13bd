"""The page `/dynamics`: studies of training."""
