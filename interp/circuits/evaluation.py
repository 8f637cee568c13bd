"""Evaluate a circuit of heads and MLPs against the full model, random circuits of its size, and an untrained model.

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

from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from interp.circuits.circuit import Circuit
from interp.circuits.config import By, EvaluationConfig
from interp.circuits.edge_runs import Bench
from interp.circuits.edge_scores import Scores
from interp.circuits.found_circuit import (
    CircuitEvaluation,
    CurvePoint,
    EvaluationSettings,
    Minimality,
    Overlap,
    RandomRankings,
    Ranking,
    UntrainedGap,
    evaluated,
)
from interp.circuits.graph import Graph
from interp.circuits.judging import (
    EMPTY,
    FULL,
    RANDOM,
    cmd,
    cpr,
    faithfulness,
    faithfulness_interval,
    judge,
    pick,
    untrained_gap,
)
from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.names import parse_node
from interp.patching.task import Task
from interp.results import Record, Result
from interp.seeds import make_generator
from interp.statistics import Interval, auroc, percentile_interval

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
    found: dict[int, list[int]] = {}
    for source, name in enumerate(graph.sources):
        node = parse_node(name)
        if node.kind == "head" and graph.split_qkv:
            shared = f"L{node.layer}H{(node.head or 0) // group * group}"
            found[source] = [number[name, "q"], number[shared, "k"], number[shared, "v"]]
        elif source:
            found[source] = [number[name, None]]
    return found


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
        columns = (self.fractions, self.n_edges, *(each.tolist() for each in self.interval), random)
        names = ("fraction", "n_edges", "faithfulness", "low", "high", "random")
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def points(self, signed: "Curve | None" = None) -> list[CurvePoint]:
        """Return the curve as the rows of a table, next to that of the ranking by signed score."""
        n_random = len(self.random)
        null = self.random if n_random else np.full((1, len(self.fractions)), np.nan)
        middle = (each.tolist() for each in percentile_interval(null.mean(0), null))
        other = np.full(len(self.fractions), np.nan) if signed is None else signed.faithfulness
        columns = self.fractions, self.n_edges, self.faithfulness.tolist(), other.tolist(), *middle
        names = ("fraction", "n_edges", "faithfulness", "signed", "random", "random_low", "random_high")
        return [CurvePoint(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]

    def headline(self) -> str:
        """Return one line: the two areas of the curve."""
        return (
            f"Faithfulness over circuit size: CPR {self.cpr:.2f} (1 is the model), CMD {self.cmd:.2f} (0 is the model)"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class RankingEvaluation(Result):
    """Faithfulness over the size of the circuits of a ranking, and its areas."""

    settings: EvaluationSettings
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

    def headline(self) -> str:
        """Return one line: metric, ablation, number of prompts, and the two areas."""
        areas = f"CPR {self.ranking.cpr:.2f}, CMD {self.ranking.cmd:.2f}"
        return f"Evaluation of a ranking ({evaluated(self.settings)}): {areas}"


@overload
def evaluate(
    model: HookedModel,
    task: Task,
    what: Circuit,
    graph: Graph | None = None,
    config: EvaluationConfig | None = None,
    *,
    truth: Circuit | None = None,
    progress: Any = None,
) -> CircuitEvaluation: ...
@overload
def evaluate(
    model: HookedModel,
    task: Task,
    what: Scores,
    graph: Graph | None = None,
    config: EvaluationConfig | None = None,
    *,
    truth: Circuit | None = None,
    progress: Any = None,
) -> RankingEvaluation: ...
def evaluate(
    model: HookedModel,
    task: Task,
    what: Circuit | Scores,
    graph: Graph | None = None,
    config: EvaluationConfig | None = None,
    *,
    truth: Circuit | None = None,
    progress: Any = None,
) -> CircuitEvaluation | RankingEvaluation:
    """Evaluate a circuit, or a ranking of edges, on a task.

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
    settings = EvaluationSettings(
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
    settings: EvaluationSettings,
    untrained: UntrainedGap | None,
    known: Overlap | None,
    progress: Any,
) -> CircuitEvaluation:
    size = int(included.sum())
    generator = make_generator(config.seed, "evaluation")
    halves = [_half(included, generator) for _ in range(config.n_knockouts)]
    members = included.nonzero()[:, 0]
    tried = members[torch.randperm(size, generator=generator)[: config.n_minimality]].tolist()
    randoms = [random_circuit(bench.graph, size, generator) for _ in range(config.n_random)]
    masks = {
        FULL: [bench.everything(True)],
        EMPTY: [bench.everything(False)],
        "circuit": [included],
        "complement": [~included],
        "halved": [included & ~half for half in halves],
        "model_halved": [~half for half in halves],
        "without": [_without(included, edge) for edge in tried],
        RANDOM: randoms,
    }
    values = bench.values([mask for group in masks.values() for mask in group], progress).numpy()
    ends = np.cumsum([len(group) for group in masks.values()])[:-1]
    judged = judge(dict(zip(masks, np.split(values, ends), strict=True)), complement="complement", seed=config.seed)
    incompleteness = minimality = corrupt_frozen = None
    if halves:
        incompleteness = float(np.abs(judged.f["halved"] - judged.f["model_halved"]).mean())
    if tried:
        drops = np.abs(judged.found.faithfulness.estimate - judged.f["without"])
        minimality = Minimality(n_tried=len(tried), median=float(np.median(drops)), least=float(drops.min()))
    if bench.frozen is not None:
        corrupt_frozen = float(bench.values([bench.everything(False)]).mean())
    return CircuitEvaluation(
        **vars(judged.found),
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
    means = {"cpr": float(np.mean(areas)), "cmd": float(np.mean(distances))}
    return RandomRankings(n=len(areas), **means, cpr_best=max(areas), cmd_best=min(distances))


def curve(
    bench: Bench,
    scores: Scores,
    config: EvaluationConfig,
    *,
    by: By,
    n_random: int | None = None,
    progress: Any = None,
) -> Curve:
    """Measure faithfulness of the highest-ranked edges at every fraction, and of random circuits of the same sizes."""
    n_random = config.n_random if n_random is None else n_random
    asked = [round(fraction * len(scores)) for fraction in config.fractions]
    best = [scores.mask(n, by) for n in asked]
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


def overlap(found: Bool[Tensor, " edges"], truth: Bool[Tensor, " edges"]) -> Overlap:
    """Return the fraction of found edges that are true, and of true edges that are found."""
    both = float((found & truth).sum())
    return Overlap(precision=both / max(1.0, float(found.sum())), recall=both / max(1.0, float(truth.sum())))


def _half(included: Bool[Tensor, " edges"], generator: torch.Generator) -> Bool[Tensor, " edges"]:
    return included & (torch.rand(len(included), generator=generator) < 0.5)


def _without(included: Bool[Tensor, " edges"], edge: int) -> Bool[Tensor, " edges"]:
    included = included.clone()
    included[edge] = False
    return included
