"""Do two representations of the same items have the same shape? Row `i` of both is the same item.

- CKA (Kornblith et al. 2019) from the unbiased HSIC of Song et al. (2012): 1 for any rotation, shift and scale, 0 for
  independent ones. The biased form is not offered: 500 independent Gaussian rows of 576 dimensions give .535 by it,
  where the unbiased one gives .003. It can fall a little below 0.
- RSA (Kriegeskorte et al. 2008): Spearman correlation of all pairs' distances.
- Procrustes: what is left of one after the best rotation of the other, both centred and of unit size; 0 is a perfect
  fit. With fewer items than dimensions a rotation fits almost anything: read it beside its null only.

The null of each is the same number with the rows of one shuffled.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.errors import ConfigError
from interp.geometry.points import Finding, centred, same_rows
from interp.runtime import derive_seed
from interp.statistics import p_from_null


@dataclass(frozen=True, kw_only=True)
class Similarity(Finding):
    """One measure of two representations."""

    measure: str
    """`CKA` and `RSA`: 1 is the same shape, about 0 unrelated. `Procrustes`: a residual, 0 is the same shape"""
    value: float
    null: float
    """mean over shuffles of the rows of one"""
    null_range: tuple[float, float]
    """smallest and largest of them"""
    p: float
    """share of shuffles at least as similar, the value itself counted: never below `1 / (n_shuffles + 1)`"""
    n: int
    n_shuffles: int
    seed: int

    def sentence(self) -> str:
        low, high = self.null_range
        return (
            f"{self.measure} {self.value:.4g} on {self.n} items; rows shuffled {self.null:.4g} "
            f"[{low:.4g}, {high:.4g}], p {self.p:.3g} of {self.n_shuffles} shuffles"
        )


def cka(x: Any, y: Any, *, n_shuffles: int = 99, seed: int = 0) -> Similarity:
    """Unbiased linear CKA of `x [n, d1]` and `y [n, d2]`, `n >= 4`."""
    x, y = same_rows(x, y, at_least=4)
    k, other = (away @ away.T for away in (centred(x), centred(y)))
    norm = _norm(hsic(k, k), hsic(other, other))
    return _against_shuffles("CKA", lambda rows: hsic(k, other[np.ix_(rows, rows)]) / norm, len(x), n_shuffles, seed)


def hsic(k: np.ndarray, other: np.ndarray) -> float:
    """Unbiased estimator of the Hilbert-Schmidt independence criterion (Song et al. 2012, eq. 4).

    `k, other [n, n]`: kernel matrices of the same `n >= 4` items.
    """
    n = len(k)
    k, other = (m - np.diag(np.diag(m)) for m in (k, other))
    rows_k, rows_other = k.sum(0), other.sum(0)
    trace = (k * other).sum()
    both = rows_k.sum() * rows_other.sum() / ((n - 1) * (n - 2))
    return float((trace + both - 2 / (n - 2) * (rows_k @ rows_other)) / (n * (n - 3)))


def rsa(x: Any, y: Any, *, n_shuffles: int = 99, seed: int = 0) -> Similarity:
    """Spearman correlation of the Euclidean distances of all pairs, of `x [n, d1]` and `y [n, d2]`, `n >= 4`."""
    x, y = same_rows(x, y, at_least=4)
    a, b = (ranked_distances(centred(points)) for points in (x, y))
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    if scale == 0:
        raise ConfigError("all pairs of one representation are equally far apart; their order says nothing")
    return _against_shuffles("RSA", lambda rows: (a * b[np.ix_(rows, rows)]).sum() / scale, len(x), n_shuffles, seed)


def ranked_distances(points: np.ndarray) -> np.ndarray:
    """`[n, n]`: centred ranks of all pairs' distances (ties share their mean rank), zeros on the diagonal."""
    from scipy.spatial.distance import pdist, squareform

    return squareform(centred_ranks(pdist(points)))


def centred_ranks(values: np.ndarray) -> np.ndarray:
    """Mean ranks less their mean, along the last axis; values that differ by rounding only are ties."""
    from scipy.stats import rankdata

    step = 1e-10 * np.abs(values).max(-1, keepdims=True).clip(min=1e-300)
    ranks = rankdata(np.round(values / step), axis=-1)
    return ranks - ranks.mean(-1, keepdims=True)


def procrustes(x: Any, y: Any, *, n_shuffles: int = 99, seed: int = 0) -> Similarity:
    """Residual after the best rotation and scale: `1 - (sum of singular values of X^T Y)^2`, of `x` and `y [n, d]`.

    `X, Y` are centred and of unit Frobenius norm; the narrower one is filled up with zeros by the formula itself.
    """
    x, y = same_rows(x, y, at_least=3)
    x, y = (away / np.linalg.norm(away) for away in (centred(x), centred(y)))
    x, y = _compact(x), _compact(y)

    def residual(rows: np.ndarray) -> float:
        return float(1 - np.linalg.svd(x.T @ y[rows], compute_uv=False).sum() ** 2)

    return _against_shuffles("Procrustes", residual, len(x), n_shuffles, seed, smaller=True)


def _compact(x: np.ndarray) -> np.ndarray:
    """The same points in at most `n` coordinates, by a rotation."""
    if x.shape[1] <= len(x):
        return x
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    return u * s


def _against_shuffles(
    measure: str,
    value_of: Callable[[np.ndarray], float],
    n: int,
    n_shuffles: int,
    seed: int,
    smaller: bool = False,
) -> Similarity:
    """`value_of(order of the rows)` for the right order and for shuffles."""
    if n_shuffles < 1:
        raise ConfigError("a similarity is never given without its null; n_shuffles must be at least 1")
    rng = np.random.default_rng(derive_seed(seed, "shuffled rows", measure))
    value = float(value_of(np.arange(n)))
    null = np.array([value_of(rng.permutation(n)) for _ in range(n_shuffles)])
    return Similarity(
        measure=measure,
        value=value,
        null=float(null.mean()),
        null_range=(float(null.min()), float(null.max())),
        p=p_from_null(value, null, alternative="less" if smaller else "greater"),
        n=n,
        n_shuffles=n_shuffles,
        seed=seed,
    )


def _norm(kk: float, ll: float) -> float:
    if min(kk, ll) <= 0:
        raise ConfigError("a representation has no structure of its own beyond chance at this size; give more rows")
    return float(np.sqrt(kk * ll))
