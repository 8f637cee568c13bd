"""How crowded each place of a map is, and its peaks: what the regions of a map are cut from.

1. points are counted on a grid of square cells
2. the counts are blurred with a Gaussian of one bandwidth (by FFT, on one thread: the same for any number of cores)
3. every cell climbs to its steepest neighbour until it stands on a peak; cells of one peak are its basin
4. a peak that does not rise far enough above the saddle to a higher one joins it (ToMATo: Chazal, Guibas, Oudot &
   Skraba 2013)

How far is far enough is said in standard errors. A Gaussian kernel of bandwidth `h` sees `c = 4 pi h^2 n f` points at
density `f`, with variance `c` where they fall at random, so that `2 sqrt(c + 3/8)` (Anscombe 1948) has variance 1 in
crowded and in empty places alike, and one threshold holds for all of the map.

Outlines of regions: marching squares on a grid, the largest ring, and fewer corners where they say nothing.
"""

from typing import NamedTuple

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

        down = np.exp(-2 * (np.pi * bandwidth * np.fft.fftfreq(self.padded[0])) ** 2)
        across = np.exp(-2 * (np.pi * bandwidth * np.fft.rfftfreq(self.padded[1])) ** 2)
        density = np.asarray(irfft2(self.spectrum * down[:, None] * across, self.padded, workers=1))
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
    root = np.arange(len(tops))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = int(root[i])
        return i

    for (one, two), height in zip(pairs.tolist(), passes.tolist(), strict=True):
        high, low = find(one), find(two)
        if (tops[low], -low) > (tops[high], -high):
            high, low = low, high
        if high != low and tops[low] - height < prominence:
            root[low] = high
    ends = np.array([find(i) for i in range(len(tops))], np.int64)
    return np.where(tops[ends] - stable(np.zeros(1))[0] >= prominence, ends, -1)


_AROUND = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


# The corners of a square, counter-clockwise from the lower left, as (dy, dx); edge i joins corner i and corner i + 1.
_CORNERS = ((0, 0), (0, 1), (1, 1), (1, 0))


def outline(inside: np.ndarray, *, corner: tuple[float, float], step: float, tolerance: float = 0.35) -> np.ndarray:
    """`[m, 2]` float32 (x, y): the largest ring around the cells of a mask `[n_y, n_x]`, closed by its first point.

    `corner` is where cell 0 begins, `step` the side of a cell. Jags of single cells are smoothed (a 3 x 3 blur), and
    corners within `tolerance` cells of the line through their neighbours are left out. Empty for an empty mask.
    """
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if len(rows) == 0:
        return np.zeros((0, 2), np.float32)
    part = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    field = np.pad(part.astype(np.float64), 3)
    for axis in (0, 1):
        field = (np.roll(field, 1, axis) + 2 * field + np.roll(field, -1, axis)) / 4
    found = rings(field, 0.4) or rings(np.pad(part.astype(np.float64), 3), 0.4)  # single cells are blurred away
    ring = simplify(max(found, key=area), tolerance)
    first = np.array([columns[0], rows[0]]) - 3 + 0.5  # padding, and the middle of a cell
    return ((ring + first) * step + np.array(corner)).astype(np.float32)


def rings(field: np.ndarray, level: float) -> list[np.ndarray]:
    """Closed lines `[m, 2]` (x, y in cells) along which `field [n_y, n_x]` crosses `level`; outlines counter-clockwise.

    Marching squares (Lorensen & Cline 1987 in the plane); a square with two opposite high corners is decided by its
    mean. The border of `field` must lie below `level`.
    """
    high = field > level
    code = np.zeros((high.shape[0] - 1, high.shape[1] - 1), np.int64)
    for i, (dy, dx) in enumerate(_CORNERS):
        code += high[dy : high.shape[0] - 1 + dy, dx : high.shape[1] - 1 + dx].astype(np.int64) << i
    squares = np.argwhere((code > 0) & (code < 15))
    y, x = squares.T
    middle = (field[y, x] + field[y, x + 1] + field[y + 1, x] + field[y + 1, x + 1]) / 4 > level
    lines = _SEGMENTS[code[y, x], middle.astype(np.int64)]  # [squares, 2, 2]: of each up to two lines, edge in and out
    there = lines[:, :, 0] >= 0
    edges = _EDGES[lines[there]] + np.repeat(squares, there.sum(1), axis=0)[:, None] @ _TO_THREE
    width = field.shape[1]
    names = ((edges[..., 0] * width + edges[..., 1]) * 2 + edges[..., 2]).tolist()
    following = dict(names)
    found = []
    while following:
        ring = [edge := next(iter(following))]
        while (edge := following.pop(edge)) != ring[0]:
            ring.append(edge)
        found.append(_crossings(field, level, np.array([*ring, ring[0]])))
    return found


