"""The sparse training step: one dense encoder product, everything after it over the active latents only.

- `state`      parameters and Adam moments, one latent per row, and the values that pass between steps
- `step`       one training step in order, dead latents revived, the backend chosen by device
- `_plain`     the step in torch operations: any device, any dtype
- `autograd`   the step of a kind that is given by its loss
- `compiled`   the step in compiled loops: CPU
- `_selection` which pre-activations are the largest, for `compiled`; masks, dot products and sums of rows in registers
- `spread`     the step over several ranks
"""
