"""Write the cases of a folder, and answer them. Whoever answers opens only `cases/`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.referee import circuit, difference, direction, edge, feature, head, shape
from benchmarks.referee.baselines import METHODS
from benchmarks.referee.cases import CONTROLS, IS_TRUE, Answer, Answers, Case, Truth, cases_of, read_answers
from interp.artifacts import as_json, write_json
from interp.errors import ConfigError, NoGapError, WorkbenchError
from interp.seeds import derive_seed

EFFECTS = (0.05, 0.1, 0.2, 0.4, 0.7)
"""Strengths of the planted cases that power is measured with, beside those that are planted in full."""
WORKBENCH = "workbench"
MODULES = (feature, head, edge, circuit, direction, shape, difference)
KINDS = {module.__name__.rpartition(".")[2]: module for module in MODULES}
"""A module for each kind of claim: `write(folder, control, effect, seed)` writes the files of a case and returns what
is claimed about them; `answer(folder, details)` judges that with the analysis that the pages show."""


def planned(kind: str, n: int, seed: int) -> dict[str, Truth]:
    """Return the cases of a kind by name: `n` of each control, and a quarter of `n` planted at each smaller strength.

    Their order is random, so that a name tells nothing.
    """
    made = [(control, 1.0 if IS_TRUE[control] else 0.0) for control in CONTROLS for _ in range(n)]
    made += [("planted", effect) for effect in EFFECTS for _ in range(max(1, n // 4))]
    order = np.random.default_rng(derive_seed(seed, "order of cases", kind)).permutation(len(made))
    return {
        f"{kind}-{number:04d}": Truth(
            control=made[at][0], effect=made[at][1], seed=derive_seed(seed, "case", kind, int(at)) % 2**31
        )
        for number, at in enumerate(order)
    }


def write_case(folder: Path, name: str, truth: Truth) -> Case:
    """Write one case below `folder / "cases"`; its name begins with its kind."""
    here, kind = folder / "cases" / name, name.rpartition("-")[0]
    here.mkdir(parents=True, exist_ok=True)
    details = KINDS[kind].write(here, truth.control, truth.effect, truth.seed)
    case = Case(name=name, kind=kind, details=details)
    write_json(here / "case.json", as_json(case))
    return case


def write_cases(folder: Path, kinds: Sequence[str], n: int, seed: int) -> None:
    """Write the cases of some kinds. Raises `ConfigError` for a folder that has cases."""
    if (folder / "cases").exists():
        raise ConfigError(f"{folder} has cases; choose another folder")
    truths = {name: truth for kind in kinds for name, truth in planned(kind, n, seed).items()}
    for name, truth in truths.items():
        write_case(folder, name, truth)
    write_json(folder / "truth.json", as_json(truths))


def answer_cases(folder: Path, kinds: Sequence[str], by: str = WORKBENCH) -> Answers:
    """Judge the cases of some kinds by this workbench or a simpler method, and write `answers/BY.json`.

    What that file answers already stays.
    """
    path = folder / "answers" / f"{by}.json"
    answers = dict(read_answers(path).answers) if path.exists() else {}
    for where, case in cases_of(folder):
        reads = by == WORKBENCH or case.kind in METHODS[by][0]
        if reads and case.kind in kinds and case.name not in answers:
            answers[case.name] = answer_case(where, case, by)
            write_json(path, as_json(Answers(tool=by, answers=answers)))
    return Answers(tool=by, answers=answers)


def answer_case(where: Path, case: Case, by: str = WORKBENCH) -> Answer:
    """Judge a claim about the files of a folder; one that the analysis refuses is undecided, with its reason."""
    judge = KINDS[case.kind].answer if by == WORKBENCH else METHODS[by][1]
    try:
        return judge(where, case.details)
    except NoGapError as error:
        return Answer(outcome="not supported", why=str(error))
    except WorkbenchError as error:
        return Answer(outcome="undecided", why=str(error))
