"""An agent that is asked about planted cases: its score worked out by hand, a server that gives nothing away."""

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from interp.artifacts import as_json, write_json
from interp.errors import ConfigError, CorruptError
from workbench.__main__ import main
from workbench.protocol import calling
from workbench.referee import run
from workbench.referee.agent_score import AgentScore, Marked, score_agent
from workbench.referee.cases import Answer, CaseWords, KindOfCase, Truth, write_case
from workbench.referee.exam import LOGGED, TESTS, Exam, offered
from workbench.referee.kinds import how_of
from workbench.referee.questions import questions_of
from workbench.referee.reads import READS, embedding_distances, next_tokens
from workbench.referee.solver import solve

CONTROLS = ("planted", "untrained", "shuffled", "near miss")
HEADS = {"planted": "L1H1", "untrained": "L1H0", "shuffled": "L0H0", "near miss": "L1H1"}


def _write(folder, control, effect, seed):
    write_json(folder / "small.json", {"n_layers": 2, "n_heads": 2})
    (folder / "does.txt").write_text("L1H1" if control == "planted" else "")
    return CaseWords(claim=f"{HEADS[control]} is it", details={"head": HEADS[control], "head_kind": "induction"})


def _answer(folder, case):
    found = (folder / "does.txt").read_text() == case.details["head"] and case.details["head_kind"] == "induction"
    return Answer(outcome="supported" if found else "not supported", value=float(found), null=0.5)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cases of heads that cost nothing: a file has the head of which the claim is true."""
    kind = KindOfCase(write=_write, answer=_answer)
    monkeypatch.setattr(run, "how_of", lambda _: kind)
    truths = {f"head-{at:04d}": Truth(control=CONTROLS[at % 4], effect=float(at % 4 == 0), seed=at) for at in range(24)}
    truths["head-0024"] = Truth(control="planted", effect=0.4, seed=24)
    for name, truth in truths.items():
        write_case(tmp_path, name, "head", kind, truth)
    write_json(tmp_path / "truth.json", as_json(truths))
    return tmp_path


def exam_of(folder: Path, n: int = 12, seed: int = 0) -> Exam:
    return Exam(questions_of(folder, n, seed), folder / "agents" / f"{seed}.jsonl")


def test_a_score_is_that_worked_out_by_hand():
    score = AgentScore(agent="a", tests=0, asked=9, answers=(
        Marked("which head", "L0H1", "L0H1", True), Marked("which head", "L0H1", "L1H0", True),
        Marked("which head", "L0H0", "L0H0", False), Marked("which head", "L0H0", "nothing", True),
        Marked("is it there", "yes", "no", False), Marked("is it there", "no", "yes", False),
        Marked("is it there", "no", "no", False), Marked("is it there", "yes", "yes", True),
    ))  # fmt: skip
    assert score.counts("none") == {
        "precision": (3, 6), "recall": (3, 5), "false explanations": (3, 8), "invented": (2, 3)
    }  # fmt: skip
    assert score.counts("only supported") == {
        "precision": (2, 4), "recall": (2, 5), "false explanations": (2, 8), "invented": (1, 3)
    }  # fmt: skip
    assert score.counts("only supported", "is it there")["invented"] == (0, 2)
    row = next(row for row in score.to_records() if row["rule"] == "none")
    assert (row["precision"], row["precision low"]) == (0.5, pytest.approx(0.188, abs=1e-3)), "Wilson for 3 of 6"
    assert "8 of 9 answered, 3 false explanations; with the rule 2" in str(score)


def test_half_of_the_questions_of_each_sort_are_about_what_is_there(folder):
    asked, again, other = (questions_of(folder, 12, seed) for seed in (0, 0, 1))
    assert asked == again != other
    assert len({question.case.name for question in asked}) == 12
    assert "head-0024" not in {question.case.name for question in asked}, "planted in part"
    truths = run.truths_of(folder)
    by_sort = {q.sort: [] for q in asked}
    for q in asked:
        key = q.key(truths[q.case.name])
        assert key in q.choices
        by_sort[q.sort].append(key not in ("nothing", "no"))
        assert q.sort == "is it there" or truths[q.case.name].control != "near miss"
    assert {sort: (sum(there), len(there)) for sort, there in by_sort.items()} == dict.fromkeys(by_sort, (2, 4))
    assert set(by_sort) == {"which head", "what does it do", "is it there"}
    most = questions_of(folder, 12, 0)
    with pytest.raises(ConfigError, match="12 of 13 questions, in half of which nothing is there"):
        questions_of(folder, 13, 0)  # six are planted in full
    assert sum(q.key(truths[q.case.name]) in ("nothing", "no") for q in most) == 6
    weak = questions_of(folder, 2, 0, strength=0.4)
    assert {truths[q.case.name].effect for q in weak} == {0, 0.4}
    with pytest.raises(ConfigError, match=r"nothing planted at strength 0.3; it has \[0.4, 1.0\]"):
        questions_of(folder, 4, 0, strength=0.3)


def test_an_agent_that_tests_first_is_scored_without_false_explanations(folder, capsys):
    exam = exam_of(folder)
    truths = run.truths_of(folder)
    (folder / "truth.json").rename(folder / "hidden")  # no tool needs it
    for name, question in exam.questions.items():
        answer = {"which head": "L1H1", "what does it do": "induction", "is it there": "yes"}[question.sort]
        test = exam.call("test", {"question": name, "answer": answer})
        exam.call("submit", {"question": name, "answer": answer, "test": test["test"]})
    (folder / "hidden").rename(folder / "truth.json")
    score = score_agent(folder, exam_of(folder), "a")  # from the log
    there = sum(q.key(truths[q.case.name]) not in ("nothing", "no") for q in exam.questions.values())
    assert score.counts("none")["precision"] == (there, 12)
    assert score.counts("only supported") | {"invented": 0} == {
        "precision": (there, there), "recall": (there, there), "false explanations": (0, 12), "invented": 0
    }  # fmt: skip
    agent = f"{sys.executable} -c 'import json, sys; json.load(open(sys.argv[1])); sys.exit(3)' {{config}}"
    assert main(["referee", "agent", str(folder), "--n", "12", "--command", agent, "--json"]) == 0
    told = capsys.readouterr()
    assert "exit code 3" in told.err
    assert json.loads(told.out)[0]["recall of"] == 0, "of what it answered"
    assert main(["referee", "agent", str(folder), "--n", "12", "--command", "agent '{config}"]) == 2
    assert "No closing quotation" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "mcp", None)  # not installed
        assert main(["referee", "agent", str(folder), "--n", "12", "--command", agent]) == 2
    assert "pip install 'mcp>=2,<3'" in capsys.readouterr().err, "before an agent starts that could call nothing"
    assert main(["referee", "agent", str(folder), "--n", "12", "--out", "0"]) == 0, "the log of the agent above"
    printed = capsys.readouterr().out
    assert '"mcpServers"' in printed
    assert f"{there} of {there} (" in printed


WRONG = [
    ("attention", {"question": ["q01"], "tokens": [1], "head": "L0H0"}, "unknown question"),
    ("next_tokens", {"question": "q01", "tokens": [2**80]}, "tokens"),
    ("submit", {"question": "q01", "answer": "x" * 5000}, "60 characters"),
    ("submit", {"question": "q01", "answer": "L9H9"}, "unknown answer to q01"),
    ("submit", {"question": "q01"}, "answer is missing"),
    ("truth", {}, "unknown read 'truth'"),
    ("latents", {"question": "q01"}, "this question has no cfg.json"),
    ("files", {"question": "q01", "path": "../../../truth.json"}, "path"),
    ("next_tokens", {"question": "q01", "tokens": [1], "of": "../../truth"}, "of should be"),
    ("edge_scores", {"question": "q01"}, "edge_scores failed on the files of this question (ZeroDivisionError)"),
]


def test_a_wrong_call_is_refused_and_logged(folder, monkeypatch):
    exam = exam_of(folder)
    monkeypatch.setitem(READS, "edge_scores", lambda where: 1 / 0)
    for tool, arguments, words in WRONG:
        with pytest.raises(ConfigError) as refused:
            exam.call(tool, arguments)
        assert words in str(refused.value)
        assert str(folder) not in str(refused.value)
        last = json.loads(exam.log.read_text().splitlines()[-1])
        assert last["failed"]
        assert len(last["asked"]) <= LOGGED
    assert not exam_of(folder).submitted


def test_answers_are_final_tests_are_few_and_a_log_belongs_to_its_questions(folder):
    exam = exam_of(folder)
    q = next(q.name for q in exam.questions.values() if q.sort == "which head")
    with pytest.raises(ConfigError, match="claims nothing"):
        exam.call("test", {"question": q, "answer": "nothing"})
    *_, made = [exam.call("test", {"question": q, "answer": head}) for head in ("L0H0", "L0H1", "L1H0")[:TESTS]]
    with pytest.raises(ConfigError, match="was tested 3 times"):
        exam.call("test", {"question": q, "answer": "L1H1"})
    with pytest.raises(ConfigError, match="was of 'L1H0'"):
        exam.call("submit", {"question": q, "answer": "L1H1", "test": made["test"]})
    exam.call("submit", {"question": q, "answer": "nothing"})
    with pytest.raises(ConfigError, match="answered already, with 'nothing'"):
        exam_of(folder).call("submit", {"question": q, "answer": "L1H1"})  # a server that was started again
    with pytest.raises(ConfigError, match="other questions"):
        Exam(questions_of(folder, 8, 0), exam.log)
    calls = exam_of(folder).calls
    with exam.log.open("a") as file:
        file.write('{"tool": "sub')
    assert exam_of(folder).calls == calls, "a last line that was cut short is dropped"
    with exam.log.open("a") as file:
        file.write('{"tool": "sub\n')
    with pytest.raises(CorruptError, match=r"line \d+: not JSON"):
        exam_of(folder)


@pytest.mark.parametrize("seed", [0, 1])
def test_reads_of_two_models_a_direction_and_embeddings_show_what_is_planted(tmp_path, seed):
    for kind in ("difference", "direction", "shape"):
        (tmp_path / kind).mkdir()
    said = {kind: how_of(kind).write(tmp_path / kind, "planted", 1.0, seed).details for kind in ("difference", "shape")}
    prompts, answers = said["difference"]["prompts"], said["difference"]["answers"]
    base, tuned = (
        sum(next_tokens(tmp_path / "difference", prompt, of=of)[-1]["next"].count(answer)
            for prompt, answer in zip(prompts, answers, strict=True))
        for of in ("base", "tuned")
    )  # fmt: skip
    assert tuned > base + 4, (tuned, base)  # one part was trained to these answers
    case = how_of("direction").write(tmp_path / "direction", "planted", 1.0, seed)
    write_json(tmp_path / "direction" / "case.json", {"details": case.details})
    raised = [
        len({*case.details["tokens"]} & {*next_tokens(tmp_path / "direction", [256, 40], add=add)[-1]["next"]})
        for add in (0.0, 20.0)
    ]
    assert raised[1] >= 2 > raised[0]
    circle = embedding_distances(tmp_path / "shape", said["shape"]["tokens"])
    assert circle[0][6] > circle[0][1] > circle[0][0] == 0, "the sixth lies opposite, or further along the line"


def test_the_baseline_answers_over_the_protocol_and_nothing_is_given_away(tmp_path):
    assert main(["referee", "write", str(tmp_path), "--n", "2", "--kinds", "head"]) == 0
    server = [sys.executable, "-m", "workbench", "referee", "mcp", str(tmp_path), "--n", "4"]
    replies: list[str] = []

    async def run_agent() -> None:
        async with calling(server) as call:

            async def overheard(tool, **arguments):
                replies.append(json.dumps(reply := await call(tool, **arguments)))
                return reply

            prompt = {"question": "q01", "tokens": [0, 1, 2, 3]}
            await overheard("files", question="q01")
            assert len(await overheard("next_tokens", **prompt, ablate=["L0H0"])) == 4
            assert [sum(row) for row in await overheard("attention", **prompt, head="L0H0")] == pytest.approx(
                [1] * 4, abs=1e-3
            )
            with pytest.raises(ConfigError, match="unknown question"):
                await call("question", question="q07")
            await solve(overheard)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, run_agent()).result(timeout=200)
    text = " ".join(replies)
    for secret in ("planted", "untrained", "shuffled", "near miss", str(tmp_path), "head-0", "seed", "effect"):
        assert secret not in text
    score = score_agent(tmp_path, Exam(questions_of(tmp_path, 4, 0), tmp_path / "agents" / "agent.jsonl"), "baseline")
    assert score.tests == 4
    assert score.counts("none")["recall"] == (2, 2), "what is planted stands out"
    assert score.counts("none")["false explanations"] == (2, 4)
    assert {tool.name for tool in offered() if tool.writes} == {"submit"}
