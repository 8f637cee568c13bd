"""The referee: cases whose truth is hidden, scores worked out by hand, and files that say too much."""

import json
import pickle
import re
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from math import nan
from pathlib import Path

import pytest

from dashboard.figures.referee import power_curves
from dashboard.figures.theme import DARK
from interp.artifacts import as_json, read_json, write_json
from interp.errors import ConfigError
from interp.packages import code_version
from interp.statistics import proportion_interval
from tests.campaigns.referee import table
from workbench.__main__ import main
from workbench.referee import run
from workbench.referee.cases import (
    CONTROLS,
    IS_TRUE,
    Answer,
    Answers,
    CaseWords,
    KindOfCase,
    RefereeCase,
    Truth,
    cases_of,
    truths_of,
    write_case,
)
from workbench.referee.kinds import how_of, offered_kinds
from workbench.referee.run import EFFECTS, answer_cases, planned, read_answers
from workbench.referee.score import score_folder

asked: list[str] = []
"""Names of the cases that the kind of these tests was asked about."""


def _write(folder, control, effect, seed):
    (folder / "number.txt").write_text(f"{effect if IS_TRUE[control] else 0.0} {seed}")
    return CaseWords(claim="The number is above a half", details={"file": "number.txt"})


def _answer(folder, case):
    asked.append(case.name)
    value = float((folder / str(case.details["file"])).read_text().split()[0])
    return Answer(outcome="supported" if value > 0.5 else "not supported", value=value, null=0.5)


@pytest.fixture
def numbers(monkeypatch):
    """A kind of claim that costs nothing: a file holds the strength, and 0 in controls."""
    kind = KindOfCase(write=_write, answer=_answer)
    monkeypatch.setattr(run, "how_of", lambda _: kind)
    asked.clear()


def quiet(done, total, info):
    pass


def answered(folder, tool="mine", **outcomes):
    answers = {name: Answer(outcome=outcome, value=1.0, null=nan) for name, outcome in outcomes.items()}
    write_json(
        folder / "answers" / f"{tool}.json",
        as_json(Answers(tool=tool, answers=answers, seconds=1.0)),
    )


@pytest.fixture
def folder(tmp_path):
    """Two planted heads, one planted at 0.4, two near misses and an edge; their files hold nothing."""
    truths = {
        "head-0": Truth(control="planted", effect=1.0, seed=0),
        "head-1": Truth(control="planted", effect=1.0, seed=1),
        "head-2": Truth(control="planted", effect=0.4, seed=2),
        "head-3": Truth(control="near miss", effect=0.0, seed=3),
        "head-4": Truth(control="near miss", effect=0.0, seed=4),
        "edge-0": Truth(control="untrained", effect=0.0, seed=5),
    }
    kind = KindOfCase(write=lambda *_: CaseWords(claim="It does", details={}), answer=_answer)
    for name, truth in truths.items():
        write_case(tmp_path, name, "edge" if name.startswith("edge") else "head", kind, truth)
    write_json(tmp_path / "truth.json", as_json(truths))
    return tmp_path


def test_the_plan_has_n_of_each_control_a_quarter_of_each_strength_and_names_in_random_order():
    plan = planned("head", 8, seed=0)
    counts = Counter((truth.control, truth.effect) for truth in plan.values())
    assert counts == {("planted", 1.0): 8, **{(control, 0.0): 8 for control in CONTROLS[1:]}} | {
        ("planted", effect): 2 for effect in EFFECTS
    }
    assert len({truth.seed for truth in plan.values()}) == len(plan)
    assert [truth.control for truth in plan.values()] != sorted(truth.control for truth in plan.values())
    assert plan == planned("head", 8, seed=0) != planned("head", 8, seed=1)
    assert {truth.effect for truth in planned("head", 8, 0, strengths=(0.01,)).values()} == {0.0, 0.01, 1.0}


