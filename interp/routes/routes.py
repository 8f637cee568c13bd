"""Routes of a prompt as an artefact: words that tell other words something, each cut and swapped. Torch-free.

A route leads from one word of a prompt (its source) to a later one (its destination): the attention of the destination
to the source, in every layer and head. `interp.routes.cut` removes it, `swap` lets it carry the values of another
prompt. Effects are in nats: the fall of the log-probability of the answer where a route is cut; 0 changes nothing,
below 0 the route speaks against the answer.
"""

from dataclasses import dataclass, field
from typing import Annotated

from interp.artifacts import Artefact, DocumentField
from interp.nulls import Level
from interp.options import ModelName, PromptText

FLOOR = 0.25
"""Smallest effect of a route that is drawn, in nats; untrained models stay below it."""
DRAWN = 6
"""Routes that are drawn and examined at first, the strongest."""


@dataclass(frozen=True)
class LikelyToken:
    """A next token and its probability."""

    text: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class CarriedWords:
    """Words that the destination loses where a route is cut, read through a lens, beside their null."""

    words: tuple[str, ...]
    """strongest first; empty where the null is not beaten: "not in words" """
    strength: float
    """largest logit that the lost difference adds, in standard deviations over the vocabulary"""
    null: float
    """largest strength of edges cut at the same layers of unrelated texts"""
    without_mlps: bool
    """True where the first word is still read with the destination's own MLPs of these layers held clean"""


@dataclass(frozen=True, kw_only=True)
class CarriedFeature:
    """A feature of a dictionary whose activation falls at the destination where a route is cut."""

    features: str
    number: int
    label: str
    fall: float
    """fall of its activation"""
    null: float
    """largest fall of any feature where edges are cut in unrelated texts"""


@dataclass(frozen=True, kw_only=True)
class RouteHead:
    """A head of a route: its part of the effect, and its attention on the unchanged prompt."""

    layer: int
    head: int
    effect: float
    """nats, where the edge is cut in this head alone"""
    attention: float
    """from the destination to the source, summed over tokens of the source, mean over those of the destination"""


@dataclass(frozen=True, kw_only=True)
class RouteLayers:
    """Layers of a route, by cutting it in some of them."""

    first: int
    last: int
    """the layers that keep nine tenths of the effect where it is cut from `first` on, and up to `last`"""
    share: float
    """effect of the cut in these layers alone, as a part of the whole effect"""
    from_layer: tuple[float, ...]
    """effect of the cut from each layer on, nats"""
    up_to: tuple[float, ...]
    """effect of the cut up to and with each layer, nats"""
    heads: tuple[RouteHead, ...]
    """as few as keep nine tenths of the effect, strongest first"""


@dataclass(frozen=True, kw_only=True)
class Station:
    """Layers in which the MLPs at a word add to the answer: their outputs replaced by means over text."""

    first: int
    last: int
    effect: float
    """nats"""
    words: tuple[str, ...]
    """words that they add, beyond the null of `CarriedWords`; empty for none"""
    restates: bool
    """True where the embedding of the word's last token alone gives the first of them through the lens"""


