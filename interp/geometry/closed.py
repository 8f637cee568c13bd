"""Closed or open: does a curve through ordered items end where it began?

The statistic is circular less linear RSA. What it would be is simulated for a circle and for a horseshoe (three
quarters of a circle), both with as many items and with noise, in their plane or in many dimensions, whichever makes it
harder to tell. Of the simulated sets those count whose order is about as clean as the one observed (`quality`, the
larger of the two correlations). So the answer depends on how many items there are and how clean they lie: with few or
noisy ones neither is ruled out.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from interp.geometry.similarity import centred_ranks
from interp.runtime import derive_seed

OPEN_ARC = 270.0
"""degrees of the horseshoe; a shorter arc or a straight line is further from a circle"""
NOISE_DIMS = (2, 24)
N_SIMULATED, N_ALIKE = 2000, 200
NOISE = (0.01, 1.0)
"""smallest and largest standard deviation, where the radius is 1"""


class Closing(NamedTuple):
    """Circular less linear RSA, and how often simulated curves of the same quality go as far."""

    difference: float
    quality: float
    p_open: float
    """share of horseshoes that look at least as closed: small where the curve is closed"""
    p_closed: float
    """share of circles that look at least as open: small where the curve is open"""


def closing(circular: float, linear: float, n: int, cyclic: bool) -> Closing:
    """For the two correlations of `n` items; `cyclic`: the linear one is of the best cut."""
    difference, quality = circular - linear, max(circular, linear)
    as_closed = [_alike(n, cyclic, OPEN_ARC, dims, quality) >= difference for dims in NOISE_DIMS]
    as_open = [_alike(n, cyclic, 360.0, dims, quality) <= difference for dims in NOISE_DIMS]
    p_open, p_closed = (
        max(float((1 + each.sum()) / (1 + len(each))) for each in all_) for all_ in (as_closed, as_open)
    )
    return Closing(difference, quality, p_open, p_closed)


def _alike(n: int, cyclic: bool, arc: float, noise_dims: int, quality: float) -> np.ndarray:
    """Differences of the simulated curves whose quality is nearest."""
    difference, qualities = simulated(n, cyclic, arc, noise_dims)
    return difference[np.argsort(np.abs(qualities - quality), kind="stable")[:N_ALIKE]]


@lru_cache(maxsize=64)
def simulated(n: int, cyclic: bool, arc: float, noise_dims: int) -> tuple[np.ndarray, np.ndarray]:
    """`(difference, quality)` of `N_SIMULATED` noisy curves of `n` items over `arc` degrees, always the same ones."""
    from interp.geometry.circles import order_correlations, order_models

    rng = np.random.default_rng(derive_seed(0, "curves", n, str(arc), noise_dims))
    angles = np.deg2rad(np.arange(n) * (arc / n if arc == 360 else arc / (n - 1)))
    curve = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    noise = np.exp(rng.uniform(*np.log(NOISE), size=(N_SIMULATED, 1, 1)))
    points = noise * rng.standard_normal((N_SIMULATED, n, noise_dims))
    points[:, :, :2] += curve
    distances = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1)
    upper = np.triu_indices(n, 1)
    ranks = np.zeros_like(distances)
    ranks[:, upper[0], upper[1]] = centred_ranks(distances[:, upper[0], upper[1]])
    ranks += ranks.transpose(0, 2, 1)
    found = order_correlations(ranks, order_models(n, cyclic), np.arange(n)[None])[:, 0]
    return found[0] - found[1], found.max(0)
