"""Which matrices moved, how far, and in how many directions.

    change = |W_tuned - W_base| / max(|W_base|, |W_tuned|)        (Frobenius, bias included as a row)

0: the same; 1: one is nothing beside the other; 2 at most. The singular values `s` of the difference say whether it is
of low rank: `rank` is the participation ratio `(sum s^2)^2 / sum s^4`, 1 for one direction. A random difference of an
`m x n` matrix has about `m n / (m + n + 1)` (the ratio of the two expectations), which stands beside it, and so does
the rank of the nulls. Fine-tuning has a low intrinsic rank (Hu et al. 2021); a number alone would not show that.

That weights moved does not say that it matters: see `transplant`.
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
from interp.progress import Progress
from interp.results import Result

LOW_RANK, LOW_RANK_OF_NULL = 0.25, 0.5
"""shares of the random rank and of the nulls' rank up to which a change is called one of low rank"""
KEPT = 8
"""singular values that are kept, as shares of the sum of squares"""


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightChange:
    """What became of one component."""

    name: str
    kind: str
    layer: int | None
    heads: tuple[int, ...]
    change: float
    """relative Frobenius norm of the difference, 0 to 2; 0 is the same to the bit"""
    null: float
    """mean of the same over the nulls"""
    null_high: float
    found: bool
    """the change lies above `null_high`"""
    rank: float
    """participation ratio of the squared singular values of the difference; NaN without one"""
    random_rank: float
    """about that of a random difference of this shape"""
    null_rank: float
    rank_90: int
    """directions that hold 90 % of the squared difference"""
    spectrum: np.ndarray
    """the largest squared singular values as shares of all, at most `KEPT`"""

    @property
    def low_rank(self) -> bool:
        """Found, in at most a quarter of the directions of a random change, and in half of those of the nulls."""
        return self.found and self.rank <= min(LOW_RANK * self.random_rank, LOW_RANK_OF_NULL * self.null_rank)


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightChanges(Result):
    """All components, from the embedding to the unembedding."""

    changes: list[WeightChange]
    null: str
    """what the null is, in words"""

    @property
    def found(self) -> list[str]:
        """Names of the components that moved by more than their null, the largest change first."""
        return [c.name for c in sorted(self.changes, key=lambda c: -c.change) if c.found]

    def __getitem__(self, name: str) -> WeightChange:
        return next(c for c in self.changes if c.name == name)

    def to_records(self) -> list[dict[str, Any]]:
        """One row per component."""
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
    base: Any, tuned: Any, *, continuations: Sequence[Any] = (), progress: Progress | None = None
) -> WeightChanges:
    """Compare the weights of two models of one architecture.

    Cost: one singular value decomposition per component and model that differs. Raises what `check_comparable` raises,
    and `ConfigError` for one or two continuations.
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
                spectrum=spectrum[:KEPT],
            )
        )
    return WeightChanges(changes=found, null=describe_null(len(continuations)))


def participation(shares: np.ndarray) -> float:
    """`1 / sum p^2` of shares `p`: how many directions; NaN of none."""
    return float(1 / (shares**2).sum()) if len(shares) else float("nan")


def directions_for(shares: np.ndarray, of: float) -> int:
    """How many of the largest shares make up `of` of all; 0 of none."""
    return int(np.searchsorted(np.cumsum(shares), of - 1e-12) + 1) if len(shares) else 0


def relative_change(one: Tensor, two: Tensor) -> float:
    """`|two - one|` over the larger of their Frobenius norms; 0 when both are nothing."""
    scale = max(float(one.norm()), float(two.norm()))
    return float((two - one).norm()) / scale if scale else 0.0


def _nulls(base: Any, parts: list[Component], continuations: Sequence[Any]) -> list[list[tuple[float, np.ndarray]]]:
    """Per null and component what `_measure` says; without continuations of every matrix and itself rounded."""
    check_count(continuations)
    if not continuations:
        matrices = (part.matrix() for part in parts)
        return [[_measure(matrix, matrix.to(torch.bfloat16).double()) for matrix in matrices]]
    others = [check_comparable(base, model)[1] for model in continuations]
    return [[_measure(one.matrix(), two.matrix()) for one, two in zip(parts, other, strict=True)] for other in others]


def _measure(before: Tensor, after: Tensor) -> tuple[float, np.ndarray]:
    """The change, and the squared singular values of the difference as shares, largest first."""
    after = after.to(before.device)
    power = torch.linalg.svdvals(after - before).square()
    total = float(power.sum())
    return relative_change(before, after), (power / total).cpu().numpy() if total else np.zeros(0)
