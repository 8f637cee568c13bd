"""Build an atlas folder: a map of vectors, its regions, the true neighbours, and the quality of the map.

1. nearest neighbours in the full space, exact or, for very many vectors, approximate (`neighbours`)
2. positions (`layout`), or positions of new points on an existing map (`place_points`)
3. quality against the full space (`quality`)
4. regions at several zoom levels, their labels, local density (`regions`)
5. the mean vector of each cell of a grid as tokens or features, where the source has a readout (`cells`)
6. tables, and a manifest with a summary (`docs/formats.md`)
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interp.artifacts import Draft, Manifest, read_manifest, read_table, write_table
from interp.atlas.cells import write_cells
from interp.atlas.config import MapSettings
from interp.atlas.layout import Layout, lay_out, place_points
from interp.atlas.neighbours import Found, Neighbours, check_vectors, find_neighbours, unit_rows
from interp.atlas.quality import K, Quality, measure_quality, retained_neighbours
from interp.atlas.regions import (
    NO_REGIONS,
    Regions,
    find_regions,
    local_density,
    region_columns,
    summarise_regions,
    write_regions,
)
from interp.atlas.sources import AtlasSource, joined
from interp.errors import ConfigError, MismatchError
from interp.progress import Progress
from interp.runtime import derive_seed, make_generator

if TYPE_CHECKING:
    from interp.atlas.sources import AtlasSource


def write_points(
    folder: Path, source: "AtlasSource", positions: np.ndarray, regions: Regions, retained: np.ndarray
) -> None:
    """Write `points.parquet`, one row per point."""
    import pyarrow as pa

    columns = {
        "point": pa.array(np.arange(len(positions)), pa.int32()),
        "x": pa.array(positions[:, 0], pa.float32()),
        "y": pa.array(positions[:, 1], pa.float32()),
        "label": pa.array(source.labels, pa.string()),
        "density": pa.array(local_density(positions), pa.float32()),
        "item": pa.array(source.items, pa.int32()),
        "value": pa.array(source.values, pa.float32()),
        "kept": pa.array(retained, pa.float32()),
        **{name: pa.array(column, pa.int32()) for name, column in region_columns(regions).items()},
    }
    for name, texts in (("context", source.contexts), ("group", source.groups)):
        if texts is not None:
            columns[name] = pa.array(texts, pa.string())
    write_table(folder / "points.parquet", pa.table(columns))


def read_positions(folder: Path) -> np.ndarray:
    """Return the map positions of the points of an atlas folder, `[n, 2]` float32. Raises `CorruptError`."""
    table = read_table(folder / "points.parquet", ["x", "y"])
    return np.column_stack([table["x"].to_numpy(), table["y"].to_numpy()]).astype(np.float32)


def write_neighbours(folder: Path, near: Neighbours, vectors: Tensor, metric: str) -> None:
    """Write `neighbours.parquet`: each point's nearest neighbours in the full space."""
    import pyarrow as pa

    n, k = near.indices.shape
    bounds = pa.array(np.arange(n + 1) * k, pa.int32())
    cosines = cosines_of(near, vectors, metric)
    columns = {
        "point": pa.array(np.arange(n), pa.int32()),
        "neighbours": pa.ListArray.from_arrays(bounds, pa.array(near.indices.flatten().numpy(), pa.int32())),
        "cosines": pa.ListArray.from_arrays(bounds, pa.array(cosines.flatten().numpy(), pa.float32())),
    }
    write_table(folder / "neighbours.parquet", pa.table(columns))


def cosines_of(near: Neighbours, vectors: Tensor, metric: str) -> Tensor:
    """Return cosines of the neighbours, `[n, k]`, whichever metric found them."""
    if metric == "cosine":
        return 1 - near.distances
    unit = unit_rows(vectors)
    cosines = torch.empty(near.indices.shape)
    for column, others in enumerate(near.indices.T):
        cosines[:, column] = (unit * unit[others]).sum(1)
    return cosines


def summarise(
    source: "AtlasSource", layout: Layout, found: Found, quality: Quality | None, n_neighbors: int, *, n_given: int
) -> dict[str, Any]:
    """Return the summary of the manifest; `notes` lists every departure from the request and every caveat."""
    n = len(source.vectors)
    notes = [*source.notes, *([layout.note] if layout.note else [])]
    if n < n_given:
        notes.append(f"{n:,} of {n_given:,} points, a seeded uniform sample")
    if quality is None:
        notes.append(f"too few points for a quality measure over {K} neighbours")
    notes += oddities(source.vectors, found.neighbours, n_neighbors)
    return {
        "n_points": n,
        "n_given": n_given,
        "d": source.vectors.shape[1],
        "layout": layout.method,
        "trustworthiness": quality and round(quality.trustworthiness, 4),
        "continuity": quality and round(quality.continuity, 4),
        "recall_at_15": quality and round(quality.recall, 4),
        "triplet_accuracy": quality and round(quality.triplets, 4),
        "quality_sample": quality and quality.sample,
        "neighbours": found.how,
        "neighbours_recall": round(found.recall, 4),
        "value_name": source.value_name,
        "item_kind": source.item_kind,
        "features": source.features,
        "notes": notes,
    }


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


