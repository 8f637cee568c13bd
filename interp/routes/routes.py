"""Routes of a prompt as an artefact: words that tell other words something, each cut and swapped. Torch-free.

A route leads from one word of a prompt (its source) to a later one (its destination): the attention of the destination
to the source, in every layer and head. `interp.routes.cut` removes it, `swap` lets it carry the values of another
prompt. Effects are in nats: the fall of the log-probability of the answer where a route is cut; 0 changes nothing,
below 0 the route speaks against the answer.
"""

from dataclasses import dataclass, field
from math import nan
from typing import Annotated

from interp.artifacts import Artefact, DocumentField
from interp.claims import Outcome, StatedNumber
from interp.errors import ConfigError
from interp.models.short_name import short_name
from interp.nulls import DRAWS, Level
from interp.options import ModelName, PromptText
from interp.results import ROWS, Record
from interp.routes._words import shown
from interp.text.function_words import FUNCTION_WORDS
from interp.view import Facts, Rows, View

FLOOR, FLOOR_KL = 0.25, 0.05
"""Smallest effect of a route that is drawn, and its smallest KL on the whole next-token distribution, in nats.

The second is for answers that are hardly likelier than the rest. Of 120 prompts of untrained small models, on which it
was chosen, 42 have an edge above the first and 1 above both; of 120 others 14 and none."""
DRAWN = 6
"""Routes that are drawn and examined at first, the strongest."""
MOST_SAID, MOST_TOLD = 16, 3
"""Words of the sentence, and routes that it names as enough, at most: the headline has four words more."""
NEEDED = 1.0
"""Effect in nats below which a few routes that are enough say more than the one that is needed most."""


@dataclass(frozen=True)
class TokenChance:
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
    """strength that 1 in 20 differences without content reach at these layers (`interp.routes.carried`)"""
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
    """largest fall of any feature that 1 in 20 edges of unrelated texts reach"""


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
    """window of layers with most of the effect; where none has four tenths of it, those in which half comes and goes"""
    share: float
    """effect of the cut in these layers alone, as a part of the whole effect"""
    step: int
    """layers between two points of the curves"""
    from_layer: tuple[float, ...]
    """effect of the cut from layer 0, `step`, 2 `step` ... on, nats"""
    up_to: tuple[float, ...]
    """effect of the cut up to the last layer before each next point, nats"""
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
    after: tuple[TokenChance, ...] = ()
    """likeliest next tokens where it is cut"""
    with_words: tuple[int, ...] = ()
    """earlier occurrences of the same word that were cut with it, by number"""
    usual: float | None = None
    """median effect of the same edge on other prompts of this length, nats; None where it was not measured"""
    layers: RouteLayers | None = None
    carried: CarriedWords | None = None
    """None where the route was not examined"""
    features: tuple[CarriedFeature, ...] = ()

    @property
    def sources(self) -> tuple[int, ...]:
        """Words that are cut from the destination: the source, and its earlier occurrences."""
        return (self.source, *self.with_words)

    @property
    def is_usual(self) -> bool:
        """True where the edge does at least half as much on other prompts: an attention sink, not a route."""
        return self.usual is not None and abs(self.usual) >= abs(self.effect) / 2


@dataclass(frozen=True, kw_only=True)
class SwapEffect:
    """Effect of a swap: probabilities of both answers, and the movement between them."""

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
    says: tuple[TokenChance, ...]
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
        """Movement of this route as a part of that of all edges out of the word; 0 where these do nothing.

        1 by construction where the word is next to last, since one edge leads out of it.
        """
        return self.after.moved / self.whole if abs(self.whole) > 1e-6 else 0.0

    @property
    def flips(self) -> bool:
        """True where the model then says the counterpart's answer."""
        return bool(self.says) and self.says[0].text == self.counterpart


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
class RouteConfig:
    """The question: a prompt, and what is asked about its routes."""

    answer: str = ""
    """Token that is explained, with or without its leading space. Default: the likeliest next one."""
    swap: tuple[str, ...] = ()
    """Words whose routes carry another word instead, each as WORD=OTHER, such as France=Italy."""
    chat: bool = False
    """Put the prompt into the model's chat template, as the message of a user."""
    nulls: Level = "quick"
    """Draws of each null: quick 5, standard 19, thorough 99."""


