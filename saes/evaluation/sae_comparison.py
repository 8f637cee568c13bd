"""Comparison of dictionaries of one hook point as an artefact. `saes.evaluation.compare` measures it. Torch-free."""

from dataclasses import dataclass
from itertools import permutations
from typing import Annotated

from interp.artifacts import Artefact, DocumentField, Table, address_of
from interp.results import Record, whole_table
from interp.statistics import Interval
from interp.view import Facts, View
from saes.evaluation.scores import SCORES, InModel, Recovery, SharedLatents
from saes.training.stored import Reconstruction

REVERSAL = 0.1
"""Loss of F1 from which a better reconstruction is called misleading: about three standard deviations (0.03) of the
difference between two seeds of one kind."""


@dataclass(frozen=True, kw_only=True)
class SAEComparisonSettings:
    """Settings that determine a comparison of dictionaries."""

    saes: tuple[str, ...]
    recording: str
    l0: float | None
    """L0 to which all are reduced; None for the smallest among them."""
    contexts: int
    """Held-out contexts for the loss inside the model; 0 skips that part."""
    match: bool
    """True where the latents of every two were matched."""
    heldout_fraction: float


@dataclass(frozen=True, kw_only=True)
class DictionaryScores:
    """Scores of one dictionary in a comparison; `own` and `matched` are on held-out rows."""

    name: str
    architecture: str
    d_sae: int
    baseline: bool
    """True for the baselines that `compare` adds"""
    own: Reconstruction
    """at its own L0"""
    matched: Reconstruction
    """truncated to the common L0; equal to `own` where its own L0 is no larger"""
    nearest_cosine: float
    """Mean over latents of the largest cosine with another decoder row; above 0 for random rows too."""
    near_copies: float
    """Share of latents with another decoder row above `NEAR_COPY`."""
    model: InModel | None
    """spliced into the model, at the common L0"""
    recovery: Recovery | None
    """against the true dictionary, where it is known, at its own L0"""

    def scores(self) -> dict[str, float]:
        """Return the scores that are averaged over seeds, by column title."""
        measured = {score.title: score.of(self) for score in SCORES if score.averaged}
        return {title: value for title, value in measured.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class SeedGroup:
    """Mean scores of runs that differ only in their seed."""

    name: str
    members: tuple[str, ...]
    scores: dict[str, Interval[float]]
    """`score -> mean and 95 % interval over seeds` (Student t), for the scores that all members have."""

    def __str__(self) -> str:
        shown = [f"{name} {i.estimate:.3f} [{i.low:.3f}, {i.high:.3f}]" for name, i in self.scores.items()]
        return f"{self.name}, {len(self.members)} seeds: " + ", ".join(shown)


@dataclass(frozen=True, kw_only=True)
class Reversal:
    """Two dictionaries of which `lower_error` reconstructs better and `more_found` recovers more of the truth."""

    lower_error: DictionaryScores
    more_found: DictionaryScores

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
class MatchedPair:
    """One pair of latents of two dictionaries."""

    pair: str
    """Names of the two, `one, two`."""
    first: int
    second: int
    cosine: float
    random: float
    """Cosine of a pair under the null, in any order."""


@dataclass(frozen=True, kw_only=True)
class SAEComparison(Artefact, kind="sae_comparison", title="SAE comparison", made_by="compare saes"):
    """Scores of dictionaries, each at its own L0 and at a common one."""

    settings: SAEComparisonSettings
    l0: float
    """common L0, the target of the truncation"""
    rows: Annotated[tuple[DictionaryScores, ...], DocumentField("rows.json")]
    groups: tuple[SeedGroup, ...]
    shared: dict[str, SharedLatents]
    """Latents that every two share, by their names `one, two`; empty where they were not matched."""
    matches: Table[MatchedPair] | None

    @property
    def reversals(self) -> list[Reversal]:
        """Pairs of trained dictionaries whose order by reconstruction error is the opposite of that by recovery."""
        trained = [row for row in self.rows if row.recovery and not row.baseline]
        return [Reversal(lower_error=a, more_found=b) for a, b in permutations(trained, 2) if _misleads(a, b)]

    @property
    def href(self) -> str:
        """Address of the page of the first dictionary, which shows the comparison."""
        return address_of(f"saes/{self.settings.saes[0]}") if self.settings.saes else super().href

    def of(self, name: str) -> DictionaryScores | None:
        """Return the row of a dictionary; None where it is not among them."""
        return next((row for row in self.rows if row.name == name and not row.baseline), None)

    def table(self) -> str:
        """Return a plain-text table: one dictionary a line, lowest matched FVU first, then groups and reversals."""
        lines = whole_table([self._cells(row) for row in self._by_error()])
        return "\n".join([*lines, *map(str, self.groups), *map(str, self.reversals)])

    def _cells(self, row: DictionaryScores) -> Record:
        """Return the scores of a dictionary as text, without those that no dictionary has."""
        cells = {"dictionary": row.name, "features": f"{row.d_sae:,}"}
        for score in SCORES:
            if any(score.of(dictionary) is not None for dictionary in self.rows):
                cells[score.title] = score.text(row)
        ends = row.matched.intervals.get("fvu")
        cells["FVU cut, 95 %"] = f"{ends[0]:.4f}-{ends[1]:.4f}" if ends else ""
        return cells

    def _by_error(self) -> list[DictionaryScores]:
        return sorted(self.rows, key=lambda row: row.matched.fvu)

    def to_records(self) -> list[Record]:
        """Return one row per dictionary, by matched FVU: `name, architecture, d_sae, baseline` and its scores."""
        return [
            {"name": row.name, "architecture": row.architecture, "d_sae": row.d_sae, "baseline": row.baseline}
            | row.scores()
            for row in self._by_error()
        ]

    def view(self) -> View:
        line = f"{len(self.rows)} dictionaries at L0 {self.l0:.1f}"
        best = self._by_error()[:5]
        yield line + "".join(f": {row.name} reconstructs best (FVU {row.matched.fvu:.4f})" for row in best[:1])
        yield Facts(("L0", f"{self.l0:.3g}"), *((f"FVU {row.name}", f"{row.matched.fvu:.3g}") for row in best))
        yield from [*self.table().splitlines(), *(f"{pair}: {shared}" for pair, shared in self.shared.items())]


def _misleads(a: DictionaryScores, b: DictionaryScores) -> bool:
    if not (a.recovery and b.recovery):
        return False
    return a.own.fvu < b.own.fvu and a.recovery.f1 < b.recovery.f1 - REVERSAL
