"""Influence, pruning and scores of an adjacency matrix of direct effects (Ameisen et al. 2025). Torch-free.

`A[target, source]` is the direct effect of a source on a target. The graph has no cycle. With `A_hat` = `|A|`, each row
divided by its sum, and `p` the weights of the targets (probabilities of logits; 0 elsewhere):

    influence          I = p (A_hat + A_hat^2 + ...)
    edge score         A_hat[t, s] * (I + p)[t]
    replacement score  I(tokens) / (I(tokens) + I(errors))
    completeness       sum of (1 - share of errors in a row) * (I + p) / sum of (I + p)

The definitions are those of circuit-tracer 0.5, so that the numbers of both tools agree.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from interp.errors import ConfigError


class Pruned(NamedTuple):
    """Nodes and edges that a pruned graph keeps."""

    nodes: Bool[np.ndarray, " n"]
    edges: Bool[np.ndarray, "n n"]
    node_share: Float[np.ndarray, " n"]
    """cumulative share of influence, in descending order: low is important"""
    edge_score: Float[np.ndarray, "n n"]
    """0 where either end was dropped by the threshold on nodes"""
    influence: Float[np.ndarray, " n"]
    """of every node of the whole matrix"""


class GraphScores(NamedTuple):
    """Scores of a graph, both from 0 to 1. 1: no error node lies between tokens and logits."""

    replacement: float
    completeness: float


def normalise_rows(matrix: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    """Return `|matrix|` with each row divided by its sum; a row of zeros stays zero."""
    out = np.abs(matrix)
    out /= np.maximum(out.sum(1, keepdims=True), 1e-10)
    return out


def influence(shares: Float[np.ndarray, "n n"], weights: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return the influence of each node on the weighted targets, given normalised rows.

    Raises `ConfigError` when the matrix has a cycle, for which the sum does not end.
    """
    weights = weights.astype(shares.dtype)
    current, total = weights, np.zeros_like(weights)
    for _ in range(len(weights) + 1):
        current = current @ shares
        if not current.any():
            return total
        total += current
    raise ConfigError("the graph has a cycle: a direct effect goes from a later node to an earlier one")


class Walks:
    """Random walks backward along a list of links, each link chosen by its part of what enters its target.

    The probability that a walk from the target of a graph visits a node is the node's influence. Every link leads to a
    higher `layer`.
    """

    def __init__(
        self,
        source: Int[np.ndarray, " m"],
        target: Int[np.ndarray, " m"],
        weight: Float[np.ndarray, " m"],
        layer: Int[np.ndarray, " n"],
    ) -> None:
        self.source, self.target, self.n = source, target, len(layer)
        size, into = np.abs(weight.astype(np.float64)), layer[target]
        self.part = size / np.maximum(np.bincount(target, size, self.n)[target], 1e-10)
        self._steps = [np.flatnonzero(into == at) for at in np.unique(into)[::-1]]  # what lies above is complete

    def visits(self, starts: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return the probability that walks visit each node; they begin at each with the probability in `starts`."""
        probability = starts.astype(np.float64)
        for rows in self._steps:
            probability += np.bincount(self.source[rows], self.part[rows] * probability[self.target[rows]], self.n)
        return probability


def threshold(scores: Float[np.ndarray, "..."], share: float) -> float:
    """Return the smallest of the largest scores that together hold `share` of the sum."""
    ordered = np.sort(scores[scores > 0], axis=None)[::-1]  # zeros hold no share, and are most of a large matrix
    if not len(ordered):
        return 0.0
    total = np.cumsum(ordered, dtype=np.float64)
    total /= total[-1]
    at = np.searchsorted(total, share)
    return float(ordered[min(at, len(ordered) - 1)])


def cumulative_share(scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return for each score the share of the sum that it and all larger ones hold. Low means important."""
    order = np.argsort(-scores, kind="stable")
    total = np.cumsum(scores[order], dtype=np.float64)
    out = np.ones(len(scores))
    if len(scores) and total[-1] > 0:
        out[order] = total / total[-1]
    return out


def prune(
    matrix: Float[np.ndarray, "n n"],
    weights: Float[np.ndarray, " n"],
    kinds: np.ndarray,
    *,
    node_share: float,
    edge_share: float,
    total: Float[np.ndarray, " n"] | None = None,
) -> Pruned:
    """Return the part of the graph that matters for the targets.

    Nodes that hold `node_share` of the influence are kept, tokens and logits always; then edges that hold `edge_share`
    of the scores; then latents and errors without outgoing edges, and latents without incoming ones, are dropped until
    nothing changes. `kinds` names each node: `feature`, `error`, `token` or `logit`. `total` is the influence of the
    nodes, where it is known already.
    """
    fixed, features = np.isin(kinds, ("token", "logit")), kinds == "feature"
    total = influence(normalise_rows(matrix), weights) if total is None else total
    nodes = (total >= threshold(total, node_share)) | fixed
    shares = normalise_rows(np.where(nodes[:, None] & nodes, matrix, 0))
    shares *= (influence(shares, weights) + weights.astype(shares.dtype))[:, None]
    edges = (shares >= threshold(shares, edge_share)) & (shares > 0)
    while True:
        kept = nodes & (fixed | edges.any(0)) & (~features | edges.any(1))
        if (kept == nodes).all():
            return Pruned(nodes, edges, cumulative_share(total), shares, total)
        nodes = kept
        edges &= nodes[:, None] & nodes


def score(matrix: Float[np.ndarray, "n n"], weights: Float[np.ndarray, " n"], kinds: np.ndarray) -> GraphScores:
    """Return replacement score and completeness of an adjacency matrix that is not pruned."""
    shares = normalise_rows(matrix)
    total = influence(shares, weights)
    tokens, errors = float(total[kinds == "token"].sum()), float(total[kinds == "error"].sum())
    out = total + weights
    complete = 1 - shares[:, kinds == "error"].sum(1)
    return GraphScores(
        replacement=tokens / (tokens + errors) if tokens + errors else 0.0,
        completeness=float((complete * out).sum() / out.sum()) if out.sum() else 0.0,
    )
