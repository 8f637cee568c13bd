"""Interventions on a running model: the effect of replacing a value.

- `ablation`    zero, mean or resample ablation of groups of heads, MLPs and neurons
- `activation`  activation patching by layer, head and position
- `paths`       path patching: one value, along chosen paths to its receivers only
- `config`      settings of activation patching
- `maps`        a map of activation patches with its null distribution, and its artefact
"""
