"""Build an atlas: a map of vectors, its regions, the true neighbours, and the quality of the map.

1. nearest neighbours in the full space, exact or, for very many vectors, approximate (`neighbours`)
2. positions (`layout`), or positions of new points on an existing map (`place_points`)
3. quality against the full space (`neighbours`)
4. regions at several zoom levels, their labels, local density (`regions`)
5. the mean vector of each cell of a grid as tokens or features, where the source has a readout (`cells`)
6. all of it as a `VectorMap`

**A series** is aligned maps of the same points in several spaces (layers, checkpoints), drawn in one frame. Two maps
laid out independently differ by rotation, reflection and the randomness of the layout. Here the first map is laid out
alone. Each further one starts from the map before and is drawn towards it after every epoch,

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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from interp.artifacts import Table
from interp.atlas.cells import cell_table
from interp.atlas.layout import AT_ONCE, Layout, Mover, fuzzy_graph, lay_out, place_points, principal_components, spread
from interp.atlas.neighbours import (
    K,
    Neighbours,
    NeighbourSearch,
    check_vectors,
    find_neighbours,
    measure_quality,
    rescaled,
    retained_neighbours,
    unit_rows,
)
from interp.atlas.regions import NO_REGIONS, Regions, find_regions, local_density, naming_of, outside_of, region_table
from interp.atlas.sources import AtlasSource, joined
from interp.atlas.vector_map import (
    FramePoint,
    FrameQuality,
    MapPoint,
    MapSettings,
    Neighbourhood,
    Quality,
    StillMovement,
    VectorMap,
    VectorMapSettings,
)
from interp.errors import ConfigError, MismatchError
from interp.progress import Progress
from interp.seeds import derive_seed, make_generator


def point_table(source: AtlasSource, positions: np.ndarray, regions: Regions, retained: np.ndarray) -> Table[MapPoint]:
    """Return one row per point."""
    import pyarrow as pa

    n, n_levels = len(positions), len(regions.levels)
    bounds = pa.array(np.arange(n + 1) * n_levels, pa.int32())
    columns = {
        "point": pa.array(np.arange(n), pa.int32()),
        "x": pa.array(positions[:, 0], pa.float32()),
        "y": pa.array(positions[:, 1], pa.float32()),
        "label": pa.array(source.labels, pa.string()),
        "density": pa.array(local_density(positions), pa.float32()),
        "item": pa.array(source.items, pa.int32()),
        "value": pa.array(source.values, pa.float32()),
        "kept": pa.array(retained, pa.float32()),
        "levels": pa.ListArray.from_arrays(bounds, pa.array(regions.levels.T.ravel(), pa.int32())),
        "context": pa.array(source.contexts or [None] * n, pa.string()),
        "group": pa.array(source.groups or [None] * n, pa.string()),
    }
    return Table.of_columns(MapPoint, columns)


def neighbour_table(near: Neighbours, vectors: Tensor, metric: str) -> Table[Neighbourhood]:
    """Return each point's nearest neighbours in the full space."""
    import pyarrow as pa

    n, k = near.indices.shape
    bounds = pa.array(np.arange(n + 1) * k, pa.int32())
    cosines = cosines_of(near, vectors, metric)
    columns = {
        "point": pa.array(np.arange(n), pa.int32()),
        "neighbours": pa.ListArray.from_arrays(bounds, pa.array(near.indices.flatten().numpy(), pa.int32())),
        "cosines": pa.ListArray.from_arrays(bounds, pa.array(cosines.flatten().numpy(), pa.float32())),
    }
    return Table.of_columns(Neighbourhood, columns)


def cosines_of(near: Neighbours, vectors: Tensor, metric: str) -> Tensor:
    """Return cosines of the neighbours, `[n, k]`, whichever metric found them."""
    if metric == "cosine":
        return 1 - near.distances
    unit = unit_rows(vectors)
    cosines = torch.empty(near.indices.shape)
    for column, others in enumerate(near.indices.T):
        cosines[:, column] = (unit * unit[others]).sum(1)
    return cosines


