"""Selection of the largest pre-activations in compiled loops, per row or over a batch. Imports numba: import it lazily.

Values are compared as integers `(bits of the value, lower latent first)`, so the selected set is unique whatever the
algorithm or the number of threads. float32 and bfloat16 share one loop, because the bits of positive floats sort like
integers. 64 values at a time give a mask of those above a floor, so that only those few are looked at one by one.

**Vectors** of `WIDTH` numbers inside numba's loops are functions that it compiles in place (LLVM by llvmlite).

Numba vectorises a loop by itself, but gives no mask of a comparison, and keeps no sum in registers over a loop of rows.
LLVM cuts a vector into the registers that the processor has.

The order of every sum is written out, and products are fused with sums wherever the processor can. With LLVM's
`reassoc` the order would depend on what is compiled next to a loop: the process that compiles would round otherwise
than those that load its code from the cache.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

WIDTH = 64
"""Numbers in a vector: the bits of an integer, and eight registers of AVX2 in float32."""
FUSED = ("contract",)
"""A product and a sum in one instruction."""


def _intrinsic(builder: Callable[..., Any]) -> Any:
    """`numba.extending.intrinsic`: the decorated function is called with the arguments after its first."""
    return intrinsic(builder)


def _first(context, builder, kind, array, at=None):
    """Return the address of an array's value `at`."""
    data = context.make_array(kind)(context, builder, array).data
    return data if at is None else builder.gep(data, [at])


def _vector(context, builder, kind, array, at):
    """Return the address of `WIDTH` values of a contiguous array from index `at` on, as a vector."""
    lanes = ir.VectorType(context.get_value_type(kind.dtype), WIDTH)
    return builder.bitcast(_first(context, builder, kind, array, at), lanes.as_pointer())


