"""Claims as files: what is said, how it is measured, its nulls and variations, and the rule of the verdict.

    stated = proof.stated()                              # what an artefact claims: a number beside its null, by name

`workbench claim` writes one of them as a `ClaimFile`; `workbench check FILE` measures it anew.

A claim is an analysis with its settings, and the name of one number of its result (`StatedNumber`). A **variation** is
the same analysis with some settings changed (the seed draws other prompts, directions and heads). The verdict follows
from all variations by a rule that is fixed before any of them is measured (`verdict_of`). One behaviour may have
several explanations that pass the same tests (Méloux et al. 2025, arXiv 2502.20914), so one run says little.

An analysis may read a text of the user's own (`OwnText`), such as prompts. A claim names it by its hash and carries
it where it is short.

A file from elsewhere is data: `workbench check` runs analyses that it knows, with settings that they check. Torch-free.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, isnan
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval as Within
from annotated_types import MaxLen, MinLen

from interp.artifacts import Artefact, DocumentField
from interp.errors import MissingError
from interp.forms import Measured, matches
from interp.results import Record
from interp.view import Facts, View

FORMAT: Literal["workbench-claim"] = "workbench-claim"
MAX_TEXT, MAX_VARIATIONS = 400, 64
Subject = Literal["feature", "head", "edge", "circuit", "direction", "shape", "difference", "route"]
Outcome = Literal["supported", "not supported", "undecided"]
Setting = str | int | float | bool | None
Settings = dict[Annotated[str, MaxLen(60)], Setting | list[Setting]]
RULE = (
    "Supported: supported in every variation. Not supported: supported in less than half of those that are decided. "
    "Undecided: anything else. A variation is judged by the rule of its analysis."
)
"""Rule of the verdict."""
NUMBERS = ("value", "low", "high", "null")
MEANING = {
    "seed": "other random numbers: prompts, directions, nulls",
    "judged template": "another wording of the task",
    "text": "another wording of the prompt",
    "swap": "the values of another word",
    "attacked": "an adversary chooses which other edges are replaced",
}
"""Meaning of the settings that variations change."""
MAX_OWN_TEXT, MAX_OWN_TEXTS = 64_000, 4
"""Longest text in characters that an artefact or a claim carries, and the most of a claim; of longer ones the hash."""
TEXT_NAME = r"[^/\\\x00-\x1f\x7f]{1,60}\.\w{1,10}"
TextName = Annotated[str, matches(TEXT_NAME, "the name of a file, without its folder")]


@dataclass(frozen=True, kw_only=True)
class OwnText:
    """A file of the user's own that an analysis read."""

    name: TextName
    sha256: str
    text: Annotated[str, MaxLen(MAX_OWN_TEXT)] | None
    """None where it is longer."""

    @classmethod
    def of(cls, path: Path) -> "OwnText":
        """Read a file. Raises `MissingError`."""
        try:
            content = path.read_bytes()
        except OSError:
            raise MissingError(f"no file at {path}") from None
        text = content.decode("utf-8", "replace")
        short = len(text) <= MAX_OWN_TEXT and text.encode() == content
        name = re.sub(r"[/\\\x00-\x1f\x7f]", "_", path.stem)[:60] + path.suffix
        return cls(name=name, sha256=hashlib.sha256(content).hexdigest(), text=text if short else None)

    @property
    def key(self) -> str:
        """Its key among the inputs of an artefact."""
        return f"text:{self.name}"


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
class ClaimSettings:
    """A claim without the texts that it carries."""

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
    """Hash of everything that is read, by key: `model:NAME`, `features/NAME`, `text:FILE`."""
    rule: Annotated[str, MaxLen(2 * MAX_TEXT)] = RULE
    variations: Annotated[tuple[Settings, ...], MinLen(1), MaxLen(MAX_VARIATIONS)]
    """Settings that each variation changes; the claim as stated is the first, and changes none."""
    results: Annotated[tuple[VariationResult, ...], MaxLen(MAX_VARIATIONS)] = ()
    """Of the same variations, where they were measured."""
    machine: dict[str, str] = field(default_factory=dict)
    """Where they were measured: threads, torch, and the processor's instructions that torch uses."""


@dataclass(frozen=True, kw_only=True)
class ClaimFile(ClaimSettings):
    """A claim as JSON (`claim.json`)."""

    texts: Annotated[dict[TextName, Annotated[str, MaxLen(MAX_OWN_TEXT)]], MaxLen(MAX_OWN_TEXTS)] = field(
        default_factory=dict
    )
    """Short texts that the analysis reads, by name; of longer ones `inputs` has the hash alone."""


