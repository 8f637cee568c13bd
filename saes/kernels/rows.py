"""Decoder rows that span several places, with the sum of the lengths of their blocks held at 1.

Scaling a latent's activation up and its row down changes nothing but the numbers, so one length may be fixed. With the
sum of block lengths at 1, an activation times that sum is the activation itself: L1 weighted by decoder lengths
(Lindsey et al. 2024, "Sparse crosscoders") is plain L1, and BatchTopK weighted by them plain BatchTopK. One block gives
rows of length 1, as in an SAE.
"""

import torch
from torch import Tensor

from saes.kernels.state import Gradients


def block_norms(W_dec: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """`[d_sae, n_blocks]`: length of every block of every row; `blocks` are their widths."""
    return torch.stack([part.norm(dim=1) for part in W_dec.split(blocks, dim=1)], dim=1)


def project_blocks(out: Gradients, W_dec: Tensor, blocks: tuple[int, ...]) -> float:
    """Remove from each decoder gradient the part along the normal of its constraint, whose blocks are the unit vectors
    of the row's blocks; the squared length of all gradients."""
    lengths = block_norms(W_dec, blocks)
    units = [part / length[:, None].clamp_min(1e-12) for part, length in _parts(W_dec, lengths, blocks)]
    normal = torch.cat(units, dim=1)
    share = (out.W_dec * normal).sum(1, keepdim=True) / normal.square().sum(1, keepdim=True).clamp_min(1e-12)
    out.W_dec.sub_(share * normal)
    return float(sum(g.double().square().sum() for g in out.by_name().values()))


def _parts(W_dec: Tensor, lengths: Tensor, blocks: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(W_dec.split(blocks, dim=1), lengths.unbind(1), strict=True))
