"""The graph: which edges exist, how they are numbered, and what pruning takes away."""

import networkx as nx
import pytest
import torch

from interp.circuits._edge_scores import prune_edges
from interp.circuits.circuit import Circuit, Edge
from interp.circuits.find import random_circuit
from interp.circuits.graph import Graph
from interp.errors import ConfigError, UnknownNameError
from tests.interp.architectures import tiny


@pytest.fixture(scope="module")
def attention_only():
    return Graph(n_layers=2, n_heads=4, n_kv_heads=4, has_mlp=False)


def test_two_attention_layers_of_four_heads_have_81_edges(attention_only):
    assert attention_only.n_edges == 81
    assert attention_only.edge(0) == Edge("embed", "L0H0", "q")


def test_every_edge_is_found_by_its_own_number(attention_only):
    assert [attention_only.index(edge) for edge in attention_only.edges()] == list(range(81))


def test_unsplit_readers_join_q_k_and_v():
    graph = Graph(n_layers=2, n_heads=4, n_kv_heads=4, has_mlp=False, split_qkv=False)
    assert graph.n_edges == 4 + 20 + 9
    by_slot = torch.ones(1, graph.n_slots, graph.n_sources)
    values = graph.edge_values(by_slot)
    assert values[graph.index(Edge("embed", "L1H2"))] == 3
    assert values[graph.index(Edge("embed", "logits"))] == 1


def test_keys_and_values_of_a_group_are_one_reader():
    graph = Graph.from_model(tiny("llama-gqa"))
    assert graph.index(Edge("embed", "L1H3", "k")) == graph.index(Edge("embed", "L1H2", "k"))
    assert graph.index(Edge("embed", "L1H3", "q")) != graph.index(Edge("embed", "L1H2", "q"))
    with pytest.raises(ConfigError, match="share"):
        Graph.from_model(tiny("llama-gqa"), split_qkv=False)


def test_a_parallel_mlp_does_not_see_the_heads_of_its_layer():
    graph = Graph.from_model(tiny("neox"))
    with pytest.raises(UnknownNameError):
        graph.index(Edge("L1H0", "L1MLP"))
    Graph.from_model(tiny("native-ln")).index(Edge("L1H0", "L1MLP"))


def test_an_edge_that_does_not_exist_names_the_nearest(attention_only):
    with pytest.raises(UnknownNameError, match="L1H2"):
        attention_only.index(Edge("L1H0", "L1H2", "k"))
    with pytest.raises(UnknownNameError):
        attention_only.index(Edge("embed", "L9H0", "q"))


def test_positions_give_every_edge_a_place():
    graph = Graph.from_model(tiny("native-raw"), positions=[4, 1])
    assert graph.positions == (1, 4)
    assert graph.n_edges == 2 * Graph.from_model(tiny("native-raw")).n_edges
    assert graph.edge(0).position == 1
    with pytest.raises(ConfigError):
        Graph.from_model(tiny("native-raw"), positions=[-1])


def plain_prune(graph, kept):
    """What networkx says: edges on a path from embed to logits, heads joined to their shared inputs."""
    net = nx.DiGraph()
    group = graph.n_heads // graph.n_kv_heads
    edges = [graph.edge(i) for i in kept.nonzero()[:, 0].tolist()]
    for i, edge in enumerate(edges):
        net.add_edge(edge.source, ("edge", i))
        targets = [edge.target]
        if edge.via in ("k", "v"):
            layer, head = edge.target[1:].split("H")
            targets = [f"L{layer}H{int(head) + more}" for more in range(group)]
        for target in targets:
            net.add_edge(("edge", i), target)
    if "embed" not in net or "logits" not in net:
        return set()
    alive = nx.descendants(net, "embed") & nx.ancestors(net, "logits")
    return {edges[node[1]].key for node in alive if isinstance(node, tuple)}


@pytest.mark.parametrize("name", ["native-ln", "llama-gqa", "neox"])
def test_pruning_keeps_exactly_the_edges_on_paths(name):
    graph = Graph.from_model(tiny(name))
    for seed in range(20):
        kept = torch.rand(graph.n_edges, generator=torch.Generator().manual_seed(seed)) < 0.08
        found = {graph.edge(i).key for i in prune_edges(graph, kept).nonzero()[:, 0].tolist()}
        assert found == plain_prune(graph, kept)


def test_pruning_with_positions_respects_the_order_of_tokens():
    graph = Graph.from_model(tiny("native-raw"), positions=range(4))

    def kept(position):
        return graph.members([Edge("embed", "L0H0", "v", position), Edge("L0H0", "logits", None, 2)])

    assert prune_edges(graph, kept(1), 4).sum() == 2, "a value at position 1 reaches position 2"
    assert prune_edges(graph, kept(3), 4).sum() == 0, "a value at position 3 cannot reach position 2"


def test_random_circuits_have_the_size_asked_and_mostly_connect():
    graph = Graph.from_model(tiny("llama-gqa"))
    generator = torch.Generator().manual_seed(0)
    for n in (5, 20, graph.n_edges - 1):
        circuit = random_circuit(graph, n, generator)
        assert circuit.sum() == n
    assert prune_edges(graph, random_circuit(graph, 20, generator)).sum() >= 10
    even = torch.zeros(graph.n_edges, dtype=torch.bool)
    even[torch.randperm(graph.n_edges, generator=generator)[:20]] = True
    assert prune_edges(graph, even).sum() < 10


def test_members_of_a_circuit_are_its_edges(attention_only):
    edges = [attention_only.edge(i) for i in (3, 40, 80)]
    circuit = Circuit.of("m", "h", edges)
    assert attention_only.members(circuit).nonzero()[:, 0].tolist() == [3, 40, 80]
