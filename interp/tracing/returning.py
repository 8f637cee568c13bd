"""Latents and boxes of a graph that return in graphs of the same answer to other wordings. Torch-free.

    returning(graph, workspace.values(AttributionGraph), boxes).lines()

A graph is of one prompt, so one run says little about which of its latents matter. Its paraphrases are the other graphs
of the same weights and dictionary that explain the same answer; the null is graphs of other answers, as some latents
are in every graph. A latent returns in a graph where it is among the nodes that hold a share of the influence,
wherever it stands there, with the same sign; each of `SHARES` at which its own graph has it counts. A box returns at
a share where at least half of the latents that it has there are in the other graph.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from jaxtyping import Float

from interp.results import Record, Result
from interp.tracing.background import Latent, direction
from interp.tracing.graph import AttributionGraph

SHARES = (0.6, 0.7, 0.8)
"""Shares of the influence that nodes hold together."""
MOST_OTHERS = 8
"""Graphs of other answers that are read."""


@dataclass(frozen=True, repr=False)
class Returning(Result):
    """Share of graphs in which each latent and each box of a graph returns, 0 to 1."""

    latents: tuple[str, ...]
    """ids of the latents that hold the largest of `SHARES`; one that stands at several positions counts once"""
    boxes: tuple[str, ...]
    same: Float[np.ndarray, "latents graphs"]
    """of each latent in each graph of the same answer, over shares"""
    other: Float[np.ndarray, "latents others"]
    """the same in graphs of other answers: the null"""
    boxes_same: Float[np.ndarray, "boxes graphs"]
    """of each box, as of latents"""
    boxes_other: Float[np.ndarray, "boxes others"]

    def to_records(self) -> list[Record]:
        """Return one row per latent: its share of graphs of the same answer, and of other answers (NaN without any)."""
        rows = zip(self.latents, self.same, self.other, strict=True)
        return [{"latent": name, "same": _mean(same), "other": _mean(other)} for name, same, other in rows]

    def headline(self) -> str:
        """Return how often latents return, beside graphs of other answers; "one run" without other wordings."""
        n, m = self.same.shape[1], self.other.shape[1]
        if not n:
            return "One run: no other graph here explains the same answer; trace a paraphrase with the same target"
        null = f", of {m} of other answers in {_mean(self.other):.0%}" if m else "; no graph of another answer is here"
        every = int((self.same == 1).all(1).sum())
        return (
            f"Of {n} other graph{'s' * (n > 1)} of the same answer a latent returns in {_mean(self.same):.0%}{null}; "
            f"{every} of {len(self.latents)} return in all"
        )

    def lines(self) -> list[str]:
        """Return the headline, and how often each box returns."""
        if not self.same.shape[1]:
            return [self.headline()]
        rows = zip(self.boxes, self.boxes_same, self.boxes_other, strict=True)
        shares = ", ".join(f"{share:.0%}" for share in SHARES)
        said = [
            f"{name}: returns in {_mean(same):.0%}, of other answers in {_mean(other):.0%}"
            for name, same, other in rows
        ]
        over = (
            [f"Boxes, over {self.same.shape[1]} graphs and nodes that hold {shares} of the influence:"] if said else []
        )
        return [self.headline(), *over, *said]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else nan


def returning(
    graph: AttributionGraph, graphs: Iterable[AttributionGraph], boxes: Mapping[str, Sequence[int]] | None = None
) -> Returning:
    """Compare a graph with others of its model and dictionary.

    Args:
        graph: of one prompt.
        graphs: any others; those of other weights, another dictionary or the same prompt are left out, and of several
            with one prompt and answer all but the first.
        boxes: numbers of the nodes of each box, by its name.
    Returns: the share of graphs in which each latent and box returns, of the same answer and of others.
    """
    own = _shares(graph)
    kept = {latent: share for latent, share in own.items() if share <= SHARES[-1]}
    alike: dict[tuple[object, object], AttributionGraph] = {}  # a prompt that was traced twice is one wording
    for each in graphs:
        if (each.weight_hash, each.dictionary) == (graph.weight_hash, graph.dictionary) and each.tokens != graph.tokens:
            alike.setdefault((_answer(each), each.tokens), each)
    same = [each for (answer, _), each in alike.items() if answer == _answer(graph)]
    other = [each for (answer, _), each in alike.items() if answer != _answer(graph)]
    other = other[:MOST_OTHERS] if same else []  # their nodes are read only where there is something to compare
    members = {
        name: {direction(node) for n in numbers if (node := graph.nodes[n]).kind == "feature"} & kept.keys()
        for name, numbers in (boxes or {}).items()
    }
    members = {name: latents for name, latents in members.items() if latents}
    names = {direction(node): node.id for node in graph.nodes[::-1] if node.kind == "feature"}

    there, elsewhere = [_shares(each) for each in same], [_shares(each) for each in other]

    def latents_in(found: list[dict[Latent, float]]) -> np.ndarray:
        rows = [[_returns(share, each.get(latent, 1.0)) for each in found] for latent, share in kept.items()]
        return np.array(rows).reshape(len(kept), len(found))

    def boxes_in(found: list[dict[Latent, float]]) -> np.ndarray:
        rows = [
            [_box_returns([(kept[x], each.get(x, 1.0)) for x in box]) for each in found] for box in members.values()
        ]
        return np.array(rows).reshape(len(members), len(found))

    return Returning(
        tuple(names[latent] for latent in kept), tuple(members),
        latents_in(there), latents_in(elsewhere), boxes_in(there), boxes_in(elsewhere),
    )  # fmt: skip


def _returns(own: float, there: float) -> float:
    """Return the part of the shares that hold a latent in its own graph at which the other graph has it too."""
    held = [share for share in SHARES if own <= share]
    return sum(there <= share for share in held) / len(held)


def _box_returns(shares: Sequence[tuple[float, float]]) -> float:
    """Return the part of the shares that hold some latent of a box at which the other graph has half of these.

    `shares` are those at which each latent joins its own graph, and the other one.
    """
    held = [[there <= share for own, there in shares if own <= share] for share in SHARES]
    return float(np.mean([np.mean(found) >= 0.5 for found in held if found]))


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
