"""Forward passes in which each edge of a graph can carry another run's value.

    bench = Bench(model, graph, task, ablation="resample", batch_size=16)
    bench.values([mask, other_mask])      # [n_masks, n_prompts]: the metric with only those edges in the circuit

`Bench` runs a model on a task with a graph, batch by batch, for attribution and evaluation. An edge outside the circuit
carries its source's output on the corrupted prompt (`resample`), on the next corrupted prompt of the same length
(`other`), its mean over the corrupted prompts at that position (`mean`), or zero (`zero`).

A reader's input is the residual stream of this run, minus the outputs of its replaced sources, plus their outputs in
the other run. Sources are recomputed from their own inputs, so an early replacement affects everything after it:
effects are total, along all edges of the circuit. Each layer takes one product of the mask with the differences so far
(`[n_slots, n_sources] @ [n_sources, batch * pos * d_model]`) and one norm per reader; attention is not copied.

Memory: `n_sources * batch * pos * d_model` numbers for the differences, and one layer of reader inputs. Outputs of
heads are stored as z (`d_head` numbers per token) and projected by `W_O` one batch at a time, so a stored run has the
size of its activations, not of `n_heads` copies of the residual stream.

**Post-norm models** (Gemma 2 and 3) norm the sum of a layer's heads before adding it, so edges from single heads exist
only at a given scale of that norm. All runs of a batch, corrupted ones too, therefore hold it at its values on the
clean prompts (`PromptBatch.residual`). In that model the residual stream is a plain sum and everything above is exact.
It equals the free model on the clean prompts, and approximates it on others. Norms on what MLPs write belong to the
MLP, and are not frozen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from einops import einsum, rearrange
from torch import Tensor

from interp.circuits.config import Ablation
from interp.circuits.graph import Graph
from interp.circuits.judging import check_ablation
from interp.errors import ConfigError, MismatchError
from interp.models.adapter import Hook, run_with_hooks
from interp.models.hooked import HookedModel
from interp.models.passes import read_hook, storing_hook
from interp.models.residual import ResidualStream
from interp.names import parse_hook_point
from interp.patching.metrics import Metric
from interp.patching.paths import Read, Reader, reading_hooks
from interp.patching.task import Task
from interp.progress import Progress

SourceValues = dict[str, Tensor]
"""Values of all sources in one run, by `Graph.source_points`; zero ablation has None instead. Of heads z `[batch, pos,
n_heads, d_head]`, else `[batch, pos, d_model]`."""
EMBED = "blocks.0.hook_resid_pre"


def minus(values: SourceValues, reference: SourceValues | None) -> SourceValues:
    """Return the values less those of a reference, or themselves for None."""
    return values if reference is None else {point: value - reference[point] for point, value in values.items()}


@torch.no_grad()
def collect(residual: ResidualStream, graph: Graph, tokens: Tensor, at: Tensor) -> tuple[SourceValues, Tensor]:
    """Run `tokens [batch, pos]` without patches; return all sources, and logits `[batch, n_read, d_vocab]` at `at`.

    With a frozen `residual` the run is that of the model with frozen post-norms.
    """
    store: SourceValues = {}
    logits = _run(residual, tokens, [(point, storing_hook(store, point)) for point in graph.source_points], at)
    return {point: store[point] for point in graph.source_points}, logits


@torch.no_grad()
def outputs(residual: ResidualStream, graph: Graph, values: SourceValues, out: Tensor | None = None) -> Tensor:
    """Return what each source adds to the residual stream, `[n_sources, batch, pos, d_model]`: the largest buffer."""
    if out is None:
        out = values[EMBED].new_empty(graph.n_sources, *values[EMBED].shape)
    for point, sources in graph.source_points.items():
        out[sources] = _written(residual, point, values[point])
    return out


def _written(residual: ResidualStream, point: str, value: Tensor) -> Tensor:
    """Return the outputs of the sources at one hook point, `[n, batch, pos, d_model]`.

    `value` may be a difference. Raises `ConfigError` for heads of a model with post-norms unless `residual` is frozen.
    """
    if value.ndim == 3:
        return value[None]
    layer = parse_hook_point(point).layer or 0
    scale = residual.held_scale(layer)
    out = torch.bmm(value.flatten(0, 1).transpose(0, 1), residual.W_write(layer)).unflatten(1, value.shape[:2])
    return out if scale is None else out / scale


@torch.no_grad()
def run_with_edges(
    residual: ResidualStream, graph: Graph, tokens: Tensor, included: Tensor, reference: SourceValues | None, at: Tensor
) -> Tensor:
    """Run `tokens` with the circuit `included [n_edges]` bool; return logits `[batch, n_read, d_vocab]` at `at`.

    All other edges carry their source's output in `reference`, or zero for None.
    """
    run = _EdgeRun(residual, graph, graph.slot_mask(included), reference)
    hooks: list[tuple[str, Hook]] = [
        (point, partial(run.store_difference, point=point)) for point in graph.source_points
    ]
    return _run(residual, tokens, [*hooks, *reading_hooks(residual, run.changed, run.reads)], at)


def _run(residual: ResidualStream, tokens: Tensor, hooks: list[tuple[str, Hook]], at: Tensor) -> Tensor:
    """Return logits at `at` of a run with hooks, and with frozen post-norms if any."""
    hooks = [*residual.freezing_hooks(), *hooks, read_hook(at)]
    return run_with_hooks(residual.model, tokens.to(residual.device), hooks)


class _EdgeRun:
    """One masked run, and the differences of sources that it accumulates."""

    def __init__(self, residual: ResidualStream, graph: Graph, mask: Tensor, replacement: SourceValues | None):
        self.residual, self.graph, self.other = residual, graph, replacement
        seen = torch.arange(graph.n_sources) < graph.sources_of_slot[:, None]
        dropped = ~mask & seen
        self.dropped = dropped.to(residual.device)
        self.diff = torch.zeros(0)
        self.changed: dict[Reader, list[int]] = {}
        """slots with a replaced source, by the input of a layer that they belong to"""
        for slot in dropped.any(2).any(0).nonzero()[:, 0].tolist():
            self.changed.setdefault(graph.inputs[slot][0], []).append(slot)

    def store_difference(self, value: Tensor, hook: object, *, point: str) -> None:
        """Store the difference of the sources at one hook point from their other outputs."""
        if point == EMBED:
            self.diff = value.new_empty(self.graph.n_sources, *value.shape)
        self.diff[self.graph.source_points[point]] = self.written(value, point)

    def written(self, value: Tensor, point: str) -> Tensor:
        """Return what the sources at one hook point write, less what the other run does."""
        return _written(self.residual, point, value if self.other is None else value - self.other[point])

    def reads(self, readers: list[Reader], stream: Tensor) -> Iterator[Read]:
        """Yield the streams that the slots at one hook point read: replaced sources are subtracted."""
        slots = [slot for reader in readers for slot in self.changed[reader]]
        n_seen = int(self.graph.sources_of_slot[slots[0]])
        inputs = self._inputs(stream, slots, n_seen).split([len(self.changed[reader]) for reader in readers])
        for reader, values in zip(readers, inputs, strict=True):
            heads = [head for slot in self.changed[reader] if (head := self.graph.inputs[slot][1]) is not None]
            yield Read(reader, values, heads) if heads else Read(reader, values[0])

    def _inputs(self, stream: Tensor, slots: list[int], n_seen: int) -> Tensor:
        """Return the inputs of slots that read the first `n_seen` sources, `[len(slots), batch, pos, d_model]`."""
        weights = self.dropped[:, slots, :n_seen].to(self.diff.dtype)
        diff = self.diff[:n_seen]
        if self.graph.positions is None:
            seen = torch.addmm(stream.reshape(1, -1), weights[0], diff.flatten(1), alpha=-1)
            return seen.unflatten(1, stream.shape)
        positions = torch.tensor(self.graph.positions, device=diff.device)
        inputs = stream.expand(len(slots), *stream.shape).clone()
        inputs[:, :, positions] -= einsum(
            weights, diff[:, :, positions], "pos slot source, source batch pos d_model -> slot batch pos d_model"
        )
        return inputs


class _SoftRun(_EdgeRun):
    """One run in which each edge is replaced in part, differentiable by these parts."""

    def __init__(self, residual: ResidualStream, graph: Graph, parts: Tensor, replacement: SourceValues | None):
        super().__init__(residual, graph, torch.zeros_like(graph.slot_mask(parts > 2)), replacement)
        position, reader, source = graph.edge_table.unbind(1)
        empty = parts.new_zeros(graph.n_positions, len(graph.readers), graph.n_sources)
        by_reader = empty.index_put((position, reader, source), parts)
        self.parts = by_reader[0, graph.reader_of_slot].to(residual.device)
        self.differences: list[tuple[slice, Tensor]] = []

    def store_difference(self, value: Tensor, hook: object, *, point: str) -> None:
        self.differences.append((self.graph.source_points[point], self.written(value, point)))

    def _inputs(self, stream: Tensor, slots: list[int], n_seen: int) -> Tensor:
        seen = stream.reshape(1, -1)
        for sources, written in self.differences:
            if sources.start < n_seen:
                seen = seen - self.parts[slots, sources] @ written.flatten(1)
        return seen.unflatten(1, stream.shape)


def metric_and_gradient(
    batch: "PromptBatch", graph: Graph, parts: Tensor, reference: SourceValues | None
) -> tuple[float, Tensor]:
    """Return the summed metric with each edge replaced by its part `[n_edges]`, 0 to 1, and its gradient by these.

    Raises `ConfigError` for a graph with positions.
    """
    if graph.positions is not None:
        raise ConfigError("parts of edges have no gradient in a graph with positions; use one without")
    leaf = parts.detach().to(batch.residual.W_write(0).dtype).requires_grad_()
    with torch.enable_grad():
        run = _SoftRun(batch.residual, graph, leaf, reference)
        hooks: list[tuple[str, Hook]] = [
            (point, partial(run.store_difference, point=point)) for point in graph.source_points
        ]
        hooks += reading_hooks(batch.residual, run.changed, run.reads)
        value = batch.metric(_run(batch.residual, batch.clean, hooks, batch.at)).sum()
        (gradient,) = torch.autograd.grad(value, [leaf])
    return float(value.detach()), gradient.cpu()


@torch.no_grad()
def run_with_single_edges(
    residual: ResidualStream, graph: Graph, tokens: Tensor, diff: Tensor, edges: list[int], at: Tensor
) -> Tensor:
    """Run `tokens` once per edge with only that edge replaced; return logits `[n_edges, batch, n_read, d_vocab]`.

    `diff [n_sources, batch, pos, d_model]` is the output of each source in this run minus its replacement. All edges
    run as one batch of `len(edges) * batch` rows.
    """
    batch = len(tokens)
    patches: dict[Reader, list[tuple[int | None, slice, int, int]]] = {}
    for row, edge in enumerate(edges):
        position, reader, source = graph.edge_table[edge].tolist()
        for slot in graph.slots_of_reader(reader):
            part, head = graph.inputs[slot]
            patches.setdefault(part, []).append((head, slice(row * batch, (row + 1) * batch), source, position))

    def reads(readers: list[Reader], stream: Tensor) -> Iterator[Read]:
        for reader in readers:
            for head, rows, source, position in patches[reader]:
                where = slice(None) if graph.positions is None else graph.positions[position]
                changed = stream[rows].clone()
                changed[:, where] -= diff[source][:, where]
                yield Read(reader, changed, None, rows) if head is None else Read(reader, changed[None], [head], rows)

    hooks = reading_hooks(residual, patches, reads)
    logits = _run(residual, tokens.repeat(len(edges), 1), hooks, at.repeat(len(edges), 1))
    return rearrange(logits, "(edge batch) read vocab -> edge batch read vocab", batch=batch)


@dataclass(frozen=True)
class PromptBatch:
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

    def batches(self) -> Iterator[PromptBatch]:
        """Yield the prompts in order; the last batch may be smaller."""
        task = self.task
        for rows in torch.arange(task.n_prompts).split(self.batch_size):
            clean, metric = task.clean[rows], task.metric.take(rows)
            residual = self.residual.frozen_at(clean) if self.freeze else self.residual
            yield PromptBatch(rows, clean, task.corrupt[rows], task.at[rows], metric, residual)

    @cached_property
    def means(self) -> SourceValues:
        """Mean values of all sources over the corrupted prompts, by position, `batch` 1; padding does not count."""
        position = torch.arange(self.task.clean.shape[1])
        sums: SourceValues = {}
        for batch in self.batches():
            real = (position < self.task.lengths[batch.rows, None]).to(self.residual.device)
            values = collect(batch.residual, self.graph, batch.corrupt, batch.at)[0]
            for point, value in values.items():
                part = (value * real.view(*real.shape, *[1] * (value.ndim - 2))).sum(0, keepdim=True)
                sums[point] = sums[point] + part if point in sums else part
        count = (position < self.task.lengths[:, None]).sum(0).clamp_min(1).to(self.residual.device)
        return {point: total / count.view(-1, *[1] * (total.ndim - 2)) for point, total in sums.items()}

    @cached_property
    def others(self) -> Tensor:
        """The next prompt of the same length for every prompt, `[n_prompts]`; itself where it is the only one."""
        next_row = torch.arange(self.task.n_prompts)
        for length in self.task.lengths.unique():
            rows = (self.task.lengths == length).nonzero()[:, 0]
            next_row[rows] = rows.roll(-1)
        return next_row

    def replacement(self, batch: PromptBatch) -> SourceValues | None:
        """Return the values on edges outside a circuit for these prompts; None for zero ablation."""
        if self.ablation == "zero":
            return None
        if self.ablation == "mean":
            n = len(batch.clean)
            return {point: value.expand(n, *value.shape[1:]) for point, value in self.means.items()}
        corrupt = self.task.corrupt[self.others[batch.rows]] if self.ablation == "other" else batch.corrupt
        return collect(batch.residual, self.graph, corrupt, batch.at)[0]

    def metric_with(self, batch: PromptBatch, included: Tensor, replacement: SourceValues | None) -> Tensor:
        """Return the metric of a run on clean prompts with the circuit `included [n_edges]`, `[batch]` float64."""
        logits = run_with_edges(batch.residual, self.graph, batch.clean, included, replacement, batch.at)
        return batch.metric(logits).double().cpu()

    def values(self, masks: Sequence[Tensor], progress: Progress | None = None) -> Tensor:
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
    model_graph = Graph.from_model(model, split_qkv=graph.split_qkv, positions=graph.positions)
    if model_graph != graph:
        raise MismatchError(
            f"the graph has {graph.n_layers} layers of {graph.n_heads} heads ({graph.n_kv_heads} key-value), the model "
            f"{model_graph.n_layers} of {model_graph.n_heads} ({model_graph.n_kv_heads}); make it with "
            "Graph.from_model(model)"
        )
