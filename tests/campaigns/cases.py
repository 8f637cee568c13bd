"""Cases of the campaign of intervals: one kind of interval, or of p-value, on one kind of data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    """One kind of interval on one kind of data."""

    name: str
    """the interval"""
    data: str
    covers: Callable[[Rng, int], np.ndarray]
    """`covers(rng, n)` returns n booleans: did the interval of a fresh draw hold the truth?"""
    share: float = 1.0
    """share of `--n` that is drawn: below 1 for slow cases, above 1 for fast ones"""
    said: str = ""
    """what the text says of it, where coverage is known to be outside the limits"""


@dataclass(frozen=True)
class Null:
    """One kind of p-value on data of its null."""

    name: str
    data: str
    draw: Callable[[Rng, int], np.ndarray]
    """`draw(rng, n)` returns n p-values"""
    share: float = 1.0


def holds(interval: Any, truth: Any) -> np.ndarray:
    """Return where the ends `(estimate, low, high)` of an interval hold the truth."""
    low, high = interval[-2:]
    return (np.asarray(low) <= truth) & (truth <= np.asarray(high))


def each(measure: Callable[[Rng], Any]) -> Callable[[Rng, int], np.ndarray]:
    """Return a drawer that calls `measure` once for every draw."""
    return lambda rng, n: np.array([measure(rng) for _ in range(n)])


def skewed(rng: Rng, shape: tuple[int, ...]) -> np.ndarray:
    """Return log-normal values of mean 1 (skewness 1.75)."""
    return rng.lognormal(-0.125, 0.5, shape)


def draw_seed(rng: Rng) -> int:
    """Return a seed for a function that makes its own generator."""
    return int(rng.integers(2**31))
