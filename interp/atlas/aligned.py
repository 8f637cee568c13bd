"""Maps of the same points in several spaces (layers, checkpoints), drawn in one frame, so that what moves has changed.

Alone, two maps differ by turns, mirrors and the chance of the layout. Here the first is laid out alone, and each
further one starts from the map before and is held to it: after every epoch each point is drawn back

    y <- y + strength * alpha * (its place on the map before - y)

while its own map's ties pull as always. (AlignedUMAP, Dadu et al. 2023, draws both ways; a cluster that is to join
another then lies beside it from the start, and its move cannot be seen.) `strength` 0 leaves each map free from its
start. How far points move is measured in units of the maps' size. Two things are said beside it: how far they move when
nothing has changed (the first space as its own successor: the null), and what changed in the full spaces, with no map
involved: the share of a point's neighbours that it keeps.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.atlas.engine import AT_ONCE, Mover
from interp.atlas.fuzzy import fuzzy_graph
from interp.atlas.layout import principal_components, spread
from interp.atlas.neighbours import Neighbours, rescaled
from interp.errors import ConfigError
from interp.progress import Progress
from interp.runtime import derive_seed, make_generator

STRENGTH = 0.05
"""Measured on planted moves, three seeds: at .05 (as at .2 and .5) each map is as true as alone; at .2 a group that
joined another is drawn halfway to it only, at .5 not at all."""
SKIPPED = 0.5
"""share of the schedule that a map leaves out which starts from the one before: as true, and half the time"""


class AlignedMaps(NamedTuple):
    """One map per space, in one frame."""

    positions: list[np.ndarray]
    """each `[n, 2]` float32"""
    moved: np.ndarray
    """`[n_maps - 1, n]` float32: how far each point goes from one map to the next; 1 is the radius of the maps (root
    mean square distance from their middle)"""
    stayed: np.ndarray
    """`[n_maps - 1, n]` float32: share of each point's neighbours in one space that are neighbours in the next, no map
    involved; 1: nothing changed around it, 0: everything"""
    null: np.ndarray
    """`[n]` float32: how far each point moves when nothing changes, the first space after itself"""


def lay_out_aligned(
    spaces: Sequence[Tensor],
    neighbours: Sequence[Neighbours],
    *,
    min_dist: float = 0.1,
    strength: float = STRENGTH,
    seed: int = 0,
    progress: Progress | None = None,
) -> AlignedMaps:
    """Maps of `spaces`, each `[n, d]` of the same `n` points in the same order (`d` may differ).

    Raises `ConfigError` for fewer than two spaces, other numbers of points, or a strength outside 0 to 1.
    """
    check_spaces(spaces, neighbours, strength)
    settings = {"min_dist": min_dist, "seed": derive_seed(seed, "layout")}
    start = spread(principal_components(rescaled(spaces[0]), 2), make_generator(seed, "start"))
    positions: list[np.ndarray] = []
    for at, near in enumerate(neighbours):
        mover = Mover(fuzzy_graph(near), positions[-1] if at else start, **settings)
        draw(mover, positions[-1] if at else None, strength, _stage_of_map(progress, at, len(spaces)))
        positions.append(mover.positions)
    again = Mover(fuzzy_graph(neighbours[0]), positions[0], **settings)
    draw(again, positions[0], strength, None)
    placed = in_one_frame(positions)
    null = movement(in_one_frame([positions[0], again.positions]))[0]
    return AlignedMaps(placed, movement(placed), neighbours_that_stay(neighbours), null)


def draw(mover: Mover, held_to: np.ndarray | None, strength: float, progress: Progress | None) -> None:
    """Lay a map out: alone, or held to the one before and from the middle of the schedule on."""
    total = mover.n_epochs
    first = 0 if held_to is None else round(SKIPPED * total)
    for epoch in range(first, total):
        mover.run(epoch, epoch + 1)
        if held_to is not None and strength:
            mover.shift(np.float32(strength * (1 - epoch / total)) * (held_to - mover.positions))
        if progress is not None and (epoch + 1) % AT_ONCE == 0:
            progress(epoch + 1, total, {})


def _stage_of_map(progress: Progress | None, at: int, n_maps: int) -> Progress | None:
    """The same progress over all maps."""
    if progress is None:
        return None
    return lambda done, total, info: progress(at * total + done, n_maps * total, {"map": at + 1, **info})


def check_spaces(spaces: Sequence[Tensor], each: Sequence[Any], strength: float) -> None:
    """Raise `ConfigError` unless there are several spaces of equally many points, and `each` has one thing for each."""
    if len(spaces) < 2 or len(spaces) != len(each):
        raise ConfigError(
            f"maps to align need two spaces or more, got {len(spaces)} (and {len(each)} of what goes along)"
        )
    sizes = sorted({len(space) for space in spaces})
    if len(sizes) > 1:
        raise ConfigError(f"aligned maps show the same points in every space; these have {sizes}")
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength must lie between 0 (alone) and 1, got {strength}")


def neighbours_that_stay(neighbours: Sequence[Neighbours]) -> np.ndarray:
    """`[n_maps - 1, n]` float32: share of each point's neighbours that are its neighbours in the next space too."""
    shares = []
    for one, two in pairwise(neighbours):
        pairs = zip(one.indices.split(8192), two.indices.split(8192), strict=True)
        shares.append(torch.cat([(a[:, :, None] == b[:, None, :]).any(2).float().mean(1) for a, b in pairs]))
    return torch.stack(shares).numpy()


def in_one_frame(maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Each map moved, turned and mirrored, never stretched, to lie as near as it can to the one before (Procrustes)."""
    placed = [np.asarray(maps[0], np.float32)]
    for positions in maps[1:]:
        target = placed[-1].astype(np.float64)
        mine = positions.astype(np.float64)
        middle = mine.mean(0)
        u, _, vt = np.linalg.svd((mine - middle).T @ (target - target.mean(0)))
        placed.append(((mine - middle) @ (u @ vt) + target.mean(0)).astype(np.float32))
    return placed


def movement(maps: Sequence[np.ndarray]) -> np.ndarray:
    """`[n_maps - 1, n]` float32: distances between successive places, over the root mean square radius of all maps."""
    radius = np.sqrt(np.mean([np.square(m - m.mean(0)).sum(1).mean() for m in maps]))
    steps = [np.linalg.norm(after - before, axis=1) for before, after in pairwise(maps)]
    return (np.stack(steps) / max(float(radius), 1e-30)).astype(np.float32)
