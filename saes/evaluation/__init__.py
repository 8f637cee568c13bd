"""How good is a dictionary, beside baselines that learned nothing?

- `reconstruction`     FVU, L0, dead latents on held-out rows
- `in_model`           loss of the model with the reconstruction put in place
- `baselines`          untrained dictionaries and principal components
- `probing`            what a probe on k latents can tell, `probing_tasks` the labels
- `absorption`         parent latents that stop firing where a more specific latent takes over
- `synthetic`          activations from a known dictionary; `recovery` how much of it was found
- `toy_recovery`       the same on a toy of superposition
- `matching`           latents that two dictionaries share
- `compare`            several dictionaries at matched sparsity
- `scaling`            how the error falls with size; `scaling_runs` the runs of a workspace
- `crosscoder_latents` latents that only one of two models has
"""