def area(ring: np.ndarray) -> float:
    """Area inside a closed ring; above 0 when it runs counter-clockwise, below for a hole."""
    x, y = ring[:, 0], ring[:, 1]
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def simplify(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """A closed ring without the points that lie within `tolerance` of what is kept (Douglas & Peucker 1973)."""
    far = int(np.square(ring - ring[0]).sum(1).argmax())
    keep = np.zeros(len(ring), bool)
    keep[[0, far, len(ring) - 1]] = True
    todo = [(0, far), (far, len(ring) - 1)]
    while todo:
        first, last = todo.pop()
        if last - first < 2:
            continue
        along, between = ring[last] - ring[first], ring[first + 1 : last] - ring[first]
        length = float(np.hypot(*along))
        cross = np.abs(along[0] * between[:, 1] - along[1] * between[:, 0]) / max(length, 1e-12)
        off = cross if length > 1e-12 else np.hypot(between[:, 0], between[:, 1])
        worst = int(off.argmax())
        if off[worst] > tolerance:
            keep[split := first + 1 + worst] = True
            todo += [(first, split), (split, last)]
    return ring[keep]


def contains(ring: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`[n]` bool: which of `points [n, 2]` lie inside a closed ring (how often a ray to the right crosses it)."""
    inside = np.zeros(len(points), bool)
    x, y = points[:, 0], points[:, 1]
    for (x0, y0), (x1, y1) in zip(ring[:-1].tolist(), ring[1:].tolist(), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def _segments(code: int, centre_high: bool) -> list[tuple[int, int]]:
    """The lines through a square, as (edge in, edge out), with the high side on the left."""
    high = [bool(code >> i & 1) for i in range(4)]
    # Going around counter-clockwise: a line starts where low follows high, and ends where high follows low.
    starts = [i for i in range(4) if high[i] and not high[(i + 1) % 4]]
    ends = [i for i in range(4) if not high[i] and high[(i + 1) % 4]]
    if len(starts) == 1:
        return [(starts[0], ends[0])]
    # Two high corners opposite each other: joined through a high centre, apart otherwise.
    turn = 1 if centre_high else -1
    return [(start, (start + turn) % 4) for start in starts]


def _all_segments() -> np.ndarray:
    """`[16, 2, 2, 2]`: `_segments` by code and centre, -1 where there is no line."""
    table = np.full((16, 2, 2, 2), -1)
    for code in range(1, 15):
        for centre in (0, 1):
            lines = _segments(code, bool(centre))
            table[code, centre, : len(lines)] = lines
    return table


_SEGMENTS = _all_segments()
# One name for an edge, whichever of its two squares asks: (y, x, 0 along x or 1 along y), from the square's corner.
_EDGES = np.array([(0, 0, 0), (0, 1, 1), (1, 0, 0), (0, 0, 1)])
_TO_THREE = np.array([(1, 0, 0), (0, 1, 0)])


def _crossings(field: np.ndarray, level: float, names: np.ndarray) -> np.ndarray:
    """`[m, 2]` (x, y): where the field crosses the level on edges."""
    place, along_y = names // 2, names % 2
    y, x = place // field.shape[1], place % field.shape[1]
    one, two = field[y, x], field[y + along_y, x + 1 - along_y]
    share = (level - one) / (two - one)
    return np.column_stack([x + share * (1 - along_y), y + share * along_y])
