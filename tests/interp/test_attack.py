"""Worst case of a circuit: helpers and hurters that cancel by construction are told from a circuit that stands."""

from dataclasses import replace

import pytest
import torch

from interp.artifacts import Table, save_artefact
from interp.circuits._edge_runs import Bench, metric_and_gradient
from interp.circuits.attack import _Adversary, attack_circuit
from interp.circuits.circuit import Circuit
from interp.circuits.graph import Graph
from interp.circuits.tasks import make_task
from interp.circuits.worst_case import (
    CHOSEN,
    EVERYTHING,
    HELPERS,
    HURTERS,
    RANDOM_CIRCUITS,
    Attack,
    AttackConfig,
    WorstCase,
    _worst,
)
from interp.errors import ConfigError
from interp.patching.metrics import LogitDiff
from interp.patching.task import Task
from interp.workspace import Workspace
from tests.interp.architectures import tiny
from tests.interp.circuit_tasks import random_task, several_inductions

AMOUNT = 0.8
CONFIG = AttackConfig(prompts=8, exchanges=4, n_random=2, fractions=(0.1, 0.3, 1.0))


def balanced_induction():
    """Return an induction model with two more induction heads: L1H1 writes 0.8 of what L1H0 does, L1H2 removes it."""
    return several_inductions([(0, 1.0), (0, AMOUNT), (0, -AMOUNT)])


def circuit_of(model, heads: list[str]) -> Circuit:
    """Return all edges among the embedding, the previous-token head, some heads and the logits."""
    nodes = {"embed", "L0H0", *heads, "logits"}
    graph = Graph.from_model(model)
    edges = [graph.edge(i) for i in range(graph.n_edges)]
    return Circuit.of("balanced", "", [edge for edge in edges if {edge.source, edge.target} <= nodes])


@pytest.fixture(scope="module")
def attacked() -> dict[str, WorstCase]:
    model = balanced_induction()
    task, held_out = make_task("induction", model, n_prompts=16).split(8)
    named = {"one head": ["L1H0"], "all heads": ["L1H0", "L1H1", "L1H2"]}
    return {
        name: attack_circuit(model, task, held_out, circuit_of(model, heads), CONFIG, name=name)
        for name, heads in named.items()
    }


def test_a_balance_of_helpers_and_hurters_breaks(attacked: dict[str, WorstCase]) -> None:
    """All other edges replaced, the two other heads cancel; the helper alone carries 0.8 of the answer."""
    found = attacked["one head"]
    assert found.mean.left == pytest.approx(1, abs=0.01)
    assert found.of(HELPERS).left == pytest.approx(1 - AMOUNT, abs=0.02)
    assert found.worst.left == pytest.approx(1 - AMOUNT, abs=0.05)
    assert found.worst.left <= found.of(HELPERS).left, "one input alone may do more harm than all helpers"
    assert found.of(HURTERS).left == pytest.approx(1 + AMOUNT, abs=0.02)
    assert not found.stands
    assert "breaks: faithfulness 1.00" in found.headline()


def test_a_circuit_without_anything_outside_stands(attacked: dict[str, WorstCase]) -> None:
    found = attacked["all heads"]
    assert found.stands
    assert found.worst.left == pytest.approx(1, abs=0.01)
    assert found.of(RANDOM_CIRCUITS).left < 0.5


def test_the_exchange_finds_what_wrong_scores_hide() -> None:
    """Scores that call the helper's edges hurters leave the first choice empty-handed; measured exchanges do not."""
    model = balanced_induction()
    task = make_task("induction", model, n_prompts=8)
    adversary = _Adversary.of(model, task, Graph.from_model(model), "resample", CONFIG)
    circuit = adversary.bench.graph.members(circuit_of(model, ["L1H0"]))
    object.__setattr__(adversary.scores, "values", -adversary.scores.values)
    alone = adversary.left([adversary.helpers(circuit)])[0]
    assert alone > 1.5
    assert adversary.left([adversary.choose(circuit, AttackConfig(exchanges=8, gradient_steps=0))])[0] == pytest.approx(
        1 - AMOUNT, abs=0.05
    )


@pytest.mark.parametrize("name", ["llama-gqa", "neox", "gemma-2"])
def test_the_gradient_by_parts_is_that_of_runs_between_whole_edges(name: str) -> None:
    model = tiny(name)
    task, graph = random_task(model), Graph.from_model(model)
    bench = Bench(model, graph, task)
    batch = next(bench.batches())
    other, generator = bench.replacement(batch), torch.Generator().manual_seed(0)
    whole = torch.rand(graph.n_edges, generator=generator) < 0.5
    assert sorted(bench.others.tolist()) == [*range(task.n_prompts)] != bench.others.tolist()
    value, _ = metric_and_gradient(batch, graph, whole.double(), other)
    assert value == pytest.approx(float(bench.values([~whole]).sum()), abs=1e-4)
    parts, way = (torch.rand(graph.n_edges, generator=generator, dtype=torch.float64) for _ in range(2))
    gradient = metric_and_gradient(batch, graph, parts, other)[1].double()
    ahead, behind = (metric_and_gradient(batch, graph, parts + step * way, other)[0] for step in (1e-2, -1e-2))
    assert float(gradient @ way) == pytest.approx((ahead - behind) / 2e-2, rel=0.02)


