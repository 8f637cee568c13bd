"""What the log of a training shows: a run that began anew, tokens counted twice, a cut end."""

import json
from pathlib import Path

import pytest

from interp.artifacts.manifest import LOG
from saes.training.log_checks import log_problems

RATE = 4096


def lines(*steps: int, restart: int | None = None) -> list[dict]:
    """A log whose FVU falls from 1 to 0.1; from the step `restart` on it is high again."""
    fvu = {step: 0.1 + 0.9 / (1 + at) ** 2 for at, step in enumerate(steps)}
    again = [step for step in steps if restart is not None and step >= restart]
    fvu |= {step: 0.1 + 0.9 / (1 + at) ** 2 for at, step in enumerate(again)}
    return [{"step": step, "tokens": step * RATE, "fvu": fvu[step]} for step in steps]


def write(folder: Path, found: list[dict]) -> Path:
    (folder / LOG).write_text("".join(json.dumps(each) + "\n" for each in found))
    return folder


def test_a_sound_log_has_no_problem_and_none_is_none(tmp_path):
    assert log_problems(tmp_path) == []
    assert log_problems(write(tmp_path, lines(*range(10, 101, 10), 105)), 105 * RATE) == []


def test_a_run_that_began_anew_is_seen_by_its_loss(tmp_path):
    [problem] = log_problems(write(tmp_path, lines(*range(10, 201, 10), restart=100)))
    assert "step 100" in problem
    assert "began anew" in problem


def test_tokens_counted_twice_are_seen(tmp_path):
    found = lines(*range(10, 101, 10))
    for line in found[5:]:
        line["tokens"] += 5 * 10 * RATE  # the tokens before a checkpoint at step 50 once more
    [problem] = log_problems(write(tmp_path, found))
    assert "between steps 50 and 60" in problem


def test_steps_that_go_back_are_seen(tmp_path):
    assert "step 30" in log_problems(write(tmp_path, lines(10, 20, 30, 40) + lines(30, 40, 50)))[0]


def test_another_number_of_tokens_than_the_manifest_states_is_seen(tmp_path):
    assert "the manifest says" in log_problems(write(tmp_path, lines(10, 20, 30)), 40 * RATE)[0]


@pytest.mark.parametrize("text", ["{", '{"step": 1}\n', '{"step": "a", "tokens": 1, "fvu": 1}\n'])
def test_a_line_of_another_form_is_one_problem(tmp_path, text):
    (tmp_path / LOG).write_text(text)
    assert len(log_problems(tmp_path)) == 1
