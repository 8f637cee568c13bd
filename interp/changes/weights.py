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
from dataclasses import dataclass
from typing import Any

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
from interp.models.hooked import HookedModel
from interp.progress import Progress
from interp.results import Result

LOW_RANK, LOW_RANK_OF_NULL = 0.25, 0.5
"""fractions of the random rank and of the nulls' rank up to which a change counts as low-rank"""
N_SPECTRUM = 8
"""number of squared singular values reported, as fractions of their sum"""


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightChange:
    """Change of one component between the two models."""

    name: str
    kind: str
    layer: int | None
    heads: tuple[int, ...]
    change: float
    """relative Frobenius norm of the difference, 0 to 2; 0: equal to the bit"""
    null: float
    """mean change of the null models"""
    null_high: float
    """upper bound of the nulls"""
    found: bool
    """the change lies above `null_high`"""
    rank: float
    """participation ratio of the squared singular values of the difference; NaN without a difference"""
    random_rank: float
    """expected rank of a random difference of this shape"""
    null_rank: float
    """mean rank of the null models' differences"""
    rank_90: int
    """number of directions that hold 90 % of the squared difference"""
    spectrum: np.ndarray
    """largest squared singular values as fractions of their sum, at most `N_SPECTRUM`"""

    @property
    def low_rank(self) -> bool:
        """True if found, with at most a quarter of the rank of a random change and half of that of the nulls."""
        return self.found and self.rank <= min(LOW_RANK * self.random_rank, LOW_RANK_OF_NULL * self.null_rank)


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightChanges(Result):
    """Changes of all components, from the embedding to the unembedding."""

    changes: list[WeightChange]
    null: str
    """description of the null"""

    @property
    def found(self) -> list[str]:
        """Names of the components that changed by more than their null, the largest change first."""
        return [c.name for c in sorted(self.changes, key=lambda c: -c.change) if c.found]

    def __getitem__(self, name: str) -> WeightChange:
        return next(c for c in self.changes if c.name == name)

    def to_records(self) -> list[dict[str, Any]]:
        """Return one row per component."""
        keys = ("name", "kind", "layer", "change", "null", "null_high", "found", "rank", "random_rank", "null_rank")
        return [
            {key: getattr(c, key) for key in keys}
            | {"rank_90": c.rank_90, "low_rank": c.low_rank, "heads": list(c.heads), "spectrum": c.spectrum.tolist()}
            for c in self.changes
        ]

    def headline(self) -> str:
        """Count the components that moved."""
        return f"{len(self.found)} of {len(self.changes)} components moved by more than the null ({self.null})"

    def shown(self) -> list[dict[str, Any]]:
        """Return the components with the largest changes, without their spectra."""
        names = ("name", "change", "null", "null_high", "found", "rank", "random_rank", "low_rank")
        return [{n: row[n] for n in names} for row in sorted(self.to_records(), key=lambda row: -row["change"])]


@torch.no_grad()
def weight_changes(
    base: HookedModel,
    tuned: HookedModel,
    *,
    continuations: Sequence[HookedModel] = (),
    progress: Progress | None = None,
) -> WeightChanges:
    """Compare the weights of two models of one architecture.

    Cost: one singular value decomposition per differing component, of the tuned model and of each null. Raises what
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
    return WeightChanges(changes=found, null=describe_null(len(continuations)))


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
    """Return the change, and the squared singular values of the difference as fractions, largest first."""
    after = after.to(before.device)
    power = torch.linalg.svdvals(after - before).square()
    total = float(power.sum())
    return relative_change(before, after), (power / total).cpu().numpy() if total else np.zeros(0)
