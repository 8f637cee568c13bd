"""The Hopfield network of 1982, and the capacity of classical and modern Hopfield networks.

**The classical network** (`recall`, `measure_capacity`; Amit et al. 1985) stores patterns as minima of a quadratic
energy. Spins `s [n]` are +1 or -1, Hebb's rule stores the patterns, and one spin at a time is aligned with its field:

    J = X^T X / n, diagonal 0            X [n_patterns, n]
    E(s) = -s^T J s / 2                  falls with every flipped spin, so recall terminates
    load = n_patterns / n

Recall flips the most unstable spin first, in many copies of the network at once. It descends the same energy as the
usual random order, without random draws. Replica theory (`replica_overlap`) gives the overlap with a pattern after
recall, in the limit of many spins: `m = erf(t)` with `sqrt(2 load) = erf(t) / t - 2 exp(-t^2) / sqrt(pi)`. A solution
exists up to a load of 0.138, where 1.7 % of the spins are wrong. Beyond it no pattern can be recalled.

In a network of n spins the transition is gradual. Its capacity is defined here as the load at which the fraction of
wrong spins reaches the theory's value at its own capacity. The load at which half of the patterns are still recalled is
higher, and decreases slowly with n.

**The modern network** (`compare_capacity`) retains exponentially many random patterns in the dimension (Demircigil et
al. 2017). A state starts with a fraction of its spins wrong, takes one step of retrieval at `beta = 1`
(`interp.studies.hopfield`), and is reduced to its signs. The capacity of a dimension is the largest number of patterns
at which at least half of the starts are recovered exactly. For large `d` it grows as `exp(a d)` with `a` at least
(their theorem 2)

    I(1 - 2 wrong) / 2,    I(m) = ((1 + m) log(1 + m) + (1 - m) log(1 - m)) / 2

while the capacity of the classical network is at most proportional to `d`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from interp.artifacts import as_json, save_json
from interp.errors import ConfigError, NonFiniteError
from interp.results import Result, columns_of
from interp.runtime import make_generator, one_thread
from interp.statistics import Interval, t_interval

RECALLED = 0.9
"""overlap from which a pattern counts as recalled; the theory jumps from 0.967 to far below"""


def hebb(patterns: Shaped[Tensor, "..."]) -> Float[Tensor, "n n"]:
    """Return Hebbian couplings `[n, n]` of `patterns [n_patterns, n]` of +1 and -1, without self-coupling."""
    if patterns.ndim != 2 or not patterns.numel() or not bool((patterns.abs() == 1).all()):
        raise ConfigError(f"expected patterns of +1 and -1 as [n_patterns, n], got {list(patterns.shape)}")
    X = patterns.to(torch.float32) if patterns.dtype not in (torch.float32, torch.float64) else patterns
    return (X.T @ X / X.shape[1]).fill_diagonal_(0)


def recall(
    couplings: Shaped[Tensor, "..."], states: Shaped[Tensor, "..."], *, max_turns: int | None = None
) -> tuple[Float[Tensor, "n_states n"], Int64[Tensor, " n_states"]]:
    """Descend to stable states `[n_states, n]`; returns them and the number of spins flipped in each.

    Flips the most unstable spin of every state until none is unstable (`max_turns` default: 20 n, never reached in
    practice). A spin with a field below 1e-6 of the largest possible one stays, as that is rounding. Raises
    `ConfigError` where recall would not terminate (couplings that are not symmetric, or couple a spin to itself) and
    on states that are not spins; `NonFiniteError`.
    """
    check_couplings(couplings)
    s = check_spins(states, couplings).clone()
    field = s @ couplings
    least = 1e-6 * float(couplings.abs().sum(0).max())
    turns = torch.zeros(len(s), dtype=torch.int64)
    rows = torch.arange(len(s))
    for _ in range(20 * s.shape[1] if max_turns is None else max_turns):
        margin, spin = (s * field).min(1)
        moving = margin < -least
        if not moving.any():
            break
        live, turned = rows[moving], spin[moving]
        s[live, turned] *= -1
        field[live] += 2 * s[live, turned, None] * couplings[turned]
        turns[live] += 1
    return s, turns


def check_couplings(couplings: Shaped[Tensor, "..."]) -> None:
    """Raise unless `couplings [n, n]` are finite, symmetric and without self-coupling, so that the energy falls."""
    square = couplings.ndim == 2 and couplings.shape[0] == couplings.shape[1] > 0
    if not square or not couplings.is_floating_point():
        raise ConfigError(
            f"couplings must be symmetric [n, n] of floating point, got {couplings.dtype} {list(couplings.shape)}"
        )
    if not torch.isfinite(couplings).all():
        raise NonFiniteError("couplings must be finite, got NaN or infinity; compute them again, for example by `hebb`")
    if not torch.allclose(couplings, couplings.T, atol=1e-6 * float(couplings.abs().max())):
        raise ConfigError("couplings must be symmetric, got J_ij unlike J_ji; use (J + J.T) / 2")
    if bool(couplings.diagonal().any()):
        raise ConfigError("a spin does not couple to itself: the diagonal of the couplings must be 0; set it so")


def check_spins(states: Shaped[Tensor, "..."], couplings: Float[Tensor, "n n"]) -> Float[Tensor, "n_states n"]:
    """Return `states [n_states, n]` in the dtype of the couplings. Raises `ConfigError` unless they are +1 or -1."""
    if states.ndim != 2 or states.shape[1] != len(couplings) or not bool((states.abs() == 1).all()):
        raise ConfigError(
            f"expected states of +1 and -1 as [n_states, {len(couplings)}], a spin for each row of the couplings, "
            f"got {list(states.shape)}; take the signs of other values"
        )
    return states.to(couplings)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadCurve(Result):
    """Recall over load, `[n_loads]`, with a 95 % interval over seeds."""

    loads: tuple[float, ...]
    overlap: Interval[np.ndarray]
    """mean `s . x / n` of the state s that recall from pattern x reaches: 1 for an exact match, 0 for chance"""
    recalled: np.ndarray
    """fraction of patterns whose overlap stays above `RECALLED`"""
    error_rate: np.ndarray
    """fraction of wrong spins, `(1 - overlap) / 2`"""
    theory: np.ndarray
    """overlap in the limit of many spins; NaN above its capacity"""
    capacity: Interval[float]
    """load at which the overlap falls below the theory's at its capacity, mean over seeds; NaN if it never does"""
    settings: dict[str, Any]

    def to_records(self) -> list[dict[str, float]]:
        """Return one row per load."""
        names = ("recalled", "error_rate", "theory")
        return [
            {"load": load, **self.overlap.at(i).columns("overlap"), **{n: float(getattr(self, n)[i]) for n in names}}
            for i, load in enumerate(self.loads)
        ]

    def headline(self) -> str:
        """Return one line: the capacity."""
        return f"Recall over load: capacity {self.capacity:.3f}"

    def to_json(self) -> dict[str, Any]:
        return as_json(columns_of(self))

    def save(self, path: Path | str) -> None:
        save_json(self.to_json(), path)


