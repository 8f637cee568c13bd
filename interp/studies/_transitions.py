"""Sudden transitions of a curve over training (Olsson et al. 2022). Torch-free.

A curve goes from its starting level to its final level. Its *onset*, *middle* and *end* are the steps at which it has
covered 10, 50 and 90 % of the way for good. It is a transition when three conditions hold:

- the change is large: at least `SIGNAL` times the typical step in the flat parts of the curve, and at least `least`;
- the change is fast: from onset to end takes at most `QUICK` of the steps. A straight line takes 80 %;
- a random walk seldom has it: p is at most `ALPHA` (`walk_p_value`). Of 60 values, one in six Gaussian walks passes the
  other two conditions, and four in ten with autocorrelated or heavy-tailed steps. Their curves wander before and after
  the change, and a sudden rise fits them worse.

Steps may be any rising numbers. Crossings are interpolated between measurements, so their resolution is the distance
between measurements.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from interp.errors import ConfigError, NonFiniteError
from interp.nulls import ALPHA, NUMERIC_DRAWS, p_from_null
from interp.seeds import derive_seed

SIGNAL = 8.0
QUICK = 0.5
N_WALKS = NUMERIC_DRAWS["standard"]
WALKS = ((0.0, np.inf), (0.0, 2.0), (0.8, np.inf), (0.8, 2.0))
"""families of random walks: autocorrelation of successive steps; degrees of freedom of Student's t of their
innovations, infinite for Gaussian"""
MOST = 120
"""values of a curve that are fitted; of a longer one, means of neighbours"""
WANDER = 0.75
"""weight of slow deviations from the fit against all deviations"""
FEWEST = 8


@dataclass(frozen=True)
class Transition:
    """Result of the search for a transition; the steps are None where none was found."""

    sudden: bool
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
    p: float | None = None
    """largest share, over the families in `WALKS`, of random walks with as clear a transition; None where the curve
    ends about where it began"""


def find_transition(steps: np.ndarray, values: np.ndarray, *, least: float = 0.0) -> Transition:
    """Find the transition of a curve `values [n]` over rising `steps [n]`, if it changes by at least `least`.

    `least` is in units of the curve. Raises `ConfigError` for fewer than 8 measurements or steps that do not rise,
    `NonFiniteError`.
    """
    steps, values = _curve(steps, values)
    if len(steps) < FEWEST or (np.diff(steps) <= 0).any():
        raise ConfigError(f"a transition needs {FEWEST} measurements or more at rising steps, got {len(steps)}")
    if not least >= 0:
        raise ConfigError(f"least must be at least 0, in units of the curve, got least {least}; 0 accepts any change")
    change = _Change.of(steps, values)
    before, after, noise = float(change.before), float(change.after), float(change.noise)
    if not change.large or abs(after - before) <= least:
        return Transition(False, "it ends about where it began", None, None, None, before, after, noise)
    share, p = float(change.share), walk_p_value(steps, values)
    if share > QUICK:
        reason = f"it changes over {share:.0%} of the time: gradual, no transition"
        return Transition(False, reason, None, None, None, before, after, noise, p)
    if p > ALPHA:
        reason = f"{p:.0%} of random walks change as much in as short a time: no transition"
        return Transition(False, reason, None, None, None, before, after, noise, p)
    reason = f"from 10 to 90 % of the way in {share:.0%} of the time"
    onset, middle, end = (float(change.crossing(level)) for level in (0.1, 0.5, 0.9))
    return Transition(True, reason, onset, middle, end, before, after, noise, p)


def walk_p_value(steps: np.ndarray, values: np.ndarray) -> float:
    """Return the largest share, over families of random walks, of those with a transition as clear as a curve's.

    The statistic is the clarity of the best sudden rise (`_clarity`), and 0 for a curve whose change is not large or
    not fast. Its null distribution in each family of `WALKS` is that of `N_WALKS` walks measured at the same
    `steps [n]`. A share counts the curve as one of the walks, so the smallest p is 1 / (`N_WALKS` + 1). The p-value is
    valid for every family, and conservative for those that imitate transitions less well, such as Gaussian walks.
    """
    steps, values = np.asarray(steps, float), np.asarray(values, float)
    clarity = _clarity_of_transition(steps, values)
    return max(p_from_null(clarity, null) for null in _walks(tuple(steps.tolist())))


@lru_cache(maxsize=64)
def _walks(steps: tuple[float, ...]) -> list[np.ndarray]:
    """Return the statistic of `N_WALKS` random walks of each family, measured at `steps`."""
    from scipy.signal import lfilter

    rng = np.random.default_rng(derive_seed(0, "random walks", len(steps)))
    nulls, burn_in = [], 60
    for correlation, df in WALKS:
        shape = (N_WALKS, burn_in + len(steps) - 1)
        drawn = rng.standard_normal(shape) if np.isinf(df) else rng.standard_t(df, shape)
        moves = np.asarray(lfilter([1.0], [1.0, -correlation], drawn))[:, burn_in:]
        walks = np.concatenate([np.zeros((N_WALKS, 1)), moves.cumsum(1)], 1)
        nulls.append(_clarity_of_transition(np.array(steps), walks))
    return nulls


def _clarity_of_transition(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the clarity of curves `values [..., n]`, 0 where the change is not large or not fast."""
    change = _Change.of(steps, values)
    return np.where(change.large & (change.share <= QUICK), _clarity(values), 0.0)


