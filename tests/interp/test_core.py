"""Core of a circuit: two disjoint circuits for one behaviour share nothing, and one circuit alone is its own core."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import interp.circuits.find_core as find_core_module
from interp.artifacts import save_artefact
from interp.circuits.core import Core, CoreConfig
from interp.circuits.find import EvaluationConfig, FindConfig, find_circuit
from interp.circuits.find_core import _chance, find_core
from interp.circuits.graph import Graph
from interp.circuits.tasks import make_task
from interp.errors import ConfigError, MismatchError
from interp.models.adapter import untrained_model
from interp.patching.metrics import metric_by_name
from interp.patching.task import Task
from interp.workspace import Workspace
from tests.interp.circuit_tasks import several_inductions

CONFIG = CoreConfig(circuits=4, methods=("eap-ig",), judging=6, prompts=4, exchanges=6, n_random=19)


class Planted:
    """A model with several induction heads; the log-probability is saturated, so that one of them does it all."""

    def __init__(self, heads: list[tuple[int, float]]):
        self.model = several_inductions(heads)
        self.task, self.held_out = self.prompts(0, 12).split(6)
        config = FindConfig(verify=0, evaluation=EvaluationConfig(n_random=1, untrained=False))
        self.circuit = find_circuit(self.model, self.task, config).circuit
        self.drawn: list[int] = []

    def prompts(self, seed: int, n: int = 4) -> Task:
        task = make_task("induction", self.model, n_prompts=n, seed=seed)
        return task.measured_by(self.model, metric_by_name("log-prob", task.metric))

    def draw(self, number: int) -> Task:
        self.drawn.append(number)
        return self.prompts(100 + number)

    def core(self, config: CoreConfig = CONFIG, **options) -> Core:
        return find_core(self.model, self.draw, self.task, self.held_out, self.circuit, config, **options)


@pytest.fixture(scope="module")
def planted() -> dict[str, Planted]:
    return {
        "disjoint": Planted([(0, 1.0), (1, 1.0)]),
        "one sender": Planted([(0, 1.0), (0, 1.0)]),
        "one circuit": Planted([(0, 1.0)]),
    }


@pytest.fixture(scope="module")
def cores(planted: dict[str, Planted]) -> dict[str, Core]:
    return {name: case.core(model_name="planted") for name, case in planted.items()}


def names(core: Core, where: str) -> set[str]:
    return {end for edge in core.edges.rows(where) for end in (edge.source, edge.target)} - {"embed", "logits"}


def test_two_disjoint_circuits_have_no_core(cores: dict[str, Core]) -> None:
    core = cores["disjoint"]
    assert core.core_edges == 0
    assert not core.holds
    assert core.n_good == len(core.circuits) > 5
    pair = core.pair
    assert pair is not None
    assert pair.shared == 0
    assert {frozenset(names(core, which)) for which in ("first", "second")} == {
        frozenset({"L0H0", "L1H0"}),
        frozenset({"L0H1", "L1H1"}),
    }
    assert any(circuit.origin.startswith("outside") for circuit in core.good)


def test_substitutes_are_named_with_what_misses_them(cores: dict[str, Core]) -> None:
    rows = cores["disjoint"].substitutes.rows()
    assert rows
    for row in rows:
        assert row.without < 0.5 < 0.8 <= min(row.before, row.after)
        assert {frozenset(row.out.split(", ")), frozenset(row.instead.split(", "))} == {
            frozenset({"L0H0", "L1H0"}),
            frozenset({"L0H1", "L1H1"}),
        }


def test_a_shared_sender_is_the_core(cores: dict[str, Core]) -> None:
    """Both induction heads read L0H0: they stand in for each other, it has no substitute."""
    core = cores["one sender"]
    assert names(core, f"n_circuits = {core.n_good}") == {"L0H0"}
    assert core.core_edges >= 1
    assert core.core_removed < 0.5
    exchanged = {name for row in core.substitutes.rows() for name in f"{row.out}, {row.instead}".split(", ")}
    assert {"L1H0", "L1H1"} <= exchanged


def test_one_circuit_is_its_own_core(planted: dict[str, Planted], cores: dict[str, Core]) -> None:
    core = cores["one circuit"]
    assert {edge.key for edge in core.edges.rows()} >= {edge.key for edge in planted["one circuit"].circuit.edges}
    assert core.core_edges == core.sizes[0] == core.sizes[1] == 4
    assert core.core_alone == pytest.approx(1, abs=0.01)
    assert core.core_removed == pytest.approx(0, abs=0.01)
    assert core.chance is not None
    assert core.core_edges > core.chance.most
    assert core.holds
    assert len(core.substitutes) == 0


def test_an_untrained_model_has_no_core(planted: dict[str, Planted]) -> None:
    case = planted["one circuit"]
    model = untrained_model(case.model, 0)
    with pytest.raises(ConfigError, match="no gap beyond chance"):
        find_core(model, case.draw, case.task.on(model), case.held_out.on(model), replace(case.circuit, weight_hash=""))


def test_an_interrupted_search_continues_to_the_same_core(planted: dict[str, Planted], tmp_path) -> None:
    case = planted["disjoint"]

    def stop(done: int, total: int, facts: dict) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        case.core(resume=lambda settings: tmp_path, progress=stop)
    case.drawn.clear()
    core = case.core(resume=lambda settings: tmp_path)
    assert case.drawn == [3, 4]
    assert core.edges.rows() == case.core().edges.rows()
    case.circuit, whole = replace(case.circuit, edges=case.circuit.edges[:1]), case.circuit
    with pytest.raises(MismatchError, match="another circuit"):
        case.core(resume=lambda settings: tmp_path)
    case.circuit = whole


def test_prompts_that_admit_circuits_do_not_state_their_numbers(planted: dict[str, Planted], monkeypatch) -> None:
    """Only what the first half admits is equally good; the other half says how faithful that is."""
    asked, case = [], planted["disjoint"]

    def admits(runs: Any, found: Any) -> bool:
        asked.append(runs.bench.task)
        return found.origin.startswith("eap-ig") and "seed 101" not in found.origin

    monkeypatch.setattr(find_core_module._Runs, "admits", admits)
    core = case.core(replace(CONFIG, exchanges=0))
    assert [circuit.number for circuit in core.good] == [2, 3, 4]
    admit, judge = case.held_out.split(3)
    assert all(torch.equal(task.clean, admit.clean) for task in asked)
    runs = find_core_module._Runs(case.model, Graph.from_model(case.model), judge, core.settings)
    assert core.core_removed == runs.faithful(~find_core_module._mask(runs.bench.graph, core_numbers(core, runs)))


def core_numbers(core: Core, runs: Any) -> tuple[int, ...]:
    graph, kept = runs.bench.graph, {key for key, share in core.shares.items() if share == 1}
    edges = (graph.edge(i) for i in range(graph.n_edges))
    return tuple(i for i, e in enumerate(edges) if (e.source, e.target, e.via, e.position) in kept)


def test_chance_wires_the_nodes_of_a_circuit_at_random() -> None:
    """As many edges into each input, from sources in proportion to the circuit's edges out of them."""
    graph = Graph(n_layers=2, n_heads=2, n_kv_heads=2, has_mlp=True)
    edges = [(edge.source, edge.target) for edge in map(graph.edge, range(graph.n_edges))]
    kept = [(source, "L1H0") for source in ("embed", "L0H0")] + [("embed", "logits")]
    whole, few = torch.ones(graph.n_edges, dtype=torch.bool), torch.tensor([edge in kept for edge in edges])
    settings: Any = SimpleNamespace(seed=0, n_random=400)
    assert _chance(graph, torch.stack([whole, whole]), graph.n_edges, settings).mean == graph.n_edges
    assert int(few.sum()) == 7  # three inputs of the head; the embedding writes 4 of them, L0H0 3
    assert _chance(graph, torch.stack([few, few]), 7, settings).mean == pytest.approx(6 + (16 + 9) / 49, abs=0.1)


def test_a_core_survives_saving(cores: dict[str, Core], workspace_folder) -> None:
    workspace = Workspace(workspace_folder)
    for name, core in cores.items():
        save_artefact(core, workspace.path("core", name.replace(" ", "-")))
    opened = workspace.open(Core, "one-circuit")
    assert opened.headline() == cores["one circuit"].headline()
    assert "4 edges are in all 5 circuits of 4 to 4 edges" in opened.headline()
    assert opened.share(next(iter(opened.shares))) == 1.0
    assert opened.share(("L9H9", "logits", None, None)) == 0.0
    assert "share 0 edges" in " ".join(workspace.open(Core, "disjoint").details())


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="circuits"):
        CoreConfig(circuits=1)
    with pytest.raises(ConfigError, match="thresholds"):
        CoreConfig(thresholds=(0.8, 1.5))
    with pytest.raises(ConfigError, match="within"):
        CoreConfig(thresholds=(0.1,))
    with pytest.raises(ConfigError, match="numbered from 0"):
        make_task("induction", several_inductions([(0, 1.0)]), template=0)
