"""The page `/dynamics`: studies of training.

- `page`       the page
- `_data`      runs, curves, shares of frequencies and series of maps of an artefact
- `_grokking`  the panels of modular addition
- `_induction` the panels of a toy that learns induction
"""
