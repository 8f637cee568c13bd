"""The part of a stored graph that is shown, for all targets or for one. Torch-free.

    found = part_of(graph, most=60, edges=0.98)
    found = part_of(graph, most=60, edges=0.98, target=graph.number["logit:9:0"], pins={17})

Nodes are chosen by their signed effect on the target, the largest sizes first; edges by their stored shares, or for one
target by shares of the influence on it along the stored edges.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from interp.errors import ConfigError
from interp.tracing._influence import Walks, cumulative_share
from interp.tracing.graph import AttributionGraph

DIGITS = 5
"""Decimals of stored shares that count, so that 1 includes entries of almost no score."""


class GraphPart(NamedTuple):
    """Nodes and edges of a part of a graph."""

    nodes: Bool[np.ndarray, " n"]
    edges: Bool[np.ndarray, " m"]


def part_of(
    graph: AttributionGraph,
    *,
    most: int,
    edges: float,
    target: int | None = None,
    pins: Collection[int] = (),
    hidden: Collection[int] = (),
) -> GraphPart:
    """Return the `most` latents and errors of largest effect, and the edges that hold the share `edges` of the scores.

    Tokens and targets are always part of it; with `target`, the number of its node, no other target is, and without it
    the effect is that on the first. Nodes in `pins` are added; nodes in `hidden` are removed, and the next ones shown
    instead.
    """
    source, end = graph.edges.source, graph.edges.target
    kind = np.array([node.kind for node in graph.nodes])
    numbers = np.arange(len(kind))
    gone = np.isin(numbers, list(hidden))
    effects = effects_on(graph, target)
    sizes = np.array([node.influence for node in graph.nodes]) if effects is None else np.abs(effects)
    ranked = np.argsort(-sizes, kind="stable")
    ranked = ranked[np.isin(kind, ("feature", "error"))[ranked] & ~gone[ranked]]
    chosen = (kind == "token") | np.isin(numbers, [*ranked[:most], *pins])
    chosen |= (kind == "logit") if target is None else (numbers == target)
    chosen &= ~gone
    return GraphPart(chosen, _within(_edge_shares(graph, target), edges) & chosen[source] & chosen[end])


def effects_on(graph: AttributionGraph, target: int | None = None) -> Float[np.ndarray, " nodes"] | None:
    """Return the effect of every node on a target (the number of its node; default: the first).

    None where a graph of another program has no such target or no effects; then nodes are ranked by their influence.
    """
    aims = [node.index for node in graph.nodes if node.kind == "logit"]
    aim = graph.nodes[target].index if target is not None else 0
    effects = graph_effects(graph, aim) if aim in aims else np.zeros(0)
    return effects if effects.any() else None


def graph_effects(graph: AttributionGraph, target: int = 0) -> Float[np.ndarray, " nodes"]:
    """Return the total effect of every node's value on one target, signed: in the model itself, to first order.

    `target` is the number of an answer of the `graph`.

    In graphs of other programs and for a latent as the target: along the stored edges.
    """
    aim = next((i for i, node in enumerate(graph.nodes) if node.kind == "logit" and node.index == target), None)
    if aim is None:
        raise ConfigError(f"the graph has {len(graph.targets)} targets, counted from 0, but not {target}")
    if any(node.effects for node in graph.nodes):
        return np.array([node.effects[target] if node.effects else 0.0 for node in graph.nodes])
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


def _edge_shares(graph: AttributionGraph, target: int | None) -> Float[np.ndarray, " m"]:
    """Return cumulative shares of the scores of edges: those stored, or for one target those on it alone."""
    if target is None:
        return graph.edges.share.round(DIGITS)
    layer = np.array([node.layer for node in graph.nodes])
    walks = Walks(graph.edges.source, graph.edges.target, graph.edges.weight, layer)
    starts = (np.arange(len(layer)) == target).astype(float)
    return cumulative_share(walks.part * walks.visits(starts)[walks.target])


def _within(shares: Float[np.ndarray, " n"], share: float) -> Bool[np.ndarray, " n"]:
    """Return a mask of the fewest entries that together hold `share`, given cumulative shares."""
    enough = shares[shares >= share - 1e-9]
    return shares <= enough.min(initial=np.inf) if share > 0 else np.zeros(len(shares), bool)