def _load(context, builder, kind, array, at):
    return builder.load(_vector(context, builder, kind, array, at), align=kind.dtype.bitwidth // 8)


def _same(builder, lanes, value):
    """Return a vector of one value."""
    index = ir.IntType(32)
    first = builder.insert_element(ir.Constant(lanes, ir.Undefined), value, index(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(index, WIDTH), [0] * WIDTH))


@_intrinsic
def above_floors(typing, values, at, floors):
    """Return an integer whose bit `i` says whether `values[at + i] > floors[at + i]`, for `i < WIDTH`."""

    def build(context, builder, signature, arguments):
        kind, (array, at, floors) = signature.args[0], arguments
        left, right = (_load(context, builder, kind, operand, at) for operand in (array, floors))
        return builder.bitcast(builder.icmp_signed(">", left, right), ir.IntType(WIDTH))

    return types.uint64(values, types.intp, floors), build


@_intrinsic
def above_floor(typing, values, at, floor):
    """`above_floors` with one floor for all."""

    def build(context, builder, signature, arguments):
        array, at, floor = arguments
        left = _load(context, builder, signature.args[0], array, at)
        return builder.bitcast(builder.icmp_signed(">", left, _same(builder, left.type, floor)), ir.IntType(WIDTH))

    return types.uint64(values, types.intp, values.dtype), build


@_intrinsic
def lowest_bit(typing, bits):
    """Return the index of the lowest bit that is set."""

    def build(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), build


@_intrinsic
def count_bits(typing, bits):
    """Return the number of bits that are set."""

    def build(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), build


@_intrinsic
def add_rows(typing, out, at, weights, rows, source, start, end):
    """Add `weights[e] * source[WIDTH * rows[e] :]` to `out[at :]`, for `e` from `start` up to `end`.

    `WIDTH` values each; all arrays are flat. The sum stays in registers.
    """

    def build(context, builder, signature, arguments):
        (into, _, of_weights, of_rows, of_source, *_), size = signature.args, signature.args[0].dtype.bitwidth // 8
        out, at, weights, rows, source, start, end = arguments
        place = _vector(context, builder, into, out, at)
        weights, rows = _first(context, builder, of_weights, weights), _first(context, builder, of_rows, rows)
        before, initial = builder.block, builder.load(place, align=size)
        loop, after = builder.append_basic_block("rows"), builder.append_basic_block("summed")
        builder.cbranch(builder.icmp_signed("<", start, end), loop, after)

        builder.position_at_end(loop)
        e, total = builder.phi(start.type), builder.phi(initial.type)
        row = builder.load(builder.gep(rows, [e]))
        values = _load(context, builder, of_source, source, builder.mul(row, row.type(WIDTH)))
        weight = _same(builder, initial.type, builder.load(builder.gep(weights, [e])))
        new = builder.fadd(total, builder.fmul(weight, values, flags=FUSED), flags=FUSED)
        following = builder.add(e, e.type(1))
        for phi, first, next_one in ((e, start, following), (total, initial, new)):
            phi.add_incoming(first, before)
            phi.add_incoming(next_one, loop)
        builder.cbranch(builder.icmp_signed("<", following, end), loop, after)

        builder.position_at_end(after)
        final_total = builder.phi(initial.type)
        final_total.add_incoming(initial, before)
        final_total.add_incoming(new, loop)
        builder.store(final_total, place, align=size)
        return context.get_dummy_value()

    return types.void(out, types.intp, weights, rows, source, types.intp, types.intp), build


@_intrinsic
def dot(typing, left, at, right, to):
    """Return the sum of `left[at + i] * right[to + i]`, for `i < WIDTH`; both arrays are flat."""

    def build(context, builder, signature, arguments):
        left, at, right, to = arguments
        a = _load(context, builder, signature.args[0], left, at)
        b = _load(context, builder, signature.args[2], right, to)
        total, width, index = builder.fmul(a, b, flags=FUSED), WIDTH, ir.IntType(32)
        while width > 1:  # the upper half onto the lower one
            width //= 2
            halves = (
                builder.shuffle_vector(total, total, ir.Constant(ir.VectorType(index, width), list(lanes)))
                for lanes in (range(width), range(width, 2 * width))
            )
            total = builder.fadd(*halves, flags=FUSED)
        return builder.extract_element(total, index(0))

    return left.dtype(left, types.intp, right, types.intp), build


LOW = np.int64(0xFFFFFFFF)
BUCKETS = 4096
"""ranges of values that `nth_largest` counts"""
SAMPLE = 256
"""rows, and columns, from which a batch's floor is estimated"""


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
def _start(row, k, lanes):
    """Return a floor that at least `k` values of a row exceed, or 0; `lanes` is working memory for 2 k values or more.

    Every lane's largest value is a value of the row, so `k` values reach the k-th largest of them. Half of the lanes
    do, which leaves about 1.4 k candidates.
    """
    width, at = len(lanes), len(lanes)
    if len(row) < 2 * width:
        return row.dtype.type(0)
    lanes[:] = row[:width]
    while at + width <= len(row):
        for c in range(width):
            value = row[at + c]
            lanes[c] = value if value > lanes[c] else lanes[c]
        at += width
    keep_largest(lanes, width, k)
    return max(lanes[:k].min(), row.dtype.type(1)) - 1


@njit(cache=True)
def _cut_row(keys, n, k, room):
    """Move the `k` largest of `keys[:n]` to the front, in their order; return how many there are."""
    if n <= k:
        return n
    room[:n] = keys[:n]
    keep_largest(room, n, k)
    smallest = room[:k].min()
    at = 0
    for i in range(n):
        key = keys[i]
        keys[at] = key
        at += key >= smallest
    return k


@njit(cache=True)
def _scan_row(row, k, floor, keys, room):
    """Write packed keys of the (at most) `k` largest values of a row above `floor` to the front of `keys`, in the order
    of the columns; return the count. When `keys` is full it is cut back to `k`, and the floor rises.
    """
    n = 0
    whole = len(row) - len(row) % WIDTH
    for start in range(0, whole, WIDTH):
        hits = above_floor(row, start, floor)
        while hits:
            column = start + lowest_bit(hits)
            hits &= hits - np.uint64(1)
            keys[n] = _pack(row[column], column)
            n += 1
        if n > len(keys) - WIDTH:
            n = _cut_row(keys, n, k, room)
            # an equal value further right ranks below those retained
            floor = row.dtype.type(keys[:k].min() >> np.int64(32))
    for column in range(whole, len(row)):
        if row[column] > floor:
            keys[n] = _pack(row[column], column)
            n += 1
    return _cut_row(keys, n, k, room)


@njit(cache=True, parallel=True)
def topk_rows(bits, k, out_bits, out_latents):
    """Select the `k` largest positive values per row of `bits [n, d_sae]` (int32 or int16 views of floats).

    The result is sorted by latent.

    Rows with fewer than `k` positive values are padded with bits 0 (the value 0.0) and latent 0.
    """
    for r in prange(bits.shape[0]):
        keys = np.empty(2 * k + 2 * WIDTH, np.int64)
        lanes = np.empty(-(-2 * k // WIDTH) * WIDTH, bits.dtype)
        n = _scan_row(bits[r], k, _start(bits[r], k, lanes), keys, np.empty_like(keys))
        for i in range(n):
            out_latents[r, i] = LOW - (keys[i] & LOW)
            out_bits[r, i] = keys[i] >> np.int64(32)
        for i in range(n, k):
            out_latents[r, i] = 0
            out_bits[r, i] = 0


@njit(cache=True, parallel=True)
def count_above(bits, floors):
    """Count the values of each row that exceed their latent's floor (`floors [d_sae]`, bits >= 0); `[n]`."""
    counts = np.zeros(bits.shape[0], np.int64)
    for r in prange(bits.shape[0]):
        row, n = bits[r], 0
        whole = len(row) - len(row) % WIDTH
        for start in range(0, whole, WIDTH):
            n += count_bits(above_floors(row, start, floors))
        for column in range(whole, len(row)):
            n += row[column] > floors[column]
        counts[r] = n
    return counts


@njit(cache=True, parallel=True)
def fill_above(bits, floors, starts, out_bits, out_latents):
    """Write values above their latent's floor, row after row, sorted by latent; row `r` begins at `starts[r]`."""
    for r in prange(bits.shape[0]):
        row, at = bits[r], starts[r]
        whole = len(row) - len(row) % WIDTH
        for start in range(0, whole, WIDTH):
            hits = above_floors(row, start, floors)
            while hits:
                column = start + lowest_bit(hits)
                hits &= hits - np.uint64(1)
                out_latents[at], out_bits[at] = column, row[column]
                at += 1
        for column in range(whole, len(row)):
            if row[column] > floors[column]:
                out_latents[at], out_bits[at] = column, row[column]
                at += 1


@njit(cache=True)
def nth_largest(values, n):
    """Return the `n`-th largest (from 1) entry of an integer array: of the bucket of values that holds it."""
    lowest, shift = np.int64(values.min()), 0
    while (np.int64(values.max()) - lowest) >> shift >= BUCKETS:
        shift += 1
    counts = np.zeros(BUCKETS, np.int64)
    for value in values:
        counts[(np.int64(value) - lowest) >> shift] += 1
    bucket, above = BUCKETS - 1, 0
    while above + counts[bucket] < n:
        above += counts[bucket]
        bucket -= 1
    inside, at = np.empty(counts[bucket], np.int64), 0
    for value in values:
        if (np.int64(value) - lowest) >> shift == bucket:
            inside[at] = value
            at += 1
    keep_largest(inside, at, n - above)
    return inside[: n - above].min()


def topk_batch(bits, n):
    """Select the `n` largest positive values of all `bits [rows, d_sae]`: `(starts, latents, bits)`, latents rising.

    A floor estimated from a sample of rows keeps the candidates few. If the estimate exceeds the n-th largest,
    selection is repeated with floor 0, so the result is exact.
    """
    floors = np.full(bits.shape[1], _sampled_floor(bits, n), bits.dtype)
    starts, latents, values = above(bits, floors)
    if starts[-1] < n:
        starts, latents, values = above(bits, np.zeros_like(floors))
    if starts[-1] > n:
        return _cut(starts, latents, values, n, nth_largest(values, n))
    return starts, latents, values


def above(bits, floors):
    """Select the values of `bits [rows, d_sae]` above their latent's floor (>= 0): `(starts, latents, bits)`."""
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(count_above(bits, floors))])
    values, latents = np.empty(starts[-1], bits.dtype), np.empty(starts[-1], np.int64)
    fill_above(bits, floors, starts[:-1], values, latents)
    return starts, latents, values


def _sampled_floor(bits, n):
    """Estimate, from about `SAMPLE` rows and columns, a value that about 1.25 `n` of all values exceed; 0 when few are
    positive.
    """
    rows, columns = (max(1, size // SAMPLE) for size in bits.shape)
    sample = bits[::rows, ::columns].ravel()
    positive = sample[sample > 0]
    rank = int(1.25 * n * len(sample) / bits.size) + 1
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
