"""Kinds of sparse dictionaries: what is used (`SAE`) and how it is trained (`Recipe`).

base.py               `SAE`: what every kind is (weights, encode, decode, metadata)
recipe.py             `Recipe`: what a kind decides in the training step, and how training ends in an SAE
registry.py           config -> recipe
topk.py               the k largest latents of each token
batchtopk.py          k on average over a batch, one threshold afterwards
matryoshka.py         BatchTopK whose prefixes reconstruct too
jumprelu.py           one threshold per latent, learned; the class in which BatchTopK and Matryoshka end as well
relu.py, gated.py     sparse by an L1 penalty
transcoder.py, transcoder_recipe.py    from one place to another
crosscoder.py         one set of latents for several places
activations.py, token_norm.py          what is read from other tools
"""
