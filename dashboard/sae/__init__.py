"""The page `/sae`: dictionaries, their training and evaluation.

- `page`  the page
- `_evidence`  its scores beside null dictionaries, and concepts that it detects
- `data`  dictionaries, finished and in training: settings, logs, quality
"""
