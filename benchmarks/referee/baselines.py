"""Simpler methods that the field reports, as tools of the referee: what each says of a claim without a null.

Their thresholds are those that papers use, and were fixed before a case of seed 1 was answered; `docs/trust.md` says
the rule of each. A circuit that a method finds by itself is the answer to a claim on an edge (is it in there?) and on a
circuit (is there nothing else?).
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.referee import head
from benchmarks.referee.cases import Answer, Details
from benchmarks.referee.circuit import claimed_edges
from benchmarks.referee.direction import VECTOR
from benchmarks.referee.planted_models import parse_edge, read_task
from benchmarks.referee.small_models import read_texts, residuals
from interp.circuits.attribution import attribute
from interp.circuits.circuit import Circuit, edge_text
from interp.circuits.config import EvaluationConfig, Method
from interp.circuits.find import evaluate
from interp.directions.files import read_vector
from interp.models.hooked import HookedModel
from interp.models.loading import load_model
from interp.patching.task import Task
from interp.statistics import auroc
from saes.weights.folder import load_sae

FAITHFUL, TAU, ATTENTION, SEPARATES = 0.8, 0.1, 0.4, 0.9
N_TOP, ON_WORDS = 20, 0.8
GROWTH = 1.15
"""Ratio of the sizes of circuit that are tried: each up to 9 edges, then 15 % more."""
MEAN = EvaluationConfig(n_random=0, n_knockouts=0, n_minimality=0, untrained=False, batch_size=64)


def _at_least(bound: float, value: float) -> Answer:
    return Answer(outcome="supported" if value >= bound else "not supported", why=f"{value:.2f}, at least {bound}")


def _faithfulness(model: HookedModel, task: Task, circuit: Circuit) -> float:
    """Return the share of the gap that a circuit keeps; 0 of one without edges."""
    return evaluate(model, task, circuit, config=MEAN).faithfulness.estimate if circuit.edges else 0.0


def by_faithfulness(folder: Path, details: Details) -> Answer:
    """Answer a claim on a circuit by its mean faithfulness."""
    model, task = read_task(folder)
    return _at_least(FAITHFUL, _faithfulness(model, task, Circuit.of("", "", claimed_edges(details))))


def found_circuit(model: HookedModel, task: Task, method: Method) -> Circuit:
    """Return the circuit that a method finds: by its scores the fewest edges that keep enough, or what ACDC retains."""
    if method == "acdc":
        scores = attribute(model, task, method=method, taus=[TAU * task.gap], batch_size=task.n_prompts)
        return scores.circuit(scores.values > 0)
    scores = attribute(model, task, method=method, batch_size=task.n_prompts)
    sizes = sorted({min(math.ceil(GROWTH**step), len(scores)) for step in range(100)})
    ranked = map(scores.top, sizes)
    return next((c for c in ranked if _faithfulness(model, task, c) >= FAITHFUL), scores.top(len(scores)))


def by_own_circuit(method: Method, folder: Path, details: Details) -> Answer:
    """Answer a claim on an edge or a circuit by the circuit that a method finds."""
    edges = found_circuit(*read_task(folder), method).edges
    found = {edge.key for edge in edges}
    if "edge" in details:
        holds = parse_edge(details["edge"]).key in found
    else:
        holds = bool(found) and found <= {edge.key for edge in claimed_edges(details)}
    return Answer(outcome="supported" if holds else "not supported", why=", ".join(map(edge_text, edges)))


def by_attention(folder: Path, details: Details) -> Answer:
    """Answer a claim on a head by its score alone, which the workbench compares with a null."""
    return _at_least(ATTENTION, head.score_of(folder, details).score)


def by_activations(folder: Path, details: Details) -> Answer:
    """Answer a claim on a feature by its strongest examples, without steering or ablating."""
    sae, latent = load_sae(folder), details["latent"]
    x, tokens = residuals(load_model(str(folder)), details["hook_point"], read_texts(folder))
    top = sae.encode(x.flatten(0, 1))[:, latent].topk(N_TOP).indices
    words = torch.tensor(details["tokens"])
    return _at_least(ON_WORDS, float(torch.isin(tokens.flatten()[top], words).double().mean()))


def by_projection(folder: Path, details: Details) -> Answer:
    """Answer a claim on a direction by how well it separates the words, as a probe is judged, without steering."""
    vector, hook_point = read_vector(folder / VECTOR, details["hook_point"])
    x, tokens = residuals(load_model(str(folder)), hook_point, read_texts(folder))
    words = torch.tensor(details["tokens"])
    along = (x @ torch.from_numpy(vector).to(x)).flatten()
    return _at_least(SEPARATES, auroc(along.numpy(), torch.isin(tokens.flatten(), words).numpy()))


METHODS: dict[str, tuple[tuple[str, ...], Callable[[Path, Details], Answer]]] = {
    "faithfulness": (("circuit",), by_faithfulness),
    "eap": (("edge", "circuit"), partial(by_own_circuit, "eap")),
    "eap-ig": (("edge", "circuit"), partial(by_own_circuit, "eap-ig")),
    "acdc": (("edge", "circuit"), partial(by_own_circuit, "acdc")),
    "attention": (("head",), by_attention),
    "activations": (("feature",), by_activations),
    "projection": (("direction",), by_projection),
}
"""The kinds of claim that a method can read, and how it judges them."""
