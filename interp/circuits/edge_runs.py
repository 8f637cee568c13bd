"""Forward passes in which each edge of a graph can carry another run's value.

    bench = Bench(model, graph, task, ablation="resample", batch_size=16)
    bench.values([mask, other_mask])      # [n_masks, n_prompts]: the metric with only those edges in the circuit

`Bench` runs a model on a task with a graph, batch by batch, for attribution and evaluation. An edge outside the circuit
carries its source's output on the corrupted prompt (`resample`), its mean over the corrupted prompts at that position
(`mean`), or zero (`zero`).

A reader's input is the residual stream of this run, minus the outputs of its replaced sources, plus their outputs in
the other run. Sources are recomputed from their own inputs, so an early replacement affects everything after it:
effects are total, along all edges of the circuit. Each layer takes one product of the mask with the differences so far
(`[n_slots, n_sources] @ [n_sources, batch * pos * d_model]`) and one norm per reader; attention is not copied.

Memory: `n_sources * batch * pos * d_model` numbers for the differences, and one layer of reader inputs. Outputs of
heads are stored as z (`d_head` numbers per token) and projected by `W_O` one batch at a time, so a stored run has the
size of its activations, not of `n_heads` copies of the residual stream.

**Post-norm models** (Gemma 2 and 3) norm the sum of a layer's heads before adding it, so edges from single heads exist
only at a given scale of that norm. All runs of a batch, corrupted ones too, therefore hold it at its values on the
clean prompts (`Batch.residual`). In that model the residual stream is a plain sum and everything above is exact. It
equals the free model on the clean prompts, and approximates it on others. Norms on what MLPs write belong to the MLP,
and are not frozen.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from einops import einsum, rearrange
from torch import Tensor

from interp.circuits.config import Ablation
from interp.circuits.graph import Graph
from interp.circuits.judging import check_ablation
from interp.errors import ConfigError, MismatchError
from interp.models.adapter import Hook, run_with_hooks
from interp.models.hooked import HookedModel
from interp.models.passes import storing_hook
from interp.models.residual import SIDES, ResidualStream, Side
from interp.patching.metrics import Metric
from interp.patching.task import Task, final_point, read_hook


@dataclass
class SourceValues:
    """Outputs of all sources in one run; zero ablation has None instead."""

    embed: Tensor
    """`[batch, pos, d_model]`"""
    z: list[Tensor]
    """per layer `[batch, pos, n_heads, d_head]`"""
    mlp: list[Tensor]
    """per layer `[batch, pos, d_model]`; empty in attention-only models"""

    def tensors(self) -> list[Tensor]:
        return [self.embed, *self.z, *self.mlp]

    def map(self, change: Any) -> "SourceValues":
        """Apply `change` to every tensor."""
        return SourceValues(change(self.embed), [change(z) for z in self.z], [change(m) for m in self.mlp])

    def __sub__(self, other: "SourceValues | None") -> "SourceValues":
        if other is None:
            return self
        pairs = zip(self.tensors(), other.tensors(), strict=True)
        embed, *rest = [a - b for a, b in pairs]
        return SourceValues(embed, rest[: len(self.z)], rest[len(self.z) :])


@torch.no_grad()
def collect(residual: ResidualStream, tokens: Tensor, at: Tensor) -> tuple[SourceValues, Tensor]:
    """Run `tokens [batch, pos]` without patches; return all sources, and logits `[batch, n_read, d_vocab]` at `at`.

    With a frozen `residual` the run is that of the model with frozen post-norms.
    """
    store: dict[str, Tensor] = {}
    n_layers = residual.shape.n_layers

    names = ["blocks.0.hook_resid_pre", *(f"blocks.{layer}.attn.hook_z" for layer in range(n_layers))]
    if residual.has_mlp:
        names += [f"blocks.{layer}.hook_mlp_out" for layer in range(n_layers)]
    hooks: list[tuple[str, Hook]] = [(name, storing_hook(store, name)) for name in names]
    hooks = [*residual.freezing_hooks(), *hooks, read_hook(at)]
    logits = run_with_hooks(residual.model, tokens.to(residual.device), hooks)
    values = [store[name] for name in names]
    return SourceValues(values[0], values[1 : 1 + n_layers], values[1 + n_layers :]), logits


@torch.no_grad()
def outputs(residual: ResidualStream, graph: Graph, values: SourceValues, out: Tensor | None = None) -> Tensor:
    """Return what each source adds to the residual stream, `[n_sources, batch, pos, d_model]`: the largest buffer."""
    if out is None:
        out = values.embed.new_empty(graph.n_sources, *values.embed.shape)
    out[0] = values.embed
    for layer, z in enumerate(values.z):
        write_heads(residual, layer, z, out[graph.head_sources(layer)])
        if values.mlp:
            out[graph.mlp_source(layer)] = values.mlp[layer]
    return out


def write_heads(residual: ResidualStream, layer: int, z: Tensor, out: Tensor) -> None:
    """Write the outputs of a layer's heads from `z [batch, pos, n_heads, d_head]` into `out`.

    `out` is `[n_heads, batch, pos, d_model]`; `z` may be a difference. Raises `ConfigError` in a model with post-norms
    unless `residual` is frozen.
    """
    scale = residual.held_scale(layer)
    torch.bmm(z.flatten(0, 1).transpose(0, 1), residual.W_write(layer), out=out.flatten(1, 2))
    if scale is not None:
        out /= scale


@torch.no_grad()
def mean_values(batches: Iterable[tuple[ResidualStream, Tensor, Tensor, Tensor]]) -> SourceValues:
    """Return the mean over prompts of every source at every position, `batch` 1; padding does not count.

    `batches` gives `(residual, tokens [batch, pos], lengths [batch], at)`.
    """
    total: SourceValues | None = None
    count: Tensor | None = None
    for residual, tokens, lengths, at in batches:
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


@torch.no_grad()
def run_with_edges(
    residual: ResidualStream, graph: Graph, tokens: Tensor, included: Tensor, other: SourceValues | None, at: Tensor
) -> Tensor:
    """Run `tokens` with the circuit `included [n_edges]` bool; return logits `[batch, n_read, d_vocab]` at `at`.

    All other edges carry their source's output in `other`, or zero for None.
    """
    run = _EdgeRun(residual, graph, graph.slot_mask(included), other)
    hooks = [*residual.freezing_hooks(), *run.hooks(at)]
    return run_with_hooks(residual.model, tokens.to(residual.device), hooks)


class _EdgeRun:
    """Hooks of one masked run, and the differences of sources that they accumulate."""

    def __init__(self, residual: ResidualStream, graph: Graph, mask: Tensor, other: SourceValues | None):
        self.residual, self.graph, self.other = residual, graph, other
        dropped = (~mask).to(residual.device)
        seen = (
            torch.arange(graph.n_sources, device=residual.device) < graph.sources_of_slot.to(residual.device)[:, None]
        )
        self.dropped = dropped & seen
        self.any_dropped = self.dropped.any(2).any(0).tolist()
        self.diff = torch.zeros(0)
        self.resid = self.inputs = torch.zeros(0)
        self.changed: list[int] = []

    def hooks(self, at: Tensor) -> list[tuple[str, Hook]]:
        hooks: list[tuple[str, Hook]] = []
        for layer in range(self.graph.n_layers):
            hooks += self._block_hooks(layer)
        if self.any_dropped[self.graph.logits_slot]:
            hooks.append((final_point(self.residual.model), self._logits_read))
        return [*hooks, read_hook(at)]

    def _block_hooks(self, layer: int) -> list[tuple[str, Hook]]:
        block = f"blocks.{layer}"
        hooks: list[tuple[str, Hook]] = [(f"{block}.hook_resid_pre", lambda value, hook: self._enter(layer, value))]
        hooks += [(f"{block}.attn.hook_{side}", self._side_hook(layer, side)) for side in SIDES]
        hooks.append((f"{block}.attn.hook_z", lambda value, hook: self._heads_wrote(layer, value)))
        if self.graph.has_mlp:
            if not self.graph.parallel:
                hooks.append((f"{block}.hook_attn_out", self._attention_wrote))
            hooks.append((f"{block}.mlp.hook_in", lambda value, hook: self._mlp_reads(layer, value)))
            hooks.append((f"{block}.hook_mlp_out", lambda value, hook: self._mlp_wrote(layer, value)))
        return hooks

    def _enter(self, layer: int, resid: Tensor) -> None:
        self.resid = resid
        if layer == 0:
            self.diff = resid.new_empty(self.graph.n_sources, *resid.shape)
            self.diff[0] = resid if self.other is None else resid - self.other.embed
        slots = self.graph.attention_slots(layer)
        self.changed = [slot for slot in range(slots.start, slots.stop) if self.any_dropped[slot]]
        self.inputs = self._reads(resid, self.changed, self.graph.before(layer))

    def _side_hook(self, layer: int, side: Side) -> Hook:
        return lambda value, hook: self._side(layer, side, value)

    def _side(self, layer: int, side: Side, value: Tensor) -> Tensor | None:
        slots = self.graph.side_slots(layer, side)
        rows = [row for row, slot in enumerate(self.changed) if slots.start <= slot < slots.stop]
        if not rows:
            return None
        heads = [self.changed[row] - slots.start for row in rows]
        new = project_heads(self.residual, layer, side, self.inputs[rows[0] : rows[-1] + 1], heads)
        out = value.clone()
        out[:, :, heads] = rearrange(new, "head batch pos d_head -> batch pos head d_head").to(value.dtype)
        return out

    def _heads_wrote(self, layer: int, z: Tensor) -> None:
        delta = z if self.other is None else z - self.other.z[layer]
        write_heads(self.residual, layer, delta, self.diff[self.graph.head_sources(layer)])

    def _attention_wrote(self, value: Tensor, hook: Any) -> None:
        self.resid = self.resid + value

    def _mlp_reads(self, layer: int, value: Tensor) -> Tensor | None:
        slot = self.graph.mlp_slot(layer)
        if not self.any_dropped[slot]:
            return None
        inputs = self._reads(self.resid, [slot], self.graph.before_mlp(layer))[0]
        return self.residual.norm2(layer, inputs).to(value.dtype)

    def _mlp_wrote(self, layer: int, value: Tensor) -> None:
        self.diff[self.graph.mlp_source(layer)] = value if self.other is None else value - self.other.mlp[layer]

    def _logits_read(self, value: Tensor, hook: Any) -> Tensor:
        return self._reads(value, [self.graph.logits_slot], self.graph.n_sources)[0]

    def _reads(self, resid: Tensor, slots: list[int], n_seen: int) -> Tensor:
        """Return the inputs of some slots, with replaced sources subtracted, `[len(slots), batch, pos, d_model]`."""
        weights = self.dropped[:, slots, :n_seen].to(self.diff.dtype)
        diff = self.diff[:n_seen]
        if self.graph.positions is None:
            seen = torch.addmm(resid.reshape(1, -1), weights[0], diff.flatten(1), alpha=-1)
            return seen.unflatten(1, resid.shape)
        positions = torch.tensor(self.graph.positions, device=diff.device)
        inputs = resid.expand(len(slots), *resid.shape).clone()
        inputs[:, :, positions] -= einsum(
            weights, diff[:, :, positions], "pos slot source, source batch pos d_model -> slot batch pos d_model"
        )
        return inputs


def project_heads(residual: ResidualStream, layer: int, side: Side, inputs: Tensor, heads: list[int]) -> Tensor:
    """Return q, k or v of some heads, `[len(heads), batch, pos, d_head]`, each from its own input.

    `inputs [len(heads), batch, pos, d_model]` are before the norm, whose scale is recomputed.
    """
    weight, bias = residual.W(layer, side)[heads], residual.b(layer, side)
    flat = rearrange(residual.norm1(layer, inputs), "head batch pos d_model -> head (batch pos) d_model")
    out = rearrange(torch.bmm(flat, weight), "head (batch pos) d -> head batch pos d", batch=inputs.shape[1])
    return out if bias is None else out + bias[heads][:, None, None]


@torch.no_grad()
def run_with_single_edges(
    residual: ResidualStream, graph: Graph, tokens: Tensor, diff: Tensor, edges: list[int], at: Tensor
) -> Tensor:
    """Run `tokens` once per edge with only that edge replaced; return logits `[n_edges, batch, n_read, d_vocab]`.

    `diff [n_sources, batch, pos, d_model]` is the output of each source in this run minus its replacement. All edges
    run as one batch of `len(edges) * batch` rows.
    """
    batch = len(tokens)
    by_layer: dict[int, list[tuple[int, int, int, int | None]]] = {}
    for row, edge in enumerate(edges):
        position, reader, source = graph.edge_table[edge].tolist()
        where = None if graph.positions is None else graph.positions[position]
        for slot in graph.slots_of_reader(reader):
            by_layer.setdefault(slot // graph.slots_per_layer, []).append((row, slot, source, where))
    hooks: list[tuple[str, Hook]] = residual.freezing_hooks()
    for layer, patches in by_layer.items():
        if layer < graph.n_layers:
            hooks += _single_hooks(residual, graph, layer, patches, diff)

    def final(value: Tensor, hook: Any) -> Tensor:
        value = value.clone()
        for row, _, source, where in by_layer.get(graph.n_layers, []):
            _subtract(value[row * batch : (row + 1) * batch], diff[source], where)
        return value

    hooks += [(final_point(residual.model), final), read_hook(at.repeat(len(edges), 1))]
    logits = run_with_hooks(residual.model, tokens.to(residual.device).repeat(len(edges), 1), hooks)
    return rearrange(logits, "(edge batch) read vocab -> edge batch read vocab", batch=batch)


def _single_hooks(
    residual: ResidualStream,
    graph: Graph,
    layer: int,
    patches: list[tuple[int, int, int, int | None]],
    diff: Tensor,
) -> list[tuple[str, Hook]]:
    """Return hooks that replace one input of a layer in each block of rows."""
    batch, block = diff.shape[1], f"blocks.{layer}"
    stream: dict[str, Tensor] = {}

    def enter(value: Tensor, hook: Any) -> None:
        stream["attention"] = stream["mlp"] = value

    def attention_wrote(value: Tensor, hook: Any) -> None:
        stream["mlp"] = stream["mlp"] + value

    def patched_stream(reader: str, row: int, source: int, where: int | None) -> Tensor:
        rows = stream[reader][row * batch : (row + 1) * batch].clone()
        _subtract(rows, diff[source], where)
        return rows

    def side_hook(side: Side) -> Hook:
        slots = graph.side_slots(layer, side)

        def hook(value: Tensor, hook: Any) -> Tensor:
            value = value.clone()
            for row, slot, source, where in patches:
                if slots.start <= slot < slots.stop:
                    head = slot - slots.start
                    inputs = patched_stream("attention", row, source, where)[None]
                    new = project_heads(residual, layer, side, inputs, [head])[0]
                    value[row * batch : (row + 1) * batch, :, head] = new.to(value.dtype)
            return value

        return hook

    def mlp_hook(value: Tensor, hook: Any) -> Tensor:
        value = value.clone()
        for row, slot, source, where in patches:
            if slot == graph.mlp_slot(layer):
                inputs = patched_stream("mlp", row, source, where)
                value[row * batch : (row + 1) * batch] = residual.norm2(layer, inputs).to(value.dtype)
        return value

    hooks: list[tuple[str, Hook]] = [(f"{block}.hook_resid_pre", enter)]
    hooks += [(f"{block}.attn.hook_{side}", side_hook(side)) for side in SIDES]
    if graph.has_mlp:
        if not graph.parallel:
            hooks.append((f"{block}.hook_attn_out", attention_wrote))
        hooks.append((f"{block}.mlp.hook_in", mlp_hook))
    return hooks


def _subtract(rows: Tensor, diff: Tensor, where: int | None) -> None:
    """Subtract in place, at one position or at all."""
    if where is None:
        rows -= diff
    else:
        rows[:, where] -= diff[:, where]


@dataclass(frozen=True)
class Batch:
    """Prompts of a task that share a forward pass."""

    rows: Tensor
    clean: Tensor
    corrupt: Tensor
    at: Tensor
    metric: Metric
    residual: ResidualStream
    """frozen at the clean prompts, in a model with post-norms"""


class Bench:
    """Runs of a model on the prompts of a task with edges replaced.

    With `freeze` the post-norms of attention, if any, keep their scales on the clean prompts; edges need it, whole
    sources do not.

    Raises `MismatchError` when the graph is of another model, `ConfigError` for positions beyond the prompts,
    `UnknownNameError` for an unknown ablation.
    """

    def __init__(
        self,
        model: HookedModel,
        graph: Graph,
        task: Task,
        *,
        ablation: Ablation = "resample",
        batch_size: int = 16,
        freeze: bool = True,
    ):
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        check_graph(model, graph)
        length = task.clean.shape[1]
        if graph.positions is not None and graph.positions[-1] >= length:
            raise ConfigError(
                f"the graph has edges at position {graph.positions[-1]}, the longest prompt has {length} tokens"
            )
        self.model, self.graph, self.task = model, graph, task
        self.ablation: Ablation = check_ablation(ablation)
        self.batch_size = batch_size
        self.residual, self.freeze = ResidualStream(model), freeze

    @property
    def frozen(self) -> str | None:
        """Parts that are held fixed in all runs; None for nothing."""
        return self.residual.frozen_settings().get("frozen") if self.freeze else None

    def batches(self) -> Iterator[Batch]:
        """Yield the prompts in order; the last batch may be smaller."""
        task = self.task
        for rows in torch.arange(task.n_prompts).split(self.batch_size):
            clean, metric = task.clean[rows], task.metric.take(rows)
            residual = self.residual.frozen_at(clean) if self.freeze else self.residual
            yield Batch(rows, clean, task.corrupt[rows], task.at[rows], metric, residual)

    @cached_property
    def means(self) -> SourceValues:
        """Mean output of every source over the corrupted prompts, by position."""
        lengths = self.task.lengths
        return mean_values((part.residual, part.corrupt, lengths[part.rows], part.at) for part in self.batches())

    def replacement(self, batch: Batch) -> SourceValues | None:
        """Return the values on edges outside a circuit for these prompts; None for zero ablation."""
        if self.ablation == "zero":
            return None
        if self.ablation == "mean":
            n = len(batch.clean)
            return self.means.map(lambda value: value.expand(n, *value.shape[1:]))
        return collect(batch.residual, batch.corrupt, batch.at)[0]

    def metric_with(self, batch: Batch, included: Tensor, replacement: SourceValues | None) -> Tensor:
        """Return the metric of a run on clean prompts with the circuit `included [n_edges]`, `[batch]` float64."""
        logits = run_with_edges(batch.residual, self.graph, batch.clean, included, replacement, batch.at)
        return batch.metric(logits).double().cpu()

    def values(self, masks: Sequence[Tensor], progress: Any = None) -> Tensor:
        """Return the metric of the circuit of each mask `[n_edges]`, `[n_masks, n_prompts]` float64."""
        parts, done, total = [], 0, len(masks) * -(-self.task.n_prompts // self.batch_size)
        for batch in self.batches():
            replacement = self.replacement(batch)
            column = []
            for included in masks:
                column.append(self.metric_with(batch, included, replacement))
                done += 1
                if progress is not None:
                    progress(done, total, {})
            parts.append(torch.stack(column))
        return torch.cat(parts, 1)

    def everything(self, included: bool) -> Tensor:
        """Return the mask of all edges, or of none."""
        return torch.full((self.graph.n_edges,), included)


def check_graph(model: HookedModel, graph: Graph) -> None:
    """Raise `MismatchError` when a graph belongs to a model of another shape."""
    own = Graph.from_model(model, split_qkv=graph.split_qkv, positions=graph.positions)
    if own != graph:
        raise MismatchError(
            f"the graph has {graph.n_layers} layers of {graph.n_heads} heads ({graph.n_kv_heads} key-value), the model "
            f"{own.n_layers} of {own.n_heads} ({own.n_kv_heads}); make it with Graph.from_model(model)"
        )
