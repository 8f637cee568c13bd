"""Regions of a map at several zoom levels: the region of every point, and a table with one row per region.

Regions are dense parts of the map, so they describe the picture; neighbour lists say which vectors are near in the full
space. Each region has a label (`labels`), an outline, and an anchor for its label.

The regions of a level are the basins of the density's peaks at one bandwidth: wide for a view of the whole
map, narrow for details. Peaks of sufficient prominence are counted at a series of bandwidths. For each of the wanted
numbers (6, 20, 60, ...) the level is the bandwidth whose number of peaks is nearest; no level is forced to a number.
Then levels are nested, from the finest up:

- A region is the largest connected part of its peak's basin, without nearly empty cells.
- It goes as a whole to the coarser region that holds most of its points, or to none if most lie between regions. So
  every region lies in one region of the next coarser level, or in none.

A level with hardly more regions than the coarser one is dropped. A map with one peak has no regions.

**Density** of points over a map and its peaks (`find_peaks`):

1. Points are counted on a grid of square cells.
2. The counts are blurred with a Gaussian of one bandwidth, on one thread and with one FFT shared by all bandwidths.
   (`scipy.ndimage.gaussian_filter` gives the same, but takes three times as long for 29 bandwidths on 512 x 512.)
3. Every cell follows the steepest ascent to a peak; the cells that reach one peak are its basin.
4. A peak that does not rise far enough above the saddle to a higher one is merged with it (ToMATo: Chazal, Guibas,
   Oudot & Skraba 2013).

The required rise (prominence) is in standard errors. At density `f` a Gaussian kernel of bandwidth `h` covers
`c = 4 pi h^2 n f` points, with variance `c` under random placement. So `2 sqrt(c + 3/8)` (Anscombe 1948) has variance 1
at every density, and one threshold serves the whole map.

The outline of a region is a contour of the grid (contourpy), of which the largest ring is simplified (shapely).
"""

from dataclasses import asdict, fields
from typing import Any, NamedTuple

import numpy as np
import torch

from interp.artifacts import Table
from interp.atlas._labels import Chance, Tree, forms_of_tokens, name_regions, shuffled_evidence, words_of_labels
from interp.atlas.vector_map import NONE, REST, Naming, Region, whole_map_level
from interp.nulls import SHUFFLED_MAPS

PROMINENCE = 5.5
"""Standard errors by which a peak must rise above its saddle. The highest of thousands of chance peaks rises by 5."""
FEWEST_SEEN = 0.01
"""Points that a kernel must cover for a cell to count as part of the map."""
_MARGIN = 2.0
"""Width of the grid's empty border, in units of the largest bandwidth: it keeps the FFT's blur from wrapping around."""


class Grid(NamedTuple):
    """Square cells over a map."""

    x: float
    y: float
    """lower left corner of cell 0, with `x`"""
    step: float
    """side of a cell in map units"""
    counts: np.ndarray
    """`[n_y, n_x]` float64 points per cell"""
    cell: np.ndarray
    """`[n]` int64 cell of every point, numbered row by row; -1 for a point far outside the map"""


class Peaks(NamedTuple):
    """Peaks of a map's density at one bandwidth."""

    bandwidth: float
    """in cells"""
    seen: np.ndarray
    """`[n_y, n_x]` float64: number of points that the kernel covers at each cell"""
    basin: np.ndarray
    """`[n_y, n_x]` int64: the peak that each cell belongs to, -1 for none"""
    n: int
    """number of peaks of sufficient prominence"""


