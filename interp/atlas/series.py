"""Aligned maps of the same points in several spaces (layers, checkpoints), drawn in one frame.

Two maps laid out independently differ by rotation, reflection and the randomness of the layout. Here the first map is
laid out alone. Each further one starts from the map before and is drawn towards it after every epoch,

    y <- y + strength * alpha * (position on the map before - y)

in addition to the forces of its own graph; with `strength` 0 only the start is shared. (AlignedUMAP, Dadu et al. 2023,
couples maps in both directions: a cluster that will join another lies next to it from the start, so that its move
cannot be seen.)

Displacements are in units of the maps' radius. Two references go with them: a null, the displacement of points when
nothing changed (the first space after itself); and the change in the full spaces, without any map: the fraction of a
point's neighbours that are still its neighbours in the next space.

A series is an atlas of the last space, its regions and neighbours included, with a further table `frames`: the
positions of every point, neighbours retained, displacement, and neighbours that stayed. So the final regions can be
traced back to where they come from.
"""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from interp.artifacts import Table
from interp.atlas.build import Frames, check_source, choose_points, finish, search, stage
from interp.atlas.config import MapSettings
from interp.atlas.layout import AT_ONCE, Layout, Mover, fuzzy_graph, principal_components, spread
from interp.atlas.neighbours import Neighbours, rescaled
from interp.atlas.quality import measure_quality, retained_neighbours
from interp.atlas.sources import AtlasSource
from interp.atlas.vector_map import FramePoint, FrameQuality, StillMovement, VectorMap, VectorMapSettings
from interp.errors import ConfigError
from interp.progress import Progress
from interp.seeds import derive_seed, make_generator

STRENGTH = 0.05
"""Strength of the alignment. Measured on planted moves, three seeds: at 0.05, 0.2 and 0.5 each map is as faithful as
one laid out alone. But at 0.2 a group that joined another is shown only halfway to it, at 0.5 not at all."""
SKIPPED = 0.5
"""fraction of the epochs omitted for a map that starts from the one before: as faithful, in half the time"""


class AlignedMaps(NamedTuple):
    """One map per space, in one frame."""

    positions: list[Float32[np.ndarray, "n 2"]]
    """each `[n, 2]` float32"""
    moved: Float32[np.ndarray, "n_steps n"]
    """`[n_maps - 1, n]` float32: displacement of each point from one map to the next; 1 is the radius of the maps (root
    mean square distance from their centre)"""
    stayed: Float32[np.ndarray, "n_steps n"]
    """`[n_maps - 1, n]` float32: fraction of each point's neighbours in one full space that are its neighbours in the
    next; 1: the same neighbours, 0: none in common"""
    null: Float32[np.ndarray, " n"]
    """`[n]` float32: displacement of each point when nothing changes (the first space after itself)"""


def lay_out_aligned(
    spaces: Sequence[Float[Tensor, "n _"]],
    neighbours: Sequence[Neighbours],
    *,
    min_dist: float = 0.1,
    strength: float = STRENGTH,
    seed: int = 0,
    progress: Progress | None = None,
) -> AlignedMaps:
    """Lay out `spaces`, each `[n, d]` of the same `n` points in the same order, in one frame; `d` may differ.

    Raises `ConfigError` for fewer than two spaces, unequal numbers of points, or a strength outside 0 to 1.
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


def draw(mover: Mover, previous: np.ndarray | None, strength: float, progress: Progress | None) -> None:
    """Lay out one map: alone, or aligned with the previous one and from the middle of the schedule on."""
    total = mover.n_epochs
    first = 0 if previous is None else round(SKIPPED * total)
    for epoch in range(first, total):
        mover.run(epoch, epoch + 1)
        if previous is not None and strength:
            mover.shift(np.float32(strength * (1 - epoch / total)) * (previous - mover.positions))
        if progress is not None and (epoch + 1) % AT_ONCE == 0:
            progress(epoch + 1, total, {})


def _stage_of_map(progress: Progress | None, at: int, n_maps: int) -> Progress | None:
    """Return a progress callback that counts one map's epochs towards those of all maps."""
    if progress is None:
        return None
    return lambda done, total, info: progress(at * total + done, n_maps * total, {"map": at + 1, **info})


def check_spaces(spaces: Sequence[Tensor], each: Sequence[Any], strength: float) -> None:
    """Raise `ConfigError` unless there are two or more spaces of equally many points, and one item of `each` for each.

    It also checks that `strength` lies in 0 to 1.
    """
    if len(spaces) < 2 or len(spaces) != len(each):
        raise ConfigError(
            f"maps to align need two spaces or more and as many names or neighbour lists, got {len(spaces)} spaces and "
            f"{len(each)} of the latter"
        )
    sizes = sorted({len(space) for space in spaces})
    if len(sizes) > 1:
        raise ConfigError(f"aligned maps show the same points in every space; these spaces have {sizes} points")
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength must lie between 0 (not aligned) and 1, got {strength}")


def neighbours_that_stay(neighbours: Sequence[Neighbours]) -> Float32[np.ndarray, "n_steps n"]:
    """Return the fraction of each point's neighbours that are its neighbours in the next space too.

    `[n_maps - 1, n]` float32, 0 to 1.
    """
    shares = []
    for one, two in pairwise(neighbours):
        pairs = zip(one.indices.split(8192), two.indices.split(8192), strict=True)
        shares.append(torch.cat([(a[:, :, None] == b[:, None, :]).any(2).float().mean(1) for a, b in pairs]))
    return torch.stack(shares).numpy()


