"""Quality of dictionaries, against baselines that learned nothing.

- `reconstruction`      FVU, L0 and dead latents on held-out rows
- `in_model`            loss of the model with the reconstruction in place of the activation
- `baselines`           untrained dictionaries, principal components, coordinates
- `probing`             sparse probes on k latents
- `probing_tasks`       their labels
- `absorption`          parent latents that stop firing because a more specific latent absorbed their direction
- `synthetic`           activations from a known dictionary
- `recovery`            how much of a known dictionary was found
- `toy_recovery`        the same on a toy of superposition
- `matching`            latents that two dictionaries share
- `compare`             several dictionaries at matched sparsity
- `scaling`             the law by which the error falls with size and sparsity; the runs that belong to one
- `crosscoder_latents`  latents that only one of two models has
"""
