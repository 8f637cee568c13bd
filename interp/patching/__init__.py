"""Interventions on a running model: the effect of replacing a value.

- `ablation`    zero, mean or resample a group of heads and MLPs
- `activation`  one value of another prompt at a time, by layer, head and position
- `paths`       one value, but only along chosen paths to its readers
- `partial`     passes that begin or end in the middle of the model
- `config`      settings of activation patching
- `maps`        a map of activation patches against its null, and its artefact
"""
