"""What counts as no change. A change stands beside what the same measure says of models that differ in nothing.

- *continuations*: the base trained on, with the same data and other seeds, without what is asked about. At least three,
  since the bound is a prediction: where would one more continuation lie? Of `n` log values per test the spread is
  moderated, `(d0 s0^2 + (n - 1) s^2) / (d0 + n - 1)` with the mean variance of all tests as `s0^2` (Smyth 2004, with
  `d0` fixed at 4, 0 of a single test), and the bound is Student's at 5 % over all tests (Bonferroni). Where the true
  spreads of all tests are alike it errs less often than that (.3 % of families of 20), since it does not count on it
- *rounding*, where there is no continuation: the base with its weights rounded to bfloat16, as many a checkpoint is
  stored. Below twice that change nothing is said.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from interp.difference.components import check_comparable, components, written
from interp.errors import ConfigError

FAMILY_WISE = 0.05
ROUNDING_MARGIN = 2.0
PRIOR_DEGREES = 4
SMALLEST = 1e-12
"""what is smaller is taken for nothing"""


def null_models(base: Any, continuations: Sequence[Any]) -> list[AbstractContextManager[Any]]:
    """Each null as a context that gives a model: the continuations, or the base while it is rounded.

    Raises `ConfigError` for one or two continuations, `MismatchError` for one of another architecture.
    """
    check_count(continuations)
    for model in continuations:
        check_comparable(base, model)
    return [contextlib.nullcontext(model) for model in continuations] or [rounded(base)]


def check_count(continuations: Sequence[Any]) -> None:
    """Raises `ConfigError` for one or two continuations: they have no spread to speak of."""
    if 0 < len(continuations) < 3:
        raise ConfigError(
            f"{len(continuations)} continuations say too little of how far such models lie apart; give at least 3, or "
            "none (then the floor is rounding to bfloat16)"
        )


def describe_null(n_continuations: int) -> str:
    """In words."""
    if n_continuations:
        return f"{n_continuations} continuations of the base"
    return f"{ROUNDING_MARGIN:g} times what rounding the base to bfloat16 changes"


@contextlib.contextmanager
def rounded(model: Any) -> Iterator[Any]:
    """The model with its weights rounded to bfloat16 for the length of the block."""
    parts = components(model)
    with written(parts, [[t.to(torch.bfloat16).to(t.dtype) for t in part.tensors] for part in parts]):
        yield model


def upper_bound(values: np.ndarray, *, n_tests: int, log: bool = True) -> np.ndarray:
    """`[...]`: what one more null stays below, at 5 % over `n_tests`, of `values [n_null, ...]`.

    With `log` values are sizes (0 or more) and the spread is one of ratios. Of a single null it is twice its value.
    """
    from scipy.stats import t

    values = np.asarray(values, dtype=np.float64)
    if len(values) == 1:
        return ROUNDING_MARGIN * values[0]
    scaled = np.log(np.maximum(values, SMALLEST)) if log else values
    mean, variance = scaled.mean(0), scaled.var(0, ddof=1)
    own, prior = len(values) - 1, PRIOR_DEGREES if variance.size > 1 else 0
    moderated = (prior * variance.mean() + own * variance) / (prior + own)
    quantile = t.ppf(1 - FAMILY_WISE / max(n_tests, 1), prior + own)
    bound = mean + quantile * np.sqrt(moderated * (1 + 1 / len(values)))
    return np.exp(bound) if log else bound