def in_one_frame(maps: Sequence[Float[np.ndarray, "n 2"]]) -> list[Float32[np.ndarray, "n 2"]]:
    """Align each map with the one before by translation, rotation and reflection, without scaling (Procrustes)."""
    placed = [np.asarray(maps[0], np.float32)]
    for positions in maps[1:]:
        target = placed[-1].astype(np.float64)
        mine = positions.astype(np.float64)
        middle = mine.mean(0)
        u, _, vt = np.linalg.svd((mine - middle).T @ (target - target.mean(0)))
        placed.append(((mine - middle) @ (u @ vt) + target.mean(0)).astype(np.float32))
    return placed


def movement(maps: Sequence[Float[np.ndarray, "n 2"]]) -> Float32[np.ndarray, "n_steps n"]:
    """Return displacements between successive maps, `[n_maps - 1, n]` float32.

    They are in units of the root mean square radius of all maps.
    """
    radius = np.sqrt(np.mean([np.square(m - m.mean(0)).sum(1).mean() for m in maps]))
    steps = [np.linalg.norm(after - before, axis=1) for before, after in pairwise(maps)]
    return (np.stack(steps) / max(float(radius), 1e-30)).astype(np.float32)


def build_series(
    sources: list[AtlasSource],
    names: list[str],
    settings: MapSettings | None = None,
    *,
    strength: float = STRENGTH,
    seed: int = 0,
    progress: Progress | None = None,
) -> VectorMap:
    """Return one map per source, in one frame.

    The `sources` hold the same points in the same order; `names` name the maps. `strength` (0 to 1) aligns each map
    with the one before. Raises `ConfigError` when the sources hold different points, or the method is not `umap`.
    """
    settings = settings or MapSettings()
    if settings.method != "umap":
        raise ConfigError(f"maps in one frame are laid out by umap, not {settings.method}")
    if any(source.labels != sources[0].labels for source in sources):
        raise ConfigError("maps in one frame show the same points in the same order; these sources hold different ones")
    for source in sources:
        check_source(source)
    check_spaces([source.vectors for source in sources], names, strength)
    points = choose_points(len(sources[0].vectors), settings.max_points, seed)
    chosen = [source.chosen(points) for source in sources]
    found = [search(source.vectors, settings, seed, progress) for source in chosen]
    maps = lay_out_aligned(
        [source.vectors for source in chosen],
        [one.neighbours for one in found],
        min_dist=settings.min_dist,
        strength=strength,
        seed=seed,
        progress=stage(progress, "layout"),
    )
    retained = [retained_neighbours(one.neighbours.indices, at) for one, at in zip(found, maps.positions, strict=True)]
    null = StillMovement(median=float(np.median(maps.null)), high=float(np.quantile(maps.null, 0.95)))
    frames = Frames(frame_table(maps, retained), frame_qualities(chosen, maps, settings, seed), null)
    last = Layout(maps.positions[-1], "umap", f"one of {len(names)} maps in one frame: {', '.join(names)}")
    of = VectorMapSettings(
        **asdict(settings),
        source=sources[-1].source,
        hook_point=sources[-1].hook_point,
        frames=tuple(names),
        strength=strength,
    )
    return finish(of, chosen[-1], found[-1], last, seed, n_given=len(sources[0].vectors), frames=frames)


def frame_table(maps: AlignedMaps, retained: list[np.ndarray]) -> Table[FramePoint]:
    """Return one row per point and map; `moved` and `stayed` are null on the first map."""
    import pyarrow as pa

    n_frames, n = len(maps.positions), len(maps.positions[0])
    nothing = np.full((1, n), np.nan, np.float32)
    x, y = np.concatenate(maps.positions).T
    columns = {
        "frame": pa.array(np.repeat(np.arange(n_frames), n), pa.int32()),
        "point": pa.array(np.tile(np.arange(n), n_frames), pa.int32()),
        "x": pa.array(x, pa.float32()),
        "y": pa.array(y, pa.float32()),
        "kept": pa.array(np.concatenate(retained), pa.float32()),
    }
    for name, steps in (("moved", maps.moved), ("stayed", maps.stayed)):
        columns[name] = pa.array(np.concatenate([nothing, steps]).ravel(), pa.float32(), from_pandas=True)
    return Table.of_columns(FramePoint, columns)


def frame_qualities(
    sources: list[AtlasSource], maps: AlignedMaps, settings: MapSettings, seed: int
) -> tuple[FrameQuality, ...]:
    """Return each map's quality, median displacement and mean fraction of neighbours that stayed."""
    frames = []
    for at, (source, positions) in enumerate(zip(sources, maps.positions, strict=True)):
        generator = make_generator(seed, "quality")
        quality = measure_quality(source.vectors, positions, metric=settings.metric, generator=generator)
        moved = float(np.median(maps.moved[at - 1])) if at else None
        frames.append(
            FrameQuality(quality=quality, moved=moved, stayed=float(maps.stayed[at - 1].mean()) if at else None)
        )
    return tuple(frames)
