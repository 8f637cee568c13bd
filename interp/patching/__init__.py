"""Interventions on a running model: the effect of replacing a value.

- `task`        clean and corrupted prompts with a metric
- `metrics`     metrics of logits: logit difference, probability difference, KL, L2
- `ablation`    zero, mean or resample ablation of groups of heads, MLPs and neurons
- `activation`  activation patching by layer, head and position
- `paths`       path patching: one value, along chosen paths to its receivers only
- `maps`        measurement of a map of activation patches with its null distribution
- `patching_map`  the map as an artefact, its settings and those of a task
"""
