"""Circuits as values: set operations, pruning, JSON, networkx, and the folder that a found one is kept in."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.artifacts import as_json, open_artefact, save_artefact
from interp.circuits.circuit import Circuit, Edge, Node, edge_text
from interp.circuits.config import EvaluationConfig, FindConfig
from interp.circuits.find import evaluate, find_circuit
from interp.circuits.found_circuit import EdgeCircuit
from interp.circuits.graph import Graph
from interp.circuits.tasks import induction_task
from interp.errors import ConfigError, CorruptError, MismatchError, MissingError, UnknownNameError
from interp.forms import from_json
from interp.patching.metrics import KLToClean

GRAPH = Graph(n_layers=2, n_heads=2, n_kv_heads=2, has_mlp=True)
EDGES = GRAPH.edges()
numbers = st.sets(st.integers(0, len(EDGES) - 1))


def circuit(chosen) -> Circuit:
    return Circuit.of("m", "w", [EDGES[i] for i in sorted(chosen)])


def keys(value: Circuit):
    return {edge.key for edge in value.edges}


@given(numbers, numbers)
@settings(max_examples=40, deadline=None)
def test_set_operations_are_those_of_the_edges(a, b):
    one, two = circuit(a), circuit(b)
    assert keys(one & two) == keys(one) & keys(two)
    assert keys(one | two) == keys(one) | keys(two)
    assert keys(one - two) == keys(one) - keys(two)
    named = one.diff(two)
    assert len(named["both"]) == len(a & b)
    assert set(named["only_here"]) == {edge_text(EDGES[i]) for i in a - b}


@given(numbers)
@settings(max_examples=40, deadline=None)
def test_json_and_back_is_the_same(chosen):
    one = circuit(chosen)
    assert from_json(Circuit, json.loads(json.dumps(as_json(one))), "circuit") == one


@given(numbers)
@settings(max_examples=40, deadline=None)
def test_pruned_edges_lie_on_paths_and_pruning_again_changes_nothing(chosen):
    import networkx as nx

    pruned = circuit(chosen).prune()
    graph = pruned.to_networkx()
    for edge in pruned.edges:
        assert nx.has_path(graph, "embed", edge.source)
        assert nx.has_path(graph, edge.target, "logits")
    assert pruned.prune() == pruned
    assert graph.number_of_edges() == len(pruned.edges)


def test_circuits_of_other_weights_do_not_mix():
    with pytest.raises(MismatchError):
        circuit({1}) & Circuit.of("m", "other", EDGES[:2])


def test_files_that_are_no_circuit_are_refused(tmp_path):
    with pytest.raises(MissingError):
        Circuit.load(tmp_path)
    bad = tmp_path / "circuit.json"
    for text in ("{", "[]", '{"nodes": []}', '{"nodes": [{"nme": "x"}], "edges": [], "model": "m", "weight_hash": ""}'):
        bad.write_text(text, encoding="utf-8")
        with pytest.raises(CorruptError):
            Circuit.load(tmp_path)
    with pytest.raises(UnknownNameError):
        Circuit.of("m", "w", [Edge("embed", "L0X1")])


def test_nodes_keep_their_order_and_evidence():
    one = Circuit.of("m", "w", [Edge("L1H0", "logits"), Edge("embed", "L1H0", "q")], [Node("L1H0", role="mover")])
    assert [node.name for node in one.nodes] == ["embed", "L1H0", "logits"]
    assert one.nodes[1].role == "mover"


@pytest.fixture(scope="module")
def found(induction_toy, tmp_path_factory) -> EdgeCircuit:
    task = induction_task(induction_toy, n_prompts=8)
    config = FindConfig(verify=5, evaluation=EvaluationConfig(n_random=4, n_minimality=3, n_knockouts=1))
    made = find_circuit(induction_toy, task, config)
    return save_artefact(made, tmp_path_factory.mktemp("circuits") / "found")


def test_the_circuit_of_the_trained_toy_is_found(found):
    evaluation = found.evaluation
    assert found.verdict.holds is True, found.verdict.reason
    assert evaluation.faithfulness.estimate >= 0.8
    assert len(found.circuit.edges) < 60
    assert {"L1H0", "logits", "embed"} <= {node.name for node in found.circuit.nodes}
    assert evaluation.untrained.gap < 0.1 * evaluation.untrained.gap_of_model


def test_a_circuit_is_read_back_as_it_was_found(found):
    again = open_artefact(EdgeCircuit, found.folder)
    assert Circuit.load(found.folder) == again.circuit == found.circuit
    edges = again.edge_scores.rows()
    assert len(edges) == 81
    sizes = [abs(row.score) for row in edges]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(row.exact is not None for row in edges) == 5
    assert all(row.low <= row.score <= row.high for row in edges)
    assert {row.node for row in again.node_scores.rows()} >= {"embed", "L1H0"}
    curve = again.curve.rows()
    assert curve[-1].faithfulness == pytest.approx(1)
    assert curve[0].random_low <= curve[0].random <= curve[0].random_high
    assert len(again.prompts[0].clean) == len(again.prompts[0].corrupt) > 1
    assert set(again.pattern_heads) == {n.name for n in found.circuit.nodes if "H" in n.name}
    np.testing.assert_allclose(again.patterns.sum(-1), 1, atol=1e-4)
    assert again.pattern("L9H9") is None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("edges", 0, "score"), "high", r"circuit\.json: edges\.0\.score"),
        (("edges", 0, "evidence"), {"effect": 1.0}, r"edges\.0\.evidence"),
        (("nodes", 0, "role"), 3, r"nodes\.0\.role"),
        (("nodes", 0, "name"), "L0X1", "L0X1"),
    ],
)
def test_a_damaged_circuit_is_refused_with_the_path_inside(found, tmp_path, path, value, message):
    folder = tmp_path / "damaged"
    shutil.copytree(found.folder, folder)
    raw = json.loads((folder / "circuit.json").read_text())
    part = raw
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    (folder / "circuit.json").write_text(json.dumps(raw))
    damaged = open_artefact(EdgeCircuit, folder)
    assert damaged.headline() == found.headline()
    with pytest.raises(CorruptError, match=message):
        _ = damaged.circuit


def test_a_circuit_is_judged_on_prompts_that_did_not_find_it(induction_toy):
    task, held_out = induction_task(induction_toy, n_prompts=14).split(8)
    quiet = EvaluationConfig(n_random=2, n_minimality=0, n_knockouts=0, untrained=False)
    config = FindConfig(n_edges=30, verify=0, evaluation=quiet)
    fair = find_circuit(induction_toy, task, config, held_out=held_out)
    own = find_circuit(induction_toy, task, config)
    assert fair.circuit == own.circuit, "the circuit is found on the same prompts"
    assert (fair.evaluation.settings.n_prompts, own.evaluation.settings.n_prompts) == (6, 8)
    assert (fair.settings.task.n_prompts, fair.settings.held_out.n_prompts) == (8, 6)
    expected = evaluate(induction_toy, held_out, own.circuit, config=quiet).faithfulness.estimate
    assert fair.evaluation.faithfulness.estimate == pytest.approx(expected)
    assert expected != pytest.approx(own.evaluation.faithfulness.estimate, rel=1e-4)
    with pytest.raises(ConfigError, match="6 held-out prompts are among"):
        find_circuit(induction_toy, task, config, held_out=task.take(range(6)))
    with pytest.raises(ConfigError, match="KL"):
        find_circuit(induction_toy, task, config, held_out=held_out.measured_by(induction_toy, KLToClean()))


def test_whole_parts_can_be_ranked_and_cut(induction_toy):
    task = induction_task(induction_toy, n_prompts=8)
    quiet = EvaluationConfig(n_random=2, n_minimality=0, n_knockouts=0)
    found = find_circuit(induction_toy, task, FindConfig(level="node", verify=4, evaluation=quiet))
    assert found.verdict.holds is True, found.verdict.reason
    names = {node.name for node in found.circuit.nodes}
    assert {"embed", "L0H3"} <= names, "the previous-token head is among the best parts"
    for node in found.circuit.nodes:
        if node.name != "logits":
            assert node.evidence.low <= node.effect <= node.evidence.high
    assert found.edge_scores is None
    assert sum(row.exact is not None for row in found.node_scores.rows()) == 4


def test_settings_of_a_search_are_checked():
    for wrong in ({"n_edges": 0}, {"verify": 1}, {"faithfulness": 0.0}):
        with pytest.raises(ConfigError):
            FindConfig(**wrong)
