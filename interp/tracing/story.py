"""Story of a graph: at most twelve boxes from the words of the prompt through concepts to the answer. Torch-free.

    story = tell(graph, words, usual=usual)    # words: number of a latent's node -> `NodeWords`
    print(story)

Latents at one position whose words are alike are one box: a concept, or where they make the model say those words late
on the last token, an output ("say ..."). Only words count that are near those of the prompt or the answer. Latents that
read the word they stand on belong to the box of that word. Nodes on the last token that serve any answer are one box,
and the other latents on it another. A box carries the share of the influence on the target whose paths lead through it
(`Walks`); of each box at least the strongest arrow is kept, so a path leads from it to the answer.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from interp.results import Record, Result
from interp.tracing._function_words import FUNCTION_WORDS
from interp.tracing._influence import Walks
from interp.tracing.background import LIMIT
from interp.tracing.graph import AttributionGraph
from interp.tracing.part import graph_effects

WordVectors = Callable[[Sequence[str]], Float[np.ndarray, "words d"]]
"""`vectors(words)` returns one row per word, zeros for an unknown one."""
STEM = 5
"""First letters in which forms of a word agree: France and French need vectors, orbit and orbiting do not."""
NEAR = 0.15
"""Cosine of two words that are on one topic; of random ones fewer than 1 % are as near (`Vocabulary.word_vectors`)."""
_GRAMMAR = """
noun nouns verb verbs adjective adverb preposition pronoun conjunction determiner article quantifier
possessive plural singular comparative superlative person third first second past form forms word words letter
letters number digit numbers sign symbol punctuation dash hyphen comma colon semicolon bracket quotation mark
marks question exclamation sentence paragraph document line break spaces space piece pieces longer middle last
start end any name capital capitalised capitals inside other single token tokens pair passage before after
often near like not code formulas function call came cause consequence case auxiliary modal negation
identifier spelling accented roman numeral underscore abbreviation hyphenated chunk
"""
GRAMMAR = frozenset(_GRAMMAR.split())
"""Words of labels that say how a word is used, not what it means."""


@dataclass(frozen=True)
class NodeWords:
    """Words of one latent: those it is active on or near, and those that it makes the model say."""

    reads: tuple[str, ...] = ()
    says: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.reads, *self.says)


def words_of(label: str, says: Iterable[str] = ()) -> NodeWords:
    """Return the words of a label by rules or of a written one, and those of `says` that are words.

    What a label quotes, or the topic that it names; nothing for a part of speech. A label of what comes next
    ('before " city"') or of promoted words ('raises " gold"') counts as said.
    """
    text = re.sub(r" \(\d+ %\)$", "", label).removeprefix("often ")
    quoted = re.findall(r'"([^"]*)"', text)
    promoted = [*quoted] if re.match(r"(before|raises|promotes) ", text) else []
    if text.startswith(("no label", "fires on", "after ", "dense", "rare", "dead")):
        read: list[str] = []
    elif quoted:
        read = [] if promoted else quoted
    elif text.startswith("in ") and text.endswith(" docs"):  # a source of one word, such as a language, is a topic
        source = text[3:-5].removeprefix("sampled ")
        read = [] if " " in source else [source]
    else:
        read = [] if text.startswith("before ") else [_topic(text)]
    return NodeWords(_meaningful(read), _meaningful([*promoted, *says]))


def _topic(label: str) -> str:
    """Return the meaning that a class of words has: of "adjective of country" the country; empty for grammar alone."""
    text = re.sub(r"^(noun|verb|adjective)s? of ", "", label.split(",")[0])
    return "" if all(word in GRAMMAR | FUNCTION_WORDS for word in re.findall(r"[a-z]+", text.lower())) else text


def _meaningful(words: Iterable[str]) -> tuple[str, ...]:
    """Return each word once, as it is spelled, without function words, signs, bytes and single letters."""
    kept = {}
    for word in words:
        bare = word.strip()
        if bare.lower() not in FUNCTION_WORDS and re.fullmatch(r"[^\W\d_][\w' -]+[^\W_]|\d+", bare):
            kept.setdefault(bare.lower(), bare)
    return tuple(kept.values())


def stem(word: str) -> str:
    """Return the letters that forms of a word share: those of its singular, at most `STEM`."""
    bare = word.strip().lower()
    bare = f"{bare[:-3]}y" if bare.endswith("ies") else bare.removesuffix("s") or bare
    return bare[:STEM]


class Topic:
    """The words of a graph that are near a word of the prompt or of the answer, and how alike latents are by them."""

    def __init__(
        self,
        words: Mapping[int, NodeWords],
        positions: Mapping[int, int],
        prompt: Sequence[tuple[int, str]],
        answer: Sequence[str],
        vectors: WordVectors | None,
    ) -> None:
        """Keep the words of latents, at `positions`, that are near a word of the prompt up to there or the answer's.

        `prompt` are positions and words. Without `vectors` nothing tells what is off the topic, and all words are kept.
        """
        texts = sorted(
            {word for node in words.values() for word in node.all} | {word for _, word in prompt} | {*answer}
        )
        self._at, self._vectors = {word: i for i, word in enumerate(texts)}, _units(texts, vectors)
        self._stems, self._answer = [stem(word) for word in texts], list(answer)
        near, nearest = {-1: self._nearness(texts, answer)}, self._nearness(texts, answer)
        for position, word in sorted(prompt):
            near[position] = nearest = np.maximum(nearest, self._nearness(texts, [word]))
        least = 0.0 if vectors is None else NEAR
        numbers = any(char.isdigit() for word in (*answer, *(word for _, word in prompt)) for char in word)
        self.words: dict[int, dict[str, float]] = {}
        """by number of a node: its words on the topic, each with its nearness, 0 to 1"""
        for i, node in words.items():
            values = near[max(position for position in near if position <= positions.get(i, -1))]
            known = {
                word: max(float(values[self._at[word]]), 1e-3) for word in node.all if numbers or not word.isdigit()
            }
            self.words[i] = {word: value for word, value in known.items() if value >= least}

    def _nearness(self, words: Sequence[str], others: Sequence[str]) -> Float[np.ndarray, " words"]:
        """Return the largest likeness of each word with any of the others."""
        ours, theirs = [self._at[word] for word in words], [self._at[word] for word in others]
        if not theirs:
            return np.zeros(len(ours))
        cosines = np.clip(self._vectors[ours] @ self._vectors[theirs].T, 0, 1)
        stems = {self._stems[i] for i in theirs}
        return np.where([self._stems[i] in stems for i in ours], 1.0, cosines.max(1))

    def near_answer(self, words: Sequence[str]) -> float:
        """Return how near the nearest of some words is to those of the answer, 0 to 1."""
        return float(self._nearness(words, self._answer).max(initial=0.0))

    def likeness(self, nodes: Sequence[int]) -> Float[np.ndarray, "n n"]:
        """Return how alike latents are: 1 where they share a word, else the cosine of their mean vectors."""
        sets = [list(self.words[i]) for i in nodes]
        means = np.stack([self._vectors[[self._at[word] for word in words]].sum(0) for words in sets])
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        stems = [{self._stems[self._at[word]] for word in words} for words in sets]
        shared = np.array([[bool(a & b) for b in stems] for a in stems], float)
        return np.maximum(np.clip(means @ means.T, 0, 1), shared)

    def frequent(self, lists: Iterable[Sequence[str]], most: int = 4) -> tuple[str, ...]:
        """Return the words on the topic that most lists have."""
        known = {word for words in self.words.values() for word in words}
        counts = Counter(word for words in lists for word in words if word in known)
        return tuple(word for word, _ in counts.most_common(most))


def _units(words: Sequence[str], vectors: WordVectors | None) -> Float[np.ndarray, "words d"]:
    rows = np.zeros((len(words), 1)) if vectors is None else vectors(words)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def leading_words(weights: Mapping[str, float], most: int = 2) -> list[str]:
    """Return the words of most weight, forms of one word as its heaviest form; a second only with half the weight."""
    by_stem: dict[str, dict[str, float]] = defaultdict(dict)
    for word, weight in weights.items():
        by_stem[stem(word)][word] = by_stem[stem(word)].get(word, 0.0) + weight
    ranked = sorted(by_stem.values(), key=lambda forms: -sum(forms.values()))
    totals = [sum(forms.values()) for forms in ranked]
    return [
        max(forms, key=lambda word: (forms[word], -len(word)))
        for forms, total in list(zip(ranked, totals, strict=True))[:most]
        if total >= 0.5 * totals[0]
    ]


BoxKind = Literal["token", "concept", "output", "general", "other", "answer"]
MOST_BOXES, MOST_TOKENS = 12, 4
ALIKE = 0.3
"""Mean likeness of words from which latents at one position are one box."""
LATE = 0.7
"""Depth from which latents on the last token are outputs, as a fraction of the layers."""
OPPOSED = 0.1
"""A group of outputs is two boxes where its weaker sign has at least this part of the other's effects."""
SERVING = 0.1
"""Mean influence over other prompts, as a part of that in the graph, of latents that serve any answer."""
LEAST_SHARE, LEAST_ALONE = 0.0005, 0.003
"""Smallest influence of a group that is a box or whose words are the answer's, and of any other single latent."""
AGAINST = ", against"
"""Ending of the name of a box whose members act against others of the same words."""
LEAST_OTHER = 0.03
"""Smallest share of the box of all other latents on the last token."""
NAMED_EFFECT = 0.2
"""Smallest effect of a box that the sentence names beside a stronger one, as a part of the latter's."""
LEAST_ARROW = 0.03
"""Smallest arrow beside the strongest of a box, as a part of the influence that its target box carries."""


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
    """share of all influence on the target; below 0 where the source lowers the activations of the target box, or
    argues against the answer"""


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

    def lines(self) -> list[str]:
        """Return the story as text: the sentence, then a line for each box with the boxes that it leads to."""
        rows = [f"{self.sentence} ({self.left_out:.0%} of the influence is in no box)"]
        for number, box in enumerate(self.boxes):
            leads = [arrow for arrow in self.arrows if arrow.source == number][:3]
            to = [f"{'' if arrow.weight > 0 else 'against '}{self._end(arrow)}" for arrow in leads]
            rows.append(f"  {box.kind:8} {box.name:28} {box.share:6.1%} {box.effect:+6.2f}  {' · '.join(to)}".rstrip())
        return rows

    def _end(self, arrow: StoryArrow) -> str:
        box = self.boxes[arrow.target]
        return "the answer" if box.kind == "answer" else box.name

    def headline(self) -> str:
        """Return the mechanism in a sentence, and the share that is left out."""
        return f"{self.sentence} {self.left_out:.0%} of the influence is left out."


