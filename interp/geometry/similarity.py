"""Similarity of two representations: of the same items (row `i` of both is the same item), or of two clouds of points.

**Same items.**

- CKA (Kornblith et al. 2019) from the unbiased HSIC of Song et al. (2012): 1 for any rotation, shift and scale, 0 for
  independent ones. The biased form is not offered: 500 independent Gaussian rows of 576 dimensions give .535 by it,
  where the unbiased one gives .003. It can fall a little below 0.
- RSA (Kriegeskorte et al. 2008): Spearman correlation of all pairs' distances.
- Procrustes: the squared residual after the best rotation of one onto the other, both centred and of unit size; 0 is a
  perfect fit. With fewer items than dimensions a rotation fits almost anything, so compare it with its null.

The null of each is the same number with the rows of one shuffled.

**All layers with all layers**, by CKA in one pass over a recording (`recording_cka`):

1. rows come in a seeded shuffle, `batch` at a time, all hook points together;
2. each batch gives one kernel matrix per hook point, and the unbiased HSIC of every pair: one product of the flattened
   kernels, `[layers, batch^2]` with itself;
3. HSICs are averaged over batches (Nguyen et al. 2021). Each is unbiased whatever its size, so their mean is too, and
   the ratio of means goes to the CKA of the whole set as batches are added.

The error is a delete-one jackknife over batches; the null the same pass with each batch's rows shuffled for one side.
Memory: `layers * batch^2` floats. Nothing grows with the recording.

**Two clouds**, by optimal transport (`compare_clouds`). `W2^2` is the least mean squared distance over all ways to
move one sample onto the other (POT's exact solver). Two samples of one distribution do not have distance 0: in many
dimensions every point is far from all others, and this *floor* dominates. So clouds are compared half against half, with
the same number of points each time; `excess` is the distance above the floor. For a shift by a vector `v` it is `|v|^2`,
whatever the cloud.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError, NonFiniteError
from interp.geometry.points import Finding, as_points, centred, check_count, same_rows
from interp.runtime import derive_seed, make_generator
from interp.statistics import p_from_null

if TYPE_CHECKING:
    from interp.recording.store import Recording


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


@dataclass(frozen=True, kw_only=True)
class LayerSimilarity(Finding):
    """Unbiased CKA of every pair of places, `[n, n]` each: 1 is the same shape, about 0 unrelated."""

    hook_points: tuple[str, ...]
    cka: np.ndarray
    error: np.ndarray
    """standard error over batches"""
    shuffled: np.ndarray
    """the null: row `i` of one against another row of the other; about 0"""
    n_rows: int
    batch: int
    seed: int

    def sentence(self) -> str:
        away = ~np.eye(len(self.cka), dtype=bool)
        if not away.any():
            return f"CKA of {self.hook_points[0]} with itself is 1; give another place to compare it with"
        i, j = np.unravel_index(np.where(away, self.cka, np.inf).argmin(), self.cka.shape)
        return (
            f"CKA of {len(self.cka)} places on {self.n_rows} rows in batches of {self.batch}: least alike "
            f"{self.hook_points[i]} and {self.hook_points[j]}, {self.cka[i, j]:.3f} (standard error "
            f"{self.error[i, j]:.3f}); rows shuffled at most {np.abs(self.shuffled[away]).max():.3f}"
        )


def recording_cka(
    recording: "Recording",
    hook_points: list[str] | None = None,
    *,
    batch: int = 512,
    max_rows: int | None = None,
    seed: int = 0,
) -> LayerSimilarity:
    """CKA of all pairs of hook points of a recording, by default of all it has, in one pass.

    `max_rows` ends the pass early; rows come shuffled, so any part of them is a sample. Raises `ConfigError` when the
    recording holds fewer than two batches.
    """
    names = [recording.check_hook_point(name) for name in hook_points or recording.hook_points]
    centre = [recording.stats(name).mean.float() for name in names]  # any shift leaves CKA as it is, but not rounding
    batches = (
        [part.activations[name] - mean for name, mean in zip(names, centre, strict=True)]
        for part in recording.shuffled(names, batch_size=batch, seed=seed)
    )
    return batched_cka(batches, names, max_rows=max_rows, seed=seed)


@torch.no_grad()
def batched_cka(
    batches: Iterable[list[Tensor]], names: list[str], *, max_rows: int | None = None, seed: int = 0
) -> LayerSimilarity:
    """The same from batches, each a list of `[m, d]`, one for each name; a last batch that is smaller is left out.

    Raises `ConfigError` on fewer than two whole batches, and where one does not fit the names, or in its rows.
    """
    right: list[Tensor] = []
    wrong: list[Tensor] = []
    scales: list[float] = []
    kernels: Tensor | None = None
    size = n_rows = 0
    generator = make_generator(seed, "shuffled rows of batches")
    for values in batches:
        _check_batch(values, names)
        size = size or len(values[0])
        if len(values[0]) < size or (max_rows is not None and n_rows + size > max_rows):
            break
        if len(values[0]) > size:
            raise ConfigError(f"batches of one size were expected, got {len(values[0])} rows after {size}; split them")
        if size < 4:
            raise ConfigError(f"unbiased HSIC needs batches of 4 rows or more, got {size}")
        scales = scales or [_spread(value) for value in values]  # one for all batches, or they would weigh unequally
        if kernels is None:
            kernels = torch.empty(len(names), size, size, device=values[0].device)
        for kernel, value, scale in zip(kernels, values, scales, strict=True):
            _write_kernel(value, scale, kernel)
        order = torch.randperm(size, generator=generator)
        right.append(_hsics(kernels, kernels))
        wrong.append(_hsics(kernels, _reordered(kernels, order.to(kernels.device))))
        n_rows += size
    if len(right) < 2:
        raise ConfigError(
            f"{len(right)} whole batches of {size} rows; two are needed: record more, or use a smaller batch"
        )
    each, shuffled = torch.stack(right), torch.stack(wrong).mean(0)
    if not torch.isfinite(each).all():
        raise NonFiniteError("the activations hold NaN or infinity; `workbench verify` checks the recording")
    cka, error = _ratio(each)
    scale = each.mean(0).diagonal().clamp_min(1e-300).sqrt()
    return LayerSimilarity(
        hook_points=tuple(names),
        cka=cka.numpy(),
        error=error.numpy(),
        shuffled=(shuffled / (scale[:, None] * scale[None])).numpy(),
        n_rows=n_rows,
        batch=size,
        seed=seed,
    )


def _check_batch(values: list[Tensor], names: list[str]) -> None:
    if not names or len(values) != len(names):
        raise ConfigError(f"a batch must hold one tensor for each of the {len(names)} names {names}, got {len(values)}")
    shapes = [list(value.shape) for value in values]
    if any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes):
        raise ConfigError(f"a batch must be [m, d] of the same m items at every place, got shapes {shapes}")


def _spread(x: Tensor) -> float:
    """Typical length of a centred row: kernels of rows divided by it suit float32."""
    return max(float((x.double() - x.double().mean(0)).square().sum(1).mean().sqrt()), 1e-30)


def _write_kernel(x: Tensor, scale: float, kernel: Tensor) -> None:
    """Of `x [m, d] / scale` into `kernel [m, m]`, its diagonal 0. The mean is taken off: HSIC is blind to it."""
    x = x.float()
    x = (x - x.mean(0)).div_(scale)
    torch.mm(x, x.T, out=kernel)
    kernel.fill_diagonal_(0)


def _reordered(kernels: Tensor, order: Tensor) -> Tensor:
    """Rows and columns of `kernels [n, m, m]` in another order, in one gather."""
    m = len(order)
    return kernels.flatten(1).index_select(1, (order[:, None] * m + order).flatten()).view_as(kernels)


def _hsics(k: Tensor, other: Tensor) -> Tensor:
    """`[n, n]` float64: unbiased HSIC of every kernel of `k [n, m, m]` with every one of `other`."""
    m = k.shape[1]
    trace = (k.flatten(1) @ other.flatten(1).T).double()
    rows_k, rows_other = k.sum(2).double(), other.sum(2).double()
    both = rows_k.sum(1)[:, None] * rows_other.sum(1)[None] / ((m - 1) * (m - 2))
    return (trace + both - 2 / (m - 2) * rows_k @ rows_other.T) / (m * (m - 3))


def _ratio(each: Tensor) -> tuple[Tensor, Tensor]:
    """CKA of the mean HSIC over batches `[b, n, n]`, and its jackknife standard error."""
    n = len(each)
    left_out = _normalised((each.sum(0) - each) / (n - 1))
    error = ((n - 1) / n * (left_out - left_out.mean(0)).square().sum(0)).sqrt()
    return _normalised(each.mean(0)), error


def _normalised(hsic: Tensor) -> Tensor:
    own: Any = hsic.diagonal(dim1=-2, dim2=-1)
    if (own <= 0).any():
        raise ConfigError("a place has no structure beyond chance at this batch size; use larger batches")
    return hsic / (own[..., :, None] * own[..., None, :]).sqrt()


class Transport(NamedTuple):
    """One plan."""

    w2_squared: float
    plan: np.ndarray
    """`[n, m]`: mass moved from each point to each; rows sum to `1 / n`, columns to `1 / m`"""


@dataclass(frozen=True, kw_only=True)
class CloudDistance(Finding):
    """Squared Wasserstein-2 distances, in squared units of the points; all between samples of `size` points."""

    between: float
    """halves of one against halves of the other, mean over splits"""
    floor: float
    """halves of one cloud against its other half, mean over both clouds and splits"""
    floor_range: tuple[float, float]
    excess: float
    """`between - floor`: near 0 where both are samples of one distribution"""
    p: float
    """share of random relabellings of one split's points that are as far apart as the halves that were relabelled"""
    size: int
    n_splits: int
    seed: int

    def sentence(self) -> str:
        low, high = self.floor_range
        return (
            f"W2^2 {self.between:.4g} between halves of {self.size} points; a cloud's own halves are "
            f"{self.floor:.4g} [{low:.4g}, {high:.4g}] apart; {self.excess:.4g} above that floor, p {self.p:.3g}"
        )


