"""Readings of held-out text judged by their distance from the model's own output."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.adapter import final_norm_and_unembed
from interp.models.hooked import HookedModel
from interp.models.passes import Capture
from interp.names import lens_hook_points
from interp.seeds import make_generator

AT_ONCE = 256
"""positions whose logits are in memory at a time"""


def kl_divergence(
    target: Float[Tensor, "*batch d_vocab"], logits: Float[Tensor, "*batch d_vocab"]
) -> Float[Tensor, "*batch"]:
    """Return `KL(target || reading)` in nats, `[...]`, of log-probabilities `target` and a reading's `logits`.

    Both are `[..., d_vocab]`. 0 means the same distribution; above 0, the expected excess surprise of the reading on
    tokens drawn from the target.
    """
    return (target.exp() * (target - logits.log_softmax(-1))).sum(-1)


class Positions(NamedTuple):
    """Residuals at drawn positions, and the model's output there."""

    resid: dict[str, Tensor]
    """hook point -> `[n, d_model]`"""
    target: Tensor
    """`[n, d_vocab]` log-probabilities, float32"""


@torch.no_grad()
def draw_positions(
    model: HookedModel,
    contexts: Int[Tensor, "m pos"],
    hook_points: list[str],
    n: int,
    *,
    n_contexts: int,
    seed: int,
    stream: tuple[str | int, ...],
) -> Positions:
    """Return `n` positions of `n_contexts` contexts; both are drawn by the seed and the name of the random stream.

    The first position of a context is never drawn: its residual is an outlier.
    """
    generator = make_generator(seed, *stream)
    rows = torch.randint(len(contexts), (min(n_contexts, n),), generator=generator)
    row = torch.randint(len(rows), (n,), generator=generator)
    position = torch.randint(1, contexts.shape[1], (n,), generator=generator)
    last = lens_hook_points(model.cfg.n_layers)[-1]
    with Capture(model, list(dict.fromkeys([*hook_points, last]))) as capture:
        values = capture(contexts[rows].to(model.cfg.device))
    values = {name: value[row, position] for name, value in values.items()}
    target = final_norm_and_unembed(model, values[last]).float().log_softmax(-1)
    return Positions({name: values[name] for name in hook_points}, target)


Reading = Callable[[str, Tensor], Tensor]
"""From a hook point and residuals `[n, d_model]` there to residuals before the final norm."""


@torch.no_grad()
def mean_kl(
    model: HookedModel, draw: Callable[[int, int], Positions], readings: Mapping[str, Reading], n: int
) -> dict[str, dict[str, float]]:
    """Return the mean KL (nats) of the model's output from every reading of every hook point, over `n` positions.

    `draw(i, k)` returns the i-th sample of k positions.
    """
    sums: dict[str, dict[str, float]] = {}
    for i, done in enumerate(range(0, n, AT_ONCE)):
        sample = draw(i, min(AT_ONCE, n - done))
        for point, resid in sample.resid.items():
            for name, reading in readings.items():
                logits = final_norm_and_unembed(model, reading(point, resid.float()).to(resid.dtype)).float()
                of_point = sums.setdefault(point, dict.fromkeys(readings, 0.0))
                of_point[name] += float(kl_divergence(sample.target, logits).sum()) / n
    return sums
