"""How many random patterns the modern network keeps: exponentially many in the dimension (Demircigil et al. 2017).

Patterns of +1 and -1 are stored, a state starts with a share of its spins wrong, takes one step of retrieval at
`beta = 1` (`interp.energy.hopfield`) and keeps the signs. The capacity of a dimension is the largest number of patterns
at which at least half of the starts come back exactly. It grows as `exp(a d)`, `a` being at least

    I(1 - 2 wrong) / 2,    I(m) = ((1 + m) log(1 + m) + (1 - m) log(1 - m)) / 2

for large `d` (their theorem 2), where the classical network keeps a number in proportion to `d` at most.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from interp.energy.classical import hebb, recall
from interp.errors import ConfigError
from interp.intervals import t_interval
from interp.runtime import make_generator, one_thread
from interp.values import as_json, save_json

KEPT = 0.5
"""share of starts that must come back exactly"""
_CHUNK = 1 << 22
"""scores held at once"""
KeptBy = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], float]
"""(patterns, starts, truth) -> share of starts brought back"""


@dataclass(frozen=True, kw_only=True, eq=False)
class CapacityCurve:
    """Capacity over dimension, `[n_dims]`, means over seeds."""

    dims: tuple[int, ...]
    log2_modern: np.ndarray
    """log2 of the number of patterns that the modern network keeps"""
    classical: np.ndarray
    """patterns that the classical network keeps from the same starts"""
    slope: float
    """doublings of the modern capacity per dimension; not below `least_slope(wrong)` in the limit"""
    slope_low: float
    slope_high: float
    settings: dict[str, Any]

    def to_records(self) -> list[dict[str, float]]:
        """One plain dict per dimension: `d, modern, classical`."""
        rows = zip(self.dims, self.log2_modern.tolist(), self.classical.tolist(), strict=True)
        return [{"d": d, "modern": 2**log2, "classical": classical} for d, log2, classical in rows]

    def to_json(self) -> dict[str, Any]:
        return as_json(self)

    def save(self, path: Path | str) -> None:
        save_json(self, path)


def compare_capacity(
    dims: tuple[int, ...], *, wrong: float = 0.2, n_seeds: int = 4, n_starts: int = 100, seed: int = 0
) -> CapacityCurve:
    """Capacities of both networks from starts with a share `wrong` of their spins turned.

    The number of patterns doubles until fewer than `KEPT` of the starts come back; the crossing is taken between, on
    a log scale. Raises `ConfigError` on fewer than two dimensions or seeds, or no start.
    """
    few = len(set(dims)) < 2 or n_seeds < 2 or n_starts < 1
    if few or not 0 < wrong < 0.5 or round(wrong * min(dims)) < 1:
        raise ConfigError(
            "two dimensions, two seeds, a start, and from one wrong spin to fewer than half were expected (starts "
            f"without any ask for stability only), got dimensions {dims}, {n_seeds} seeds, {n_starts} starts, a share "
            f"of {wrong}"
        )
    modern, classical = np.zeros((2, len(dims), n_seeds))
    with one_thread():
        for number in range(n_seeds):
            for i, d in enumerate(dims):
                generator = make_generator(seed, "capacity", number, d)
                modern[i, number] = _doublings(d, wrong, n_starts, generator, _kept_by_modern)
                classical[i, number] = 2 ** _doublings(d, wrong, n_starts, generator, _kept_by_classical)
    slopes = np.array([np.polyfit(dims, modern[:, number], 1)[0] for number in range(n_seeds)])
    slope, low, high = t_interval(slopes)
    return CapacityCurve(
        dims=tuple(dims),
        log2_modern=modern.mean(1),
        classical=classical.mean(1),
        slope=float(slope),
        slope_low=float(low),
        slope_high=float(high),
        settings={"wrong": wrong, "n_seeds": n_seeds, "n_starts": n_starts, "seed": seed, "kept": KEPT, "beta": 1.0},
    )


def least_slope(wrong: float) -> float:
    """Doublings per dimension that large networks reach at least, from starts with a share `wrong` of wrong spins."""
    if not 0 < wrong < 0.5:
        raise ConfigError(f"a share of wrong spins between 0 and 0.5 was expected, got {wrong}; 0.2 is usual here")
    m = 1 - 2 * wrong
    rate = ((1 + m) * math.log1p(m) + (1 - m) * math.log1p(-m)) / 2
    return rate / 2 / math.log(2)


def _doublings(d: int, wrong: float, n_starts: int, generator: torch.Generator, kept_by: KeptBy) -> float:
    """log2 of the number of patterns at which the share of starts kept falls through `KEPT`."""
    before = 1.0
    for power in range(1, 26):
        patterns = torch.randint(2, (2**power, d), generator=generator, dtype=torch.int8).float() * 2 - 1
        chosen = torch.randint(2**power, (n_starts,), generator=generator)
        starts = patterns[chosen].clone()
        turned = torch.rand(n_starts, d, generator=generator).argsort(1)[:, : round(wrong * d)]
        starts.scatter_(1, turned, -starts.gather(1, turned))
        kept = kept_by(patterns, starts, patterns[chosen])
        if kept < KEPT:
            return power - 1 + (before - KEPT) / (before - kept)
        before = kept
    raise ConfigError(f"more than 2^25 patterns of {d} spins are kept; use fewer dimensions")


def _kept_by_modern(patterns: torch.Tensor, starts: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of starts that one step brings back; the sum over patterns is taken in chunks around each start's best."""
    top, total = torch.full((len(starts), 1), -torch.inf), torch.zeros_like(starts)
    for part in patterns.split(max(1, _CHUNK // len(starts))):
        scores = starts @ part.T
        new = torch.maximum(top, scores.amax(1, keepdim=True))
        total = total * (top - new).exp() + (scores - new).exp() @ part
        top = new
    return float(((total > 0) == (truth > 0)).all(1).double().mean())


def _kept_by_classical(patterns: torch.Tensor, starts: torch.Tensor, truth: torch.Tensor) -> float:
    final, _ = recall(hebb(patterns), starts)
    return float((final == truth).all(1).double().mean())
