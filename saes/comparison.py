"""What a comparison of dictionaries found, as values and as a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np

from interp.intervals import t_interval
from saes.decoder_cosines import NEAR_COPY
from saes.evaluate import Evaluation
from saes.evaluate_model import ModelEvaluation
from saes.recovery import Interval, Recovery

REVERSAL = 0.1
"""By how much F1 must be lower for a better reconstruction to be called misleading: three times what the difference
between two seeds of one kind varies by (standard deviation .03)."""


@dataclass(frozen=True, kw_only=True)
class ProbedRow:
    """Sparse probing of one dictionary, the mean over tasks (see `probing.py`)."""

    accuracy: dict[int, float]
    """`k -> balanced accuracy`"""
    selectivity: dict[int, float]
    """`k -> accuracy less that on control labels`"""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One dictionary of a comparison. `own` and `matched` are on held-out rows."""

    name: str
    architecture: str
    d_sae: int
    baseline: bool
    own: Evaluation
    """at the L0 that it has by itself"""
    matched: Evaluation
    """cut to the common L0; the same numbers where it has no more than that"""
    nearest_cosine: float
    """Mean over features of the largest cosine with another decoder row; random rows have more than 0."""
    near_copies: float
    """Share of features with another decoder row above `NEAR_COPY`."""
    model: ModelEvaluation | None = None
    """inside the model, at the common L0"""
    recovery: Recovery | None = None
    """against the truth, where there is one, at its own L0"""
    probing: ProbedRow | None = None
    """at its own L0"""

    def scores(self) -> dict[str, float]:
        """What runs of several seeds are averaged over."""
        found = {
            "L0": self.own.l0,
            "FVU": self.own.fvu,
            "FVU cut": self.matched.fvu,
            "dead": self.own.dead_fraction,
            "nearest cos": self.nearest_cosine,
        }
        if self.model and self.model.ce_recovered is not None:
            found["CE recovered"] = self.model.ce_recovered
        if self.recovery:
            found |= {name: getattr(self.recovery, key) for name, key in RECOVERY.items()}
        if self.probing:
            found |= {f"probe k={k}": value for k, value in self.probing.accuracy.items()}
        return found


RECOVERY = {"MCC": "mcc", "F1": "f1", "unique": "uniqueness", "strength": "shrinkage"}
"""Columns against the truth, and the scores that they show."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that differ only in their seed, as one."""

    name: str
    members: tuple[str, ...]
    scores: dict[str, Interval]
    """`score -> mean and 95 % interval over seeds` (Student t), of the scores that all members have."""

    def __str__(self) -> str:
        shown = [f"{name} {i.mean:.3f} [{i.low:.3f}, {i.high:.3f}]" for name, i in self.scores.items()]
        return f"{self.name}, {len(self.members)} seeds: " + ", ".join(shown)


def group_rows(rows: Sequence[Compared], groups: Mapping[str, str]) -> list[Group]:
    """`groups`: dictionary -> the group that it belongs to. A group of one says nothing of spread and is left out."""
    found = []
    for group in dict.fromkeys(groups.values()):
        members = [row for row in rows if groups.get(row.name) == group]
        if len(members) < 2:
            continue
        each = [row.scores() for row in members]
        shared = [name for name in each[0] if all(name in scores for scores in each)]
        ends = zip(*t_interval(np.array([[scores[name] for scores in each] for name in shared])), strict=True)
        intervals = {name: Interval(*map(float, three)) for name, three in zip(shared, ends, strict=True)}
        found.append(Group(name=group, members=tuple(row.name for row in members), scores=intervals))
    return found


@dataclass(frozen=True, kw_only=True)
class Reversal:
    """`lower_error` reconstructs better than `more_found` and has found less of the true dictionary."""

    lower_error: Compared
    more_found: Compared

    def __str__(self) -> str:
        a, b = self.lower_error, self.more_found
        assert a.recovery is not None
        assert b.recovery is not None
        return (
            f"{a.name} reconstructs better than {b.name} (FVU {a.own.fvu:.3f} against {b.own.fvu:.3f}, at L0 "
            f"{a.own.l0:.1f} and {b.own.l0:.1f}) but found less of the true dictionary "
            f"(F1 {a.recovery.f1:.2f} against {b.recovery.f1:.2f})"
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `compare` found."""

    l0: float
    """the common L0 that was aimed at"""
    rows: list[Compared]
    groups: list[Group] = field(default_factory=list)

    @property
    def reversals(self) -> list[Reversal]:
        """Pairs, baselines left out, whose order by reconstruction error is that of the true features turned round."""
        trained = [row for row in self.rows if row.recovery and not row.baseline]
        return [Reversal(lower_error=a, more_found=b) for a, b in permutations(trained, 2) if _misleads(a, b)]

    def table(self) -> str:
        """Plain text, one dictionary a line, best matched FVU first; groups over seeds and reversals below."""
        columns = _columns(self)
        rows = sorted(self.rows, key=lambda row: row.matched.fvu)
        cells = [[title for title, _ in columns], *([show(row) for _, show in columns] for row in rows)]
        return "\n".join([*align(cells), *map(str, self.groups), *map(str, self.reversals)])


def align(cells: list[list[str]]) -> list[str]:
    """Lines of a plain table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in cells
    ]


def _misleads(a: Compared, b: Compared) -> bool:
    if not (a.recovery and b.recovery):
        return False
    return a.own.fvu < b.own.fvu and a.recovery.f1 < b.recovery.f1 - REVERSAL


Column = tuple[str, Callable[[Compared], str]]


def _columns(comparison: Comparison) -> list[Column]:
    columns: list[Column] = [
        ("dictionary", lambda row: row.name),
        ("features", lambda row: f"{row.d_sae:,}"),
        ("L0", lambda row: f"{row.own.l0:.1f}"),
        ("FVU", lambda row: f"{row.own.fvu:.4f}"),
        ("L0 cut", lambda row: f"{row.matched.l0:.1f}"),
        (f"FVU at L0 {comparison.l0:.1f}", lambda row: f"{row.matched.fvu:.4f}"),
        ("95 %", lambda row: _ends(row.matched.intervals.get("fvu"))),
        ("dead", lambda row: f"{row.own.dead_fraction:.1%}"),
        ("dense", lambda row: f"{row.own.dense_fraction:.1%}"),
        ("nearest cos", lambda row: f"{row.nearest_cosine:.2f}"),
        (f"cos > {NEAR_COPY}", lambda row: f"{row.near_copies:.1%}"),
        ("rel. bias", lambda row: f"{row.own.relative_bias:.3f}"),
        ("l2 ratio", lambda row: f"{row.own.l2_ratio:.3f}"),
    ]
    if any(row.model for row in comparison.rows):
        columns.append(("CE recovered", lambda row: _number(row.model and row.model.ce_recovered)))
        columns.append(("from mean", lambda row: _number(row.model and row.model.ce_recovered_from_mean)))
    if any(row.recovery for row in comparison.rows):
        columns += [(title, _recovered(key)) for title, key in RECOVERY.items()]
    probed = next((row.probing for row in comparison.rows if row.probing), None)
    for k in probed.accuracy if probed else ():
        columns += [(f"probe k={k}", _probed("accuracy", k)), ("- control", _probed("selectivity", k))]
    return columns


def _recovered(score: str) -> Callable[[Compared], str]:
    return lambda row: _number(row.recovery and getattr(row.recovery, score))


def _probed(score: str, k: int) -> Callable[[Compared], str]:
    return lambda row: _number(row.probing and getattr(row.probing, score).get(k))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _ends(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.4f}-{ends[1]:.4f}"
