"""Circuit discovery on a task: score, verify, select, evaluate.

    task, held_out = make_task("ioi", model, n_prompts=80).split(40)
    result = find_circuit(model, task, FindConfig(n_edges=200), held_out=held_out)
    result.evaluation.faithfulness, result.verdict.holds

1. Score every edge (or node) by `attribution`, and patch the highest-ranked ones one by one to check the scores.
2. Measure the curve of faithfulness over circuit size, with random circuits of each size as the null.
3. Select the `n_edges` highest-ranked edges, or the smallest circuit on the curve with the wanted faithfulness.
4. Evaluate it: faithfulness, completeness, minimality, random circuits of its size, an untrained model. With
   `held_out`, on prompts that were not used in steps 1 to 3.

The result is an `EdgeCircuit`: the circuit, all scores, the curve, the prompts and the attention of its heads.

**Evaluation** of a circuit of heads and MLPs is against the full model, random circuits of its size, and an untrained
model:

    report = evaluate(model, task, circuit)      # one circuit: faithfulness, completeness, minimality, nulls
    report = evaluate(model, task, scores)       # a ranking: the curve over sizes, CPR, CMD

Edges of the circuit carry recomputed values of the clean run; all others carry the replacement (`ablation`). The
numbers depend on the kind of ablation, on edges or nodes, on position-specific edges, and on averaging before or after
the ratio (Miller et al. 2024), so a report states all four.

In post-norm models (Gemma 2 and 3) faithfulness is 0 at the corrupted run of the model with frozen scales, whose metric
is `corrupt_frozen`; that of the free model is `corrupt` of the task.

The null distribution is over random circuits of the same size. Single random edges are mostly on no path from `embed`
to `logits` and have no effect, so they would make too weak a null. A random circuit is therefore a union of random
paths: from the logits to a random source, to one of its inputs, and so on back to `embed`. Beyond `MAX_PATHED` edges
the rest is drawn uniformly, as a circuit of that size is connected anyway.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import overload

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from interp.artifacts import Table
from interp.circuits._edge_runs import Bench
from interp.circuits._edge_scores import EdgeScores, Verified, edge_table, node_table
from interp.circuits.attribution import attribute, verify_top_k
from interp.circuits.circuit import Circuit, NodeEffect
from interp.circuits.config import By, EvaluationConfig, FindConfig
from interp.circuits.found_circuit import (
    CircuitEvaluation,
    CircuitEvaluationSettings,
    EdgeCircuit,
    EdgeCircuitSettings,
    FaithfulnessPoint,
    Minimality,
    Overlap,
    RandomRankings,
    Ranking,
    UntrainedGap,
    Verdict,
    evaluated,
)
from interp.circuits.graph import Graph
from interp.circuits.head_kinds import head_patterns
from interp.circuits.judging import (
    cmd,
    cpr,
    faithfulness,
    faithfulness_interval,
    null_summary,
    pick,
    prompt_texts,
    untrained_gap,
    verdict,
)
from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.names import parse_head, parse_node
from interp.patching.task import Task
from interp.progress import Progress
from interp.results import Record, Result
from interp.seeds import make_generator
from interp.statistics import Interval, auroc, percentile_interval
from interp.view import View

StepProgress = Callable[[str], Progress | None]
"""Callback of a step, by its name."""

MAX_PATHED = 2000


def random_circuit(graph: Graph, n_edges: int, generator: torch.Generator) -> Bool[Tensor, " edges"]:
    """Draw a random circuit, one bool per edge of the graph, with exactly `n_edges` true."""
    included = torch.zeros(graph.n_edges, dtype=torch.bool)
    if n_edges >= graph.n_edges:
        return ~included
    inputs, edges_into = _inputs(graph), _edges_into(graph)
    count, tries = 0, 0
    while count < min(n_edges, MAX_PATHED) and tries < 20 * MAX_PATHED:
        tries += 1
        for edge in _random_path(graph, inputs, edges_into, generator):
            if count < n_edges and not included[edge]:
                included[edge] = True
                count += 1
    left = (~included).nonzero()[:, 0]
    included[left[torch.randperm(len(left), generator=generator)[: n_edges - count]]] = True
    return included


def _random_path(
    graph: Graph, inputs: dict[int, list[int]], edges_into: dict[tuple[int, int], list[int]], generator: torch.Generator
) -> list[int]:
    """Return the edges of one random path, from the logits backwards; at one position where edges have positions."""
    position = pick(graph.n_positions, generator)
    reader, path = len(graph.readers) - 1, []
    while True:
        options = edges_into[position, reader]
        edge = options[pick(len(options), generator)]
        path.append(edge)
        source = int(graph.edge_table[edge, 2])
        if source == 0:
            return path
        reader = inputs[source][pick(len(inputs[source]), generator)]
        if graph.readers[reader][1] in ("k", "v"):  # a head also reads keys and values at earlier positions
            position = pick(position + 1, generator)


def _inputs(graph: Graph) -> dict[int, list[int]]:
    """Return the readers that are inputs of each source; a group's key and value count for each of its heads."""
    group = graph.n_heads // graph.n_kv_heads
    number = {reader: i for i, reader in enumerate(graph.readers)}
    inputs: dict[int, list[int]] = {}
    for source, name in enumerate(graph.sources):
        node = parse_node(name)
        if node.kind == "head" and graph.split_qkv:
            shared = f"L{node.layer}H{(node.head or 0) // group * group}"
            inputs[source] = [number[name, "q"], number[shared, "k"], number[shared, "v"]]
        elif source:
            inputs[source] = [number[name, None]]
    return inputs


