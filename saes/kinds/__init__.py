"""Kinds of sparse dictionaries: an `SAE` that is used, and what trains it: a `Recipe` with its gradients, or a loss.

- `base`        the base of all kinds: weights, encode, decode, metadata; activations that other tools use; and the
                part of a kind in the sparse step, with its gradients, and the end of training
- `config`      settings of the kinds
- `autograd`    the base of kinds that have a loss instead, and their trained form
- `own`         such kinds in files of one's own
- `registry`    from a config to what trains it
- `topk`        the k largest latents of each token, or k per token on average over a batch with one threshold
                afterwards (BatchTopK); Matryoshka: its prefixes reconstruct too
- `jumprelu`    one learned threshold per latent; BatchTopK and Matryoshka end in this class as well
- `l1`          ReLU with an L1 penalty; gated: a gate and a magnitude for each latent, the penalty on the gate
- `transcoder`  from one hook point to another
- `clt`         cross-layer transcoders, trained here or read from other tools; a kind with a loss
- `crosscoder`  one set of latents for several hook points or models
"""
