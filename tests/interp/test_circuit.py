"""Circuits as values: set operations, pruning, JSON, networkx, and the folder that a found one is kept in."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from interp.artifacts import verify
from interp.circuits.circuit import Circuit, Edge, Node, edge_text
from interp.circuits.evaluation import EvaluationConfig, evaluate
from interp.circuits.find import FindConfig, find_circuit, save_discovered
from interp.circuits.graph import Graph
from interp.circuits.tasks import induction_task
from interp.errors import ConfigError, CorruptError, MismatchError, MissingError, UnknownNameError
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
    assert Circuit.from_json(json.loads(json.dumps(one.to_json()))) == one


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
def found_folder(induction_toy, tmp_path_factory):
    task = induction_task(induction_toy, n_prompts=8)
    config = FindConfig(verify=5, evaluation=EvaluationConfig(n_random=4, n_minimality=3, n_knockouts=1))
    found = find_circuit(induction_toy, task, config)
    folder = tmp_path_factory.mktemp("circuits") / "found"
    save_discovered(
        folder,
        model=induction_toy,
        task=task,
        circuit=found.circuit,
        scores=found.scores,
        nodes=found.nodes,
        curve=found.curve,
        verified=found.verified,
    )
    return folder, found


def test_the_circuit_of_the_trained_toy_is_found(found_folder):
    _, found = found_folder
    evaluation = found.circuit.evaluation
    assert found.circuit.verdict["found"] is True, found.circuit.verdict["reason"]
    assert evaluation["faithfulness"] >= 0.8
    assert len(found.circuit.edges) < 60
    assert {"L1H0", "logits", "embed"} <= {node.name for node in found.circuit.nodes}
    assert evaluation["untrained"]["gap"] < 0.1 * evaluation["untrained"]["gap_of_model"]


def test_the_folder_holds_what_the_format_says(found_folder):
    folder, found = found_folder
    assert verify(folder) == []
    assert Circuit.load(folder) == found.circuit
    edges = pq.read_table(folder / "edges.parquet")
    assert edges.column_names == ["source", "target", "via", "position", "score", "exact", "low", "high"]
    assert edges.num_rows == 81
    scores = np.abs(edges["score"].to_numpy())
    assert (np.diff(scores) <= 1e-12).all()
    assert edges["exact"].null_count == 81 - 5
    nodes = pq.read_table(folder / "nodes.parquet")
    assert nodes.column_names == ["node", "position", "score", "exact", "low", "high"]
    curve = pq.read_table(folder / "curve.parquet").to_pydict()
    assert list(curve) == ["fraction", "n_edges", "faithfulness", "random", "random_low", "random_high"]
    assert curve["faithfulness"][-1] == pytest.approx(1)
    prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    assert set(prompts[0]) >= {"tokens", "corrupt_tokens"}
    heads = {n.name for n in found.circuit.nodes if "H" in n.name}
    patterns = load_file(folder / "patterns.safetensors")
    assert patterns.keys() == heads
    for pattern in patterns.values():
        assert pattern.sum(1).numpy() == pytest.approx(1, abs=1e-4)


def test_a_folder_is_not_overwritten_unasked(found_folder, induction_toy):
    folder, found = found_folder
    task = induction_task(induction_toy, n_prompts=8)
    with pytest.raises(ConfigError, match="already"):
        save_discovered(folder, model=induction_toy, task=task, circuit=found.circuit, scores=found.scores)


def test_a_circuit_is_judged_on_prompts_that_did_not_find_it(induction_toy):
    task, held_out = induction_task(induction_toy, n_prompts=14).split(8)
    quiet = EvaluationConfig(n_random=2, n_minimality=0, n_knockouts=0, untrained=False)
    config = FindConfig(n_edges=30, verify=0, node_scores=False, evaluation=quiet)
    fair = find_circuit(induction_toy, task, config, held_out=held_out).circuit
    own = find_circuit(induction_toy, task, config).circuit
    assert fair == own, "the circuit is found on the same prompts"
    assert (fair.evaluation["n_prompts"], own.evaluation["n_prompts"]) == (6, 8)
    assert fair.evaluation["n_prompts_found_on"] == 8
    expected = evaluate(induction_toy, held_out, own, config=quiet)["faithfulness"]
    assert fair.evaluation["faithfulness"] == pytest.approx(expected)
    assert fair.evaluation["faithfulness"] != pytest.approx(own.evaluation["faithfulness"], rel=1e-4)
    assert "other prompts" in fair.evaluation["judged_on"]
    with pytest.raises(ConfigError, match="6 held-out prompts are among"):
        find_circuit(induction_toy, task, config, held_out=task.take(range(6)))
    with pytest.raises(ConfigError, match="KL"):
        find_circuit(induction_toy, task, config, held_out=held_out.measured_by(induction_toy, KLToClean()))


def test_whole_parts_can_be_ranked_and_cut(induction_toy, tmp_path):
    task = induction_task(induction_toy, n_prompts=8)
    quiet = EvaluationConfig(n_random=2, n_minimality=0, n_knockouts=0)
    found = find_circuit(induction_toy, task, FindConfig(level="node", verify=4, evaluation=quiet))
    circuit = found.circuit
    assert circuit.verdict["found"] is True, circuit.verdict["reason"]
    assert {"embed", "L0H3"} <= {node.name for node in circuit.nodes}, "the previous-token head is among the best parts"
    assert found.nodes is found.scores
    for node in circuit.nodes:
        if node.name != "logits":
            assert node.evidence["low"] <= node.evidence["effect"] <= node.evidence["high"]
    folder = tmp_path / "nodes"
    save_discovered(
        folder, model=induction_toy, task=task, circuit=circuit, scores=found.scores, nodes=found.nodes,
        curve=found.curve, verified=found.verified,
    )  # fmt: skip
    assert not (folder / "edges.parquet").exists()
    nodes = pq.read_table(folder / "nodes.parquet")
    assert nodes["exact"].null_count == 9 - 4
    assert verify(folder) == []


def test_settings_of_a_search_are_checked():
    for wrong in ({"n_edges": 0}, {"verify": 1}, {"faithfulness": 0.0}):
        with pytest.raises(ConfigError):
            FindConfig(**wrong)
