"""Claims as files: what is said, how it is measured, its nulls and variations, and the rule of the verdict.

    stated = proof.stated()                              # what an artefact claims: a number beside its null, by name

`workbench claim` writes one of them as a `ClaimFile`; `workbench check FILE` measures it anew.

A claim is an analysis with its settings, and the name of one number of its result (`StatedNumber`). A **variation** is
the same analysis with some settings changed (the seed draws other prompts, directions and heads). The verdict follows
from all variations by a rule that is fixed before any of them is measured (`verdict_of`). One behaviour may have
several explanations that pass the same tests (Méloux et al. 2025, arXiv 2502.20914), so one run says little.

A file from elsewhere is data: `workbench check` runs analyses that it knows, with settings that they check. Torch-free.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, isnan
from typing import Annotated, Literal

from annotated_types import Interval as Within
from annotated_types import MaxLen, MinLen

from interp.artifacts import Artefact
from interp.forms import Measured
from interp.results import Record

FORMAT: Literal["workbench-claim"] = "workbench-claim"
MAX_TEXT, MAX_VARIATIONS = 400, 64
Subject = Literal["feature", "head", "edge", "circuit", "direction", "shape", "difference"]
Outcome = Literal["supported", "not supported", "undecided"]
Setting = str | int | float | bool | None
Settings = dict[Annotated[str, MaxLen(60)], Setting | list[Setting]]
RULE = (
    "Supported: supported in every variation. Not supported: supported in less than half of those that are decided. "
    "Undecided: anything else. A variation is judged by the rule of its analysis."
)
"""Rule of the verdict."""


@dataclass(frozen=True, kw_only=True)
class StatedNumber:
    """One number that an artefact claims, beside its null."""

    sentence: str
    subject: Subject
    formula: str
    """Definition of the number, in words."""
    unit: str
    value: Measured
    """NaN where it was not measured"""
    low: float | None
    high: float | None
    """95 % interval; None where nothing varies"""
    null: Measured
    """The largest value of any null; NaN without a draw."""
    nulls: tuple[str, ...]
    """What the nulls are, with their numbers of draws."""
    outcome: Outcome
    """By the rule of the analysis."""


@dataclass(frozen=True, kw_only=True)
class VariationResult:
    """One variation as it was measured."""

    changed: str
    """Settings that differ from those of the claim, such as `seed 3`; `as stated` where none do."""
    value: Measured
    low: float | None
    high: float | None
    null: Measured
    outcome: Outcome
    seconds: float

    @property
    def margin(self) -> float:
        """The value above its null; -inf where one of them was not measured."""
        return -inf if isnan(self.value - self.null) else self.value - self.null


@dataclass(frozen=True, kw_only=True)
class ClaimFile:
    """A claim as JSON (`claim.json`)."""

    format: Literal["workbench-claim"] = FORMAT
    version: Annotated[int, Within(ge=1, le=1)] = 1
    sentence: Annotated[str, MaxLen(MAX_TEXT)]
    subject: Subject
    analysis: Annotated[str, MaxLen(60)]
    """Words of the verb that measures it."""
    settings: Settings
    number: Annotated[str, MaxLen(60)]
    """Name of the number among those that the result states."""
    formula: Annotated[str, MaxLen(MAX_TEXT)]
    unit: Annotated[str, MaxLen(60)]
    nulls: Annotated[tuple[str, ...], MaxLen(20)]
    inputs: dict[str, str]
    """Hash of everything that is read, by key: `model:NAME`, `features/NAME`. Texts are part of these artefacts."""
    rule: Annotated[str, MaxLen(2 * MAX_TEXT)] = RULE
    variations: Annotated[tuple[Settings, ...], MinLen(1), MaxLen(MAX_VARIATIONS)]
    """Settings that each variation changes; the claim as stated is the first, and changes none."""
    results: Annotated[tuple[VariationResult, ...], MaxLen(MAX_VARIATIONS)] = ()
    """Of the same variations, where they were measured."""
    machine: dict[str, str] = field(default_factory=dict)
    """Where they were measured: threads, torch, and the processor's instructions that torch uses."""


