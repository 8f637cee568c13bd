"""Compiled loops of the statistics pass. Each works on one block of whole contexts and is linear in its firings.

A *firing* is one feature active on one row. A block's firings are first grouped by feature, in row order, so that the
activations around a firing are its neighbours in the list: a window is read by walking left and right.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

BINS_PER_OCTAVE = 4
LOWEST_OCTAVE, HIGHEST_OCTAVE = -24, 24
N_FINE_BINS = BINS_PER_OCTAVE * (HIGHEST_OCTAVE - LOWEST_OCTAVE)


class Totals(NamedTuple):
    """Running sums per feature."""

    n_fired: np.ndarray
    """`[d_sae]` int64"""
    total: np.ndarray
    """`[d_sae]` float64: sum of activations"""
    maximum: np.ndarray
    """`[d_sae]` float32"""
    fine_histogram: np.ndarray
    """`[d_sae, N_FINE_BINS]` int64"""


class Slots(NamedTuple):
    """The firings with the largest keys of each feature, each with its window of activations."""

    keys: np.ndarray
    """`[d_sae, n]` float64: what is kept largest; -1 in an empty slot"""
    rows: np.ndarray
    """`[d_sae, n]` int64: global row of the firing"""
    values: np.ndarray
    """`[d_sae, n]` float32: its activation"""
    windows: np.ndarray
    """`[d_sae, n, 2 * window + 1]` float32: the feature on the rows around, 0 outside the context"""
    worst: np.ndarray
    """`[d_sae]` int64: the slot that is given up next"""


class Firings(NamedTuple):
    """The firings of one block, grouped by feature."""

    starts: np.ndarray
    """`[d_sae + 1]` int64: feature `f` owns `starts[f]:starts[f + 1]`"""
    rows: np.ndarray
    """`[n_firings]` int64, ascending within a feature"""
    values: np.ndarray
    """`[n_firings]` float32"""


@njit(cache=True)
def group_by_feature(values, indices, rows, d_sae):
    """Counting sort of `values, indices [n_rows, k]` into `Firings`; zeros are padding."""
    starts = np.zeros(d_sae + 1, np.int64)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            if values[i, j] > 0:
                starts[indices[i, j] + 1] += 1
    for f in range(d_sae):
        starts[f + 1] += starts[f]
    place = starts[:-1].copy()
    out_rows = np.empty(starts[-1], np.int64)
    out_values = np.empty(starts[-1], np.float32)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            if values[i, j] > 0:
                at = place[indices[i, j]]
                place[indices[i, j]] = at + 1
                out_rows[at] = rows[i]
                out_values[at] = values[i, j]
    return Firings(starts, out_rows, out_values)


@njit(cache=True)
def add_totals(firings, totals):
    """Counts, sums, maxima and fine log-spaced histograms."""
    for f in range(len(firings.starts) - 1):
        for i in range(firings.starts[f], firings.starts[f + 1]):
            value = firings.values[i]
            totals.n_fired[f] += 1
            totals.total[f] += value
            totals.maximum[f] = max(totals.maximum[f], value)
            octave = np.log2(value) - LOWEST_OCTAVE
            fine = min(max(int(octave * BINS_PER_OCTAVE), 0), N_FINE_BINS - 1)
            totals.fine_histogram[f, fine] += 1


@njit(cache=True)
def keep_strongest(firings, slots, window, context_length):
    """The strongest firing of each of the `n` contexts in which a feature fires most strongly."""
    for f in range(len(firings.starts) - 1):
        for i in range(firings.starts[f], firings.starts[f + 1]):
            key = np.float64(firings.values[i])
            if key <= slots.keys[f, slots.worst[f]]:
                continue
            slot = _slot_of_context(slots, f, firings.rows[i] // context_length, context_length)
            if key > slots.keys[f, slot]:
                _put(slots, f, slot, key, i, firings, window, context_length)


@njit(cache=True)
def keep_sample(firings, slots, window, context_length, seed):
    """A uniform sample of each feature's firings: those whose hash of `(seed, feature, row)` is largest.

    The hash does not depend on the order of reading, so neither does the sample.
    """
    for f in range(len(firings.starts) - 1):
        for i in range(firings.starts[f], firings.starts[f + 1]):
            key = _uniform(seed, f, firings.rows[i])
            if key > slots.keys[f, slots.worst[f]]:
                _put(slots, f, slots.worst[f], key, i, firings, window, context_length)


@njit(cache=True)
def _slot_of_context(slots, f, context, context_length):
    """The slot that already holds this context, or else the worst one."""
    for slot in range(slots.keys.shape[1]):
        if slots.keys[f, slot] >= 0 and slots.rows[f, slot] // context_length == context:
            return slot
    return slots.worst[f]


@njit(cache=True)
def _put(slots, f, slot, key, i, firings, window, context_length):
    slots.keys[f, slot] = key
    slots.rows[f, slot] = firings.rows[i]
    slots.values[f, slot] = firings.values[i]
    _write_window(slots.windows[f, slot], i, f, firings, window, context_length)
    worst = 0
    for other in range(1, slots.keys.shape[1]):
        if slots.keys[f, other] < slots.keys[f, worst]:
            worst = other
    slots.worst[f] = worst


@njit(cache=True)
def _write_window(out, i, f, firings, window, context_length):
    """Walk from firing `i` to both sides while the rows lie in its window and its context."""
    row = firings.rows[i]
    first = max(row - window, row - row % context_length)
    last = min(row + window, row - row % context_length + context_length - 1)
    out[:] = 0
    j = i
    while j >= firings.starts[f] and firings.rows[j] >= first:
        out[window + firings.rows[j] - row] = firings.values[j]
        j -= 1
    j = i + 1
    while j < firings.starts[f + 1] and firings.rows[j] <= last:
        out[window + firings.rows[j] - row] = firings.values[j]
        j += 1


@njit(cache=True)
def _uniform(seed, f, row):
    """A number in [0, 1) from a 64-bit mix of the three (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = np.uint64(seed) + np.uint64(row) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(f) * np.uint64(0xD1B54A32D192ED03)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return np.float64(x >> np.uint64(11)) * (1.0 / 9007199254740992.0)
