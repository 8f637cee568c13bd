"""Rule by which a head is called an induction head, the resulting circuit, and its artefact (docs/formats.md).

RULE. A head is an induction head when all of these hold, each by a one-sided Student t test over prompts. Its p-value
is the largest of theirs, corrected by Holm over *all* heads of the model, and is below 0.05.

1. Its strict induction score exceeds its score for the same targets on prompts without repeats (all seeds), and is at
   least 0.1.
2. It depends on one earlier head, its sender, through its keys: patching this direct edge lowers the strict score by
   more than patching the same sender into its queries.
3. The drop exceeds that of patching the same sender into the values of all candidates.
4. The drop exceeds that of the most effective of several control senders into its keys. Controls are other heads of
   about the same depth, and the sender's own output under a random rotation.
   (2 to 4 are tested on prompts other than those that chose the sender; the drop is at least a quarter of the score.)

The circuit is found when there is such a head and ablating all of them together raises the loss after the start of the
repeat (95 % interval above 0), by more than the loss before it, and by more than every random group of as many heads.
A sender is called a previous-token head when its previous-token score exceeds that of untrained heads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.artifacts import Draft, Manifest, write_json, write_table
from interp.circuits.circuit import FILE, Circuit, Edge, Node
from interp.circuits.head_kinds import save_patterns
from interp.circuits.head_weights import Composition, Copying
from interp.circuits.induction_measure import DirectOutput, GroupEffect
from interp.models.residual import Side
from interp.names import HeadName
from interp.patching.ablation import Ablations
from interp.statistics import holm, p_above, t_interval

if TYPE_CHECKING:
    import pyarrow as pa

    from interp.circuits.induction import InductionEvidence

ALPHA, SMALLEST_SCORE, SMALLEST_SHARE = 0.05, 0.1, 0.25
RULE = " ".join((__doc__ or "").split("RULE. ")[1].split())


@dataclass(frozen=True)
class SenderTest:
    """Fall of the induction score when one sender is patched into query, key or value, per prompt, `[n]`."""

    sender: HeadName
    clean: np.ndarray
    """the score without a patch"""
    k: np.ndarray
    q: np.ndarray
    v: np.ndarray
    """patched into the values of all candidates, as a head's pattern does not depend on its own values"""
    controls: np.ndarray
    """`[n_controls, n]` control senders, patched into the keys"""

    @property
    def strongest_control(self) -> np.ndarray:
        return self.controls[int(self.controls.mean(-1).argmax())]

    @property
    def p(self) -> float:
        """Largest p-value of the three comparisons."""
        rivals = (self.q, self.v, self.strongest_control)
        if self.k.mean() < SMALLEST_SHARE * self.clean.mean():
            return 1.0
        return max(float(p_above(self.k - rival)) for rival in rivals)


@dataclass(frozen=True)
class HeadVerdicts:
    """Scores and p-values of every head, all `[n_layers, n_heads]`, and the induction heads."""

    strict: np.ndarray
    tl: np.ndarray
    previous_token: np.ndarray
    p_holm: np.ndarray
    previous_high: float
    """upper bound of untrained heads' previous-token scores, corrected for all heads"""
    induction: dict[HeadName, HeadName] = field(default_factory=dict)
    """sender of each induction head"""

    def is_previous_token(self, head: HeadName) -> bool:
        """Return whether a head's previous-token score exceeds that of untrained heads."""
        return bool(self.previous_token[head.layer, head.head] > self.previous_high)


def score_p_values(strict: np.ndarray, unrepeated: np.ndarray) -> np.ndarray:
    """Test that strict scores exceed those on prompts without repeats (paired); p-values `[n_layers, n_heads]`."""
    return p_above(strict - unrepeated)


def judge_heads(
    scores: np.ndarray, p_score: np.ndarray, tests: Mapping[HeadName, SenderTest], previous_high: float
) -> HeadVerdicts:
    """Apply the rule to every head; heads without a sender have p = 1."""
    p = np.ones_like(p_score)
    for head, test in tests.items():
        p[head.layer, head.head] = max(p_score[head.layer, head.head], test.p)
    strict, tl, previous = (scores[:, :, i].mean(-1) for i in range(3))
    adjusted = holm(p)
    proved = {
        head: test.sender
        for head, test in tests.items()
        if adjusted[head.layer, head.head] < ALPHA and strict[head.layer, head.head] >= SMALLEST_SCORE
    }
    return HeadVerdicts(strict, tl, previous, adjusted, previous_high, proved)