def test_the_gradient_finds_what_wrong_scores_hide() -> None:
    model = balanced_induction()
    adversary = _Adversary.of(
        model, make_task("induction", model, n_prompts=8), Graph.from_model(model), "resample", CONFIG
    )
    circuit = adversary.bench.graph.members(circuit_of(model, ["L1H0"]))
    found = list(adversary.descend(circuit, torch.zeros_like(circuit), 4))
    assert not any(bool((each & circuit).any()) for each in found)
    assert adversary.left(found).min() == pytest.approx(1 - AMOUNT, abs=0.05)


def test_sizes_say_what_the_mean_and_the_worst_case_ask_for(attacked: dict[str, WorstCase]) -> None:
    found = attacked["one head"]
    assert found.smallest("worst") >= found.smallest("mean")
    assert all(row.worst <= row.mean for row in found.sizes.rows())


def test_the_search_adds_what_the_attack_takes_and_ends(workspace_folder) -> None:
    """With both other heads inside nothing is left to attack; the search finds that from the one head alone."""
    model = balanced_induction()
    task, held_out = make_task("induction", model, n_prompts=16).split(8)
    circuit = circuit_of(model, ["L1H0"])
    found = attack_circuit(model, task, held_out, circuit, replace(CONFIG, ablations=("resample",), grow=6))
    first, last = found.grown[0], found.grown[-1]
    assert first.worst == pytest.approx(1 - AMOUNT, abs=0.05)
    assert last.worst > CONFIG.faithfulness
    assert found.standing is not None
    assert {*circuit.edges} < {*found.standing.edges}
    assert {"L1H1", "L1H2"} & {node.name for node in found.standing.nodes}
    assert "edges until the attack fails" in dict(found.facts())
    save_artefact(found, Workspace(workspace_folder).path("worst_case", "grown"))
    opened = Workspace(workspace_folder).open(WorstCase, "grown")
    assert (opened.grown, opened.standing) == (found.grown, found.standing)
    one = attack_circuit(model, task, held_out, circuit, replace(CONFIG, ablations=("resample",), grow=1))
    assert one.standing is None
    assert "more than" in one.searched


def test_an_attack_survives_saving(attacked: dict[str, WorstCase], workspace_folder) -> None:
    workspace = Workspace(workspace_folder)
    for name, found in attacked.items():
        save_artefact(found, workspace.path("worst_case", name.replace(" ", "-")))
    opened = workspace.open(WorstCase, "all-heads")
    assert opened.headline() == attacked["all heads"].headline()
    assert opened.findings()[0].null < 0.5
    assert workspace.open(WorstCase, "one-head").findings() == []
    assert {row.what for row in opened.attacks.rows()} >= {EVERYTHING, CHOSEN}


def test_one_choice_of_ablation_breaks_a_circuit_that_the_mean_confirms() -> None:
    """L0H0 finds the token before by positions, which are the same on corrupted prompts: only zero takes them away."""
    model = several_inductions([(0, 1.0)])
    task, held_out = make_task("induction", model, n_prompts=16).split(8)
    graph = Graph.from_model(model)
    edges = [edge for edge in map(graph.edge, range(graph.n_edges)) if (edge.target, edge.via) not in POSITIONS]
    circuit = Circuit.of("planted", "", edges)
    few = {"n_random": 1, "exchanges": 2, "fractions": (0.1, 1.0)}
    found = {
        name: attack_circuit(model, task, held_out, circuit, AttackConfig(ablations=ablations, **few))
        for name, ablations in {"both": ("resample", "other"), "zero too": ("resample", "other", "zero")}.items()
    }
    assert found["both"].worst.left == pytest.approx(1, abs=0.01)
    assert found["both"].worst.lost == 0
    assert found["zero too"].mean.left == pytest.approx(1, abs=0.01)
    assert found["zero too"].breaks
    assert (found["zero too"].worst.ablation, found["zero too"].worst.lost) == ("zero", 1)


POSITIONS = {("L0H0", "q"), ("L0H0", "k")}


