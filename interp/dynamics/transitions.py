"""Is there a sudden change on a curve, and when?

A curve goes from where it starts to where it ends; its *onset*, *middle* and *end* are where it has gone 10, 50 and
90 % of the way for good (it does not come back below). It is a transition when two things hold:

- the way is long: at least `SIGNAL` times the typical step of the curve where it lies flat, and at least `least`;
- it is quick: from onset to end takes at most `QUICK` of the steps. A line takes 80 %, and is no transition.

Steps may be any rising numbers. Between two measurements the crossing is interpolated, so no place is known better than
to the distance of measurements.
"""

from typing import NamedTuple

import numpy as np

from interp.errors import ConfigError, NonFiniteError

SIGNAL = 8.0
QUICK = 0.5
FEWEST = 8


class Transition(NamedTuple):
    """What was found; the places are None where nothing was."""

    found: bool
    reason: str
    """one sentence"""
    onset: float | None
    middle: float | None
    end: float | None
    before: float
    """median of the first tenth of the curve"""
    after: float
    """median of its last tenth"""
    noise: float
    """typical step of the flat parts: median absolute difference of successive values at both ends"""


def find_transition(steps: np.ndarray, values: np.ndarray, *, least: float = 0.0) -> Transition:
    """The transition of a curve `values [n]` over rising `steps [n]`, if it goes at least the way `least` (its units).

    Raises `ConfigError` for fewer than 8 measurements or steps that do not rise, `NonFiniteError`.
    """
    steps, values = _curve(steps, values)
    if len(steps) < FEWEST or (np.diff(steps) <= 0).any():
        raise ConfigError(f"a transition needs {FEWEST} measurements or more at rising steps, got {len(steps)}")
    if not least >= 0:
        raise ConfigError(f"the way that counts must be at least 0 in units of the curve, got least {least}")
    tenth = max(2, len(values) // 10)
    before, after = float(np.median(values[:tenth])), float(np.median(values[-tenth:]))
    fifth = max(3, len(values) // 5)
    noise = float(np.median(np.abs(np.concatenate([np.diff(values[:fifth]), np.diff(values[-fifth:])]))))
    way = after - before
    if abs(way) <= max(SIGNAL * noise, least) or way == 0:
        return Transition(False, "it ends about where it began", None, None, None, before, after, noise)
    gone = (values - before) / way
    onset, middle, end = (crossing(steps, gone, level) for level in (0.1, 0.5, 0.9))
    share = (end - onset) / (steps[-1] - steps[0])
    if share > QUICK:
        reason = f"it changes over {share:.0%} of the time: gradual, no transition"
        return Transition(False, reason, None, None, None, before, after, noise)
    reason = f"from 10 to 90 % of the way in {share:.0%} of the time"
    return Transition(True, reason, onset, middle, end, before, after, noise)


def crossing(steps: np.ndarray, gone: np.ndarray, level: float) -> float:
    """The step after which `gone` stays at or above `level`, interpolated; the last step when it never does."""
    below = np.flatnonzero(gone < level)
    if len(below) == 0:
        return float(steps[0])
    at = int(below[-1])
    if at + 1 == len(gone):
        return float(steps[-1])
    share = (level - gone[at]) / (gone[at + 1] - gone[at])
    return float(steps[at] + share * (steps[at + 1] - steps[at]))


def first_at(steps: np.ndarray, values: np.ndarray, level: float) -> float | None:
    """The first step at which a curve is at or above a level; None when it never is."""
    steps, values = _curve(steps, values)
    hit = np.flatnonzero(values >= level)
    return float(steps[hit[0]]) if len(hit) else None


def _curve(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    steps, values = np.asarray(steps, float), np.asarray(values, float)
    if steps.ndim != 1 or steps.shape != values.shape:
        raise ConfigError(
            f"one value for each step was expected, as [n] and [n], got steps {list(steps.shape)} and values "
            f"{list(values.shape)}; give one curve at a time"
        )
    wrong = ~(np.isfinite(steps) & np.isfinite(values))
    if wrong.any():
        raise NonFiniteError(f"the curve holds NaN or infinity at step {steps[wrong][0]:g}; leave that measurement out")
    return steps, values
