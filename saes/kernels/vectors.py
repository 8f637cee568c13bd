"""Vectors of `WIDTH` numbers inside numba's loops, as functions that it compiles in place (LLVM by llvmlite).

Numba vectorises a loop by itself, but gives no mask of a comparison, and keeps no sum in registers over a loop of rows.
LLVM cuts a vector into the registers that the processor has.

The order of every sum is written out, and products are fused with sums wherever the processor can. With LLVM's
`reassoc` the order would depend on what is compiled next to a loop: the process that compiles would round otherwise
than those that load its code from the cache.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
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
        kind, (array, at, other) = signature.args[0], arguments
        left, right = (_load(context, builder, kind, each, at) for each in (array, other))
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
        found = builder.phi(initial.type)
        found.add_incoming(initial, before)
        found.add_incoming(new, loop)
        builder.store(found, place, align=size)
        return context.get_dummy_value()

    return types.void(out, types.intp, weights, rows, source, types.intp, types.intp), build


@_intrinsic
def dot(typing, left, at, right, to):
    """Return the sum of `left[at + i] * right[to + i]`, for `i < WIDTH`; both arrays are flat."""

    def build(context, builder, signature, arguments):
        left, at, right, to = arguments
        a = _load(context, builder, signature.args[0], left, at)
        b = _load(context, builder, signature.args[2], right, to)
        found, width, index = builder.fmul(a, b, flags=FUSED), WIDTH, ir.IntType(32)
        while width > 1:  # the upper half onto the lower one
            width //= 2
            halves = (
                builder.shuffle_vector(found, found, ir.Constant(ir.VectorType(index, width), list(lanes)))
                for lanes in (range(width), range(width, 2 * width))
            )
            found = builder.fadd(*halves, flags=FUSED)
        return builder.extract_element(found, index(0))

    return left.dtype(left, types.intp, right, types.intp), build
