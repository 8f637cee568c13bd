"""Compiled loops for neighbour lists, the fuzzy graph and the layout. Imports numba, so import it lazily.

Every parallel loop assigns each point to one thread, which writes that point only. Random numbers come from a counter
`(seed, epoch, point)`. So results do not depend on the number of threads.
"""

import numpy as np
from numba import njit, prange

FAST = {"reassoc", "contract", "arcp", "nsz"}  # without the flags that assume no NaN and no infinity
SMALLEST_SCALE = 1e-3
"""smallest sigma, as a fraction of the mean distance"""


UNFILLED = np.iinfo(np.int32).max
"""index in an entry of a neighbour list that is not filled yet"""
STRETCH = 64
COUNTED = 1 << 14
"""entries counted at a time; a float32 counts exactly up to here"""


@njit(inline="always")
def _insert(closest, indices, row, value, point):
    """Insert `point` into the sorted list of `row`; the last entry drops out."""
    at = closest.shape[1] - 1
    while at > 0 and (closest[row, at - 1] < value or (closest[row, at - 1] == value and indices[row, at - 1] > point)):
        closest[row, at], indices[row, at] = closest[row, at - 1], indices[row, at - 1]
        at -= 1
    closest[row, at], indices[row, at] = value, point


@njit(inline="always")
def _belongs(closest, indices, row, value, point):
    last = closest.shape[1] - 1
    return value > closest[row, last] or (value == closest[row, last] and point < indices[row, last])


@njit(inline="always")
def _dot(x, y):
    total = np.float32(0)
    for at in range(len(x)):
        total += x[at] * y[at]
    return total


@njit(inline="always")
def _cut(value, error, rounding):
    """Return the least screened value that the closeness `value` can have."""
    least = value - error
    return least * (np.float32(1) - rounding if least > 0 else np.float32(1) + rounding)


@njit(cache=True, nogil=True, fastmath=FAST)
def merge_block(near, first, second, closest, indices, points, error, rounding):
    """Update the lists of points `first ...` and `second ...` by their closeness `near [a, b]`; return pairs measured.

    `closest, indices [n, k]` hold each point's closest others so far, closest first, ties to the lower number. Nearly
    all pairs are rejected, in stretches of `STRETCH` that are compared with vector instructions. Values that differ
    from the dot product of `points [n, d]` by up to `error`, then rounded by up to a fraction `rounding`, only reject:
    pairs that may belong to a list are measured again. With no points (`n = 0`) the values are taken as they are.
    """
    a, b = near.shape
    last = closest.shape[1] - 1
    itself, exact = first == second, len(points) == 0
    least = np.empty(b, np.float32)
    for j in range(b):
        # a block with itself holds every pair twice: each enters the list of its row
        least[j] = np.inf if itself else _cut(closest[second + j, last], error, rounding)
    measured = 0
    for i in range(a):
        mine = _cut(closest[first + i, last], error, rounding)
        for start in range(0, b, STRETCH):
            row, theirs = near[i, start : start + STRETCH], least[start : start + STRETCH]
            some = False
            for j in range(len(row)):
                some |= (row[j] >= mine) | (row[j] >= theirs[j])
            if not some:
                continue
            for j in range(len(row)):
                p, q = first + i, second + start + j
                if p == q or not (row[j] >= mine or row[j] >= theirs[j]):
                    continue
                value = row[j] if exact else _dot(points[p], points[q])
                measured += 1
                if _belongs(closest, indices, p, value, q):
                    _insert(closest, indices, p, value, q)
                    mine = _cut(closest[p, last], error, rounding)
                if not itself and _belongs(closest, indices, q, value, p):
                    _insert(closest, indices, q, value, p)
                    theirs[j] = _cut(closest[q, last], error, rounding)
    return measured


@njit(cache=True, nogil=True, fastmath=FAST)
def count_larger(value, marks, counts):
    """Count in `counts[i, j]` the entries of row `i` of `value [m, n]` above `marks[i, j]`; `marks, counts [m, k]`."""
    for i in range(len(value)):
        for j in range(marks.shape[1]):
            mark, total = marks[i, j], 0
            for start in range(0, value.shape[1], COUNTED):
                row, some = value[i, start : start + COUNTED], np.float32(0)  # a float32 counter vectorises
                for at in range(len(row)):
                    some += np.float32(1) if row[at] > mark else np.float32(0)
                total += int(some)
            counts[i, j] = total


