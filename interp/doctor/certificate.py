"""The certificate of a set-up: what an examination did, expected and found, one line per check. Torch-free."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from interp.artifacts import Artefact, DocumentField
from interp.errors import WorkbenchError
from interp.models.short_name import short_name
from interp.registry import kind_in
from interp.results import Record
from interp.view import Facts, Rows, View

if TYPE_CHECKING:
    from interp.workspace import Workspace

Verdict = Literal["passed", "failed", "not checked", "measured"]
"""`measured`: a number to compare with others, without a right value."""
Part = Literal["model", "engine", "hooks", "edits", "lens", "dictionary"]
PARTS: dict[Part, str] = {
    "model": "The model",
    "engine": "The engine",
    "hooks": "Hook points",
    "edits": "Steering and patching",
    "lens": "Lens",
    "dictionary": "Dictionary",
}
"""Part -> its heading, in the order of an examination."""
QUESTIONS: dict[Part, str] = {
    "model": "Is it the model that its authors published, alone, in batches and while it generates?",
    "engine": "Are the rows that this program gives those of the model, whatever else is in a batch?",
    "hooks": "Does every hook point give the value it is named after, and does an edit there reach the output?",
    "edits": "Does an intervention begin where it should, with the size that is stated?",
    "lens": "Does the lens belong to these weights, and does it read better than none, and than a constant?",
    "dictionary": "Does the dictionary belong to this model, at this hook point and in these units?",
}
"""Part -> what its checks answer."""
BRIDGES = ("bridge", "sharded")
"""Engines in this process, whose numbers are the same bits: TransformerLens' bridge, on one device or over several."""
NAMED = 3
"""Failed checks that a headline names."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One experiment and its outcome."""

    part: Part
    name: str
    """Two or three words."""
    did: str
    """What was done."""
    expected: str
    came: str
    """Outcome, with its number; for `not checked` the reason."""
    means: str
    """Meaning of a failure."""
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment before it is run; `judged` makes a check of its outcome."""

    part: Part
    name: str
    did: str
    expected: str
    means: str

    def judged(self, passed: bool, came: str) -> Check:
        """Return the check with its outcome."""
        return self._check(came, "passed" if passed else "failed")

    def measured(self, came: str) -> Check:
        """Return the check of a number without a right value."""
        return self._check(came, "measured")

    def not_checked(self, reason: str) -> Check:
        """Return the check that could not be run."""
        return self._check(reason, "not checked")

    def _check(self, came: str, verdict: Verdict) -> Check:
        return Check(
            part=self.part,
            name=self.name,
            did=self.did,
            expected=self.expected,
            came=came,
            means=self.means,
            verdict=verdict,
        )


@dataclass(frozen=True, kw_only=True)
class ExaminedSetup:
    """Model and dictionary that were examined."""

    model: str
    weight_hash: str
    engine: str
    """Program that was examined with the model in it: `bridge`, or another with its version and devices."""
    dictionary: str
    """Key of the dictionary, such as `saes/demo`; empty where none was examined."""
    dictionary_hash: str
    """Content hash of the dictionary; empty without one."""
    quick: bool
    """True where the cheap half of the checks was run, False for all of them."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class Certificate(Artefact, kind="certificate", made_by="doctor"):
    """One line per check of a model, and of a dictionary in it."""

    settings: ExaminedSetup
    device: str
    dtype: str
    checks: Annotated[list[Check], DocumentField("checks.json")]

    def to_records(self) -> list[Record]:
        """Return one row per check: `part, name, verdict, did, expected, came, means`."""
        order = ("part", "name", "verdict", "did", "expected", "came", "means")
        return [{name: getattr(check, name) for name in order} for check in self.checks]

    def view(self) -> View:
        counts = {verdict: self.with_verdict(verdict) for verdict in ("passed", "failed", "not checked")}
        summary = f"{len(counts['passed'])} of {len(counts['passed']) + len(counts['failed'])} checks passed"
        if counts["failed"]:
            names = [f"{check.part} {check.name}" for check in counts["failed"]]
            summary += f"; failed: {', '.join(names[:NAMED])}"
            summary += f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield summary + (f"; {len(counts['not checked'])} could not be run" if counts["not checked"] else "")
        of = [("model", short_name(self.settings.model)), ("dictionary", self.settings.dictionary or "none")]
        of += [] if self.settings.engine in BRIDGES else [("engine", self.settings.engine)]
        verdicts: Sequence[Verdict] = ("passed", "failed", "not checked")
        yield Facts(*of, *((verdict, str(len(self.with_verdict(verdict)))) for verdict in verdicts))
        for part, title in PARTS.items():
            checks = [check for check in self.checks if check.part == part]
            yield from [title] * bool(checks) + [line for check in checks for line in lines_of(check)]
        yield Rows(self._rows)

    def _rows(self) -> list[Record]:
        """Return the outcome of every check, failed ones first."""
        rank = {"failed": 0, "not checked": 1, "measured": 2, "passed": 3}
        rows = sorted(self.checks, key=lambda check: rank[check.verdict])
        return [{"check": f"{c.part}: {c.name}", "verdict": c.verdict, "came": c.came} for c in rows]

    @property
    def subject(self) -> str:
        """The model, or the dictionary in it, that was examined."""
        of = self.settings
        named = short_name(of.model) + ("" if of.engine in BRIDGES else f" in {of.engine}")
        return f"{of.dictionary} in {named}" if of.dictionary else named

    def with_verdict(self, verdict: str) -> list[Check]:
        """Return the checks with a verdict."""
        return [check for check in self.checks if check.verdict == verdict]

    @property
    def failed(self) -> bool:
        """True where a check failed."""
        return bool(self.with_verdict("failed"))


