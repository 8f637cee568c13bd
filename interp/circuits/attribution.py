"""Attribution of a task's metric to the edges (or nodes) of a graph.

    scores = attribute(model, task)                              # EAP-IG with five steps
    scores = attribute(model, task, graph, method="exact")       # patch every edge by itself: ground truth, E runs

| method | score of an edge                                                             | cost per batch            |
|--------|------------------------------------------------------------------------------|---------------------------|
| exact  | change of the metric when this edge alone is replaced, all after it recomputed | one run per edge, batched |
| eap    | (change of the source) . (gradient at the reader), at the clean input        | 2 forward, 1 backward     |
| eap-ig | the same, gradients averaged over `steps` points from corrupted to clean     | 2 forward, `steps` back   |
| acdc   | the largest tau at which greedy removal retains the edge                     | about E runs per tau      |

EAP (edge attribution patching): Syed et al. 2023. EAP-IG: Hanna et al. 2024. The points of EAP-IG are between the two
*input embeddings*, at the midpoints of `steps` equal intervals. `points="left"` takes the left ends as in their code,
which does not reach the clean input. A saturated softmax has no gradient at the clean input, so EAP misses edges of an
induction circuit that EAP-IG finds.

Exact patching is the path patching of Goldowsky-Dill et al. 2023 for one edge; everything after the reader is
recomputed, norms included. Memory: `n_sources * batch_size * pos * d_model` numbers.

In post-norm models (Gemma 2 and 3) edges are scored with the scales of attention's post-norms held at their values on
the clean prompts, gradients and exact patches alike (`interp.circuits._edge_runs`); node scores need nothing frozen.

A node score (`level="node"`) is the same for the whole output of a head, an MLP or the embedding, to all later readers.
It needs the gradient at z or at the output only, and no gradients per reader.

ACDC (Conmy et al. 2023) removes edges one by one, from the logits backwards:

1. Start with all edges.
2. For each reader, last first, and each of its sources, last first: replace this edge as well. It remains replaced when
   the metric falls by less than tau.
3. When no remaining edge reads a node, remove all edges into that node without a run.

The search is greedy, so the result depends on the order, and redundant components can hide each other. Each tested edge
costs one run on all prompts.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from interp.circuits._edge_runs import (
    EMBED,
    Bench,
    PromptBatch,
    SourceValues,
    collect,
    minus,
    outputs,
    run_with_single_edges,
)
from interp.circuits._edge_scores import EdgeScores, ScoreSettings, Verified
from interp.circuits._gradients import GradientReader
from interp.circuits.config import Ablation, By, Level, Method
from interp.circuits.graph import Graph
from interp.errors import ConfigError, UnknownNameError
from interp.interventions.edits import inserting
from interp.models.adapter import Hook, run_with_hooks
from interp.models.hooked import HookedModel
from interp.models.passes import read_hook
from interp.names import parse_node
from interp.patching.task import Task
from interp.progress import Progress


def node_scores(
    bench: Bench,
    batch: PromptBatch,
    clean: SourceValues,
    replacement: SourceValues | None,
    alphas: list[float],
) -> Float[Tensor, "batch n_sources"]:
    """Return node scores `[batch, n_sources]`: <clean minus replacement, mean gradient at the source's output>.

    The mean is over points `alphas` between the replacement's embedding (0) and the clean one (1).
    """
    diff = minus(clean, replacement)
    start = torch.zeros_like(clean[EMBED]) if replacement is None else replacement[EMBED]
    scores = torch.zeros(len(batch.rows), bench.graph.n_sources)
    for alpha in alphas:
        gradients = _gradients(bench, batch, torch.lerp(start, clean[EMBED], alpha))
        for point, sources in bench.graph.source_points.items():
            product = diff[point] * gradients[point]
            summed = product.sum((1, 3)) if product.ndim == 4 else product.sum((1, 2))[:, None]
            scores[:, sources] += summed.cpu()
    return scores / len(alphas)


def _gradients(bench: Bench, batch: PromptBatch, embed: Tensor) -> SourceValues:
    """Return the gradient of the metric at every source's value."""
    values: SourceValues = {}
    leaf = embed.detach().requires_grad_()

    def record(value: Tensor, hook: object, *, point: str) -> Tensor:
        values[point] = leaf if point == EMBED else value
        return values[point]

    hooks: list[tuple[str, Hook]] = [(point, partial(record, point=point)) for point in bench.graph.source_points]
    with torch.enable_grad():
        logits = run_with_hooks(bench.model, batch.clean.to(bench.residual.device), [*hooks, read_hook(batch.at)])
        gradients = torch.autograd.grad(batch.metric(logits).sum(), list(values.values()))
    return dict(zip(values, gradients, strict=True))


