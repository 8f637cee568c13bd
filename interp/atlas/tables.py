"""The tables of an atlas folder, and the summary in its manifest (`docs/formats.md`)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interp.artifacts import write_table
from interp.atlas.approximate import Found
from interp.atlas.layout import Layout
from interp.atlas.neighbours import Neighbours, unit_rows
from interp.atlas.quality import K, Quality
from interp.atlas.regions import Regions, local_density, region_columns

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
