"""Density of points over a map and its peaks, from which the regions of the map are cut.

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

from typing import Any, NamedTuple

import numpy as np

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
        here = (slice(0, n_y - dy), slice(max(0, -dx), n_x - max(0, dx)))
        there = (slice(dy, n_y), slice(max(0, dx), n_x - max(0, -dx)))
        one, two = basin[here], basin[there]
        border = np.nonzero((one != two) & (one >= 0) & (two >= 0))
        one, two = one[border], two[border]
        pairs.append(np.minimum(one, two) * n + np.maximum(one, two))
        passes.append(np.minimum(height[here][border], height[there][border]))
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
    for (one, two), height in zip(pairs.tolist(), passes.tolist(), strict=True):
        high, low = highest[sets[one]], highest[sets[two]]
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
    found = _rings(gaussian_filter(part, 0.75)) or _rings(part)  # the blur removes single cells
    largest: Any = max(map(Polygon, found), key=lambda polygon: polygon.area)
    ring = get_coordinates(largest.simplify(tolerance).exterior)
    first = np.array([columns[0], rows[0]]) - 3 + 0.5  # the padding, and half a cell to its centre
    return ((ring + first) * step + np.array(corner)).astype(np.float32)


def _rings(field: np.ndarray) -> list[np.ndarray]:
    """Return closed outer rings `[m, 2]` (x, y in cells) around the parts of `field [n_y, n_x]` above 0.4."""
    from contourpy import FillType, contour_generator

    found: Any = contour_generator(z=field, fill_type=FillType.OuterOffset).filled(0.4, np.inf)
    points, starts = found  # each part's outer ring, then its holes
    return [each[: offsets[1]] for each, offsets in zip(points, starts, strict=True)]


def contains(ring: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return which of `points [n, 2]` lie inside a closed ring, `[n]` bool; none if the ring is empty."""
    from shapely import Polygon, contains_xy, prepare

    polygon = Polygon(ring)
    prepare(polygon)
    return contains_xy(polygon, points[:, 0], points[:, 1])