@torch.no_grad()
def exact_node_scores(
    bench: Bench,
    batch: PromptBatch,
    clean: SourceValues,
    replacement: SourceValues | None,
    direction: str,
    only: Sequence[int] | None,
) -> Float[Tensor, "batch n_sources"]:
    """Return the metric's change when one source's output alone is replaced, `[batch, n_sources]`.

    Everything after the source is recomputed.
    """
    denoise = direction == "denoise"
    tokens = (batch.corrupt if denoise else batch.clean).to(bench.residual.device)
    new = clean if denoise else replacement
    scores = torch.zeros(len(batch.rows), bench.graph.n_sources)

    def metric(hooks: list[tuple[str, Hook]]) -> Tensor:
        return batch.metric(run_with_hooks(bench.model, tokens, [*hooks, read_hook(batch.at)]))

    before = metric([])
    for source in range(bench.graph.n_sources) if only is None else only:
        change = metric([_replace(bench, source, new)]) - before
        scores[:, source] = (change if denoise else -change).cpu()
    return scores


def _replace(bench: Bench, source: int, new: SourceValues | None) -> tuple[str, Hook]:
    """Return the hook that replaces one source's output."""
    point, sources = next(item for item in bench.graph.source_points.items() if source < item[1].stop)
    slot = (slice(None),) * 2 + (source - sources.start,) if point.endswith("hook_z") else (slice(None),)
    return point, inserting(0.0 if new is None else new[point], [(slice(None), slot)])


METHODS: tuple[Method, ...] = ("exact", "eap", "eap-ig", "acdc")
Direction = Literal["noise", "denoise"]
KEEP_PER_PROMPT = 50_000_000
"""largest number of per-prompt scores that are stored"""
ROWS_AT_ONCE = 256
"""batch size of an exact run: edges times prompts"""
POINTS_AT_ONCE = 8
"""points whose gradients are summed before the product with the sources; each stores one residual stream per layer"""


def attribute(
    model: HookedModel,
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
    progress: Progress | None = None,
) -> EdgeScores:
    """Score every edge of `graph` (the model's own graph by default) on a task.

        scores = attribute_edges(model, task, method="eap-ig", steps=5)

    `method` is `exact` patching of each edge, or an estimate: `eap`, `eap-ig` (`steps` gradients between the two
    prompts, at `points`), or `acdc`. `ablation` says by what an edge is
    replaced. `direction="noise"` runs clean prompts and corrupts one edge; `"denoise"` runs corrupted prompts and
    restores one edge (resample only). `level="node"` scores sources by their whole output. `only` limits `exact` to
    some edges; the others get 0. `taus` are the thresholds of `acdc`, in the metric's unit.

    Results do not depend on `batch_size`. Raises `ConfigError` or `UnknownNameError` for invalid or incompatible
    settings, `MismatchError` for the graph of another model. Warns when plain EAP is used with a metric whose gradient
    is zero on the clean prompts.
    """
    from interp.models.adapter import weight_hash
    from interp.models.identity import model_spec

    graph = graph or Graph.from_model(model)
    plan = _Plan(method, steps, points, direction, level, ablation)
    plan.check(task)
    bench = Bench(model, graph, task, ablation=ablation, batch_size=batch_size, freeze=level == "edge")
    thresholds, n_runs, per_prompt = (), None, None
    if method == "acdc":
        values, thresholds, n_runs = acdc_scores(bench, taus, progress=progress)
    else:
        n = graph.n_edges if level == "edge" else graph.n_sources
        values, per_prompt = _gather(_scored(bench, plan, only), n, task.n_prompts, progress)
    return EdgeScores(
        graph=graph,
        level=level,
        model=model_spec(model),
        weight_hash=weight_hash(model),
        values=values,
        per_prompt=per_prompt,
        length=task.clean.shape[1],
        settings=ScoreSettings(
            task=task.settings,
            method=method,
            ablation=ablation,
            direction=direction,
            level=level,
            steps=steps if method == "eap-ig" else None,
            points=points if method == "eap-ig" else None,
            frozen=bench.frozen,
            taus=thresholds,
            n_runs=n_runs,
        ),
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
        for what, choice, known in (
            ("method", self.method, METHODS),
            ("points", self.points, ("midpoint", "left")),
            ("direction", self.direction, ("noise", "denoise")),
            ("level", self.level, ("edge", "node")),
        ):
            if choice not in known:
                raise UnknownNameError(what, str(choice), known)
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
                f"{task.metric.name} is at its maximum on the clean prompts: its gradient there is zero and "
                "eap scores nothing; use method='eap-ig', or direction='denoise'",
                stacklevel=3,
            )

    @property
    def alphas(self) -> list[float]:
        """Points at which gradients are taken: 0 is the replaced embedding, 1 the clean one."""
        if self.method == "eap":
            return [1.0 if self.direction == "noise" else 0.0]
        shift = 0.5 if self.points == "midpoint" else 0.0
        return [(step + shift) / self.steps for step in range(self.steps)]


