"""Cases of the referee: what is claimed, what is true, and what a tool answered.

    FOLDER/
      cases/NAME/case.json    a claim about the files beside it: a tiny model, a dictionary, prompts
      truth.json              how each case was made; whoever answers does not read it
      answers/TOOL.json       what a tool said of each case

A case is one of four controls. Which of them must fail is fixed here, before anything is measured (`IS_TRUE`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from interp.artifacts import read_json
from interp.claims import Outcome
from interp.errors import MissingError
from interp.forms import from_json

Control = Literal["planted", "untrained", "shuffled", "near miss"]
"""`planted`: the claim is true. `untrained`: it is about random weights. `shuffled`: about the planted weights,
shuffled within each matrix. `near miss`: the right object with a wrong claim about it. Of edges, circuits and
differences only what is claimed is random or shuffled, and the model still does the task."""
CONTROLS: tuple[Control, ...] = get_args(Control)
IS_TRUE: dict[Control, bool] = {"planted": True, "untrained": False, "shuffled": False, "near miss": False}
Details = dict[str, Any]
"""What a claim is about; the names belong to the kind of claim."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A claim to judge. Its name says nothing of how it was made."""

    name: str
    kind: str
    details: Details


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Control, strength and seed that a case was made with."""

    control: Control
    effect: float
    """Strength of what was planted: 1 in full, 0 not at all; 0 in controls."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Verdict of a tool on a case."""

    outcome: Outcome
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Verdicts of one tool on the cases that it can read; a case without one counts as undecided."""

    tool: str
    answers: dict[str, Answer]


def cases_of(folder: Path) -> Iterator[tuple[Path, Case]]:
    """Yield each case with its folder, by name. Raises `MissingError` where there is none."""
    found = sorted((folder / "cases").glob("*/case.json"))
    if not found:
        raise MissingError(f"no cases in {folder}; write some with: python -m benchmarks.referee write {folder}")
    for path in found:
        yield path.parent, from_json(Case, read_json(path), path, "asked")


def truths_of(folder: Path) -> dict[str, Truth]:
    """Return how each case was made, by name."""
    path = folder / "truth.json"
    return from_json(dict[str, Truth], read_json(path), path, "asked")


def read_answers(path: Path) -> Answers:
    """Read a file of answers. Raises `ConfigError` that names what is wrong."""
    return from_json(Answers, read_json(path), path, "asked")
