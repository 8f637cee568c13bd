"""Questions as a server for agents, and the log of what an agent did: a line of JSON for each call.

Tools: `questions`, `question`, `test`, `submit`, and the reads of `workbench.referee.reads`. A test is the referee's
own answer to the claim that an answer makes. No tool depends on the truth. A server that is started again reads the
log, and goes on.
"""

import hashlib
import inspect
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MaxLen

from dashboard import api
from interp.artifacts import as_json, json_lines
from interp.claims import Outcome
from interp.errors import ConfigError, UnknownNameError, WorkbenchError
from interp.forms import from_json
from workbench.protocol import Tool
from workbench.referee.questions import AgentQuestion
from workbench.referee.reads import READS
from workbench.referee.run import answer_case, digest_of

TESTS = 3
"""Tests of one question: an agent has to find the answer, and cannot test all of them."""
LOGGED = 2_000
"""Characters of the arguments and of the reply of a call that are logged."""
INSTRUCTIONS = f"""Questions about tiny models: which part does something, or is it there at all. In half of them
nothing is there: then the answer is `nothing` or `no`. For each that `questions` lists: read it with `question`,
investigate it with the other tools, and `submit` one answer. `test` judges the claim of an answer against its nulls,
at most {TESTS} times a question; give `submit` the id of the test of your answer, where you made one."""
Name = Annotated[str, MaxLen(10)]
GivenAnswer = Annotated[str, MaxLen(60)]


@dataclass(frozen=True, kw_only=True)
class AgentCall:
    """One call of an agent. The first line of a log is a call of `begin`, whose reply is the hash of the questions."""

    tool: str
    question: str = ""
    answer: str = ""
    test: str = ""
    """Id of the test that was made, or that was submitted."""
    outcome: Outcome | Literal[""] = ""
    asked: str = ""
    """Arguments as JSON, and below the reply: the first characters."""
    reply: str = ""
    failed: bool = False
    seconds: float = 0.0


