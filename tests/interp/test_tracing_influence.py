"""Influence, pruning and scores of attribution graphs, against arithmetic on paper and sums over paths."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from interp.errors import ConfigError
from interp.tracing._influence import (
    Walks,
    cumulative_share,
    influence,
    normalise_rows,
    prune,
    score,
    threshold,
)
from interp.tracing.graph import NODE_KINDS

# Twelve nodes, every edge 10, node 11 the only target: small enough for paper.
PAPER = {11: (1, 3, 6, 8), 3: (0, 1, 6), 1: (9, 10), 0: (9,)}
INFLUENCE = np.array([1 / 12, 1 / 3, 0, 1 / 4, 0, 0, 1 / 3, 0, 1 / 4, 1 / 4, 1 / 6, 0])


def paper() -> tuple[np.ndarray, np.ndarray]:
    matrix, weights = np.zeros((12, 12)), np.zeros(12)
    for target, sources in PAPER.items():
        matrix[target, list(sources)] = 10
    weights[11] = 1
    return matrix, weights


def test_the_influence_of_twelve_nodes_is_that_on_paper():
    matrix, weights = paper()
    assert np.allclose(influence(normalise_rows(matrix), weights), INFLUENCE)
    # Signs do not matter, nor does the scale of a row.
    signs = np.random.default_rng(0).choice([-1.0, 1.0], matrix.shape) * np.arange(1, 13)[:, None]
    assert np.allclose(influence(normalise_rows(matrix * signs), weights), INFLUENCE)


def test_a_random_matrix_has_the_numbers_of_circuit_tracer():
    """Frozen by `make oracles`: 64 nodes, thresholds .95 and .8. Masks are equal, numbers to single precision."""
    folder = Path(__file__).parent.parent / "fixtures" / "circuit_tracer_graph"
    peer = load_file(folder / "arithmetic.safetensors")
    sizes = peer["sizes"] - [0, 0, 0, peer["sizes"][:3].sum()]
    matrix, weights, kinds = peer["adjacency"], peer["weights"], np.repeat(NODE_KINDS, sizes)
    assert np.allclose(influence(normalise_rows(matrix), weights), peer["influence"], atol=1e-6)
    node_share, edge_share = peer["thresholds"].tolist()
    found = prune(matrix, weights, kinds, node_share=node_share, edge_share=edge_share)
    assert (found.nodes == peer["nodes"]).all()
    assert (found.edges == peer["edges"]).all()
    assert found.nodes.sum() < len(matrix)
    assert score(matrix, weights, kinds) == pytest.approx(peer["scores"], abs=1e-6)


def test_rows_are_normalised_by_their_absolute_sum_and_a_row_of_zeros_stays():
    got = normalise_rows(np.array([[1.0, -3.0], [0.0, 0.0]]))
    assert np.allclose(got, [[0.25, 0.75], [0, 0]])


def test_pruning_twelve_nodes_drops_what_paper_drops():
    """At .8 the node 0 is dropped (1/12, the least); then the edges of the pruned graph have the scores on paper."""
    matrix, weights = paper()
    kinds = np.array(["feature"] * 8 + ["error", "token", "token", "logit"])
    found = prune(matrix, weights, kinds, node_share=0.8, edge_share=1)
    # Sorted: 1/3 1/3 1/4 1/4 1/4 1/6 1/12 of a sum of 20/12: five hold 17/20, and node 10 stays as a token. Node 6, a
    # latent without inputs, goes at the end.
    assert np.flatnonzero(found.nodes).tolist() == [1, 3, 8, 9, 10, 11]
    expected = np.zeros((12, 12))
    expected[11, [1, 3, 6, 8]] = 1 / 4
    expected[3, [1, 6]] = 1 / 8
    expected[1, [9, 10]] = 3 / 16
    assert np.allclose(found.edge_score, expected)
    expected[:, 6] = 0
    assert (found.edges == (expected > 0)).all()
    assert np.allclose(found.node_share[[0, 9, 10]], [1, 17 / 20, 19 / 20])


def test_latents_without_inputs_are_dropped_and_so_is_what_fed_only_on_them():
    """Node 6 is a latent without inputs: it goes although it has influence. As an error it stays."""
    matrix, weights = paper()
    kinds = np.array(["feature"] * 8 + ["error", "token", "token", "logit"])
    found = prune(matrix, weights, kinds, node_share=0.8, edge_share=1)
    assert not found.nodes[6]
    assert not found.edges[:, 6].any()
    assert found.nodes[[1, 3, 8, 9, 10, 11]].all()
    kinds[6] = "error"
    assert prune(matrix, weights, kinds, node_share=0.8, edge_share=1).nodes[6]


def test_dropping_goes_on_until_nothing_changes():
    """A chain of latents that starts at nothing is dropped whole: each round only takes its first."""
    n = 6
    matrix, weights = np.zeros((n, n)), np.zeros(n)
    for target in range(1, n):
        matrix[target, target - 1] = 1
    weights[-1] = 1
    chain = prune(matrix, weights, np.array(["feature"] * 5 + ["logit"]), node_share=1, edge_share=1)
    assert chain.nodes.tolist() == [False] * 5 + [True]
    assert not chain.edges.any()
    fed = prune(matrix, weights, np.array(["token"] + ["feature"] * 4 + ["logit"]), node_share=1, edge_share=1)
    assert fed.nodes.all()
    assert fed.edges.sum() == 5


def test_a_cycle_is_refused():
    matrix = np.zeros((3, 3))
    matrix[0, 1] = matrix[1, 0] = matrix[2, 0] = 1
    with pytest.raises(ConfigError, match="cycle"):
        influence(normalise_rows(matrix), np.array([0.0, 0.0, 1.0]))
    matrix[0, 1] = 0
    assert influence(normalise_rows(matrix), np.array([0.0, 0.0, 1.0])).tolist() == [1, 0, 0]


def test_a_cycle_that_no_target_can_reach_back_changes_nothing():
    """The sum ends where the influence that is left is zero; nodes without any are not looked at."""
    matrix = np.zeros((4, 4))
    matrix[0, 1] = matrix[1, 0] = 1
    matrix[3, 2] = 1
    assert influence(normalise_rows(matrix), np.array([0.0, 0.0, 0.0, 1.0])).tolist() == [0, 0, 1, 0]


def test_the_threshold_keeps_the_fewest_scores_that_hold_the_share():
    scores = np.array([1.0, 4.0, 2.0, 3.0])
    assert threshold(scores, 0.4) == 4
    assert threshold(scores, 0.41) == 3
    assert threshold(scores, 1.0) == 1
    assert threshold(np.zeros(3), 0.8) == 0


def test_cumulative_shares_descend_from_the_largest_score():
    assert np.allclose(cumulative_share(np.array([1.0, 4.0, 2.0, 3.0])), [1.0, 0.4, 0.9, 0.7])
    assert cumulative_share(np.zeros(3)).tolist() == [1, 1, 1]
    assert cumulative_share(np.zeros(0)).tolist() == []


def test_scores_are_those_on_paper():
    """Tokens 0 and 1, error 2, latents 3 and 4, logit 5: three quarters of the logit's input from latents."""
    matrix, weights = np.zeros((6, 6)), np.zeros(6)
    matrix[5, [3, 4, 2]] = 2, -1, 1
    matrix[3, [0, 2]] = 1, 1
    matrix[4, 1] = 5
    weights[5] = 1
    kinds = np.array(["token", "token", "error", "feature", "feature", "logit"])
    # Influence: latents 1/2, 1/4; tokens 1/4 + 1/4; error 1/4 + 1/4.
    found = score(matrix, weights, kinds)
    assert found.replacement == pytest.approx(0.5)
    # (1 - share of errors) * influence, over nodes: inputs of 5: 3/4, of 3: 1/2, all others 1.
    assert found.completeness == pytest.approx((3 / 4 + 1 / 2 / 2 + 1 / 4 + 1 / 2 + 1 / 2) / (1 + 3 / 4 + 1))


