"""The page `/sae`: dictionaries, their training and evaluation.

- `page`  the page
- `data`  dictionaries, finished and in training: settings, logs, quality
"""
