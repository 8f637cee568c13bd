"""AuxK: dead latents learn to explain what the live ones leave over (Gao et al. 2024, arXiv 2406.04093, appendix A.2).

`L_aux = sum ||e - e_hat||^2 / sum ||e - mean(e)||^2`, where `e = x - recons` (no gradient flows into it) and
`e_hat = sum over the k_aux largest dead latents of relu(pre) * W_dec`, without bias. 0: the dead latents explain the
residual fully; 1: no better than its mean. Only dead latents are touched, so the products are dense but narrow
(`n_dead` wide): cheaper than going through them one by one.
"""

import torch
from torch import Tensor

from saes.kernels.state import Gradients, TrainState

CAP = 2
"""At most `CAP * k_aux` dead latents take part in a step, those silent longest: this bounds the cost of a bad start."""


def dead_latents(state: TrainState, window: int, k_aux: int) -> tuple[int, Tensor]:
    """How many latents have been silent for `window` tokens, and the numbers of those that take part."""
    dead = (state.silent >= window).nonzero().squeeze(1)
    if len(dead) <= CAP * k_aux:
        return len(dead), dead
    longest = state.silent[dead].argsort(descending=True, stable=True)[: CAP * k_aux]
    return len(dead), dead[longest].sort().values


def add_auxk(
    state: TrainState, x: Tensor, error: Tensor, dead: Tensor, k_aux: int, weight: float, out: Gradients
) -> float:
    """Add the gradients of `weight * L_aux` to `out`; returns `L_aux`.

    `x [n, d_in]` is the input with `b_dec` subtracted, `error [n, d_in]` is `recons - x`.
    """
    W_enc, W_dec = state.W_enc[dead], state.W_dec[dead]
    acts = torch.addmm(state.b_enc[dead], x, W_enc.T).relu_()
    _keep_largest(acts, k_aux)
    residual_error = torch.addmm(error, acts, W_dec)  # e_hat - e, since error = -e
    power = (error.norm() ** 2 - error.mean(0).norm() ** 2 * len(error)).clamp_min(1e-30)
    grad = residual_error * (2 * weight / power)
    slopes = (grad @ W_dec.T).mul_(acts > 0)
    out.W_dec[dead] += acts.T @ grad  # each dead latent occurs once; index_add_ takes ten times as long
    out.W_enc[dead] += slopes.T @ x
    out.b_enc[dead] += slopes.sum(0)
    return float(residual_error.norm() ** 2 / power)


def _keep_largest(acts: Tensor, k: int) -> None:
    """Zero all but the `k` largest of each row, in place; rows with at most `k` positive values are left alone."""
    crowded = ((acts > 0).sum(1) > k).nonzero().squeeze(1)
    if len(crowded):
        rows = acts[crowded]
        values, columns = rows.topk(k, dim=1, sorted=False)
        acts[crowded] = torch.zeros_like(rows).scatter_(1, columns, values)