def test_scores_without_errors_are_one_and_of_an_empty_graph_zero():
    matrix, weights = np.zeros((3, 3)), np.array([0.0, 0.0, 1.0])
    matrix[2, 1] = matrix[1, 0] = 3
    found = score(matrix, weights, np.array(["token", "feature", "logit"]))
    assert (found.replacement, found.completeness) == (1, 1)
    assert score(np.zeros((3, 3)), np.zeros(3), np.array(["token", "feature", "logit"])) == (0, 0)


@st.composite
def layered(draw) -> tuple[np.ndarray, np.ndarray]:
    """Draw a graph whose edges go up through up to four layers, and weights of its last layer."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=2, max_size=4))
    n, starts = sum(sizes), np.cumsum([0, *sizes])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layer = np.repeat(np.arange(len(sizes)), sizes)
    matrix = rng.normal(size=(n, n)) * (layer[:, None] > layer) * (rng.random((n, n)) < 0.7)
    weights = np.zeros(n)
    weights[starts[-2] :] = rng.dirichlet(np.ones(sizes[-1]))
    return matrix, weights


def by_paths(shares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over every path from a target down to a node, one path at a time."""
    total = np.zeros(len(weights))

    def walk(node: int, carried: float) -> None:
        for source in np.flatnonzero(shares[node]):
            total[source] += carried * shares[node, source]
            walk(source, carried * shares[node, source])

    for node in np.flatnonzero(weights):
        walk(int(node), float(weights[node]))
    return total


def layers_of(matrix: np.ndarray) -> np.ndarray:
    """Return the length of the longest path below each node."""
    layer = np.zeros(len(matrix), int)
    for node in range(len(matrix)):  # sources come first
        layer[node] = 1 + layer[np.flatnonzero(matrix[node])].max(initial=-1)
    return layer


@given(layered())
@settings(max_examples=60, deadline=None)
def test_influence_is_the_sum_over_paths(graph):
    matrix, weights = graph
    shares = normalise_rows(matrix)
    expected = by_paths(shares, weights)
    assert np.allclose(influence(shares, weights), expected)
    target, source = np.nonzero(matrix)
    walks = Walks(source, target, matrix[target, source], layers_of(matrix))
    assert np.allclose(walks.visits(weights), expected + weights)
    assert np.allclose(walks.part, shares[target, source])


@given(layered(), st.sampled_from([0.5, 0.8, 0.98, 1.0]), st.sampled_from([0.5, 0.9, 1.0]))
@settings(max_examples=60, deadline=None)
def test_a_pruned_graph_is_consistent(graph, node_share, edge_share):
    """Kept edges lie between kept nodes; kept latents have inputs and outputs."""
    matrix, weights = graph
    rng = np.random.default_rng(len(weights))
    kinds = np.where(weights > 0, "logit", rng.choice(["feature", "error", "token"], len(weights)))
    found = prune(matrix, weights, kinds, node_share=node_share, edge_share=edge_share)
    targets, sources = np.nonzero(found.edges)
    assert found.nodes[targets].all()
    assert found.nodes[sources].all()
    latents, errors = kinds == "feature", kinds == "error"
    assert found.edges.any(1)[latents & found.nodes].all()
    assert found.edges.any(0)[(latents | errors) & found.nodes].all()
    assert found.nodes[~latents & ~errors].all()
