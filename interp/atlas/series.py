"""An atlas of several spaces: one map per layer or checkpoint, in one frame, as steps of a slider.

The folder is an atlas of the last space (its regions, its neighbours), with the table `frames` beside it: where every
point is on every map, how much each map keeps, how far the point moved and how many of its neighbours stayed. So the
regions that there are in the end can be followed back to where they come from.

Maps of the same points in several spaces (layers, checkpoints), drawn in one frame, so that what moves has changed.

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
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.artifacts import Draft, Manifest, write_table
from interp.atlas.build import MapSettings, check_source, choose_points, finish, search, stage
from interp.atlas.layout import AT_ONCE, Layout, Mover, fuzzy_graph, principal_components, spread
from interp.atlas.neighbours import Neighbours, rescaled
from interp.atlas.quality import Quality, kept_neighbours, measure_quality
from interp.atlas.sources import AtlasSource
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


def build_series(
    sources: list[AtlasSource],
    names: list[str],
    folder: Path,
    settings: MapSettings | None = None,
    *,
    strength: float = STRENGTH,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Maps of `sources`, which hold the same points in the same order, called `names`.

    `strength` holds each map to the one before (`aligned`). Raises `ConfigError` when the sources hold other points, or
    the method is not `umap`.
    """
    settings = settings or MapSettings()
    if settings.method != "umap":
        raise ConfigError(f"maps in one frame are laid out by umap, not {settings.method}")
    if any(source.labels != sources[0].labels for source in sources):
        raise ConfigError("maps in one frame show the same points in the same order; these sources hold different ones")
    for source in sources:
        check_source(source)
    check_spaces([source.vectors for source in sources], names, strength)
    config = {**asdict(settings), "source": sources[-1].source, "frames": names, "strength": strength}
    draft = Draft.open(folder, kind="atlas", config=config, seed=seed, overwrite=overwrite)
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
    kept = [kept_neighbours(one.neighbours.indices, at) for one, at in zip(found, maps.positions, strict=True)]
    write_frames(draft.path, maps, kept)
    frames = summarise_frames(names, chosen, maps, settings, seed)
    last = Layout(maps.positions[-1], "umap", f"one of {len(names)} maps in one frame: {', '.join(names)}")
    parents = {name: digest for source in sources for name, digest in source.parents.items()}
    return finish(
        draft,
        chosen[-1],
        found[-1],
        last,
        settings,
        seed,
        n_given=len(sources[0].vectors),
        parents=parents,
        more=frames,
    )


def write_frames(folder: Path, maps: AlignedMaps, kept: list[np.ndarray]) -> None:
    """`frames.parquet`: `frame, point, x, y, kept, moved, stayed`; the last two are null on the first frame."""
    import pyarrow as pa

    n_frames, n = len(maps.positions), len(maps.positions[0])
    nothing = np.full((1, n), np.nan, np.float32)
    x, y = np.concatenate(maps.positions).T
    columns = {
        "frame": pa.array(np.repeat(np.arange(n_frames), n), pa.int32()),
        "point": pa.array(np.tile(np.arange(n), n_frames), pa.int32()),
        "x": pa.array(x, pa.float32()),
        "y": pa.array(y, pa.float32()),
        "kept": pa.array(np.concatenate(kept), pa.float32()),
    }
    for name, steps in (("moved", maps.moved), ("stayed", maps.stayed)):
        columns[name] = pa.array(np.concatenate([nothing, steps]).ravel(), pa.float32(), from_pandas=True)
    write_table(folder / "frames.parquet", pa.table(columns))


def summarise_frames(
    names: list[str], sources: list[AtlasSource], maps: AlignedMaps, settings: MapSettings, seed: int
) -> dict[str, Any]:
    """Per frame what the map keeps, how far points moved (median), and the null of that; for the manifest."""
    frames = []
    for at, (name, source, positions) in enumerate(zip(names, sources, maps.positions, strict=True)):
        generator = make_generator(seed, "quality")
        quality = measure_quality(source.vectors, positions, metric=settings.metric, generator=generator)
        frame: dict[str, Any] = {"name": name, **_quality(quality)}
        if at:
            frame |= {
                "moved": round(float(np.median(maps.moved[at - 1])), 4),
                "stayed": round(float(maps.stayed[at - 1].mean()), 4),
            }
        frames.append(frame)
    null = {"median": round(float(np.median(maps.null)), 4), "high": round(float(np.quantile(maps.null, 0.95)), 4)}
    return {"frames": frames, "moved_null": null}


def _quality(quality: Quality | None) -> dict[str, Any]:
    if quality is None:
        return {"trustworthiness": None, "recall_at_15": None}
    return {"trustworthiness": round(quality.trustworthiness, 4), "recall_at_15": round(quality.recall, 4)}
