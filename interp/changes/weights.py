"""Changes of weight matrices: their size, and their effective rank.

    change = |W_tuned - W_base| / max(|W_base|, |W_tuned|)        (Frobenius norm, bias included as a row)

0: the same; 1: one of the two is negligible, or the difference is as large as the larger; at most 2. The singular
values `s` of the difference give its effective rank: the participation ratio `(sum s^2)^2 / sum s^4`, 1 for a single
direction. It is reported with two references: a random difference of an `m x n` matrix, which has about
`m n / (m + n + 1)` (the ratio of the two expectations), and the null models. Fine-tuning often has a low intrinsic rank
(Hu et al. 2021).

A change of weights need not affect behaviour: see `transplant`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from interp.changes.components import (
    SMALLEST,
    Component,
    check_comparable,
    check_count,
    describe_null,
    same,
    upper_bound,
)
from interp.changes.measured import WeightChange, WeightChanges
from interp.models.hooked import HookedModel
from interp.progress import Progress

N_SPECTRUM = 8
"""number of squared singular values reported, as fractions of their sum"""


@torch.no_grad()
def weight_changes(
    base: HookedModel,
    tuned: HookedModel,
    *,
    continuations: Sequence[HookedModel] = (),
    progress: Progress | None = None,
) -> WeightChanges:
    """Compare the weights of two models of one architecture.

    Cost: the eigenvalues of one matrix per differing component, of the tuned model and of each null. Raises what
    `check_comparable` raises, and `ConfigError` for one or two continuations.
    """
    ones, twos = check_comparable(base, tuned)
    nulls = _nulls(base, ones, continuations)
    null_changes = np.array([[change for change, _ in each] for each in nulls])
    high = upper_bound(null_changes, n_tests=len(ones))
    found = []
    for i, (one, two) in enumerate(zip(ones, twos, strict=True)):
        if progress:
            progress(i, len(ones), {"component": one.name})
        change, spectrum = (0.0, np.zeros(0)) if same(one, two) else _measure(one.matrix(), two.matrix())
        rows, columns = one.matrix().shape
        found.append(
            WeightChange(
                name=one.name,
                kind=one.kind,
                layer=one.layer,
                heads=one.heads,
                change=change,
                null=float(null_changes[:, i].mean()),
                null_high=float(high[i]),
                found=bool(change > max(high[i], SMALLEST)),
                rank=participation(spectrum),
                random_rank=rows * columns / (rows + columns + 1),
                null_rank=float(np.mean([participation(each[i][1]) for each in nulls])),
                rank_90=directions_for(spectrum, 0.9),
                spectrum=spectrum[:N_SPECTRUM],
            )
        )
    return WeightChanges(changes=tuple(found), null=describe_null(len(continuations)))


def participation(shares: np.ndarray) -> float:
    """Return the participation ratio `1 / sum p^2` of fractions `p`: effective number of directions, NaN if empty."""
    return float(1 / (shares**2).sum()) if len(shares) else float("nan")


def directions_for(shares: np.ndarray, of: float) -> int:
    """Count the largest fractions that sum to at least `of`; 0 if `shares` is empty."""
    return int(np.searchsorted(np.cumsum(shares), of - 1e-12) + 1) if len(shares) else 0


def relative_change(one: Tensor, two: Tensor) -> float:
    """Return `|two - one|` over the larger of their Frobenius norms; 0 when both are zero."""
    scale = max(float(one.norm()), float(two.norm()))
    return float((two - one).norm()) / scale if scale else 0.0


def _nulls(
    base: HookedModel, parts: list[Component], continuations: Sequence[HookedModel]
) -> list[list[tuple[float, np.ndarray]]]:
    """Measure every component of each null; without continuations, each matrix against itself rounded."""
    check_count(continuations)
    if not continuations:
        matrices = (part.matrix() for part in parts)
        return [[_measure(matrix, matrix.to(torch.bfloat16).double()) for matrix in matrices]]
    others = [check_comparable(base, model)[1] for model in continuations]
    return [[_measure(one.matrix(), two.matrix()) for one, two in zip(parts, other, strict=True)] for other in others]


def _measure(before: Tensor, after: Tensor) -> tuple[float, np.ndarray]:
    """Return the change, and the squared singular values of the difference as fractions, largest first.

    They are the eigenvalues of the smaller product of the difference with itself, which takes a fraction of the time of
    a decomposition and is as exact for values above 1e-15 of the largest, all that the measures of rank see.
    """
    after = after.to(before.device)
    change = after - before
    product = change.T @ change if change.shape[0] > change.shape[1] else change @ change.T
    power = torch.linalg.eigvalsh(product).flip(0).clamp_min(0)
    total = float(power.sum())
    return relative_change(before, after), (power / total).cpu().numpy() if total else np.zeros(0)
