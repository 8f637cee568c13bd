"""Simpler methods that the field reports, as tools of the referee: what each says of a claim without a null.

Their thresholds are those that papers use, and were fixed before a case of seed 1 was answered. A circuit that a method
finds by itself is the answer to a claim on an edge (is it in there?) and on a circuit (is there nothing else?).

| method       | kinds         | supported where                                                                       |
|--------------|---------------|---------------------------------------------------------------------------------------|
| faithfulness | circuit       | it keeps 0.8 of the task's gap with all other edges replaced                          |
| eap, eap-ig  | edge, circuit | its own circuit says so: the fewest highest-ranked edges that keep 0.8                |
| acdc         | edge, circuit | its own circuit says so: greedy removal at a tenth of the gap                         |
| attention    | head          | 0.4 of the attention falls on the targets of its kind, in our scores                  |
| activations  | feature       | 0.8 of the latent's 20 largest activations are on the words                           |
| projection   | direction     | the AUROC of the words against all others, along the direction, is 0.9                |
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from interp.circuits.attribution import attribute
from interp.circuits.circuit import Circuit, edge_text
from interp.circuits.config import EvaluationConfig, Method
from interp.circuits.find import evaluate
from interp.claims import Subject
from interp.directions.files import read_vector
from interp.errors import ConfigError
from interp.interventions.apply import check_latent
from interp.models.hooked import HookedModel
from interp.models.loading import load_model
from interp.models.small import load_small
from interp.patching.task import Task
from interp.statistics import auroc
from saes.weights.folder import load_sae
from workbench.referee import head
from workbench.referee._small_models import claimed_words, read_texts, residuals, tokens_of
from workbench.referee.cases import Answer, Baseline, RefereeCase, detail
from workbench.referee.circuit import claimed_edges
from workbench.referee.direction import VECTOR
from workbench.referee.planted_models import parse_edge, read_rows

FAITHFUL, TAU, ATTENTION, SEPARATES = 0.8, 0.1, 0.4, 0.9
N_TOP, ON_WORDS = 20, 0.8
GROWTH = 1.15
"""Ratio of the sizes of circuit that are tried: each up to 9 edges, then 15 % more."""
MEAN = EvaluationConfig(n_random=0, n_knockouts=0, n_minimality=0, untrained=False, batch_size=64)


@dataclass(frozen=True)
class BaselineMethod:
    """A method, and the kinds of claim that it can read."""

    kinds: tuple[Subject, ...]
    answer: Callable[[Path, RefereeCase], Answer]


def _at_least(bound: float, value: float, why: str = "") -> Answer:
    return Answer(outcome="supported" if value >= bound else "not supported", value=value, null=bound, why=why)


def _faithfulness(model: HookedModel, task: Task, circuit: Circuit) -> float:
    """Return the share of the gap that a circuit keeps; 0 of one without edges."""
    return evaluate(model, task, circuit, config=MEAN).faithfulness.estimate if circuit.edges else 0.0


def by_faithfulness(folder: Path, case: RefereeCase) -> Answer:
    """Answer a claim on a circuit by its mean faithfulness."""
    model = load_small(folder)
    task = read_rows(folder).task(model)
    return _at_least(FAITHFUL, _faithfulness(model, task, Circuit.of("", "", claimed_edges(case))))


def found_circuit(model: HookedModel, task: Task, method: Method) -> Circuit:
    """Return the circuit that a method finds: by its scores the fewest edges that keep enough, or what ACDC retains."""
    if method == "acdc":
        scores = attribute(model, task, method=method, taus=[TAU * task.gap], batch_size=task.n_prompts)
        return scores.circuit(scores.values > 0)
    scores = attribute(model, task, method=method, batch_size=task.n_prompts)
    sizes = sorted({min(math.ceil(GROWTH**step), len(scores)) for step in range(100)})
    ranked = map(scores.top, sizes)
    return next((c for c in ranked if _faithfulness(model, task, c) >= FAITHFUL), scores.top(len(scores)))


def by_own_circuit(method: Method, folder: Path, case: RefereeCase) -> Answer:
    """Answer a claim on an edge or a circuit by the circuit that a method finds."""
    model = load_small(folder)
    edges = found_circuit(model, read_rows(folder).task(model), method).edges
    found, why = {edge.key for edge in edges}, ", ".join(map(edge_text, edges))[:400]
    if case.kind == "edge":
        holds = parse_edge(detail(case, "edge", str)).key in found
    else:
        holds = bool(found) and found <= {edge.key for edge in claimed_edges(case)}
    return _at_least(1, float(holds), why)


def by_attention(folder: Path, case: RefereeCase) -> Answer:
    """Answer a claim on a head by its score alone, which the workbench compares with a null."""
    return _at_least(ATTENTION, head.answer(folder, case).value)


def by_activations(folder: Path, case: RefereeCase) -> Answer:
    """Answer a claim on a feature by its strongest examples, without steering or ablating."""
    sae, latent = load_sae(folder), detail(case, "latent", int)
    check_latent(sae, latent)
    x, tokens = residuals(load_model(str(folder)), detail(case, "hook_point", str), read_texts(folder))
    top = sae.encode(x.flatten(0, 1))[:, latent].topk(min(N_TOP, tokens.numel())).indices
    words = torch.tensor(tokens_of(claimed_words(case)))
    return _at_least(ON_WORDS, float(torch.isin(tokens.flatten()[top], words).double().mean()))


def by_projection(folder: Path, case: RefereeCase) -> Answer:
    """Answer a claim on a direction by how well it separates the words, as a probe is judged, without steering."""
    vector, hook_point = read_vector(folder / VECTOR, detail(case, "hook_point", str))
    x, tokens = residuals(load_model(str(folder)), hook_point, read_texts(folder))
    words = torch.tensor(tokens_of(claimed_words(case)))
    along = (x @ torch.from_numpy(vector).to(x)).flatten()
    return _at_least(SEPARATES, auroc(along.numpy(), torch.isin(tokens.flatten(), words).numpy()))


METHODS: dict[Baseline, BaselineMethod] = {
    "faithfulness": BaselineMethod(("circuit",), by_faithfulness),
    "eap": BaselineMethod(("edge", "circuit"), partial(by_own_circuit, "eap")),
    "eap-ig": BaselineMethod(("edge", "circuit"), partial(by_own_circuit, "eap-ig")),
    "acdc": BaselineMethod(("edge", "circuit"), partial(by_own_circuit, "acdc")),
    "attention": BaselineMethod(("head",), by_attention),
    "activations": BaselineMethod(("feature",), by_activations),
    "projection": BaselineMethod(("direction",), by_projection),
}


def read_by(method: Baseline, kinds: list[str]) -> list[str]:
    """Return those of some kinds that a method can read. Raises `ConfigError` where it reads none."""
    if not (readable := [kind for kind in kinds if kind in METHODS[method].kinds]):
        raise ConfigError(f"{method} reads claims of the kind {' and '.join(METHODS[method].kinds)} alone")
    return readable
