"""The referee of `benchmarks/referee`: claims are true or false by their weights, and scores are those of a count."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

import interp
from benchmarks.referee.baselines import METHODS, found_circuit
from benchmarks.referee.cases import CONTROLS, IS_TRUE, Answer, Answers, Case, Control, Details, Truth, read_answers
from benchmarks.referee.planted_models import CopyingPath, PlantedModel, parse_edge, read_task, write_copying_rows
from benchmarks.referee.run import EFFECTS, KINDS, answer_case, answer_cases, planned, write_case, write_cases
from benchmarks.referee.score import markdown, score_folder
from interp.artifacts import as_json, write_json
from interp.circuits.circuit import Edge
from interp.errors import ConfigError, UnknownNameError
from interp.models.adapter import run_with_cache


def written(folder: Path, kind: str, control: Control, seed: int) -> Details:
    folder.mkdir()
    return KINDS[kind].write(folder, control, float(IS_TRUE[control]), seed)


def copying(folder: Path, later: bool) -> CopyingPath:
    """Write a model with one copying path, and prompts."""
    generator = torch.Generator().manual_seed(0)
    planted = PlantedModel(["prev_a", "two_a"], n_layers=2, n_heads=4, n_tokens=20, d_head=20, generator=generator)
    path = planted.path("a", later=later, weight=1.0)
    planted.write(folder)
    write_copying_rows(folder, 14, 20, "logit-diff", torch.Generator().manual_seed(1))
    return path


def answered(folder: Path, tool: str, **outcomes) -> None:
    answers = {name: Answer(outcome=outcome) for name, outcome in outcomes.items()}
    write_json(folder / "answers" / f"{tool}.json", as_json(Answers(tool=tool, answers=answers)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two planted heads, one planted at 0.4, two near misses and an edge; their files hold nothing."""
    truths = {
        "head-0": Truth(control="planted", effect=1.0, seed=0),
        "head-1": Truth(control="planted", effect=1.0, seed=1),
        "head-2": Truth(control="planted", effect=0.4, seed=2),
        "head-3": Truth(control="near miss", effect=0.0, seed=3),
        "head-4": Truth(control="near miss", effect=0.0, seed=4),
        "edge-0": Truth(control="untrained", effect=0.0, seed=5),
    }
    for name in truths:
        case = Case(name=name, kind=name[:4], details={})
        write_json(tmp_path / "cases" / name / "case.json", as_json(case))
    write_json(tmp_path / "truth.json", as_json(truths))
    return tmp_path


def test_the_plan_has_n_of_each_control_a_quarter_of_each_strength_and_names_in_random_order():
    plan = planned("head", 8, seed=0)
    assert Counter((truth.control, truth.effect) for truth in plan.values()) == {
        ("planted", 1.0): 8,
        **{(control, 0.0): 8 for control in CONTROLS[1:]},
        **{("planted", effect): 2 for effect in EFFECTS},
    }
    assert len({truth.seed for truth in plan.values()}) == len(plan)
    assert [truth.control for truth in plan.values()] != sorted(truth.control for truth in plan.values())
    assert plan == planned("head", 8, seed=0) != planned("head", 8, seed=1)


def test_scores_are_those_of_a_count_by_hand(folder):
    answered(folder, "mine", **{"head-0": "supported", "head-2": "supported", "head-3": "not supported"})
    answered(folder, "other", **dict.fromkeys(("head-0", "head-1", "head-3", "edge-0"), "not supported"))
    cells = {(c.tool, c.kind, c.control, c.effect): c for c in score_folder(folder)}
    assert {key: (c.share, c.meets, c.outcomes.count("undecided")) for key, c in cells.items()} == {
        ("mine", "head", "planted", 1.0): (0.5, False, 1),  # an answer that is missing is undecided
        ("mine", "head", "planted", 0.4): (1, True, 0),
        ("mine", "head", "near miss", 0.0): (0.5, False, 1),  # 50 % refused, 80 % asked for
        ("other", "head", "planted", 1.0): (0, False, 0),  # a wrong answer to both
        ("other", "head", "planted", 0.4): (0, False, 1),
        ("other", "head", "near miss", 0.0): (0.5, False, 1),
        ("other", "edge", "untrained", 0.0): (0, True, 0),  # `mine` answers no edge, and has no row
    }
    head, _, *rows = markdown(list(cells.values()))
    assert head.startswith("| kind | tool | planted (at least 90%) | untrained (at most 5%) | shuffled (at most 5%) |")
    missed = "1 of 2 (0.09 to 0.91), missed"
    assert rows[0] == f"| head | mine | {missed} |  |  | {missed} | 2 | 1.00 |"
    assert rows[2] == "| edge | other |  | 0 of 1 (0.00 to 0.79) |  |  | 0 |  |"


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({"head-9": {"outcome": "supported"}}, UnknownNameError),
        ({"head-0": {"outcome": "yes"}}, ConfigError),
    ],
)
def test_answers_to_no_case_and_other_words_are_refused(folder, answers, error):
    path = folder / "answers" / "theirs.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"tool": "theirs", "answers": answers}))
    with pytest.raises(error):
        score_folder(folder)