@njit(cache=True, parallel=True, fastmath=FAST)
def memberships(distances, overall_mean, out):
    """Compute `out[i, j] = exp(-(d - rho) / sigma)`, sigma by bisection; `distances [n, k]` ascend along a row."""
    n, k = distances.shape
    target = np.log2(k + 1.0)
    for i in prange(n):
        rho, total = 0.0, 0.0
        for j in range(k):
            total += distances[i, j]
            if rho == 0.0 and distances[i, j] > 0.0:
                rho = float(distances[i, j])
        low, high, sigma = 0.0, np.inf, 1.0
        for _ in range(64):
            reached = 0.0
            for j in range(k):
                beyond = distances[i, j] - rho
                reached += np.exp(-beyond / sigma) if beyond > 0.0 else 1.0
            if abs(reached - target) < 1e-5:
                break
            if reached > target:
                high = sigma
                sigma = (low + high) / 2
            else:
                low = sigma
                sigma = sigma * 2 if high == np.inf else (low + high) / 2
        sigma = max(sigma, SMALLEST_SCALE * (total / k if rho > 0.0 else overall_mean), 1e-30)
        for j in range(k):
            beyond = distances[i, j] - rho
            out[i, j] = np.exp(-beyond / sigma) if beyond > 0.0 else 1.0


