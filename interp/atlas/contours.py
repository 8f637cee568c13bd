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
