"""Data from a known dictionary: rows whose features, and how strong each is in every row, are known.

A row is `mean + scale * (strengths @ directions + noise)`. What makes it hard is what makes real activations hard, each
a setting of its own (after SynthSAEBench, arXiv 2602.14687):

- superposition: more unit directions than dimensions, spread apart only as far as they go;
- Zipf: a few frequent features, many rare ones;
- trees: a child is on only where its parent is, and of several children at most one;
- correlation: roots that tend to be on together, through a Gaussian copula of low rank;
- strengths that vary from row to row.

Rates are exact: `rates[i]` is the probability that feature `i` is on, trees and correlations included. Correlations are
between roots; descendants inherit them from their roots.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from interp.errors import ConfigError, UnknownNameError
from interp.runtime import make_generator

MAGNITUDES = ("log_normal", "half_normal", "constant")


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """What the data are made of. The defaults train in seconds on one core."""

    n_features: int = 128
    """True features."""

    d: int = 48
    """Dimensions of a row."""

    most_frequent: float = 0.3
    """Probability that the most frequent feature is on."""

    least_frequent: float = 0.01
    """Probability of the rarest. Between them the rate falls with the rank to the power of `-zipf`."""

    zipf: float = 0.5
    """Exponent of that fall."""

    n_trees: int = 0
    """Roots that have children. The roots are the most frequent features, then come their children, and theirs."""

    branching: int = 3
    """Children of every parent in a tree, of which at most one is on."""

    depth: int = 1
    """Generations below a root."""

    correlation: float = 0.0
    """Share of the copula's variance that roots have in common: 0 is independent."""

    rank: int = 4
    """Number of common factors behind that share."""

    magnitude: Literal["log_normal", "half_normal", "constant"] = "log_normal"
    """How the strength of a feature that is on is drawn; its mean is 1."""

    spread: float = 0.25
    """Sigma of the log-normal."""

    noise: float = 0.01
    """Standard deviation of Gaussian noise in every dimension, where a strength is 1."""

    mean_norm: float = 2.0
    """Length of the mean that every row has besides its features, where a strength is 1."""

    scale: float = 1.0
    """Units of the rows."""

    def __post_init__(self) -> None:
        _check(self.n_features >= 2, "n_features", "at least 2", self.n_features)
        _check(self.d >= 2, "d", "at least 2", self.d)
        rates = 0 < self.least_frequent <= self.most_frequent <= 1
        _check(
            rates, "least_frequent, most_frequent", "rising and in (0, 1]", (self.least_frequent, self.most_frequent)
        )
        falls = self.zipf > 0 and self.n_features**-self.zipf < 1
        _check(falls, "zipf", "above 0, and large enough that rates fall", self.zipf)
        _check(min(self.n_trees, self.depth) >= 0, "n_trees, depth", "at least 0", (self.n_trees, self.depth))
        _check(self.branching >= 1, "branching", "at least 1", self.branching)
        _check(0 <= self.correlation < 1, "correlation", "at least 0 and below 1", self.correlation)
        _check(self.rank >= 1, "rank", "at least 1", self.rank)
        for name in ("spread", "noise", "mean_norm"):
            _check(0 <= getattr(self, name) < math.inf, name, "at least 0 and finite", getattr(self, name))
        _check(0 < self.scale < math.inf, "scale", "above 0 and finite", self.scale)
        if self.magnitude not in MAGNITUDES:
            raise UnknownNameError("magnitude", self.magnitude, MAGNITUDES)
        if self.in_trees > self.n_features:
            raise ConfigError(
                f"{self.n_trees} trees of {self.branching} branches and depth {self.depth} hold {self.in_trees:,} "
                f"features, but n_features is {self.n_features:,}; raise it, or plant fewer or smaller trees"
            )

    @property
    def in_trees(self) -> int:
        """Number of features that belong to a tree."""
        return self.n_trees * sum(self.branching**level for level in range(self.depth + 1))


class Rows(NamedTuple):
    """Rows and the truth about them."""

    x: Tensor
    """`[n, d]` float32"""
    strengths: Tensor
    """`[n, n_features]` float32: how strong every feature is, 0 where it is off"""