def _scored(bench: Bench, plan: _Plan, only: Sequence[int] | None) -> Iterator[Tensor]:
    """Yield the scores of each batch, `[batch, n]`."""
    exact = plan.method == "exact"
    reader = None if exact else GradientReader(bench.residual, bench.graph)
    buffer: Tensor | None = None
    for batch in bench.batches():
        clean, clean_logits = collect(batch.residual, bench.graph, batch.clean, batch.at)
        replacement = bench.replacement(batch)
        if plan.level == "node":
            if exact:
                yield exact_node_scores(bench, batch, clean, replacement, plan.direction, only)
            else:
                yield node_scores(bench, batch, clean, replacement, plan.alphas)
            continue
        if buffer is not None and len(batch.rows) != buffer.shape[1]:
            buffer = None
        buffer = outputs(batch.residual, bench.graph, minus(clean, replacement), out=buffer)
        if reader is None:
            yield _exact(bench, batch, buffer, clean_logits, plan.direction, only)
        else:
            yield _approximate(bench.graph, reader, batch, clean, replacement, buffer, plan.alphas)


def _approximate(
    graph: Graph,
    reader: GradientReader,
    batch: PromptBatch,
    clean: SourceValues,
    replacement: SourceValues | None,
    diff: Tensor,
    alphas: list[float],
) -> Tensor:
    """Return edge scores `[batch, n_edges]`: <clean minus replacement, mean gradient over the points>."""
    n = diff.shape[1]
    positions = None if graph.positions is None else torch.tensor(graph.positions, device=diff.device)
    shape = n, graph.n_positions, graph.n_slots, graph.n_sources
    scores = diff.new_zeros(shape, dtype=torch.promote_types(diff.dtype, torch.float32))
    start = torch.zeros_like(clean[EMBED]) if replacement is None else replacement[EMBED]
    for some in (alphas[i : i + POINTS_AT_ONCE] for i in range(0, len(alphas), POINTS_AT_ONCE)):
        embeds = (torch.lerp(start, clean[EMBED], alpha) for alpha in some)
        frozen = batch.residual.freezing_hooks()
        for slots, n_seen, gradient in reader.summed(batch.clean, embeds, batch.metric, batch.at, frozen):
            if positions is None:
                seen = rearrange(diff[:n_seen], "source batch pos d_model -> batch (pos d_model) source")
                read = rearrange(gradient, "slot batch pos d_model -> batch slot (pos d_model)")
                scores[:, 0, slots, :n_seen] += torch.bmm(read, seen)
            else:
                axes = "slot batch pos d_model, source batch pos d_model -> batch pos slot source"
                scores[:, :, slots, :n_seen] += einsum(gradient[:, :, positions], diff[:n_seen, :, positions], axes)
    return graph.edge_values(scores).cpu() / len(alphas)


