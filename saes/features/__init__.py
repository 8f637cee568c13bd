"""Features of a dictionary: when they fire, on what text, and what they do to the model.

- `build`      the feature tables: statistics, examples, token labels, promoted and suppressed tokens
- `firings`    streamed statistics of every latent
- `sources`    other things that are described like features: neurons, and dictionaries as sources of maps
- `intervene`  splice, ablate, clamp and steer latents in the model; sampled continuations
- `planes`     features that need two dimensions
- `schema`     columns of the tables
"""
