"""Story of a graph: at most twelve boxes from the words of the prompt through concepts to the answer. Torch-free.

    story = tell(graph, words, general=background)    # words: number of a latent's node -> `NodeWords`
    print(story)

Latents at one position whose words are alike are one box: a concept, or where they make the model say those words late
on the last token, an output ("say ..."). Only words count that are near those of the prompt or the answer. Latents that
read the word they stand on belong to the box of that word. Nodes on the last token that serve any answer are one box.
A box carries the share of the influence on the target whose paths lead through it (`Walks`).
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from interp.results import Record, Result
from interp.tracing._influence import Walks
from interp.tracing._story_words import NodeWords, Topic, WordVectors, leading_words, stem
from interp.tracing._story_words import words_of as words_of
from interp.tracing.function_words import FUNCTION_WORDS
from interp.tracing.graph import AttributionGraph
from interp.tracing.part import graph_effects

BoxKind = Literal["token", "concept", "output", "general", "answer"]
MOST_BOXES, MOST_TOKENS = 12, 4
ALIKE = 0.4
"""Mean likeness of words from which latents at one position are one box."""
LATE = 0.7
"""Depth from which latents on the last token are outputs, as a fraction of the layers."""
OPPOSED = 0.2
"""A group of outputs is two boxes where its weaker sign has at least this part of the other's effects."""
LEAST_ARROW = 0.03
"""Smallest arrow, as a part of the influence that its target box carries."""


@dataclass(frozen=True, kw_only=True)
class BoxTest:
    """Agreement of the effects of a box's members, beside random groups of the same layers."""

    agreement: float
    chance: float
    holds: bool


@dataclass(frozen=True, kw_only=True)
class StoryBox:
    """Nodes of a graph that are told as one."""

    name: str
    kind: BoxKind
    nodes: tuple[int, ...]
    """numbers of nodes"""
    share: float
    """of the influence on the target, 0 to 1: paths through several boxes count in each, and all in the answer"""
    effect: float
    """signed effect on the target, summed over members"""
    position: int
    """last of the members"""
    layer: float
    """mean of the members"""
    reads: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    test: BoxTest | None = None
    """None where it was not tested"""


@dataclass(frozen=True, kw_only=True)
class StoryArrow:
    """Influence that goes from one box to another and through no third one; boxes by number."""

    source: int
    target: int
    weight: float
    """share of all influence on the target; below 0 where the source lowers the activations of the target box"""


@dataclass(frozen=True, repr=False)
class Story(Result):
    """Boxes and arrows of a graph, in the order of reading."""

    sentence: str
    boxes: tuple[StoryBox, ...]
    arrows: tuple[StoryArrow, ...]
    left_out: float
    """share of the influence whose paths lead through no box, 0 to 1"""

    def to_records(self) -> list[Record]:
        """Return one row per box."""
        return [
            {
                "box": box.name, "kind": box.kind, "share": box.share, "effect": box.effect, "nodes": len(box.nodes),
                "to": ", ".join(
                    f"{'' if arrow.weight > 0 else 'against '}{self.boxes[arrow.target].name}"
                    for arrow in self.arrows if arrow.source == number
                ),
            }
            for number, box in enumerate(self.boxes)
        ]  # fmt: skip

    def headline(self) -> str:
        """Return the mechanism in a sentence, and the share that is left out."""
        return f"{self.sentence} {self.left_out:.0%} of the influence is left out."


def tell(
    graph: AttributionGraph,
    words: Mapping[int, NodeWords],
    *,
    general: Collection[int] = (),
    vectors: WordVectors | None = None,
) -> Story | None:
    """Return the story of a graph for its first target; None without targets or without nodes.

    `words` are those of its latents by number; `general` are the nodes that lead other prompts too. `vectors` tell
    which words are alike; without them only forms of one word are.
    """
    aim = next((i for i, node in enumerate(graph.nodes) if node.kind == "logit" and node.index == 0), None)
    if aim is None or not graph.targets or len(graph.nodes) < 2:
        return None
    return _Telling(graph, words, set(general), vectors, aim).story()


@dataclass(frozen=True)
class _Group:
    """Nodes that are to be one box."""

    name: str
    kind: BoxKind
    nodes: list[int]


