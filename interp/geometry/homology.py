"""Loops of a point cloud: persistent homology of the Vietoris-Rips filtration (ripser).

A loop is born where the points around it join up, and dies where the hole is filled. A long-lived one is a circle that
is really there. The null is the same cloud without a shape: Gaussian points of the same covariance.

This is for controls and for sets of many points. Of 7 to 12 items even a perfect circle shows nothing, so fewer than
`MIN_POINTS` are refused: `circles` is the test for them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.errors import ConfigError
from interp.geometry.dimension import gaussian_like
from interp.geometry.points import Finding, as_points, centred, check_count
from interp.runtime import derive_seed
from interp.statistics import p_from_null

MIN_POINTS = 20


@dataclass(frozen=True, kw_only=True)
class Loops(Finding):
    """One-dimensional holes of a cloud."""

    births: np.ndarray
    deaths: np.ndarray
    """`[n_loops]`: distances at which each loop appears and is filled, longest-lived first"""
    longest: float
    """`death - birth` of the longest-lived, in units of the points; about 1.4 for a noisy circle of radius 1"""
    null: float
    """mean of the same over Gaussian clouds of the same covariance"""
    null_high: float
    """the largest of them"""
    p: float
    n: int
    n_null: int
    seed: int

    def sentence(self) -> str:
        return (
            f"longest-lived loop of {self.n} points {self.longest:.3f}; Gaussian clouds {self.null:.3f}, at most "
            f"{self.null_high:.3f}; p {self.p:.3g} of {self.n_null}"
        )


def loops(x: Any, *, n_null: int = 19, max_points: int = 200, seed: int = 0) -> Loops:
    """Loops of points `[n, d]`; at most `max_points` are drawn. Cost grows with the cube of the points.

    Raises `ConfigError` with fewer than 20 points, or settings that draw fewer, or no null.
    """
    check_count("max_points", max_points, MIN_POINTS, "fewer cannot show a loop")
    check_count("n_null", n_null, 1, "a loop is never given without its null")
    points = as_points(x)
    if len(points) < MIN_POINTS:
        raise ConfigError(
            f"{len(points)} points cannot show a loop, a perfect circle of them would not; {MIN_POINTS} are needed. "
            "interp.geometry.circles tests few items in a known order"
        )
    rng = np.random.default_rng(derive_seed(seed, "loops"))
    points = centred(points[np.sort(rng.permutation(len(points))[:max_points])])
    diagram = _diagram(points)
    null = np.array([_longest(_diagram(gaussian_like(points, rng))) for _ in range(n_null)])
    longest = _longest(diagram)
    return Loops(
        births=diagram[:, 0],
        deaths=diagram[:, 1],
        longest=longest,
        null=float(null.mean()),
        null_high=float(null.max()),
        p=p_from_null(longest, null),
        n=len(points),
        n_null=n_null,
        seed=seed,
    )


def _diagram(points: np.ndarray) -> np.ndarray:
    """`[n_loops, 2]` births and deaths, longest-lived first."""
    from ripser import ripser

    diagram = np.asarray(ripser(points, maxdim=1)["dgms"][1], dtype=np.float64)
    return diagram[np.argsort(diagram[:, 0] - diagram[:, 1], kind="stable")]


def _longest(diagram: np.ndarray) -> float:
    return float((diagram[:, 1] - diagram[:, 0]).max()) if len(diagram) else 0.0
