"""Questions to an agent, made from cases of the referee: a claim as it stands, or with one detail left open.

    which feature      a latent of the dictionary, or `nothing`
    which head         a head of the model, or `nothing`
    what does it do    a kind of head, or `nothing`
    which edge         an edge from a head, or `nothing`
    is it there        `yes` or `no`, of every kind of claim

Half of the questions of each sort are about planted cases; in the others nothing is there (untrained and shuffled
weights), or the claim is a near miss, of which only *is it there* is asked. All that is planted has one strength.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from interp.errors import ConfigError, UnknownNameError
from interp.names import HEAD_KINDS, parse_head
from interp.seeds import derive_seed
from workbench.referee.cases import IS_TRUE, RefereeCase, Truth, cases_of, truths_of
from workbench.referee.head import ALIKE
from workbench.referee.planted_models import parse_edge
from workbench.referee.reads import heads_of, n_latents

Sort = Literal["which feature", "which head", "what does it do", "which edge", "is it there"]
EMPTY = ("nothing", "no")
"""Answers that nothing is there: to a question with an open detail, and to one about a whole claim."""
Details = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class OpenDetail:
    """A detail of a kind of claim that a question leaves open."""

    sort: Sort
    kind: str
    detail: str
    asks: Callable[[Details], str]
    choices: Callable[[Path, Details], list[str]]
    has_one_answer: Callable[[Details], bool] = lambda details: True


def _into(details: Details) -> str:
    edge = parse_edge(details["edge"])
    return f"-{edge.via}-> {edge.target}"


OPEN = (
    OpenDetail(
        sort="which feature", kind="feature", detail="latent",
        asks=lambda d: f"Which latent fires on the tokens {d['tokens']}, and makes the model say them?",
        choices=lambda where, d: list(map(str, range(n_latents(where)))),
    ),
    OpenDetail(
        sort="which head", kind="head", detail="head",
        asks=lambda d: f"Which head is of the kind {d['head_kind']} (it {HEAD_KINDS[d['head_kind']]})?",
        choices=lambda where, d: heads_of(where),
        has_one_answer=lambda d: d["head_kind"] != "previous_token",  # the induction heads of a case have one, too
    ),
    OpenDetail(
        sort="what does it do", kind="head", detail="head_kind",
        asks=lambda d: f"Of which kind is the head {d['head']}?",
        choices=lambda where, d: list(ALIKE),
    ),
    OpenDetail(
        sort="which edge", kind="edge", detail="edge",
        asks=lambda d: f"Which edge from an earlier head, written as L0H0 {_into(d)}, matters for the task?",
        choices=lambda where, d: [
            f"{head} {_into(d)}" for head in heads_of(where)
            if parse_head(head).layer < parse_head(parse_edge(d["edge"]).target).layer
        ],
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AgentQuestion:
    """A question about one case."""

    name: str = ""
    sort: Sort
    where: Path
    """Folder of the case; not shown."""
    case: RefereeCase
    detail: str = ""
    """Detail that is left open; empty where the claim is asked about as it stands."""
    words: str
    choices: tuple[str, ...]
    """Answers that are taken; the last one says that nothing is there."""

    def check(self, answer: str) -> None:
        """Raise `UnknownNameError` for an answer that is none of the choices."""
        if answer not in self.choices:
            raise UnknownNameError(f"answer to {self.name}", answer, self.choices)

    def claim(self, answer: str) -> RefereeCase:
        """Return the case with the claim that an answer makes. Raises `ConfigError` where it makes none."""
        self.check(answer)
        if answer == self.choices[-1]:
            raise ConfigError(f"{answer!r} claims nothing that could be tested; submit it without a test")
        details = self.case.details
        if not self.detail:
            return self.case
        value = int(answer) if isinstance(details[self.detail], int) else answer
        return replace(self.case, claim=self.words, details=details | {self.detail: value})

    def key(self, truth: Truth) -> str:
        """Return the right answer."""
        if not IS_TRUE[truth.control]:
            return self.choices[-1]
        return str(self.case.details[self.detail]) if self.detail else "yes"


_Entry = tuple[int, Path, RefereeCase, OpenDetail | None]


def questions_of(folder: Path, n: int, seed: int, strength: float = 1.0) -> list[AgentQuestion]:
    """Draw questions about the cases of a folder, as many of each sort as there are cases for, no case twice.

    `strength` is that of the planted cases: 1 in full, less as in the curves of power.
    Raises `ConfigError` where the folder has too few cases or none of this strength, `MissingError` where it has none.
    """
    truths, rng = truths_of(folder), np.random.default_rng(derive_seed(seed, "questions"))
    strengths = sorted({truth.effect for truth in truths.values() if IS_TRUE[truth.control]})
    if strength not in strengths:
        raise ConfigError(f"{folder} has nothing planted at strength {strength:g}; it has {strengths}")
    found = [(where, case) for where, case in cases_of(folder) if truths[case.name].effect in (0, strength)]
    pools: dict[tuple[str, bool], list[_Entry]] = defaultdict(list)
    seen: dict[tuple[str, str, str], int] = defaultdict(int)
    for at in rng.permutation(len(found)):
        where, case = found[at]
        control = truths[case.name].control
        forms = [form for form in OPEN if form.kind == case.kind and form.has_one_answer(case.details)]
        for form in (None, *([] if control == "near miss" else forms)):
            sort = "is it there" if form is None else form.sort
            seen[sort, case.kind, control] += 1
            pools[sort, IS_TRUE[control]].append((seen[sort, case.kind, control], where, case, form))
    for pool in pools.values():  # so that kinds and controls take turns
        pool.sort(key=lambda entry: -entry[0])
    drawn: dict[str, AgentQuestion] = {}
    sorts = sorted({sort for sort, _ in pools})
    while sorts and len(drawn) < n:
        sort = sorts.pop(0)
        pair = [_next(pools[sort, there], drawn) for there in (False, True)]
        if None not in pair:  # else the sort has ended: one more of it alone would not be half
            sorts.append(sort)
            drawn |= {each[2].name: _asked(*each[1:]) for each in pair[: n - len(drawn)] if each is not None}
    if len(drawn) < n:
        raise ConfigError(
            f"{folder} has cases for {len(drawn)} of {n} questions, in half of which nothing is there; write more, or "
            "ask fewer with --n"
        )
    shuffled = [list(drawn.values())[at] for at in rng.permutation(n)]
    return [replace(question, name=f"q{number:02d}") for number, question in enumerate(shuffled, 1)]


def _next(pool: list[_Entry], drawn: Container[str]) -> _Entry | None:
    """Take the next case of a pool that is not drawn yet; None without one."""
    while pool:
        if (entry := pool.pop())[2].name not in drawn:
            return entry
    return None


def _asked(where: Path, case: RefereeCase, form: OpenDetail | None) -> AgentQuestion:
    if form is None:
        words = f"Is this true? {case.claim}"
        return AgentQuestion(sort="is it there", where=where, case=case, words=words, choices=("yes", "no"))
    return AgentQuestion(
        sort=form.sort, where=where, case=case, detail=form.detail, words=form.asks(case.details),
        choices=(*form.choices(where, case.details), EMPTY[0]),
    )  # fmt: skip
