"""Acts on the routes of a prompt: why the model says its answer, one edge in full, and one with another word's values.

Torch-free until an act is measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from interp.acts import Act, Streamed
from interp.errors import PromptError
from interp.nulls import DRAWS, Level
from interp.options import Count, base_of
from interp.routes.routes import CarriedFeature, Route, RouteConfig, Routes, RouteSettings, Swap
from saes.acts.prompt import OnPrompt
from saes.acts.run import Run
from saes.features.schema import Features, labels

if TYPE_CHECKING:
    from interp.routes.cut import CleanRun


@dataclass(frozen=True, kw_only=True)
class AskWhy(RouteConfig, OnPrompt, Streamed[Run, Routes]):
    """Ask why a model says what it says next: which words tell which, in which layers, and what they carry.

    Every step is the whole answer so far: totals of words, edges, their layers and words, swaps, and how few edges are
    enough. Nulls: words are read where they beat mixtures of differences from unrelated texts; swaps stand beside
    unrelated values of equal norm, a set of routes beside random sets. Raises `PromptError` (empty, one word, too many
    words, an answer of several tokens), `UnknownNameError` for a swap of a word that is not there.
    """

    verb: ClassVar[str] = "why"

    def measure(self, run: Run) -> Iterator[Routes]:
        from interp.routes.find import find_routes, price

        run.check("reading the prompt")
        config, digest = vars(base_of(self, RouteConfig)), run.weight_hash(self.model)
        settings = RouteSettings(**config, model=self.model, text=self.text, weight_hash=digest)
        reading, reader = _read(run, settings), run.lost_words(self.model)
        whole: Routes | None = None
        done, total = 0, price(reading)
        with run.progress("cutting edges", "tokens") as progress:

            def count(tokens: int) -> None:
                nonlocal done
                done += tokens
                progress(done, max(done, total), {})  # what follows the edges depends on them

            for whole in find_routes(reading, reader, settings, count):
                yield whole
        assert whole is not None  # the first step has the totals of words
        yield replace(whole, routes=tuple(_with_features(run, self.model, reading, route) for route in whole.routes))


@dataclass(frozen=True, kw_only=True)
class OnRoute(OnPrompt):
    """Fields of the acts on one edge between two words."""

    source: Count
    """Number of the word that is attended to, from 0."""
    destination: Count
    """Number of a later word."""
    answer: str = ""
    """Token that is explained. Default: the likeliest next one."""

    def opened(self, run: Run) -> "CleanRun":
        """Return a run of the prompt. Raises `PromptError` for an edge that is not there."""
        settings = RouteSettings(model=self.model, text=self.text, chat=self.chat, answer=self.answer, weight_hash="")
        reading = _read(run, settings)
        if (self.source, self.destination) not in reading.edges():
            raise PromptError(
                f"an edge leads from one word to a later one, and not from the first token; the prompt has words 0 to "
                f"{len(reading.words) - 1}, got {self.source} to {self.destination}"
            )
        return reading


@dataclass(frozen=True, kw_only=True)
class ExamineRoute(OnRoute, Act[Run, Route]):
    """Cut one edge between two words of a prompt: its effect, its layers and heads, and the words that it carries.

    Raises `PromptError` for an edge that is not there.
    """

    verb: ClassVar[str] = "route"

    def measure(self, run: Run) -> Route:
        from interp.routes.cut import Cut, cut_effects
        from interp.routes.find import examined

        reading = self.opened(run)
        effect = cut_effects(reading, [Cut((reading.positions(self.source, self.destination),))])[0]
        route = Route(
            source=self.source, destination=self.destination, effect=effect.effect, kl=effect.kl, after=effect.after
        )
        known = examined(reading, [route], run.lost_words(self.model), lambda _: run.check())[0]
        return _with_features(run, self.model, reading, known)


@dataclass(frozen=True, kw_only=True)
class SwapRoute(OnRoute, Act[Run, Swap]):
    """Let one edge carry the values of another word, and read the next token: before, after, and its null.

    The null are unrelated values of equal norm on the same edge. Raises `PromptError` where the other prompt has the
    same answer, or for an edge that is not there.
    """

    verb: ClassVar[str] = "swap_route"
    instead: str
    """The word instead of the source."""
    nulls: Level = "quick"
    """Draws of the null: quick 5, standard 19, thorough 99."""

    def measure(self, run: Run) -> Swap:
        from interp.routes.swap import swap_routes

        if not self.instead.strip():
            raise PromptError("the word to swap with is empty; type one")
        reading, others = self.opened(run), run.lost_words(self.model).texts
        return swap_routes(reading, self.source, self.instead.strip(), [self.destination], others, DRAWS[self.nulls])[0]


def _with_features(run: Run, spec: str, reading: "CleanRun", route: Route) -> Route:
    """Return a route with the features that its destination loses, by the newest SAE that reads the residual stream."""
    from interp.routes.carried import lost_features

    read = (features for features in run.workspace.values(Features) if features.settings.model == spec and features.sae)
    described = next((features for features in read if features.settings.hook_point.endswith("hook_resid_post")), None)
    if route.layers is None or described is None:
        return route
    name = described.name
    lost, null = lost_features(reading, route, run.described_sae(name, spec), run.lost_words(spec).texts)
    named = labels(run.workspace, name, [number for number, _ in lost])
    found = [
        CarriedFeature(features=name, number=number, label=named.get(number, ""), fall=fall, null=null)
        for number, fall in lost
    ]
    return replace(route, features=tuple(found))


def _read(run: Run, settings: RouteSettings) -> "CleanRun":
    """Return a run of the prompt of a question."""
    from interp.routes.find import question_run

    return question_run(run.model(settings.model), settings)
