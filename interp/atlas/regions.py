"""The regions of a map at several zoom levels: numbers for the points, and one row for every region.

Regions are dense parts of the map (`hierarchy`), so they describe the picture; what belongs together in the full space
is in the neighbour lists. Each has a name (`labels`), an outline (`contours`) and an anchor for its name.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from interp.artifacts import write_table
from interp.atlas.contours import contains, outline
from interp.atlas.hierarchy import NONE, Hierarchy, find_hierarchy
from interp.atlas.labels import Tree, name_regions
from interp.atlas.terms import forms_of_tokens, words_of_labels

SUITS_THE_MAP = 20
"""The level whose number of regions is nearest to this suits a view of the whole map."""

NO_REGIONS = "no regions: no part of the map is denser than its surroundings by more than chance makes"
WITHIN = (1.0, 1.5, 2.0, np.inf)
"""Bandwidths from a region's points to its outline, the first that holds `OUTLINED` of them in one ring."""
OUTLINED = 0.95
NEARLY_ALL = 0.95
"""A region with more of all points than this is what is left beside some islands: its words are those of the map."""
REST = "nearly all points"


class Region(NamedTuple):
    """One region."""

    region: int
    """number over all levels: by level, then by falling size"""
    level: int
    """0 is the coarsest"""
    parent: int
    """the region of the level before that holds it; -1 for none"""
    label: str
    size: int
    """points"""
    x: float
    """where its name goes: the densest point"""
    y: float
    x_min: float
    x_max: float
    y_min: float
    y_max: float
    contour: list[float]
    """x, y, x, y, ... of its largest outline, closed"""
    priority: float
    """which name comes first where two overlap: the coarser level's, then the larger region's"""


class Regions(NamedTuple):
    """All regions of a map."""

    levels: np.ndarray
    """`[n_levels, n]` int32 region of each point on each level, -1 for none"""
    table: list[Region]

    @property
    def per_level(self) -> list[int]:
        """How many regions each level has."""
        counts = np.bincount([region.level for region in self.table], minlength=len(self.levels))
        return counts.tolist()

    @property
    def whole_map_level(self) -> int | None:
        """The level that suits a view of the whole map; None without regions."""
        if not len(self.levels):
            return None
        return int(np.abs(np.log(np.array(self.per_level) / SUITS_THE_MAP)).argmin())


def find_regions(
    positions: np.ndarray, labels: list[str], *, tokens: bool = False, contexts: list[str] | None = None
) -> Regions:
    """The regions of a map `positions [n, 2]` whose points carry `labels`, each one token or any text.

    `contexts` are the texts that activations come from. A map with one peak has no regions.
    """
    n = len(positions)
    hierarchy = find_hierarchy(positions)
    within = hierarchy.regions(n)
    if not len(within):
        return Regions(np.zeros((0, n), np.int32), [])
    sizes = [np.bincount(row[row >= 0], minlength=int(row.max()) + 1) for row in within]
    starts = np.concatenate([[0], np.cumsum([len(size) for size in sizes])])
    crowded = _crowded(hierarchy, within)
    anchors = [_densest(*each) for each in zip(crowded, within, map(len, sizes), strict=True)]
    parents = [_parents(within, level, len(size)) for level, size in enumerate(sizes)]
    places = [positions[rows].astype(np.float64) for rows in anchors]
    tree = Tree(within, parents, crowded)
    forms = forms_of_tokens(labels) if tokens else None
    around = None if contexts is None else words_of_labels(contexts)
    names = name_regions(tree, words_of_labels(labels, tokens=tokens), forms, around)
    table = []
    for level, size in enumerate(sizes):
        boxes = _boxes(positions, within[level], len(size))
        contours = _contours(hierarchy, level, len(size))
        for r in range(len(size)):
            parent = int(parents[level][r])
            table.append(
                Region(
                    region=int(starts[level]) + r,
                    level=level,
                    parent=parent if parent == NONE else int(starts[level - 1]) + parent,
                    label=REST if size[r] > NEARLY_ALL * n else names[level][r],
                    size=int(size[r]),
                    x=float(places[level][r, 0]),
                    y=float(places[level][r, 1]),
                    x_min=float(boxes[0][r, 0]),
                    x_max=float(boxes[1][r, 0]),
                    y_min=float(boxes[0][r, 1]),
                    y_max=float(boxes[1][r, 1]),
                    contour=contours[r],
                    priority=len(sizes) - level + float(size[r]) / (n + 1),
                )
            )
    numbered = np.where(within == NONE, NONE, within + starts[:-1, None])
    return Regions(numbered.astype(np.int32), table)