class _Telling:
    """One graph that is told."""

    def __init__(
        self, graph: AttributionGraph, words: Mapping[int, NodeWords], general: set[int],
        vectors: WordVectors | None, aim: int,
    ) -> None:  # fmt: skip
        self.graph, self.nodes, self.aim, self.general = graph, graph.nodes, aim, general
        layer = np.array([node.layer for node in self.nodes])
        self.walks = Walks(graph.edges.source, graph.edges.target, graph.edges.weight, layer)
        self.start = (np.arange(len(layer)) == aim).astype(float)
        self.visits, self.effects = self.walks.visits(self.start), graph_effects(graph)
        self.last = max(node.position for node in self.nodes)
        self.answer = [part.strip() for part in graph.targets[0].sides if part]
        self.spans = [(run, word) for run, word in _spans(graph.token_texts) if _is_content(word)]
        self.topic = Topic(words, [word for _, word in self.spans], self.answer, vectors)
        latents = (i for i, node in enumerate(self.nodes) if node.kind == "feature")
        self.words = {i: words.get(i, NodeWords()) for i in latents}

    def story(self) -> Story:
        tokens, concepts = self._tokens(), self._concepts()
        inside = {i for group in tokens for i in group.nodes}
        serving = [i for i in self.general - inside if self.nodes[i].position == self.last]
        serving = sorted(i for i in serving if self.nodes[i].kind == "feature")
        tokens = sorted(tokens, key=lambda group: -self._interest(group))[:MOST_TOKENS]
        concepts = sorted(concepts, key=lambda group: -self._interest(group))
        concepts = concepts[: MOST_BOXES - 1 - bool(serving) - len(tokens)]
        chosen = [*tokens, *sorted(concepts, key=lambda group: np.mean([self.nodes[i].layer for i in group.nodes]))]
        chosen[: len(tokens)] = sorted(tokens, key=lambda group: group.nodes[0] and self.nodes[group.nodes[0]].position)
        if serving:
            text = self.graph.token_texts[self.last].strip() or repr(self.graph.token_texts[self.last])
            chosen.append(_Group(f"at *{text}*: general", "general", serving))
        chosen.append(_Group(" rather than ".join(self.answer), "answer", [self.aim]))
        boxes, arrows = tuple(self._box(group) for group in chosen), self._arrows(chosen)
        left_out = 1 - self._share([i for group in chosen[:-1] for i in group.nodes])
        return Story(_sentence(boxes, arrows), boxes, arrows, left_out)

    def _share(self, members: Collection[int]) -> float:
        """Return the probability that a walk from the target visits any member."""
        return float(self.walks.visits(self.start, members)[list(members)].sum())

    def _tokens(self) -> list[_Group]:
        """Return the group of each word of the prompt with a meaning: its tokens, and latents that read the word."""
        at = {node.position: i for i, node in enumerate(self.nodes) if node.kind == "token"}
        groups = []
        for run, word in self.spans:
            tokens = [at[position] for position in run if position in at]
            stems = {stem(self.graph.token_texts[position]) for position in run} | {stem(word)}
            readers = [
                i for i, words in self.words.items()
                if self.nodes[i].position in run and i not in self.general
                and (self.nodes[i].layer == 0 or stems & {stem(text) for text in words.reads})
            ]  # fmt: skip
            if tokens:
                groups.append(_Group(word, "token", [*tokens, *readers]))
        return groups

    def _concepts(self) -> list[_Group]:
        """Return a group for the latents at each position whose words are alike and on the topic."""
        taken = {i for group in self._tokens() for i in group.nodes}
        by_position: dict[int, list[int]] = defaultdict(list)
        for i in self.words:
            if self.topic.words.get(i) and i not in taken and i not in self.general:
                by_position[self.nodes[i].position].append(i)
        groups = []
        for members in by_position.values():
            for rows in _clusters(self.topic.likeness(members)):
                groups += self._sides([members[row] for row in rows])
        return groups

    def _sides(self, members: list[int]) -> list[_Group]:
        """Return the group of some latents; two where they are outputs that act against each other."""
        layer = np.mean([self.nodes[i].layer for i in members])
        if self.nodes[members[0]].position != self.last or layer < LATE * self.graph.n_layers:
            return [_Group(self._name(members), "concept", members)]
        sides = [[i for i in members if (self.effects[i] > 0) == positive] for positive in (True, False)]
        low, high = sorted(float(np.abs(self.effects[side]).sum()) for side in sides)
        groups = []
        for side in sides if low >= OPPOSED * high else [members]:
            says = sum(bool(self.words[i].says) for i in side) * 2 >= len(side)
            groups.append(
                _Group(f"say {self._name(side)}" if says else self._name(side), "output" if says else "concept", side)
            )
        return groups

    def _interest(self, group: _Group) -> float:
        """Return how much a group tells: its influence, more with several members and with words near the answer's."""
        words = [group.name] if group.kind == "token" else [word for i in group.nodes for word in self.topic.words[i]]
        near = self.topic.near_answer(words)
        return float(self.visits[group.nodes].sum()) * (0.5 if len(group.nodes) == 1 else 1.0) * (0.2 + near) ** 2

    def _name(self, members: Sequence[int]) -> str:
        weights: dict[str, float] = defaultdict(float)
        for i in members:
            for word, near in self.topic.words[i].items():
                weights[word] += near * (self.visits[i] + 1e-6) ** 0.5
        return ", ".join(leading_words(weights))

    def _box(self, group: _Group) -> StoryBox:
        nodes = sorted(group.nodes)
        words = [self.words[i] for i in nodes if i in self.words]
        named = group.kind in ("concept", "output")
        return StoryBox(
            name=group.name, kind=group.kind, nodes=tuple(nodes), share=self._share(nodes),
            effect=float(self.effects[nodes].sum()), layer=float(np.mean([self.nodes[i].layer for i in nodes])),
            position=max(self.nodes[i].position for i in nodes),
            reads=self.topic.frequent(part.reads for part in words) if named else (),
            says=self.topic.frequent(part.says for part in words) if named else (),
        )  # fmt: skip

    def _arrows(self, groups: Sequence[_Group]) -> tuple[StoryArrow, ...]:
        """Return the influence between boxes that goes through no third box."""
        active = np.array([-1.0 if node.kind == "feature" and node.activation < 0 else 1.0 for node in self.nodes])
        inside = {i for group in groups for i in group.nodes}
        arrows = []
        for number, group in enumerate(groups):
            starts, ends = np.zeros(len(self.nodes)), inside - set(group.nodes)
            starts[group.nodes] = self.walks.visits(self.start, group.nodes)[group.nodes]
            reached, signed = self.walks.visits(starts, ends), self.walks.visits(starts, ends, active)
            for other, source in enumerate(groups[:-1]):
                size, net = float(reached[source.nodes].sum()), float(signed[source.nodes].sum())
                if other != number and size >= LEAST_ARROW * starts.sum() and size > 0:
                    arrows.append(StoryArrow(source=other, target=number, weight=size if net >= 0 else -size))
        return tuple(sorted(arrows, key=lambda arrow: -abs(arrow.weight)))