def test_answers_stay_and_another_set_of_cases_needs_another_folder(tmp_path):
    write_cases(tmp_path, ["head"], 1, 0)
    with pytest.raises(ConfigError, match="has cases"):
        write_cases(tmp_path, ["edge"], 1, 0)
    answered(tmp_path, "attention", **{"head-0000": "undecided"})
    made = answer_cases(tmp_path, ["head"], "attention")
    assert made.answers["head-0000"].outcome == "undecided"
    assert len(made.answers) == len(planned("head", 1, 0))
    assert made == read_answers(tmp_path / "answers" / "attention.json")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_planted_is_supported_and_no_control_is(tmp_path, kind):
    forms = set()
    for control in CONTROLS:
        name = f"{kind}-{CONTROLS.index(control)}"
        case = write_case(tmp_path, name, Truth(control=control, effect=float(IS_TRUE[control]), seed=11))
        given = answer_case(tmp_path / "cases" / name, case)
        assert given.outcome == ("supported" if IS_TRUE[control] else "not supported"), (control, given)
        files = sorted(path.name for path in (tmp_path / "cases" / name).rglob("*.*"))
        forms.add((tuple(case.details), tuple(files)))
    assert len(forms) == 1, "a case says nothing of its control"


def test_a_claim_that_an_analysis_refuses_is_undecided_with_its_reason(tmp_path):
    case = write_case(tmp_path, "edge-0", Truth(control="planted", effect=1.0, seed=0))
    wrong = Case(name="edge-0", kind="edge", details={"edge": "L0H99 -k-> L1H0"})
    given = answer_case(tmp_path / "cases" / "edge-0", wrong)
    assert (given.outcome, "L0H99" in given.why) == ("undecided", True)
    assert parse_edge(case.details["edge"]).via in ("k", "v")
    assert parse_edge("L1H0 -> logits") == Edge("L1H0", "logits")


@pytest.mark.parametrize("later", [False, True])
def test_a_copying_path_attends_and_answers_as_its_weights_say(tmp_path, later):
    path = copying(tmp_path, later)
    model, task = read_task(tmp_path)
    layer, head = path.heads[-1].layer, path.heads[-1].head
    logits, cache = run_with_cache(model, task.clean, [f"blocks.{layer}.attn.hook_pattern"])
    rows = json.loads((tmp_path / "task.json").read_text())
    assert logits[:, -1].argmax(-1).tolist() == rows["correct"]
    for row, tokens in enumerate(rows["clean"]):
        at = tokens.index(tokens[-1]) + (2 if later else 1)
        assert cache[f"blocks.{layer}.attn.hook_pattern"][row, head, -1, at] > 0.95
    for edge in path.needed:
        assert interp.measure_edge(model, task, edge).matters, edge
    for edge in path.positions:
        assert interp.measure_edge(model, task, edge).share.estimate == pytest.approx(0, abs=1e-6), edge


@pytest.mark.parametrize("method", ["eap-ig", "acdc"])
def test_a_method_finds_the_edges_of_the_only_path(tmp_path, method):
    path = copying(tmp_path, later=True)
    assert {edge.key for edge in found_circuit(*read_task(tmp_path), method).edges} == {e.key for e in path.needed}


@pytest.mark.parametrize(
    ("kind", "method", "seed"),
    [("feature", "activations", 13), ("direction", "projection", 13), ("circuit", "faithfulness", 0)],
)
def test_what_everybody_reports_supports_near_misses_that_the_workbench_refuses(tmp_path, kind, method, seed):
    details = written(tmp_path / "case", kind, "near miss", seed)
    assert METHODS[method][1](tmp_path / "case", details).outcome == "supported"
    assert KINDS[kind].answer(tmp_path / "case", details).outcome == "not supported"


@pytest.mark.parametrize("control", ["untrained", "shuffled", "near miss"])
def test_a_false_edge_is_claimed_where_the_task_has_its_gap(tmp_path, control):
    """A rule that supports whatever has a gap would support each of them."""
    for seed in range(4):
        details = written(tmp_path / str(seed), "edge", control, seed)
        model, task = read_task(tmp_path / str(seed))
        assert task.gap > 4
        found = interp.measure_edge(model, task, parse_edge(details["edge"]), draws=1)
        assert abs(found.share.estimate) < 0.05
