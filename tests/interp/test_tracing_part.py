"""The part of a graph that is shown at other thresholds or for one target, against its definition in loops."""

from pathlib import Path

import numpy as np
import pytest
from make_graph import make_graph

from interp.tracing.graph import AttributionGraph
from interp.tracing.influence import cumulative_share, influence, normalise_rows
from interp.tracing.part import part_of

SHARES = [(0.8, 0.98), (0.5, 0.9), (1.0, 1.0), (0.3, 0.98), (0.9, 0.5), (0.0, 0.0)]


@pytest.fixture(scope="module", params=range(3))
def graph(request) -> AttributionGraph:
    return make_graph(n_features=80, n_edges=700, n_layers=6, seed=request.param)


def fewest(shares: np.ndarray, share: float) -> set[int]:
    """Take entries by importance until they hold the share."""
    found: set[int] = set()
    for i in np.argsort(shares, kind="stable") if share > 0 else ():
        if found and max(shares[j] for j in found) >= share - 1e-9 and shares[i] > max(shares[j] for j in found):
            break
        found.add(int(i))
    return found


def in_loops(graph: AttributionGraph, nodes: float, edges: float, target: int | None) -> tuple[set[int], set[int]]:
    kind, ends = [node.kind for node in graph.nodes], list(zip(graph.edges.source, graph.edges.target, strict=True))
    node_shares, edge_shares = np.array([round(node.share, 5) for node in graph.nodes]), graph.edges.share.round(5)
    if target is not None:
        matrix, weights = np.zeros((len(kind), len(kind))), np.zeros(len(kind))
        matrix[graph.edges.target, graph.edges.source] = graph.edges.weight
        weights[target] = 1
        shares = normalise_rows(matrix)
        total = influence(shares, weights)
        node_shares = cumulative_share(total)
        edge_shares = cumulative_share(np.array([shares[t, s] * (total + weights)[t] for s, t in ends]))
    shown = fewest(node_shares, nodes) | {i for i, each in enumerate(kind) if each == "token"}
    shown -= {i for i, each in enumerate(kind) if each == "logit"}
    shown |= {i for i, each in enumerate(kind) if each == "logit" and target in (None, i)}
    lines = {e for e in fewest(edge_shares, edges) if shown.issuperset(ends[e])}
    while True:
        read, fed = {ends[e][0] for e in lines}, {ends[e][1] for e in lines}
        lost = {i for i in shown if kind[i] in ("feature", "error") and i not in read}
        lost |= {i for i in shown if kind[i] == "feature" and i not in fed}
        if not lost:
            return shown, lines
        shown -= lost
        lines = {e for e in lines if shown.issuperset(ends[e])}


def numbers(marks: np.ndarray) -> set[int]:
    return set(np.flatnonzero(marks).tolist())


def test_at_the_thresholds_of_the_trace_it_is_the_pruned_graph(graph):
    nodes, edges = graph.thresholds
    found = part_of(graph, nodes=nodes, edges=edges)
    assert found.nodes.tolist() == [node.kept for node in graph.nodes]
    assert np.array_equal(found.edges, graph.edges.kept)


def test_all_of_the_influence_is_held_by_every_node_and_edge(graph):
    found = part_of(graph, nodes=1, edges=1)
    assert found.nodes.all()
    assert found.edges.all()


@pytest.mark.parametrize(("nodes", "edges"), SHARES[1:])
def test_at_other_thresholds_it_is_the_definition(graph, nodes, edges):
    found = part_of(graph, nodes=nodes, edges=edges)
    assert (numbers(found.nodes), numbers(found.edges)) == in_loops(graph, nodes, edges, None)


@pytest.mark.parametrize(("nodes", "edges"), SHARES)
def test_for_one_target_it_is_the_definition_with_the_influence_on_it(graph, nodes, edges):
    for target in (i for i, node in enumerate(graph.nodes) if node.kind == "logit"):
        found = part_of(graph, nodes=nodes, edges=edges, target=target)
        assert (numbers(found.nodes), numbers(found.edges)) == in_loops(graph, nodes, edges, target)


@pytest.mark.parametrize("share", [0.8, 0.5])
def test_a_pinned_node_comes_with_its_edges_and_a_hidden_one_goes(graph, share):
    without = part_of(graph, nodes=share, edges=0.98)
    pin = next(i for i, node in enumerate(graph.nodes) if node.kind == "feature" and not without.nodes[i])
    hide = next(i for i, node in enumerate(graph.nodes) if node.kind == "feature" and without.nodes[i])
    found = part_of(graph, nodes=share, edges=0.98, pins={pin}, hidden={hide})
    assert numbers(found.nodes) == numbers(without.nodes) - {hide} | {pin}
    ends = np.stack([graph.edges.source, graph.edges.target], 1)
    seen = found.nodes[ends].all(1)
    own = seen & (ends == pin).any(1) & (graph.edges.share <= 0.98)
    assert own.any()
    assert numbers(found.edges) >= numbers(own)
    assert numbers(found.edges & ~(ends == pin).any(1)) == numbers(without.edges & ~(ends == hide).any(1))


def test_the_shipped_graphs_are_cut_as_they_were_traced():
    from interp.artifacts import open_artefact

    folder = Path(__file__).parents[2] / "workbench" / "shipped" / "data" / "graphs"
    shipped = [open_artefact(AttributionGraph, each) for each in sorted(folder.iterdir())]
    assert len(shipped) == 4
    for graph in shipped:
        found = part_of(graph, nodes=graph.thresholds[0], edges=graph.thresholds[1])
        assert found.nodes.tolist() == [node.kept for node in graph.nodes]
        assert np.array_equal(found.edges, graph.edges.kept)