@dataclass(frozen=True, kw_only=True)
class RouteWord:
    """A word of the prompt: its tokens, and its effect on the answer as a whole."""

    text: str
    first: int
    stop: int
    """positions `first` to `stop - 1`"""
    total: float = 0.0
    """effect where no later word attends to it, nats"""
    kl: float = 0.0
    """the same as KL of the whole next-token distribution, nats"""
    stations: tuple[Station, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Route:
    """An edge between two words, by number, and what cutting it does."""

    source: int
    destination: int
    effect: float
    """nats"""
    kl: float
    """KL of the next-token distribution without the route from the unchanged one, nats"""
    after: tuple[LikelyToken, ...] = ()
    """likeliest next tokens where it is cut"""
    with_words: tuple[int, ...] = ()
    """earlier occurrences of the same word that were cut with it, by number"""
    usual: float | None = None
    """median effect of the same edge on other prompts of this length, nats; None where it was not measured"""
    layers: RouteLayers | None = None
    carried: CarriedWords | None = None
    """None where no lens reads the model"""
    features: tuple[CarriedFeature, ...] = ()

    @property
    def is_usual(self) -> bool:
        """True where the edge does at least half as much on other prompts: an attention sink, not a route."""
        return self.usual is not None and abs(self.usual) >= abs(self.effect) / 2


@dataclass(frozen=True, kw_only=True)
class SwapEffect:
    """What a swap does: probabilities of both answers, and the movement between them."""

    answer: float
    counterpart: float
    """probabilities of the two answers"""
    moved: float
    """rise of the log-probability of the counterpart's answer, nats"""


@dataclass(frozen=True, kw_only=True)
class Swap:
    """Values of one route from another prompt, everything after recomputed, beside its nulls."""

    source: int
    destination: int
    word: str
    instead: str
    prompt: str
    """the other prompt"""
    answer: str
    counterpart: str
    """likeliest next tokens of the two prompts"""
    before: SwapEffect
    after: SwapEffect
    says: tuple[LikelyToken, ...]
    """likeliest next tokens after the swap"""
    whole: float
    """movement with the values of all edges out of the changed words, nats"""
    others: float | None
    """movement with all of them but this one; None where it is the only one"""
    null: tuple[float, ...]
    """movements with unrelated values of equal norm into the same edge, nats"""
    aligned: bool = False
    """True where the two words have different numbers of tokens, and the ends were aligned"""

    @property
    def share(self) -> float:
        """Movement of this route as a part of that of all edges out of the changed words; 0 where these do nothing."""
        return self.after.moved / self.whole if abs(self.whole) > 1e-6 else 0.0

    @property
    def flips(self) -> bool:
        """True where the model then says the counterpart's answer."""
        return bool(self.says) and self.says[0].text == self.counterpart

    @property
    def p(self) -> float:
        """Chance of a null movement at least as large; at least 1 / (1 + draws)."""
        return at_most(self.after.moved, self.null)


@dataclass(frozen=True, kw_only=True)
class EnoughRoutes:
    """A small set of routes that keeps the answer with every other edge cut, pruned greedily."""

    routes: tuple[tuple[int, int], ...]
    """numbers of source and destination"""
    n_edges: int
    """edges between words in all"""
    probability: float
    """of the answer with these routes alone"""
    kl: float
    """KL from the unchanged distribution with these routes alone, nats"""
    kl_none: float
    """the same with no route at all"""
    null: tuple[float, ...]
    """the same with random sets of as many edges, as many of them into the last word"""


@dataclass(frozen=True, kw_only=True)
class RouteSettings:
    """The question: settings that determine the routes of a prompt."""

    model: ModelName
    text: PromptText
    chat: bool = False
    answer: str = ""
    nulls: Level = "quick"
    weight_hash: str = ""


@dataclass(frozen=True, kw_only=True)
class Routes(Artefact, kind="routes", title="Routes of a prompt", made_by="why"):
    """The routes of a prompt: words, edges between them that matter, swaps, and how few are enough."""

    settings: RouteSettings
    answer: str
    """text of the token that is explained: the likeliest next one unless another was asked for"""
    probability: float
    n_edges: int
    """edges between words in all"""
    measured: int
    """edges that were cut one by one; fewer than `n_edges` in a long prompt"""
    tokens: Annotated[tuple[str, ...], DocumentField("tokens.json")]
    says: Annotated[tuple[LikelyToken, ...], DocumentField("says.json")]
    """likeliest next tokens"""
    words: Annotated[tuple[RouteWord, ...], DocumentField("words.json")]
    routes: Annotated[tuple[Route, ...], DocumentField("routes.json")]
    """edges with an effect above `FLOOR`, strongest first; the first `DRAWN` that are not usual are examined"""
    swaps: Annotated[tuple[Swap, ...], DocumentField("swaps.json")] = field(default_factory=tuple)
    enough: Annotated[EnoughRoutes | None, DocumentField("enough.json")] = field(default_factory=lambda: None)
    lens: str = ""
    """lens that reads words: `jacobian`, `logit`; empty for none"""
