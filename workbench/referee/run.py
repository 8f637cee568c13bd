"""Write the cases of a folder, and answer them with the analyses of this workbench.

Both resume: a case that is written or answered stays. The names of cases say nothing of how they were made, and
whoever answers opens only `cases/`.
"""

import hashlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from math import nan
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar, cast

import numpy as np

from interp.artifacts import as_json, read_json, write_json
from interp.claims import Subject
from interp.errors import ConfigError, WorkbenchError
from interp.forms import from_json
from interp.packages import code_version
from interp.progress import Progress
from interp.seeds import derive_seed
from interp.threads import set_threads
from workbench.referee.cases import (
    CONTROLS,
    IS_TRUE,
    Answer,
    Answers,
    Baseline,
    RefereeCase,
    Truth,
    cases_of,
    truths_of,
    write_case,
)
from workbench.referee.kinds import how_of, made_by

EFFECTS = (0.05, 0.1, 0.2, 0.4, 0.7)
"""Strengths of the planted cases that power is measured with, beside those that are planted in full."""
SAVED_EVERY = 5.0
"""Seconds after which answers are written."""


def planned(kind: str, n: int, seed: int, strengths: Sequence[float] = EFFECTS) -> dict[str, Truth]:
    """Return the cases of a kind by name: `n` of each control, and a quarter of `n` planted at each smaller strength.

    Their order is random, so that a name tells nothing.
    """
    by = made_by(kind)
    made = [(control, 1.0 if IS_TRUE[control] else 0.0) for control in CONTROLS for _ in range(n)]
    made += [("planted", effect) for effect in strengths for _ in range(max(1, n // 4))]
    order = np.random.default_rng(derive_seed(seed, "order of cases", kind)).permutation(len(made))
    return {
        f"{kind}-{number:04d}": Truth(
            control=made[at][0], effect=made[at][1], seed=derive_seed(seed, "case", kind, int(at)) % 2**31, made_by=by
        )
        for number, at in enumerate(order)
    }


def write_cases(
    folder: Path,
    kinds: Sequence[str],
    n: int,
    seed: int,
    progress: Progress,
    *,
    strengths: Sequence[float] = EFFECTS,
    jobs: int = 1,
) -> int:
    """Write the cases of some kinds that are not there yet, in `jobs` processes; return how many the folder plans.

    Raises `ConfigError` where the folder holds cases of the same kind with other settings, or of other code.
    """
    there = dict(truths_of(folder)) if (folder / "truth.json").exists() else {}
    for kind in kinds:
        plan = planned(kind, n, seed, strengths)
        before = {name: truth for name, truth in there.items() if _kind_of(name) == kind}
        if before and before != plan:
            raise ConfigError(
                f"{folder} has cases of a {kind} by another --n, --seed, --strengths or code; choose another folder"
            )
        there |= plan
    write_json(folder / "truth.json", as_json(there))
    chosen = [(folder, name, truth) for name, truth in there.items() if _kind_of(name) in kinds]
    lacking = [each for each in chosen if not (folder / "cases" / each[1] / "case.json").exists()]  # it is written last
    for done, _ in enumerate(_each(_write, lacking, jobs), start=len(chosen) - len(lacking) + 1):
        progress(done, len(chosen), {})
    return len(there)


def answer_cases(
    folder: Path,
    path: Path,
    kinds: Sequence[str],
    progress: Progress,
    *,
    tool: str,
    jobs: int = 1,
    overwrite: bool = False,
    by: Baseline | None = None,
) -> Answers:
    """Answer the cases of some kinds with the analyses of this workbench, in `jobs` processes, and write to `path`.

    A simpler method answers instead where `by` names it.

    Answers that `path` holds stay, where the case is still the same to the bit, whichever version gave them. A case
    that an analysis refuses is undecided, with its reason.
    """
    kept = read_answers(path) if path.exists() and not overwrite else Answers(tool=tool, answers={}, seconds=0.0)
    cases = [(where, case, digest_of(where), by) for where, case in cases_of(folder) if case.kind in kinds]
    answers, started, saved = dict(kept.answers), time.perf_counter(), time.perf_counter()
    lacking = [each for each in cases if (a := answers.get(each[1].name)) is None or a.case != each[2]]
    versions = ", ".join(dict.fromkeys([*filter(None, kept.code.split(", ")), code_version()]))
    kept = replace(kept, code=versions, kept=len(answers.keys() - {case.name for _, case, *_ in lacking}))

    def save() -> Answers:
        made = replace(kept, answers=answers, seconds=round(kept.seconds + time.perf_counter() - started, 1))
        write_json(path, as_json(made))
        return made

    try:
        for done, (name, answer) in enumerate(_each(_answer, lacking, jobs), start=len(cases) - len(lacking) + 1):
            answers[name] = answer
            if time.perf_counter() - saved > SAVED_EVERY:
                save()
                saved = time.perf_counter()
            progress(done, len(cases), {"case": name})
    finally:
        made = save()
    return made


def _kind_of(name: str) -> Subject:
    """Return the kind of a planned case by its name."""
    return cast("Subject", name.rpartition("-")[0])


def _write(folder: Path, name: str, truth: Truth) -> None:
    write_case(folder, name, _kind_of(name), how_of(_kind_of(name)), truth)


def _answer(where: Path, case: RefereeCase, digest: str, by: Baseline | None) -> tuple[str, Answer]:
    """Return the name of a case and its answer."""
    return case.name, replace(answer_case(where, case, by), case=digest)


def answer_case(where: Path, case: RefereeCase, by: Baseline | None = None) -> Answer:
    """Judge a claim about the files of a folder; one that the analysis refuses is undecided, with its reason."""
    try:
        if by is not None:
            from workbench.referee.baselines import METHODS

            return METHODS[by].answer(where, case)
        return how_of(case.kind).answer(where, case)
    except WorkbenchError as error:
        return Answer(outcome="undecided", value=nan, null=nan, why=str(error)[:400])


T = TypeVar("T")


def _each(function: Callable[..., T], tasks: Sequence[tuple[object, ...]], jobs: int) -> Iterator[T]:
    """Yield the value of a function for each task as it comes; several processes have one thread each."""
    if jobs == 1 or len(tasks) < 2:
        yield from (function(*task) for task in tasks)
        return
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=get_context("spawn"), initializer=_begin)
    try:
        for future in as_completed([pool.submit(function, *task) for task in tasks]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Leave Ctrl-C to the first process, and compute with one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_threads(1)


def read_answers(path: Path) -> Answers:
    """Read a file of answers. Raises `MissingError`, and `CorruptError` or `ConfigError` that names what is wrong."""
    return from_json(Answers, read_json(path), path, "asked")


def digest_of(where: Path) -> str:
    """Return a hash of all files of a case."""
    found = hashlib.sha256()
    for path in sorted(path for path in where.rglob("*") if path.is_file()):
        found.update(path.relative_to(where).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:16]
