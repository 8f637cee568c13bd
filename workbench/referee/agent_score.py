"""Score an agent's answers, with and without the rule that only a supported claim may be concluded.

A **conclusion** is an answer other than `nothing` or `no`. With the rule, one without a supported test of its own does
not count. *Precision*: share of conclusions that are right. *Recall*: share of what is there that was concluded. A
**false explanation** is a conclusion where nothing is there (*invented*), or another one than what is there. Questions
without an answer are counted apart, and in none of these.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

from interp.results import Record, Result, whole_table
from interp.statistics import proportion_interval
from workbench.referee.cases import truths_of
from workbench.referee.exam import Exam
from workbench.referee.questions import EMPTY, Sort

RULES = {"none": False, "only supported": True}


class Marked(NamedTuple):
    """An answer beside the right one."""

    sort: str
    answer: str
    right: str
    supported: bool


@dataclass(frozen=True, kw_only=True)
class AgentScore(Result):
    """Score of one agent: counts as `(count, of how many)`, by rule and sort of question."""

    agent: str
    answers: tuple[Marked, ...]
    """One for each question that the agent answered."""
    asked: int
    """Questions."""
    tests: int

    def counts(self, rule: str, sort: str = "") -> dict[str, tuple[int, int]]:
        """Return each score as a count and of how many it is; `sort` limits it to one sort of question."""
        asked = [each for each in self.answers if sort in ("", each.sort)]
        made = [each for each in asked if each.answer not in EMPTY and (each.supported or not RULES[rule])]
        there = sum(each.right not in EMPTY for each in asked)
        right = sum(each.answer == each.right for each in made)
        return {
            "precision": (right, len(made)),
            "recall": (right, there),
            "false explanations": (len(made) - right, len(asked)),
            "invented": (sum(each.right in EMPTY for each in made), len(asked) - there),
        }

    def headline(self) -> str:
        """Count the false explanations by both rules."""
        plain, ruled = (self.counts(rule)["false explanations"] for rule in RULES)
        answered = f"{len(self.answers)} of {self.asked} answered"
        return f"{self.agent}: {answered}, {plain[0]} false explanations; with the rule {ruled[0]}"

    def rows(self) -> Iterator[tuple[Record, dict[str, tuple[int, int]]]]:
        """Yield the names and the counts of every row: each rule, all questions and each sort."""
        for rule in RULES:
            for sort in ("", *get_args(Sort)):
                yield {"rule": rule, "questions": sort or "all"}, self.counts(rule, sort)

    def to_records(self) -> list[Record]:
        """Return one row per rule and sort of question: counts, and shares with Wilson's 95 % intervals."""
        return [
            row | {k: v for name, c in counts.items() for k, v in _columns(name, *c)} for row, counts in self.rows()
        ]

    def shown(self) -> list[Record]:
        """Return the counts as text, with Wilson's 95 % intervals."""
        return [row | {name: _cell(*c) for name, c in counts.items()} for row, counts in self.rows()]

    def __str__(self) -> str:
        return "\n".join([self.headline(), f"{self.tests} tests", "", *whole_table(self.shown())])


def _columns(name: str, count: int, n: int) -> Iterator[tuple[str, float]]:
    yield f"{name} count", count
    yield f"{name} of", n
    if n:
        yield from proportion_interval(count, n).columns(name, f"{name} low", f"{name} high").items()


def _cell(count: int, n: int) -> str:
    ends = proportion_interval(count, n) if n else None
    return f"{count} of {n}" + (f" ({ends.low:.2f} to {ends.high:.2f})" if ends else "")


def score_agent(folder: Path, exam: Exam, agent: str) -> AgentScore:
    """Score the answers in the log of an exam."""
    truths, answers = truths_of(folder), []
    for name, question in exam.questions.items():
        if (call := exam.submitted.get(name)) is not None:
            test, claim = exam.tests.get(call.test), (name, call.answer, "supported")
            supported = test is not None and (test.question, test.answer, test.outcome) == claim
            answers.append(Marked(question.sort, call.answer, question.key(truths[question.case.name]), supported))
    return AgentScore(agent=agent, answers=tuple(answers), asked=len(exam.questions), tests=len(exam.tests))