def test_scores_are_those_of_a_count_by_hand(folder, capsys):
    answered(folder, **{"head-0": "supported", "head-2": "supported", "head-3": "not supported", "head-4": "undecided"})
    answered(folder, "other", **dict.fromkeys(("head-0", "head-1", "head-3", "edge-0"), "not supported"))
    cells = {(c.tool, c.kind, c.control, c.effect): c for c in score_folder(folder).cells}
    assert {key: (c.n, c.supported, c.not_supported, c.undecided, c.meets) for key, c in cells.items()} == {
        ("mine", "head", "planted", 1.0): (2, 1, 0, 1, False),  # an answer that is missing is undecided
        ("mine", "head", "planted", 0.4): (1, 1, 0, 0, None),
        ("mine", "head", "near miss", 0.0): (2, 0, 1, 1, False),  # 50 % refused, 80 % asked for
        ("other", "head", "planted", 1.0): (2, 0, 2, 0, False),
        ("other", "head", "planted", 0.4): (1, 0, 0, 1, None),
        ("other", "head", "near miss", 0.0): (2, 0, 1, 1, False),
        ("other", "edge", "untrained", 0.0): (1, 0, 1, 0, True),  # `mine` answers no edge, and has no row
    }
    assert cells["mine", "head", "planted", 1.0].share == proportion_interval(1, 2)
    assert cells["other", "head", "near miss", 0.0].share == proportion_interval(1, 2), "of those that are refused"
    assert main(["referee", "score", str(folder), "--plot", str(folder / "new" / "power.html")]) == 0
    out = capsys.readouterr().out
    assert "mine meets 0 of 2 aims; other meets 1 of 3 aims" in out
    missed = r"1 of 2 \(0.09 to 0.91\), missed"
    assert re.search(rf"head +mine +{missed} +{missed} +2 +1.00", out), out
    assert re.search(r"edge +other +0 of 1 \(0.00 to 0.79\) +0 ", out), out
    head, _, *rows = table([folder])
    assert head.startswith("| kind | tool | planted (at least 90%) | untrained (at most 5%) | shuffled (at most 5%) |")
    assert [row.split(" | ")[:2] for row in rows] == [["| head", "mine"], ["| head", "other"], ["| edge", "other"]]
    assert "strength of what was planted" in (folder / "new" / "power.html").read_text()
    assert main(["referee", "score", str(folder), "--json", "--kinds", "edge"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["tool"], row["share"], row["low"], row["meets"]) == ("other", 0.0, 0.0, True)


def test_the_figure_has_a_curve_for_each_tool_and_an_interval_at_each_strength(folder):
    answered(folder, **{"head-0": "supported"})
    answered(folder, "other", **{"head-2": "supported"})
    figure = power_curves(score_folder(folder).powers(), DARK)
    assert [(trace.name, tuple(trace.x), tuple(trace.y)) for trace in figure.data] == [
        ("head, mine", (0.4, 1.0), (0.0, 0.5)),
        ("head, other", (0.4, 1.0), (1.0, 0.0)),
    ]
    assert figure.data[0].error_y.array[1] == pytest.approx(proportion_interval(1, 2).high - 0.5)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"version": 2}, "version"),
        ({"format": "someone-elses"}, "format"),
        ({"answers": {"head-9": {"outcome": "supported", "value": 1, "null": 0}}}, "'head-9'"),
        ({"answers": {"head-0": {"outcome": "yes", "value": 1, "null": 0}}}, "head-0"),
        ({"answers": {"head-0": {"outcome": "supported", "value": nan, "null": 0}}}, "value"),
        ({"answers": {"head-0": {"outcome": "supported", "value": 1, "null": 0, "why": "x" * 999}}}, "why"),
        ({"answers": {"head-0": {"outcome": "supported", "value": 1, "null": 0, "case": "ab"}}}, "another head-0"),
        ({"run": "print()"}, "run"),
    ],
)
def test_answers_from_elsewhere_are_data(folder, capsys, document, words):
    path = folder / "theirs.json"
    answers = {"head-0": {"outcome": "supported", "value": None, "null": None}}
    whole = {"format": "workbench-referee-answers", "version": 1, "tool": "theirs", "seconds": 2, "answers": answers}
    path.write_text(json.dumps(whole))
    assert main(["referee", "score", str(folder), str(path)]) == 0
    path.write_text(json.dumps(whole | document))
    capsys.readouterr()
    assert main(["referee", "score", str(folder), str(path)]) == 2
    assert words in capsys.readouterr().err