def _edges_into(graph: Graph) -> dict[tuple[int, int], list[int]]:
    into: dict[tuple[int, int], list[int]] = {}
    for edge, (position, reader, _) in enumerate(graph.edge_table.tolist()):
        into.setdefault((position, reader), []).append(edge)
    return into


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve(Result):
    """Faithfulness of the circuits of the highest-ranked edges, by size."""

    by: By
    fractions: tuple[float, ...]
    n_edges: list[int]
    """after pruning"""
    interval: Interval[np.ndarray]
    """`[n_fractions]` faithfulness over prompts"""
    random: Float64[np.ndarray, "n_random n_fractions"]
    """faithfulness of random circuits with the same number of edges"""

    @property
    def faithfulness(self) -> Float64[np.ndarray, " n_fractions"]:
        """Faithfulness without its interval."""
        return self.interval.estimate

    @property
    def cpr(self) -> float:
        return cpr(self.fractions, self.faithfulness.tolist())

    @property
    def cmd(self) -> float:
        return cmd(self.fractions, self.faithfulness.tolist())

    def smallest(self, at_least: float) -> int | None:
        """Return the index of the first fraction with at least this faithfulness; None when there is none."""
        reached = np.flatnonzero(self.faithfulness >= at_least)
        return int(reached[0]) if len(reached) else None

    def to_records(self) -> list[Record]:
        """Return one row per size: `fraction, n_edges, faithfulness, low, high, random` (mean of random circuits)."""
        random = self.random.mean(0).tolist() if len(self.random) else [None] * len(self.fractions)
        columns = (self.fractions, self.n_edges, *(bound.tolist() for bound in self.interval), random)
        names = ("fraction", "n_edges", "faithfulness", "low", "high", "random")
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def points(self, signed: "Curve | None" = None) -> list[FaithfulnessPoint]:
        """Return the curve as the rows of a table, next to that of the ranking by signed score."""
        n_random = len(self.random)
        null = self.random if n_random else np.full((1, len(self.fractions)), np.nan)
        middle = (bound.tolist() for bound in percentile_interval(null.mean(0), null))
        signed_values = np.full(len(self.fractions), np.nan) if signed is None else signed.faithfulness
        columns = self.fractions, self.n_edges, self.faithfulness.tolist(), signed_values.tolist(), *middle
        return [
            FaithfulnessPoint(
                fraction=fraction,
                n_edges=n_edges,
                faithfulness=faithful,
                signed=by_signed,
                random=mean,
                random_low=low,
                random_high=high,
            )
            for fraction, n_edges, faithful, by_signed, mean, low, high in zip(*columns, strict=True)
        ]

    def view(self) -> View:
        areas = f"CPR {self.cpr:.2f} (1 is the model), CMD {self.cmd:.2f} (0 is the model)"
        yield f"Faithfulness over circuit size: {areas}"


