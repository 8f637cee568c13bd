"""The page `/changes`: two models compared."""
