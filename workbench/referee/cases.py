"""Cases of the referee as files: what is claimed, what is true, and what a tool answered.

    FOLDER/
      cases/NAME/case.json    a claim about the files beside it: a tiny model, a dictionary, points
      truth.json              how each case was made; whoever answers does not read it
      answers/TOOL.json       what a tool said of each case

A case is one of four controls. Which of them must fail is fixed here, before anything is measured (`IS_TRUE`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

from annotated_types import Interval as Within
from annotated_types import MaxLen

from interp.artifacts import as_json, read_json, write_json
from interp.claims import Outcome, Subject
from interp.errors import CorruptError, MissingError
from interp.forms import Measured, from_json

T = TypeVar("T")
Control = Literal["planted", "untrained", "shuffled", "near miss"]
"""`planted`: the claim is true. `untrained`: it is about random weights. `shuffled`: about the planted weights,
shuffled within each matrix. `near miss`: the right object with a wrong claim about it. Of edges, circuits and
differences only what is claimed is random or shuffled, and the model still does the task."""
Baseline = Literal["faithfulness", "eap", "eap-ig", "acdc", "attention", "activations", "projection"]
"""Simpler methods that answer some kinds (`baselines`)."""
BASELINES: tuple[Baseline, ...] = get_args(Baseline)
KINDS: tuple[Subject, ...] = get_args(Subject)
CONTROLS: tuple[Control, ...] = get_args(Control)
IS_TRUE: dict[Control, bool] = {"planted": True, "untrained": False, "shuffled": False, "near miss": False}
Text = Annotated[str, MaxLen(400)]
Whole = Annotated[list[int], MaxLen(1_000)]
Detail = Text | int | float | Annotated[list[Text], MaxLen(1_000)] | Whole | Annotated[list[Whole], MaxLen(1_000)]


@dataclass(frozen=True, kw_only=True)
class RefereeCase:
    """A claim to judge. `details` say the same as `claim` for a program; their names belong to the kind."""

    format: Literal["workbench-referee-case"] = "workbench-referee-case"
    version: Annotated[int, Within(ge=1, le=1)] = 1
    name: Annotated[str, MaxLen(60)]
    kind: Subject
    claim: Annotated[str, MaxLen(400)]
    details: dict[str, Detail]


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Control, strength and seed that a case was made with."""

    control: Control
    effect: Annotated[float, Within(ge=0, le=1)]
    """Strength of what was planted: 1 in full, 0 not at all; 0 in controls without anything planted."""
    seed: int
    made_by: str = ""
    """Version of the workbench, and a hash of the code that makes cases of this kind."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Verdict of a tool on a case."""

    outcome: Outcome
    value: Measured
    """The number that the tool decided by; NaN where it has none."""
    null: Measured
    why: Annotated[str, MaxLen(400)] = ""
    case: Annotated[str, MaxLen(64)] = ""
    """Hash of the files that it was answered from, so that no answer outlives its case; empty where a tool has none."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Verdicts of one tool on the cases that it can read; a case without an answer counts as undecided."""

    format: Literal["workbench-referee-answers"] = "workbench-referee-answers"
    version: Annotated[int, Within(ge=1, le=1)] = 1
    tool: Annotated[str, MaxLen(60)]
    answers: dict[str, Answer]
    seconds: float
    code: Annotated[str, MaxLen(400)] = ""
    """Versions of the workbench that answered; empty for another tool."""
    kept: int = 0
    """Answers that were there before the last run."""


@dataclass(frozen=True, kw_only=True)
class CaseWords:
    """The words of a case that was written."""

    claim: str
    details: dict[str, Detail]


@dataclass(frozen=True, kw_only=True)
class KindOfCase:
    """One kind of claim: how a case is made, and how this workbench answers it."""

    write: Callable[[Path, Control, float, int], CaseWords]
    """`(folder of the case, control, effect from 0 to 1, seed)`: write the files of a case."""
    answer: Callable[[Path, RefereeCase], Answer]
    """`(folder of the case, case)`: judge it with the analysis that the pages show."""


def detail(case: RefereeCase, name: str, form: type[T]) -> T:
    """Return a detail of a claim. Raises `CorruptError` where it is missing or of another form."""
    value = case.details.get(name)
    if not isinstance(value, form):
        raise CorruptError(f"{case.name}: details.{name} is a {form.__name__}, got {value!r:.60}")
    return value


def write_case(folder: Path, name: str, kind: Subject, how: KindOfCase, truth: Truth) -> None:
    """Write one case below `folder / "cases"`."""
    here = folder / "cases" / name
    here.mkdir(parents=True, exist_ok=True)
    said = how.write(here, truth.control, truth.effect, truth.seed)
    write_json(here / "case.json", as_json(RefereeCase(name=name, kind=kind, claim=said.claim, details=said.details)))


def cases_of(folder: Path) -> Iterator[tuple[Path, RefereeCase]]:
    """Yield each case with its folder, by name. Raises `MissingError` where there is none, `CorruptError`."""
    found = sorted((folder / "cases").glob("*/case.json"))
    if not found:
        raise MissingError(f"no cases in {folder}; write some with: workbench referee write {folder}")
    for path in found:
        case = from_json(RefereeCase, read_json(path), path, "asked")
        if case.name != path.parent.name:
            raise CorruptError(f"{path} names itself {case.name!r}; a case has the name of its folder")
        yield path.parent, case


def truths_of(folder: Path) -> Mapping[str, Truth]:
    """Return how each case was made, by name."""
    path = folder / "truth.json"
    return from_json(dict[str, Truth], read_json(path), path, "asked")
