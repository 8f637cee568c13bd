"""The atlas folder: a map of vectors, its regions, the true neighbours, and how much the map keeps.

1. nearest neighbours in the full space, exact (`neighbours`) or for many vectors nearly so (`approximate`)
2. positions (`layout`)
3. quality against the full space (`quality`)
4. regions at several zoom levels, their names, local density (`regions`)
5. three tables and a manifest
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.artifacts import Draft, Manifest, write_table
from interp.atlas.approximate import Found, find_neighbours
from interp.atlas.layout import METHODS, Layout, lay_out
from interp.atlas.neighbours import METRICS, Neighbours, check_vectors
from interp.atlas.quality import K, Quality, kept_neighbours, measure_quality
from interp.atlas.regions import (
    Regions,
    find_regions,
    local_density,
    region_columns,
    summarise_regions,
    write_regions,
)
from interp.atlas.sources import AtlasSource
from interp.errors import ConfigError, UnknownNameError
from interp.runtime import derive_seed, make_generator

Progress = Callable[[int, int, dict], None]


def build_atlas(
    vectors: Tensor,
    folder: Path,
    *,
    source: str,
    labels: list[str],
    items: np.ndarray,
    values: np.ndarray,
    value_name: str,
    item_kind: str,
    metric: str = "cosine",
    method: str = "umap",
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    seed: int = 0,
    max_points: int | None = None,
    overwrite: bool = False,
    parents: dict[str, str] | None = None,
    features: str | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Write `points`, `regions` and `neighbours` tables for `vectors [n, d]`; returns the manifest.

    `labels`, `items` and `values` describe the vectors one by one; `max_points` keeps a seeded uniform sample of them.
    The same seed gives the same map, with `umap` and `pca` for any number of threads. Raises `ConfigError` (no vectors,
    lengths or settings that do not fit), `UnknownNameError` (method, metric), `NonFiniteError` naming the row with NaN.
    """
    config = {
        "source": source,
        "method": method,
        "metric": metric,
        "n_neighbors": n_neighbors,
        "min_dist": min_dist,
        "max_points": max_points,
    }
    check_settings(vectors, labels, items, values, config)
    check_vectors(vectors, f"vectors of {source}")
    draft = Draft.open(folder, kind="atlas", config=config, seed=seed, overwrite=overwrite)
    chosen = choose_points(len(vectors), max_points, seed)
    vectors = vectors[chosen].float()
    labels = [labels[i] for i in chosen.tolist()]
    found = find_neighbours(
        vectors,
        n_neighbors,
        metric=metric,
        generator=make_generator(seed, "neighbours"),
        progress=stage(progress, "neighbours"),
    )
    near = found.neighbours
    layout = lay_out(
        vectors,
        near,
        method=method,
        metric=metric,
        min_dist=min_dist,
        seed=derive_seed(seed, "layout"),
        progress=stage(progress, "layout"),
    )
    quality = measure_quality(vectors, layout.positions, metric=metric, generator=make_generator(seed, "quality"))
    regions = find_regions(layout.positions, labels)
    index = chosen.numpy()
    kept = kept_neighbours(near.indices, layout.positions)
    described = (labels, np.asarray(items)[index], np.asarray(values)[index], kept)
    write_points(draft.path, layout.positions, regions, *described)
    write_regions(draft.path, regions)
    write_neighbours(draft.path, near, cosines_of(near, vectors, metric))
    summary = summarise(layout, found, quality, vectors, n_given=len(items)) | summarise_regions(regions)
    summary |= {"value_name": value_name, "item_kind": item_kind, "features": features}
    return draft.finish(summary=summary, parents=parents or {}, threads=torch.get_num_threads())


def build_from_source(given: AtlasSource, folder: Path, **settings: Any) -> Manifest:
    """`build_atlas` of an `AtlasSource`; `settings` are its other keywords (metric, seed, max_points ...)."""
    return build_atlas(
        given.vectors,
        folder,
        source=given.source,
        labels=given.labels,
        items=given.items,
        values=given.values,
        value_name=given.value_name,
        item_kind=given.item_kind,
        parents=given.parents,
        features=given.features,
        **settings,
    )


def stage(progress: Progress | None, name: str) -> Progress | None:
    """The same progress, saying which part of the work it is."""
    if progress is None:
        return None
    return lambda done, total, info: progress(done, total, {"step": name, **info})