@njit(inline="always")
def _mixed(x):
    """Apply splitmix64's finaliser (Steele, Lea & Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(inline="always")
def _clipped(x):
    return min(max(x, np.float32(-4.0)), np.float32(4.0))


@njit(inline="always")
def _entry(squared):
    """Return the index of a squared distance in the force tables: its exponent and the upper 7 bits of its mantissa."""
    return np.float32(squared).view(np.int32) >> 16


@njit(cache=True, parallel=True, fastmath=FAST)
def run_epochs(positions, buffer, starts, others, rates, attraction, repulsion, first, last, total, rate, seed, turns):
    """Run epochs `first` to `last` of `total`, in place on `positions [n, 2]`; `buffer` has the same shape.

    An epoch has `turns` turns. In turn `t` the points `t, t + turns, ...` move; they see all positions as of the start
    of the turn. An edge is used in a fraction `rates` of the epochs: it attracts its point, and five random points
    repel it. Each epoch a point visits its edges from another starting edge, since it ends nearest to the last one
    visited. Step sizes decrease from `rate` to 0.
    """
    n = positions.shape[0]
    for epoch in range(first, last):
        alpha = np.float32(rate * (1.0 - epoch / total))
        for turn in range(turns):
            members = (n - turn + turns - 1) // turns
            for member in prange(members):
                i = turn + member * turns
                key = np.uint64(seed) + np.uint64(epoch) * np.uint64(0x9E3779B97F4A7C15)
                state = _mixed(key + np.uint64(i) * np.uint64(0xD1B54A32D192ED03))
                x, y = positions[i, 0], positions[i, 1]
                n_edges = starts[i + 1] - starts[i]
                begin = np.int64(state >> np.uint64(33)) % max(n_edges, 1)
                for step in range(begin, begin + n_edges):
                    edge = starts[i] + (step if step < n_edges else step - n_edges)
                    if int((epoch + 1) * rates[edge]) <= int(epoch * rates[edge]):
                        continue
                    other_x, other_y = positions[others[edge], 0], positions[others[edge], 1]
                    dx, dy = x - other_x, y - other_y
                    force = attraction[_entry(dx * dx + dy * dy)]
                    x -= alpha * _clipped(force * dx)
                    y -= alpha * _clipped(force * dy)
                    for _ in range(5):
                        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
                        j = np.int64(((state >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))
                        dx, dy = x - positions[j, 0], y - positions[j, 1]
                        force = repulsion[_entry(dx * dx + dy * dy)]  # 0 at distance 0: a point does not repel itself
                        x += alpha * _clipped(force * dx)
                        y += alpha * _clipped(force * dy)
                buffer[i, 0], buffer[i, 1] = x, y
            for member in prange(members):
                i = turn + member * turns
                positions[i, 0], positions[i, 1] = buffer[i, 0], buffer[i, 1]


@njit(cache=True, parallel=True, fastmath=FAST)
def neighbours_of_neighbours(points, squares, factor, indices, values, nearest, closest):
    """Find the `k` closest among each point's neighbours and their neighbours: `nearest`, `closest [n, k]`.

    Closeness is `factor * x . y - squares[y]`; closest first, ties to the lower number. `indices` and `values` are not
    changed.
    """
    n, k = indices.shape
    d = points.shape[1]
    for i in prange(n):
        pool = np.empty(k * k, np.int64)
        size = 0
        for a in range(k):
            for b in range(k):
                candidate = indices[indices[i, a], b]
                if candidate != i:
                    pool[size] = candidate
                    size += 1
        pool = np.sort(pool[:size])
        best, near = nearest[i], closest[i]
        for a in range(k):
            best[a], near[a] = indices[i, a], values[i, a]
        before = -1
        for at_pool in range(size):
            candidate = pool[at_pool]
            if candidate == before:
                continue
            before = candidate
            dot = np.float32(0)
            for c in range(d):
                dot += points[i, c] * points[candidate, c]
            close = factor * dot - squares[candidate]
            last = k - 1
            if close < near[last] or (close == near[last] and candidate >= best[last]):
                continue
            known = False
            for a in range(k):
                known = known or best[a] == candidate
            if known:
                continue
            at = last
            while at > 0 and (near[at - 1] < close or (near[at - 1] == close and best[at - 1] > candidate)):
                near[at], best[at] = near[at - 1], best[at - 1]
                at -= 1
            near[at], best[at] = close, candidate


@njit(cache=True, nogil=True)
def nearest_candidates(new, reference, candidates, cosine, indices, distances):
    """Find the nearest of `candidates [m, c]` for every row of `new [m, d]`, into `indices, distances [m, k]`.

    Distances, in float64, are `1 - cosine` (1 where a vector is zero) or Euclidean; ties go to the lower number.
    """
    m, wide = candidates.shape
    k = indices.shape[1]
    d = new.shape[1]
    for i in range(m):
        measured = np.empty(wide, np.float64)
        for c in range(wide):
            candidate = candidates[i, c]
            dot, mine, theirs, apart = 0.0, 0.0, 0.0, 0.0
            for at in range(d):
                x, y = np.float64(new[i, at]), np.float64(reference[candidate, at])
                dot += x * y
                mine += x * x
                theirs += y * y
                apart += (x - y) * (x - y)
            if not cosine:
                measured[c] = np.sqrt(apart)
            else:
                measured[c] = 1.0 - dot / np.sqrt(mine * theirs) if mine * theirs > 0.0 else 1.0
                if apart == 0.0:
                    measured[c] = 0.0
        for rank in range(k):
            best = 0
            for c in range(1, wide):
                if measured[c] < measured[best] or (
                    measured[c] == measured[best] and candidates[i, c] < candidates[i, best]
                ):
                    best = c
            indices[i, rank], distances[i, rank] = candidates[i, best], max(measured[best], 0.0)
            measured[best] = np.inf


@njit(cache=True, nogil=True)
def strongest_attraction(positions, indices, distances, weights, a, b, out):
    """Write into `out [m, 2]` the position of strongest attraction to the neighbours `indices [m, k]` (`layout`).

    Each step is the mean of the neighbours weighted by their forces (iteratively reweighted least squares).
    """
    m, k = indices.shape
    for i in range(m):
        best, x, y = -np.inf, 0.0, 0.0
        for c in range(k):
            at_x, at_y = positions[indices[i, c], 0], positions[indices[i, c], 1]
            total = 0.0
            for j in range(k):
                dx, dy = at_x - positions[indices[i, j], 0], at_y - positions[indices[i, j], 1]
                total -= weights[i, j] * np.log(1.0 + a * (dx * dx + dy * dy) ** b)
            if total > best:
                best, x, y = total, at_x, at_y
        if distances[i, 0] <= 1e-9:
            out[i, 0], out[i, 1] = positions[indices[i, 0], 0], positions[indices[i, 0], 1]
            continue
        for _ in range(60):
            sum_x, sum_y, mass = 0.0, 0.0, 0.0
            for j in range(k):
                other_x, other_y = positions[indices[i, j], 0], positions[indices[i, j], 1]
                squared = max((x - other_x) ** 2 + (y - other_y) ** 2, 1e-6)
                force = weights[i, j] * squared ** (b - 1.0) / (1.0 + a * squared**b)
                sum_x += force * other_x
                sum_y += force * other_y
                mass += force
            new_x, new_y = sum_x / mass, sum_y / mass
            moved = abs(new_x - x) + abs(new_y - y)
            x, y = new_x, new_y
            if moved < 1e-7:
                break
        out[i, 0], out[i, 1] = x, y
