"""How much each edge (or node) of a graph adds to a task's metric.

    scores = attribute(model, task)                              # EAP-IG with five steps
    scores = attribute(model, task, graph, method="exact")       # patch every edge alone: the truth, E runs

| method | score of an edge                                                             | cost per batch            |
|--------|------------------------------------------------------------------------------|---------------------------|
| exact  | the metric's change when it alone is replaced, all after it recomputed       | one run per edge, batched |
| eap    | (change of the source) . (gradient at the reader), at the clean point        | 2 forward, 1 back         |
| eap-ig | the same, gradients averaged over `steps` points from corrupted to clean     | 2 forward, `steps` back   |
| acdc   | the largest tau at which greedy removal keeps it (`interp.circuits.discovery`) | about E runs per tau    |

EAP: Syed et al. 2023 (edge attribution patching). EAP-IG: Hanna et al. 2024; the points lie between the two *input
embeddings*, at the midpoints of `steps` equal parts (`points="left"`: the left ends, as in their code, which never
reaches the clean point). A saturated softmax has no gradient at the clean point, so EAP misses the edges of an
induction circuit that EAP-IG finds.

Exact patching is Goldowsky-Dill et al. 2023's path patching of one edge; readers after it are recomputed, norms
included. Memory: `n_sources * batch_size * pos * d_model` numbers.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from interp.circuits.bench import Ablation, Batch, Bench
from interp.circuits.gradients import GradientReader
from interp.circuits.graph import Graph
from interp.circuits.node_scores import exact_node_scores, node_scores
from interp.circuits.patched import run_with_single_edges
from interp.circuits.scores import Level, Scores
from interp.circuits.sources import SourceValues, collect, outputs
from interp.circuits.task import Task
from interp.errors import ConfigError, UnknownNameError

Method = Literal["exact", "eap", "eap-ig", "acdc"]
METHODS: tuple[Method, ...] = ("exact", "eap", "eap-ig", "acdc")
Direction = Literal["noise", "denoise"]
KEEP_PER_PROMPT = 50_000_000
"""numbers: per-prompt scores beyond this are not kept"""
ROWS_AT_ONCE = 256
"""rows of an exact run: edges times prompts"""
POINTS_AT_ONCE = 8
"""points whose gradients are summed before they meet the sources; each keeps one stream per layer"""


def attribute(
    model: Any,
    task: Task,
    graph: Graph | None = None,
    *,
    method: Method = "eap-ig",
    steps: int = 5,
    points: Literal["midpoint", "left"] = "midpoint",
    ablation: Ablation = "resample",
    direction: Direction = "noise",
    level: Level = "edge",
    batch_size: int = 16,
    taus: Sequence[float] | None = None,
    only: Sequence[int] | None = None,
    progress: Any = None,
) -> Scores:
    """Score every edge of `graph` (the model's own graph by default) on a task.

    `direction="noise"`: run on clean prompts, corrupt one edge. `"denoise"`: run on corrupted prompts, restore one edge
    (resample only). `level="node"` scores sources by all that they write. `only` limits `exact` to some edges; the
    others get 0. `taus` are the thresholds of `acdc`, in the metric's unit.

    Results do not depend on `batch_size`. Raises `ConfigError`, `UnknownNameError` on settings that do not go together,
    `MismatchError` for the graph of another model. Warns when plain EAP meets a metric that is flat at the clean point.
    """
    from interp.models.adapter import weight_hash
    from interp.models.identity import model_spec

    graph = graph or Graph.from_model(model)
    plan = _Plan(method, steps, points, direction, level, ablation)
    plan.check(task)
    bench = Bench(model, graph, task, ablation=ablation, batch_size=batch_size)
    settings = {**task.describe(), **plan.describe(), "sign": "positive: it raises the metric"}
    if method == "acdc":
        from interp.circuits.discovery import acdc_scores

        values, more = acdc_scores(bench, taus, progress=progress)
        per_prompt, settings = None, settings | more
    else:
        n = graph.n_edges if level == "edge" else graph.n_sources
        values, per_prompt = _gather(_scored(bench, plan, only), n, task.n_prompts, progress)
    return Scores(
        graph=graph,
        level=level,
        model=model_spec(model),
        weight_hash=weight_hash(model),
        values=values,
        per_prompt=per_prompt,
        length=task.clean.shape[1],
        settings=settings,
    )


@dataclass(frozen=True)
class _Plan:
    """The settings of one attribution that every batch needs."""

    method: Method
    steps: int
    points: str
    direction: Direction
    level: Level
    ablation: Ablation

    def check(self, task: Task) -> None:
        for what, given, known in (
            ("method", self.method, METHODS),
            ("points", self.points, ("midpoint", "left")),
            ("direction", self.direction, ("noise", "denoise")),
            ("level", self.level, ("edge", "node")),
        ):
            if given not in known:
                raise UnknownNameError(what, str(given), known)
        if self.steps < 1:
            raise ConfigError(f"steps must be at least 1, got {self.steps}")
        if self.direction == "denoise" and (self.ablation != "resample" or self.method == "acdc"):
            raise ConfigError(
                "denoising restores edges in a run on the corrupted prompts: it needs ablation='resample' and no acdc"
            )
        if self.method == "acdc" and self.level == "node":
            raise ConfigError("acdc removes edges; use level='edge'")
        if self.method == "eap" and self.direction == "noise" and task.metric.flat_at_clean:
            warnings.warn(
                f"{task.metric.name} is at its maximum on the clean prompts: its gradient there is zero and plain EAP "
                "scores nothing; use method='eap-ig', or direction='denoise'",
                stacklevel=3,
            )

    def describe(self) -> dict[str, Any]:
        known = {"method": self.method, "ablation": self.ablation, "direction": self.direction, "level": self.level}
        if self.method == "eap-ig":
            known |= {"steps": self.steps, "points": self.points}
        return known

    @property
    def alphas(self) -> list[float]:
        """Where gradients are taken: 0 is the replaced embedding, 1 the clean one."""
        if self.method == "eap":
            return [1.0 if self.direction == "noise" else 0.0]
        shift = 0.5 if self.points == "midpoint" else 0.0
        return [(step + shift) / self.steps for step in range(self.steps)]


def _scored(bench: Bench, plan: _Plan, only: Sequence[int] | None) -> Iterator[Tensor]:
    """Per batch `[batch, n]` scores."""
    exact = plan.method == "exact"
    reader = None if exact else GradientReader(bench.residual, bench.graph)
    buffer: Tensor | None = None
    for batch in bench.batches():
        clean, clean_logits = collect(bench.residual, batch.clean, batch.at)
        other = bench.replacement(batch)
        if plan.level == "node":
            if exact:
                yield exact_node_scores(bench, batch, clean, other, plan.direction, only)
            else:
                yield node_scores(bench, batch, clean, other, plan.alphas)
            continue
        if buffer is not None and len(batch.rows) != buffer.shape[1]:
            buffer = None
        buffer = outputs(bench.residual, bench.graph, clean - other, out=buffer)
        if reader is None:
            yield _exact(bench, batch, buffer, clean_logits, plan.direction, only)
        else:
            yield _approximate(bench.graph, reader, batch, clean, other, buffer, plan.alphas)


def _approximate(
    graph: Graph,
    reader: GradientReader,
    batch: Batch,
    clean: SourceValues,
    other: SourceValues | None,
    diff: Tensor,
    alphas: list[float],
) -> Tensor:
    """`[batch, n_edges]`: <clean minus other, mean gradient over the points>."""
    n = diff.shape[1]
    places = None if graph.positions is None else torch.tensor(graph.positions, device=diff.device)
    shape = n, graph.n_positions, graph.n_slots, graph.n_sources
    scores = diff.new_zeros(shape, dtype=torch.promote_types(diff.dtype, torch.float32))
    start = torch.zeros_like(clean.embed) if other is None else other.embed
    for some in (alphas[i : i + POINTS_AT_ONCE] for i in range(0, len(alphas), POINTS_AT_ONCE)):
        embeds = (torch.lerp(start, clean.embed, alpha) for alpha in some)
        for slots, n_seen, gradient in reader.summed(batch.clean, embeds, batch.metric, batch.at):
            if places is None:
                seen = diff[:n_seen].flatten(2).permute(1, 2, 0)
                scores[:, 0, slots, :n_seen] += torch.bmm(gradient.flatten(2).transpose(0, 1), seen)
            else:
                part = torch.einsum("rbpd,sbpd->bprs", gradient[:, :, places], diff[:n_seen, :, places])
                scores[:, :, slots, :n_seen] += part
    return graph.edge_values(scores).cpu() / len(alphas)


def _exact(
    bench: Bench, batch: Batch, diff: Tensor, clean_logits: Tensor, direction: Direction, only: Sequence[int] | None
) -> Tensor:
    """`[batch, n_edges]`: one run per edge, several edges at once."""
    graph, edges = bench.graph, list(range(bench.graph.n_edges)) if only is None else list(only)
    scores = torch.zeros(len(batch.rows), graph.n_edges)
    tokens, base = batch.clean, clean_logits
    if direction == "denoise":
        tokens, diff = batch.corrupt, -diff
        base = collect(bench.residual, tokens, batch.at)[1]
    before = batch.metric(base)
    at_once = max(1, ROWS_AT_ONCE // len(batch.rows))
    for chosen in (edges[i : i + at_once] for i in range(0, len(edges), at_once)):
        logits = run_with_single_edges(bench.residual, graph, tokens, diff, chosen, batch.at)
        for edge, one in zip(chosen, logits, strict=True):
            change = batch.metric(one) - before
            scores[:, edge] = (change if direction == "denoise" else -change).cpu()
    return scores


def _gather(parts: Iterator[Tensor], n: int, n_prompts: int, progress: Any) -> tuple[Tensor, Tensor | None]:
    """The mean over prompts in float64, and the per-prompt scores when they are few enough to keep."""
    total, kept, done = torch.zeros(n, dtype=torch.float64), [], 0
    keep = n * n_prompts <= KEEP_PER_PROMPT
    for part in parts:
        total += part.double().sum(0)
        done += len(part)
        if keep:
            kept.append(part.float())
        if progress is not None:
            progress(done, n_prompts, {})
    return total / n_prompts, torch.cat(kept) if keep else None