def damaged(folder, case):
    if case == "truth":
        (folder / "truth.json").unlink()
    elif case == "answers":
        shutil.rmtree(folder / "answers")
    elif case == "two":
        shutil.copy(folder / "answers" / "mine.json", folder / "answers" / "mine2.json")
    elif case == "cases":
        shutil.rmtree(folder / "cases" / "head-1")
    else:
        path = folder / "cases" / "head-1" / "case.json"
        write_json(path, read_json(path) | {"name": "../head-0"})


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("truth", "truth.json"),
        ("answers", "no answers"),
        ("two", "two files"),
        ("cases", "head-1"),
        ("name", "name of its folder"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(folder, capsys, case, words):
    answered(folder, **{"head-0": "supported"})
    damaged(folder, case)
    capsys.readouterr()
    assert main(["referee", "score", str(folder)]) == 2
    assert words in capsys.readouterr().err


def test_an_interrupted_run_keeps_its_answers_and_another_case_of_the_same_name_is_answered_anew(
    numbers, tmp_path, monkeypatch, capsys
):
    assert main(["referee", "write", str(tmp_path), "--n", "4", "--kinds", "shape"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(run, "_answer", interrupted(run._answer, after=3))
        assert main(["referee", "answer", str(tmp_path), "--kinds", "shape"]) == 130
    path = tmp_path / "answers" / "workbench.json"
    assert len(read_answers(path).answers) == 3
    changed = asked[0]
    (tmp_path / "cases" / changed / "number.txt").write_text("0.75")
    asked.clear()
    assert main(["referee", "answer", str(tmp_path), "--kinds", "shape"]) == 0
    assert changed in asked
    assert len(asked) == len(truths_of(tmp_path)) - 2
    assert read_answers(path).answers[changed].value == 0.75
    assert (read_answers(path).kept, read_answers(path).code) == (2, code_version())
    assert "2 of them were there before" in capsys.readouterr().out
    assert main(["referee", "write", str(tmp_path), "--n", "5", "--kinds", "shape"]) == 2
    monkeypatch.setattr(run, "made_by", lambda kind: "another version")
    assert main(["referee", "write", str(tmp_path), "--n", "4", "--kinds", "shape"]) == 2
    assert "or code; choose another folder" in capsys.readouterr().err
    assert main(["referee", "answer", str(tmp_path), "--out", "../mine"]) == 2


def test_several_workers_answer_as_one_does(numbers, tmp_path, monkeypatch):
    def threads(n, mp_context, initializer):  # processes cost seconds under pytest; what they are sent is pickled here
        pool = ThreadPoolExecutor(n)
        submit = pool.submit
        pool.submit = lambda function, *task: submit(*pickle.loads(pickle.dumps((function, *task))))
        return pool

    monkeypatch.setattr(run, "ProcessPoolExecutor", threads)
    run.write_cases(tmp_path, ["shape"], 4, 0, quiet, jobs=2)
    given = [
        answer_cases(tmp_path, tmp_path / f"{jobs}.json", ["shape"], quiet, tool="mine", jobs=jobs) for jobs in (1, 2)
    ]
    assert given[0].answers == given[1].answers
    assert len(given[0].answers) == len(planned("shape", 4, seed=0))


def interrupted(function, after):
    def limited(*args):
        if len(asked) >= after:
            raise KeyboardInterrupt
        return function(*args)

    return limited


@pytest.mark.parametrize(
    ("details", "why"),
    [
        ({"shape": ["circle"]}, "shape of shape-0000 is one of circle, line, cluster, got ['circle']"),
        ({"contexts": [[1] * 40] * 4}, "the model's context holds 16 tokens, got rows of 41"),
    ],
)
def test_what_an_analysis_refuses_is_undecided_with_its_reason(tmp_path, details, why):
    write_case(tmp_path, "shape-0000", "shape", how_of("shape"), Truth(control="planted", effect=1.0, seed=0))
    path = tmp_path / "cases" / "shape-0000" / "case.json"
    case = read_json(path)
    write_json(path, case | {"details": case["details"] | details})
    made = answer_cases(tmp_path, tmp_path / "a.json", ["shape"], quiet, tool="mine").answers["shape-0000"]
    assert (made.outcome, made.why) == ("undecided", why)
    assert made.value != made.value
    write_json(path, case | {"details": {"tokens": [1] * 1001}})
    with pytest.raises(ConfigError, match=r"details\.tokens"):
        list(cases_of(tmp_path))


@pytest.mark.parametrize("kind", ["shape", "difference"])
def test_each_kind_supports_what_is_planted_refuses_the_controls_and_reads_no_truth(kind, tmp_path):
    assert kind in offered_kinds()
    truths = {
        f"{kind}-{at}": Truth(control=control, effect=float(IS_TRUE[control]), seed=7)
        for at, control in enumerate(CONTROLS)
    }
    for name, truth in truths.items():
        write_case(tmp_path, name, kind, how_of(kind), truth)
    given = answer_cases(tmp_path, tmp_path / "one.json", [kind], quiet, tool="one").answers  # there is no truth.json
    for name, truth in truths.items():
        assert given[name].outcome == ("supported" if IS_TRUE[truth.control] else "not supported"), (name, given[name])
    for at in (1, 2, 3):
        shutil.rmtree(tmp_path / "cases" / f"{kind}-{at}")
    lies = Truth(control="untrained", effect=0.0, seed=1)
    write_json(tmp_path / "truth.json", as_json({f"{kind}-0": lies}))
    again = answer_cases(tmp_path, tmp_path / "two.json", [kind], quiet, tool="two").answers
    assert again == {f"{kind}-0": given[f"{kind}-0"]}
    for where, case in cases_of(tmp_path):
        said = (where / "case.json").read_text()
        assert not any(word in said for word in ("planted", "untrained", "shuffled", "miss", "seed", "effect"))
        assert isinstance(case, RefereeCase)
        assert {path.suffix for path in Path(where).rglob("*.*")} == {".json", ".safetensors"}