@dataclass(frozen=True, kw_only=True, eq=False)
class RankingEvaluation(Result):
    """Faithfulness over the size of the circuits of a ranking, and its areas."""

    settings: CircuitEvaluationSettings
    ranking: Ranking
    curve: Curve
    """ranked by absolute score"""
    signed: Curve
    """ranked by signed score"""
    auroc: float | None
    """of the edges of a known circuit, by absolute score"""
    untrained: UntrainedGap | None

    def to_records(self) -> list[Record]:
        """Return one row per size, as `Curve.to_records`."""
        return self.curve.to_records()

    def view(self) -> View:
        areas = f"CPR {self.ranking.cpr:.2f}, CMD {self.ranking.cmd:.2f}"
        yield f"Evaluation of a ranking ({evaluated(self.settings)}): {areas}"


@overload
def evaluate(
    model: HookedModel,
    task: Task,
    what: Circuit,
    graph: Graph | None = None,
    config: EvaluationConfig | None = None,
    *,
    truth: Circuit | None = None,
    progress: Progress | None = None,
) -> CircuitEvaluation: ...
@overload
def evaluate(
    model: HookedModel,
    task: Task,
    what: EdgeScores,
    graph: Graph | None = None,
    config: EvaluationConfig | None = None,
    *,
    truth: Circuit | None = None,
    progress: Progress | None = None,
) -> RankingEvaluation: ...
def evaluate(
    model: HookedModel,
    task: Task,
    what: Circuit | EdgeScores,
    graph: Graph | None = None,
    config: EvaluationConfig | None = None,
    *,
    truth: Circuit | None = None,
    progress: Progress | None = None,
) -> CircuitEvaluation | RankingEvaluation:
    """Evaluate a circuit, or a ranking of edges, on a task.

    `what` is the circuit, or the scores that rank the edges.

    `graph` defaults to that of the scores, or to the model's own; a circuit with positions needs the graph in which it
    was found. With `truth` (a known circuit) scores get an AUROC, and a circuit its precision and recall.

    Raises `MismatchError` for a circuit of other weights, `UnknownNameError` for an edge that the graph lacks.
    """
    from interp.models.adapter import weight_hash

    config = config or EvaluationConfig()
    is_circuit = isinstance(what, Circuit)
    if is_circuit:
        if what.weight_hash:
            what.check_model(weight_hash(model))
        graph = graph or Graph.from_model(model)
    else:
        graph = what.graph
    ablation = config.ablation or ("resample" if is_circuit else what.settings.ablation)
    bench = Bench(model, graph, task, ablation=ablation, batch_size=config.batch_size)
    settings = CircuitEvaluationSettings(
        ablation=ablation,
        level="edge" if is_circuit else what.level,
        positions=None if graph.positions is None else tuple(graph.positions),
        n_prompts=task.n_prompts,
        metric=task.metric.name,
        seed=config.seed,
        frozen=bench.frozen,
    )
    untrained = untrained_gap(model, task, config.seed) if config.untrained else None
    if is_circuit:
        included = graph.members(what)
        known = None if truth is None else overlap(included, graph.members(truth))
        return _evaluate_circuit(bench, included, config, settings, untrained, known, progress)
    auroc_of_truth = None
    if truth is not None:
        if what.level != "edge":
            raise ConfigError("AUROC compares edges with a known circuit; score with level='edge'")
        auroc_of_truth = auroc(what.values.abs().numpy(), graph.members(truth).numpy())
    by_abs = curve(bench, what, config, by="abs", progress=progress)
    signed = curve(bench, what, config, by="signed", n_random=0, progress=progress)
    return RankingEvaluation(
        settings=settings,
        ranking=Ranking(cpr=signed.cpr, cmd=by_abs.cmd, random=_random_rankings(by_abs)),
        curve=by_abs,
        signed=signed,
        auroc=auroc_of_truth,
        untrained=untrained,
    )


