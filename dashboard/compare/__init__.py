"""The page `/compare`: two named things compared, every number with its null.

- `data`     the things that names stand for, and the tables and artefacts about two of them; without torch
- `measure`  cosines, activations on the same tokens, and matched features, computed from the weights
- `page`     the page: names to choose, both things, measures, pairs
"""