@dataclass(frozen=True, kw_only=True)
class Claim(Artefact, kind="claim", made_by="check"):
    """A claim that was measured here, variation by variation."""

    settings: ClaimFile
    stated: StatedNumber
    """The claim as stated, as it was measured here: its words are those of the analysis, not of the file."""
    variations: tuple[VariationResult, ...]
    changed_inputs: tuple[str, ...]
    """Keys whose hash differs from that of the file, or that only one of both has."""
    machine: dict[str, str]

    @property
    def outcome(self) -> Outcome:
        """The verdict by `RULE`."""
        return verdict_of(self.variations)

    def headline(self) -> str:
        """Return the verdict, with the number of variations that support it."""
        return headline_of(self.outcome, self.variations)

    def to_records(self) -> list[Record]:
        """Return one row per variation: `changed, value, low, high, null, outcome, seconds`."""
        return [dict(vars(row)) for row in self.variations]

    def shown(self) -> list[Record]:
        """Return the variations."""
        return self.to_records()

    def facts(self) -> list[tuple[str, str]]:
        """Return what is claimed, how it was measured, and the worst case."""
        stated, worst = self.stated, min(self.variations, key=lambda row: row.margin)
        other = [("the file says", said)] if (said := self.settings.sentence) != stated.sentence else []
        return [
            ("claim", stated.sentence),
            *other,
            ("number", f"{stated.formula} ({stated.unit})"),
            ("nulls", ", ".join(stated.nulls)),
            ("worst variation", f"{worst.changed}: {_numbers(worst)}"),
        ]

    def details(self) -> list[str]:
        """Return what differs from the file, and every variation."""
        lines = [f"other inputs than in the file: {', '.join(self.changed_inputs)}"] if self.changed_inputs else []
        if self.settings.sentence != self.stated.sentence:
            lines.append(f"measured: {self.stated.sentence}; the file says {self.settings.sentence!r}")
        lines += [f"{row.changed}: {_numbers(row)}: {row.outcome}" for row in self.variations]
        return [*lines, *self.against_file()]

    def against_file(self) -> list[str]:
        """Compare with the results in the file: nothing without any, the same bits, or how far they differ."""
        before, now = self.settings.results, self.variations
        if not before:
            return []
        pairs = [(old, new) for old in before for new in now if old.changed == new.changed]
        if not pairs:
            return ["the results in the file are of other variations"]
        if all(repr(replace(old, seconds=0.0)) == repr(replace(new, seconds=0.0)) for old, new in pairs):  # NaN too
            return [f"the same bits as in the file in {len(pairs)} variations"]
        far = max((d for old, new in pairs if not isnan(d := abs(old.value - new.value))), default=0.0)
        same = verdict_of([old for old, _ in pairs]) == verdict_of([new for _, new in pairs])
        there = ", ".join(f"{name} {value}" for name, value in self.settings.machine.items())
        here = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        return [
            f"{'the same verdict' if same else 'ANOTHER VERDICT'} as in the file; values differ by at most {far:.2g} "
            f"(there: {there}; here: {here})"
        ]


def _numbers(row: VariationResult) -> str:
    ends = "" if row.low is None or row.high is None else f" [{row.low:.4g}, {row.high:.4g}]"
    value = "not measured" if isnan(row.value) else f"{row.value:.4g}{ends}"
    return f"{value}, " + ("without a null" if isnan(row.null) else f"null at most {row.null:.4g}")


def verdict_of(results: Sequence[VariationResult]) -> Outcome:
    """Return the verdict on a claim by `RULE`; undecided without a variation."""
    counts = Counter(row.outcome for row in results)
    if results and counts["supported"] == len(results):
        return "supported"
    decided = len(results) - counts["undecided"]
    return "not supported" if decided and counts["supported"] < decided / 2 else "undecided"


def headline_of(outcome: Outcome, results: Sequence[VariationResult]) -> str:
    """Return a verdict in a sentence."""
    holds = sum(row.outcome == "supported" for row in results)
    return f"{outcome.capitalize()}: it holds in {holds} of {len(results)} variation{'s' * (len(results) != 1)}"