def check_settings(vectors: Tensor, labels: list[str], items, values, config: dict[str, Any]) -> None:
    """Raise `ConfigError` or `UnknownNameError` before any work is done."""
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise ConfigError(f"an atlas needs vectors as [n, d] with at least one, got shape {list(vectors.shape)}")
    lengths = {"labels": len(labels), "items": len(items), "values": len(values)}
    wrong = {name: n for name, n in lengths.items() if n != len(vectors)}
    if wrong:
        raise ConfigError(f"{len(vectors)} vectors need as many labels, items and values, got {wrong}")
    for what, known in (("method", METHODS), ("metric", METRICS)):
        if config[what] not in known:
            raise UnknownNameError(what, config[what], known)
    if config["n_neighbors"] < 2:
        raise ConfigError(f"n_neighbors must be at least 2, got {config['n_neighbors']}")
    if config["max_points"] is not None and config["max_points"] < 1:
        raise ConfigError(f"max_points must be at least 1, got {config['max_points']}; leave it out to map all")


def choose_points(n: int, max_points: int | None, seed: int) -> Tensor:
    """Sorted numbers of the points to map: all, or a seeded uniform sample."""
    if max_points is None or n <= max_points:
        return torch.arange(n)
    return torch.randperm(n, generator=make_generator(seed, "points"))[:max_points].sort().values


def summarise(
    layout: Layout, found: Found, quality: Quality | None, vectors: Tensor, *, n_given: int
) -> dict[str, Any]:
    """What a person would ask first; `notes` says whatever is not as asked for."""
    notes = [layout.note] if layout.note else []
    if len(vectors) < n_given:
        notes.append(f"{len(vectors)} of {n_given} points, a seeded uniform sample")
    if quality is None:
        notes.append(f"too few points for a quality measure over {K} neighbours")
    return {
        "n_points": len(vectors),
        "n_given": n_given,
        "d": vectors.shape[1],
        "layout": layout.method,
        "trustworthiness": quality and round(quality.trustworthiness, 4),
        "continuity": quality and round(quality.continuity, 4),
        "recall_at_15": quality and round(quality.recall, 4),
        "triplet_accuracy": quality and round(quality.triplets, 4),
        "quality_sample": quality and quality.sample,
        "neighbours": found.how,
        "neighbours_recall": round(found.recall, 4),
        "notes": notes,
    }


def write_points(
    folder: Path,
    positions: np.ndarray,
    regions: Regions,
    labels: list[str],
    items: np.ndarray,
    values: np.ndarray,
    kept: np.ndarray,
) -> None:
    import pyarrow as pa

    columns = {
        "point": pa.array(np.arange(len(positions)), pa.int32()),
        "x": pa.array(positions[:, 0], pa.float32()),
        "y": pa.array(positions[:, 1], pa.float32()),
        "label": pa.array(labels, pa.string()),
        "density": pa.array(local_density(positions), pa.float32()),
        "item": pa.array(items, pa.int32()),
        "value": pa.array(values, pa.float32()),
        "kept": pa.array(kept, pa.float32()),
        **{name: pa.array(column, pa.int32()) for name, column in region_columns(regions).items()},
    }
    write_table(folder / "points.parquet", pa.table(columns))


def cosines_of(near: Neighbours, vectors: Tensor, metric: str) -> Tensor:
    """`[n, k]` cosines of the neighbours, whatever metric found them."""
    if metric == "cosine":
        return 1 - near.distances
    unit = torch.nn.functional.normalize(vectors, dim=1)
    cosines = torch.empty(near.indices.shape)
    for column, others in enumerate(near.indices.T):
        cosines[:, column] = (unit * unit[others]).sum(1)
    return cosines


def write_neighbours(folder: Path, near: Neighbours, cosines: Tensor) -> None:
    import pyarrow as pa

    n, k = near.indices.shape
    bounds = pa.array(np.arange(n + 1) * k, pa.int32())
    columns = {
        "point": pa.array(np.arange(n), pa.int32()),
        "neighbours": pa.ListArray.from_arrays(bounds, pa.array(near.indices.flatten().numpy(), pa.int32())),
        "cosines": pa.ListArray.from_arrays(bounds, pa.array(cosines.flatten().numpy(), pa.float32())),
    }
    write_table(folder / "neighbours.parquet", pa.table(columns))
