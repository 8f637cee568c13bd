"""How crowded each place of a map is, and its peaks: what the regions of a map are cut from.

1. points are counted on a grid of square cells
2. the counts are blurred with a Gaussian of one bandwidth, by one FFT for all bandwidths and on one thread
   (`scipy.ndimage.gaussian_filter` gives the same, but takes three times as long for a ladder of 29 on 512 x 512)
3. every cell climbs to its steepest neighbour until it stands on a peak; cells of one peak are its basin
4. a peak that does not rise far enough above the saddle to a higher one joins it (ToMATo: Chazal, Guibas, Oudot &
   Skraba 2013)

How far is far enough is said in standard errors. A Gaussian kernel of bandwidth `h` sees `c = 4 pi h^2 n f` points at
density `f`, with variance `c` where they fall at random, so that `2 sqrt(c + 3/8)` (Anscombe 1948) has variance 1 in
crowded and in empty places alike, and one threshold holds for all of the map.

Outlines of regions: contours of the grid (contourpy), of which the largest ring is simplified (shapely).
"""

from typing import Any, NamedTuple

import numpy as np

PROMINENCE = 5.5
"""Standard errors by which a peak must rise above its saddle. The highest of thousands that chance makes rises by 5."""
FEWEST_SEEN = 0.01
"""Points that a kernel must see for a cell to count as part of the map."""
_MARGIN = 2.0
"""Empty border of the grid, in the largest bandwidth, so that a blur does not reach around."""


class Grid(NamedTuple):
    """Square cells over a map."""

    x: float
    y: float
    """the corner of cell 0"""
    step: float
    """side of a cell in map units"""
    counts: np.ndarray
    """`[n_y, n_x]` float64 points per cell"""
    cell: np.ndarray
    """`[n]` int64 cell of every point, row after row; -1 for one far outside"""


class Peaks(NamedTuple):
    """The peaks of a map at one bandwidth."""

    bandwidth: float
    """in cells"""
    seen: np.ndarray
    """`[n_y, n_x]` float64: the points that a kernel sees at each cell"""
    basin: np.ndarray
    """`[n_y, n_x]` int64: the peak that each cell belongs to, -1 for none"""
    n: int
    """how many peaks stand out"""


def lay_grid(positions: np.ndarray) -> Grid | None:
    """128 to 512 cells along the longer side, more for more points; None when all points share one place.

    What lies outside the map's `frame` is in no cell.
    """
    positions = np.asarray(positions, np.float64)
    low, high = frame(positions)
    extent = float((high - low).max())
    if extent == 0:
        return None
    side = int(np.clip(2 ** np.ceil(np.log2(2 * np.sqrt(len(positions)))), 128, 512))
    step = extent / (side - 1)
    border = side // 16  # room for outlines around what lies at the edge
    low = low - border * step
    where = np.floor((positions - low) / step + 0.5).astype(np.int64)
    shape = np.floor((high - low) / step + 0.5).astype(np.int64)[::-1] + 1 + border
    inside = ((where >= 0) & (where < shape[::-1])).all(1)
    cell = np.where(inside, where[:, 1] * shape[1] + where[:, 0], -1)
    counts = np.bincount(cell[inside], minlength=int(shape.prod())).reshape(shape).astype(np.float64)
    return Grid(float(low[0]) - step / 2, float(low[1]) - step / 2, step, counts, cell)


