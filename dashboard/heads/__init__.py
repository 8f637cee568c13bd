"""The page `/heads/<name>`: every head over a text, scores on random tokens as a heat map and table."""