def proved_senders(verdicts: HeadVerdicts) -> set[HeadName]:
    """Return the senders of all induction heads."""
    return set(verdicts.induction.values())


def to_circuit(
    *, model_name: str, weight_hash: str, verdicts: HeadVerdicts, tests: Mapping[HeadName, SenderTest],
    effects: Mapping[tuple[HeadName, Side], GroupEffect], ablations: Sequence[Ablations],
    outputs: Mapping[HeadName, DirectOutput], compositions: Mapping[Side, Composition],
    copies: tuple[Copying | None, Copying | None], settings: dict[str, Any],
) -> Circuit:  # fmt: skip
    """Build the circuit from nodes and edges with their evidence, and the verdict; without nodes unless found."""
    losses = {record["group"]: record for each in ablations for record in each.to_records()}
    verdict = circuit_verdict(verdicts, tests, ablations)
    nodes, edges = [], []
    if verdict["found"]:
        for head, sender in sorted(verdicts.induction.items()):
            nodes.append(_node(head, "induction", verdicts, losses, copies))
            edges.append(_edge(sender, head, tests[head], effects, compositions))
        for sender in sorted(proved_senders(verdicts) - set(verdicts.induction)):
            role = "previous_token" if verdicts.is_previous_token(sender) else None
            nodes.append(_node(sender, role, verdicts, losses, copies))
        edges += [_to_logits(head, outputs.get(head), copies) for head in sorted(verdicts.induction)]
    evaluation = {"path_patching": _loss_table(effects), "ablation": list(losses.values())}
    return Circuit.of(model_name, weight_hash, edges, nodes, settings=settings, evaluation=evaluation, verdict=verdict)


def circuit_verdict(
    verdicts: HeadVerdicts, tests: Mapping[HeadName, SenderTest], ablations: Sequence[Ablations]
) -> dict[str, Any]:
    """Return `found`, `rule`, `reason` and `redundancy`."""
    if not verdicts.induction:
        reason = _reason_not_found(verdicts, tests)
        return {"found": False, "rule": RULE, "reason": reason, "redundancy": None}
    result = ablations[0]
    rows = list(result.groups)
    group = rows.index("induction heads")
    mean, low, _ = t_interval(result.second[group])
    first = float(result.first[group].mean())
    random = {name: float(result.second[i].mean()) for i, name in enumerate(rows) if name.startswith("random")}
    singles = [float(result.second[rows.index(str(head))].mean()) for head in verdicts.induction]
    excess = p_above(result.second[group] - result.first[group])
    found = bool(low > 0 and excess < ALPHA and all(float(mean) > value for value in random.values()))
    heads = ", ".join(map(str, sorted(verdicts.induction)))
    senders = ", ".join(map(str, sorted(proved_senders(verdicts))))
    reason = (
        f"induction heads: {heads}, which read {senders} through their keys; ablating all of them changes the loss "
        f"after the start of the repeat by {float(mean):+.2f} nats (before it by {first:+.2f}; random heads by at most "
        f"{max(random.values(), default=0.0):+.2f})"
    )
    redundancy = {
        "group": float(mean),
        "sum_of_singles": float(np.sum(singles)),
        "largest_single": float(np.max(singles)),
        "reading": "heads are redundant" if float(mean) > 1.5 * np.sum(singles) else "effects are additive",
    }
    return {"found": found, "rule": RULE, "reason": reason, "redundancy": redundancy}


def _reason_not_found(verdicts: HeadVerdicts, tests: Mapping[HeadName, SenderTest]) -> str:
    best = HeadName(*map(int, np.unravel_index(verdicts.strict.argmax(), verdicts.strict.shape)))
    score = f"the highest strict induction score is {verdicts.strict.max():.2f} ({best})"
    if verdicts.strict.max() < SMALLEST_SCORE:
        return f"no head attends by induction: {score}"
    if not tests:
        return f"{score}, and no head with a high enough score is after the first layer"
    return (
        f"{score}, and none of {len(tests)} candidates depends on a sender through its keys more than on the controls"
    )


