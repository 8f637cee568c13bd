"""Geometry of directions that share a space: interference, dimensionality and polytopes.

With rows `w_i` of `W [n, d]` and `u_i` their unit vectors (Elhage et al. 2022; Scherlis et al. 2022):

    interference_ij = (u_i . w_j)^2                       squared reading of feature j along feature i
    D_i = |w_i|^2 / sum_j (u_i . w_j)^2                   fraction of a dimension devoted to feature i
    sum_i D_i <= rank(W)                                  equal if and only if every w_i is an eigenvector of W^T W

The last line holds because `D_i <= w_i^T (W^T W)^+ w_i`, the leverage of row i (Cauchy-Schwarz), and leverages sum to
the rank. With equality, every group of mutually interfering directions is a tight frame of its span: an antipodal pair
(D 1/2), a triangle (2/3), a tetrahedron (3/4), a pentagon (2/5), a square antiprism (3/8).
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from interp.errors import ConfigError, NonFiniteError
from interp.nulls import NUMERIC_DRAWS
from interp.results import Record, Result
from interp.seeds import make_generator
from interp.statistics import Interval, percentile_interval

REPRESENTED = 0.5
"""squared length from which a feature counts as represented; in trained toys it is about 1 or about 0"""
TOUCH = 0.02
"""interference between unit vectors from which two features are in one group (|cos| of 0.14)"""
REGULAR = 0.05
"""largest difference from the regular polytope's cosines, and largest relative difference of lengths"""
_POLYTOPES = {(1, 1): "dedicated", (2, 1): "antipodal pair", (4, 3): "tetrahedron", (8, 3): "square antiprism"}
_POLYGONS = {3: "triangle", 4: "square", 5: "pentagon", 6: "hexagon", 7: "heptagon", 8: "octagon"}


class Group(NamedTuple):
    """Features that interfere with each other and with no others, and their polytope."""

    features: tuple[int, ...]
    rank: int
    """number of dimensions that they share"""
    polytope: str
    """`dedicated`, `antipodal pair`, `triangle`, `pentagon`, ..., or `irregular`"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry(Result):
    """Geometry of one set of directions; all float64."""

    gram: Float64[Tensor, "n n"]
    """`[n, n]`: `W W^T`. Off the diagonal: change of one feature's reading per unit of another"""
    interference: Float64[Tensor, "n n"]
    """`[n, n]`: `(u_i . w_j)^2`, 0 on the diagonal; 0 elsewhere: feature j does not affect the reading of i"""
    norm: Float64[Tensor, " n"]
    """`[n]`: length of each direction; about 1 when represented, 0 when dropped"""
    dimensionality: Float64[Tensor, " n"]
    """`[n]`: 0 (not represented) to 1 (a dimension of its own)"""
    leverage: Float64[Tensor, " n"]
    """`[n]`: upper bound of the dimensionality of that direction in this span; sums to the rank"""
    rank: int
    groups: tuple[Group, ...]
    """groups of represented features, in the order of their first feature"""
    settings: dict[str, Any]

    @property
    def total(self) -> float:
        """Sum of dimensionalities; at most `rank`."""
        return float(self.dimensionality.sum())

    @property
    def tightness(self) -> float:
        """Sum over rank: 1 when all groups are tight frames, otherwise below 1; NaN when nothing is represented."""
        return self.total / self.rank if self.rank else math.nan

    @property
    def represented(self) -> int:
        """Number of features whose squared length is at least `REPRESENTED`."""
        return sum(len(group.features) for group in self.groups)

    def polytopes(self) -> dict[str, int]:
        """Return the number of groups of each kind."""
        names = [group.polytope for group in self.groups]
        return {name: names.count(name) for name in sorted(set(names))}

    def to_records(self) -> list[Record]:
        """Return one row per feature: `feature, norm, dimensionality, leverage, polytope` (None when dropped)."""
        polytope = {feature: group.polytope for group in self.groups for feature in group.features}
        columns = (self.norm.tolist(), self.dimensionality.tolist(), self.leverage.tolist())
        return [
            {"feature": i, "norm": n, "dimensionality": d, "leverage": most, "polytope": polytope.get(i)}
            for i, (n, d, most) in enumerate(zip(*columns, strict=True))
        ]

    def headline(self) -> str:
        """Return one line: the rank, the number of represented features, and the polytopes."""
        shapes = ", ".join(f"{n} {name}" for name, n in self.polytopes().items())
        return f"{self.represented} features in {self.rank} dimensions (tightness {self.tightness:.2f}): {shapes}"


