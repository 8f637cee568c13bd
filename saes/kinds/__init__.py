"""Kinds of sparse dictionaries: an `SAE` that is used, and a `Recipe` that trains it.

- `base`        the base of all kinds: weights, encode, decode, metadata; activations that other tools use
- `config`      settings of the kinds
- `recipe`      a kind's part in the training step, and the end of training
- `registry`    from a config to its recipe
- `topk`        the k largest latents of each token, or k per token on average over a batch with one threshold
                afterwards (BatchTopK); Matryoshka: its prefixes reconstruct too
- `jumprelu`    one learned threshold per latent; BatchTopK and Matryoshka end in this class as well
- `relu`        ReLU with an L1 penalty
- `gated`       a gate and a magnitude for each latent
- `transcoder`  from one hook point to another
- `clt`         cross-layer transcoders, trained by `saes.sets.cross_layer` or read from other tools
- `crosscoder`  one set of latents for several hook points or models
"""
