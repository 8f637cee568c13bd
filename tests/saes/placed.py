"""Random dictionaries of every kind, placed in small models."""

import torch
from architectures import new_tiny, tiny
from circuit_tasks import random_task

from saes.kinds.base import SAE, SAEMetadata, TokenNormSAE, TopK, Weights
from saes.kinds.jumprelu import JumpReLUSAE
from saes.kinds.l1 import GatedSAE, ReLUSAE
from saes.kinds.topk import TopKSAE
from saes.kinds.transcoder import Transcoder

__all__ = ["new_tiny", "random_task", "tiny"]

D, D_SAE = 32, 80
RESID = "blocks.{}.hook_resid_post"
KINDS = ("relu", "topk", "jumprelu", "gated", "layer_norm", "constant_norm_rescale", "transcoder", "skip_transcoder")


def random_sae(kind: str, layer: int, seed: int = 0, *, d_sae: int = D_SAE) -> SAE:
    """An SAE after a block, or of its MLP, with biases and whatever else the kind has drawn at random."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    rows = torch.nn.functional.normalize(draw(d_sae, D), dim=1)
    weights = Weights(rows.T.contiguous(), 0.1 * draw(d_sae), rows + 0.05 * draw(d_sae, D), 0.2 * draw(D))
    metadata = SAEMetadata(model="tiny", hook_point=RESID.format(layer))
    mlp = SAEMetadata(
        model="tiny", hook_point=f"blocks.{layer}.mlp.hook_in", hook_point_out=f"blocks.{layer}.hook_mlp_out"
    )
    skip = 0.1 * draw(D, D)
    make = {
        "relu": lambda: ReLUSAE(weights, metadata=metadata),
        "topk": lambda: TopKSAE(weights, k=6, metadata=metadata),
        "jumprelu": lambda: JumpReLUSAE(weights, threshold=draw(d_sae).abs(), metadata=metadata),
        "gated": lambda: GatedSAE(weights, r_mag=0.3 * draw(d_sae), b_mag=0.1 * draw(d_sae), metadata=metadata),
        "transcoder": lambda: Transcoder(weights, activation=TopK(6), metadata=mlp),
        "skip_transcoder": lambda: Transcoder(weights, W_skip=skip, metadata=mlp),
    }
    if kind in make:
        return make[kind]()
    return TokenNormSAE(weights, activation=TopK(6), norm=kind, metadata=metadata)  # pyright: ignore[reportArgumentType]
