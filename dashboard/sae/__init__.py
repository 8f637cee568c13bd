"""The page `/sae`: dictionaries, their training and evaluation."""