def measure_capacity(
    n: int,
    loads: tuple[float, ...],
    *,
    n_seeds: int = 5,
    n_starts: int = 40,
    seed: int = 0,
) -> LoadCurve:
    """Measure recall from the stored patterns themselves, in `n_seeds` networks of `n` spins at every load.

    A network at a lower load stores the first patterns of the network at the next. `n_starts` patterns are tried in
    each. Cost per network: `n^2 n_patterns` for the couplings. Raises `ConfigError` on loads that are not rising or
    store no pattern.
    """
    counts = [round(load * n) for load in loads if math.isfinite(load)]
    rising = len(counts) == len(loads) > 0 and counts[0] >= 1 and sorted(set(counts)) == counts
    if not rising or n_seeds < 2 or n_starts < 1:
        raise ConfigError(
            f"expected rising loads with a pattern each, two seeds and a start, got {loads} of {n} spins, "
            f"{n_seeds} seeds and {n_starts} starts"
        )
    overlaps, shares = np.zeros((2, len(loads), n_seeds))
    with one_thread():
        for number in range(n_seeds):
            generator = make_generator(seed, "hopfield patterns", number)
            patterns = torch.randint(2, (counts[-1], n), generator=generator).float() * 2 - 1
            couplings, stored = torch.zeros(n, n), 0
            for i, count in enumerate(counts):
                couplings, stored = couplings + hebb(patterns[stored:count]), count
                starts = patterns[:count][-n_starts:]
                final, _ = recall(couplings, starts)
                reached = (final * starts).mean(1)
                overlaps[i, number], shares[i, number] = reached.mean(), (reached > RECALLED).double().mean()
    overlap = t_interval(overlaps)
    level = replica_capacity()[1]
    crossings = np.array([_crossing(loads, overlaps[:, number], level) for number in range(n_seeds)])
    return LoadCurve(
        loads=tuple(count / n for count in counts),
        overlap=overlap,
        recalled=shares.mean(1),
        error_rate=(1 - overlap.estimate) / 2,
        theory=np.array([replica_overlap(load) for load in loads]),
        capacity=_interval(crossings),
        settings={"n": n, "n_seeds": n_seeds, "n_starts": n_starts, "seed": seed, "recalled": RECALLED},
    )


