"""Claims that a circuit suffices: "these edges keep the answer, whichever of the other edges are replaced".

`details`: `edges`, each as `L0H1 -k-> L1H0`; the prompts are `task.json`. The circuit is the only copying path of its
model, or the stronger of two disjoint ones, each of which answers alone (the metric is then a probability). The
strength scales the answer's logit; noisy heads add to the logits too. In the untrained and the shuffled control a path
outside the circuit answers, and the heads of the circuit have random or shuffled weights. The edges of every claim have
the form of a copying path. Near miss, one of:

- a head of the path is exchanged for another one of its layer, in all of its edges;
- the weaker of two disjoint paths: it is faithful until the stronger one is made to write another token;
- a path beside two others that write the same token with opposite signs and cancel when both are replaced.

The answer needs both numbers of *Circuit*: faithfulness above random circuits, and the worst case.
"""

from pathlib import Path

from benchmarks.referee.cases import Answer, Control, Details
from benchmarks.referee.planted_models import (
    N_PROMPTS,
    PlantedModel,
    parse_edge,
    read_task,
    write_copying_rows,
)
from interp.circuits.attack import attack_circuit
from interp.circuits.circuit import Circuit, Edge, edge_text
from interp.circuits.config import EvaluationConfig, FindConfig
from interp.circuits.find import evaluate
from interp.circuits.judging import pick
from interp.circuits.worst_case import AttackConfig
from interp.seeds import make_generator

WEAKER, CANCELLING = 0.6, 1.5
"""Weights of the other paths, beside 1 of the first."""
EVALUATION = EvaluationConfig(n_knockouts=0, n_minimality=0, batch_size=N_PROMPTS)
ATTACK = AttackConfig(exchanges=8, gradient_steps=1, n_random=3, fractions=(1.0,), batch_size=N_PROMPTS)


def write(folder: Path, control: Control, effect: float, seed: int) -> Details:
    """Write a model with one, two or three copying paths, and its prompts."""
    generator = make_generator(seed, "referee", "circuit")
    n_tokens, later = 18 + pick(6, generator), bool(pick(2, generator))
    spaces = ["prev_a", "two_a", "prev_b", "prev_c"]
    planted = PlantedModel(
        spaces, n_layers=2, n_heads=5 + pick(2, generator), n_tokens=n_tokens, d_head=n_tokens, generator=generator
    )
    kind = ("exchanged", "exchanged", "weaker", "cancelling")[pick(4, generator)] if control == "near miss" else ""
    random, two = control in ("untrained", "shuffled"), bool(pick(2, generator))
    disjoint = kind == "weaker" or (two and kind != "cancelling" and not random)
    strength = effect if control == "planted" else 1.0
    path = planted.path("a", later=later, weight=strength)
    if random:
        planted.path("b", later=False, weight=1.0)
        planted.spoil(path.heads, control)
    if disjoint:
        weaker = planted.path("b", later=False, weight=WEAKER * strength)
        path = weaker if kind == "weaker" else path
    if kind == "cancelling":
        planted.path("b", later=False, weight=CANCELLING)
        planted.path("c", later=False, weight=-CANCELLING)
    edges = [*path.needed, *path.positions]
    if kind == "exchanged":
        old = path.heads[pick(len(path.heads), generator)]
        renamed = {str(old): str(planted.take(old.layer))}
        edges = [
            Edge(renamed.get(edge.source, edge.source), renamed.get(edge.target, edge.target), edge.via)
            for edge in edges
        ]
    order = sorted(edges, key=edge_text)
    metric = "prob-diff" if two or disjoint or pick(2, generator) else "logit-diff"
    write_copying_rows(folder, 12 + pick(n_tokens - 12, generator), n_tokens, metric, generator)
    planted.write(folder)
    return {"edges": [edge_text(edge) for edge in order]}


def claimed_edges(details: Details) -> list[Edge]:
    """Return the edges of a claim."""
    return [parse_edge(edge) for edge in details["edges"]]


def answer(folder: Path, details: Details) -> Answer:
    """Evaluate the circuit in the mean and in the worst case."""
    model, task = read_task(folder)
    circuit = Circuit.of("", "", claimed_edges(details))
    choose, judge = task.split(task.n_prompts // 2)  # the first half chooses the attack
    mean = evaluate(model, judge, circuit, config=EVALUATION)
    assert mean.random_circuits is not None
    assert mean.untrained is not None
    null, share = mean.random_circuits.high, mean.faithfulness
    line = f"faithfulness {share.estimate:.2f} [{share.low:.2f}, {share.high:.2f}], random circuits {null:.2f}"
    enough = share.low > null and share.estimate >= FindConfig().faithfulness and mean.untrained.learned
    if not enough:
        return Answer(outcome="not supported", why=line)
    worst = attack_circuit(model, choose, judge, circuit, ATTACK)
    return Answer(
        outcome="supported" if worst.stands else "not supported" if worst.breaks else "undecided",
        why=f"{line}; worst case {worst.worst.left:.2f} ({worst.worst.ablation}, {worst.worst.what})",
    )
