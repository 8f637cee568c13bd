"""Nulls: their kinds, how many draws of each a result is compared with, its p-value, and the words of a verdict.

A null is the same statistic where there is no effect by construction. `DRAWS` and `NUMERIC_DRAWS` have the counts by
level. A count determines the smallest p-value, `1 / (1 + draws)`. Torch-free.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from interp.errors import NonFiniteError

Level = Literal["quick", "standard", "thorough"]
"""Cost of a null: p can reach 1/6, 1/20 or 1/100."""
DRAWS: dict[Level, int] = {"quick": 5, "standard": 19, "thorough": 99}
"""Draws that each cost passes of a model or a fit (directions, prompts, circuits, untrained models), by level."""
NUMERIC_DRAWS: dict[Level, int] = {"quick": 199, "standard": 999, "thorough": 9_999}
"""Draws that cost arithmetic only (shuffled labels, orders, directions that are projected on), by level."""
PER_PART = 9
"""Draws that are measured again for each of many parts: maps of patches, sizes of a circuit, cells of steering."""
SHOWN = 2
"""Draws that are shown with a result and test nothing: continuations, curves of strengths."""
ALIKE_LATENTS = 39
"""Latents of like density for each latent of a concept: more of a pool of 200 would be less alike."""
OTHER_LABELS = 100
"""Labels of other features that a label is judged by: those that ship were, and a table of features does not say it."""
SHUFFLED_MAPS = 40
"""Atlases with shuffled labels: each is named anew, which takes seconds."""
CURVES, CURVES_ALIKE = 2_000, 200
"""Simulated circles and horseshoes, and those of the nearest quality among them: simulated once for each shape."""
ALPHA = 0.05
"""Largest p-value of an effect that lies beyond a null."""
ROUNDING = 1e-12
"""Draws within this of a value count as reaching it."""

NullKind = Literal[
    "random directions",
    "random decoder directions",
    "features of like density",
    "random latents",
    "untrained latents",
    "random groups of latents",
    "random nodes",
    "random heads",
    "random circuits",
    "random rotations",
    "random changes of the same size",
    "values of random tokens",
    "random pairs",
    "random orders",
    "shuffled labels",
    "shuffled pairs",
    "shuffled rows",
    "words dealt to lists at random",
    "shuffled edges",
    "labels of other features",
    "isotropic points",
    "continuations of the base",
    "untrained models",
]
"""Kinds of null, as a sentence names several draws of one."""


@dataclass(frozen=True)
class Null:
    """Words for one draw of a null, and the properties that the null keeps fixed."""

    one: str
    fixed: str


NULLS: dict[NullKind, Null] = {
    "random directions": Null("random direction", "the norm and the hook point"),
    "random decoder directions": Null("random decoder direction", "the dictionary and the norm"),
    "features of like density": Null("feature of like density", "the dictionary, about the density, and the norm"),
    "random latents": Null("random latent", "the layers, the positions and the amounts of the change"),
    "untrained latents": Null("untrained latent", "the text, the number of words, and that it writes what it reads"),
    "random groups of latents": Null("random group of latents", "the sizes of the groups and their layers"),
    "random nodes": Null("set of random nodes", "the number of active features at each hook point"),
    "random heads": Null("random head", "the examples and the kind of ablation"),
    "random circuits": Null("random circuit", "the number of edges"),
    "random rotations": Null("random rotation", "singular values; read and write side are rotated independently"),
    "random changes of the same size": Null("random change of the same size", "the part of the model that changes"),
    "values of random tokens": Null("value of a random token", "the prompts, the hook point and the positions"),
    "random pairs": Null("random pair", "one of the two, and the dictionary of the other"),
    "random orders": Null("random order", "the items and all distances between them"),
    "shuffled labels": Null("shuffling of labels", "the rows and the number of each label"),
    "shuffled pairs": Null("shuffling of pairs", "the words on both sides"),
    "shuffled rows": Null("shuffling of rows", "both clouds of points"),
    "words dealt to lists at random": Null("dealing of words to lists", "the words and the sizes of the lists"),
    "shuffled edges": Null("shuffling of edges", "the weights of each latent's edges, within a layer and position"),
    "labels of other features": Null("label of another feature", "the feature's firings and the kind of label"),
    "isotropic points": Null("cloud of isotropic points", "the number of points and of dimensions"),
    "continuations of the base": Null("continuation of the base", "the architecture and the start of the training"),
    "untrained models": Null("untrained model", "the architecture and the distribution of initial weights"),
}
"""Every kind of null."""

BEYOND, WITHIN = "beyond the null", "within the null"
"""Verdicts on a value by one null, or by all of them."""
NO_EFFECT = f"no effect {BEYOND}"
"""Verdict on a test whose value lies beyond none of its nulls."""


def draws_of(n: int, kind: NullKind) -> str:
    """Return a number of draws in words: `19 random directions`, `1 random direction`, `no random directions`."""
    return f"1 {NULLS[kind].one}" if n == 1 else f"{n or 'no'} {kind}"


def smallest_p(draws: int) -> float:
    """Return the smallest p-value that a number of draws allows."""
    return 1 / (1 + draws)


def null_range(kind: NullKind, mean: str, high: str) -> str:
    """Return the mean and maximum of a null as text: `shuffled labels 0.51, at most 0.62`."""
    return f"{kind} {mean}, at most {high}"


def null_verdict(is_beyond: bool) -> str:
    """Return the verdict on a value by its null: `beyond the null`, `within the null`."""
    return BEYOND if is_beyond else WITHIN


@dataclass(frozen=True)
class NullComparison:
    """A value, with the same statistic for every draw of one null or several; larger is an effect."""

    value: float
    draws: dict[NullKind, list[float]]
    """by kind of null, in the order of a sentence; a null without draws is missing"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "draws", {kind: null for kind, null in self.draws.items() if len(null)})

    def p_by(self, kind: NullKind) -> float:
        """Return the one-sided p-value by one null."""
        return p_from_null(self.value, self.draws[kind])

    @property
    def p(self) -> float:
        """Largest p-value by any null; 1 without a draw."""
        return max((self.p_by(kind) for kind in self.draws), default=1.0)

    @property
    def smallest_p(self) -> float:
        """Smallest p-value that the draws allow."""
        return smallest_p(min(map(len, self.draws.values()), default=0))

    def within(self, alpha: float = ALPHA) -> list[NullKind]:
        """Return the nulls that the value does not lie beyond."""
        return [kind for kind in self.draws if self.p_by(kind) > alpha]

    def verdict(self, alpha: float = ALPHA) -> str:
        """Return the verdict in words: `beyond both nulls`, `not beyond random directions`.

        Where it lies beyond none of several nulls, or there is none, that is `no effect beyond the null`.
        """
        within = self.within(alpha)
        if not self.draws or len(within) == len(self.draws) > 1:
            return NO_EFFECT
        if within:
            return f"not beyond {' or '.join(within)}"
        return "beyond both nulls" if len(self.draws) == 2 else f"beyond {' and '.join(self.draws)}"

    def exceeds(self) -> str:
        """Return how many draws it exceeds: `more than 18 of 19 random directions and 99 of 99 random latents`."""
        counts = [
            f"{(np.asarray(null) < self.value - ROUNDING).sum()} of {len(null)} {kind}"
            for kind, null in self.draws.items()
        ]
        return "more than " + " and ".join([", ".join(counts[:-1])] * (len(counts) > 1) + counts[-1:])