def test_an_attack_that_ends_early_never_stands(attacked: dict[str, WorstCase]) -> None:
    model = balanced_induction()
    task, held_out = make_task("induction", model, n_prompts=16).split(8)
    circuit = circuit_of(model, ["L1H0", "L1H1", "L1H2"])
    found = attack_circuit(model, task, held_out, circuit, replace(CONFIG, budget=3, ablations=("resample",)))
    assert not found.stands
    assert not found.breaks
    assert "is undecided after 3 tries" in found.headline()
    assert found.findings() == []
    assert attacked["all heads"].complete
    enough = attack_circuit(model, task, held_out, circuit, replace(CONFIG, exchanges=99, ablations=("resample",)))
    ample = replace(CONFIG, exchanges=99, budget=enough.tried, ablations=("resample",))
    assert attack_circuit(model, task, held_out, circuit, ample).complete, "the model has fewer nodes than exchanges"
    by_scores = attack_circuit(model, task, held_out, circuit, replace(CONFIG, gradient_steps=0))
    assert not by_scores.stands, "an adversary without its gradient"
    assert not by_scores.breaks


def test_an_attack_without_a_gap_is_refused() -> None:
    model = balanced_induction()
    task = make_task("induction", model, n_prompts=8)
    swapped = replace(task, clean=task.corrupt, corrupt=task.clean)
    with pytest.raises(ConfigError, match="nothing to keep"):
        attack_circuit(model, swapped, swapped, circuit_of(model, ["L1H0"]), CONFIG)
    for n in (0, 1):
        with pytest.raises(ConfigError, match=f"at least 2 prompts for its intervals, got {n}"):
            attack_circuit(model, task, task.take(range(n)), circuit_of(model, ["L1H0"]), CONFIG)


def test_strength_falls_as_helpers_are_replaced(attacked: dict[str, WorstCase]) -> None:
    rows = attacked["one head"].strength.rows("ablation = 'resample'", order="n_removed")
    assert rows[-1].left == pytest.approx(1 - AMOUNT, abs=0.02)
    assert rows[-1].left <= rows[0].left


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="prompts"):
        AttackConfig(prompts=1)
    with pytest.raises(ConfigError, match="fractions"):
        AttackConfig(fractions=(0.1, 2.0))


def test_the_worst_case_is_that_of_the_strongest_attack_and_says_what_it_covered(
    attacked: dict[str, WorstCase],
) -> None:
    whole = attacked["one head"]
    left = f"{whole.worst.left:.0%}"
    assert _worst(whole) == f"{left} in the worst case"
    assert _worst(replace(whole, complete=False, tried=3)) == f"{left} in the worst of 3 tries"
    below = [replace(row, left=-2.0, low=-3.0) if row.what == CHOSEN else row for row in whole.rows]
    assert _worst(replace(whole, attacks=Table.of(Attack, below))) == "below 0% in the worst case"
    stood = attacked["all heads"]
    wide = [replace(row, low=0.1) if row.what == HELPERS else row for row in stood.rows]
    assert stood.stands
    undecided = replace(stood, attacks=Table.of(Attack, wide))
    assert not undecided.stands, "every attack counts with its low end"
    assert not undecided.breaks
    assert "is undecided" in undecided.headline()


def repeats(model, tokens: range) -> Task:
    """Return blocks of some tokens that repeat; each token of the second block but the last is read."""
    ids = torch.tensor(tokens)
    block = len(tokens) // 2
    first, others = (torch.stack([ids[torch.randperm(len(ids))[:block]] for _ in range(16)]) for _ in range(2))
    at = torch.arange(block, 2 * block - 1).expand(16, -1)
    clean, corrupt = torch.cat([first, first], 1), torch.cat([others, first], 1)
    return Task.of(model, clean, corrupt, LogitDiff(correct=first[:, 1:, None]), at=at, name="repeats")


def test_a_paraphrase_breaks_a_circuit_that_the_tasks_own_prompts_confirm() -> None:
    """Two heads share the tokens: L1H0 copies the first half of them, L1H1 the second."""
    torch.manual_seed(0)
    model = several_inductions([(0, 1.0), (0, 1.0)])
    half = model.cfg.d_vocab // 2
    with torch.no_grad():
        model.blocks[1].attn.W_V[0, half : 2 * half] = 0
        model.blocks[1].attn.W_V[1, :half] = 0
    task, held_out = repeats(model, range(half)).split(8)
    other, circuit = repeats(model, range(half, 2 * half)), circuit_of(model, ["L1H0"])
    said: list[str] = []
    wordings = {"template 0": held_out, "template 1": other, "template 2": replace(other, corrupt=other.clean)}
    wordings |= {"template 3": other.take([0])}
    config = replace(CONFIG, ablations=("resample",))
    alone = attack_circuit(model, task, held_out, circuit, config)
    found = attack_circuit(model, task, held_out, circuit, config, wordings=wordings, say=said.append)
    assert alone.worst.left == pytest.approx(1, abs=0.02)
    assert found.mean.left == alone.mean.left == pytest.approx(1, abs=0.02)
    assert found.wordings == ["template 0", "template 1"]
    assert found.worst.wording == "template 1"
    assert found.worst.left == pytest.approx(0, abs=0.05)
    assert (alone.stands, found.stands, found.breaks) == (True, False, True)
    assert all(any(f"template {n} is left out" in line for line in said) for n in (2, 3))
    assert any("resample, template 1, all other edges" in line for line in found.details())