def _exact(
    bench: Bench,
    batch: PromptBatch,
    diff: Tensor,
    clean_logits: Tensor,
    direction: Direction,
    only: Sequence[int] | None,
) -> Tensor:
    """Return exact edge scores `[batch, n_edges]`: one run per edge, several edges in one batch."""
    graph, edges = bench.graph, list(range(bench.graph.n_edges)) if only is None else list(only)
    scores = torch.zeros(len(batch.rows), graph.n_edges)
    tokens, base = batch.clean, clean_logits
    if direction == "denoise":
        tokens, diff = batch.corrupt, -diff
        base = collect(batch.residual, graph, tokens, batch.at)[1]
    before = batch.metric(base)
    at_once = max(1, ROWS_AT_ONCE // len(batch.rows))
    for chosen in (edges[i : i + at_once] for i in range(0, len(edges), at_once)):
        logits = run_with_single_edges(batch.residual, graph, tokens, diff, chosen, batch.at)
        for edge, logit_row in zip(chosen, logits, strict=True):
            change = batch.metric(logit_row) - before
            scores[:, edge] = (change if direction == "denoise" else -change).cpu()
    return scores


def _gather(parts: Iterator[Tensor], n: int, n_prompts: int, progress: Progress | None) -> tuple[Tensor, Tensor | None]:
    """Return the mean over prompts in float64, and the per-prompt scores when they are few enough to store."""
    total, per_prompt, done = torch.zeros(n, dtype=torch.float64), [], 0
    store = n * n_prompts <= KEEP_PER_PROMPT
    for part in parts:
        total += part.double().sum(0)
        done += len(part)
        if store:
            per_prompt.append(part.float())
        if progress is not None:
            progress(done, n_prompts, {})
    return total / n_prompts, torch.cat(per_prompt) if store else None


DEFAULT_TAUS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""thresholds as fractions of the gap between clean and corrupted prompts"""


def acdc(bench: Bench, tau: float, progress: Progress | None = None) -> tuple[Bool[Tensor, " n_edges"], int]:
    """Run ACDC (Conmy et al. 2023) at one threshold: an edge is cut for good where that lowers the metric by less.

    `tau` is the threshold, in the metric's unit. Returns the edges that stay, `[n_edges]` bool, and the number of runs.
    Raises `ConfigError` when `tau` is negative.
    """
    if tau < 0:
        raise ConfigError(f"tau must be at least 0, got {tau}")
    graph = bench.graph
    prepared = [(batch, bench.replacement(batch)) for batch in bench.batches()]

    def value(included: Tensor) -> float:
        return float(torch.cat([bench.metric_with(batch, included, values) for batch, values in prepared]).mean())

    return _greedy(graph, value, tau, progress)


def _greedy(
    graph: Graph, value: Callable[[Tensor], float], tau: float, progress: Progress | None
) -> tuple[Tensor, int]:
    included = torch.ones(graph.n_edges, dtype=torch.bool)
    current, runs = value(included), 1
    order = _backwards(graph)
    for done, edge in enumerate(order):
        if not _is_read(graph, included, edge):
            included[edge] = False
            continue
        included[edge] = False
        without, runs = value(included), runs + 1
        if current - without < tau:
            current = without
        else:
            included[edge] = True
        if progress is not None:
            progress(done + 1, len(order), {"kept": int(included.sum())})
    return included, runs


def acdc_scores(
    bench: Bench, taus: Sequence[float] | None, progress: Progress | None = None
) -> tuple[Float64[Tensor, " n_edges"], tuple[float, ...], int]:
    """Return the largest tau at which ACDC retains each edge, `[n_edges]` (0: at none), the taus, and the runs."""
    taus = sorted(taus) if taus is not None else [share * bench.task.gap for share in DEFAULT_TAUS]
    if not taus:
        raise ConfigError("acdc needs at least one tau")
    scores = torch.zeros(bench.graph.n_edges, dtype=torch.float64)
    total = 0
    for tau in taus:
        included, runs = acdc(bench, tau, progress)
        scores = torch.where(included, torch.tensor(tau, dtype=torch.float64).clamp_min(1e-12), scores)
        total += runs
    return scores, tuple(taus), total


def _backwards(graph: Graph) -> list[int]:
    """Return edges by reader, the last computed first, then by source, the last first."""
    table = graph.edge_table.tolist()
    via_order = {None: 0, "v": 1, "k": 2, "q": 3}

    def key(edge: int) -> tuple[float, ...]:
        position, reader, source = table[edge]
        node, via = graph.readers[reader]
        layer, is_mlp, head = parse_node(node).order
        return (-layer, -is_mlp, head, via_order[via], -source, -position)

    return sorted(range(len(table)), key=key)


def _is_read(graph: Graph, included: Tensor, edge: int) -> bool:
    """Return whether any edge in `included` still reads the node that an edge goes into."""
    node, via = graph.readers[int(graph.edge_table[edge, 1])]
    if node == "logits":
        return True
    name = parse_node(node)
    group = graph.n_heads // graph.n_kv_heads
    heads = range(name.head or 0, (name.head or 0) + (group if via in ("k", "v") else 1))
    names = [node] if name.kind == "mlp" else [f"L{name.layer}H{head}" for head in heads]
    sources = torch.tensor([graph.sources.index(source) for source in names])
    return bool((included & torch.isin(graph.edge_table[:, 2], sources)).any())


def verify_top_k(
    scores: EdgeScores, model: HookedModel, task: "Task", k: int, *, by: By = "abs", batch_size: int = 16
) -> Verified:
    """Patch the `k` highest-ranked edges (or nodes) one by one, and compare with their estimates.

    `scores` are the estimates, on the same `task`; `by` ranks them by size or by sign.

    Costs `k` runs on the task's prompts. Raises `ConfigError` when `k` is out of range.
    """
    if not 2 <= k <= len(scores):
        raise ConfigError(f"k must be from 2 to {len(scores)}, got {k}")
    chosen = scores.order(by)[:k]
    exact = attribute(
        model,
        task,
        scores.graph,
        method="exact",
        ablation=scores.settings.ablation,
        direction=scores.settings.direction,
        level=scores.level,
        batch_size=batch_size,
        only=chosen.tolist(),
    )
    return Verified(chosen, scores.values[chosen], exact.values[chosen])
