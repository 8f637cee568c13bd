"""Regions within regions: the peaks of a map at several bandwidths, nested.

A wide bandwidth sees what the eye sees from afar, a narrow one what it sees up close. Along a ladder of bandwidths the
peaks that stand out (`density`) are counted, and for each of the wanted numbers (6, 20, 60, ...) the bandwidth that
comes nearest is taken: levels are found in the map, none is cut to a number. Then, from the finest level up,

- a region is the largest connected part of its peak's basin that is not nearly empty,
- and goes as a whole to the coarser region that holds most of its points, or to none if most lie between regions: so
  every region lies in one of the next coarser level, or in none.

A level that adds little to the coarser one is left out; a map with one peak has no regions.
"""

from typing import NamedTuple

import numpy as np

from interp.atlas.density import Blur, Grid, Peaks, find_peaks, lay_grid

NONE = -1
WANTED = (6, 20, 60, 180, 540)
"""Numbers of regions, the coarsest level first."""
FEWEST_POINTS = 15
"""A smaller map has no regions."""
MEAN_SIZE = 30
"""Points that a level's regions must hold on average: 1,000 points are not cut into 60."""
SMALLEST = 5
"""Points in the smallest region."""
EMPTY = 0.1
"""Cells below this share of the density at their region's median point belong to no region."""
MORE = 1.5
"""A level has at least so many times the regions of the coarser one."""
_STEPS_PER_OCTAVE = 3
_NARROWEST = 1.5
"""Cells in the narrowest bandwidth; the widest is an eighth of the map."""


class Level(NamedTuple):
    """One zoom level."""

    cells: np.ndarray
    """`[n_y, n_x]` int64: the region of every cell, `NONE` for none"""
    seen: np.ndarray
    """`[n_y, n_x]`: the density that it was found in (points that a kernel sees)"""
    bandwidth: float
    """in map units"""


class Hierarchy(NamedTuple):
    """Levels over one grid, the coarsest first; none on a map without regions."""

    grid: Grid | None
    levels: list[Level]

    def regions(self, n: int) -> np.ndarray:
        """`[n_levels, n]` int64: the region of every point on every level, `NONE` for none."""
        if self.grid is None or not self.levels:
            return np.zeros((0, n), np.int64)
        return np.stack([np.append(level.cells.ravel(), NONE)[self.grid.cell] for level in self.levels])


def find_hierarchy(positions: np.ndarray) -> Hierarchy:
    """The nested regions of a map `positions [n, 2]`; on each level the largest region has the lowest number."""
    grid = lay_grid(positions) if len(positions) >= FEWEST_POINTS else None
    if grid is None:
        return Hierarchy(None, [])
    blur = Blur(grid.counts, widest := max(grid.counts.shape) / 8)
    n_steps = int(np.log2(widest / _NARROWEST) * _STEPS_PER_OCTAVE)
    ladder = [find_peaks(blur, widest * 2 ** (-i / _STEPS_PER_OCTAVE)) for i in range(n_steps + 1)]
    return Hierarchy(grid, nest(grid, choose_levels(ladder, len(positions))))


def choose_levels(ladder: list[Peaks], n: int) -> list[Peaks]:
    """For each wanted number the step of the ladder that comes nearest, each level at a narrower bandwidth.

    Where a number of peaks lasts over several steps, the middle one: there the peaks are most their own.
    """
    counts = np.array([peaks.n for peaks in ladder], np.float64)
    chosen: list[Peaks] = []
    start = 0
    for wanted in WANTED:
        if (chosen and wanted * MEAN_SIZE > n) or start == len(ladder):
            break
        off = np.abs(np.log(counts[start:].clip(0.5) / wanted))
        best = int(off.argmin())
        lasts = int((off[best:] == off[best]).cumprod().sum())
        at = start + best + (lasts - 1) // 2
        if ladder[at].n >= 2 and (not chosen or ladder[at].n >= MORE * chosen[-1].n):
            chosen.append(ladder[at])
            start = at + 1
    return chosen


def nest(grid: Grid, chosen: list[Peaks]) -> list[Level]:
    """Cut every level's regions from its basins, the finest first, each coarser one around the finer."""
    levels: list[Level] = []
    finer = None
    for peaks in reversed(chosen):
        cells = one_piece(grid, cut_empty(grid, peaks))
        if finer is not None:
            home = np.append(homes(grid, finer, cells), NONE)
            cells = np.where(finer == NONE, cells, home[finer])
        cells = by_size(grid, cells)
        levels.append(Level(cells, peaks.seen, peaks.bandwidth * grid.step))
        finer = cells
    return [level for level in reversed(levels) if level.cells.max() > 0]


def cut_empty(grid: Grid, peaks: Peaks) -> np.ndarray:
    """`[n_y, n_x]` region of every cell: its basin, without what is nearly empty."""
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
    """The same regions, of each only the connected part (cells that touch) with most points."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    number = np.arange(cells.size).reshape(cells.shape)
    pairs = []
    for here, there in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1], np.s_[1:]),
        (np.s_[:-1, :-1], np.s_[1:, 1:]),
        (np.s_[:-1, 1:], np.s_[1:, :-1]),
    ):
        together = (cells[here] == cells[there]) & (cells[here] >= 0)
        pairs.append(np.stack([number[here][together], number[there][together]]))
    one, two = np.concatenate(pairs, axis=1)
    graph = coo_matrix((np.ones(len(one), bool), (one, two)), shape=(cells.size, cells.size))
    _, part = connected_components(graph, directed=False)
    held = np.bincount(part, grid.counts.ravel())
    region = np.full(len(held), NONE)
    region[part] = cells.ravel()
    order = np.lexsort((-held, region))
    first = np.unique(region[order], return_index=True)[1]
    keep = np.zeros(len(held), bool)
    keep[order[first]] = True
    return np.where(keep[part].reshape(cells.shape), cells, NONE)


def homes(grid: Grid, finer: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """`[n_finer]`: the coarse region that holds most points of each finer one, `NONE` where most lie in none."""
    inside = finer >= 0
    n, m = int(finer.max(initial=NONE)) + 1, int(coarse.max(initial=NONE)) + 2  # the last stands for none
    place = finer[inside] * m + coarse[inside] % m
    home = np.bincount(place, grid.counts[inside], n * m).reshape(n, m).argmax(1)
    return np.where(home == m - 1, NONE, home)


def by_size(grid: Grid, cells: np.ndarray) -> np.ndarray:
    """The same regions, numbered by falling number of points, without those of fewer than `SMALLEST`."""
    inside = cells >= 0
    sizes = np.bincount(cells[inside], grid.counts[inside])
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] >= SMALLEST]
    number = np.full(len(sizes) + 1, NONE, np.int64)
    number[order] = np.arange(len(order))
    return number[cells]
