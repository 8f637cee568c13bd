"""A model on a task with a graph, batch by batch: what attribution and evaluation share.

    bench = Bench(model, graph, task, ablation="resample", batch_size=16)
    bench.values([mask, other_mask])      # [n_masks, n_prompts]: the metric with only those edges kept

The replacement of an edge is what its source wrote on the corrupted prompt (`resample`), its mean over the corrupted
prompts at that position (`mean`), or nothing (`zero`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from interp.circuits.graph import Graph
from interp.circuits.metrics import Metric
from interp.circuits.patched import run_with_edges
from interp.circuits.sources import SourceValues, collect, mean_values
from interp.circuits.task import Task
from interp.errors import ConfigError, MismatchError, UnknownNameError
from interp.models.residual import ResidualStream

Ablation = Literal["resample", "mean", "zero"]
ABLATIONS: tuple[Ablation, ...] = ("resample", "mean", "zero")


@dataclass(frozen=True)
class Batch:
    """Some prompts of a task."""

    rows: Tensor
    clean: Tensor
    corrupt: Tensor
    at: Tensor
    metric: Metric


class Bench:
    """Runs a model on the prompts of a task with edges replaced.

    Raises `MismatchError` when the graph is of another model, `ConfigError` on positions beyond the prompts,
    `UnknownNameError` for an ablation that does not exist.
    """

    def __init__(self, model: Any, graph: Graph, task: Task, *, ablation: Ablation = "resample", batch_size: int = 16):
        if ablation not in ABLATIONS:
            raise UnknownNameError("ablation", str(ablation), ABLATIONS)
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        check_graph(model, graph)
        length = task.clean.shape[1]
        if graph.positions is not None and graph.positions[-1] >= length:
            raise ConfigError(
                f"the graph has edges at position {graph.positions[-1]}, the longest prompt has {length} tokens"
            )
        self.model, self.graph, self.task = model, graph, task
        self.ablation: Ablation = ablation
        self.batch_size = batch_size
        self.residual = ResidualStream(model)

    def batches(self) -> Iterator[Batch]:
        """The prompts in order; the last batch may be smaller."""
        task = self.task
        for rows in torch.arange(task.n_prompts).split(self.batch_size):
            yield Batch(rows, task.clean[rows], task.corrupt[rows], task.at[rows], task.metric.take(rows))

    @cached_property
    def means(self) -> SourceValues:
        """Mean of every source over the corrupted prompts, by position."""
        task, size = self.task, self.batch_size
        parts = zip(task.corrupt.split(size), task.lengths.split(size), task.at.split(size), strict=True)
        return mean_values(self.residual, parts)

    def replacement(self, batch: Batch) -> SourceValues | None:
        """What the edges outside a circuit carry on these prompts; None for nothing at all."""
        if self.ablation == "zero":
            return None
        if self.ablation == "mean":
            n = len(batch.clean)
            return self.means.map(lambda value: value.expand(n, *value.shape[1:]))
        return collect(self.residual, batch.corrupt, batch.at)[0]

    def metric_with(self, batch: Batch, kept: Tensor, replacement: SourceValues | None) -> Tensor:
        """`[batch]` float64: the metric of the run on clean prompts in which only `kept [n_edges]` is its own."""
        logits = run_with_edges(self.residual, self.graph, batch.clean, kept, replacement, batch.at)
        return batch.metric(logits).double().cpu()

    def values(self, masks: Sequence[Tensor], progress: Any = None) -> Tensor:
        """`[n_masks, n_prompts]` float64: the metric with only the edges of each mask `[n_edges]` kept."""
        parts, done, total = [], 0, len(masks) * -(-self.task.n_prompts // self.batch_size)
        for batch in self.batches():
            replacement = self.replacement(batch)
            column = []
            for kept in masks:
                column.append(self.metric_with(batch, kept, replacement))
                done += 1
                if progress is not None:
                    progress(done, total, {})
            parts.append(torch.stack(column))
        return torch.cat(parts, 1)

    def everything(self, kept: bool) -> Tensor:
        """The mask of all edges, or of none."""
        return torch.full((self.graph.n_edges,), kept)


def check_graph(model: Any, graph: Graph) -> None:
    """Raises `MismatchError` when a graph belongs to a model of another shape."""
    own = Graph.from_model(model, split_qkv=graph.split_qkv, positions=graph.positions)
    if own != graph:
        raise MismatchError(
            f"the graph has {graph.n_layers} layers of {graph.n_heads} heads ({graph.n_kv_heads} key-value), the model "
            f"{own.n_layers} of {own.n_heads} ({own.n_kv_heads}); make it with Graph.from_model(model)"
        )
