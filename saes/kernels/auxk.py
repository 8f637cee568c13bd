"""AuxK: dead latents learn to explain what the live ones leave over (Gao et al. 2024, arXiv 2406.04093, appendix A.2).

`L_aux = sum ||e - e_hat||^2 / sum ||e - mean(e)||^2`, where `e = x - recons` (no gradient flows into it) and
`e_hat = sum over the k_aux largest dead latents of relu(pre) * W_dec`, without bias. 0: the dead latents explain the
residual fully; 1: no better than its mean. Only dead latents are touched, so the products are dense but narrow
(`n_dead` wide): cheaper than going through them one by one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from interp.ranks import ALONE, Ranks
from saes.kernels.spread import Spread, kth_largest
from saes.kernels.state import Gradients, Ops, TrainState

EVERY = 2
"""L_aux is estimated on every `EVERY`-th token of the batch: unbiased, and its price is divided by as much."""

CAP = 2
"""At most `CAP * k_aux` dead latents take part in a step, those silent longest: this bounds the cost of a bad start."""


class AuxK(NamedTuple):
    """The two numbers of the loss, and who shares tokens or latents."""

    k: int
    """dead latents per token"""
    weight: float
    """of L_aux in the loss"""
    spread: Spread


def every(first: int) -> slice:
    """Which rows of a run that begins at row `first` of the batch L_aux looks at."""
    return slice(-first % EVERY, None, EVERY)


def dead_latents(state: TrainState, window: int, k_aux: int, latents: Ranks = ALONE) -> tuple[int, Tensor]:
    """How many latents of all ranks have been silent for `window` tokens, and the numbers of those of this rank's that
    take part."""
    dead = (state.silent >= window).nonzero().squeeze(1)
    n = int(latents.total(len(dead)))
    if n <= CAP * k_aux:
        return n, dead
    places = dead + latents.rank * state.d_sae
    return n, dead[Spread(latents=latents).largest(state.silent[dead], places, CAP * k_aux)]


def add_auxk(
    ops: Ops, state: TrainState, x: Tensor, error: Tensor, pre: Tensor, dead: Tensor, settings: AuxK, out: Gradients
) -> float:
    """Add the gradients of `weight * L_aux` to `out`; returns what this rank's tokens add to `L_aux`.

    `x [n, d_in]` is what the encoder saw, `error [n, d_out]` is `recons - target`, `pre [n, d_sae]` the pre-activations
    that the step has computed already.
    """
    W_dec, latents = state.W_dec[dead], settings.spread.latents
    power = _power(error, settings.spread.tokens)
    if not power:
        return 0.0
    acts = pre[:, dead].to(error.dtype).relu_()
    _keep_largest(ops, acts, settings.k, latents)
    # e_hat - e, since error = -e: it is added once however many ranks share the latents
    residual_error = latents.add(torch.addmm(error, acts, W_dec, beta=int(latents.first)))
    grad = residual_error * (2 * settings.weight / power)
    slopes = (grad @ W_dec.T).mul_(acts > 0)
    out.W_dec[dead] += acts.T @ grad  # each dead latent occurs once, so plain indexing adds all
    out.W_enc[dead] += slopes.T @ x
    out.b_enc[dead] += slopes.sum(0)
    return float(residual_error.norm() ** 2 / power)


def _power(error: Tensor, tokens: Ranks) -> Tensor:
    """`[]`: squared distance of all ranks' errors from their mean; 0 where they do not differ but by rounding (one
    token alone, say), so that there is no variance to explain a share of."""
    sums = torch.cat([error.sum(0), error.norm()[None] ** 2, error.new_full((1,), len(error))])
    tokens.add(sums)
    apart = sums[-2] - sums[:-2].norm() ** 2 / sums[-1]
    return apart * (apart > 1e-5 * sums[-2])


def _keep_largest(ops: Ops, acts: Tensor, k: int, latents: Ranks) -> None:
    """Zero all but the `k` largest of each row, of all ranks' columns, in place; rows with at most `k` positive values
    are left alone."""
    crowded = (latents.add((acts > 0).sum(1)) > k).nonzero().squeeze(1)
    if len(crowded):
        rows = acts[crowded]
        acts[crowded] = rows.where(rows >= kth_largest(ops, rows, k, latents), 0)
