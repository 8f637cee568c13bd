"""The page *Directions*: layer and strength of steering, the methods, samples, and what the direction means."""
