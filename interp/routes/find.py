"""The routes of a prompt, step by step: totals of words, edges, then layers, words and stations, and what is enough.

    settings = RouteSettings(model="smollm2-135m", text="The capital of France is", weight_hash=weight_hash(model))
    reader = LostWords.of(model, lens)
    for so_far in find_routes(question_run(model, settings), reader, settings):
        ...                                     # each is a whole `Routes`, with more of it measured

In a prompt of more than `ALL_EDGES` words only edges between the words of the largest totals are cut, and those from
any word into the last one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from interp.circuits.tasks import encoder_with_bos
from interp.errors import PromptError
from interp.lenses.direct_attribution import single_token
from interp.models.adapter import token_strings
from interp.models.generation import prompt_tokens
from interp.models.hooked import HookedModel
from interp.models.identity import tokenizer_of
from interp.nulls import DRAWS
from interp.routes._words import same_words
from interp.routes.carried import LostWords, unrelated_tokens
from interp.routes.cut import CleanRun, Cut, CutEffect, Done, clean_run, cut_effects, likeliest, tokens_of
from interp.routes.enough import enough_routes
from interp.routes.routes import FLOOR, FLOOR_KL, Route, Routes, RouteSettings, RouteWord
from interp.routes.stations import stations
from interp.routes.swap import swap_pairs, swap_routes
from interp.routes.when import route_layers

MOST_WORDS = 100
"""Words of a prompt."""
ALL_EDGES, MOST_SOURCES = 40, 8
"""Words of a prompt up to which every edge is cut; beyond it, words whose edges among each other are."""
OTHER_PROMPTS = 4
"""Unrelated texts of the prompt's length on which an edge is cut too, to tell an attention sink from a route."""
MOST_ROUTES, MOST_SWAPS = 40, 3
"""Routes that are kept, the strongest; and edges of each swap."""


@dataclass(frozen=True)
class _Edges:
    """Cuts of single edges, each with earlier occurrences of the source where there are any."""

    edges: list[tuple[int, int]]
    also: list[tuple[int, ...]]
    cuts: list[Cut]


def question_run(model: HookedModel, settings: RouteSettings) -> CleanRun:
    """Run the prompt of a question, `settings`, once. Of a model without a tokenizer it is token numbers, "3 5 7".

    Raises `PromptError` (empty, one word, too many, an answer of several tokens).
    """
    if not settings.text.strip():
        raise PromptError("the prompt is empty; type some text")
    if tokenizer_of(model, required=False):
        tokens = prompt_tokens(model, settings.text, chat=settings.chat)
    else:
        tokens = torch.tensor([encoder_with_bos(model)(settings.text, bos=True)], device=model.cfg.device)
    run = clean_run(model, tokens)
    if len(run.words) > MOST_WORDS:
        raise PromptError(
            f"the prompt has {len(run.words)} words, and routes are found in at most {MOST_WORDS}; shorten it"
        )
    if not settings.answer:
        return run
    return replace(run, answer=single_token(model, settings.answer, run.log_probs))


def word_cuts(run: CleanRun) -> list[Cut]:
    """Return for each word the cut of all edges out of it; of the last word, and of the sink, there are none."""
    return [
        Cut(tuple(run.positions(s, d) for d in range(s + 1, len(run.words))) if run.words[s].start else ())
        for s in range(len(run.words))
    ]


def edge_cuts(run: CleanRun, totals: Sequence[float]) -> _Edges:
    """Return the cuts of the edges that are measured; a word that was said before is cut with and without those."""
    n, edges = len(run.words), run.edges()
    if n > ALL_EDGES:
        chosen = sorted(range(n), key=lambda word: -abs(totals[word]))[:MOST_SOURCES]
        edges = [(s, d) for s, d in edges if d == n - 1 or (s in chosen and d in chosen)]
    found = _Edges([], [], [])
    for source, destination in edges:
        repeated = tuple(word for word in same_words(run.texts, source) if run.words[word].start)
        for also in dict.fromkeys(((), repeated)):
            found.edges.append((source, destination))
            found.also.append(also)
            found.cuts.append(Cut(run.edges_of((source, *also), destination)))
    return found


def price(run: CleanRun) -> int:
    """Return the tokens that the cuts of words and edges compute."""
    return tokens_of(run, word_cuts(run)) + tokens_of(run, edge_cuts(run, [0.0] * len(run.words)).cuts)


