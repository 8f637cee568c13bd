"""Artefact of an induction circuit: the circuit, and the evidence on every head (docs/formats.md)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.artifacts import Draft, Manifest, write_json, write_table
from interp.circuits.circuit import FILE
from interp.circuits.head_kinds import save_patterns
from interp.circuits.induction import InductionEvidence
from interp.names import HeadName
from interp.statistics import t_interval

if TYPE_CHECKING:
    import pyarrow as pa


def save_induction(
    evidence: InductionEvidence,
    folder: Path,
    *,
    model_name: str,
    weight_hash: str,
    seed: int | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Write an `induction-circuits/<name>` folder and return its manifest, whose summary contains the verdict."""
    config = {"model": model_name, "weight_hash": weight_hash, **evidence.circuit.settings}
    draft = Draft.open(folder, kind="induction_circuit", config=config, seed=seed, overwrite=overwrite)
    write_json(draft.path / FILE, evidence.circuit.to_json())
    write_table(draft.path / "heads.parquet", heads_table(evidence))
    write_table(draft.path / "ablations.parquet", ablations_table(evidence))
    if evidence.compositions:
        write_table(draft.path / "composition.parquet", composition_table(evidence))
    write_json(draft.path / "prompts.json", evidence.texts)
    save_patterns(evidence.patterns, draft.path)
    return draft.finish(summary=summarise(evidence), parents={f"model:{model_name}": weight_hash})


def summarise(evidence: InductionEvidence) -> dict[str, Any]:
    """Return the verdict, its heads, and the size of the circuit."""
    verdict, circuit = evidence.circuit.verdict, evidence.circuit
    return {
        "kind": "induction",
        "found": verdict["found"],
        "reason": verdict["reason"],
        "redundancy": verdict["redundancy"],
        "induction_heads": [node.name for node in circuit.nodes if node.role == "induction"],
        "previous_token_heads": [node.name for node in circuit.nodes if node.role == "previous_token"],
        "n_nodes": len(circuit.nodes),
        "n_edges": len(circuit.edges),
        "n_heads": int(evidence.verdicts.strict.size),
    }


def heads_table(evidence: InductionEvidence) -> "pa.Table":
    """Return one row per head; null where a head was not tested, ablated or scored for copying."""
    import pyarrow as pa

    verdicts, n_heads = evidence.verdicts, evidence.verdicts.strict.shape[1]
    losses = {record["group"]: record for each in evidence.ablations for record in each.to_records()}
    heads = [HeadName(*divmod(i, n_heads)) for i in range(verdicts.strict.size)]
    tests = [evidence.tests.get(head) for head in heads]
    copies = evidence.copying
    columns: dict[str, Any] = {
        "layer": pa.array([head.layer for head in heads], pa.int32()),
        "head": pa.array([head.head for head in heads], pa.int32()),
        "strict": _floats(verdicts.strict.ravel()),
        "tl": _floats(verdicts.tl.ravel()),
        "previous_token": _floats(verdicts.previous_token.ravel()),
    }
    for side in ("k", "q", "v"):
        columns[f"{side}_effect"] = _floats([None if t is None else getattr(t, side).mean() for t in tests])
    columns["best_sender"] = pa.array([None if t is None else str(t.sender) for t in tests], pa.string())
    for name in ("loss_first_half", "loss_second_half"):
        columns[name] = _floats([losses[str(h)][name] if str(h) in losses else None for h in heads])
    columns["ov_eigenvalue"] = _floats([None if copies is None else copies.eigenvalue.get(h) for h in heads])
    columns["ov_top1"] = _floats([None if copies is None else copies.top1.get(h) for h in heads])
    columns["p_holm"] = _floats(verdicts.p_holm.ravel())
    roles = {node.name: node.role for node in evidence.circuit.nodes}
    columns["verdict"] = pa.array([roles.get(str(head)) for head in heads], pa.string())
    return pa.table(columns)


def ablations_table(evidence: InductionEvidence) -> "pa.Table":
    """Return the table `group, kind, loss_first_half, loss_second_half, low, high, n_heads`."""
    import pyarrow as pa

    records = [record for each in evidence.ablations for record in each.to_records()]
    schema = pa.schema(
        [("group", pa.string()), ("kind", pa.string())]
        + [(name, pa.float64()) for name in ("loss_first_half", "loss_second_half", "low", "high")]
        + [("n_heads", pa.int32())]
    )
    return pa.Table.from_pylist(records, schema=schema)


def composition_table(evidence: InductionEvidence) -> "pa.Table":
    """Return the table `source, target, via, score, null_mean, null_high, is_argmax`."""
    import pyarrow as pa

    return pa.Table.from_pylist([record for each in evidence.compositions.values() for record in each.to_records()])


def describe_induction(evidence: InductionEvidence) -> list[str]:
    """Describe the result in a few lines for a terminal."""
    verdict = evidence.circuit.verdict
    lines = [("found: " if verdict["found"] else "not found: ") + verdict["reason"]]
    strongest = sorted(evidence.verdicts.induction.items(), key=lambda pair: -evidence.tests[pair[0]].k.mean())
    for head, sender in strongest[:8]:
        test = evidence.tests[head]
        mean, low, high = t_interval(test.k)
        lines.append(
            f"{sender} -k-> {head}: score {test.clean.mean():.2f} falls by {mean:.2f} [{low:.2f}, {high:.2f}] "
            f"(into queries {test.q.mean():+.2f}, control senders up to {test.strongest_control.mean():+.2f})"
        )
    if verdict["redundancy"]:
        r = verdict["redundancy"]
        lines.append(
            f"ablated together {r['group']:+.2f} nats after the repeat, singly {r['sum_of_singles']:+.2f} in sum: "
            f"{r['reading']}"
        )
    return lines


def _floats(values: Any) -> Any:
    import pyarrow as pa

    return pa.array(
        [None if value is None or not np.isfinite(value) else float(value) for value in values], pa.float64()
    )