def frame(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lower and the upper corner of a map `[n, 2]`: of all points, or without those that lie far outside.

    A few points far away must not coarsen the rest: what is further from the middle than twice the width of the middle
    99 % is outside.
    """
    inner, middle, outer = np.percentile(positions, [0.5, 50, 99.5], axis=0)
    reach = 2 * (outer - inner).max() or np.inf
    inside = positions[(np.abs(positions - middle) <= reach).all(1)]
    return inside.min(0), inside.max(0)


class Blur:
    """The counts of one grid, ready to be blurred with any bandwidth."""

    def __init__(self, counts: np.ndarray, largest: float) -> None:
        from scipy.fft import next_fast_len, rfft2

        self.shape = counts.shape
        margin = int(np.ceil(_MARGIN * 2 * largest))
        self.padded = [int(next_fast_len(side + margin, real=True) or 1) for side in counts.shape]
        self.spectrum: np.ndarray = np.asarray(rfft2(counts, self.padded, workers=1))

    def seen(self, bandwidth: float) -> np.ndarray:
        """`[n_y, n_x]`: the points that a Gaussian kernel of this bandwidth (in cells) sees at every cell."""
        from scipy.fft import irfft2
        from scipy.ndimage import fourier_gaussian

        blurred = fourier_gaussian(self.spectrum, bandwidth, n=self.padded[1])
        density = np.asarray(irfft2(blurred, self.padded, workers=1))
        return 4 * np.pi * bandwidth**2 * density[: self.shape[0], : self.shape[1]].clip(min=0)


def find_peaks(blur: Blur, bandwidth: float, prominence: float = PROMINENCE) -> Peaks:
    """The peaks that rise `prominence` standard errors above their saddles, and the cells that climb to them."""
    seen = blur.seen(bandwidth)
    basin = climb(seen)
    top = np.zeros(basin.size, bool)
    top[basin[basin >= 0]] = True
    tops, basin = np.flatnonzero(top), np.append(np.cumsum(top) - 1, -1)[basin]  # peaks by their numbers
    joined = join(stable(seen.ravel()[tops]), *saddles(stable(seen), basin), prominence)
    kept = np.unique(joined[joined >= 0])
    number = np.searchsorted(kept, joined)
    number[joined < 0] = -1
    return Peaks(bandwidth, seen, np.append(number, -1)[basin], len(kept))


def stable(seen: np.ndarray) -> np.ndarray:
    """Numbers of points in units of their standard error (Anscombe 1948)."""
    return 2 * np.sqrt(seen + 0.375)


def climb(seen: np.ndarray) -> np.ndarray:
    """`[n_y, n_x]` int64: the cell (row after row) on which every cell's steepest way up ends, -1 off the map."""
    n_y, n_x = seen.shape
    padded = np.pad(seen, 1, constant_values=-1.0)
    itself = np.arange(seen.size).reshape(seen.shape)
    best, up = seen, itself
    for number, (dy, dx) in enumerate(_AROUND):
        beside = padded[1 + dy : 1 + dy + n_y, 1 + dx : 1 + dx + n_x]
        # of equal cells the first is the higher one, so that a plateau has one peak
        higher = (beside > best) | ((beside == best) & (up == itself) if number < 4 else False)
        best, up = np.where(higher, beside, best), np.where(higher, itself + dy * n_x + dx, up)
    top = up.ravel()
    while not np.array_equal(further := top[top], top):
        top = further
    return np.where(seen >= FEWEST_SEEN, top.reshape(seen.shape), -1)


def saddles(height: np.ndarray, basin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`[m, 2]` neighbouring basins and `[m]` the height of the highest pass between them, the highest first."""
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
    """`[m]`: the peak that each of `m` peaks ends in, -1 for those that neither stand out nor touch one that does.

    Of two basins that meet, the one with the lower peak joins the other unless it rises `prominence` above the pass.
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
    """`[m, 2]` float32 (x, y): the largest ring around the cells of a mask `[n_y, n_x]`, closed by its first point.

    `corner` is where cell 0 begins, `step` the side of a cell. Jags of single cells are smoothed, and corners within
    `tolerance` cells of the line through their neighbours are left out (Douglas & Peucker 1973). Empty for an empty
    mask.
    """
    from scipy.ndimage import gaussian_filter
    from shapely import Polygon, get_coordinates

    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if len(rows) == 0:
        return np.zeros((0, 2), np.float32)
    part = np.pad(inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float64), 3)
    found = _rings(gaussian_filter(part, 0.75)) or _rings(part)  # single cells are blurred away
    largest: Any = max(map(Polygon, found), key=lambda polygon: polygon.area)
    ring = get_coordinates(largest.simplify(tolerance).exterior)
    first = np.array([columns[0], rows[0]]) - 3 + 0.5  # padding, and the middle of a cell
    return ((ring + first) * step + np.array(corner)).astype(np.float32)


def _rings(field: np.ndarray) -> list[np.ndarray]:
    """Closed lines `[m, 2]` (x, y in cells) around the parts of `field [n_y, n_x]` above 0.4, without their holes."""
    from contourpy import FillType, contour_generator

    found: Any = contour_generator(z=field, fill_type=FillType.OuterOffset).filled(0.4, np.inf)
    points, starts = found  # of each part its outer ring, then its holes
    return [each[: offsets[1]] for each, offsets in zip(points, starts, strict=True)]


def contains(ring: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`[n]` bool: which of `points [n, 2]` lie inside a closed ring; none where the ring is empty."""
    from shapely import Polygon, contains_xy, prepare

    polygon = Polygon(ring)
    prepare(polygon)
    return contains_xy(polygon, points[:, 0], points[:, 1])
