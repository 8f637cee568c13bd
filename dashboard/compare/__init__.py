"""The page `/compare`: features of two dictionaries that fire on the same words, and two features compared.

- `_data`    the features that names stand for, and what tables say about two of them; without torch
- `measure`  the cosine, and activations on the same tokens, computed from the weights
- `page`     the page: names to choose, both features, measures; counterparts: features that fire on the same words
"""