def lay_grid(positions: np.ndarray) -> Grid | None:
    """Count `positions [n, 2]` on a grid with 128 to 512 cells along the longer side, more for more points.

    Points outside the map's `frame` belong to no cell. Returns None when all points share one position.
    """
    positions = np.asarray(positions, np.float64)
    low, high = frame(positions)
    extent = float((high - low).max())
    if extent == 0:
        return None
    side = int(np.clip(2 ** np.ceil(np.log2(2 * np.sqrt(len(positions)))), 128, 512))
    step = extent / (side - 1)
    border = side // 16  # room for outlines around regions at the edge
    low = low - border * step
    where = np.floor((positions - low) / step + 0.5).astype(np.int64)
    shape = np.floor((high - low) / step + 0.5).astype(np.int64)[::-1] + 1 + border
    inside = ((where >= 0) & (where < shape[::-1])).all(1)
    cell = np.where(inside, where[:, 1] * shape[1] + where[:, 0], -1)
    counts = np.bincount(cell[inside], minlength=int(shape.prod())).reshape(shape).astype(np.float64)
    return Grid(float(low[0]) - step / 2, float(low[1]) - step / 2, step, counts, cell)


def frame(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper corner of a map `[n, 2]`, without outliers.

    A few far points must not coarsen the grid. A point is an outlier if it is farther from the median than twice the
    width of the central 99 %.
    """
    inner, middle, outer = np.percentile(positions, [0.5, 50, 99.5], axis=0)
    reach = 2 * (outer - inner).max() or np.inf
    inside = positions[(np.abs(positions - middle) <= reach).all(1)]
    return inside.min(0), inside.max(0)


class Blur:
    """Counts of one grid as a spectrum, ready to be blurred with any bandwidth."""

    def __init__(self, counts: np.ndarray, largest: float) -> None:
        from scipy.fft import next_fast_len, rfft2

        self.shape = counts.shape
        margin = int(np.ceil(_MARGIN * 2 * largest))
        self.padded = [int(next_fast_len(side + margin, real=True) or 1) for side in counts.shape]
        self.spectrum: np.ndarray = np.asarray(rfft2(counts, self.padded, workers=1))

    def seen(self, bandwidth: float) -> np.ndarray:
        """Return the number of points under a Gaussian kernel of `bandwidth` cells at every cell, `[n_y, n_x]`."""
        from scipy.fft import irfft2
        from scipy.ndimage import fourier_gaussian

        blurred = fourier_gaussian(self.spectrum, bandwidth, n=self.padded[1])
        density = np.asarray(irfft2(blurred, self.padded, workers=1))
        return 4 * np.pi * bandwidth**2 * density[: self.shape[0], : self.shape[1]].clip(min=0)


def find_peaks(blur: Blur, bandwidth: float, prominence: float = PROMINENCE) -> Peaks:
    """Find the peaks that rise `prominence` standard errors above their saddles, and their basins."""
    seen = blur.seen(bandwidth)
    basin = climb(seen)
    top = np.zeros(basin.size, bool)
    top[basin[basin >= 0]] = True
    tops, basin = np.flatnonzero(top), np.append(np.cumsum(top) - 1, -1)[basin]  # peaks by their numbers
    joined = join(stable(seen.ravel()[tops]), *saddles(stable(seen), basin), prominence)
    prominent = np.unique(joined[joined >= 0])
    number = np.searchsorted(prominent, joined)
    number[joined < 0] = -1
    return Peaks(bandwidth, seen, np.append(number, -1)[basin], len(prominent))


def stable(seen: np.ndarray) -> np.ndarray:
    """Return counts of points on a scale where their standard error is 1 (Anscombe 1948)."""
    return 2 * np.sqrt(seen + 0.375)


def climb(seen: np.ndarray) -> np.ndarray:
    """Return the cell in which each cell's steepest ascent ends, `[n_y, n_x]` int64; -1 off the map.

    Cells are numbered row by row.
    """
    n_y, n_x = seen.shape
    padded = np.pad(seen, 1, constant_values=-1.0)
    itself = np.arange(seen.size).reshape(seen.shape)
    best, up = seen, itself
    for number, (dy, dx) in enumerate(_AROUND):
        adjacent = padded[1 + dy : 1 + dy + n_y, 1 + dx : 1 + dx + n_x]
        # of equal cells the first counts as the higher one, so that a plateau has one peak
        higher = (adjacent > best) | ((adjacent == best) & (up == itself) if number < 4 else False)
        best, up = np.where(higher, adjacent, best), np.where(higher, itself + dy * n_x + dx, up)
    top = up.ravel()
    while not np.array_equal(further := top[top], top):
        top = further
    return np.where(seen >= FEWEST_SEEN, top.reshape(seen.shape), -1)


def saddles(height: np.ndarray, basin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of adjacent basins `[m, 2]` and the height of the saddle between them `[m]`, the highest first."""
    pairs, passes = [], []
    n_y, n_x = height.shape
    n = int(basin.max(initial=0)) + 1
    for dy, dx in _AROUND[4:]:
        cells = (slice(0, n_y - dy), slice(max(0, -dx), n_x - max(0, dx)))
        shifted = (slice(dy, n_y), slice(max(0, dx), n_x - max(0, -dx)))
        left, right = basin[cells], basin[shifted]
        border = np.nonzero((left != right) & (left >= 0) & (right >= 0))
        left, right = left[border], right[border]
        pairs.append(np.minimum(left, right) * n + np.maximum(left, right))
        passes.append(np.minimum(height[cells][border], height[shifted][border]))
    pair, over = np.concatenate(pairs), np.concatenate(passes)
    order = np.argsort(pair, kind="stable")
    pair, first = np.unique(pair[order], return_index=True)
    over = np.maximum.reduceat(over[order], first) if len(first) else over
    order = np.argsort(-over, kind="stable")
    return np.column_stack([pair // n, pair % n])[order], over[order]


def join(tops: np.ndarray, pairs: np.ndarray, passes: np.ndarray, prominence: float) -> np.ndarray:
    """Return the peak that each of `m` peaks is merged into, `[m]`; -1 for one that reaches no prominent peak.

    Of two adjacent basins the one with the lower peak joins the other, unless that peak rises `prominence` above the
    saddle.
    """
    from scipy.cluster.hierarchy import DisjointSet

    sets, highest = DisjointSet(range(len(tops))), list(range(len(tops)))
    for (left, right), height in zip(pairs.tolist(), passes.tolist(), strict=True):
        high, low = highest[sets[left]], highest[sets[right]]
        if (tops[low], -low) > (tops[high], -high):
            high, low = low, high
        if high != low and tops[low] - height < prominence:
            sets.merge(high, low)
            highest[sets[high]] = high
    ends = np.array([highest[sets[i]] for i in range(len(tops))], np.int64)
    return np.where(tops[ends] - stable(np.zeros(1))[0] >= prominence, ends, -1)


_AROUND = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def outline(inside: np.ndarray, *, corner: tuple[float, float], step: float, tolerance: float = 0.35) -> np.ndarray:
    """Return the largest ring (x, y) around the cells of a mask `[n_y, n_x]`: `[m, 2]` float32, closed.

    `corner` is the lower left corner of cell 0, `step` the side of a cell. Jags of single cells are smoothed. Corners
    within `tolerance` cells of the line through their neighbours are dropped (Douglas & Peucker 1973). An empty mask
    gives an empty ring.
    """
    from scipy.ndimage import gaussian_filter
    from shapely import Polygon, get_coordinates

    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if len(rows) == 0:
        return np.zeros((0, 2), np.float32)
    part = np.pad(inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float64), 3)
    rings = _rings(gaussian_filter(part, 0.75)) or _rings(part)  # the blur removes single cells
    largest: Any = max(map(Polygon, rings), key=lambda polygon: polygon.area)
    ring = get_coordinates(largest.simplify(tolerance).exterior)
    first = np.array([columns[0], rows[0]]) - 3 + 0.5  # the padding, and half a cell to its centre
    return ((ring + first) * step + np.array(corner)).astype(np.float32)


def _rings(field: np.ndarray) -> list[np.ndarray]:
    """Return closed outer rings `[m, 2]` (x, y in cells) around the parts of `field [n_y, n_x]` above 0.4."""
    from contourpy import FillType, contour_generator

    contours: Any = contour_generator(z=field, fill_type=FillType.OuterOffset).filled(0.4, np.inf)
    points, starts = contours  # each part's outer ring, then its holes
    return [ring[: offsets[1]] for ring, offsets in zip(points, starts, strict=True)]


def contains(ring: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return which of `points [n, 2]` lie inside a closed ring, `[n]` bool; none if the ring is empty."""
    from shapely import Polygon, contains_xy, prepare

    polygon = Polygon(ring)
    prepare(polygon)
    return contains_xy(polygon, points[:, 0], points[:, 1])


WANTED = (6, 20, 60, 180, 540)
"""Wanted numbers of regions, the coarsest level first."""
FEWEST_POINTS = 15
"""A map with fewer points has no regions."""
MEAN_SIZE = 30
"""Smallest mean number of points per region of a level: 1,000 points are not cut into 60 regions."""
SMALLEST = 5
"""Smallest number of points in a region."""
EMPTY = 0.1
"""Cells whose density is below this fraction of that at their region's median point belong to no region."""
MORE = 1.5
"""Smallest ratio of the number of regions of a level to that of the coarser one."""
_STEPS_PER_OCTAVE = 3
_NARROWEST = 1.5
"""Narrowest bandwidth in cells; the widest is an eighth of the map."""


class Level(NamedTuple):
    """One zoom level."""

    cells: np.ndarray
    """`[n_y, n_x]` int64: the region of every cell, `NONE` for none"""
    seen: np.ndarray
    """`[n_y, n_x]`: density at the level's bandwidth (number of points that the kernel covers)"""
    bandwidth: float
    """in map units"""


class Hierarchy(NamedTuple):
    """Levels over one grid, the coarsest first; none on a map without regions."""

    grid: Grid | None
    levels: list[Level]

    def regions(self, n: int) -> np.ndarray:
        """Return the region of every point on every level, `[n_levels, n]` int64; `NONE` for none."""
        if self.grid is None or not self.levels:
            return np.zeros((0, n), np.int64)
        return np.stack([np.append(level.cells.ravel(), NONE)[self.grid.cell] for level in self.levels])


def find_hierarchy(positions: np.ndarray) -> Hierarchy:
    """Find the nested regions of a map `positions [n, 2]`; on each level the largest region has the lowest number."""
    grid = lay_grid(positions) if len(positions) >= FEWEST_POINTS else None
    if grid is None:
        return Hierarchy(None, [])
    blur = Blur(grid.counts, widest := max(grid.counts.shape) / 8)
    n_steps = int(np.log2(widest / _NARROWEST) * _STEPS_PER_OCTAVE)
    ladder = [find_peaks(blur, widest * 2 ** (-i / _STEPS_PER_OCTAVE)) for i in range(n_steps + 1)]
    return Hierarchy(grid, nest(grid, choose_levels(ladder, len(positions))))


def choose_levels(ladder: list[Peaks], n: int) -> list[Peaks]:
    """Choose for each wanted number the bandwidth whose number of peaks is nearest, in descending bandwidths.

    Where several successive bandwidths have the same number of peaks, the middle one is taken, as the most stable.
    """
    counts = np.array([peaks.n for peaks in ladder], np.float64)
    chosen: list[Peaks] = []
    start = 0
    for wanted in WANTED:
        if (chosen and wanted * MEAN_SIZE > n) or start == len(ladder):
            break
        off = np.abs(np.log(counts[start:].clip(0.5) / wanted))
        best = int(off.argmin())
        run_length = int((off[best:] == off[best]).cumprod().sum())
        at = start + best + (run_length - 1) // 2
        if ladder[at].n >= 2 and (not chosen or ladder[at].n >= MORE * chosen[-1].n):
            chosen.append(ladder[at])
            start = at + 1
    return chosen


def nest(grid: Grid, chosen: list[Peaks]) -> list[Level]:
    """Cut every level's regions from its basins, the finest level first, and fit each coarser one around the finer."""
    levels: list[Level] = []
    finer = None
    for peaks in reversed(chosen):
        cells = one_piece(grid, cut_empty(grid, peaks))
        if finer is not None:
            outer = np.append(enclosing_regions(grid, finer, cells), NONE)
            cells = np.where(finer == NONE, cells, outer[finer])
        cells = by_size(grid, cells)
        levels.append(Level(cells, peaks.seen, peaks.bandwidth * grid.step))
        finer = cells
    return [level for level in reversed(levels) if level.cells.max() > 0]


def cut_empty(grid: Grid, peaks: Peaks) -> np.ndarray:
    """Return the region of every cell `[n_y, n_x]`: its basin, or `NONE` for nearly empty cells."""
    cells = peaks.basin.copy()
    basin, seen, counts = peaks.basin.ravel(), peaks.seen.ravel(), grid.counts.ravel()
    order = np.lexsort((seen, basin))
    order = order[(counts[order] > 0) & (basin[order] >= 0)]
    starts = np.searchsorted(basin[order], np.arange(peaks.n + 1))
    below = np.concatenate([[0], np.cumsum(counts[order])])
    middle = np.searchsorted(below, (below[starts[:-1]] + below[starts[1:]]) / 2, side="left").clip(1) - 1
    median = np.where(starts[1:] > starts[:-1], seen[order][middle.clip(max=len(order) - 1)], np.inf)
    cells[peaks.seen < EMPTY * np.append(median, 0.0)[peaks.basin]] = NONE
    return cells


def one_piece(grid: Grid, cells: np.ndarray) -> np.ndarray:
    """Reduce every region to its connected part with most points; cells that share a corner are connected."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    number = np.arange(cells.size).reshape(cells.shape)
    pairs = []
    for left, right in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1], np.s_[1:]),
        (np.s_[:-1, :-1], np.s_[1:, 1:]),
        (np.s_[:-1, 1:], np.s_[1:, :-1]),
    ):
        together = (cells[left] == cells[right]) & (cells[left] >= 0)
        pairs.append(np.stack([number[left][together], number[right][together]]))
    left, right = np.concatenate(pairs, axis=1)
    graph = coo_matrix((np.ones(len(left), bool), (left, right)), shape=(cells.size, cells.size))
    _, part = connected_components(graph, directed=False)
    n_points = np.bincount(part, grid.counts.ravel())
    region = np.full(len(n_points), NONE)
    region[part] = cells.ravel()
    order = np.lexsort((-n_points, region))
    first = np.unique(region[order], return_index=True)[1]
    keep = np.zeros(len(n_points), bool)
    keep[order[first]] = True
    return np.where(keep[part].reshape(cells.shape), cells, NONE)


def enclosing_regions(grid: Grid, finer: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Return the coarse region with most points of each finer one, `[n_finer]`; `NONE` where most lie in none."""
    inside = finer >= 0
    n, m = int(finer.max(initial=NONE)) + 1, int(coarse.max(initial=NONE)) + 2  # the last column means none
    pair = finer[inside] * m + coarse[inside] % m
    outer = np.bincount(pair, grid.counts[inside], n * m).reshape(n, m).argmax(1)
    return np.where(outer == m - 1, NONE, outer)


def by_size(grid: Grid, cells: np.ndarray) -> np.ndarray:
    """Number the regions by descending number of points, and drop those of fewer than `SMALLEST`."""
    inside = cells >= 0
    sizes = np.bincount(cells[inside], grid.counts[inside])
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] >= SMALLEST]
    number = np.full(len(sizes) + 1, NONE, np.int64)
    number[order] = np.arange(len(order))
    return number[cells]


NO_REGIONS = "no regions: no part of the map is denser than its surroundings beyond chance"
WITHIN = (1.0, 1.5, 2.0, np.inf)
"""Distances in bandwidths from a region's points to its outline; used is the first at which one ring holds `OUTLINED`
of the points."""
OUTLINED = 0.95
NEARLY_ALL = 0.95
"""A region that holds more than this fraction of all points is the background, not a cluster; its label is `REST`."""


class Regions(NamedTuple):
    """Regions of a map on all levels."""

    levels: np.ndarray
    """`[n_levels, n]` int32 region of each point on each level, -1 for none"""
    table: list[Region]
    chance: Chance | None = None
    """what shuffled labels give; None without regions"""

    @property
    def per_level(self) -> tuple[int, ...]:
        """Number of regions of each level."""
        return tuple(np.bincount([region.level for region in self.table], minlength=len(self.levels)).tolist())


def find_regions(
    positions: np.ndarray, labels: list[str], *, tokens: bool = False, contexts: list[str] | None = None, seed: int = 0
) -> Regions:
    """Find and label the regions of a map `positions [n, 2]` whose points have `labels`, each one token or any text.

    `contexts` are the texts from which activations were recorded. A map with one peak has no regions. A region whose
    terms have no more evidence than on maps with shuffled labels (by `seed`) has the label "".
    """
    n = len(positions)
    hierarchy = find_hierarchy(positions)
    within = hierarchy.regions(n)
    if not len(within):
        return Regions(np.zeros((0, n), np.int32), [])
    sizes = [np.bincount(row[row >= 0], minlength=int(row.max()) + 1) for row in within]
    starts = np.concatenate([[0], np.cumsum([len(size) for size in sizes])])
    density = _relative_density(hierarchy, within)
    anchors = [_densest(*level) for level in zip(density, within, map(len, sizes), strict=True)]
    parents = [_parents(within, level, len(size)) for level, size in enumerate(sizes)]
    anchor_positions = [positions[rows].astype(np.float64) for rows in anchors]
    tree = Tree(within, parents, density)
    kinds = {"words": words_of_labels(labels, tokens=tokens)}
    kinds |= {"forms": forms_of_tokens(labels)} if tokens else {}
    kinds |= {} if contexts is None else {"contexts": words_of_labels(contexts)}
    chance = shuffled_evidence(tree, kinds, seed)
    names = name_regions(tree, kinds["words"], kinds.get("forms"), kinds.get("contexts"), bounds=chance.bounds)
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
                    x=float(anchor_positions[level][r, 0]),
                    y=float(anchor_positions[level][r, 1]),
                    x_min=float(boxes[0][r, 0]),
                    x_max=float(boxes[1][r, 0]),
                    y_min=float(boxes[0][r, 1]),
                    y_max=float(boxes[1][r, 1]),
                    contour=contours[r],
                    priority=len(sizes) - level + float(size[r]) / (n + 1),
                )
            )
    numbered = np.where(within == NONE, NONE, within + starts[:-1, None])
    return Regions(numbered.astype(np.int32), table, chance)


