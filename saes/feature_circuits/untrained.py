"""A dictionary that was never trained, in the place of one that was: the null of every claim about features."""

import torch

from interp.runtime import make_generator
from saes.kinds.activations import TopK
from saes.kinds.base import SAE, Weights
from saes.kinds.topk import TopKSAE
from saes.kinds.transcoder import Transcoder


def random_dictionary_like(sae: SAE, *, k: int, seed: int = 0) -> SAE:
    """Random unit directions of the same sizes at the same place, `k` active per token, with the same `b_dec`.

    The encoder is the decoder's transpose where the widths agree. A skip connection is part of no feature and is kept.
    """
    generator = make_generator(seed, "untrained", sae.metadata.hook_point)
    rows = torch.nn.functional.normalize(torch.randn(sae.d_sae, sae.d_out, generator=generator), dim=1)
    reads = rows
    if sae.d_in != sae.d_out:
        reads = torch.nn.functional.normalize(torch.randn(sae.d_sae, sae.d_in, generator=generator), dim=1)
    like = sae.W_dec
    W_enc, W_dec = (each.to(like.device, like.dtype) for each in (reads.T.contiguous(), rows))
    weights = Weights(W_enc, torch.zeros_like(sae.b_enc), W_dec, sae.b_dec.detach().clone())
    k = min(k, sae.d_sae)
    if not isinstance(sae, Transcoder):
        return TopKSAE(weights, k=k, metadata=sae.metadata)
    skip = None if sae.W_skip is None else sae.W_skip.detach().clone()
    return Transcoder(weights, activation=TopK(k), W_skip=skip, metadata=sae.metadata)
