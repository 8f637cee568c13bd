"""Latents that return in graphs of other wordings, beside graphs of other answers."""

from dataclasses import replace

import pytest
from tracing_graphs import small_graph

from interp.tracing.graph import GraphTarget, node_table
from interp.tracing.returning import returning

GRAPH = small_graph()
LATENTS = ("feature:0:1:3", "feature:1:1:0")
"""Those that hold 0.8 of the influence: at 0.75, and at 0.3."""


def wording(*shares: float, token: int = 11, position: int = 0, sign: int = 1, tokens=(1, 8)):
    """Return a graph of another prompt whose two latents hold these shares of the influence, at another position."""
    share = iter(shares)
    nodes = [
        replace(node, share=next(share), position=position, activation=sign * node.activation)
        if node.id in LATENTS
        else node
        for node in GRAPH.nodes
    ]
    settings = replace(GRAPH.settings, tokens=tokens)
    return replace(GRAPH, settings=settings, targets=(GraphTarget(" Paris", token),), node_table=node_table(nodes))


def of(*graphs):
    return returning(replace(GRAPH, targets=(GraphTarget(" Paris", 11),)), graphs)


def test_the_share_of_graphs_is_counted_at_the_thresholds_that_its_own_graph_reaches():
    found = of(wording(0.1, 0.1), wording(0.9, 0.65, tokens=(2, 8)), wording(0.75, 0.9, token=12))
    assert found.latents == LATENTS
    assert found.same.tolist() == [[1, 0], [1, pytest.approx(2 / 3)]]
    assert found.other.tolist() == [[1], [0]]
    assert found.headline() == (
        "Of 2 other graphs of the same answer a latent returns in 67%, of 1 of other answers in 50%; "
        "0 of 2 return in all"
    )


def test_a_paraphrase_that_was_traced_twice_counts_once():
    again = wording(0.9, 0.9), wording(0.75, 0.9, token=12), wording(0.1, 0.1, token=12)
    assert [found.shape for found in (of(wording(0.1, 0.1), *again).same, of(wording(0.1, 0.1), *again).other)] == [
        (2, 1),
        (2, 1),
    ]


def test_a_latent_of_the_other_sign_or_another_dictionary_does_not_return():
    assert of(wording(0.1, 0.1, sign=-1)).same.tolist() == [[0], [0]]
    graph = wording(0.1, 0.1)
    others = [replace(graph, settings=replace(graph.settings, **change)) for change in (
        {"weight_hash": "1" * 64}, {"dictionary": "other"}, {"tokens": GRAPH.tokens})]  # fmt: skip
    assert of(*others).same.shape == (2, 0)


def test_without_another_wording_it_is_one_run():
    assert of(wording(0.1, 0.1, token=12)).headline().startswith("One run")
