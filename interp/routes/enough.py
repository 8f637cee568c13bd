"""A small set of routes that keeps the next-token distribution with every other edge between words cut.

The edges of the largest KL, as many as keep the distribution, are pruned: those whose loss changes least, at most one
in five at once. That is greedy: another set may be smaller. What counts is KL, not the probability of the answer, which
a set can raise. The null are random sets of as many edges, as many of them into the last word.
"""

from collections.abc import Collection, Sequence

import torch

from interp.routes.cut import CleanRun, Cut, Done, cut_effects
from interp.routes.routes import EnoughRoutes
from interp.seeds import make_generator

KEPT = 0.1
"""Largest KL of the set, as a part of that without any route."""
STEPS, FIFTH = 12, 5
"""Sizes of the set from which edges are pruned; at most one in five of them at once."""

Edge = tuple[int, int]


def all_but(run: CleanRun, kept: Collection[Edge]) -> Cut:
    """Return the cut of every edge between words but some."""
    return Cut(tuple(run.positions(*edge) for edge in run.edges() if edge not in kept))


def enough_routes(
    run: CleanRun, ranked: Sequence[Edge], draws: int, *, floor: float, done: Done | None = None
) -> EnoughRoutes:
    """Return the smallest set that greedy pruning finds; `ranked` are the edges, those with the largest KL first.

    No route at all is enough where the distribution then changes by less than `floor` nats.
    """
    none = cut_effects(run, [all_but(run, ())], done)[0]
    kept: list[Edge] = []
    if none.kl >= floor:
        bound = KEPT * none.kl
        sizes = sorted({max(1, round(len(ranked) * step / STEPS)) for step in range(1, STEPS + 1)})
        grown = cut_effects(run, [all_but(run, ranked[:size]) for size in sizes], done)
        size = next((size for size, changed in zip(sizes, grown, strict=True) if changed.kl <= bound), sizes[-1])
        kept = _pruned(run, list(ranked[:size]), bound, done)
    with_set = cut_effects(run, [all_but(run, kept)], done)[0]
    null = cut_effects(run, [all_but(run, drawn) for drawn in _drawn(run, kept, draws)], done) if kept else []
    return EnoughRoutes(
        routes=tuple(kept), n_edges=len(run.edges()), kl=with_set.kl, kl_none=none.kl,
        probability=float(run.log_probs[run.answer].exp()) * float(torch.tensor(-with_set.effect).exp()),
        null=tuple(changed.kl for changed in null),
    )  # fmt: skip


def _pruned(run: CleanRun, kept: list[Edge], bound: float, done: Done | None) -> list[Edge]:
    at_once = max(1, len(kept) // FIFTH)
    while len(kept) > 1:
        tried = cut_effects(run, [all_but(run, [e for e in kept if e != edge]) for edge in kept], done)
        order = sorted(range(len(kept)), key=lambda number: tried[number].kl)
        at_once = min(at_once, max(1, len(kept) // FIFTH))
        while at_once:
            rest = [edge for number, edge in enumerate(kept) if number not in order[:at_once]]
            if cut_effects(run, [all_but(run, rest)], done)[0].kl <= bound:
                kept = rest
                break
            at_once //= 2
        else:
            break
    return kept


def _drawn(run: CleanRun, kept: Sequence[Edge], draws: int) -> list[list[Edge]]:
    """Return random sets with as many edges, as many of them into the last word."""
    end = len(run.words) - 1
    into = [edge for edge in run.edges() if edge[1] == end]
    rest = [edge for edge in run.edges() if edge[1] != end]
    n_into = sum(edge[1] == end for edge in kept)
    sets = []
    for number in range(draws):
        draw = make_generator(number, "random routes")
        parts = ((into, n_into), (rest, len(kept) - n_into))
        sets.append([edges[i] for edges, n in parts for i in torch.randperm(len(edges), generator=draw)[:n].tolist()])
    return sets