def notes_on(
    source: AtlasSource,
    layout: Layout,
    nearest: NeighbourSearch,
    quality: Quality | None,
    regions: Regions,
    n_neighbors: int,
    n_given: int,
) -> tuple[str, ...]:
    """Return every departure from the request, and every caveat."""
    n = len(source.vectors)
    notes = [*source.notes, *([layout.note] if layout.note else [])]
    if n < n_given:
        notes.append(f"{n:,} of {n_given:,} points, a seeded uniform sample")
    if quality is None:
        notes.append(f"too few points for a quality measure over {K} neighbours")
    notes += oddities(source.vectors, nearest.neighbours, n_neighbors)
    return (*notes, *([] if regions.table else [NO_REGIONS]))


def oddities(vectors: Tensor, near: Neighbours, n_neighbors: int) -> list[str]:
    """Return caveats about the points: too few, copies of each other, zero vectors, a disconnected graph."""
    n, k = near.indices.shape
    notes = []
    if k < n_neighbors:
        notes.append(f"{n} points have at most {k} neighbours each, {n_neighbors} were asked for")
    if k == 0:
        return notes
    copies = copies_of_another(vectors, near)
    if copies:
        notes.append(
            f"{copies:,} of {n:,} vectors equal another one: copies lie together and fill each other's neighbour lists"
        )
    zero = int((vectors == 0).all(1).sum())
    if zero:
        notes.append(f"{zero:,} vectors are zero and have no direction: their cosine with all others counts as 0")
    parts = connected_parts(near)
    if parts > 1:
        notes.append(
            f"the neighbour graph has {parts:,} connected components: their distances from each other and their "
            "orientations on the map carry no meaning"
        )
    return notes


def copies_of_another(vectors: Tensor, near: Neighbours) -> int:
    """Count the vectors that equal their nearest neighbour in every coordinate."""
    return sum(
        int((vectors[rows] == vectors[near.indices[rows, 0]]).all(1).sum())
        for rows in torch.arange(len(vectors)).split(8192)
    )


