"""What the sources of a graph wrote in one run, kept small: heads by their z, not by what they add to the stream.

A head's output is `z @ W_O`, `d_model` numbers per token made of `d_head`. Storing z and projecting a batch when it is
needed keeps a run at the size of its activations instead of `n_heads` copies of the stream.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.circuits.graph import Graph
from interp.circuits.task import read_hook
from interp.models.adapter import Hook, run_with_hooks
from interp.models.residual import ResidualStream
from interp.patching.partial import reader


@dataclass
class SourceValues:
    """The outputs of all sources in one run. Zero ablation is their absence (`None` where a value is asked for)."""

    embed: Tensor
    """`[batch, pos, d_model]`"""
    z: list[Tensor]
    """per layer `[batch, pos, n_heads, d_head]`"""
    mlp: list[Tensor]
    """per layer `[batch, pos, d_model]`; empty in attention-only models"""

    def tensors(self) -> list[Tensor]:
        return [self.embed, *self.z, *self.mlp]

    def map(self, change: Any) -> "SourceValues":
        """`change` applied to every tensor."""
        return SourceValues(change(self.embed), [change(z) for z in self.z], [change(m) for m in self.mlp])

    def __sub__(self, other: "SourceValues | None") -> "SourceValues":
        if other is None:
            return self
        pairs = zip(self.tensors(), other.tensors(), strict=True)
        embed, *rest = [a - b for a, b in pairs]
        return SourceValues(embed, rest[: len(self.z)], rest[len(self.z) :])


@torch.no_grad()
def collect(residual: ResidualStream, tokens: Tensor, at: Tensor) -> tuple[SourceValues, Tensor]:
    """The sources of a plain run on `tokens [batch, pos]`, and its logits `[batch, n_read, d_vocab]` at `at`."""
    store: dict[str, Tensor] = {}
    n_layers = residual.shape.n_layers

    names = ["blocks.0.hook_resid_pre", *(f"blocks.{layer}.attn.hook_z" for layer in range(n_layers))]
    if residual.has_mlp:
        names += [f"blocks.{layer}.hook_mlp_out" for layer in range(n_layers)]
    hooks: list[tuple[str, Hook]] = [(name, reader(store, name)) for name in names]
    hooks.append(read_hook(at))
    logits = run_with_hooks(residual.model, tokens.to(residual.device), hooks)
    values = [store[name] for name in names]
    return SourceValues(values[0], values[1 : 1 + n_layers], values[1 + n_layers :]), logits


@torch.no_grad()
def outputs(residual: ResidualStream, graph: Graph, values: SourceValues, out: Tensor | None = None) -> Tensor:
    """`[n_sources, batch, pos, d_model]`: what each source adds to the stream. The one large buffer of an analysis."""
    if out is None:
        out = values.embed.new_empty(graph.n_sources, *values.embed.shape)
    out[0] = values.embed
    for layer, z in enumerate(values.z):
        write_heads(residual, layer, z, out[graph.head_sources(layer)])
        if values.mlp:
            out[graph.mlp_source(layer)] = values.mlp[layer]
    return out


def write_heads(residual: ResidualStream, layer: int, z: Tensor, out: Tensor) -> None:
    """`out [n_heads, batch, pos, d_model]` becomes what a layer's heads add, of `z [batch, pos, n_heads, d_head]`."""
    torch.bmm(z.flatten(0, 1).transpose(0, 1), residual.W(layer, "o"), out=out.flatten(1, 2))


@torch.no_grad()
def mean_values(residual: ResidualStream, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> SourceValues:
    """Mean over prompts of every source at every position, `batch` 1; padding is left out.

    `batches` gives `(tokens [batch, pos], lengths [batch], at)`.
    """
    total: SourceValues | None = None
    count: Tensor | None = None
    for tokens, lengths, at in batches:
        values, _ = collect(residual, tokens, at)
        real = (torch.arange(tokens.shape[1])[None] < lengths[:, None]).to(residual.device)

        def summed(value: Tensor, real: Tensor = real) -> Tensor:
            return (value * real.reshape(*real.shape, *[1] * (value.ndim - 2))).sum(0, keepdim=True)

        part, n = values.map(summed), real.sum(0)
        total = part if total is None else total - part.map(torch.neg)
        count = n if count is None else count + n
    assert total is not None
    assert count is not None
    per_position = count.clamp_min(1)
    return total.map(lambda value: value / per_position.reshape(1, -1, *[1] * (value.ndim - 2)))