def p_from_null(
    value: Any,
    null: ArrayLike,
    *,
    alternative: Literal["greater", "less", "two-sided"] = "greater",
    tolerance: float = ROUNDING,
) -> Any:
    """Return the p-value of `value [...]` against draws `null [n, ...]`: `(1 + draws that reach it) / (1 + n)`.

    It is never 0. "two-sided" compares absolute values, for a null around 0. Draws within `tolerance` of the value
    count as reaching it. Raises `NonFiniteError` on NaN.
    """
    value, null = np.asarray(value, dtype=np.float64), np.asarray(null, dtype=np.float64)
    if np.isnan(value).any() or np.isnan(null).any():
        raise NonFiniteError("a statistic or its null is NaN, so they cannot be compared; look at the input's values")
    if alternative == "two-sided":
        value, null = np.abs(value), np.abs(null)
    elif alternative == "less":
        value, null = -value, -null
    p = (1 + (null >= value - tolerance).sum(0)) / (1 + len(null))
    return p if np.ndim(p) else float(p)


def can_hold(value: float, null: ArrayLike, draws: int) -> bool:
    """Return whether p can still be at most 0.05 after `draws` draws, of which `null` are the first.

    Where it cannot, further draws change no verdict (a sequential Monte Carlo test, Besag and Clifford 1991).
    """
    reaching = (np.asarray(null) >= value - ROUNDING).sum()
    return bool((1 + reaching) / (1 + draws) <= ALPHA + ROUNDING)


def prediction_bound(
    mean: Any, spread: Any, n: int, *, n_tests: Any, df: int | None = None, error: float = ALPHA
) -> Any:
    """Return a bound for one more draw of a null, with a family-wise `error` over `n_tests` (Bonferroni).

    `mean` and `spread` (standard deviation) are of `n` draws from a normal distribution, two at least; the spread has
    `df` degrees of freedom (`n - 1` by default). Numbers, or arrays that broadcast.
    """
    from scipy.special import stdtrit

    quantile = stdtrit(n - 1 if df is None else df, 1 - error / n_tests)
    return mean + quantile * spread * np.sqrt(1 + 1 / n)


def holm(p: np.ndarray) -> np.ndarray:
    """Apply Holm's (1979) step-down adjustment over all entries: below 0.05 is a 5 % family-wise error.

    (scipy only adjusts for the false discovery rate.)
    """
    flat = np.asarray(p, dtype=np.float64).ravel()
    order = np.argsort(flat, kind="stable")
    scaled = np.maximum.accumulate(flat[order] * (len(flat) - np.arange(len(flat))))
    adjusted = np.empty_like(flat)
    adjusted[order] = np.minimum(scaled, 1.0)
    return adjusted.reshape(np.shape(p))
