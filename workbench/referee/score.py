"""Score answers: for each tool, kind of claim and control a share of outcomes, against an aim fixed beforehand.

A case without an answer is undecided. A kind of which a tool answers no case is left out for that tool.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from interp.claims import Outcome, Subject
from interp.errors import ConfigError, MissingError, UnknownNameError
from interp.results import Record, Result, columns_of, whole_table
from interp.statistics import Interval, proportion_interval
from workbench.referee.cases import CONTROLS, KINDS, Answers, Control, Truth, cases_of, truths_of
from workbench.referee.run import digest_of, read_answers

Way = Literal["at least", "at most"]
AIMS: dict[Control, tuple[Outcome, Way, float]] = {
    "planted": ("supported", "at least", 0.9),
    "untrained": ("supported", "at most", 0.05),
    "shuffled": ("supported", "at most", 0.05),
    "near miss": ("not supported", "at least", 0.8),
}
"""Share of an outcome that each control should have."""
_HEADINGS = {
    control: f"{control} ({bound:.0%} refused)" if outcome == "not supported" else f"{control} ({way} {bound:.0%})"
    for control, (outcome, way, bound) in AIMS.items()
}


@dataclass(frozen=True, kw_only=True)
class RefereeCell:
    """Answers of one tool to the cases of one kind, control and strength."""

    tool: str
    kind: Subject
    control: Control
    effect: float
    """Strength of what was planted, 0 to 1; 0 in controls."""
    n: int
    supported: int
    not_supported: int
    undecided: int
    outcome: Outcome
    """Outcome that the aim is about: `not supported` of near misses, `supported` of all others."""
    share: Interval[float] = field(metadata={"ends": ("low", "high")})
    """Share of this outcome, with Wilson's 95 % interval."""
    meets: bool | None
    """The share that is aimed at is reached; None for a strength below 1, which has no aim."""


@dataclass(frozen=True, kw_only=True)
class RefereeScores(Result):
    """Score of one or more tools on the cases of one folder."""

    cells: tuple[RefereeCell, ...]

    def headline(self) -> str:
        """Count the aims that each tool meets."""
        counts = []
        for tool in self.tools:
            judged = [cell for cell in self.cells if cell.tool == tool and cell.meets is not None]
            counts.append(f"{tool} meets {sum(bool(c.meets) for c in judged)} of {len(judged)} aims")
        return "; ".join(counts)

    @property
    def tools(self) -> list[str]:
        """Names of the tools, in their order."""
        return list(dict.fromkeys(cell.tool for cell in self.cells))

    def to_records(self) -> list[Record]:
        """Return one row per tool, kind, control and strength, with a share and its interval."""
        return [columns_of(cell) for cell in self.cells]

    def powers(self) -> list[Record]:
        """Return the rows of what was planted, by strength."""
        return [row for row in self.to_records() if row["control"] == "planted"]

    def shown(self) -> list[Record]:
        """Return one row per kind and tool: the outcome that each control should have, and power by strength."""
        order = sorted({(KINDS.index(cell.kind), self.tools.index(cell.tool)) for cell in self.cells})
        return [self._row(KINDS[kind], self.tools[tool]) for kind, tool in order]

    def _row(self, kind: Subject, tool: str) -> Record:
        cells = [cell for cell in self.cells if (cell.kind, cell.tool) == (kind, tool)]
        judged = [cell for cell in cells if cell.meets is not None]
        said = {cell.control: _said(cell) for cell in judged}
        weaker = sorted((cell for cell in cells if cell.meets is None), key=lambda cell: cell.effect)
        counts = {_HEADINGS[control]: said.get(control, "") for control in CONTROLS}
        powers = {f"at {cell.effect:g}": f"{cell.share.estimate:.2f}" for cell in weaker}
        return {"kind": kind, "tool": tool, **counts, "undecided": sum(cell.undecided for cell in judged), **powers}

    def __str__(self) -> str:
        head = f"{self.headline()}. Counts of supported, of near misses refused, with Wilson's intervals."
        return "\n".join([head, *whole_table(self.shown())])


def _said(cell: RefereeCell) -> str:
    """Return the count that the aim is about, with its interval, and whether the aim is missed."""
    count = cell.supported if cell.outcome == "supported" else cell.not_supported
    said = f"{count} of {cell.n} ({cell.share.low:.2f} to {cell.share.high:.2f})"
    return said if cell.meets else f"{said}, missed"


def score_folder(folder: Path, files: Sequence[Path] = (), kinds: Sequence[str] = ()) -> RefereeScores:
    """Score files of answers on the cases of a folder.

    Args:
        folder: where the cases and their `truth.json` are.
        files: answers, one tool each; none for all in `answers/` of the folder.
        kinds: only these kinds of claim; none for all.
    Raises:
        MissingError: no truth or no answers.
        UnknownNameError: an answer to a case that the folder does not have.
        ConfigError: a file that is no file of answers, a tool that has two, or an answer from another case's files.
    """
    truths = truths_of(folder)
    paths = list(files) or sorted((folder / "answers").glob("*.json"))
    if not paths:
        raise MissingError(f"no answers in {folder / 'answers'}; `workbench referee answer {folder}` writes some")
    by_tool: dict[str, Answers] = {}
    of_kind = {case.name: case.kind for _, case in cases_of(folder)}
    if lacking := sorted(truths.keys() - of_kind.keys()):
        raise MissingError(f"{len(lacking)} cases of {folder} are not written, such as {lacking[0]}; write them first")
    digests: dict[str, str] = {}
    for path in paths:
        answers = read_answers(path)
        if answers.tool in by_tool:
            raise ConfigError(f"two files of answers name the tool {answers.tool!r}; rename one in {path}")
        for name, answer in answers.answers.items():
            if name not in truths:
                raise UnknownNameError(f"case in {path}", name, truths)
            if answer.case and answer.case != digests.setdefault(name, digest_of(folder / "cases" / name)):
                raise ConfigError(f"{path} answers another {name} than that in {folder}; answer it again")
        by_tool[answers.tool] = answers
    wanted = {name: truth for name, truth in truths.items() if not kinds or of_kind[name] in kinds}
    cells = [
        cell
        for tool, answers in by_tool.items()
        for kind in KINDS
        for cell in _cells(tool, kind, {n: t for n, t in wanted.items() if of_kind[n] == kind}, answers)
    ]
    if not cells:
        raise MissingError("these tools answer no case of these kinds")
    return RefereeScores(cells=tuple(cells))


def _cells(tool: str, kind: Subject, truths: Mapping[str, Truth], answers: Answers) -> list[RefereeCell]:
    if not truths.keys() & answers.answers.keys():
        return []
    made = sorted({(CONTROLS.index(t.control), -t.effect) for t in truths.values()})
    cells = []
    for number, effect in made:
        control = CONTROLS[number]
        names = [name for name, truth in truths.items() if (truth.control, -truth.effect) == (control, effect)]
        given = [answers.answers[name].outcome if name in answers.answers else "undecided" for name in names]
        supported, refused, n = given.count("supported"), given.count("not supported"), len(names)
        outcome, way, bound = AIMS[control]
        share = proportion_interval(given.count(outcome), n)
        reached = share.estimate >= bound if way == "at least" else share.estimate <= bound
        cells.append(
            RefereeCell(
                tool=tool, kind=kind, control=control, effect=-effect, n=n, supported=supported,
                not_supported=refused, undecided=n - supported - refused, outcome=outcome, share=share,
                meets=None if control == "planted" and effect > -1 else reached,
            )
        )  # fmt: skip
    return cells