def replica_overlap(load: float) -> float:
    """Return the overlap after recall in the limit of many spins (Amit et al. 1985); NaN above the capacity."""
    t_critical, _, capacity = _replica_maximum()
    if not 0 < load <= capacity:
        return math.nan
    low, high = t_critical, 40.0
    for _ in range(100):  # bisection: the load decreases along this branch
        middle = (low + high) / 2
        low, high = (middle, high) if _replica_load(middle) > load else (low, middle)
    return math.erf(low)


def replica_capacity() -> tuple[float, float]:
    """Return the largest load with a solution of replica theory, 0.138, and the overlap there, 0.967."""
    _, overlap, capacity = _replica_maximum()
    return capacity, overlap


def _replica_load(t: float) -> float:
    return (math.erf(t) / t - 2 / math.sqrt(math.pi) * math.exp(-t * t)) ** 2 / 2


def _replica_maximum() -> tuple[float, float, float]:
    """Return `t`, overlap and load at the capacity, by ternary search."""
    low, high = 0.5, 4.0
    for _ in range(100):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (left, high) if _replica_load(left) < _replica_load(right) else (low, right)
    return low, math.erf(low), _replica_load(low)


def _crossing(loads: tuple[float, ...], overlaps: np.ndarray, level: float) -> float:
    """Return the load at which the overlap falls below `level` for good, interpolated; NaN if it never does."""
    above = np.nonzero(overlaps >= level)[0]
    if not len(above) or above[-1] == len(loads) - 1:
        return math.nan
    i = int(above[-1]) + 1
    part = (overlaps[i - 1] - level) / (overlaps[i - 1] - overlaps[i])
    return loads[i - 1] + part * (loads[i] - loads[i - 1])


def _interval(crossings: np.ndarray) -> Interval[float]:
    if not np.isfinite(crossings).all():
        return Interval(math.nan, math.nan, math.nan)
    return t_interval(crossings).at(())


RECOVERED = 0.5
"""fraction of starts that must be recovered exactly"""
_CHUNK = 1 << 22
"""scores in memory at once"""
Recovery = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], float]
"""(patterns, starts, truth) -> fraction of starts recovered"""


@dataclass(frozen=True, kw_only=True, eq=False)
class CapacityCurve(Result):
    """Capacity over dimension, `[n_dims]`, means over seeds."""

    dims: tuple[int, ...]
    log2_modern: np.ndarray
    """log2 of the number of patterns that the modern network retains"""
    classical: np.ndarray
    """number of patterns that the classical network retains from the same starts"""
    slope: Interval[float]
    """doublings of the modern capacity per dimension; at least `least_slope(wrong)` in the limit of large `d`"""
    settings: dict[str, Any]

    def to_records(self) -> list[dict[str, float]]:
        """Return one row per dimension: `d, modern, classical`."""
        rows = zip(self.dims, self.log2_modern.tolist(), self.classical.tolist(), strict=True)
        return [{"d": d, "modern": 2**log2, "classical": classical} for d, log2, classical in rows]

    def headline(self) -> str:
        """Return one line: the slope."""
        return f"Patterns over dimension: the modern capacity doubles {self.slope:.2f} times per dimension"

    def to_json(self) -> dict[str, Any]:
        return as_json(columns_of(self))

    def save(self, path: Path | str) -> None:
        save_json(self.to_json(), path)


