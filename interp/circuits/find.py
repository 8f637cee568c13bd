"""Circuit discovery on a task: score, verify, select, evaluate.

    task, held_out = make_task("ioi", model, n_prompts=80).split(40)
    found = find_circuit(model, task, FindConfig(n_edges=200), held_out=held_out)
    found.evaluation.faithfulness, found.verdict.found

1. Score every edge (or node) by `attribution`, and patch the highest-ranked ones one by one to check the scores.
2. Measure the curve of faithfulness over circuit size, with random circuits of each size as the null.
3. Select the `n_edges` highest-ranked edges, or the smallest circuit on the curve with the wanted faithfulness.
4. Evaluate it: faithfulness, completeness, minimality, random circuits of its size, an untrained model. With
   `held_out`, on prompts that were not used in steps 1 to 3.

The result is an `EdgeCircuit`: the circuit, all scores, the curve, the prompts and the attention of its heads.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pyarrow as pa

from interp.artifacts import Table
from interp.circuits.attribution import attribute, verify_top_k
from interp.circuits.circuit import Circuit, NodeEffect
from interp.circuits.config import FindConfig
from interp.circuits.edge_runs import Bench
from interp.circuits.edge_scores import Scores, Verified
from interp.circuits.evaluation import Curve, evaluate
from interp.circuits.found_circuit import (
    CircuitEvaluation,
    CurvePoint,
    EdgeCircuit,
    EdgeCircuitSettings,
    ScoredEdge,
    ScoredNode,
    Verdict,
)
from interp.circuits.graph import Graph
from interp.circuits.head_kinds import head_patterns
from interp.circuits.judging import faithfulness, prompt_texts, verdict
from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.names import parse_head, parse_node
from interp.patching.task import Task

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
    progress: Callable[[str], Any] | None = None,
) -> EdgeCircuit:
    """Find the circuit of a task and evaluate it on `held_out`, or without it on the task's own prompts.

    `progress(step name)` gives the callback of each step. Raises `ConfigError` when the two tasks share a prompt or
    have different metrics, and what the steps raise.
    """
    config = config or FindConfig()
    if held_out is not None:
        _check_apart(task, held_out)
    step = progress or (lambda name: None)
    scores, nodes, verified = _score(model, task, config, graph, step)
    ranking = evaluate(model, task, scores, config=replace(config.evaluation, untrained=False), progress=step("curve"))
    asked = config.n_edges or _smallest(model, task, scores, ranking.curve, config)
    circuit = _with_effects(scores.top(asked, by=config.by), nodes)
    judging = replace(config.evaluation, ablation=config.evaluation.ablation or config.ablation)
    evaluation = evaluate(model, held_out or task, circuit, scores.graph, judging, progress=step("judging"))
    heads = [parse_head(node.name) for node in circuit.nodes if parse_node(node.name).kind == "head"]
    pattern_heads, patterns = head_patterns(model, task.clean[:1, : int(task.lengths[0])], heads)
    settings = EdgeCircuitSettings(
        **{each.name: getattr(config, each.name) for each in fields(config)},
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
        asked=asked,
        evaluation=evaluation,
        ranking=ranking.ranking,
        verified=None if verified is None else verified.agreement(),
        prompts=prompt_texts(model, task),
        edge_scores=edge_table(scores, verified) if scores.level == "edge" else None,
        node_scores=None if nodes is None else node_table(nodes, verified if nodes is scores else None),
        curve=Table.of(CurvePoint, ranking.curve.points(ranking.signed)),
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
    model: HookedModel, task: Task, config: FindConfig, graph: Graph | None, step: Callable[[str], Any]
) -> tuple[Scores, Scores | None, Verified | None]:
    """Return scores at the chosen level, scores of nodes, and the highest-ranked ones patched one by one."""
    size = config.evaluation.batch_size
    shared: dict[str, Any] = {"ablation": config.ablation, "batch_size": size, "steps": config.steps}
    scores = attribute(
        model,
        task,
        graph,
        method=config.method,
        level=config.level,
        **shared,
        progress=step(f"scoring {config.level}s"),
    )
    nodes = scores if config.level == "node" else None
    if config.node_scores and nodes is None:
        gradient = "eap-ig" if config.method == "acdc" else config.method
        nodes = attribute(model, task, method=gradient, level="node", **shared)
    verified = None
    if config.verify:
        verified = verify_top_k(scores, model, task, min(config.verify, len(scores)), by=config.by, batch_size=size)
    return scores, nodes, verified


def _with_effects(circuit: Circuit, nodes: Scores | None) -> Circuit:
    """Return the circuit with each node's own score and its interval over prompts."""
    if nodes is None:
        return circuit
    interval = nodes.interval()
    number = {name: i for i, name in enumerate(nodes.graph.sources)}

    def evidence(name: str) -> NodeEffect | None:
        at = number.get(name)
        if at is None:
            return None
        low, high = (None, None) if interval is None else (float(each[at]) for each in interval)
        return NodeEffect(effect=float(nodes.values[at]), low=low, high=high)

    return replace(circuit, nodes=tuple(replace(n, evidence=evidence(n.name)) for n in circuit.nodes))


def _smallest(model: HookedModel, task: Task, scores: Scores, curve: Curve, config: FindConfig) -> int:
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


def edge_table(scores: Scores, verified: Verified | None) -> Table[ScoredEdge]:
    """Return the scores of all edges, largest absolute score first."""
    edges, texts = [scores.graph.edge(i) for i in scores.order().tolist()], ("source", "target", "via")
    names = {part: pa.array([getattr(edge, part) for edge in edges], pa.string()) for part in texts}
    position = {"position": pa.array([edge.position for edge in edges], pa.int32())}
    return Table.of_columns(ScoredEdge, names | position | _score_columns(scores, verified))


def node_table(scores: Scores, verified: Verified | None) -> Table[ScoredNode]:
    """Return the scores of all nodes, largest absolute score first."""
    names = [scores.graph.sources[i] for i in scores.order().tolist()]
    columns = {"node": names, "position": pa.nulls(len(names), pa.int32())}
    return Table.of_columns(ScoredNode, columns | _score_columns(scores, verified))


def _score_columns(scores: Scores, verified: Verified | None) -> dict[str, pa.Array]:
    """Return the columns `score, exact, low, high`."""
    order, interval = scores.order(), scores.interval()
    exact = {} if verified is None else dict(zip(verified.indices.tolist(), verified.exact.tolist(), strict=True))
    columns = {"score": scores.values[order].tolist(), "exact": [exact.get(i) for i in order.tolist()]}
    for i, name in enumerate(("low", "high")):
        columns[name] = [None] * len(order) if interval is None else interval[i][order].tolist()
    return {name: pa.array(values, pa.float64()) for name, values in columns.items()}
