"""What the log of a training shows: a run that began anew, tokens counted twice, a cut end, rows of another order."""

import json
from pathlib import Path

import pytest
import torch
from planted import HOOK, write_recording

from interp.artifacts.manifest import LOG
from saes.kinds.config import TopKConfig
from saes.training.config import TrainConfig
from saes.training.log_checks import log_problems, row_problems, row_sum
from saes.training.train import train_sae

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


def test_the_checksum_of_rows_adds_up_over_any_parts_in_any_order():
    rows = torch.randperm(5_000, generator=torch.Generator().manual_seed(0))[:4_096] + 2_900_000_000
    parts = rows.flip(0).split(1_000)
    assert sum(map(row_sum, parts)) == row_sum(rows) < 2**53  # exact as a float64, in which ranks exchange it
    assert row_sum(torch.cat([rows[:2_048], rows[:2_048]])) != row_sum(rows)  # two ranks that read one half
    assert row_sum(rows + 1) != row_sum(rows)


def test_rows_of_a_training_are_those_planned_from_the_tokens_alone(tmp_path):
    """Over several epochs and a resumed run; another order, or one rank's half twice, is told by its step."""
    generator = torch.Generator().manual_seed(0)
    n, length = 4_000, 20
    document = torch.arange(n) // 100
    document[torch.arange(n) % length == 0] = -1
    x, where = torch.randn(n, 8, generator=generator), tmp_path / "recording"
    recording = write_recording(where, x, torch.ones(n), document, context_length=length, shard_contexts=30)
    train = TrainConfig(tokens=9_600, batch_size=240, log_every=5, checkpoint_every=7, seed=3)
    train_sae(recording, HOOK, TopKConfig(d_sae=16, k=2), train, tmp_path / "sae")
    how = {"seed": 3, "heldout_fraction": train.heldout_fraction}
    assert row_problems(tmp_path / "sae", recording, **how) == []
    assert len(row_problems(tmp_path / "sae", recording, **how | {"seed": 4})) == 3
    found = [json.loads(line) for line in (tmp_path / "sae" / LOG).read_text().splitlines()]
    assert [line["step"] for line in found] == list(range(5, 41, 5))
    found[3]["rows"] += 1
    [problem] = row_problems(write(tmp_path / "sae", found), recording, **how)
    assert "step 20" in problem