def compare_capacity(
    dims: tuple[int, ...], *, wrong: float = 0.2, n_seeds: int = 4, n_starts: int = 100, seed: int = 0
) -> CapacityCurve:
    """Measure the capacities of both networks from starts with a fraction `wrong` of their spins flipped.

    The number of patterns doubles until fewer than `RECOVERED` of the starts are recovered; the crossing is
    interpolated on a log scale. Raises `ConfigError` on fewer than two dimensions or seeds, no start, or `wrong`
    outside (0, 0.5).
    """
    few = len(set(dims)) < 2 or n_seeds < 2 or n_starts < 1
    if few or not 0 < wrong < 0.5 or round(wrong * min(dims)) < 1:
        raise ConfigError(
            "expected two dimensions, two seeds, a start, and from one wrong spin to fewer than half (starts "
            f"without wrong spins test stability only), got dimensions {dims}, {n_seeds} seeds, {n_starts} starts, a "
            f"fraction of {wrong}"
        )
    modern, classical = np.zeros((2, len(dims), n_seeds))
    with one_thread():
        for number in range(n_seeds):
            for i, d in enumerate(dims):
                generator = make_generator(seed, "capacity", number, d)
                modern[i, number] = _doublings(d, wrong, n_starts, generator, recovered_by_modern)
                classical[i, number] = 2 ** _doublings(d, wrong, n_starts, generator, _recovered_by_classical)
    slopes = np.array([np.polyfit(dims, modern[:, number], 1)[0] for number in range(n_seeds)])
    return CapacityCurve(
        dims=tuple(dims),
        log2_modern=modern.mean(1),
        classical=classical.mean(1),
        slope=t_interval(slopes).at(()),
        settings={"wrong": wrong, "n_seeds": n_seeds, "n_starts": n_starts, "seed": seed}
        | {"kept": RECOVERED, "beta": 1.0},
    )


def least_slope(wrong: float) -> float:
    """Return the theorem's lower bound on doublings per dimension, for a fraction `wrong` of wrong spins."""
    if not 0 < wrong < 0.5:
        raise ConfigError(f"expected a share of wrong spins between 0 and 0.5, got {wrong}; 0.2 is usual here")
    m = 1 - 2 * wrong
    rate = ((1 + m) * math.log1p(m) + (1 - m) * math.log1p(-m)) / 2
    return rate / 2 / math.log(2)


def _doublings(d: int, wrong: float, n_starts: int, generator: torch.Generator, recovery: Recovery) -> float:
    """Return log2 of the number of patterns at which the fraction of recovered starts falls below `RECOVERED`."""
    before = 1.0
    for power in range(1, 26):
        patterns = torch.randint(2, (2**power, d), generator=generator, dtype=torch.int8).float() * 2 - 1
        chosen = torch.randint(2**power, (n_starts,), generator=generator)
        starts = patterns[chosen].clone()
        turned = torch.rand(n_starts, d, generator=generator).argsort(1)[:, : round(wrong * d)]
        starts.scatter_(1, turned, -starts.gather(1, turned))
        recovered = recovery(patterns, starts, patterns[chosen])
        if recovered < RECOVERED:
            return power - 1 + (before - RECOVERED) / (before - recovered)
        before = recovered
    raise ConfigError(f"more than 2^25 patterns of {d} spins are retained; use fewer dimensions")


def recovered_by_modern(
    patterns: Float[Tensor, "n_patterns n"], starts: Float[Tensor, "n_starts n"], truth: Float[Tensor, "n_starts n"]
) -> float:
    """Return the fraction of starts, 0 to 1, that one step takes to the signs of `truth`; summed in chunks."""
    top, total = torch.full((len(starts), 1), -torch.inf), torch.zeros_like(starts)
    for part in patterns.split(max(1, _CHUNK // len(starts))):
        scores = starts @ part.T
        new = torch.maximum(top, scores.amax(1, keepdim=True))
        total = total * (top - new).exp() + (scores - new).exp() @ part
        top = new
    return float(((total > 0) == (truth > 0)).all(1).double().mean())


def _recovered_by_classical(
    patterns: Float[Tensor, "n_patterns n"], starts: Float[Tensor, "n_starts n"], truth: Float[Tensor, "n_starts n"]
) -> float:
    final, _ = recall(hebb(patterns), starts)
    return float((final == truth).all(1).double().mean())
