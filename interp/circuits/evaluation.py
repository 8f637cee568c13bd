"""Evaluate a circuit of heads and MLPs against the full model, random circuits of its size, and an untrained model.

    report = evaluate(model, task, circuit)      # one circuit: faithfulness, completeness, minimality, nulls
    report = evaluate(model, task, scores)       # a ranking: the curve over sizes, CPR, CMD
    report.to_json()                             # goes into circuit.json as "evaluation"

Edges of the circuit carry recomputed values of the clean run; all others carry the replacement (`ablation`). The
numbers depend on the kind of ablation, on edges or nodes, on position-specific edges, and on averaging before or after
the ratio (Miller et al. 2024), so a report states all four.

In post-norm models (Gemma 2 and 3) faithfulness is 0 at the corrupted run of the model with frozen scales, whose metric
is `corrupt_frozen`, beside the free model's `corrupt` of the task.

The null distribution is over random circuits of the same size. Single random edges are mostly on no path from `embed`
to `logits` and have no effect, so they would make too weak a null. A random circuit is therefore a union of random
paths: from the logits to a random source, to one of its inputs, and so on back to `embed`. Beyond `MAX_PATHED` edges
the rest is drawn uniformly, as a circuit of that size is connected anyway.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from interp.circuits.circuit import Circuit
from interp.circuits.config import By, EvaluationConfig
from interp.circuits.edge_runs import Bench
from interp.circuits.edge_scores import Scores
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
from interp.results import Record, Result, flat
from interp.runtime import make_generator
from interp.statistics import Interval, auroc

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
    """faithfulness of random circuits with as many edges"""

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

    def headline(self) -> str:
        """Return one line: the two areas of the curve."""
        return (
            f"Faithfulness over circuit size: CPR {self.cpr:.2f} (1 is the model), CMD {self.cmd:.2f} (0 is the model)"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation(Result):
    """Results of an evaluation as plain numbers, with the settings that they depend on."""

    numbers: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    curve: Curve | None = None
    """ranked by absolute score, for scores"""

    def __getitem__(self, name: str) -> Any:
        return self.numbers[name]

    def to_records(self) -> list[Record]:
        """Return one row with a column per number; names of nested ones are joined by a dot: `random_circuits.mean`."""
        return [flat(self.numbers)]

    def headline(self) -> str:
        """Return one line: metric, ablation and number of prompts."""
        how = ", ".join(
            f"{key} {self.settings[key]}" for key in ("metric", "ablation", "n_prompts") if key in self.settings
        )
        return f"Evaluation of a circuit ({how})"

    def to_json(self) -> dict[str, Any]:
        """Return settings and numbers in one flat object."""
        return {**self.settings, **self.numbers}


def evaluate(
    model: HookedModel,
    task: Task,
    what: Circuit | Scores,
    graph: Graph | None = None,
    config: EvaluationConfig | None = None,
    *,
    truth: Circuit | None = None,
    progress: Any = None,
) -> Evaluation:
    """Evaluate a circuit, or a ranking of edges, on a task.

    `graph` defaults to that of the scores, or to the model's own; a circuit with positions needs the graph in which it
    was found. With `truth` (a known circuit) scores get an AUROC, and a circuit its precision and recall.

    Raises `MismatchError` for a circuit of other weights, `UnknownNameError` for an edge that the graph lacks.
    """
    from interp.models.adapter import weight_hash

    config = config or EvaluationConfig()
    if isinstance(what, Circuit):
        if what.weight_hash:
            what.check_model(weight_hash(model))
        graph = graph or Graph.from_model(model)
    else:
        graph = what.graph
    ablation = config.ablation or what.settings.get("ablation", "resample")
    bench = Bench(model, graph, task, ablation=ablation, batch_size=config.batch_size)
    if isinstance(what, Circuit):
        numbers, curve = _evaluate_circuit(bench, graph.members(what), config, progress), None
        if truth is not None:
            numbers |= overlap(graph.members(what), graph.members(truth))
    else:
        numbers, curve = _evaluate_scores(bench, what, config, progress)
        if truth is not None:
            if what.level != "edge":
                raise ConfigError("AUROC compares edges with a known circuit; score with level='edge'")
            numbers["auroc"] = auroc(what.values.abs().numpy(), graph.members(truth).numpy())
    if config.untrained:
        numbers["untrained"] = untrained_gap(model, task, config.seed)
    settings = {
        "ablation": ablation,
        "direction": "edges outside the circuit are replaced in the clean run",
        "level": "edge" if isinstance(what, Circuit) else what.level,
        "positions": "all alike" if graph.positions is None else list(graph.positions),
        "averaging": "ratio of means over prompts",
        "n_prompts": task.n_prompts,
        "metric": task.metric.name,
        "seed": config.seed,
        **bench.settings(),
    }
    if "frozen" in settings:
        numbers["corrupt_frozen"] = float(bench.values([bench.everything(False)]).mean())
    return Evaluation(numbers=numbers, settings=settings, curve=curve)


def _evaluate_circuit(
    bench: Bench, included: Bool[Tensor, " edges"], config: EvaluationConfig, progress: Any
) -> dict[str, Any]:
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
    numbers: dict[str, Any] = {"n_edges": size, "n_edges_of_graph": bench.graph.n_edges}
    numbers |= judged.numbers
    if halves:
        gap = np.abs(judged.f["halved"] - judged.f["model_halved"])
        numbers["incompleteness_of_halves"] = float(gap.mean())
    if tried:
        drops = np.abs(judged.numbers["faithfulness"] - judged.f["without"])
        numbers["minimality"] = {"n_tried": len(tried), "median": float(np.median(drops)), "least": float(drops.min())}
    return numbers


def _evaluate_scores(
    bench: Bench, scores: Scores, config: EvaluationConfig, progress: Any
) -> tuple[dict[str, Any], Curve]:
    by_abs = curve(bench, scores, config, by="abs", progress=progress)
    signed = curve(bench, scores, config, by="signed", n_random=0, progress=progress)
    numbers: dict[str, Any] = {
        "cpr": signed.cpr,
        "cmd": by_abs.cmd,
        "fractions": list(config.fractions),
        "faithfulness_by_abs": by_abs.faithfulness.tolist(),
        "faithfulness_by_signed": signed.faithfulness.tolist(),
    }
    if config.n_random:
        area = [cpr(config.fractions, row.tolist()) for row in by_abs.random]
        distance = [cmd(config.fractions, row.tolist()) for row in by_abs.random]
        numbers["random_circuits"] = {
            "n": config.n_random,
            "cpr": float(np.mean(area)),
            "cpr_best": float(np.max(area)),
            "cmd": float(np.mean(distance)),
            "cmd_best": float(np.min(distance)),
        }
    return numbers, by_abs


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


def overlap(found: Bool[Tensor, " edges"], truth: Bool[Tensor, " edges"]) -> dict[str, float]:
    """Return the fraction of found edges that are true, and of true edges that are found."""
    both = float((found & truth).sum())
    return {"precision": both / max(1.0, float(found.sum())), "recall": both / max(1.0, float(truth.sum()))}


def _half(included: Bool[Tensor, " edges"], generator: torch.Generator) -> Bool[Tensor, " edges"]:
    return included & (torch.rand(len(included), generator=generator) < 0.5)


def _without(included: Bool[Tensor, " edges"], edge: int) -> Bool[Tensor, " edges"]:
    included = included.clone()
    included[edge] = False
    return included
