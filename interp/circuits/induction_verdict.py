"""Rule by which a head is called an induction head, and the resulting circuit.

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
repeat (95 % interval above 0), by more than the loss before it, and by more than every random group of the same number
of heads. A sender is called a previous-token head when its previous-token score exceeds that of untrained heads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from interp.circuits.circuit import Circuit, Edge, HeadEvidence, KeyEvidence, Node, OutputEvidence
from interp.circuits.found_circuit import Verdict
from interp.circuits.head_weights import Composition, Copying
from interp.circuits.induction_circuit import HeadVerdict, PathLoss, Redundancy, SenderTest
from interp.circuits.induction_measure import DirectOutput, GroupRun
from interp.models.residual import Side
from interp.names import HeadName
from interp.nulls import ALPHA, holm
from interp.patching.ablation import Ablations
from interp.patching.patching_map import AblationEffect
from interp.statistics import p_above, t_interval

SMALLEST_SCORE = 0.1
RULE = " ".join((__doc__ or "").split("RULE. ")[1].split())


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


@dataclass(frozen=True)
class Measurements:
    """All measurements that a circuit is made from."""

    verdicts: HeadVerdicts
    tests: Mapping[HeadName, SenderTest]
    effects: Mapping[tuple[HeadName, Side], GroupRun]
    ablations: Sequence[Ablations]
    outputs: Mapping[HeadName, DirectOutput]
    compositions: Mapping[Side, Composition]
    copies: tuple[Copying | None, Copying | None]
    """with embeddings as they are, and passed through block 0"""

    def losses(self) -> dict[str, AblationEffect]:
        """Return the effect of ablating each group."""
        return {row.group: row for each in self.ablations for row in each.rows()}

    def copying(self, head: HeadName) -> dict[str, float | None]:
        """Return the copying scores of a head."""
        found: dict[str, float | None] = {}
        for key, copied in zip(("", "_through_block_0"), self.copies, strict=True):
            found[f"ov_copying{key}"] = None if copied is None else copied.eigenvalue.get(head)
            found[f"ov_top1{key}"] = None if copied is None else copied.top1.get(head)
        return found


def to_circuit(model_name: str, weight_hash: str, measured: Measurements, *, found: bool) -> Circuit:
    """Build the circuit from nodes and edges with their evidence; without nodes unless found."""
    verdicts, nodes, edges = measured.verdicts, [], []
    if found:
        for head, sender in sorted(verdicts.induction.items()):
            nodes.append(_node(head, "induction", measured))
            edges.append(_edge(sender, head, measured))
        for sender in sorted(proved_senders(verdicts) - set(verdicts.induction)):
            role = "previous_token" if verdicts.is_previous_token(sender) else None
            nodes.append(_node(sender, role, measured))
        edges += [_to_logits(head, measured) for head in sorted(verdicts.induction)]
    return Circuit.of(model_name, weight_hash, edges, nodes)


def circuit_verdict(measured: Measurements) -> tuple[Verdict, Redundancy | None]:
    """Apply the rule; the redundancy is None without induction heads."""
    verdicts = measured.verdicts
    if not verdicts.induction:
        return Verdict(found=False, rule=RULE, reason=_reason_not_found(verdicts, measured.tests)), None
    result = measured.ablations[0]
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
    redundancy = Redundancy(
        group=float(mean), sum_of_singles=float(np.sum(singles)), largest_single=float(np.max(singles))
    )
    return Verdict(found=found, rule=RULE, reason=reason), redundancy


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


def _node(head: HeadName, role: str | None, measured: Measurements) -> Node:
    verdicts, at = measured.verdicts, (head.layer, head.head)
    loss = measured.losses().get(str(head))
    names = ("loss_first_half", "loss_second_half", "low", "high")
    evidence = HeadEvidence(
        induction_score=float(verdicts.strict[at]),
        induction_score_tl=float(verdicts.tl[at]),
        previous_token_score=float(verdicts.previous_token[at]),
        p_holm=float(verdicts.p_holm[at]) if role == "induction" else None,
        **{name: None if loss is None else getattr(loss, name) for name in names},
        **measured.copying(head),
    )
    return Node(str(head), role, evidence=evidence)


def _edge(sender: HeadName, head: HeadName, measured: Measurements) -> Edge:
    test = measured.tests[head]
    mean, low, high = t_interval(test.k)
    losses: dict[str, float | None] = {}
    for side in ("k", "q", "v"):
        effect = measured.effects.get((sender, side))
        second = None if effect is None else effect.second
        losses[f"loss_second_half_{side}"] = None if second is None else float(second.mean())
    found, at = measured.compositions.get("k"), None
    if found is not None and sender in found.senders and head in found.readers:
        at = found.senders.index(sender), found.readers.index(head)
    evidence = KeyEvidence(
        effect=-float(mean),
        low=-float(high),
        high=-float(low),
        share_of_score=float(mean / test.clean.mean()),
        q_effect=-float(test.q.mean()),
        v_effect=-float(test.v.mean()),
        null_high=float(t_interval(test.strongest_control)[2]),
        **losses,
        composition=None if found is None or at is None else float(found.score[at]),
        composition_null_high=None if found is None or at is None else float(found.null_high[at]),
        composition_is_argmax=None if found is None or at is None else found.argmax().get(head) == sender,
    )
    return Edge(str(sender), str(head), "k", score=float(mean), evidence=evidence)


def _to_logits(head: HeadName, measured: Measurements) -> Edge:
    """Build the edge from an induction head to the logits: its direct effect by patching, and copying by its weights.

    It has no score, since scores of the other edges are changes of the induction score and this effect is in logits.
    """
    output = measured.outputs[head]
    mean, low, high = (float(each) for each in t_interval(output.change))
    control = None if output.control is None else float(output.control.mean())
    evidence = OutputEvidence(
        logit_effect=mean, low=low, high=high, logit_effect_of_other_head=control, **measured.copying(head)
    )
    return Edge(str(head), "logits", evidence=evidence)


def path_losses(effects: Mapping[tuple[HeadName, Side], GroupRun]) -> list[PathLoss]:
    """Return, per sender and side, the change of both losses under a patch into all candidates."""
    rows = []
    for (sender, side), effect in effects.items():
        if effect.first is None or effect.second is None:
            continue
        mean, low, high = (float(each) for each in t_interval(effect.second.double().numpy()))
        first = float(effect.first.mean())
        losses = {"loss_first_half": first, "loss_second_half": mean, "low": low, "high": high}
        rows.append(PathLoss(sender=str(sender), via=side, **losses))
    return rows


def head_rows(measured: Measurements, candidates: Sequence[HeadName], circuit: Circuit) -> list[HeadVerdict]:
    """Return the evidence of every head, by layer and head."""
    verdicts, losses, copies = measured.verdicts, measured.losses(), measured.copies[0]
    roles = {node.name: node.role for node in circuit.nodes}
    rows = []
    for at in np.ndindex(verdicts.strict.shape):
        head = HeadName(*at)
        test, loss = measured.tests.get(head), losses.get(str(head))
        falls = {f"{side}_effect": None if test is None else float(getattr(test, side).mean()) for side in "kqv"}
        rows.append(
            HeadVerdict(
                layer=head.layer,
                head=head.head,
                strict=float(verdicts.strict[at]),
                tl=float(verdicts.tl[at]),
                previous_token=float(verdicts.previous_token[at]),
                p_holm=float(verdicts.p_holm[at]),
                candidate=head in candidates,
                best_sender=None if test is None else str(test.sender),
                **falls,
                loss_first_half=None if loss is None else loss.loss_first_half,
                loss_second_half=None if loss is None else loss.loss_second_half,
                ov_eigenvalue=None if copies is None else copies.eigenvalue.get(head),
                ov_top1=None if copies is None else copies.top1.get(head),
                induction=head in verdicts.induction,
                verdict=roles.get(str(head)),
            )
        )
    return rows
