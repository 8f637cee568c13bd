"""`workbench referee write|answer|score`: how often a tool supports claims that are planted, and claims that are not.

Cases, truth and answers are files of a folder outside the workspace, so that any tool can be scored.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Interval as Between
from annotated_types import MaxLen

from interp.artifacts import atomic_file
from interp.claims import Subject
from interp.errors import ConfigError
from interp.options import Argument, Means, check_limits
from workbench.referee.cases import BASELINES, Baseline
from workbench.terminal import Heading, Seeded, Threaded, Verb, bar, say, slug

HEADING = Heading.STUDIES
WORKBENCH = "workbench"
Folder = Annotated[Path, Argument("FOLDER", "Folder of the cases.")]


def check_out(name: str) -> None:
    """Raise `ConfigError` for a name that is none of a file."""
    if slug(name) != name:
        raise ConfigError(f"--out is a name of letters, digits, '.', '_' and '-', got {name!r}")


@dataclass(frozen=True, kw_only=True)
class _Referee(Verb):
    """Option of a verb about a folder of cases."""

    kinds: tuple[Subject, ...] = ()
    """Kinds of claim. Default: all."""

    def __post_init__(self) -> None:
        check_limits(self)

    def chosen(self) -> list[str]:
        """Return the kinds that were asked for. Raises `UnknownNameError` for one without cases."""
        from workbench.referee.kinds import check_kind, offered_kinds

        for kind in self.kinds:
            check_kind(kind)
        return [*self.kinds] or offered_kinds()


@dataclass(frozen=True, kw_only=True)
class _Working(_Referee):
    """Option of a verb that works on one case after the other."""

    jobs: Annotated[int, Between(ge=1, le=256)] = 1
    """Processes that work on cases, one thread each."""


@dataclass(frozen=True, kw_only=True)
class RefereeWrite(Seeded, _Working):
    """Write cases of planted claims, and of controls that must fail.

    Example: workbench referee write referee

    A case is a claim about tiny models that lie beside it. Planted claims are true. Controls are false: claims about
    untrained or shuffled weights, and near misses. `truth.json` says how each case was made; the tool that answers does
    not read it. To measure power, a quarter of --n is also planted at each of some smaller strengths.
    """

    words: ClassVar[tuple[str, ...]] = ("referee", "write")
    resumes: ClassVar[bool] = True

    folder: Folder
    n: Annotated[int, Between(ge=1, le=10_000)] = 60
    """Cases of each control, for every kind of claim."""
    strengths: tuple[Annotated[float, Between(gt=0, lt=1)], ...] = ()
    """Strengths at which power is measured. Default: 0.05, 0.1, 0.2, 0.4 and 0.7."""

    def run(self) -> None:
        from workbench.referee.run import EFFECTS, write_cases

        strengths = self.strengths or EFFECTS
        with bar("writing cases") as progress:
            n = write_cases(
                self.folder, self.chosen(), self.n, self.seed, progress, strengths=strengths, jobs=self.jobs
            )
        say(f"wrote {self.folder}: {n:,} cases")
        say(f"      next: `workbench referee answer {self.folder}`, or answers of another tool")


@dataclass(frozen=True, kw_only=True)
class RefereeAnswer(Threaded, _Working):
    """Answer the cases of a folder with the analyses of this workbench, or a simpler method.

    Example: workbench referee answer referee

    Answers are kept as they come, and the same command goes on. Score them with `workbench referee score FOLDER`.
    --by answers the kinds that a method reads: circuits by mean faithfulness; edges and circuits by the circuit that
    eap, eap-ig or acdc finds; heads by attention alone; features by their strongest activations; directions by the
    projection on them.
    """

    words: ClassVar[tuple[str, ...]] = ("referee", "answer")
    resumes: ClassVar[bool] = True

    folder: Folder
    by: Baseline | None = None
    """Answer by this method, which is then the name of the tool."""
    out: Annotated[str, Means("NAME"), MaxLen(60)] = ""
    """Name of the tool: its answers are written to `answers/NAME.json` in the folder. Default: workbench, or --by."""
    overwrite: bool = False
    """Answer again what is answered, as after a change of an analysis."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out and (self.by or self.out in BASELINES):
            raise ConfigError("--out names answers of the workbench; those of a method (--by) have its name")
        check_out(self.out or WORKBENCH)

    def run(self) -> None:
        from workbench.referee.baselines import read_by
        from workbench.referee.run import answer_cases

        self.use_threads()
        kinds = read_by(self.by, self.chosen()) if self.by else self.chosen()
        tool = self.by or self.out or WORKBENCH
        path = self.folder / "answers" / f"{tool}.json"
        with bar("answering", "cases") as progress:
            made = answer_cases(
                self.folder, path, kinds, progress,
                tool=tool, jobs=self.jobs, overwrite=self.overwrite, by=self.by,
            )  # fmt: skip
        say(f"wrote {path}: {len(made.answers):,} answers in {made.seconds:,.0f} s, by version {made.code}")
        if made.kept:
            say(f"      {made.kept:,} of them were there before; after a change of an analysis use --overwrite")
        say(f"      next: `workbench referee score {self.folder}`")


@dataclass(frozen=True, kw_only=True)
class RefereeScore(_Referee):
    """Score answers of any tool by kind of claim and control, and draw power over strength.

    Example: workbench referee score referee

    A file of answers names its tool and gives for each case: supported, not supported or undecided. A case without an
    answer is undecided. Shares have Wilson's 95 % intervals. Aims: at least 90 % of the planted claims supported, at
    most 5 % of the untrained and of the shuffled. At least 80 % of the near misses are to be refused: not supported.
    """

    words: ClassVar[tuple[str, ...]] = ("referee", "score")

    folder: Folder
    answers: Annotated[tuple[Path, ...], Argument("ANSWERS")] = ()
    """Files of answers, in one table. Default: all in `answers/` of the folder."""
    plot: Path | None = None
    """Write the curves of power to this file as a web page."""
    json: bool = False
    """Print the table as JSON."""

    def run(self) -> None:
        from workbench.referee.score import score_folder

        score = score_folder(self.folder, self.answers, self.kinds)
        if self.json:
            print(json.dumps(score.to_records(), indent=1))
        else:
            say(str(score))
        if self.plot is not None:
            from dashboard.figures.referee import power_curves
            from dashboard.figures.theme import LIGHT

            with atomic_file(self.plot) as temporary:
                temporary.write_text(power_curves(score.powers(), LIGHT).to_html(), encoding="utf-8")
            print(f"wrote {self.plot}", file=sys.stderr)