def build_atlas(
    source: AtlasSource,
    folder: Path,
    settings: MapSettings | None = None,
    *,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Write the `points`, `regions` and `neighbours` tables of a source, and return the manifest.

    The same seed gives the same map; with `umap` and `pca` also on any number of threads. `progress` may raise to stop.
    Raises `ConfigError` (no vectors, lists of other lengths), `NonFiniteError` naming the row with NaN.
    """
    settings = settings or MapSettings()
    check_source(source)
    config = {"source": source.source, "hook_point": source.hook_point, **asdict(settings)}
    draft = Draft.open(folder, kind="atlas", config=config, seed=seed, overwrite=overwrite)
    given = source.chosen(choose_points(len(source.vectors), settings.max_points, seed))
    found = search(given.vectors, settings, seed, progress)
    layout = lay_out(
        given.vectors,
        found.neighbours,
        method=settings.method,
        metric=settings.metric,
        min_dist=settings.min_dist,
        seed=derive_seed(seed, "layout"),
        progress=stage(progress, "layout"),
    )
    return finish(draft, given, found, layout, settings, seed, n_given=len(source.vectors))


def extend_atlas(
    new: AtlasSource,
    old: AtlasSource,
    old_folder: Path,
    folder: Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Add the points of `new` to the map `old_folder` of the source `old`; no old point moves.

    The new map holds both, old points first under their numbers; the column `group` tells them apart. Neighbours,
    quality and regions are computed over all points together. Raises `MismatchError` when the map was not made from
    `old`, or the new vectors have another width.
    """
    for source in (new, old):
        check_source(source)
    manifest = read_manifest(old_folder)
    of_map = {name: manifest.config[name] for name in ("metric", "method", "n_neighbors", "min_dist", "max_points")}
    settings, seed = MapSettings(**of_map), manifest.seed or 0
    if not old.parents.items() <= manifest.parents.items() or new.vectors.shape[1] != old.vectors.shape[1]:
        raise MismatchError(
            f"points can join a map of the same kind of vectors only: {old_folder.name} was made of {manifest.parents} "
            f"({manifest.summary['d']} wide), found {old.parents} and new vectors that are {new.vectors.shape[1]} wide"
        )
    given = old.chosen(choose_points(len(old.vectors), settings.max_points, seed))
    positions = read_positions(old_folder)
    config = {**asdict(settings), "source": new.source, "onto": old_folder.name}
    draft = Draft.open(folder, kind="atlas", config=config, seed=seed, overwrite=overwrite)
    nearest = search(given.vectors, settings, seed, progress).neighbours.distances[:, 0].numpy()
    placed = place_points(
        new.vectors,
        given.vectors,
        positions,
        nearest,
        k=settings.n_neighbors,
        metric=settings.metric,
        min_dist=settings.min_dist,
    )
    both = joined(given, new, groups=(OLD, NEW))
    note = (
        f"{len(new.vectors):,} new points; {np.mean(placed.ordinary == 0):.0%} of them are farther from the map's "
        "vectors than any of those is from its nearest neighbour, so their positions carry little information"
    )
    layout = Layout(np.concatenate([positions, placed.positions]), manifest.summary["layout"], note)
    found = search(both.vectors, settings, seed, progress)
    parents = {f"atlases/{old_folder.name}": manifest.content_hash}
    return finish(draft, both, found, layout, settings, seed, n_given=len(both.vectors), parents=parents)


def finish(
    draft: Draft,
    given: AtlasSource,
    found: Found,
    layout: Layout,
    settings: MapSettings,
    seed: int,
    *,
    n_given: int,
    parents: dict[str, str] | None = None,
    more: dict[str, Any] | None = None,
) -> Manifest:
    """Measure quality, find and label regions, and write all tables of a map; `more` is added to the summary."""
    metric, near = settings.metric, found.neighbours
    tokens = given.item_kind in ("token", "row")
    subjects = given.labels if given.subjects is None else given.subjects
    names_seed = derive_seed(seed, "region names")
    generator = make_generator(seed, "quality")
    with ThreadPoolExecutor(1) as pool:  # regions keep one core busy, the products of the quality all others
        measuring = pool.submit(measure_quality, given.vectors, layout.positions, metric=metric, generator=generator)
        regions = find_regions(layout.positions, subjects, tokens=tokens, contexts=given.contexts, seed=names_seed)
        quality = measuring.result()
    retained = retained_neighbours(near.indices, layout.positions)
    write_points(draft.path, given, layout.positions, regions, retained)
    write_regions(draft.path, regions)
    write_neighbours(draft.path, near, given.vectors, metric)
    grids = [] if given.readout is None else write_cells(draft.path, layout.positions, given.vectors, given.readout)
    summary = summarise(given, layout, found, quality, settings.n_neighbors, n_given=n_given)
    summary["notes"] += [] if regions.table else [NO_REGIONS]
    summary |= summarise_regions(regions) | {"grids": grids} | (more or {})
    return draft.finish(summary=summary, parents=given.parents | (parents or {}), threads=torch.get_num_threads())


def search(vectors: Tensor, settings: MapSettings, seed: int, progress: Progress | None) -> Found:
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
    wrong = {name: len(given) for name, given in lengths.items() if given is not None and len(given) != len(vectors)}
    if wrong:
        raise ConfigError(f"{len(vectors)} vectors need as many labels, items and values, got {wrong}")
    check_vectors(vectors, f"vectors of {source.source}")


def choose_points(n: int, max_points: int | None, seed: int) -> Tensor:
    """Return the sorted numbers of the points to map: all, or a seeded uniform sample."""
    if max_points is None or n <= max_points:
        return torch.arange(n)
    return torch.randperm(n, generator=make_generator(seed, "points"))[:max_points].sort().values
