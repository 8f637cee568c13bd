"""Compiled selection of the largest pre-activations, per row or over a whole batch. Imports numba: import it lazily.

Every value becomes a sortable integer `(bits of the value, lower latent first)`, so the chosen set is unique whatever
the algorithm or the number of threads. float32 and bfloat16 share one loop:
the bits of positive floats sort like integers.
"""

import numpy as np
from numba import njit, prange

LOW = np.int64(0xFFFFFFFF)


@njit(cache=True, inline="always")
def _pack(bits, column):
    return (np.int64(bits) << np.int64(32)) | (LOW - np.int64(column))


@njit(cache=True)
def keep_largest(keys, n, k):
    """Move the `k` largest of `keys[:n]` to the front (in no order): quickselect, descending."""
    low, high = 0, n - 1
    while low < high:
        pivot = keys[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            return


@njit(cache=True)
def _scan_row(row, k, keys):
    """Packed keys of the (at most) `k` largest positive values of a row, at the front of `keys`; returns how many.

    One pass: values above the running floor are collected; when the buffer is full it is cut back to `k` and the
    floor rises to the smallest kept. Few values pass the floor after the first hundred.
    """
    n, floor, room = 0, np.int64(0), len(keys)
    for column in range(len(row)):
        bits = row[column]
        if bits > floor:
            keys[n] = _pack(bits, column)
            n += 1
            if n == room:
                keep_largest(keys, n, k)
                n = k
                smallest = keys[0]
                for i in range(1, k):
                    smallest = min(smallest, keys[i])
                floor = smallest >> np.int64(32)  # an equal value further right ranks below those kept
    if n > k:
        keep_largest(keys, n, k)
        n = k
    return n


@njit(cache=True, parallel=True)
def topk_rows(bits, k, out_bits, out_latents):
    """`bits [n, d_sae]` (int32 or int16 views of floats) -> the k largest positive per row, by rising latent.

    Rows with fewer than `k` positive values are padded with bits 0 (the value 0.0) and latent 0.
    """
    for r in prange(bits.shape[0]):
        keys = np.empty(4 * k + 16, np.int64)
        n = _scan_row(bits[r], k, keys)
        order = np.sort(LOW - (keys[:n] & LOW))
        for i in range(n):
            out_latents[r, i] = order[i]
            out_bits[r, i] = bits[r, order[i]]
        for i in range(n, k):
            out_latents[r, i] = 0
            out_bits[r, i] = 0


@njit(cache=True, parallel=True)
def count_above(bits, floors):
    """`[n]`: how many of each row's values exceed their latent's floor (`floors [d_sae]`, bits >= 0)."""
    counts = np.zeros(bits.shape[0], np.int64)
    for r in prange(bits.shape[0]):
        n = 0
        for column in range(bits.shape[1]):
            n += bits[r, column] > floors[column]
        counts[r] = n
    return counts


@njit(cache=True, parallel=True)
def fill_above(bits, floors, starts, out_bits, out_latents):
    """Values above their latent's floor, row after row, by rising latent; row `r` begins at `starts[r]`."""
    for r in prange(bits.shape[0]):
        at = starts[r]
        for column in range(bits.shape[1]):
            value = bits[r, column]
            if value > floors[column]:
                out_latents[at] = column
                out_bits[at] = value
                at += 1


@njit(cache=True)
def nth_largest(values, n):
    """The `n`-th largest (from 1) of an integer array."""
    keys = values.astype(np.int64)
    keep_largest(keys, len(keys), n)
    smallest = keys[0]
    for i in range(1, n):
        smallest = min(smallest, keys[i])
    return smallest


def topk_batch(bits, n):
    """The `n` largest positive values of all of `bits [rows, d_sae]`: `(starts, latents, bits)` by row, rising latent.

    A floor that a sample of rows puts below the n-th largest keeps the candidates few; if the sample misleads, the
    floor falls to 0 and nothing is lost.
    """
    floors = np.full(bits.shape[1], _sampled_floor(bits, n), bits.dtype)
    starts, latents, values = above(bits, floors)
    if starts[-1] < n:
        starts, latents, values = above(bits, np.zeros_like(floors))
    if starts[-1] > n:
        return _cut(starts, latents, values, n, nth_largest(values, n))
    return starts, latents, values


def above(bits, floors):
    """The values of `bits [rows, d_sae]` above their latent's floor (>= 0): `(starts, latents, bits)` as above."""
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(count_above(bits, floors))])
    values, latents = np.empty(starts[-1], bits.dtype), np.empty(starts[-1], np.int64)
    fill_above(bits, floors, starts[:-1], values, latents)
    return starts, latents, values


def _sampled_floor(bits, n):
    """A value that about 1.5 `n` of all values exceed, judged from up to 64 rows; 0 when few are positive."""
    sample = bits[:: max(1, len(bits) // 64)].ravel()
    positive = sample[sample > 0]
    rank = int(1.5 * n * len(sample) / bits.size) + 1
    return nth_largest(positive, rank) if rank <= len(positive) else 0


@njit(cache=True)
def _cut(starts, latents, values, n, smallest):
    """Keep the values above `smallest` and the first ones equal to it, `n` in all."""
    ties = n
    for value in values:
        ties -= value > smallest
    new_starts, kept_values, kept_latents = np.zeros_like(starts), np.empty(n, values.dtype), np.empty(n, np.int64)
    at = 0
    for row in range(len(starts) - 1):
        for a in range(starts[row], starts[row + 1]):
            tie = values[a] == smallest and ties > 0
            ties -= tie
            if tie or values[a] > smallest:
                kept_values[at], kept_latents[at] = values[a], latents[a]
                at += 1
        new_starts[row + 1] = at
    return new_starts, kept_latents, kept_values
