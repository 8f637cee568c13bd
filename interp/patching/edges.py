"""Edges: readers that read another residual stream than the run's own.

An edge leads from a sender, a component that adds to the residual stream, to one input of a later component, its
reader: the queries, keys or values of heads, an MLP, or the logits. As the residual stream is a plain sum, patching
the edge needs no further forward pass. The reader's input is

    stream + (other output of the sender - its own output)

before the reader's norm, whose scale is recomputed. Only the inserted queries, keys, values or MLP inputs are computed
from that stream; everything after the reader is recomputed by the run itself.

`reading_hooks` makes the hooks of such a run. The caller says which stream each reader reads. So path patching
(`interp.patching.paths`), circuits of edges (`interp.circuits.edge_runs`) and direct edges into induction heads
(`interp.circuits.induction_measure`) differ in that choice only.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from interp.models.adapter import Hook
from interp.models.residual import ResidualStream
from interp.patching.task import final_point

Part = Literal["q", "k", "v", "mlp", "logits"]


class Reader(NamedTuple):
    """One input of a layer. The logits are in layer `n_layers`."""

    layer: int
    part: Part

    def stream_point(self, residual: ResidualStream) -> str:
        """Return the hook point of the residual stream that is read."""
        if self.part == "mlp":
            return residual.mlp_reads(self.layer)
        return final_point(residual.model) if self.part == "logits" else f"blocks.{self.layer}.hook_resid_pre"

    def value_point(self, residual: ResidualStream) -> str:
        """Return the hook point of the value that is computed from the residual stream."""
        if self.part == "logits":
            return final_point(residual.model)
        return f"blocks.{self.layer}." + ("mlp.hook_in" if self.part == "mlp" else f"attn.hook_{self.part}")


class Read(NamedTuple):
    """Residual stream that a reader reads in some rows of a run, before its norm."""

    reader: Reader
    stream: Float[Tensor, "*heads batch pos d_model"]
    """`[batch, pos, d_model]`, or one for each of `heads`: `[n, batch, pos, d_model]`"""
    heads: Sequence[int] | None = None
    """heads that read it (of keys and values: key-value heads); None for all"""
    rows: slice = slice(None)

    def value(self, residual: ResidualStream) -> Tensor:
        """Return the value at `Reader.value_point`: of heads `[batch, pos, n, d_head]`."""
        layer, part = self.reader
        if part == "logits":
            return self.stream
        if part == "mlp":
            return residual.norm2(layer, self.stream)
        if self.stream.ndim == 3:
            new = residual.project(layer, part, self.stream)
            return new if self.heads is None else new[:, :, list(self.heads)]
        assert self.heads is not None
        weight, bias = residual.W(layer, part)[self.heads], residual.b(layer, part)
        flat = rearrange(residual.norm1(layer, self.stream), "head batch pos d_model -> head (batch pos) d_model")
        new = rearrange(
            torch.bmm(flat, weight), "head (batch pos) d_head -> batch pos head d_head", batch=self.stream.shape[1]
        )
        return new if bias is None else new + bias[self.heads]


def reading_hooks(
    residual: ResidualStream,
    readers: Iterable[Reader],
    reads: Callable[[list[Reader], Tensor], Iterable[Read]],
) -> list[tuple[str, Hook]]:
    """Return the hooks of a run in which `readers` read other residual streams.

    `reads(readers, stream)` is called for all readers of one hook point, with the run's own residual stream there,
    `[batch, pos, d_model]`. Heads and rows that it does not name read that stream.
    """
    by_point: dict[str, list[Reader]] = {}
    for reader in readers:
        by_point.setdefault(reader.stream_point(residual), []).append(reader)
    values: dict[Reader, list[tuple[Read, Tensor]]] = {}

    def reading(at_point: list[Reader]) -> Hook:
        def read_streams(stream: Tensor, hook: Any) -> None:
            for read in reads(at_point, stream):
                values.setdefault(read.reader, []).append((read, read.value(residual)))

        return read_streams

    def inserting(reader: Reader) -> Hook:
        return lambda value, hook: _inserted(value, values.pop(reader, []))

    hooks: list[tuple[str, Hook]] = []
    for point, at_point in by_point.items():
        hooks.append((point, reading(at_point)))
        hooks += [(reader.value_point(residual), inserting(reader)) for reader in at_point]
    return hooks


def _inserted(value: Tensor, parts: list[tuple[Read, Tensor]]) -> Tensor:
    """Return a reader's value with new ones in their rows and heads."""
    if len(parts) == 1 and parts[0][0].heads is None and parts[0][0].rows == slice(None):
        return parts[0][1].to(value.dtype).view_as(value)
    value = value.clone()
    for read, new in parts:
        rows = value[read.rows]
        if read.heads is None:
            rows.copy_(new)
        else:
            rows[:, :, list(read.heads)] = new.to(value.dtype)
    return value
