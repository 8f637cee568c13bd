"""The page `/dynamics`: studies of training.

- `page`       the page
- `data`       runs, curves, shares of frequencies and series of maps of an artefact
- `grokking`   the panels of modular addition
- `induction`  the panels of a toy that learns induction
- `scaling`    the panels of language models of several sizes
"""