def _spans(texts: Sequence[str]) -> list[tuple[range, str]]:
    """Return the positions and the text of each word: a token that goes on in letters belongs to the one before."""
    starts = [
        at for at, text in enumerate(texts)
        if not (at and text[:1].isalpha() and texts[at - 1][-1:].isalpha())
    ]  # fmt: skip
    runs = [range(a, b) for a, b in zip(starts, [*starts[1:], len(texts)], strict=True)]
    return [(run, "".join(texts[position] for position in run).strip()) for run in runs]


def _is_content(word: str) -> bool:
    special = word.startswith("<") and word.endswith(">")
    return not special and word.lower() not in FUNCTION_WORDS and word not in {*",.;:!?\"'()"} and bool(word)


def _clusters(likeness: Float[np.ndarray, "n n"]) -> list[list[int]]:
    """Return groups of rows by average linkage of at least `ALIKE`."""
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(likeness) < 2:
        return [[row] for row in range(len(likeness))]
    apart = 1 - likeness[np.triu_indices(len(likeness), 1)]
    numbers = fcluster(linkage(apart, "average"), 1 - ALIKE, "distance")
    return [np.flatnonzero(numbers == number).tolist() for number in np.unique(numbers)]


def _sentence(boxes: Sequence[StoryBox], arrows: Sequence[StoryArrow]) -> str:
    """Return the boxes that lead to the answer as one sentence of at most 25 words."""
    tokens = [f"*{box.name}*" for box in boxes if box.kind == "token"]
    concepts = [f"“{box.name}”" for box in boxes if box.kind == "concept" and box.effect > 0]
    sayings = [box.name for box in boxes if box.kind == "output" and box.effect > 0]
    parts = [_listed(tokens[:3])] if tokens else []
    parts += [_listed(part[:2]) for part in (concepts, sayings) if part]
    return " → ".join([*parts, boxes[-1].name]) + "."


def _listed(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
