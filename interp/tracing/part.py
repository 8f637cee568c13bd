"""The part of a stored graph that matters at given thresholds, for all targets or for one. Torch-free.

    found = part_of(graph, nodes=0.8, edges=0.98)
    found = part_of(graph, nodes=0.8, edges=0.98, target=graph.number["logit:9:0"], pins={17})

At the thresholds of the trace it is the pruned graph. At others, nodes and edges are chosen by their stored shares, or,
for one target, by shares of the influence on it along the stored edges; then what lost its connection is dropped.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from interp.errors import ConfigError
from interp.tracing.graph import AttributionGraph
from interp.tracing.influence import cumulative_share, link_influence

DIGITS = 5
"""Decimals of stored shares that count, so that 1 includes what holds next to nothing."""


class Part(NamedTuple):
    """Nodes and edges of a part of a graph."""

    nodes: Bool[np.ndarray, " n"]
    edges: Bool[np.ndarray, " m"]


def part_of(
    graph: AttributionGraph,
    *,
    nodes: float,
    edges: float,
    target: int | None = None,
    pins: Collection[int] = (),
    hidden: Collection[int] = (),
) -> Part:
    """Return the nodes that hold the share `nodes` of the influence, and the edges that hold `edges` of the scores.

    Tokens and targets are always part of it; with `target`, the number of its node, no other target is. Nodes in `pins`
    are added, with their edges of a sufficient score; nodes in `hidden` are removed.
    """
    source, end, kept = graph.edges.source, graph.edges.target, graph.edges.kept
    kind = np.array([node.kind for node in graph.nodes])
    node_shares, edge_shares = _shares(graph, target)
    usual = target is None and (nodes, edges) == graph.thresholds
    chosen = np.array([node.kept for node in graph.nodes]) if usual else _within(node_shares, nodes)
    chosen = chosen | (kind == "token")
    logits = kind == "logit"
    chosen[logits] = True if target is None else np.flatnonzero(logits) == target
    scored = edge_shares <= edges if usual else _within(edge_shares, edges)
    linked = (kept if usual else scored) & chosen[source] & chosen[end]
    if not usual:
        chosen, linked = _connected(kind, source, end, chosen, linked)
    pinned = np.isin(np.arange(len(kind)), list(pins))
    chosen = (chosen | pinned) & ~np.isin(np.arange(len(kind)), list(hidden))
    linked = linked | (scored & (pinned[source] | pinned[end]))
    return Part(chosen, linked & chosen[source] & chosen[end])


def graph_effects(graph: AttributionGraph, target: int = 0) -> Float[np.ndarray, " nodes"]:
    """Return the total effect of every node's value on one target, signed, along the stored edges of a graph."""
    aim = next((i for i, node in enumerate(graph.nodes) if node.kind == "logit" and node.index == target), None)
    if aim is None:
        raise ConfigError(f"the graph has {len(graph.targets)} targets, counted from 0; there is no {target}")
    effects = np.zeros(len(graph.nodes))
    effects[aim] = 1.0
    scale = np.array(
        [1.0 / node.activation if node.kind == "feature" and node.activation else 0.0 for node in graph.nodes]
    )
    scale[aim] = 1.0
    depth = np.array([node.layer + (node.kind == "logit") * (len(graph.nodes) + 1) for node in graph.nodes])
    edges, into = graph.edges, depth[graph.edges.target]
    for layer in np.unique(into)[::-1]:
        rows = np.flatnonzero(into == layer)
        targets = edges.target[rows]
        np.add.at(effects, edges.source[rows], edges.weight[rows] * scale[targets] * effects[targets])
    effects[aim] = 0.0
    return effects


def _shares(graph: AttributionGraph, target: int | None) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Return cumulative shares of nodes and edges: those stored, or for one target those on it alone."""
    if target is None:
        stored = (np.array([node.share for node in graph.nodes]), graph.edges.share)
        return stored[0].round(DIGITS), stored[1].round(DIGITS)
    weights = np.zeros(len(graph.nodes))
    weights[target] = 1
    layer = np.array([node.layer for node in graph.nodes])
    total, scores = link_influence(graph.edges.source, graph.edges.target, graph.edges.weight, layer, weights)
    return cumulative_share(total), cumulative_share(scores)


def _within(shares: Float[np.ndarray, " n"], share: float) -> Bool[np.ndarray, " n"]:
    """Return which are the fewest entries that together hold `share`, given cumulative shares."""
    enough = shares[shares >= share - 1e-9]
    return shares <= enough.min(initial=np.inf) if share > 0 else np.zeros(len(shares), bool)


def _connected(
    kind: np.ndarray,
    source: Int[np.ndarray, " m"],
    target: Int[np.ndarray, " m"],
    nodes: Bool[np.ndarray, " n"],
    edges: Bool[np.ndarray, " m"],
) -> Part:
    """Drop latents and errors that nothing reads, and latents without a source, until nothing changes."""
    fixed, latents = np.isin(kind, ("token", "logit")), kind == "feature"
    while True:
        read, fed = (np.bincount(ends[edges], minlength=len(kind)) > 0 for ends in (source, target))
        kept = nodes & (fixed | read) & (~latents | fed)
        if (kept == nodes).all():
            return Part(nodes, edges)
        nodes = kept
        edges = edges & nodes[source] & nodes[target]
