"""Outlines of regions: marching squares on a grid, the largest ring, and fewer corners where they say nothing."""

import numpy as np

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
    following: dict[tuple[int, int, int], tuple[int, int, int]] = {}
    for y, x in np.argwhere((code > 0) & (code < 15)).tolist():
        centre_high = field[y : y + 2, x : x + 2].mean() > level
        for start, end in _segments(int(code[y, x]), bool(centre_high)):
            following[_edge(y, x, start)] = _edge(y, x, end)
    found = []
    while following:
        ring = [edge := next(iter(following))]
        while (edge := following.pop(edge)) != ring[0]:
            ring.append(edge)
        found.append(np.array([_crossing(field, level, *edge) for edge in [*ring, ring[0]]]))
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


def _edge(y: int, x: int, number: int) -> tuple[int, int, int]:
    """One name for an edge, whichever of its two squares asks: (y, x, 0 along x or 1 along y)."""
    return ((y, x, 0), (y, x + 1, 1), (y + 1, x, 0), (y, x, 1))[number]


def _crossing(field: np.ndarray, level: float, y: int, x: int, along_y: int) -> tuple[float, float]:
    one, two = field[y, x], field[y + along_y, x + 1 - along_y]
    share = float((level - one) / (two - one))
    return x + share * (1 - along_y), y + share * along_y
