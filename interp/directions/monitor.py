"""A monitor: a linear probe with a threshold, its rates on held-out groups and their nulls, as an artefact. Torch-free.

`interp.directions.monitoring` trains it and says how.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from annotated_types import Interval as Between
from jaxtyping import Float64

from interp.artifacts import ARRAY, Artefact, Table
from interp.nulls import DRAWS, NullComparison
from interp.options import BASIC, Seed, check_limits
from interp.results import Record, columns_of
from interp.view import Finding, View

BY_GROUP, BY_TEXT = "by group", "by text (leaky)"
"""Splits: of whole groups, or of single texts, which leaks what the texts of a group share."""
N_UNTRAINED = DRAWS["quick"]
MONITOR, UNTRAINED, CONTROL = "the monitor", f"best of {N_UNTRAINED} untrained models", "control labels"
"""Control labels are one random class for each group: a probe that finds them has memorised groups."""


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """Settings of a monitor."""

    false_alarms: Annotated[float, Between(ge=0, le=0.5), BASIC] = 0.05
    """Largest share of negative texts that may fire where the threshold is chosen."""
    seed: Seed = 0
    """Draws the split, the nulls and the untrained models."""

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True, kw_only=True)
class MonitorSettings(MonitorConfig):
    """Settings that determine a monitor."""

    model: str
    weight_hash: str
    source: str
    """Origin of the examples, in words."""
    n_groups: tuple[int, int, int]
    """Groups that train the probe, choose its threshold, and state its rates."""
    hook_point: str
    """Point of the residual stream that it reads."""


@dataclass(frozen=True, kw_only=True)
class MonitorRates:
    """Rates of one probe on texts that neither trained it nor chose its threshold."""

    name: str
    """The monitor, or a control."""
    split: str
    auroc: float
    """Probability that a positive text outranks a negative one; chance 0.5."""
    caught: float
    caught_low: float
    caught_high: float
    """Share of positive texts that fire, with its 95 % interval over groups."""
    alarms: float
    alarms_low: float
    alarms_high: float
    """Share of negative texts that fire."""

    @property
    def separation(self) -> tuple[float, float, float]:
        """`caught - alarms` with its interval (Newcombe 1998, method 10): 0 for chance."""
        gap = self.caught - self.alarms
        down = np.hypot(self.caught - self.caught_low, self.alarms_high - self.alarms)
        up = np.hypot(self.caught_high - self.caught, self.alarms - self.alarms_low)
        return gap, float(gap - down), float(gap + up)


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Texts of one source under the monitor. Those that state its false alarms come first; the others are new."""

    source: str
    n_texts: int
    fires: float
    fires_low: float
    fires_high: float
    """Share of texts that fire, with its 95 % interval over groups."""
    per_thousand: float
    """Tokens above the threshold, of 1,000."""


@dataclass(frozen=True, kw_only=True)
class Monitor(Artefact, kind="monitor"):
    """A linear probe with a threshold that scores every token of a text; the text fires where their mean is above 0."""

    settings: MonitorSettings
    weights: Annotated[Float64[np.ndarray, " d"], ARRAY]
    """Of the residual stream at its hook point."""
    bias: float
    """Added to the weighted sum, the threshold subtracted: a score above 0 fires. Unit: log-odds."""
    rates: Table[MonitorRates]
    """The monitor and the best untrained model; the leaky split, and control labels on it."""
    compared: NullComparison
    """`caught - alarms` of the monitor, and of the same search with shuffled labels or random directions."""
    drift: Table[Drift]

    @cached_property
    def rows(self) -> list[MonitorRates]:
        """All rates in memory."""
        return self.rates.rows()

    def row(self, name: str, split: str = BY_GROUP) -> MonitorRates:
        """Return the rates of one probe by its name."""
        return next(row for row in self.rows if (row.name, row.split) == (name, split))

    @property
    def works(self) -> bool:
        """True if its separation lies beyond all nulls, and its interval above those of untrained models."""
        untrained = self.row(UNTRAINED).separation
        return not self.compared.within() and self.row(MONITOR).separation[1] > max(0.0, untrained[2])

    def view(self) -> View:
        mine, untrained = self.row(MONITOR), self.row(UNTRAINED)
        verdict = "A monitor that works" if self.works else "No monitor"
        nulls = f"the best of {N_UNTRAINED} untrained models {untrained.caught:.0%} at {untrained.alarms:.0%}"
        if within := self.compared.within():
            nulls = f"not beyond {' or '.join(within)}"
        yield f"{verdict}: it catches {mine.caught:.0%} at {mine.alarms:.0%} false alarms; {nulls}"
        gaps = ["{:+.2f} [{:+.2f}, {:+.2f}]".format(*self.row(name).separation) for name in (MONITOR, UNTRAINED)]
        yield f"caught less false alarms {gaps[0]}, {UNTRAINED} {gaps[1]}: {self.compared.exceeds()}"
        yield from [f"{row.name}, {row.split}: {_rates(row)}" for row in self.rows]
        yield from [
            f"{row.source}: {row.fires:.0%} [{row.fires_low:.0%}, {row.fires_high:.0%}] of {row.n_texts} texts fire, "
            f"{row.per_thousand:.0f} of 1,000 tokens"
            for row in self.drift.rows()
        ]
        train, choose, test = self.settings.n_groups
        split = f"{train} groups train, {choose} choose, {test} test"
        yield f"{self.settings.source}: {split}; it reads {self.settings.hook_point}"
        if not self.works:
            return
        yield Finding(
            kind="monitor",
            title="A monitor of a text",
            sentence=f"A monitor fires on {mine.caught:.0%} of positive texts and {mine.alarms:.0%} of others, "
            "on groups that it was not made of",
            value=mine.separation[0],
            null=max(untrained.separation[0], *map(max, self.compared.draws.values())),
            about="share caught less false alarms; null: the largest of the best untrained model, shuffled labels "
            "and random directions",
            proof="See its rates",
        )

    def to_records(self) -> list[Record]:
        """Return one row per probe and split."""
        return [columns_of(row) for row in self.rows]


@dataclass(frozen=True, kw_only=True)
class MonitoredText:
    """A text under a monitor, token by token."""

    tokens: tuple[str, ...]
    scores: tuple[float | None, ...]
    """Log-odds above the threshold; None for the first token, which no monitor reads."""
    score: float
    """Mean over the tokens: the text fires above 0."""

    def sentence(self) -> str:
        """Return whether it fires, and how many tokens lie above the threshold."""
        above = sum(score is not None and score > 0 for score in self.scores)
        verb = "fires" if self.score > 0 else "does not fire"
        return f"The monitor {verb}: mean score {self.score:+.2f}, {above} of {len(self.tokens)} tokens above 0"

    def to_records(self) -> list[Record]:
        """Return one row per token."""
        return [{"token": text, "score": score} for text, score in zip(self.tokens, self.scores, strict=True)]


def _rates(row: MonitorRates) -> str:
    return (
        f"caught {row.caught:.0%} [{row.caught_low:.0%}, {row.caught_high:.0%}], false alarms {row.alarms:.0%} "
        f"[{row.alarms_low:.0%}, {row.alarms_high:.0%}], AUROC {row.auroc:.2f}"
    )
