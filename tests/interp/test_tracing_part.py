"""The part of a graph that is shown, for all targets or for one, against its definition in loops."""

from dataclasses import replace

import numpy as np
import pytest
from make_graph import make_graph

from interp.tracing._influence import cumulative_share, influence, normalise_rows
from interp.tracing.graph import AttributionGraph
from interp.tracing.part import graph_effects, part_of

PARTS = [(20, 0.98), (5, 0.9), (1000, 1.0), (12, 0.5), (0, 0.0)]


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


def in_loops(graph: AttributionGraph, most: int, edges: float, target: int | None) -> tuple[set[int], set[int]]:
    kind, ends = [node.kind for node in graph.nodes], list(zip(graph.edges.source, graph.edges.target, strict=True))
    effect = graph_effects(graph, 0 if target is None else graph.nodes[target].index)
    edge_shares = graph.edges.share.round(5)
    if target is not None:
        matrix, weights = np.zeros((len(kind), len(kind))), np.zeros(len(kind))
        matrix[graph.edges.target, graph.edges.source] = graph.edges.weight
        weights[target] = 1
        shares = normalise_rows(matrix)
        total = influence(shares, weights)
        edge_shares = cumulative_share(np.array([shares[t, s] * (total + weights)[t] for s, t in ends]))
    between = [i for i, each in enumerate(kind) if each in ("feature", "error")]
    shown = {*sorted(between, key=lambda i: -abs(effect[i]))[:most]}
    shown |= {i for i, each in enumerate(kind) if each == "token" or (each == "logit" and target in (None, i))}
    return shown, {e for e in fewest(edge_shares, edges) if shown.issuperset(ends[e])}


def numbers(marks: np.ndarray) -> set[int]:
    return set(np.flatnonzero(marks).tolist())


@pytest.mark.parametrize(("most", "edges"), PARTS)
def test_it_is_the_definition_for_all_targets_and_for_each(graph, most, edges):
    for target in (None, *(i for i, node in enumerate(graph.nodes) if node.kind == "logit")):
        found = part_of(graph, most=most, edges=edges, target=target)
        assert (numbers(found.nodes), numbers(found.edges)) == in_loops(graph, most, edges, target)


def test_enough_nodes_and_all_edges_are_the_whole_graph(graph):
    found = part_of(graph, most=len(graph.nodes), edges=1)
    assert found.nodes.all()
    assert found.edges.all()


def test_a_pinned_node_is_added_and_a_hidden_one_makes_room_for_the_next(graph):
    without = part_of(graph, most=20, edges=0.98)
    effect = np.abs(graph_effects(graph))
    between = [i for i, node in enumerate(graph.nodes) if node.kind in ("feature", "error")]
    ranked = sorted(between, key=lambda i: -effect[i])
    pin, hide, following = ranked[40], ranked[3], ranked[20]
    found = part_of(graph, most=20, edges=0.98, pins={pin}, hidden={hide})
    assert numbers(found.nodes) == numbers(without.nodes) - {hide} | {pin, following}


def test_a_graph_without_effects_is_ranked_by_influence(graph):
    still = graph.with_parts(edges=replace(graph.edges, weight=np.zeros_like(graph.edges.weight)))
    found = part_of(still, most=10, edges=1)
    between = [i for i, node in enumerate(still.nodes) if node.kind in ("feature", "error")]
    assert {*between} & numbers(found.nodes) == {*sorted(between, key=lambda i: -still.nodes[i].influence)[:10]}
