"""The page `/compare`: two features or neurons compared, every number with its null.

- `_data`    the features that names stand for, and what tables say about two of them; without torch
- `measure`  cosines, and activations on the same tokens, computed from the weights
- `page`     the page: names to choose, both features, measures; counterparts: features that fire on the same words
"""
