"""Verbs: frozen dataclasses whose fields are the options and whose `run()` does the work.

- `record`    record activations; list models
- `train`     train dictionaries; import one
- `evaluate`  evaluate a dictionary
- `features`  describe, search, steer with and prove features
- `explain`   label features by a language model
- `heads`     score heads; train a tuned lens
- `circuit`   find, evaluate and print circuits
- `patch`     activation patching
- `trace`     attribution graphs; attribution to features
- `atlas`     maps
- `geometry`  shapes, directions
- `compare`   compare dictionaries or models
- `dynamics`  studies of training
- `serve`     the dashboard; the server for agents; verify artefacts
"""
