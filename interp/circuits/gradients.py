"""How the metric answers to a small change of what each reader reads: gradients per reader, mapped back to the stream.

One backward pass gives the gradients at every head's q, k and v and at every MLP's input. They are mapped to the
stream through the reader's weights and the norm's Jacobian in closed form (`interp.models.norms`), one layer at a
time, so memory holds the gradients of one layer in stream space and those of all layers only where they are small.
The effect of a source's change on a reader is then an inner product: `score(source, reader) = <change, gradient>`,
summed over positions.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from interp.circuits.graph import Graph
from interp.circuits.metrics import Metric
from interp.circuits.task import final_point, gather_positions, read_hook
from interp.models.adapter import Hook, run_with_hooks
from interp.models.norms import Norm, norm_of
from interp.models.residual import SIDES, ResidualStream


class GradientReader:
    """A model prepared for gradients at its readers: norms read once, weights folded once."""

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
        """Per layer `[n_slots of attention, d_head, d_model]`: what maps a reader's gradient to the stream."""
        folded = []
        with torch.no_grad():
            for layer, norm in enumerate(self.norm1):
                weight = torch.cat([self.residual.W(layer, side) for side in SIDES])
                folded.append((weight if norm is None else norm.fold(weight)).transpose(1, 2).contiguous())
        return folded

    def gradients(
        self, tokens: Tensor, embed: Tensor, metric: Metric, at: Tensor
    ) -> Iterator[tuple[slice, int, Tensor]]:
        """`(slots, n_seen, gradient [n_slots, batch, pos, d_model])` layer by layer, of the metric summed over prompts.

        `embed [batch, pos, d_model]` is the input of the first block; the slots see the sources `0 .. n_seen - 1`.
        """
        streams, read = self._backward(tokens, embed, metric, at)
        for layer in range(self.graph.n_layers):
            block = f"blocks.{layer}"
            at_heads = torch.cat([read.pop(f"{block}.attn.hook_{side}") for side in SIDES], dim=2)
            gradient = self._attention(layer, at_heads, streams.pop(f"{block}.hook_resid_pre"))
            yield self.graph.attention_slots(layer), self.graph.before(layer), gradient
            if self.graph.has_mlp:
                slot = self.graph.mlp_slot(layer)
                gradient = pull_back(self.norm2[layer], read.pop(f"{block}.mlp.hook_in"), streams.pop(f"{block}.mlp"))
                yield slice(slot, slot + 1), self.graph.before_mlp(layer), gradient[None]
        at_read = pull_back(self.norm_final, read.pop("unembed.hook_in"), gather_positions(streams.pop("final"), at))
        full = at_read.new_zeros(embed.shape)
        index = at.to(full.device)[:, :, None].expand_as(at_read)
        slot = self.graph.logits_slot
        yield slice(slot, slot + 1), self.graph.n_sources, full.scatter_add_(1, index, at_read)[None]

    def _backward(
        self, tokens: Tensor, embed: Tensor, metric: Metric, at: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The stream at every norm, and the gradient at every point, of one pass forward and back."""
        streams: dict[str, Tensor] = {}
        values: dict[str, Tensor] = {}
        leaf = embed.detach().requires_grad_()

        def keep(name: str) -> Hook:
            def hook(value: Tensor, hook: Any) -> Tensor:
                values[name] = value.view_as(value)  # without a norm this is the stream itself, which others read too
                return values[name]

            return hook

        def final(value: Tensor, hook: Any) -> None:
            streams["final"] = value.detach()

        hooks: list[tuple[str, Hook]] = [(final_point(self.residual.model), final), read_hook(at)]
        hooks += [(name, keep(name)) for name in self.points]
        hooks += self._stream_hooks(streams, leaf)
        with torch.enable_grad():
            logits = run_with_hooks(self.residual.model, tokens.to(self.residual.device), hooks)
            total = metric(logits).sum()
            gradients = torch.autograd.grad(total, list(values.values()))
        return streams, dict(zip(values, gradients, strict=True))

    def _stream_hooks(self, streams: dict[str, Tensor], leaf: Tensor) -> list[tuple[str, Hook]]:
        """Hooks that note the stream before each norm, and start the run from `leaf`."""
        hooks: list[tuple[str, Hook]] = []
        for layer in range(self.graph.n_layers):
            block = f"blocks.{layer}"

            def enter(value: Tensor, hook: Any, layer: int = layer, block: str = block) -> Tensor | None:
                value = leaf if layer == 0 else value
                streams[f"{block}.hook_resid_pre"] = streams[f"{block}.mlp"] = value.detach()
                return leaf if layer == 0 else None

            def attention_wrote(value: Tensor, hook: Any, block: str = block) -> None:
                streams[f"{block}.mlp"] = streams[f"{block}.mlp"] + value.detach()

            hooks.append((f"{block}.hook_resid_pre", enter))
            if self.graph.has_mlp and not self.graph.parallel:
                hooks.append((f"{block}.hook_attn_out", attention_wrote))
        return hooks

    def _attention(self, layer: int, at_heads: Tensor, resid: Tensor) -> Tensor:
        """`[n_slots, batch, pos, d_model]` from the gradients `[batch, pos, n_slots, d_head]` at q, k and v."""
        norm, weight = self.norm1[layer], self.weights[layer]
        batch, pos = at_heads.shape[:2]
        if norm is None:
            return torch.bmm(at_heads.flatten(0, 1).transpose(0, 1), weight).unflatten(1, (batch, pos))
        unit, scale = norm.unit_and_scale(resid)
        scaled = (at_heads / scale[..., None]).flatten(0, 1).transpose(0, 1)
        gradient = torch.bmm(scaled, weight).unflatten(1, (batch, pos))
        along = torch.linalg.vecdot(gradient, unit[None]) / unit.shape[-1]
        return gradient.addcmul_(along[..., None], unit[None], value=-1)


def pull_back(norm: Norm | None, gradient: Tensor, resid: Tensor) -> Tensor:
    """The gradient with respect to the norm's input `resid [..., d_model]`, given the one at its output."""
    if norm is None:
        return gradient
    unit, scale = norm.unit_and_scale(resid)
    folded = norm.fold_vector(gradient)
    along = torch.linalg.vecdot(folded, unit)[..., None] / unit.shape[-1]
    return (folded - along * unit) / scale
