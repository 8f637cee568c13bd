"""Circuits of features.

- `sites`        where dictionaries sit in a model; prompts that are compared
- `traces`       one run through all sites, with gradients
- `attribution`  which latents a logit is attributed to, with the error node
- `edges`        how much of a later latent's effect an earlier one causes, estimated and by patching
- `bench`        the model with only some latents left
- `find`         a feature circuit found and judged, and its artefact
- `config`       settings of attribution and of feature circuits
"""