@dataclass(frozen=True, kw_only=True)
class Claim(Artefact, kind="claim", made_by="check"):
    """A claim that was measured here, variation by variation."""

    settings: ClaimSettings
    stated: StatedNumber
    """The claim as stated, as it was measured here: its words are those of the analysis, not of the file."""
    variations: tuple[VariationResult, ...]
    changed_inputs: tuple[str, ...]
    """Keys whose hash differs from that of the file, or that only one of both has."""
    machine: dict[str, str]
    texts: Annotated[dict[str, str] | None, DocumentField("texts.json")] = field(default_factory=lambda: None)
    """Texts that the claim carries, by name."""

    @property
    def outcome(self) -> Outcome:
        """The verdict by `RULE`."""
        return verdict_of(self.variations)

    def view(self) -> View:
        yield headline_of(self.outcome, self.variations)
        stated, rows = self.stated, self.variations
        worst, counts = min(rows, key=lambda row: row.margin), Counter(row.outcome for row in rows)
        other = [("the file says", said)] if (said := self.settings.sentence) != stated.sentence else []
        carried = [("its own texts", ", ".join(self.texts))] if self.texts else []
        yield Facts(
            ("claim", stated.sentence),
            *other,
            ("measured", f"{stated.formula} ({stated.unit})"),
            ("compared with", ", ".join(stated.nulls)),
            *carried,
            ("variations", "; ".join(_meaning(row.changed) for row in rows)),
            (
                "would refute it",
                f"more than half of the decided variations failing by the rule of {self.settings.analysis}; fewer "
                f"failures leave it undecided. Here {counts['not supported']} of {len(rows)} fail, "
                f"{counts['undecided']} are undecided.",
            ),
            ("worst variation", f"{worst.changed}: {_numbers(worst)}"),
        )
        if self.changed_inputs:
            yield f"other inputs than in the file: {', '.join(self.changed_inputs)}"
        yield from [f"{row.changed}: {_numbers(row)}: {row.outcome}" for row in self.variations]
        yield from [*self.against_file(), *self.kinds_of_validity()]

    def to_records(self) -> list[Record]:
        """Return one row per variation: `changed, value, low, high, null, outcome, seconds`."""
        return [dict(vars(row)) for row in self.variations]

    def kinds_of_validity(self) -> list[str]:
        """Return what was tested of each kind of validity, in the terms of Tower 2026, and what was not."""
        rows, counts = self.variations, Counter(row.outcome for row in self.variations)
        intervals = sum(row.low is not None for row in rows)

        def held(*words: str) -> str:
            always = any(self.settings.settings.get(word) is True for word in words)
            some = [row for row in rows if always or any(word in row.changed for word in words)]
            return f"{sum(row.outcome == 'supported' for row in some)} of {len(some)} hold" if some else "not tested"

        counterparts = f" other counterparts {held('swap ')}," if "swap" in self.settings.settings else ""
        nulls, times = ", ".join(self.stated.nulls), "twice" if self.settings.results else "once"
        return [
            f"construct validity (could it fail?): by a rule fixed before, {counts['not supported']} of {len(rows)} "
            f"variations fail, {counts['undecided']} are undecided",
            f"internal validity (is it the cause?): beside {nulls}; under attack {held('attacked')}",
            f"external validity (does it hold elsewhere?): other seeds {held('seed')}, other wordings "
            f"{held('template', 'text ')},{counterparts} other models not tested",
            f"measurement validity (is it stable?): {intervals} of {len(rows)} have an interval; measured {times}",
            "is it the only story? not tested; other explanations may pass the same tests",
        ]

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
        both = [(getattr(old, name), getattr(new, name)) for old, new in pairs for name in NUMBERS]
        gaps: list[float] = [abs(a - b) for a, b in both if None not in (a, b)]
        far = max((gap for gap in gaps if not isnan(gap)), default=0.0)
        same = verdict_of([old for old, _ in pairs]) == verdict_of([new for _, new in pairs])
        there = ", ".join(f"{name} {value}" for name, value in self.settings.machine.items())
        here = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        return [
            f"{'the same verdict' if same else 'ANOTHER VERDICT'} as in the file; numbers and nulls differ by "
            f"at most {far:.2g} (there: {there}; here: {here})"
        ]


def _meaning(changed: str) -> str:
    """Return what a variation changes, with what that means."""
    means = [meaning for word, meaning in MEANING.items() if word in changed]
    return f"{changed} ({', '.join(means)})" if means else changed


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
