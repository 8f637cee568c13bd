"""Gradient of the metric with respect to each reader's input, in the residual stream.

One backward pass gives the gradients at every head's q, k and v and at every MLP's input. They are mapped to the
residual stream through the reader's weights and the norm's Jacobian in closed form (`interp.models.residual`). The
estimated effect of a source's change through a reader is an inner product summed over positions,
`score = <change, gradient>`.

Integrated gradients need only the sum over several runs, and most of it can be computed before the map. Let `g` be the
gradient at a query of value `W u + b`, with `u` the normed residual stream and `s` the norm's scale:

    sum over runs of (W^T g / s - u <W^T g / s, u> / d)  =  W^T (sum of g / s)  -  sum of u <g / s, W u> / d

The first sum has width `d_head` and is mapped once; `W u` is the query itself without its constant. So the map to the
residual stream, and the product with all sources, are computed once for all runs. Memory: one layer of gradients in
the residual stream, and one such stream per run and layer.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import torch
from einops import rearrange
from torch import Tensor

from interp.circuits.graph import Graph
from interp.models.adapter import Hook, run_with_hooks
from interp.models.passes import gather_positions, read_hook, storing_hook
from interp.models.residual import SIDES, Norm, ResidualStream, norm_of
from interp.patching.metrics import Metric
from interp.patching.task import final_point

Key = TypeVar("Key", bound=Hashable)


@dataclass
class _Sums:
    """Gradients summed over runs, by layer, before the map to the residual stream; `n = batch * pos`."""

    heads: dict[int, Tensor] = field(default_factory=dict)
    """`[n, n_slots, d_head]` at q, k and v, divided by the scale of the norm"""
    along: dict[int, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    """per run `u [n, d_model]` and the gradient's component along it, `[n_slots, n, 1]`, which the norm removes"""
    mlp: dict[int, Tensor] = field(default_factory=dict)
    """`[batch, pos, d_model]` at the residual stream that the MLP reads"""
    final: dict[None, Tensor] = field(default_factory=dict)
    """`[batch, n_read, d_model]` at the residual stream that the logits read"""