def measure_geometry(directions: Shaped[Tensor, "..."], *, tolerance: float = 1e-6) -> Geometry:
    """Measure `directions [n, d]` with their lengths: rows of a toy's `W`, or of a decoder.

    Directions shorter than `tolerance` times the longest count as zero: their dimensionality is 0 and they do not count
    towards the rank. Singular values below that fraction are 0 too. Cost `n^2 d`; memory two `n x n` matrices. Raises
    `ConfigError` unless there is at least one row, `NonFiniteError` on NaN.
    """
    directions = torch.as_tensor(directions)
    if directions.ndim != 2 or not directions.numel():
        raise ConfigError(f"expected directions as [n, d] with at least one row, got {list(directions.shape)}")
    W = directions.detach().double()
    if not torch.isfinite(W).all():
        raise NonFiniteError("directions hold NaN or infinity; measure a toy that was trained without divergence")
    norm = W.norm(dim=1)
    there = norm > tolerance * norm.max()
    gram = W @ W.T
    unit = W / norm.clamp_min(1e-300)[:, None] * there[:, None]
    overlap = (unit @ W.T).square()
    dimensionality = torch.where(there, norm.square() / overlap.sum(1).clamp_min(1e-300), 0.0)
    left, values, _ = torch.linalg.svd(W, full_matrices=False)
    nonzero = values > tolerance * values.max().clamp_min(1e-300)
    return Geometry(
        gram=gram,
        interference=overlap - torch.diag(overlap.diagonal()),
        norm=norm,
        dimensionality=dimensionality,
        leverage=left[:, nonzero].square().sum(1) * there,
        rank=int(nonzero.sum()),
        groups=_groups(W, norm),
        settings={"tolerance": tolerance, "represented": REPRESENTED, "touch": TOUCH, "regular": REGULAR},
    )


@dataclass(frozen=True, kw_only=True)
class RandomGeometry(Result):
    """Geometry of random directions: the null of `tightness` and of named polytopes."""

    tightness: Interval[float]
    """mean over draws, and the central 95 % of them"""
    regular: float
    """fraction of draws in which all directions form named polytopes"""
    settings: dict[str, Any]


def random_geometry(n: int, d: int, *, n_draws: int = NUMERIC_DRAWS["quick"], seed: int = 0) -> RandomGeometry:
    """Measure tightness and regularity of `n` random unit directions in `d` dimensions, over `n_draws` draws."""
    if min(n, d, n_draws) < 1:
        raise ConfigError(f"n, d and n_draws must be at least 1, got {n}, {d} and {n_draws}")
    generator = make_generator(seed, "superposition", "random directions")
    found = []
    for _ in range(n_draws):
        rows = torch.nn.functional.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1)
        found.append(measure_geometry(rows))
    tight = torch.tensor([each.tightness for each in found], dtype=torch.float64)
    tightness = percentile_interval(float(tight.mean()), tight.numpy())
    regular = sum("irregular" not in each.polytopes() for each in found) / n_draws
    settings = {"n": n, "d": d, "n_draws": n_draws, "seed": seed}
    return RandomGeometry(tightness=tightness, regular=regular, settings=settings)


def _groups(W: Float64[Tensor, "n d"], norm: Float64[Tensor, " n"]) -> tuple[Group, ...]:
    """Return connected components of the represented features, with an edge for an overlap of at least `TOUCH`."""
    chosen = (norm.square() >= REPRESENTED).nonzero()[:, 0]
    unit = W[chosen] / norm[chosen, None]
    touching = (unit @ unit.T).square() >= TOUCH
    left, groups = set(range(len(chosen))), []
    while left:
        found, frontier = set(), {min(left)}
        while frontier:
            found |= frontier
            reached = touching[list(frontier)].any(0).nonzero()[:, 0].tolist()
            frontier = set(reached) - found
        left -= found
        members = sorted(found)
        groups.append(_name(chosen[members].tolist(), W[chosen[members]]))
    return tuple(groups)


def _name(features: list[int], rows: Float64[Tensor, "k d"]) -> Group:
    k, values = len(rows), torch.linalg.svdvals(rows)
    rank = int((values > 0.1 * values.max()).sum())
    norm = rows.norm(dim=1)
    unit = rows / norm[:, None]
    even = float(norm.max() / norm.min()) - 1 <= 2 * REGULAR
    name = _POLYGONS.get(k, f"{k}-gon") if rank == 2 and k > 2 else _POLYTOPES.get((k, rank), "irregular")
    regular = even and name != "irregular" and _is_regular(unit @ unit.T, k, rank)
    return Group(tuple(features), rank, name if regular else "irregular")


def _is_regular(cosines: Float64[Tensor, "k k"], k: int, rank: int) -> bool:
    """Return True if every direction has the polytope's cosines with the others, in any order."""
    expected = _cosines(k, rank)
    return bool((cosines.sort(dim=1).values - expected).abs().max() <= REGULAR)


def _cosines(k: int, rank: int) -> Float64[Tensor, " {k}"]:
    """Return the sorted cosines of one corner of the regular polytope with all `k` corners, `[k]`."""
    if rank == 2:
        found = [math.cos(2 * math.pi * i / k) for i in range(k)]
    elif (k, rank) == (8, 3):
        found = _antiprism()
    else:  # a simplex: one direction, an antipodal pair, a tetrahedron
        found = [1.0] + [-1 / rank] * (k - 1)
    return torch.tensor(sorted(found), dtype=torch.float64)


def _antiprism() -> list[float]:
    """Return the square antiprism whose eight unit directions form a tight frame.

    Its height is 1/sqrt(3), its radius sqrt(2/3).
    """
    z, r = 1 / math.sqrt(3), math.sqrt(2 / 3)
    corners = [(r * math.cos(a * math.pi / 2), r * math.sin(a * math.pi / 2), z) for a in range(4)]
    corners += [(r * math.cos((a + 0.5) * math.pi / 2), r * math.sin((a + 0.5) * math.pi / 2), -z) for a in range(4)]
    return [sum(p * q for p, q in zip(corners[0], other, strict=True)) for other in corners]
