"""Quality of dictionaries, against untrained and linear baselines.

- `evaluation`          the artefact of one dictionary, with its part on everyday concepts
- `scores`              its parts: in the model, decoder cosines, probing, absorption; their settings; lists of concepts
- `in_model`            loss of the model with the reconstruction spliced in for the activation
- `baselines`           untrained dictionaries, principal components, coordinates
- `nulls`               null dictionaries: a half that stays random, shuffled rows; every score beside theirs
- `dictionary_checks`   the doctor's experiments on a dictionary in a model
- `probing`             yes-or-no questions about tokens, and sparse probes that read k latents
- `absorption`          parent latents that stop firing because a more specific latent absorbed their direction
- `concepts`            a list of everyday concepts, and the latent that detects each on words it was not chosen by
- `synthetic`           activations of a known dictionary, their recordings, and the share that an SAE recovers
- `matching`            latents that two dictionaries share, by one-to-one matching
- `compare`             several dictionaries at the same L0
- `sae_comparison`      the same as an artefact
- `scaling`, `_scaling_law`  how the error falls with size and sparsity, the runs that belong to one law; its fit
- `crosscoder_latents`  latents of a crosscoder that only one of its two models has
- `latent_comparison`   the same as an artefact
- `counterparts`        features of two dictionaries, of any models, that fire on the same words: the artefact
- `by_word`, `match_by_word`  activations on the words of a text; pairs of features chosen and judged on them
"""