def _evaluate_circuit(
    bench: Bench,
    included: Bool[Tensor, " edges"],
    config: EvaluationConfig,
    settings: CircuitEvaluationSettings,
    untrained: UntrainedGap | None,
    known: Overlap | None,
    progress: Progress | None,
) -> CircuitEvaluation:
    size = int(included.sum())
    generator = make_generator(config.seed, "evaluation")
    halves = [included & (torch.rand(len(included), generator=generator) < 0.5) for _ in range(config.n_knockouts)]
    members = included.nonzero()[:, 0]
    removed = members[torch.randperm(size, generator=generator)[: config.n_minimality]].tolist()
    randoms = [random_circuit(bench.graph, size, generator) for _ in range(config.n_random)]
    masks = {
        "full": [bench.everything(True)],
        "empty": [bench.everything(False)],
        "circuit": [included],
        "complement": [~included],
        "halved": [included & ~half for half in halves],
        "model_halved": [~half for half in halves],
        "without": [_without(included, edge) for edge in removed],
        "random": randoms,
    }
    values = bench.values([mask for group in masks.values() for mask in group], progress).numpy()
    cuts = np.cumsum([len(group) for group in masks.values()])[:-1]
    runs = dict(zip(masks, np.split(values, cuts), strict=True))
    [full], [empty] = runs["full"], runs["empty"]
    f = {name: faithfulness(metric, empty, full) for name, metric in runs.items()}
    ends = faithfulness_interval(runs["circuit"], empty, full, seed=config.seed).at(0)
    incompleteness = minimality = corrupt_frozen = None
    if halves:
        incompleteness = float(np.abs(f["halved"] - f["model_halved"]).mean())
    if removed:
        drops = np.abs(f["circuit"] - f["without"])
        minimality = Minimality(n_tried=len(removed), median=float(np.median(drops)), least=float(drops.min()))
    if bench.frozen is not None:
        corrupt_frozen = float(bench.values([bench.everything(False)]).mean())
    return CircuitEvaluation(
        full=float(full.mean()),
        empty=float(empty.mean()),
        faithfulness=ends._replace(estimate=float(f["circuit"][0])),
        completeness=float(f["complement"][0]),
        random_circuits=null_summary(f["random"], float(f["circuit"][0])) if randoms else None,
        settings=settings,
        n_edges=size,
        n_edges_of_graph=bench.graph.n_edges,
        incompleteness_of_halves=incompleteness,
        minimality=minimality,
        untrained=untrained,
        corrupt_frozen=corrupt_frozen,
        overlap=known,
    )


def _random_rankings(by_abs: Curve) -> RandomRankings | None:
    """Return the areas of random circuits of every size, as if each were a ranking."""
    if not len(by_abs.random):
        return None
    areas = [cpr(by_abs.fractions, row.tolist()) for row in by_abs.random]
    distances = [cmd(by_abs.fractions, row.tolist()) for row in by_abs.random]
    return RandomRankings(
        n=len(areas),
        cpr=float(np.mean(areas)),
        cpr_best=max(areas),
        cmd=float(np.mean(distances)),
        cmd_best=min(distances),
    )


def curve(
    bench: Bench,
    scores: EdgeScores,
    config: EvaluationConfig,
    *,
    by: By,
    n_random: int | None = None,
    progress: Progress | None = None,
) -> Curve:
    """Measure faithfulness of the highest-ranked edges at every fraction, and of random circuits of the same sizes."""
    n_random = config.n_random if n_random is None else n_random
    counts = [round(fraction * len(scores)) for fraction in config.fractions]
    best = [scores.mask(n, by) for n in counts]
    sizes = [int(mask.sum()) for mask in best]
    generator = make_generator(config.seed, "random circuits")
    randoms = [random_circuit(bench.graph, n, generator) for _ in range(n_random) for n in sizes]
    masks = [bench.everything(True), bench.everything(False), *best, *randoms]
    values = bench.values(masks, progress).numpy()
    full, empty, ours = values[0], values[1], values[2 : 2 + len(best)]
    null = faithfulness(values[2 + len(best) :], empty, full) if randoms else np.zeros(0)
    return Curve(
        by=by,
        fractions=config.fractions,
        n_edges=sizes,
        interval=faithfulness_interval(ours, empty, full, seed=config.seed),
        random=null.reshape(n_random, len(sizes)),
    )