def find_routes(
    run: CleanRun, reader: LostWords, settings: RouteSettings, done: Done | None = None
) -> Iterator[Routes]:
    """Yield what is known of the routes of a prompt after each step; the last value is whole.

    `settings` are the question, and `reader` names the words that routes carry. Raises the errors of swaps first.
    """
    pairs = swap_pairs(run, settings.swap)
    totals = cut_effects(run, word_cuts(run), done)
    model, answer = run.model, run.answer
    words = tuple(
        RouteWord(text=text, first=span.start, stop=span.stop, total=total.effect, kl=total.kl)
        for text, span, total in zip(run.texts, run.words, totals, strict=True)
    )
    now = Routes(
        settings=settings, answer=token_strings(model, [answer])[0], probability=float(run.log_probs[answer].exp()),
        n_edges=len(run.edges()), measured=0, tokens=tuple(token_strings(model, run.tokens[0])),
        says=likeliest(model, run.log_probs), words=words, routes=(), swaps=(), enough=None,
        lens=reader.how,
    )  # fmt: skip
    yield now
    cuts = edge_cuts(run, [word.total for word in words])
    effects = cut_effects(run, cuts.cuts, done)
    now = replace(now, measured=len({*cuts.edges}), routes=_routes(cuts, effects))
    yield now
    now = replace(now, routes=tuple(_usual(run, now.routes, done)))
    yield now
    for part in (now.drawn[:2], now.drawn[2:]):
        more = dict(zip(part, examined(run, part, reader, done), strict=True))
        now = replace(now, routes=tuple(more.get(route, route) for route in now.routes))
        yield now
    named = sorted({word for route in now.drawn for word in (route.source, route.destination)} | {len(words) - 1})
    found = stations(run, named, reader, done)
    now = replace(now, words=tuple(replace(word, stations=found.get(i, ())) for i, word in enumerate(words)))
    yield now
    for source, instead in pairs:
        draws, later = DRAWS[settings.nulls], range(source + 1, len(words))
        swaps = swap_routes(run, source, instead, later, reader.texts, draws)
        now = replace(now, swaps=(*now.swaps, *swaps[:MOST_SWAPS]))
        yield now
    if len(words) <= ALL_EDGES:
        ranked = [edge for edge, also, _ in _ranked(cuts, effects) if not also]
        now = replace(now, enough=enough_routes(run, ranked, DRAWS[settings.nulls], floor=FLOOR, done=done))
        yield now


def _ranked(cuts: _Edges, effects: Sequence[CutEffect]) -> list[tuple[tuple[int, int], tuple[int, ...], CutEffect]]:
    return sorted(zip(cuts.edges, cuts.also, effects, strict=True), key=lambda row: -row[2].kl)


def _routes(cuts: _Edges, effects: Sequence[CutEffect]) -> tuple[Route, ...]:
    """Return the edges with an effect above the floor, the strongest first.

    A repeated word is named with its earlier occurrences where these cut together do more than any of them alone.
    """
    measured = list(zip(cuts.edges, cuts.also, effects, strict=True))
    alone = {edge: abs(changed.effect) for edge, also, changed in measured if not also}
    routes = []
    for (source, destination), also, changed in measured:
        single = max(alone.get((word, destination), 0.0) for word in (source, *also)) if also else 0.0
        if abs(changed.effect) >= FLOOR + single and changed.kl >= FLOOR_KL:
            routes.append(
                Route(
                    source=source, destination=destination, with_words=also,
                    effect=changed.effect, kl=changed.kl, after=changed.after,
                )
            )  # fmt: skip
    return tuple(sorted(routes, key=lambda route: -abs(route.effect))[:MOST_ROUTES])


def _usual(run: CleanRun, routes: Sequence[Route], done: Done | None) -> list[Route]:
    """Return the routes, each with the median effect of the same positions on other prompts of this length."""
    if not routes:
        return []
    effects = []
    cuts = [Cut(run.edges_of(route.sources, route.destination)) for route in routes]
    for number in range(OTHER_PROMPTS):
        tokens = unrelated_tokens(run.model, number, run.tokens.shape[1])
        if tokens.shape != run.tokens.shape:
            return list(routes)
        clean = clean_run(run.model, tokens, joined=False)
        effects.append([changed.effect for changed in cut_effects(clean, cuts, done)])
    medians = torch.tensor(effects).median(0).values.tolist()
    return [replace(route, usual=usual) for route, usual in zip(routes, medians, strict=True)]


def examined(run: CleanRun, routes: Sequence[Route], reader: LostWords, done: Done | None = None) -> list[Route]:
    """Return routes with their layers and heads, and the words that they carry."""
    if not routes:
        return []
    edges = [run.edges_of(route.sources, route.destination) for route in routes]
    known = [
        replace(route, layers=layers) for route, layers in zip(routes, route_layers(run, edges, done), strict=True)
    ]
    return [replace(route, carried=words) for route, words in zip(known, reader.read(run, known), strict=True)]