class SyntheticData:
    """A known dictionary and the law by which its features are on. Everything follows from `(config, seed)`."""

    signed: ClassVar[bool] = False
    """Whether features may lie opposite each other, so that a direction and its negative are not the same feature."""

    def __init__(self, config: SyntheticConfig, *, seed: int = 0):
        self.config, self.seed = config, seed
        generator = make_generator(seed, "synthetic", "dictionary")
        self.directions = _spread_apart(torch.randn(config.n_features, config.d, generator=generator))
        """`[n_features, d]`: unit rows"""
        self.mean = config.scale * config.mean_norm * _unit(torch.randn(config.d, generator=generator))
        """`[d]`"""
        self.parents = _parents(config)
        """`[n_features]` int64: the parent's number, -1 for a root"""
        self.rates = _rates(config, self.parents)
        """`[n_features]` float64: probability of being on"""
        self._factors = _unit(torch.randn(self.n_roots, config.rank, generator=generator))

    def __repr__(self) -> str:
        c = self.config
        return f"SyntheticData({c.n_features} features in {c.d} dimensions, L0 {self.l0:.1f}, seed {self.seed})"

    @property
    def n_roots(self) -> int:
        return int((self.parents < 0).sum())

    @property
    def l0(self) -> float:
        """Features that are on in a row, in the mean."""
        return float(self.rates.sum())

    def sample(self, n: int, *, generator: torch.Generator) -> Rows:
        """`n` independent rows."""
        _check(n >= 1, "the number of rows", "at least 1", n)
        config, on = self.config, self._on(n, generator)
        strengths = on * self._magnitudes(on.shape, generator)
        noise = config.noise * torch.randn(n, config.d, generator=generator)
        return Rows(config.scale * (strengths @ self.directions + noise) + self.mean, config.scale * strengths)

    def batches(self, batch_size: int, *, seed: int = 0, start: int = 0) -> Iterator[Rows]:
        """Rows without end; batch `b` follows from `(seed, b)` alone, so that a stream can start anywhere."""
        while True:
            yield self.sample(batch_size, generator=make_generator(seed, "synthetic", "rows", self.seed, start))
            start += 1

    def _on(self, n: int, generator: torch.Generator) -> Tensor:
        """`[n, n_features]` bool. Roots by the copula; siblings share one number in [0, 1), each its own stretch."""
        share = self.config.correlation
        own = torch.randn(n, self.n_roots, generator=generator)
        common = torch.randn(n, self.config.rank, generator=generator) @ self._factors.T
        level = torch.special.ndtr((1 - share) ** 0.5 * own + share**0.5 * common)
        on = torch.zeros(n, self.config.n_features, dtype=torch.bool)
        roots = self.parents < 0
        on[:, roots] = level < self.rates[roots].float()
        for parent, children in self._families:
            stops = (self.rates[children] / self.rates[parent]).cumsum(0).float()
            drawn = torch.rand(n, 1, generator=generator)
            inside = (drawn < stops) & (drawn >= torch.cat([stops.new_zeros(1), stops[:-1]]))
            on[:, children] = inside & on[:, parent, None]
        return on

    @property
    def _families(self) -> list[tuple[int, Tensor]]:
        """Every parent and its children, older generations first, so that a parent is settled before its children."""
        return [(int(p), (self.parents == p).nonzero().squeeze(1)) for p in self.parents.unique() if p >= 0]

    def _magnitudes(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        config = self.config
        if config.magnitude == "constant":
            return torch.ones(shape)
        normal = torch.randn(shape, generator=generator)
        if config.magnitude == "half_normal":
            return normal.abs() * (torch.pi / 2) ** 0.5
        return (config.spread * normal - config.spread**2 / 2).exp()


def _parents(config: SyntheticConfig) -> Tensor:
    """Generation by generation: roots of trees, their children, theirs, then features of no tree."""
    parents, before = [-1] * config.n_trees, range(config.n_trees)
    for _ in range(config.depth if config.n_trees else 0):
        first = len(parents)
        parents += [parent for parent in before for _ in range(config.branching)]
        before = range(first, len(parents))
    return torch.tensor(parents + [-1] * (config.n_features - len(parents)))


def _rates(config: SyntheticConfig, parents: Tensor) -> Tensor:
    """Zipf by number, scaled to the two ends; children together are on at most as often as their parent."""
    rank = torch.arange(1, config.n_features + 1, dtype=torch.float64)
    falling = rank**-config.zipf
    falling = (falling - falling[-1]) / (falling[0] - falling[-1])
    rates = config.least_frequent + falling * (config.most_frequent - config.least_frequent)
    for parent in parents.unique():
        if parent >= 0:
            family = parents == parent
            rates[family] *= min(1.0, float(rates[parent] / rates[family].sum()))
    return rates


def _spread_apart(rows: Tensor, steps: int = 100) -> Tensor:
    """Unit rows, pushed away from those they are closest to (gradient steps on the sum of their cosines' 4th powers).

    Random directions may lie so close that nothing could tell them apart. More than 4,096 stay random: in the many
    dimensions that go with them random directions are nearly orthogonal, and the cosines would not fit in memory.
    """
    rows = _unit(rows)
    for _ in range(steps if len(rows) <= 4096 else 0):
        cosines = (rows @ rows.T).fill_diagonal_(0)
        push = cosines**3 @ rows
        rows = _unit(rows - 0.2 * push / push.norm(dim=1).max().clamp_min(1e-12))
    return rows


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


def _check(holds: bool, name: str, expected: str, came: Any) -> None:
    if not holds:
        raise ConfigError(f"{name} must be {expected}, got {came}")
