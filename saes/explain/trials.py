"""The questions that a scorer is asked about one feature.

*Detection*: here are contexts; in which does the feature fire? *Fuzzing*: here are contexts on which it fires, with
some tokens marked; in which are the marks right? (Paulo et al. 2024, arXiv 2410.13928.) Wrong marks lie on tokens of
the same context where the feature is silent, as many and in the same pattern, so that only the explanation tells them
apart. A context meets a scorer with right and with wrong marks, but never twice in one request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from saes.explain.contexts import Context

Scorer = Literal["detection", "fuzzing"]
CROP = 8
"""Tokens cut off a fuzzing context, at random left or right: the middle of the context would give right marks away."""


@dataclass(frozen=True)
class Trial:
    """One context to judge."""

    context: Context
    marks: tuple[bool, ...]
    """which tokens are shown as marked; none for detection"""
    truth: bool
    """the right answer: it fires here (detection), the marks are right (fuzzing)"""


@dataclass(frozen=True)
class Case:
    """Everything that is asked about one feature."""

    feature: int
    statistics_label: str
    maximum: float
    """its largest activation"""
    shown: list[Context]
    detection: list[list[Trial]]
    """one list per request"""
    fuzzing: list[list[Trial]]

    def requests(self, scorer: Scorer) -> list[list[Trial]]:
        return self.detection if scorer == "detection" else self.fuzzing


def detection_trials(
    firing: Sequence[Context], silent: Sequence[Context], *, per_request: int, generator: np.random.Generator
) -> list[list[Trial]]:
    """Firing and silent contexts in random order, cut into requests."""
    trials = [
        Trial(c, (False,) * len(c.tokens), truth) for truth, side in ((True, firing), (False, silent)) for c in side
    ]
    return cut_requests(trials, per_request, generator)


def fuzzing_trials(firing: Sequence[Context], *, per_request: int, generator: np.random.Generator) -> list[list[Trial]]:
    """Every context twice, with right and with wrong marks; those without room for wrong marks are left out."""
    pairs = []
    for context in firing:
        context = crop(context, generator)
        wrong = wrong_marks(context, generator)
        if wrong is not None:
            pairs.append((Trial(context, context.marked, True), Trial(context, wrong, False)))
    rounds = [[pair[(number + turn) % 2] for number, pair in enumerate(pairs)] for turn in (0, 1)]
    return [request for each in rounds for request in cut_requests(each, per_request, generator)]


def cut_requests(trials: Sequence[Trial], per_request: int, generator: np.random.Generator) -> list[list[Trial]]:
    """Shuffled, and cut into as few requests as hold them, of nearly equal size."""
    if not trials:
        return []
    order = generator.permutation(len(trials))
    parts = np.array_split(order, -(-len(trials) // per_request))
    return [[trials[i] for i in part] for part in parts]


def crop(context: Context, generator: np.random.Generator) -> Context:
    """The context without `CROP` tokens, its peak kept: some go at the left, the others at the right."""
    n, peak = len(context.tokens), int(np.argmax(context.activations))
    spare = min(CROP, n - 1)
    low, high = max(0, spare - (n - 1 - peak)), min(spare, peak)
    left = int(generator.integers(low, high + 1))
    kept = slice(left, n - (spare - left))
    return Context(context.row, context.tokens[kept], context.activations[kept], context.group)


def wrong_marks(context: Context, generator: np.random.Generator) -> tuple[bool, ...] | None:
    """As many marks as the right ones on tokens where the feature is silent; None where there are too few such tokens.

    The pattern of the right marks is moved as a whole where it fits, else the marks are scattered.
    """
    right, silent = np.array(context.marked), np.array(context.activations) == 0
    places = np.flatnonzero(right)
    shifts = [s for s in range(-int(places[0]), len(right) - int(places[-1])) if silent[places + s].all()]
    if shifts:
        chosen = places + int(generator.choice(shifts))
    elif silent.sum() >= len(places):
        chosen = generator.choice(np.flatnonzero(silent), len(places), replace=False)
    else:
        return None
    marks = np.zeros(len(right), bool)
    marks[chosen] = True
    return tuple(marks.tolist())
