"""AuxK: dead latents learn to explain what the live ones leave over (Gao et al. 2024, arXiv 2406.04093, appendix A.2).

`L_aux = sum ||e - e_hat||^2 / sum ||e - mean(e)||^2`, where `e = x - recons` (no gradient flows into it) and
`e_hat = sum over the k_aux largest dead latents of relu(pre) * W_dec`, without bias. 0: the dead latents explain the
residual fully; 1: no better than its mean. Only dead latents are touched, so the products are dense but narrow
(`n_dead` wide): cheaper than going through them one by one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from saes.kernels.state import Gradients, Ops, TrainState

EVERY = 2
"""L_aux is estimated on every `EVERY`-th token of the batch: unbiased, and its price is divided by as much."""

CAP = 2
"""At most `CAP * k_aux` dead latents take part in a step, those silent longest: this bounds the cost of a bad start."""


class AuxK(NamedTuple):
    """The two numbers of the loss."""

    k: int
    """dead latents per token"""
    weight: float
    """of L_aux in the loss"""


def dead_latents(state: TrainState, window: int, k_aux: int) -> tuple[int, Tensor]:
    """How many latents have been silent for `window` tokens, and the numbers of those that take part."""
    dead = (state.silent >= window).nonzero().squeeze(1)
    if len(dead) <= CAP * k_aux:
        return len(dead), dead
    longest = state.silent[dead].argsort(descending=True, stable=True)[: CAP * k_aux]
    return len(dead), dead[longest].sort().values


def add_auxk(
    ops: Ops, state: TrainState, x: Tensor, error: Tensor, pre: Tensor, dead: Tensor, settings: AuxK, out: Gradients
) -> float:
    """Add the gradients of `weight * L_aux` to `out`; returns `L_aux`.

    `x [n, d_in]` is what the encoder saw, `error [n, d_out]` is `recons - target`, `pre [n, d_sae]` the pre-activations
    that the step has computed already.
    """
    W_dec = state.W_dec[dead]
    acts = pre[:, dead].to(error.dtype).relu_()
    _keep_largest(ops, acts, settings.k)
    residual_error = torch.addmm(error, acts, W_dec)  # e_hat - e, since error = -e
    power = (error.norm() ** 2 - error.mean(0).norm() ** 2 * len(error)).clamp_min(1e-30)
    grad = residual_error * (2 * settings.weight / power)
    slopes = (grad @ W_dec.T).mul_(acts > 0)
    out.W_dec[dead] += acts.T @ grad  # each dead latent occurs once, so plain indexing adds all
    out.W_enc[dead] += slopes.T @ x
    out.b_enc[dead] += slopes.sum(0)
    return float(residual_error.norm() ** 2 / power)


def _keep_largest(ops: Ops, acts: Tensor, k: int) -> None:
    """Zero all but the `k` largest of each row, in place; rows with at most `k` positive values are left alone."""
    crowded = ((acts > 0).sum(1) > k).nonzero().squeeze(1)
    if len(crowded):
        rows = acts[crowded]
        floor = ops.select_topk(rows, k).values.view(-1, k).amin(1, keepdim=True)
        acts[crowded] = rows.where(rows >= floor, 0)
