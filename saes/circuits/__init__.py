"""Circuits of features.

- `sites`        a dictionary at its hook points in a model, prompts with a metric, decomposed values of all sites
- `attribution`  effects of features and of error nodes on a metric, from gradients; direct effects of earlier
                 features on later ones, estimated and by patching
- `find`         a feature circuit, found and judged by ablating all other features
- `feature_circuit`  the circuit as an artefact, and the settings
"""