def region_table(regions: Regions) -> Table[Region]:
    """Return one row per region."""
    import pyarrow as pa

    kinds = {
        **dict.fromkeys(("region", "level", "parent"), pa.int32()),
        "label": pa.string(),
        "size": pa.int64(),
        "contour": pa.list_(pa.float32()),
    }
    schema = pa.schema([(field.name, kinds.get(field.name, pa.float32())) for field in fields(Region)])
    return Table.of_columns(Region, pa.Table.from_pylist([asdict(row) for row in regions.table], schema=schema))


def naming_of(regions: Regions) -> Naming | None:
    """Return the number of named regions by level, with its null; None for a map with one peak."""
    chance, named = regions.chance, [row.level for row in regions.table if row.label not in ("", REST)]
    return None if chance is None else Naming(
        per_level=tuple(named.count(at) for at in range(len(regions.levels))),
        when_shuffled=chance.named,
        shuffles=SHUFFLED_MAPS,
        bounds=chance.bounds,
    )  # fmt: skip


def outside_of(regions: Regions) -> float:
    """Return the fraction of points in no region, on the level that a whole map shows."""
    level = whole_map_level(regions.per_level)
    return 1.0 if level is None else float((regions.levels[level] == NONE).mean())


def local_density(positions: np.ndarray, k: int = 15) -> np.ndarray:
    """Return the density rank of each point, `[n]` float32 in 0 to 1; 1 is the densest.

    It is the rank of the inverse distance to the k-th neighbour on the map.
    """
    from scipy.spatial import KDTree

    n = len(positions)
    k = min(k, n - 1)
    if k < 1:
        return np.ones(n, np.float32)
    distance, _ = KDTree(positions).query(positions, k + 1, workers=torch.get_num_threads())
    _, which, counts = np.unique(-np.asarray(distance)[:, -1], return_inverse=True, return_counts=True)
    return ((np.cumsum(counts) - counts / 2)[which] / n).astype(np.float32)  # ties share their mean rank


