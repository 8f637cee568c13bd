"""Circuit discovery on a task: score, verify, select, evaluate.

    task, held_out = make_task("ioi", model, n_prompts=80).split(40)
    found = find_circuit(model, task, FindConfig(n_edges=200), held_out=held_out)
    found.circuit.evaluation["faithfulness"], found.circuit.verdict["found"]

1. Score every edge (or node) by `attribution`, and patch the highest-ranked ones one by one to check the scores.
2. Measure the curve of faithfulness over circuit size, with random circuits of each size as the null.
3. Select the `n_edges` highest-ranked edges, or the smallest circuit on the curve with the wanted faithfulness.
4. Evaluate it: faithfulness, completeness, minimality, random circuits of its size, an untrained model. With
   `held_out`, on prompts that were not used in steps 1 to 3.

`save_discovered` writes the circuit, all scores, the curve, the prompts and the attention of its heads; columns and
files are described in docs/formats.md (`edge-circuits/<name>`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.artifacts import Draft, Manifest, write_json, write_table
from interp.circuits.attribution import attribute, verify_top_k
from interp.circuits.circuit import FILE, Circuit
from interp.circuits.config import FindConfig
from interp.circuits.edge_runs import Bench
from interp.circuits.edge_scores import Scores, Verified
from interp.circuits.evaluation import Curve, evaluate
from interp.circuits.graph import Graph
from interp.circuits.head_kinds import head_patterns, save_patterns
from interp.circuits.judging import faithfulness, in_words, score_columns, verdict
from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.names import parse_head, parse_node
from interp.patching.task import Task
from interp.results import Record, Result
from interp.statistics import percentile_interval

if TYPE_CHECKING:
    import pyarrow as pa


RULE = (
    "the low end of the 95 % interval of its faithfulness lies above the 97.5 % quantile of random circuits with as "
    "many edges, and the gap of an untrained model is below a tenth of this model's"
)

HALVINGS = 5
"""bisection steps for the size between two points of the curve"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Found(Result):
    """A circuit with the scores and curves that led to it."""

    circuit: Circuit
    scores: Scores
    nodes: Scores | None
    """scores with `level="node"`"""
    curve: Curve
    verified: Verified | None

    def to_records(self) -> list[Record]:
        """Return one row per edge of the circuit, as `Circuit.to_records` does."""
        return self.circuit.to_records()

    def headline(self) -> str:
        """Return the circuit's headline, and the agreement of estimated edge effects with patching."""
        verified = f". {self.verified.headline()}" if self.verified else ""
        return self.circuit.headline().rstrip(".") + verified

    def shown(self) -> list[Record]:
        """Return the edges of the circuit, largest scores first."""
        return self.circuit.shown()


def find_circuit(
    model: HookedModel,
    task: Task,
    config: FindConfig | None = None,
    graph: Graph | None = None,
    *,
    held_out: Task | None = None,
    progress: Callable[[str], Any] | None = None,
) -> Found:
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
    assert ranking.curve is not None
    asked = config.n_edges or _smallest(model, task, scores, ranking.curve, config)
    circuit = _with_effects(scores.top(asked, by=config.by), nodes)
    judge = held_out or task
    judged = evaluate(model, judge, circuit, scores.graph, config.evaluation, progress=step("judging"))
    evaluation = {
        **ranking.to_json(),
        **judged.to_json(),
        "ranking_random_circuits": ranking.numbers.get("random_circuits"),
        "judged_on": "the prompts that found it" if held_out is None else "other prompts than those that found it",
        "n_prompts_found_on": task.n_prompts,
    }
    if verified is not None:
        evaluation["verified"] = verified.to_json()
    circuit = replace(circuit, evaluation=evaluation, verdict=_verdict(evaluation))
    return Found(circuit=circuit, scores=scores, nodes=nodes, curve=ranking.curve, verified=verified)


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
    columns = {"effect": nodes.values}
    interval = nodes.interval()
    if interval is not None:
        columns |= dict(zip(("low", "high"), interval, strict=True))
    number = {name: i for i, name in enumerate(nodes.graph.sources)}

    def evidence(name: str) -> dict[str, Any]:
        return {key: float(values[number[name]]) for key, values in columns.items()} if name in number else {}

    return replace(circuit, nodes=tuple(replace(n, evidence=n.evidence | evidence(n.name)) for n in circuit.nodes))


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


def _verdict(evaluation: dict[str, Any]) -> dict[str, Any]:
    null, untrained = evaluation.get("random_circuits"), evaluation.get("untrained")
    if not null or not untrained:
        return verdict(RULE, "nulls were not run", None, None)
    reason = (
        f"faithfulness {in_words(evaluation)} with {evaluation['n_edges']} of {evaluation['n_edges_of_graph']} edges, "
        f"random circuits {null['mean']:.2f} ({null['low']:.2f} to {null['high']:.2f}); gap of an untrained "
        f"model {untrained['gap']:.3g}, of this one {untrained['gap_of_model']:.3g}; judged on "
        f"{evaluation['n_prompts']} prompts: {evaluation['judged_on']}"
    )
    return verdict(RULE, reason, evaluation["faithfulness_low"] > null["high"], untrained)


