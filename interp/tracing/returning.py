"""Latents of a graph that return in graphs of the same answer to other wordings. Torch-free.

    returning(graph, workspace.values(AttributionGraph)).headline()

A graph is of one prompt, so one run says little about which of its latents matter. Its paraphrases are the other graphs
of the same weights and dictionary that explain the same answer; the null is graphs of other answers, as some latents
are in every graph. A latent returns in a graph where it is among the nodes that hold a share of the influence,
wherever it stands there, with the same sign; each of `SHARES` at which its own graph has it counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import nan

import numpy as np
from jaxtyping import Float

from interp.results import Record, Result
from interp.tracing.background import Latent, direction
from interp.tracing.graph import AttributionGraph
from interp.view import View

SHARES = (0.6, 0.7, 0.8)
"""Shares of the influence that nodes hold together."""
MOST_OTHERS = 8
"""Graphs of other answers that are read."""


@dataclass(frozen=True, repr=False)
class Returning(Result):
    """Share of graphs in which each latent of a graph returns, 0 to 1."""

    latents: tuple[str, ...]
    """ids of the latents that hold the largest of `SHARES`; one that stands at several positions counts once"""
    same: Float[np.ndarray, "latents graphs"]
    """of each latent in each graph of the same answer, over shares"""
    other: Float[np.ndarray, "latents others"]
    """the same in graphs of other answers: the null"""

    def to_records(self) -> list[Record]:
        """Return one row per latent: its share of graphs of the same answer, and of other answers (NaN without any)."""
        rows = zip(self.latents, self.same, self.other, strict=True)
        return [{"latent": name, "same": _mean(same), "other": _mean(other)} for name, same, other in rows]

    def view(self) -> View:
        n, m = self.same.shape[1], self.other.shape[1]
        if not n:
            yield "One run: no other graph here explains the same answer; trace a paraphrase with the same target"
            return
        null = f", of {m} of other answers in {_mean(self.other):.0%}" if m else "; no graph of another answer is here"
        every = int((self.same == 1).all(1).sum())
        yield (
            f"Of {n} other graph{'s' * (n > 1)} of the same answer a latent returns in {_mean(self.same):.0%}{null}; "
            f"{every} of {len(self.latents)} return in all"
        )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else nan


def returning(graph: AttributionGraph, graphs: Iterable[AttributionGraph]) -> Returning:
    """Compare a graph with others of its model and dictionary.

    Args:
        graph: of one prompt.
        graphs: any others; those of other weights, another dictionary or the same prompt are left out, and of several
            with one prompt and answer all but the first.
    Returns: the share of graphs in which each latent returns, of the same answer and of others.
    """
    shares = _shares(graph)
    kept = {latent: share for latent, share in shares.items() if share <= SHARES[-1]}
    alike: dict[tuple[object, object], AttributionGraph] = {}  # a prompt that was traced twice is one wording
    for candidate in graphs:
        if (candidate.weight_hash, candidate.dictionary) == (
            graph.weight_hash,
            graph.dictionary,
        ) and candidate.tokens != graph.tokens:
            alike.setdefault((_answer(candidate), candidate.tokens), candidate)
    same = [candidate for (answer, _), candidate in alike.items() if answer == _answer(graph)]
    elsewhere = [candidate for (answer, _), candidate in alike.items() if answer != _answer(graph)]
    elsewhere = elsewhere[:MOST_OTHERS] if same else []  # their nodes are read only where there is something to compare
    names = {direction(node): node.id for node in graph.nodes[::-1] if node.kind == "feature"}

    def latents_in(graphs: list[AttributionGraph]) -> np.ndarray:
        found = [_shares(candidate) for candidate in graphs]
        rows = [[_returns(share, candidate.get(latent, 1.0)) for candidate in found] for latent, share in kept.items()]
        return np.array(rows).reshape(len(kept), len(found))

    return Returning(tuple(names[latent] for latent in kept), latents_in(same), latents_in(elsewhere))


def _returns(own: float, there: float) -> float:
    """Return the part of the shares that hold a latent in its own graph at which the other graph has it too."""
    reached = [share for share in SHARES if own <= share]
    return sum(there <= share for share in reached) / len(reached)


def _answer(graph: AttributionGraph) -> tuple[int | None, int | None, str] | None:
    """Return the first target, token and contrast."""
    return (of.token, of.contrast, of.label) if (of := next(iter(graph.targets), None)) else None


def _shares(graph: AttributionGraph) -> dict[Latent, float]:
    """Return the share of the influence at which each latent joins a graph, at its most influential position."""
    shares: dict[Latent, float] = {}
    for node in graph.nodes:
        if node.kind == "feature":
            shares[direction(node)] = min(node.share, shares.get(direction(node), 1.0))
    return shares
