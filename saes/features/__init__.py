"""Features of a dictionary: their firing statistics, the text they fire on, and their effect on the model.

- `build`      the feature tables: statistics, examples, token labels, promoted and suppressed tokens
- `firings`    streamed statistics of every latent
- `sources`    neurons as a dictionary, and dictionaries as sources and readouts of atlases
- `intervene`  splicing, ablation, clamping and steering of latents in the model; sampled continuations
- `relations`  logits, neurons and co-active features of every feature, each with its null
- `planes`     two-dimensional features
- `schema`     columns of the tables
"""