def overlap(selection: Bool[Tensor, " edges"], truth: Bool[Tensor, " edges"]) -> Overlap:
    """Return the fraction of found edges that are true, and of true edges that are found."""
    both = float((selection & truth).sum())
    return Overlap(precision=both / max(1.0, float(selection.sum())), recall=both / max(1.0, float(truth.sum())))


def _without(included: Bool[Tensor, " edges"], edge: int) -> Bool[Tensor, " edges"]:
    included = included.clone()
    included[edge] = False
    return included


RULE = (
    "the low end of the 95 % interval of its faithfulness lies above the 97.5 % quantile of random circuits with "
    "the same number of edges, and the gap of an untrained model is below a tenth of this model's"
)

HALVINGS = 5
"""bisection steps for the size between two points of the curve"""


def find_circuit(
    model: HookedModel,
    task: Task,
    config: FindConfig | None = None,
    graph: Graph | None = None,
    *,
    held_out: Task | None = None,
    progress: StepProgress | None = None,
) -> EdgeCircuit:
    """Find the circuit of a task, and evaluate it.

    Args:
        task: prompts and a metric, such as `make_task` makes.
        config: method, ablation and sizes (default: `FindConfig()`).
        graph: the edges to search (default: all of the model).
        held_out: prompts for the evaluation; without it the task's own are used.
        progress: called with the name of a step, returns the callback of that step.
    Returns: the circuit, with its faithfulness and random circuits as its null.
    Raises:
        ConfigError: the two tasks share a prompt or have different metrics.

    >>> model = load_model("planted:induction")  # analytic weights: L1H0 reads what L0H0 writes
    >>> quick = FindConfig(verify=4, evaluation=EvaluationConfig(n_random=2, n_minimality=1))
    >>> find_circuit(model, make_task("induction", model, n_prompts=4), quick).headline()
    'planted:induction, induction: 4 of 12 edges keep 100% of the behaviour; random circuits ...'
    """
    config = config or FindConfig()
    if held_out is not None:
        _check_apart(task, held_out)
    step: StepProgress = progress or (lambda name: None)
    scores, nodes, verified = _score(model, task, config, graph, step)
    ranking = evaluate(model, task, scores, config=replace(config.evaluation, untrained=False), progress=step("curve"))
    size = config.n_edges or _smallest(model, task, scores, ranking.curve, config)
    circuit = _with_effects(scores.top(size, by=config.by), nodes)
    judging_config = replace(config.evaluation, ablation=config.evaluation.ablation or config.ablation)
    evaluation = evaluate(model, held_out or task, circuit, scores.graph, judging_config, progress=step("judging"))
    heads = [parse_head(node.name) for node in circuit.nodes if parse_node(node.name).kind == "head"]
    pattern_heads, patterns = head_patterns(model, task.clean[:1, : int(task.lengths[0])], heads)
    settings = EdgeCircuitSettings(
        **vars(config),
        model=circuit.model,
        weight_hash=circuit.weight_hash,
        frozen=scores.settings.frozen,
        task=task.settings,
        held_out=None if held_out is None else held_out.settings,
    )
    return EdgeCircuit(
        settings=settings,
        circuit=circuit,
        verdict=_verdict(evaluation, judged_on_others=held_out is not None),
        n_requested=size,
        evaluation=evaluation,
        ranking=ranking.ranking,
        verified=None if verified is None else verified.agreement(),
        prompts=prompt_texts(model, task),
        edge_scores=edge_table(scores, verified) if scores.level == "edge" else None,
        node_scores=node_table(nodes, verified if nodes is scores else None),
        curve=Table.of(FaithfulnessPoint, ranking.curve.points(ranking.signed)),
        pattern_heads=pattern_heads,
        patterns=patterns,
        group_size=scores.graph.n_heads // scores.graph.n_kv_heads,
    )


