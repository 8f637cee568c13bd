"""Interventions on a running model: what changes when a value is replaced?

activation.py   heat maps: one value of the other prompt at a time, every layer, head and position
ablation.py     zero, mean or resample a group of heads and MLPs
paths.py        one value, but only along chosen paths to its readers
readers.py      who reads: receivers by layer and side
partial.py      passes that begin or end in the middle of the model
"""