PROMPTS_SHOWN = 8


def save_discovered(
    folder: Path,
    *,
    model: HookedModel,
    task: Task,
    circuit: Circuit,
    scores: Scores,
    nodes: Scores | None = None,
    curve: Curve | None = None,
    verified: Verified | None = None,
    config: dict[str, Any] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Manifest:
    """Write a circuit folder; the evaluation is part of `circuit`.

    `nodes` are scores with `level="node"`. Where `scores` are of nodes, edges have no scores and there is no
    `edges.parquet`. Raises `ConfigError` when the folder exists and `overwrite` is off.
    """
    config = config or {"model": circuit.model, "weight_hash": circuit.weight_hash, **circuit.settings}
    draft = Draft.open(folder, kind="edge_circuit", config=config, seed=seed, overwrite=overwrite)
    write_json(draft.path / FILE, circuit.to_json())
    write_table(draft.path / f"{scores.level}s.parquet", score_table(scores, verified))
    if nodes is not None and scores.level == "edge":
        write_table(draft.path / "nodes.parquet", score_table(nodes, None))
    if curve is not None:
        write_table(draft.path / "curve.parquet", curve_table(curve))
    write_json(draft.path / "prompts.json", prompt_texts(model, task))
    heads = [parse_head(node.name) for node in circuit.nodes if parse_node(node.name).kind == "head"]
    save_patterns(head_patterns(model, task.clean[:1, : int(task.lengths[0])], heads), draft.path)
    parents = {f"model:{circuit.model}": circuit.weight_hash}
    return draft.finish(summary=summarise(circuit, curve), parents=parents)


def score_table(scores: Scores, verified: Verified | None) -> "pa.Table":
    """Return the table of edges (`source, target, via`) or nodes (`node`), largest absolute score first.

    Further columns: `position, score, exact, low, high`.
    """
    order, interval = scores.order().tolist(), scores.interval()
    exact = {} if verified is None else dict(zip(verified.indices.tolist(), verified.exact.tolist(), strict=True))
    if scores.level == "edge":
        edges = [scores.graph.edge(i) for i in order]
        names = {part: [getattr(edge, part) for edge in edges] for part in ("source", "target", "via")}
        positions = [edge.position for edge in edges]
    else:
        names, positions = {"node": [scores.graph.sources[i] for i in order]}, None
    return score_columns(
        names,
        scores.values[order].numpy(),
        positions=positions,
        exact=[exact.get(i) for i in order],
        ends=None if interval is None else (interval[0][order].numpy(), interval[1][order].numpy()),
    )


def curve_table(curve: Curve) -> "pa.Table":
    """Return the table `fraction, n_edges, faithfulness, random, random_low, random_high`."""
    import pyarrow as pa

    n_random = len(curve.random)
    null = curve.random if n_random else np.full((1, len(curve.fractions)), np.nan)
    middle = percentile_interval(null.mean(0), null)
    columns = {
        "fraction": pa.array(curve.fractions, pa.float64()),
        "n_edges": pa.array(curve.n_edges, pa.int64()),
        "faithfulness": pa.array(curve.faithfulness, pa.float64()),
    }
    for name, values in zip(("random", "random_low", "random_high"), middle, strict=True):
        columns[name] = pa.array(values, pa.float64(), from_pandas=True)
    return pa.table(columns)


def prompt_texts(model: HookedModel, task: Task) -> list[dict[str, Any]]:
    """Return the first prompts as text, with their answers if any."""
    from interp.models.adapter import token_strings

    answers = task.metric.per_prompt()
    shown = []
    for i in range(min(PROMPTS_SHOWN, task.n_prompts)):
        length = int(task.lengths[i])
        entry: dict[str, Any] = {
            "tokens": token_strings(model, task.clean[i, :length]),
            "corrupt_tokens": token_strings(model, task.corrupt[i, :length]),
        }
        if answers:
            entry |= {name: token_strings(model, ids) for name, ids in answers[i].items()}
        shown.append(entry)
    return shown


def summarise(circuit: Circuit, curve: Curve | None) -> dict[str, Any]:
    """Return the summary of the manifest: size, faithfulness, the null, the heads with the largest scores."""
    evaluation = circuit.evaluation
    shown = ("faithfulness", "faithfulness_low", "faithfulness_high", "completeness", "random_circuits", "cpr", "cmd")
    heads = [node.name for node in circuit.nodes if parse_node(node.name).kind == "head"]
    return {
        "kind": "discovered",
        "task": circuit.settings.get("task"),
        "model": circuit.model,
        "n_nodes": len(circuit.nodes),
        "n_edges": len(circuit.edges),
        "n_heads": len(heads),
        **{name: evaluation[name] for name in shown if name in evaluation},
        "found": circuit.verdict.get("found"),
        "curve": curve is not None,
    }
