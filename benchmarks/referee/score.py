"""Score answers: for each tool, kind of claim and control a share of outcomes, against an aim fixed beforehand.

A case without an answer is undecided. A kind of which a tool answers no case has no row for that tool.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from benchmarks.referee.cases import Answers, Control, Truth, cases_of, read_answers, truths_of
from benchmarks.referee.run import KINDS, WORKBENCH
from interp.claims import Outcome
from interp.errors import MissingError, UnknownNameError
from interp.statistics import proportion_interval

COUNTED: dict[Control, Outcome] = {
    "planted": "supported", "untrained": "supported", "shuffled": "supported", "near miss": "not supported",
}  # fmt: skip
"""Outcome that the aim of a control is about."""
HEADINGS = ("planted (at least 90%)", "untrained (at most 5%)", "shuffled (at most 5%)", "near miss (80% refused)")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Answers of one tool to the cases of one kind, control and strength."""

    tool: str
    kind: str
    control: Control
    effect: float
    """Strength of what was planted, 0 to 1; 0 in controls."""
    outcomes: tuple[Outcome, ...]
    """One for each case."""

    @property
    def weak(self) -> bool:
        """The claim was planted at a strength below 1, which has no aim."""
        return self.control == "planted" and self.effect < 1

    @property
    def share(self) -> float:
        """Share of the outcome that the aim is about."""
        return self.outcomes.count(COUNTED[self.control]) / len(self.outcomes)

    @property
    def meets(self) -> bool:
        """The share that is aimed at is reached."""
        if self.control == "planted":
            return self.share >= 0.9
        return self.share >= 0.8 if self.control == "near miss" else self.share <= 0.05

    def __str__(self) -> str:
        """Return the count with Wilson's 95 % interval, and whether the aim is missed."""
        count, n = self.outcomes.count(COUNTED[self.control]), len(self.outcomes)
        ends = proportion_interval(count, n)
        return f"{count} of {n} ({ends.low:.2f} to {ends.high:.2f})" + ("" if self.meets else ", missed")


def score_folder(folder: Path, kinds: Sequence[str] = tuple(KINDS)) -> list[Cell]:
    """Score the answers of every tool in a folder to some kinds of claim.

    Raises `MissingError` without answers, `UnknownNameError` for an answer to a case that the folder does not have.
    """
    truths, of_kind = truths_of(folder), {case.name: case.kind for _, case in cases_of(folder)}
    cells: list[Cell] = []
    for path in sorted((folder / "answers").glob("*.json")):
        given = read_answers(path)
        for name in given.answers:
            if name not in of_kind:
                raise UnknownNameError(f"case in {path}", name, of_kind)
        for kind in kinds:
            cells += _cells(kind, {name: truths[name] for name in of_kind if of_kind[name] == kind}, given)
    if not cells:
        raise MissingError(f"no answers to these kinds in {folder}; `python -m benchmarks.referee answer` writes some")
    return cells


def _cells(kind: str, truths: dict[str, Truth], given: Answers) -> list[Cell]:
    """Return a cell for each control and strength; none where the tool answers no case of the kind."""
    if not truths.keys() & given.answers.keys():
        return []
    found: dict[tuple[Control, float], list[Outcome]] = {}
    for name, truth in truths.items():
        answer = given.answers.get(name)
        found.setdefault((truth.control, truth.effect), []).append(answer.outcome if answer else "undecided")
    return [
        Cell(tool=given.tool, kind=kind, control=control, effect=effect, outcomes=tuple(outcomes))
        for (control, effect), outcomes in found.items()
    ]


def markdown(cells: Sequence[Cell]) -> list[str]:
    """Return a table with a row for each kind and tool: a column for each control, and power by strength."""
    tools = sorted({cell.tool for cell in cells}, key=lambda tool: (tool != WORKBENCH, tool))
    strengths = sorted({cell.effect for cell in cells if cell.weak})
    rows = [["kind", "tool", *HEADINGS, "undecided", *(f"at {effect:g}" for effect in strengths)]]
    rows.append(["---"] * len(rows[0]))
    for kind, tool in product(KINDS, tools):
        mine = [cell for cell in cells if (cell.kind, cell.tool) == (kind, tool)]
        judged = {cell.control: cell for cell in mine if not cell.weak}
        power = {cell.effect: f"{cell.share:.2f}" for cell in mine if cell.weak}
        undecided = sum(cell.outcomes.count("undecided") for cell in judged.values())
        counts = [str(judged.get(control, "")) for control in COUNTED]
        if mine:
            rows.append([kind, tool, *counts, str(undecided), *(power.get(effect, "") for effect in strengths)])
    return [f"| {' | '.join(row)} |" for row in rows]