MARKS: dict[Verdict, str] = {"passed": "+", "failed": "FAILED", "not checked": "?", "measured": "="}


def lines_of(check: Check) -> Iterable[str]:
    """Yield the lines of a check for the terminal."""
    yield f"  {MARKS[check.verdict]:7}{check.name}: {check.came}"
    if check.verdict == "failed":
        yield f"         done: {check.did}"
        yield f"         expected: {check.expected}"
        yield f"         it means: {check.means}"


def certificates_of(workspace: "Workspace", parents: Mapping[str, str]) -> dict[str, str]:
    """Return the certificates of what an artefact is made from, as parents: key to content hash.

    `parents` are the hashes of what the artefact was made from, by key. Models and dictionaries among them are looked
    up, and those that these were made from. Of several certificates of one model, a whole one is taken before a quick
    one, one of the model alone before one with dictionaries, and then the newest.
    """
    hashes = _origins(workspace, parents)
    known = sorted(
        (entry for entry in workspace.values(Certificate) if entry.settings.engine in BRIDGES),
        key=lambda entry: (entry.settings.quick, entry.settings.dictionary != ""),
    )
    of_weights = {entry.settings.weight_hash: entry for entry in reversed(known)}
    of_dictionary = {
        entry.settings.dictionary_hash: entry for entry in reversed(known) if entry.settings.dictionary_hash
    }
    certificates = [of[digest] for of in (of_dictionary, of_weights) for digest in sorted(hashes & of.keys())]
    return {entry.key: entry.about.content_hash for entry in certificates}


def _origins(workspace: "Workspace", parents: Mapping[str, str]) -> set[str]:
    """Return the hashes of parents and of all that they were made from, as far as it is still there unchanged."""
    hashes, left = dict(parents), list(parents)
    while left:
        folder, _, name = (key := left.pop()).partition("/")
        kind = kind_in(folder)
        with contextlib.suppress(WorkbenchError):
            manifest = workspace.manifest(kind, name) if kind else None
            if manifest is not None and manifest.content_hash == hashes[key]:
                left += manifest.parents.keys() - hashes.keys()
                hashes = {**manifest.parents, **hashes}
    return set(hashes.values())