def connected_parts(near: Neighbours) -> int:
    """Count the connected components of the neighbour graph, taken as undirected."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    n, k = near.indices.shape
    columns, starts = near.indices.numpy().ravel().astype(np.int32), np.arange(n + 1) * k
    graph = csr_matrix((np.ones(n * k, np.int8), columns, starts), shape=(n, n))
    return int(connected_components(graph, directed=False, return_labels=False))


OLD, NEW = "on the map", "new"


class Frames(NamedTuple):
    """Parts of a map of several spaces beyond the last of them."""

    frames: Table[FramePoint] | None
    frame_quality: tuple[FrameQuality, ...]
    moved_null: StillMovement | None


NO_FRAMES = Frames(None, (), None)


def build_atlas(
    source: AtlasSource, settings: MapSettings | None = None, *, seed: int = 0, progress: Progress | None = None
) -> VectorMap:
    """Return a map of a source.

    `settings` are method, neighbours and labels; the default is `MapSettings()`.

    The same seed gives the same map; with `umap` and `pca` also on any number of threads. `progress` may raise to stop.
    Raises `ConfigError` (no vectors, lists of other lengths), `NonFiniteError` naming the row with NaN.
    """
    settings = settings or MapSettings()
    check_source(source)
    points = source.chosen(choose_points(len(source.vectors), settings.max_points, seed))
    nearest = search(points.vectors, settings, seed, progress)
    layout = lay_out(
        points.vectors,
        nearest.neighbours,
        method=settings.method,
        metric=settings.metric,
        min_dist=settings.min_dist,
        seed=derive_seed(seed, "layout"),
        progress=stage(progress, "layout"),
    )
    return finish(settings_of_map(settings, source), points, nearest, layout, seed, n_given=len(source.vectors))


def extend_atlas(new: AtlasSource, old: AtlasSource, onto: VectorMap, *, progress: Progress | None = None) -> VectorMap:
    """Add the points of `new` to the stored map `onto` of the source `old`; no old point moves.

    The new map holds both, old points first under their numbers; the column `group` tells them apart. Neighbours,
    quality and regions are computed over all points together. The seed is that of the old map. Raises `MismatchError`
    when the map was not made from `old`, or the new vectors have another width.
    """
    for source in (new, old):
        check_source(source)
    settings, seed = onto.settings, onto.about.seed or 0
    if not old.parents.items() <= onto.about.parents.items() or new.vectors.shape[1] != old.vectors.shape[1]:
        raise MismatchError(
            f"new points must come from what the map was made of: {onto.name} has vectors of {onto.d} numbers from "
            f"{onto.about.parents}, got vectors of {new.vectors.shape[1]} and {old.parents}; make a map of their own"
        )
    points = old.chosen(choose_points(len(old.vectors), settings.max_points, seed))
    nearest = search(points.vectors, settings, seed, progress).neighbours.distances[:, 0].numpy()
    placed = place_points(
        new.vectors,
        points.vectors,
        onto.positions,
        nearest,
        k=settings.n_neighbors,
        metric=settings.metric,
        min_dist=settings.min_dist,
    )
    both = joined(points, new, groups=(OLD, NEW))
    note = (
        f"{len(new.vectors):,} new points; {np.mean(placed.ordinary == 0):.0%} of them are farther from the map's "
        "vectors than any of those is from its nearest neighbour, so their positions carry little information"
    )
    layout = Layout(np.concatenate([onto.positions, placed.positions]), onto.layout, note)
    nearest_of_both = search(both.vectors, settings, seed, progress)
    of = replace(settings, source=new.source, hook_point=new.hook_point, onto=onto.name)
    return finish(of, both, nearest_of_both, layout, seed, n_given=len(both.vectors))


def finish(
    settings: VectorMapSettings,
    source: AtlasSource,
    nearest: NeighbourSearch,
    layout: Layout,
    seed: int,
    *,
    n_given: int,
    frames: Frames = NO_FRAMES,
) -> VectorMap:
    """Measure quality, find and label regions, and return the map."""
    metric, near = settings.metric, nearest.neighbours
    tokens = source.item_kind in ("token", "row")
    subjects = source.labels if source.subjects is None else source.subjects
    names_seed = derive_seed(seed, "region names")
    generator = make_generator(seed, "quality")
    with ThreadPoolExecutor(1) as pool:  # regions keep one core busy, the products of the quality all others
        measuring = pool.submit(measure_quality, source.vectors, layout.positions, metric=metric, generator=generator)
        regions = find_regions(layout.positions, subjects, tokens=tokens, contexts=source.contexts, seed=names_seed)
        quality = measuring.result()
    cells = None if source.readout is None else cell_table(layout.positions, source.vectors, source.readout)
    grids = () if cells is None else tuple(np.unique(cells.columns("grid")["grid"]).tolist())
    return VectorMap(
        settings=settings,
        n_points=len(source.vectors),
        n_given=n_given,
        d=source.vectors.shape[1],
        layout=layout.method,
        quality=quality,
        search=nearest.search,
        search_recall=nearest.recall,
        grids=grids,
        value_name=source.value_name,
        item_kind=source.item_kind,
        features=source.features,
        notes=notes_on(source, layout, nearest, quality, regions, settings.n_neighbors, n_given),
        points=point_table(source, layout.positions, regions, retained_neighbours(near.indices, layout.positions)),
        regions=region_table(regions),
        neighbours=neighbour_table(near, source.vectors, metric),
        cells=cells,
        regions_per_level=regions.per_level,
        naming=naming_of(regions),
        outside=outside_of(regions),
        **frames._asdict(),
    )


def settings_of_map(settings: MapSettings, source: AtlasSource) -> VectorMapSettings:
    """Return the settings of the map of a source."""
    return VectorMapSettings(**vars(settings), source=source.source, hook_point=source.hook_point)


def search(vectors: Tensor, settings: MapSettings, seed: int, progress: Progress | None) -> NeighbourSearch:
    """Return the nearest neighbours from which a map is laid out."""
    return find_neighbours(
        vectors,
        settings.n_neighbors,
        metric=settings.metric,
        generator=make_generator(seed, "neighbours"),
        progress=stage(progress, "neighbours"),
    )


def stage(progress: Progress | None, name: str) -> Progress | None:
    """Return the same progress callback with the name of the current step added to its information."""
    if progress is None:
        return None
    return lambda done, total, info: progress(done, total, {"step": name, **info})


def check_source(source: AtlasSource) -> None:
    """Check shapes and values before any work: raise `ConfigError` or `NonFiniteError`."""
    vectors = source.vectors
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise ConfigError(f"an atlas needs vectors as [n, d] with at least one, got shape {list(vectors.shape)}")
    lengths = {"labels": source.labels, "items": source.items, "values": source.values}
    lengths |= {"contexts": source.contexts, "groups": source.groups, "subjects": source.subjects}
    wrong = {name: len(rows) for name, rows in lengths.items() if rows is not None and len(rows) != len(vectors)}
    if wrong:
        raise ConfigError(f"{len(vectors)} vectors need as many labels, items and values, got {wrong}")
    check_vectors(vectors, f"vectors of {source.source}")


def choose_points(n: int, max_points: int | None, seed: int) -> Tensor:
    """Return the sorted numbers of the points to map: all, or a seeded uniform sample."""
    if max_points is None or n <= max_points:
        return torch.arange(n)
    return torch.randperm(n, generator=make_generator(seed, "points"))[:max_points].sort().values


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
    begin = partial(Mover, min_dist=min_dist, seed=derive_seed(seed, "layout"))
    start = spread(principal_components(rescaled(spaces[0]), 2), make_generator(seed, "start"))
    positions: list[np.ndarray] = []
    for at, near in enumerate(neighbours):
        mover = begin(fuzzy_graph(near), positions[-1] if at else start)
        draw(mover, positions[-1] if at else None, strength, _stage_of_map(progress, at, len(spaces)))
        positions.append(mover.positions)
    again = begin(fuzzy_graph(neighbours[0]), positions[0])
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


def check_spaces(spaces: Sequence[Tensor], names: Sequence[object], strength: float) -> None:
    """Raise `ConfigError` unless there are two or more spaces of equally many points, and one item of `each` for each.

    It also checks that `strength` lies in 0 to 1.
    """
    if len(spaces) < 2 or len(spaces) != len(names):
        raise ConfigError(
            f"maps to align need two spaces or more and as many names or neighbour lists, got {len(spaces)} spaces and "
            f"{len(names)} of the latter"
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
    for before, after in pairwise(neighbours):
        pairs = zip(before.indices.split(8192), after.indices.split(8192), strict=True)
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

    `settings` are those of all maps; the default is `MapSettings()`.

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
    graphs = [search(source.vectors, settings, seed, progress) for source in chosen]
    maps = lay_out_aligned(
        [source.vectors for source in chosen],
        [knn.neighbours for knn in graphs],
        min_dist=settings.min_dist,
        strength=strength,
        seed=seed,
        progress=stage(progress, "layout"),
    )
    retained = [retained_neighbours(knn.neighbours.indices, at) for knn, at in zip(graphs, maps.positions, strict=True)]
    null = StillMovement(median=float(np.median(maps.null)), high=float(np.quantile(maps.null, 0.95)))
    frames = Frames(frame_table(maps, retained), frame_qualities(chosen, maps, settings, seed), null)
    last = Layout(maps.positions[-1], "umap", f"one of {len(names)} maps in one frame: {', '.join(names)}")
    together = replace(settings_of_map(settings, sources[-1]), frames=tuple(names), strength=strength)
    return finish(together, chosen[-1], graphs[-1], last, seed, n_given=len(sources[0].vectors), frames=frames)


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
