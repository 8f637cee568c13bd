"""The atlas folder: a map of vectors, its regions, the true neighbours, and how much the map keeps.

1. nearest neighbours in the full space, exact (`neighbours`) or for very many vectors nearly so (`approximate`)
2. positions (`layout`); or, onto a map that stays, places for what is new (`place`)
3. quality against the full space (`quality`)
4. regions at several zoom levels, their names, local density (`regions`)
5. what the averages of a grid's cells say, where something reads them (`cells`)
6. tables (`tables`) and a manifest

The tables of an atlas folder, and the summary in its manifest (`docs/formats.md`).
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interp.artifacts import Draft, Manifest, read_manifest, write_table
from interp.atlas.cells import write_cells
from interp.atlas.config import MapSettings
from interp.atlas.layout import Layout, lay_out
from interp.atlas.neighbours import Found, Neighbours, check_vectors, find_neighbours, unit_rows
from interp.atlas.new_points import place_points
from interp.atlas.quality import K, Quality, kept_neighbours, measure_quality
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
    folder: Path, source: "AtlasSource", positions: np.ndarray, regions: Regions, kept: np.ndarray
) -> None:
    """`points.parquet`: one row per point."""
    import pyarrow as pa

    columns = {
        "point": pa.array(np.arange(len(positions)), pa.int32()),
        "x": pa.array(positions[:, 0], pa.float32()),
        "y": pa.array(positions[:, 1], pa.float32()),
        "label": pa.array(source.labels, pa.string()),
        "density": pa.array(local_density(positions), pa.float32()),
        "item": pa.array(source.items, pa.int32()),
        "value": pa.array(source.values, pa.float32()),
        "kept": pa.array(kept, pa.float32()),
        **{name: pa.array(column, pa.int32()) for name, column in region_columns(regions).items()},
    }
    for name, texts in (("context", source.contexts), ("group", source.groups)):
        if texts is not None:
            columns[name] = pa.array(texts, pa.string())
    write_table(folder / "points.parquet", pa.table(columns))


def read_positions(folder: Path) -> np.ndarray:
    """`[n, 2]` float32: where the points of an atlas folder are."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "points.parquet", columns=["x", "y"])
    return np.column_stack([table["x"].to_numpy(), table["y"].to_numpy()]).astype(np.float32)


def write_neighbours(folder: Path, near: Neighbours, vectors: Tensor, metric: str) -> None:
    """`neighbours.parquet`: the lists from the full space."""
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
    """`[n, k]` cosines of the neighbours, whatever metric found them."""
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
    """What a person would ask first; `notes` says whatever is not as asked for or as one would think."""
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
    """What a reader of the map should know of its points: too few, copies of each other, zero, in parts."""
    n, k = near.indices.shape
    notes = []
    if k < n_neighbors:
        notes.append(f"{n} points have at most {k} neighbours each, {n_neighbors} were asked for")
    if k == 0:
        return notes
    copies = copies_of_another(vectors, near)
    if copies:
        notes.append(f"{copies:,} of {n:,} vectors equal another one: copies lie together and fill each other's lists")
    zero = int((vectors == 0).all(1).sum())
    if zero:
        notes.append(f"{zero:,} vectors are zero and have no direction: their cosine with all others counts as 0")
    parts = parts_of_graph(near)
    if parts > 1:
        notes.append(
            f"the graph of neighbours falls into {parts:,} parts with no tie between: how far apart they lie, and how "
            "they are turned, means nothing"
        )
    return notes


def copies_of_another(vectors: Tensor, near: Neighbours) -> int:
    """How many vectors equal their nearest neighbour, number by number."""
    return sum(
        int((vectors[rows] == vectors[near.indices[rows, 0]]).all(1).sum())
        for rows in torch.arange(len(vectors)).split(8192)
    )


def parts_of_graph(near: Neighbours) -> int:
    """Connected parts of the graph of neighbours, directions left aside."""
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
    """Write `points`, `regions` and `neighbours` tables for a source; returns the manifest.

    The same seed gives the same map, with `umap` and `pca` for any number of threads. `progress` may raise to stop.
    Raises `ConfigError` (no vectors, lengths that do not fit), `NonFiniteError` naming the row with NaN.
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
    """The map `old_folder` of the source `old` with the points of `new` placed on it; no old point moves.

    The new map holds both, old points first under their numbers, and says of each in `group` which it is. Neighbours,
    quality and regions are those of all points together. Raises `MismatchError` when `old` is not what the map was made
    of, or the vectors are not as wide.
    """
    for source in (new, old):
        check_source(source)
    manifest = read_manifest(old_folder)
    made = {name: manifest.config[name] for name in ("metric", "method", "n_neighbors", "min_dist", "max_points")}
    settings, seed = MapSettings(**made), manifest.seed or 0
    if not old.parents.items() <= manifest.parents.items() or new.vectors.shape[1] != old.vectors.shape[1]:
        raise MismatchError(
            f"points can join a map of the same kind of vectors: {old_folder.name} was made of {manifest.parents} "
            f"({manifest.summary['d']} wide), found {old.parents} and {new.vectors.shape[1]} wide new ones"
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
        f"{len(new.vectors):,} new points; {np.mean(placed.ordinary == 0):.0%} of them are farther from the map than "
    )
    note += "any of its points is from the next: their place says little"
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
    """Measure, name the regions, and write what is known of a map; `more` goes into the summary."""
    metric, near = settings.metric, found.neighbours
    quality = measure_quality(given.vectors, layout.positions, metric=metric, generator=make_generator(seed, "quality"))
    tokens = given.item_kind in ("token", "row")
    subjects = given.labels if given.subjects is None else given.subjects
    regions = find_regions(layout.positions, subjects, tokens=tokens, contexts=given.contexts)
    kept = kept_neighbours(near.indices, layout.positions)
    write_points(draft.path, given, layout.positions, regions, kept)
    write_regions(draft.path, regions)
    write_neighbours(draft.path, near, given.vectors, metric)
    grids = [] if given.readout is None else write_cells(draft.path, layout.positions, given.vectors, given.readout)
    summary = summarise(given, layout, found, quality, settings.n_neighbors, n_given=n_given)
    summary["notes"] += [] if regions.table else [NO_REGIONS]
    summary |= summarise_regions(regions) | {"grids": grids} | (more or {})
    return draft.finish(summary=summary, parents=given.parents | (parents or {}), threads=torch.get_num_threads())


def search(vectors: Tensor, settings: MapSettings, seed: int, progress: Progress | None) -> Found:
    """The nearest neighbours that a map is made from."""
    return find_neighbours(
        vectors,
        settings.n_neighbors,
        metric=settings.metric,
        generator=make_generator(seed, "neighbours"),
        progress=stage(progress, "neighbours"),
    )


def stage(progress: Progress | None, name: str) -> Progress | None:
    """The same progress, saying which part of the work it is."""
    if progress is None:
        return None
    return lambda done, total, info: progress(done, total, {"step": name, **info})


def check_source(source: AtlasSource) -> None:
    """Raise `ConfigError` or `NonFiniteError` before any work is done."""
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
    """Sorted numbers of the points to map: all, or a seeded uniform sample."""
    if max_points is None or n <= max_points:
        return torch.arange(n)
    return torch.randperm(n, generator=make_generator(seed, "points"))[:max_points].sort().values