def _node(
    head: HeadName, role: str | None, verdicts: HeadVerdicts, losses: Mapping[str, dict[str, Any]],
    copies: tuple[Copying | None, Copying | None],
) -> Node:  # fmt: skip
    at = head.layer, head.head
    evidence: dict[str, Any] = {
        "induction_score": float(verdicts.strict[at]),
        "induction_score_tl": float(verdicts.tl[at]),
        "previous_token_score": float(verdicts.previous_token[at]),
        "p_holm": float(verdicts.p_holm[at]) if role == "induction" else None,
    }
    if record := losses.get(str(head)):
        evidence |= {key: record[key] for key in ("loss_first_half", "loss_second_half", "low", "high")}
    for key, copied in zip(("ov_copying", "ov_copying_through_block_0"), copies, strict=True):
        if copied is not None and head in copied.eigenvalue:
            evidence[key] = copied.eigenvalue[head]
            evidence[key.replace("copying", "top1")] = copied.top1[head]
    return Node(str(head), role, evidence=evidence)


def _edge(
    sender: HeadName, head: HeadName, test: SenderTest, effects: Mapping[tuple[HeadName, Side], GroupEffect],
    compositions: Mapping[Side, Composition],
) -> Edge:  # fmt: skip
    mean, low, high = t_interval(test.k)
    evidence = {
        "effect": -float(mean),
        "low": -float(high),
        "high": -float(low),
        "share_of_score": float(mean / test.clean.mean()),
        "q_effect": -float(test.q.mean()),
        "v_effect": -float(test.v.mean()),
        "null_high": float(t_interval(test.strongest_control)[2]),
    }
    for side in ("k", "q", "v"):
        effect = effects.get((sender, side))
        if effect is not None and effect.second is not None:
            evidence[f"loss_second_half_{side}"] = float(effect.second.mean())
    found = compositions.get("k")
    if found is not None and sender in found.senders and head in found.readers:
        at = found.senders.index(sender), found.readers.index(head)
        evidence |= {"composition": float(found.score[at]), "composition_null_high": float(found.null_high[at])}
        evidence["composition_is_argmax"] = found.argmax().get(head) == sender
    return Edge(str(sender), str(head), "k", score=float(mean), evidence=evidence)


def _to_logits(head: HeadName, output: DirectOutput | None, copies: tuple[Copying | None, Copying | None]) -> Edge:
    """Build the edge from an induction head to the logits: its direct effect by patching, and copying by its weights.

    It has no score, since scores of the other edges are changes of the induction score and this effect is in logits.
    """
    evidence: dict[str, Any] = {} if output is None else dict(output.evidence())
    for key, copied in zip(("", "_through_block_0"), copies, strict=True):
        if copied is not None and head in copied.eigenvalue:
            evidence |= {f"ov_copying{key}": copied.eigenvalue[head], f"ov_top1{key}": copied.top1[head]}
    return Edge(str(head), "logits", evidence=evidence)


def _loss_table(effects: Mapping[tuple[HeadName, Side], GroupEffect]) -> list[dict[str, Any]]:
    """Return, per sender and side, the change of both losses under a patch into all candidates.

    The interval is that of the second loss.
    """
    rows = []
    for (sender, side), effect in effects.items():
        if effect.first is None or effect.second is None:
            continue
        mean, low, high = t_interval(effect.second.double().numpy())
        rows.append(
            {
                "sender": str(sender), "via": side, "loss_first_half": float(effect.first.mean()),
                "loss_second_half": float(mean), "low": float(low), "high": float(high),
            }
        )  # fmt: skip
    return rows


def save_induction(
    evidence: "InductionEvidence",
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


def summarise(evidence: "InductionEvidence") -> dict[str, Any]:
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


def heads_table(evidence: "InductionEvidence") -> "pa.Table":
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


def ablations_table(evidence: "InductionEvidence") -> "pa.Table":
    """Return the table `group, kind, loss_first_half, loss_second_half, low, high, n_heads`."""
    import pyarrow as pa

    records = [record for each in evidence.ablations for record in each.to_records()]
    schema = pa.schema(
        [("group", pa.string()), ("kind", pa.string())]
        + [(name, pa.float64()) for name in ("loss_first_half", "loss_second_half", "low", "high")]
        + [("n_heads", pa.int32())]
    )
    return pa.Table.from_pylist(records, schema=schema)


def composition_table(evidence: "InductionEvidence") -> "pa.Table":
    """Return the table `source, target, via, score, null_mean, null_high, is_argmax`."""
    import pyarrow as pa

    return pa.Table.from_pylist([record for each in evidence.compositions.values() for record in each.to_records()])


def describe_induction(evidence: "InductionEvidence") -> list[str]:
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
    return lines + evidence.held_fixed


def _floats(values: Any) -> Any:
    import pyarrow as pa

    return pa.array(
        [None if value is None or not np.isfinite(value) else float(value) for value in values], pa.float64()
    )