def write_regions(folder: Path, regions: Regions) -> None:
    """`regions.parquet`."""
    import pyarrow as pa

    kinds = {
        **dict.fromkeys(("region", "level", "parent"), pa.int32()),
        "label": pa.string(),
        "size": pa.int64(),
        "contour": pa.list_(pa.float32()),
    }
    schema = pa.schema([(name, kinds.get(name, pa.float32())) for name in Region._fields])
    write_table(folder / "regions.parquet", pa.Table.from_pylist([r._asdict() for r in regions.table], schema=schema))


def region_columns(regions: Regions) -> dict[str, np.ndarray]:
    """`level_0`, `level_1` ... for the table of points."""
    return {f"level_{level}": row for level, row in enumerate(regions.levels)}


def summarise_regions(regions: Regions) -> dict[str, object]:
    """What the manifest says of them."""
    level = regions.whole_map_level
    return {
        "n_levels": len(regions.levels),
        "regions_per_level": regions.per_level,
        "whole_map_level": level,
        "n_clusters": 0 if level is None else regions.per_level[level],
        "noise_share": 1.0 if level is None else round(float((regions.levels[level] == NONE).mean()), 4),
    }


def local_density(positions: np.ndarray, k: int = 15) -> np.ndarray:
    """`[n]` float32 in 0 to 1: rank of the inverse distance to the k-th map neighbour; 1 is the most crowded place."""
    from scipy.spatial import KDTree

    n = len(positions)
    k = min(k, n - 1)
    if k < 1:
        return np.ones(n, np.float32)
    distance, _ = KDTree(positions).query(positions, k + 1, workers=torch.get_num_threads())
    _, place, counts = np.unique(-np.asarray(distance)[:, -1], return_inverse=True, return_counts=True)
    return ((np.cumsum(counts) - counts / 2)[place] / n).astype(np.float32)  # equal ones share their mean rank


def _crowded(hierarchy: Hierarchy, within: np.ndarray) -> np.ndarray:
    """`[n_levels, n]` float32: the density at each point on each level, as a share of its region's highest."""
    assert hierarchy.grid is not None
    crowded = np.zeros(within.shape, np.float32)
    for level, region in enumerate(within):
        inside = region >= 0
        seen = hierarchy.levels[level].seen.ravel()[hierarchy.grid.cell[inside]]
        highest = np.zeros(int(region.max()) + 1)
        np.maximum.at(highest, region[inside], seen)
        crowded[level, inside] = seen / highest[region[inside]]
    return crowded


def _densest(crowded: np.ndarray, region: np.ndarray, n_regions: int) -> np.ndarray:
    """`[n_regions]`: the point of each region in its densest cell, the first of several."""
    order = np.lexsort((-crowded, region))
    return order[np.searchsorted(region[order], np.arange(n_regions))]


def _parents(within: np.ndarray, level: int, n_regions: int) -> np.ndarray:
    parents = np.full(n_regions, NONE, np.int64)
    if level > 0:
        inside = within[level] >= 0
        parents[within[level][inside]] = within[level - 1][inside]
    return parents


def _boxes(positions: np.ndarray, region: np.ndarray, n_regions: int) -> tuple[np.ndarray, np.ndarray]:
    """The lower and the upper corner `[n_regions, 2]` of each region's points."""
    low, high = np.full((n_regions, 2), np.inf), np.full((n_regions, 2), -np.inf)
    inside = region >= 0
    np.minimum.at(low, region[inside], positions[inside])
    np.maximum.at(high, region[inside], positions[inside])
    return low, high


def _contours(hierarchy: Hierarchy, level: int, n_regions: int) -> list[list[float]]:
    """Outlines around what of each region lies within a bandwidth of a point; within more where that falls apart."""
    from scipy.ndimage import distance_transform_edt, find_objects

    grid, here = hierarchy.grid, hierarchy.levels[level]
    assert grid is not None
    away = np.asarray(distance_transform_edt((grid.counts == 0) | (here.cells == NONE))) * grid.step / here.bandwidth
    found = []
    for r, box in enumerate(find_objects(here.cells + 1, n_regions)):
        mine, counts = here.cells[box] == r, grid.counts[box]
        corner = (grid.x + box[1].start * grid.step, grid.y + box[0].start * grid.step)
        rows, columns = np.nonzero(mine & (counts > 0))
        places = np.column_stack([corner[0] + (columns + 0.5) * grid.step, corner[1] + (rows + 0.5) * grid.step])
        held, ring = counts[rows, columns], np.zeros((0, 2))
        for reach in WITHIN:
            ring = outline(mine & (away[box] <= reach), corner=corner, step=grid.step)
            if held[contains(ring, places)].sum() >= OUTLINED * held.sum():
                break
        found.append(ring.ravel().tolist())
    return found
