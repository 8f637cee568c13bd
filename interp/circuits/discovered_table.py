"""The folder of a discovered circuit: the circuit, all scores, the curve, the prompts, the attention of its heads.

Columns and files are those of docs/formats.md (`circuits/<name>`).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.artifacts import Draft, Manifest, write_json, write_table
from interp.circuits.circuit import FILE, Circuit
from interp.circuits.evaluation import Curve
from interp.circuits.head_patterns import head_patterns, save_patterns
from interp.circuits.scores import Scores, Verified
from interp.circuits.task import Task
from interp.names import parse_head, parse_node

if TYPE_CHECKING:
    import pyarrow as pa

PROMPTS_SHOWN = 8


def save_discovered(
    folder: Path,
    *,
    model: Any,
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
    """Write a circuit folder; `circuit` carries its evaluation. `nodes` are scores with `level="node"`; where `scores`
    themselves are of nodes, edges have none and `edges.parquet` is left out.

    Raises `ConfigError` when the folder exists and `overwrite` is off.
    """
    config = config or {"model": circuit.model, "weight_hash": circuit.weight_hash, **circuit.settings}
    draft = Draft.open(folder, kind="circuit", config=config, seed=seed, overwrite=overwrite)
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
    """Edges (`source, target, via`) or nodes (`node`), strongest first, with `position, score, exact, low, high`."""
    import pyarrow as pa

    order = scores.order().tolist()
    interval = scores.interval()
    exact = {} if verified is None else dict(zip(verified.indices.tolist(), verified.exact.tolist(), strict=True))
    if scores.level == "edge":
        edges = [scores.graph.edge(i) for i in order]
        columns = {
            "source": pa.array([edge.source for edge in edges], pa.string()),
            "target": pa.array([edge.target for edge in edges], pa.string()),
            "via": pa.array([edge.via for edge in edges], pa.string()),
            "position": pa.array([edge.position for edge in edges], pa.int32()),
        }
    else:
        columns = {
            "node": pa.array([scores.graph.sources[i] for i in order], pa.string()),
            "position": pa.array([None] * len(order), pa.int32()),
        }
    columns["score"] = pa.array(scores.values[order].numpy(), pa.float64())
    columns["exact"] = pa.array([exact.get(i) for i in order], pa.float64())
    for name, values in zip(("low", "high"), interval or (None, None), strict=True):
        columns[name] = pa.array([None] * len(order) if values is None else values[order].numpy(), pa.float64())
    return pa.table(columns)


def curve_table(curve: Curve) -> "pa.Table":
    """`fraction, n_edges, faithfulness, random, random_low, random_high`."""
    import pyarrow as pa

    n_random = len(curve.random)
    null = curve.random if n_random else np.full((1, len(curve.fractions)), np.nan)
    low, high = np.quantile(null, [0.025, 0.975], axis=0)
    columns = {
        "fraction": pa.array(curve.fractions, pa.float64()),
        "n_edges": pa.array(curve.n_edges, pa.int64()),
        "faithfulness": pa.array(curve.faithfulness, pa.float64()),
    }
    for name, values in (("random", null.mean(0)), ("random_low", low), ("random_high", high)):
        columns[name] = pa.array(values, pa.float64(), from_pandas=True)
    return pa.table(columns)


def prompt_texts(model: Any, task: Task) -> list[dict[str, Any]]:
    """The first prompts as text, with their answers where they have some."""
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
    """What a person asks first: size, faithfulness, the null, the strongest heads."""
    evaluation = circuit.evaluation
    kept = ("faithfulness", "faithfulness_low", "faithfulness_high", "completeness", "random_circuits", "cpr", "cmd")
    heads = [node.name for node in circuit.nodes if parse_node(node.name).kind == "head"]
    return {
        "kind": "discovered",
        "task": circuit.settings.get("task"),
        "model": circuit.model,
        "n_nodes": len(circuit.nodes),
        "n_edges": len(circuit.edges),
        "n_heads": len(heads),
        **{name: evaluation[name] for name in kept if name in evaluation},
        "found": circuit.verdict.get("found"),
        "curve": curve is not None,
    }
