"""Scores of whole sources: all that a head, an MLP or the embedding writes, to every later reader at once.

The gradient at a head's z, or at an MLP's output, is already what a node score needs; no gradients per reader are made.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from interp.circuits.bench import Batch, Bench
from interp.circuits.sources import SourceValues
from interp.circuits.task import read_hook
from interp.models.adapter import Hook, run_with_hooks


def node_scores(
    bench: Bench, batch: Batch, clean: SourceValues, other: SourceValues | None, alphas: list[float]
) -> Tensor:
    """`[batch, n_sources]`: <clean minus other, mean gradient at the source's output over the points>."""
    diff = clean - other
    start = torch.zeros_like(clean.embed) if other is None else other.embed
    scores = torch.zeros(len(batch.rows), bench.graph.n_sources)
    for alpha in alphas:
        gradients = _gradients(bench, batch, torch.lerp(start, clean.embed, alpha))
        scores[:, 0] += (diff.embed * gradients.embed).sum((1, 2)).cpu()
        for layer, (z, gradient) in enumerate(zip(diff.z, gradients.z, strict=True)):
            scores[:, bench.graph.head_sources(layer)] += (z * gradient).sum((1, 3)).cpu()
        for layer, (mlp, gradient) in enumerate(zip(diff.mlp, gradients.mlp, strict=True)):
            scores[:, bench.graph.mlp_source(layer)] += (mlp * gradient).sum((1, 2)).cpu()
    return scores / len(alphas)


def _gradients(bench: Bench, batch: Batch, embed: Tensor) -> SourceValues:
    """Of the metric, at every source's output."""
    values: list[Tensor] = []
    leaf = embed.detach().requires_grad_()
    n_layers = bench.graph.n_layers

    def keep(value: Tensor, hook: Any) -> Tensor:
        values.append(value)
        return value

    hooks: list[tuple[str, Hook]] = [("blocks.0.hook_resid_pre", lambda value, hook: keep(leaf, hook))]
    for layer in range(n_layers):
        hooks.append((f"blocks.{layer}.attn.hook_z", keep))
        if bench.graph.has_mlp:
            hooks.append((f"blocks.{layer}.hook_mlp_out", keep))
    hooks.append(read_hook(batch.at))
    with torch.enable_grad():
        logits = run_with_hooks(bench.model, batch.clean.to(bench.residual.device), hooks)
        found = torch.autograd.grad(batch.metric(logits).sum(), values)
    z = [gradient for gradient in found if gradient.ndim == 4]
    mlp = [gradient for gradient in found[1:] if gradient.ndim == 3]
    return SourceValues(found[0], z, mlp)


@torch.no_grad()
def exact_node_scores(
    bench: Bench,
    batch: Batch,
    clean: SourceValues,
    other: SourceValues | None,
    direction: str,
    only: Sequence[int] | None,
) -> Tensor:
    """`[batch, n_sources]`: the metric's change when one source's output alone is replaced, all after it recomputed."""
    denoise = direction == "denoise"
    tokens = (batch.corrupt if denoise else batch.clean).to(bench.residual.device)
    new = clean if denoise else other
    scores = torch.zeros(len(batch.rows), bench.graph.n_sources)

    def metric(hooks: list[tuple[str, Hook]]) -> Tensor:
        return batch.metric(run_with_hooks(bench.model, tokens, [*hooks, read_hook(batch.at)]))

    before = metric([])
    for source in range(bench.graph.n_sources) if only is None else only:
        change = metric([_replace(bench, source, new)]) - before
        scores[:, source] = (change if denoise else -change).cpu()
    return scores


def _replace(bench: Bench, source: int, new: SourceValues | None) -> tuple[str, Hook]:
    """The hook that replaces what one source writes."""
    if source == 0:
        return "blocks.0.hook_resid_pre", lambda value, hook: torch.zeros_like(value) if new is None else new.embed
    layer, part = divmod(source - 1, bench.graph.sources_per_layer)
    if part == bench.graph.n_heads:
        point = f"blocks.{layer}.hook_mlp_out"
        return point, lambda value, hook: torch.zeros_like(value) if new is None else new.mlp[layer]

    def one_head(z: Tensor, hook: Any) -> Tensor:
        z = z.clone()
        z[:, :, part] = 0 if new is None else new.z[layer][:, :, part]
        return z

    return f"blocks.{layer}.attn.hook_z", one_head