def _check_apart(task: Task, held_out: Task) -> None:
    if task.metric.name != held_out.metric.name:
        raise ConfigError(f"held-out prompts are measured by {held_out.metric.name}, the task by {task.metric.name}")
    seen = {tuple(row) for row in task.clean.tolist()}
    shared = sum(tuple(row) in seen for row in held_out.clean.tolist())
    if shared:
        raise ConfigError(f"{shared} held-out prompts are among the task's own; separate them with `task.split(n)`")


def _score(
    model: HookedModel, task: Task, config: FindConfig, graph: Graph | None, step: StepProgress
) -> tuple[EdgeScores, EdgeScores, Verified | None]:
    """Return scores at the chosen level, scores of nodes, and the highest-ranked ones patched one by one."""
    size = config.evaluation.batch_size
    score = partial(attribute, model, task, ablation=config.ablation, batch_size=size, steps=config.steps)
    scores = score(graph, method=config.method, level=config.level, progress=step(f"scoring {config.level}s"))
    nodes = scores
    if config.level == "edge":
        nodes = score(method="eap-ig" if config.method == "acdc" else config.method, level="node")
    verified = None
    if config.verify:
        verified = verify_top_k(scores, model, task, min(config.verify, len(scores)), by=config.by, batch_size=size)
    return scores, nodes, verified


def _with_effects(circuit: Circuit, nodes: EdgeScores) -> Circuit:
    """Return the circuit with each node's own score and its interval over prompts."""
    interval = nodes.interval()
    number = {name: i for i, name in enumerate(nodes.graph.sources)}

    def evidence(name: str) -> NodeEffect | None:
        at = number.get(name)
        if at is None:
            return None
        low, high = (None, None) if interval is None else (float(bound[at]) for bound in interval)
        return NodeEffect(effect=float(nodes.values[at]), low=low, high=high)

    return replace(circuit, nodes=tuple(replace(n, evidence=evidence(n.name)) for n in circuit.nodes))


def _smallest(model: HookedModel, task: Task, scores: EdgeScores, curve: Curve, config: FindConfig) -> int:
    """Return a size that reaches the faithfulness: the first such point of the curve, refined by bisection.

    The bisection goes down to the size before it. All edges when no point reaches the faithfulness. As faithfulness
    need not rise with size, a smaller circuit may exist.
    """
    index = curve.smallest(config.faithfulness)
    if index is None:
        return len(scores)
    sizes = [0, *(round(fraction * len(scores)) for fraction in curve.fractions)]
    too_small, enough = sizes[index], sizes[index + 1]
    bench = Bench(model, scores.graph, task, ablation=config.ablation, batch_size=config.evaluation.batch_size)
    full, empty = bench.values([bench.everything(True), bench.everything(False)]).numpy()
    for _ in range(HALVINGS):
        middle = (too_small + enough) // 2
        if middle == too_small:
            break
        values = bench.values([scores.mask(middle, config.by)]).numpy()
        if faithfulness(values, empty, full)[0] >= config.faithfulness:
            enough = middle
        else:
            too_small = middle
    return max(1, enough)


def _verdict(evaluation: CircuitEvaluation, *, judged_on_others: bool) -> Verdict:
    null, untrained, e = evaluation.random_circuits, evaluation.untrained, evaluation
    if null is None or untrained is None:
        return verdict(RULE, "nulls were not run", None, None)
    judged_on = "other prompts than those that found it" if judged_on_others else "the prompts that found it"
    reason = (
        f"faithfulness {e.faithfulness:.2f} with {e.n_edges} of {e.n_edges_of_graph} edges, "
        f"random circuits {null.mean:.2f} ({null.low:.2f} to {null.high:.2f}); gap of an untrained "
        f"model {untrained.gap:.3g}, of this one {untrained.gap_of_model:.3g}; judged on "
        f"{e.settings.n_prompts} prompts: {judged_on}"
    )
    return verdict(RULE, reason, e.faithfulness.low > null.high, untrained)