def _relative_density(hierarchy: Hierarchy, within: np.ndarray) -> np.ndarray:
    """Return each point's density on each level, `[n_levels, n]` float32, as a fraction of its region's maximum."""
    assert hierarchy.grid is not None
    density = np.zeros(within.shape, np.float32)
    for level, region in enumerate(within):
        inside = region >= 0
        seen = hierarchy.levels[level].seen.ravel()[hierarchy.grid.cell[inside]]
        highest = np.zeros(int(region.max()) + 1)
        np.maximum.at(highest, region[inside], seen)
        density[level, inside] = seen / highest[region[inside]]
    return density


def _densest(density: np.ndarray, region: np.ndarray, n_regions: int) -> np.ndarray:
    """Return the point of each region in its densest cell, `[n_regions]`; the first of several."""
    order = np.lexsort((-density, region))
    return order[np.searchsorted(region[order], np.arange(n_regions))]


def _parents(within: np.ndarray, level: int, n_regions: int) -> np.ndarray:
    parents = np.full(n_regions, NONE, np.int64)
    if level > 0:
        inside = within[level] >= 0
        parents[within[level][inside]] = within[level - 1][inside]
    return parents


def _boxes(positions: np.ndarray, region: np.ndarray, n_regions: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper corner of each region's points, `[n_regions, 2]` each."""
    low, high = np.full((n_regions, 2), np.inf), np.full((n_regions, 2), -np.inf)
    inside = region >= 0
    np.minimum.at(low, region[inside], positions[inside])
    np.maximum.at(high, region[inside], positions[inside])
    return low, high


def _contours(hierarchy: Hierarchy, level: int, n_regions: int) -> list[list[float]]:
    """Outline each region's cells within one bandwidth of a point, or within more where that gives several parts."""
    from scipy.ndimage import distance_transform_edt, find_objects

    grid, zoom = hierarchy.grid, hierarchy.levels[level]
    assert grid is not None
    away = np.asarray(distance_transform_edt((grid.counts == 0) | (zoom.cells == NONE))) * grid.step / zoom.bandwidth
    contours = []
    for r, box in enumerate(find_objects(zoom.cells + 1, n_regions)):
        mine, counts = zoom.cells[box] == r, grid.counts[box]
        corner = (grid.x + box[1].start * grid.step, grid.y + box[0].start * grid.step)
        rows, columns = np.nonzero(mine & (counts > 0))
        centres = np.column_stack([corner[0] + (columns + 0.5) * grid.step, corner[1] + (rows + 0.5) * grid.step])
        weights, ring = counts[rows, columns], np.zeros((0, 2))
        for reach in WITHIN:
            ring = outline(mine & (away[box] <= reach), corner=corner, step=grid.step)
            if weights[contains(ring, centres)].sum() >= OUTLINED * weights.sum():
                break
        contours.append(ring.ravel().tolist())
    return contours