class Exam:
    """Questions that are asked of one agent. Calls may come from several threads."""

    def __init__(self, questions: Sequence[AgentQuestion], log: Path):
        """Open a log, or begin one. Raises `ConfigError` for a log of other questions, `CorruptError`."""
        self.questions = {question.name: question for question in questions}
        self.log, self._lock = log, threading.Lock()
        parts = [[q.name, q.detail, q.words, *q.choices, digest_of(q.where)] for q in questions]
        begin = AgentCall(tool="begin", reply=hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16])
        self.calls = read_log(log) if log.exists() else []
        if not self.calls:
            log.parent.mkdir(parents=True, exist_ok=True)
            self._note(begin)
        elif self.calls[0] != begin:
            raise ConfigError(f"{log} is of other questions (cases, --n or --seed); choose another --out")

    @property
    def tests(self) -> dict[str, AgentCall]:
        """Tests that were made, by id."""
        return {call.test: call for call in self.calls if call.tool == "test" and not call.failed}

    @property
    def submitted(self) -> dict[str, AgentCall]:
        """Answers, by question; the first of two from servers that ran together."""
        return {call.question: call for call in reversed(self.calls) if call.tool == "submit" and not call.failed}

    def asked(self, name: object) -> AgentQuestion:
        """Return a question. Raises `UnknownNameError`."""
        if str(name) not in self.questions:
            raise UnknownNameError("question", str(name)[:60], self.questions)
        return self.questions[str(name)]

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Any:
        """Answer one call, and log it. Raises `ConfigError` with what is wrong, which does not name the case."""
        started = time.perf_counter()
        with self._lock:
            reply, told = self._answer(tool, arguments)
            seconds = round(time.perf_counter() - started, 2)
            texts = {"asked": json.dumps(arguments)[:LOGGED], "reply": json.dumps(reply)[:LOGGED]}
            self._note(AgentCall(tool=tool[:60], seconds=seconds, **texts, **told))
        if told.get("failed"):
            raise ConfigError(reply)
        return reply

    def _answer(self, tool: str, arguments: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the reply, or what is wrong, and fields of the log."""
        try:
            if tool in READS:
                others = {name: value for name, value in arguments.items() if name != "question"}
                reply = api.call(self.asked(arguments.get("question")).where, tool, others, READS)
            else:
                reply = api.call(self, tool, arguments, OWN_TOOLS)
        except WorkbenchError as error:
            cases = {str(question.where) for question in self.questions.values()}
            reply = str(error)
            for case in cases:
                reply = reply.replace(case, "the question")
            return reply, {"failed": True}
        except Exception as error:  # the files of a case are data: whatever they break is one call, and it is logged
            return f"{tool} failed on the files of this question ({type(error).__name__})", {"failed": True}
        noted = ("question", "answer", "test") if tool in ("test", "submit") else ("question",)
        told = {name: arguments[name] for name in noted if name in arguments}
        return reply, told | ({"test": reply["test"], "outcome": reply["outcome"]} if tool == "test" else {})

    def _note(self, call: AgentCall) -> None:
        self.calls.append(call)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(as_json(call)) + "\n")


def read_log(log: Path) -> list[AgentCall]:
    """Return the calls of a log, and remove a last line that was cut short. Raises `CorruptError` with the line."""
    written = log.read_bytes()
    os.truncate(log, written.rfind(b"\n") + 1)
    return [from_json(AgentCall, raw, where) for where, raw in json_lines(log, "begin again")]


def questions(exam: Exam) -> list[dict[str, object]]:
    """Return the questions, each with its sort and whether it is answered."""
    return [{"question": q.name, "sort": q.sort, "answered": q.name in exam.submitted} for q in exam.questions.values()]


def question(exam: Exam, question: Name) -> dict[str, object]:
    """Return a question: its words, the answers that it takes, and details of what it is about."""
    asked = exam.asked(question)
    details = {name: value for name, value in asked.case.details.items() if name != asked.detail}
    about = {"sort": asked.sort, "about": asked.case.kind, "words": asked.words, "details": details}
    return {"question": question, **about, "choices": asked.choices}


def test(exam: Exam, question: Name, answer: GivenAnswer) -> dict[str, object]:
    """Judge the claim that an answer makes, against nulls: supported, not supported or undecided, by test id."""
    asked = exam.asked(question)
    claim = asked.claim(answer)
    if sum(call.question == question for call in exam.tests.values()) >= TESTS:
        raise ConfigError(f"{question} was tested {TESTS} times; submit an answer")
    judged = answer_case(asked.where, claim)
    numbers = {"value": judged.value, "null": judged.null, "why": judged.why}
    return {"test": f"t{len(exam.tests) + 1}", "outcome": judged.outcome, **numbers}


def submit(exam: Exam, question: Name, answer: GivenAnswer, test: Name = "") -> dict[str, object]:
    """Answer a question, once. `test` is the id of the test of this answer; empty for one that was not tested."""
    exam.asked(question).check(answer)
    if question in exam.submitted:
        raise ConfigError(f"{question} is answered already, with {exam.submitted[question].answer!r}")
    if test:
        if test not in exam.tests:
            raise UnknownNameError("test", test, exam.tests)
        made = exam.tests[test]
        if (made.question, made.answer) != (question, answer):
            raise ConfigError(f"test {test} was of {made.answer!r} for {made.question}, not of {answer!r}")
    return {"noted": answer, "left": len(exam.questions) - len(exam.submitted) - 1}


OWN_TOOLS: dict[str, Callable[..., Any]] = {tool.__name__: tool for tool in (questions, question, test, submit)}


def offered() -> list[Tool]:
    """Return the tools with their schemas, as the protocol lists them."""
    forms = {name: api.schema(tool) for name, tool in (OWN_TOOLS | READS).items()}
    for name in READS:
        forms[name]["properties"] = {"question": {"type": "string"}, **forms[name]["properties"]}
        forms[name]["required"] = ["question", *forms[name].get("required", [])]
    about = {name: inspect.getdoc(tool) or "" for name, tool in (OWN_TOOLS | READS).items()}
    return [Tool(name, about[name], form, writes=name == "submit") for name, form in forms.items()]