@dataclass(frozen=True, kw_only=True)
class RouteSettings(RouteConfig):
    """Settings that determine the routes of a prompt."""

    model: ModelName
    text: PromptText
    weight_hash: str


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
    says: Annotated[tuple[TokenChance, ...], DocumentField("says.json")]
    """likeliest next tokens"""
    words: Annotated[tuple[RouteWord, ...], DocumentField("words.json")]
    routes: Annotated[tuple[Route, ...], DocumentField("routes.json")]
    """edges above `FLOOR` and `FLOOR_KL`, strongest first; the first `DRAWN` that are not usual are examined"""
    swaps: Annotated[tuple[Swap, ...], DocumentField("swaps.json")] = field(default_factory=tuple)
    enough: Annotated[EnoughRoutes | None, DocumentField("enough.json")] = field(default_factory=lambda: None)
    lens: str = ""
    """lens that reads words: `jacobian` or `logit`"""

    @property
    def drawn(self) -> list[Route]:
        """Routes that are drawn at first: the strongest that are not usual."""
        return [route for route in self.routes if not route.is_usual][:DRAWN]

    @property
    def sentence(self) -> str:
        """The leading routes in at most 16 words: which word tells which, in which layers, and what it carries.

        Of those with a quarter of the largest effect, routes that carry words lead, then those into the last word: of
        prompts whose answer a swap moves, nearly all are moved there (`benchmarks.routes`).
        """
        told = [route for route in self.drawn if self._says_something(route)] or self.drawn
        most = max((abs(route.effect) for route in told), default=0.0)
        if not told or (most < NEEDED and self.enough and len(self.enough.routes) <= MOST_TOLD):
            return self._without_routes()
        told = sorted((route for route in told if abs(route.effect) >= most / 4), key=self._rank)[:2]
        parts = list(dict.fromkeys(self._told(route) for route in told))
        last = self.words[-1]
        if any(self._answers(station) for station in last.stations):
            parts.append(f"{quoted(last.text)} turns it into the answer")
        while len(parts) > 1 and len(" ".join(parts).split()) > MOST_SAID:
            del parts[1 if len(parts) > 2 else -1]
        return "; ".join(parts) + "."

    def _rank(self, route: Route) -> tuple[bool, bool, bool, float]:
        silent = not (route.carried and route.carried.words)
        return route.effect < 0, silent, route.destination != len(self.words) - 1, -abs(route.effect)

    def _answers(self, station: Station) -> bool:
        """Return True for a station that adds the answer among its words."""
        answer = self.answer.strip().casefold()
        return station.effect > 0 and answer in (word.casefold() for word in station.words)

    def _says_something(self, route: Route) -> bool:
        """Return True for a route that carries words, or leads out of a word with a meaning of its own."""
        word = self.words[route.source].text
        named = word.casefold() not in FUNCTION_WORDS and any(char.isalnum() for char in word)
        return named or bool(route.carried and route.carried.words)

    def _without_routes(self) -> str:
        answer, few = quoted(self.answer), self.enough.routes if self.enough else ()
        if few and len(few) <= MOST_TOLD:
            named = [f"{quoted(self.words[s].text)} to {quoted(self.words[d].text)}" for s, d in few]
            listed = " and ".join([", ".join(named[:-1]), named[-1]]) if len(named) > 1 else named[0]
            return f"{listed} {'are' if len(few) > 1 else 'is'} enough for {answer}."
        if any(abs(word.total) >= FLOOR for word in self.words):
            return f"No single route is needed for {answer}: several words tell it."
        return f"No route is needed for {answer}: the last word alone leads to it."

    def _told(self, route: Route) -> str:
        source, destination = self.words[route.source].text, self.words[route.destination].text
        layers = "" if route.layers is None else f" in layers {route.layers.first} to {route.layers.last}"
        words = ", ".join(route.carried.words) if route.carried else ""
        against = "" if route.effect > 0 else ", against the answer"
        said = f"{quoted(source)}{' (each time)' if route.with_words else ''}"
        return f"{said} tells {quoted(destination)}{layers}{against}" + (f": {words}" if words else "")

    def view(self) -> View:
        model = short_name(self.settings.model)
        likeliest = not self.says or self.says[0].text == self.answer
        verb, chance = ("says", f"({self.probability:.0%})") if likeliest else ("gives", f"{self.probability:.1%}")
        yield f"{model} {verb} {quoted(self.answer)} {chance}: {self.sentence}"
        usual = sum(route.is_usual for route in self.routes)
        yield Facts(
            ("answer", f"{quoted(self.answer)} {self.probability:.0%}"),
            ("edges cut", f"{self.measured:,} of {self.n_edges:,}"),
            (f"routes above {FLOOR} nats", str(len(self.routes) - usual)),
            ("usual on any prompt", str(usual)),
        )
        yield from [f"  {self._told(route)} ({route.effect:+.2f} nats)" for route in self.drawn]
        yield from [self._swap_line(swap) for swap in self.swaps]
        if self.enough is not None:
            yield self._enough_line(self.enough)
        yield Rows(lambda: self.to_records()[:ROWS])

    def stated(self) -> dict[str, StatedNumber]:
        """Return what a claim may say: how far one route moves the answer with the values of another word.

        It holds beyond all draws of the null, and is undecided below 19 of them. Raises `ConfigError` without a swap.
        """
        if not self.swaps:
            raise ConfigError("these routes have no swap to claim; measure them with --swap WORD=OTHER")
        swap, model = self.swaps[0], short_name(self.settings.model)
        null = max(swap.null, default=nan)
        few = len(swap.null) < DRAWS["standard"]
        beyond: Outcome = "undecided" if few else "supported"
        return {
            "swap": StatedNumber(
                sentence=f"One route carries {quoted(swap.word)} in {model}: with the values of {quoted(swap.instead)} "
                f"instead, the answer moves to {quoted(swap.counterpart)}",
                subject="route",
                formula="rise of the log-probability of the other prompt's answer, by the edge that moves it most",
                unit="nats", value=swap.after.moved, low=None, high=None, null=null,
                nulls=(f"{len(swap.null)} draws of unrelated values of equal norm on the same edge",),
                outcome="not supported" if swap.after.moved <= null else beyond,
            )
        }  # fmt: skip

    def to_records(self) -> list[Record]:
        """Return one row per route: source, destination, effect, layers, the words that it carries."""
        return [
            {
                "from": self.words[route.source].text, "to": self.words[route.destination].text,
                "effect": route.effect, "usual": route.usual,
                "layers": None if route.layers is None else f"{route.layers.first}-{route.layers.last}",
                "carries": ", ".join(route.carried.words) if route.carried else "",
                "strength": route.carried.strength if route.carried else None,
                "null": route.carried.null if route.carried else None,
            }
            for route in self.routes
        ]  # fmt: skip

    def _swap_line(self, swap: Swap) -> str:
        null = f"unrelated values at most {max(swap.null):+.2f}" if swap.null else "no null"
        return (
            f"  {quoted(swap.instead)} instead of {quoted(swap.word)} to {quoted(self.words[swap.destination].text)}: "
            f"{quoted(swap.counterpart)} {swap.before.counterpart:.3f} -> {swap.after.counterpart:.3f} "
            f"({swap.after.moved:+.2f} nats; {null}; all its edges {swap.whole:+.2f})"
        )

    def _enough_line(self, enough: EnoughRoutes) -> str:
        null = f"; random sets {min(enough.null):.2f} at least" if enough.null else ""
        return (
            f"  enough: {len(enough.routes)} of {enough.n_edges} edges keep the answer at {enough.probability:.0%} "
            f"(KL {enough.kl:.2f} nats; with no route {enough.kl_none:.2f}{null})"
        )


def quoted(text: str) -> str:
    """Return a word as a sentence names it."""
    return f"“{shown(text)}”"