def _clarity(values: np.ndarray) -> np.ndarray:
    """Return the share of curves `[..., n]` that the best sudden rise explains beyond a line: 1 is a clean jump.

    Left unexplained are the deviations from the fit: `WANDER` of the sum of products of successive ones, the rest of
    the sum of squares. White noise around a curve has no such products, a random walk has products near its squares.
    """
    blocks = np.array_split(np.arange(values.shape[-1]), min(MOST, values.shape[-1]))
    values = np.stack([values[..., block].mean(-1) for block in blocks], -1)
    line, rises = _rises(values.shape[-1])
    rest = values - (values @ line) @ line.T
    along = rest @ rises.T
    best = np.abs(along).argmax(-1)
    fitted = np.take_along_axis(along, best[..., None], -1)
    missed = rest - fitted * rises[best]
    slow = np.maximum((missed[..., 1:] * missed[..., :-1]).sum(-1), 0.0)
    explained = fitted[..., 0] ** 2
    total = explained + (1 - WANDER) * (missed**2).sum(-1) + WANDER * slow
    return np.divide(explained, total, out=np.zeros_like(total), where=total > 1e-20 * (values**2).sum(-1))


@lru_cache(maxsize=16)
def _rises(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an orthonormal basis of straight lines `[n, 2]`, and unit transitions orthogonal to it `[m, n]`.

    The curves are sigmoids, sudden rises that level off exponentially, and their mirror images, which begin slowly and
    end suddenly. They take up to half the curve for 10 to 90 % of the way, at positions a fraction of that apart.
    """
    at = np.arange(n)
    line = np.linalg.qr(np.stack([np.ones(n), at], 1))[0]
    rows = []
    for span in np.geomspace(0.5, n / 2, 10):
        middles = np.arange(0.5, n - 1, span / 8)[:, None]
        rows.append(1 / (1 + np.exp(np.clip((middles - at) * 2 * np.log(9) / span, -50, 50))))
    for span in np.geomspace(1, n / 2, 6):
        starts = np.arange(0, n - 1, max(0.25, span / 6))[:, None]
        sudden = 1 - np.exp(-np.maximum(at - starts, 0) * np.log(9) / span)
        rows += [sudden, sudden[:, ::-1]]
    rises = np.concatenate(rows)
    rises = rises - (rises @ line) @ line.T
    lengths = np.linalg.norm(rises, axis=1, keepdims=True)
    seen = lengths[:, 0] > 1e-6
    return line, rises[seen] / lengths[seen]


class _Change(NamedTuple):
    """Start, end and noise of curves `[..., n]`, and where they cross a level between the two."""

    steps: np.ndarray
    """`[n]`"""
    gone: np.ndarray
    """`[..., n]` share of the way covered"""
    before: np.ndarray
    after: np.ndarray
    noise: np.ndarray

    @classmethod
    def of(cls, steps: np.ndarray, values: np.ndarray) -> "_Change":
        n = values.shape[-1]
        tenth, fifth = max(2, n // 10), max(3, n // 5)
        before, after = np.median(values[..., :tenth], -1), np.median(values[..., -tenth:], -1)
        flat = np.concatenate([np.diff(values[..., :fifth]), np.diff(values[..., -fifth:])], -1)
        way = np.where(after == before, 1.0, after - before)
        gone = (values - before[..., None]) / way[..., None]
        return cls(steps, gone, before, after, np.median(np.abs(flat), -1))

    @property
    def large(self) -> np.ndarray:
        """True where a curve ends elsewhere than it began, beyond its noise."""
        return np.abs(self.after - self.before) > SIGNAL * self.noise

    @property
    def share(self) -> np.ndarray:
        """Share of the time from 10 to 90 % of the way."""
        return (self.crossing(0.9) - self.crossing(0.1)) / (self.steps[-1] - self.steps[0])

    def crossing(self, level: float) -> np.ndarray:
        """Return the step from which `gone` stays at or above `level`, interpolated; the last step if it never does."""
        below, n = self.gone < level, len(self.steps)
        last = n - 1 - below[..., ::-1].argmax(-1)
        at = np.minimum(last, n - 2)
        left, right = (np.take_along_axis(self.gone, index[..., None], -1)[..., 0] for index in (at, at + 1))
        share = (level - left) / np.where(right == left, 1.0, right - left)
        between = self.steps[at] + share * (self.steps[at + 1] - self.steps[at])
        return np.where(below.any(-1), np.where(last == n - 1, self.steps[-1], between), self.steps[0])


def first_at(steps: np.ndarray, values: np.ndarray, level: float) -> float | None:
    """Return the first step at which a curve is at or above a level; None when it never is."""
    steps, values = _curve(steps, values)
    hit = np.flatnonzero(values >= level)
    return float(steps[hit[0]]) if len(hit) else None


def _curve(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    steps, values = np.asarray(steps, float), np.asarray(values, float)
    if steps.ndim != 1 or steps.shape != values.shape:
        raise ConfigError(
            f"expected one value for each step, as [n] and [n], got steps {list(steps.shape)} and values "
            f"{list(values.shape)}; give one curve at a time"
        )
    wrong = ~(np.isfinite(steps) & np.isfinite(values))
    if wrong.any():
        raise NonFiniteError(f"the curve holds NaN or infinity at step {steps[wrong][0]:g}; leave that measurement out")
    return steps, values
