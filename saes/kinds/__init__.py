"""SAE kinds: one final class per file.

base.py       `SAE`: what every kind is (weights, encode, decode, metadata)
topk.py       `TopKSAE`: the k largest latents of each token
batchtopk.py  `BatchTopKSAE`: trained with k on average, used with one threshold per latent (a JumpReLU)
registry.py   config -> class, architecture on disk -> class
"""
