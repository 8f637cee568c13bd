"""The folder of a feature circuit: the circuit, every scored edge and feature, the prompts. See docs/formats.md."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.artifacts import Draft, Manifest, write_json, write_table
from interp.circuits.circuit import FILE
from interp.circuits.discovered_table import prompt_texts
from interp.circuits.task import Task
from saes.feature_circuits.find import FoundFeatures

if TYPE_CHECKING:
    import pyarrow as pa

MAX_FEATURES = 5000
"""features of each place that `nodes.parquet` holds, strongest first"""


def save_feature_circuit(
    folder: Path,
    found: FoundFeatures,
    *,
    task: Task,
    parents: dict[str, str] | None = None,
    config: dict[str, Any] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Manifest:
    """Write a circuit folder; `parents` are the SAEs. Raises `ConfigError` when it exists and `overwrite` is off."""
    circuit = found.circuit
    config = config or {"model": circuit.model, "weight_hash": circuit.weight_hash, **circuit.settings}
    draft = Draft.open(folder, kind="circuit", config=config, seed=seed, overwrite=overwrite)
    write_json(draft.path / FILE, circuit.to_json())
    write_table(draft.path / "edges.parquet", edge_table(found))
    write_table(draft.path / "nodes.parquet", node_table(found))
    write_json(draft.path / "prompts.json", prompt_texts(found.network.model, task))
    model = {f"model:{circuit.model}": circuit.weight_hash}
    return draft.finish(summary=summarise(found), parents={**model, **(parents or {})})


def edge_table(found: FoundFeatures) -> "pa.Table":
    """Every scored edge, strongest first: the columns of any circuit's edges."""
    edges = sorted(found.scores, key=lambda edge: -abs(found.scores[edge]))
    names = [(found.network.name(source), found.network.name(target)) for source, target in edges]
    columns = {"source": [source for source, _ in names], "target": [target for _, target in names]}
    scores, exact = [found.scores[edge] for edge in edges], [found.exact.get(edge) for edge in edges]
    return _table(columns | {"via": [None] * len(edges)}, scores, exact)


def node_table(found: FoundFeatures) -> "pa.Table":
    """Every error and the strongest active features of each place, strongest first."""
    network = found.network
    nodes = network.strongest(MAX_FEATURES)
    nodes.sort(key=lambda node: -abs(network.effect(node)))
    return _table(
        {"node": [network.name(node) for node in nodes]}, [network.effect(n) for n in nodes], [None] * len(nodes)
    )


def summarise(found: FoundFeatures) -> dict[str, Any]:
    """What a person asks first."""
    circuit, evaluation = found.circuit, found.circuit.evaluation
    kept = ("faithfulness", "faithfulness_low", "faithfulness_high", "completeness", "random_circuits", "errors_alone")
    return {
        "kind": "features",
        "task": circuit.settings["task"],
        "model": circuit.model,
        "places": circuit.settings["places"],
        "n_nodes": len(circuit.nodes),
        "n_edges": len(circuit.edges),
        "n_features": sum(node.feature is not None for node in found.nodes),
        **{name: evaluation[name] for name in kept},
        "without_errors": evaluation["without_errors"]["faithfulness"],
        "edges": evaluation["edges"],
        "found": circuit.verdict["found"],
    }


def _table(names: dict[str, list[Any]], scores: list[float], exact: list[float | None]) -> "pa.Table":
    import pyarrow as pa

    nothing = pa.array([None] * len(scores), pa.float64())
    columns = {name: pa.array(values, pa.string()) for name, values in names.items()}
    columns["position"] = pa.array([None] * len(scores), pa.int32())
    columns |= {"score": pa.array(scores, pa.float64()), "exact": pa.array(exact, pa.float64())}
    return pa.table(columns | {"low": nothing, "high": nothing})