class GradientReader:
    """Gradients at the readers of a model, with norms read and weights folded once."""

    def __init__(self, residual: ResidualStream, graph: Graph):
        self.residual, self.graph = residual, graph
        model, d_model = residual.model, residual.shape.d_model
        self.norm1 = [norm_of(block, "ln1", d_model) for block in model.blocks]
        self.norm2 = [norm_of(block, "ln2", d_model) for block in model.blocks] if graph.has_mlp else []
        self.norm_final = norm_of(model, "ln_final", d_model)
        self.points = self._points()

    def _points(self) -> list[str]:
        names = []
        for layer in range(self.graph.n_layers):
            names += [f"blocks.{layer}.attn.hook_{side}" for side in SIDES]
            if self.graph.has_mlp:
                names.append(f"blocks.{layer}.mlp.hook_in")
        return [*names, "unembed.hook_in"]

    @cached_property
    def weights(self) -> list[Tensor]:
        """Maps from a reader's gradient to the residual stream, `[n_slots of attention, d_head, d_model]` per layer."""
        folded = []
        with torch.no_grad():
            for layer, norm in enumerate(self.norm1):
                weight = torch.cat([self.residual.W(layer, side) for side in SIDES])
                folded.append((weight if norm is None else norm.fold(weight)).transpose(1, 2).contiguous())
        return folded

    @cached_property
    def constants(self) -> list[Tensor]:
        """Constant terms of q, k and v, `[n_slots of attention, d_head]` per layer."""
        constants = []
        with torch.no_grad():
            for layer, norm in enumerate(self.norm1):
                sides = []
                for side in SIDES:
                    weight, bias = self.residual.W(layer, side), self.residual.b(layer, side)
                    constant = weight.new_zeros(weight.shape[0], weight.shape[2]) if bias is None else bias
                    read = None if norm is None else norm.bias
                    sides.append(constant if read is None else constant + read @ weight)
                constants.append(torch.cat(sides))
        return constants

    def summed(
        self,
        tokens: Tensor,
        embeds: Iterable[Tensor],
        metric: Metric,
        at: Tensor,
        frozen: Sequence[tuple[str, Hook]] = (),
    ) -> Iterator[tuple[slice, int, Tensor]]:
        """Yield `(slots, n_seen, gradient [n_slots, batch, pos, d_model])` by layer, of the metric summed over prompts.

        Gradients are summed over one run for each of `embeds`, which are inputs of the first block,
        `[batch, pos, d_model]`. The slots read the sources `0 .. n_seen - 1`. `frozen` are the hooks that hold the
        scales of post-norms.
        """
        sums = _Sums()
        for embed in embeds:
            self._add_run(sums, tokens, embed, metric, at, frozen)
        batch_pos = tokens.shape
        for layer in range(self.graph.n_layers):
            gradient = rearrange(
                self._attention(layer, sums), "slot (batch pos) d_model -> slot batch pos d_model", batch=len(tokens)
            )
            yield self.graph.attention_slots(layer), self.graph.before(layer), gradient
            if self.graph.has_mlp:
                slot = self.graph.mlp_slot(layer)
                yield slice(slot, slot + 1), self.graph.before_mlp(layer), sums.mlp.pop(layer)[None]
        at_read = sums.final.pop(None)
        full = at_read.new_zeros(*batch_pos, at_read.shape[-1])
        index = at.to(full.device)[:, :, None].expand_as(at_read)
        slot = self.graph.logits_slot
        yield slice(slot, slot + 1), self.graph.n_sources, full.scatter_add_(1, index, at_read)[None]

    @torch.no_grad()
    def _add_run(
        self,
        sums: _Sums,
        tokens: Tensor,
        embed: Tensor,
        metric: Metric,
        at: Tensor,
        frozen: Sequence[tuple[str, Hook]],
    ) -> None:
        """Add the gradients of one forward and backward pass to the sums."""
        streams, values, read = self._backward(tokens, embed, metric, at, frozen)
        for layer in range(self.graph.n_layers):
            block = f"blocks.{layer}"
            names = [f"{block}.attn.hook_{side}" for side in SIDES]
            at_heads = torch.cat([read.pop(name) for name in names], dim=2)
            at_heads = rearrange(at_heads, "batch pos head d_head -> (batch pos) head d_head")
            norm, resid = self.norm1[layer], streams.pop(f"{block}.hook_resid_pre")
            if norm is not None:
                unit, scale = norm.unit_and_scale(resid.flatten(0, 1))
                at_heads = at_heads / scale[..., None]
                moving = torch.cat([values.pop(name) for name in names], 2).flatten(0, 1) - self.constants[layer]
                along = torch.linalg.vecdot(at_heads, moving).T[..., None] / unit.shape[-1]
                sums.along.setdefault(layer, []).append((unit, along))
            _add(sums.heads, layer, at_heads)
            if self.graph.has_mlp:
                gradient, stream = read.pop(f"{block}.mlp.hook_in"), streams.pop(f"{block}.mlp")
                _add(sums.mlp, layer, pull_back(self.norm2[layer], gradient, stream))
        final = gather_positions(streams.pop("final"), at)
        _add(sums.final, None, pull_back(self.norm_final, read.pop("unembed.hook_in"), final))

    def _backward(
        self, tokens: Tensor, embed: Tensor, metric: Metric, at: Tensor, frozen: Sequence[tuple[str, Hook]]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Run one forward and backward pass; return streams at norms, and values and gradients at hook points."""
        streams: dict[str, Tensor] = {}
        values: dict[str, Tensor] = {}
        leaf = embed.detach().requires_grad_()

        def record(name: str) -> Hook:
            def hook(value: Tensor, hook: object) -> Tensor:
                values[name] = value.view_as(value)  # without a norm: the residual stream, which other readers share
                return values[name]

            return hook

        final = storing_hook(streams, "final")
        hooks = [*frozen, (final_point(self.residual.model), final), read_hook(at)]
        hooks += [(name, record(name)) for name in self.points]
        hooks += self._stream_hooks(streams, leaf)
        with torch.enable_grad():
            logits = run_with_hooks(self.residual.model, tokens.to(self.residual.device), hooks)
            total = metric(logits).sum()
            gradients = torch.autograd.grad(total, list(values.values()))
        read = dict(zip(values, gradients, strict=True))
        return streams, {name: value.detach() for name, value in values.items()}, read

    def _stream_hooks(self, streams: dict[str, Tensor], leaf: Tensor) -> list[tuple[str, Hook]]:
        """Return hooks that start the run from `leaf`, and store the residual stream before each norm."""
        hooks: list[tuple[str, Hook]] = [("blocks.0.hook_resid_pre", lambda value, hook: leaf)]
        for layer in range(self.graph.n_layers):
            point = f"blocks.{layer}.hook_resid_pre"
            hooks.append((point, storing_hook(streams, point)))
            if self.graph.has_mlp:
                hooks.append((self.residual.mlp_reads(layer), storing_hook(streams, f"blocks.{layer}.mlp")))
        return hooks

    def _attention(self, layer: int, sums: _Sums) -> Tensor:
        """Return the gradients at the residual stream that a layer's attention reads, `[n_slots, n, d_model]`."""
        gradient = torch.bmm(sums.heads.pop(layer).transpose(0, 1), self.weights[layer])
        for unit, along in sums.along.pop(layer, []):
            gradient.addcmul_(along, unit[None], value=-1)
        return gradient


def _add(sums: dict[Key, Tensor], key: Key, value: Tensor) -> None:
    """Add a value to a sum, never in place: autograd may return one tensor as several gradients."""
    sums[key] = sums[key] + value if key in sums else value


def pull_back(norm: Norm | None, gradient: Tensor, resid: Tensor) -> Tensor:
    """Return the gradient at the norm's input `resid [..., d_model]`, given the one at its output."""
    if norm is None:
        return gradient
    unit, scale = norm.unit_and_scale(resid)
    folded = norm.fold_vector(gradient)
    along = torch.linalg.vecdot(folded, unit)[..., None] / unit.shape[-1]
    return (folded - along * unit) / scale