def wasserstein(x: Any, y: Any) -> Transport:
    """Exact plan between `x [n, d]` and `y [m, d]`, every point of a cloud with the same mass.

    Of equal numbers it is an assignment. Cost grows with the cube of `n`: a second at 1,000.
    """
    import ot

    x, y = _two_clouds(x, y, at_least=1)
    cost = squared_distances(x, y)
    plan = ot.emd(ot.unif(len(x)), ot.unif(len(y)), cost, numItermax=10_000_000)
    plan = np.asarray(plan)
    return Transport(float((plan * cost).sum()), plan)


def compare_clouds(
    x: Any, y: Any, *, n_splits: int = 10, n_relabelled: int = 99, max_points: int = 500, seed: int = 0
) -> CloudDistance:
    """`x [n, d]` against `y [m, d]` beside the split-half floor; at most `max_points` of either are drawn.

    Raises `ConfigError` with fewer than 4 points of either, or other widths.
    """
    x, y = _two_clouds(x, y, at_least=4)
    check_count("n_splits", n_splits, 1, "the floor is a mean over splits")
    check_count("n_relabelled", n_relabelled, 19, "p can be no smaller than one in one more")
    check_count("max_points", max_points, 4, "halves of two points are the least")
    rng = np.random.default_rng(derive_seed(seed, "split halves"))
    x, y = (points[rng.permutation(len(points))[:max_points]] for points in (x, y))
    size = min(len(x), len(y)) // 2
    splits = [[points[rng.permutation(len(points))[: 2 * size]] for points in (x, y)] for _ in range(n_splits)]
    between = [wasserstein(a[:size], b[:size]).w2_squared for a, b in splits]
    within = [wasserstein(half[:size], half[size:]).w2_squared for split in splits for half in split]
    mixed = np.concatenate([cloud[:size] for cloud in splits[0]])
    draws = [mixed[rng.permutation(2 * size)] for _ in range(n_relabelled)]
    relabelled = [wasserstein(each[:size], each[size:]).w2_squared for each in draws]
    value, floor = float(np.mean(between)), float(np.mean(within))
    return CloudDistance(
        between=value,
        floor=floor,
        floor_range=(float(np.min(within)), float(np.max(within))),
        excess=value - floor,
        p=p_from_null(between[0], np.array(relabelled)),
        size=size,
        n_splits=n_splits,
        seed=seed,
    )


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`[n, m]`, never below 0."""
    centre = x.mean(0)
    x, y = x - centre, y - centre
    return ((x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T).clip(min=0)


def _two_clouds(x: Any, y: Any, at_least: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = as_points(x, what="the first cloud", at_least=at_least), as_points(y, what="the second", at_least=at_least)
    if x.shape[1] != y.shape[1]:
        raise ConfigError(f"clouds of the same width were expected, got {x.shape[1]} and {y.shape[1]} dimensions")
    return x, y