def tell(
    graph: AttributionGraph,
    words: Mapping[int, NodeWords],
    *,
    usual: Mapping[int, float] | None = None,
    vectors: WordVectors | None = None,
) -> Story | None:
    """Return the story of a graph for its first target; None without targets or without nodes.

    `words` are those of its latents by number; `usual` is the mean influence of latents over other prompts as a part of
    that in this graph (`usual_parts`). `vectors` tell which words are alike; without them only forms of one word are.
    """
    aim = next((i for i, node in enumerate(graph.nodes) if node.kind == "logit" and node.index == 0), None)
    if aim is None or not graph.targets or len(graph.nodes) < 2:
        return None
    return _Telling(graph, words, usual or {}, vectors, aim).story()


@dataclass(frozen=True)
class _Group:
    """Nodes that are to be one box."""

    name: str
    kind: BoxKind
    nodes: list[int]


class _Telling:
    """One graph that is told."""

    def __init__(
        self, graph: AttributionGraph, words: Mapping[int, NodeWords], usual: Mapping[int, float],
        vectors: WordVectors | None, aim: int,
    ) -> None:  # fmt: skip
        self.graph, self.nodes, self.aim = graph, graph.nodes, aim
        layer = np.array([node.layer for node in self.nodes])
        self.walks = Walks(graph.edges.source, graph.edges.target, graph.edges.weight, layer)
        self.start = (np.arange(len(layer)) == aim).astype(float)
        self.visits, self.effects = self.walks.visits(self.start), graph_effects(graph)
        self.last = max(node.position for node in self.nodes)
        self.answer = [part.strip() or "space" for part in graph.targets[0].sides if part]
        self.spans = [(run, word) for run, word in _spans(graph.token_texts) if _is_content(word)]
        positions = {i: node.position for i, node in enumerate(self.nodes)}
        self.topic = Topic(words, positions, [(run[-1], word) for run, word in self.spans], self.answer, vectors)
        latents = (i for i, node in enumerate(self.nodes) if node.kind == "feature")
        self.words = {i: words.get(i, NodeWords()) for i in latents}
        self.background = {i for i, part in usual.items() if part >= LIMIT}
        serving = (i for i, part in usual.items() if part >= SERVING and not self.topic.words.get(i))
        self.general = [i for i in sorted({*serving, *self.background}) if self.nodes[i].position == self.last]

    def story(self) -> Story:
        tokens = self._tokens()
        inside = {i for group in tokens for i in group.nodes}
        concepts = self._merged([group for group in self._concepts(inside) if self._tells(group)])
        serving = [i for i in self.general if i not in inside]
        tokens = sorted(tokens, key=self._interest)[-MOST_TOKENS:]
        room = MOST_BOXES - 2 - bool(serving) - len(tokens)
        concepts = sorted(concepts, key=self._interest)[-room:]
        chosen = sorted(tokens, key=self._place) + sorted(concepts, key=self._place)
        if serving:
            chosen.append(_Group(f"at *{self._word(self.last)}*: general", "general", serving))
        chosen += self._others(chosen)
        chosen.append(_Group(" rather than ".join(self.answer), "answer", [self.aim]))
        boxes, arrows = tuple(self._box(group) for group in chosen), self._arrows(chosen)
        left_out = 1 - self._share([i for group in chosen[:-1] for i in group.nodes])
        return Story(self._sentence(boxes, arrows), boxes, arrows, left_out)

    def _others(self, chosen: Sequence[_Group]) -> list[_Group]:
        """Return the group of the latents on the last token that are in no other; none where it carries little."""
        inside = {i for group in chosen for i in group.nodes}
        rest = [i for i in self.words if self.nodes[i].position == self.last and i not in inside]
        told = bool(rest) and self._share(rest) >= LEAST_OTHER
        return [_Group(f"at *{self._word(self.last)}*: other", "other", rest)] if told else []

    def _place(self, group: _Group) -> tuple[float, int]:
        layer = 0.0 if group.kind == "token" else float(np.mean([self.nodes[i].layer for i in group.nodes]))
        return layer, self.nodes[group.nodes[0]].position

    def _word(self, position: int) -> str:
        """Return the word of the prompt at a position."""
        text = self.graph.token_texts[position]
        return next((word for run, word in self.spans if position in run), text.strip() or repr(text))

    def _tells(self, group: _Group) -> bool:
        """Return whether a group has enough influence to be told, or is about the answer."""
        words = [word for i in group.nodes for word in self.topic.words[i]]
        alone = len(group.nodes) == 1 and self.topic.near_answer(words) < 1
        return bool(self.visits[group.nodes].sum() >= (LEAST_ALONE if alone else LEAST_SHARE))

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
                if self.nodes[i].position in run and i not in self.background
                and (self.nodes[i].layer == 0 or stems & {stem(text) for text in words.reads})
            ]  # fmt: skip
            if tokens:
                groups.append(_Group(word, "token", [*tokens, *readers]))
        return groups

    def _concepts(self, taken: Collection[int]) -> list[_Group]:
        """Return a group for the latents at each position, but those taken, whose words are alike and on the topic."""
        by_position: dict[int, list[int]] = defaultdict(list)
        for i in self.words:
            if self.topic.words.get(i) and i not in taken and i not in self.background:
                by_position[self.nodes[i].position].append(i)
        groups = []
        for members in by_position.values():
            for rows in _clusters(self.topic.likeness(members)):
                groups += self._sides([members[row] for row in rows])
        return groups

    def _merged(self, groups: Sequence[_Group]) -> list[_Group]:
        """Return one group for those of one name before the last token: a concept that several words call up."""
        nodes: dict[tuple[str, BoxKind, bool], list[int]] = defaultdict(list)
        for group in groups:
            nodes[group.name, group.kind, self.nodes[group.nodes[0]].position == self.last] += group.nodes
        return [_Group(name, kind, members) for (name, kind, _), members in nodes.items()]

    def _sides(self, members: list[int]) -> list[_Group]:
        """Return the group of some latents; two where they are outputs that act against each other."""
        layer = np.mean([self.nodes[i].layer for i in members])
        if self.nodes[members[0]].position != self.last or layer < LATE * self.graph.n_layers:
            return [_Group(self._name(members), "concept", members)]
        sides = [[i for i in members if (self.effects[i] > 0) == positive] for positive in (True, False)]
        low, high = sorted(float(np.abs(self.effects[side]).sum()) for side in sides)
        groups = []
        for side in sides if low >= OPPOSED * high else [members]:
            says = 2 * sum(any(word in self.topic.words[i] for word in self.words[i].says) for i in side) >= len(side)
            against = AGAINST if low >= OPPOSED * high and side is sides[1] else ""
            name = f"{'say ' * says}{self._name(side, spoken=says)}{against}"
            groups.append(_Group(name, "output" if says else "concept", side))
        return groups

    def _interest(self, group: _Group) -> float:
        """Return how much a group tells: its influence, more with several members and with words near the answer's."""
        words = [group.name] if group.kind == "token" else [word for i in group.nodes for word in self.topic.words[i]]
        near = self.topic.near_answer(words)
        return float(self.visits[group.nodes].sum()) * (0.5 if len(group.nodes) == 1 else 1.0) * (0.2 + near) ** 2

    def _name(self, members: Sequence[int], *, spoken: bool = False) -> str:
        """Return the two leading words of some latents; with `spoken`, of those that they make the model say."""
        weights: dict[str, float] = defaultdict(float)
        latin = "".join(self.graph.token_texts).isascii()
        for i in members:
            for word, near in self.topic.words[i].items():
                if not spoken or word in self.words[i].says:
                    foreign = latin and not word.isascii()  # readers of the prompt may not know its script
                    weights[word] += (0.3 if foreign else 1.0) * near * (self.visits[i] + 1e-6) ** 0.5
        return ", ".join(leading_words(weights)) if weights else self._name(members)

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
            test=self._test(group) if named else None,
        )  # fmt: skip

    def _test(self, group: _Group) -> BoxTest | None:
        """Return the stored test of a box of this name and these latents."""
        inside = {self.nodes[i].id for i in group.nodes}
        for known in self.graph.groups or ():
            if known.name == group.name and inside == set(known.nodes):
                return BoxTest(agreement=known.agreement, chance=known.chance, holds=known.holds)
        return None

    def _arrows(self, groups: Sequence[_Group]) -> tuple[StoryArrow, ...]:
        """Return the influence between boxes that goes through no third box: the strongest of each, and large ones."""
        active = np.array([-1.0 if node.kind == "feature" and node.activation < 0 else 1.0 for node in self.nodes])
        inside = {i for group in groups for i in group.nodes}
        arrows: list[StoryArrow] = []
        strongest: dict[int, StoryArrow] = {}
        for number, group in enumerate(groups):
            starts, ends = np.zeros(len(self.nodes)), inside - set(group.nodes)
            starts[group.nodes] = self.walks.visits(self.start, group.nodes)[group.nodes]
            reached, signed = self.walks.visits(starts, ends), self.walks.visits(starts, ends, active)
            for origin, source in enumerate(groups[:-1]):
                to_answer = group.nodes == [self.aim]  # in the model itself, as the effect of the box is
                size = float(reached[source.nodes].sum())
                net = float((self.effects if to_answer else signed)[source.nodes].sum())
                if origin == number or size == 0:
                    continue
                arrow = StoryArrow(source=origin, target=number, weight=size if net >= 0 else -size)
                if origin not in strongest or size > abs(strongest[origin].weight):
                    strongest[origin] = arrow
                if size >= LEAST_ARROW * starts.sum():
                    arrows.append(arrow)
        arrows += [arrow for arrow in strongest.values() if arrow not in arrows]
        return tuple(sorted(arrows, key=lambda arrow: -abs(arrow.weight)))

    def _sentence(self, boxes: Sequence[StoryBox], arrows: Sequence[StoryArrow]) -> str:
        """Return the mechanism in at most 25 words: what words call up, and what then speaks for the answer."""
        repeated = " (repeated)" * any(box.kind == "token" and box.name == self.answer[0] for box in boxes)
        answer = " rather than ".join([f"*{self.answer[0]}*{repeated}", *(f"*{side}*" for side in self.answer[1:])])
        late = [box for box in boxes[:-1] if box.position == self.last and box.kind != "token"]
        late = sorted(late, key=lambda box: -abs(box.effect))
        least = NAMED_EFFECT * max([0.0, *(box.effect for box in late)])
        ours = list(dict.fromkeys(_called(box) for box in late if box.effect > least))[:2]
        theirs = [_called(box) for box in late if box.effect < -least and _called(box) not in ours][:1]
        early = self._called_up(boxes, arrows)
        if not early and all(box.kind in ("general", "other") for box in late):
            tokens = [f"*{box.name}*" for box in boxes if box.kind == "token"][:3]
            return f"{_listed(tokens) or 'The prompt'} lead to {answer} through no concept that labels name."
        first = ", ".join(f"*{word}* calls up “{name}”" for word, name in early.items())
        verb = "speaks" if len(ours) == 1 and "latents" not in ours[0] else "speak"
        last = f"{_listed(ours)} {verb} for {answer}" if ours else f"no box speaks for {answer}"
        text = f"{first}; at" if first else "At"
        return f"{text} *{self._word(self.last)}*, {last}" + "".join(f"; {name} against" for name in theirs) + "."

    def _called_up(self, boxes: Sequence[StoryBox], arrows: Sequence[StoryArrow]) -> dict[str, str]:
        """Return two words of the prompt, each with what it calls up: the name of a box that its strongest arrow meets.

        Where no arrow leads from a word to the box, it is the word that the box stands on.
        """
        called: dict[str, str] = {}
        for number, box in sorted(enumerate(boxes), key=lambda row: -row[1].share):
            if box.kind not in ("concept", "output") or box.position == self.last or len(called) == 2:
                continue
            words = [boxes[arrow.source] for arrow in arrows if arrow.target == number]
            word = next((source.name for source in words if source.kind == "token"), self._word(box.position))
            if name := next((text for text in _words(box) if stem(text) != stem(word)), None):
                called.setdefault(word, name)
        return called


def _called(box: StoryBox) -> str:
    """Return how a sentence calls a box on the last token."""
    unnamed = {"general": "general latents", "other": "other latents"}
    return unnamed.get(box.kind) or f"“{_words(box)[0]}”"


def _words(box: StoryBox) -> list[str]:
    """Return the words of a box's name."""
    return box.name.removeprefix("say ").removesuffix(AGAINST).split(", ")


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


def _listed(texts: Sequence[str]) -> str:
    return " and ".join([", ".join(texts[:-1]), *texts[-1:]]) if len(texts) > 1 else "".join(texts)
