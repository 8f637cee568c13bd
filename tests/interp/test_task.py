"""Tasks: what is refused, what padding leaves alone, what the metrics are."""

import json
from typing import get_args

import pytest
import torch

from interp.circuits.tasks import TASKS, greater_than_task, induction_task, ioi_task, make_task, task_from_file
from interp.errors import ConfigError, CorruptError, MissingError, PromptError, UnknownNameError
from interp.models.adapter import token_strings
from interp.patching.metrics import METRICS, KLToClean, L2ToClean, LogitDiff, LogProb, ProbDiff, metric_by_name
from interp.patching.patching_map import MetricName
from interp.patching.task import Task
from tests.interp.architectures import tiny
from tests.interp.circuit_tasks import random_task

LOGITS = torch.tensor([[[1.0, 2.0, 4.0]], [[0.0, 0.0, 3.0]]])


def test_metrics_by_hand():
    one = LogitDiff(correct=[2, 2], wrong=[0, 1])
    assert one(LOGITS).tolist() == [3, 3]
    assert LogitDiff(correct=[2, 2])(LOGITS).tolist() == pytest.approx([4 - 7 / 3, 2])
    sets = ProbDiff(correct=[[1, 2], [2]], wrong=[[0], [0, 1]])
    probs = LOGITS[:, 0].softmax(-1)
    expected = [probs[0, 1] + probs[0, 2] - probs[0, 0], probs[1, 2] - probs[1, 0] - probs[1, 1]]
    assert sets(LOGITS).tolist() == pytest.approx([float(e) for e in expected])
    assert LogProb(correct=[[1, 2], [2]])(LOGITS).exp().tolist() == pytest.approx(
        [float(probs[0, 1:].sum()), float(probs[1, 2])]
    )
    kl = KLToClean().bind(LOGITS)
    assert kl(LOGITS).tolist() == [0, 0]
    p, q = LOGITS.softmax(-1), LOGITS.flip(0).softmax(-1)
    assert kl(LOGITS.flip(0)).tolist() == pytest.approx((-(p * (p / q).log()).sum(-1)[:, 0]).tolist(), rel=1e-5)
    assert L2ToClean().bind(LOGITS)(LOGITS + 1).tolist() == [-3, -3]


def test_a_metric_of_some_prompts_is_that_of_all_at_those_rows():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 2, 9, generator=generator)
    rows = torch.tensor([4, 1])
    answers = torch.randint(9, (6, 2, 1), generator=generator)
    for metric in (LogitDiff(correct=answers), LogProb(correct=answers), KLToClean().bind(logits.flip(0))):
        assert torch.equal(metric.take(rows)(logits[rows]), metric(logits)[rows])


def test_a_pair_of_different_length_is_refused():
    model = tiny("native-ln")
    with pytest.raises(ConfigError, match="prompt 1: 3 clean tokens, 2 corrupted"):
        Task.of(model, [[1, 2], [1, 2, 3]], [[3, 4], [1, 2]], LogitDiff(correct=[1, 1], wrong=[2, 2]))


def test_a_metric_without_a_gap_is_refused():
    model = tiny("native-ln")
    tokens = torch.randint(50, (8, 5), generator=torch.Generator().manual_seed(0))
    metric = LogitDiff(correct=[1] * 8, wrong=[2] * 8)
    with pytest.raises(ConfigError, match="no gap"):
        Task.of(model, tokens, tokens, metric)
    shuffled = tokens[torch.randperm(8, generator=torch.Generator().manual_seed(1))]
    with pytest.raises(ConfigError, match="no gap"):
        Task.of(model, tokens, shuffled, metric)


def test_tokens_and_answers_outside_the_vocabulary_are_refused():
    model = tiny("native-ln")
    with pytest.raises(ConfigError, match="vocabulary"):
        Task.of(model, [[1, 50]], [[1, 2]], LogitDiff(correct=[1]))
    with pytest.raises(ConfigError, match="50"):
        Task.of(model, [[1, 4]], [[1, 2]], LogitDiff(correct=[50]))
    with pytest.raises(ConfigError, match="context"):
        Task.of(model, [[1] * 17], [[2] * 17], LogitDiff(correct=[1]))
    with pytest.raises(ConfigError, match="3 prompts"):
        Task.of(model, [[1], [2]], [[2], [3]], LogitDiff(correct=[1, 1, 1]))


@pytest.mark.parametrize("name", ["native-ln", "gpt2", "llama-gqa", "neox"])
def test_padding_changes_no_value(name):
    """Prompts of different length together give what each gives alone."""
    model = tiny(name)
    generator = torch.Generator().manual_seed(2)
    clean = [torch.randint(50, (n,), generator=generator).tolist() for n in (3, 7, 5)]
    corrupt = [torch.randint(50, (n,), generator=generator).tolist() for n in (3, 7, 5)]
    together = Task.of(model, clean, corrupt, LogitDiff(correct=[1, 2, 3], wrong=[4, 5, 6]), check_gap=False)
    for i, (a, b) in enumerate(zip(clean, corrupt, strict=True)):
        metric = LogitDiff(correct=[i + 1], wrong=[i + 4])
        alone = Task.of(model, [a], [b], metric, check_gap=False)
        assert float(alone.clean_value) == pytest.approx(float(together.clean_value[i]), abs=1e-5)
        assert float(alone.corrupt_value) == pytest.approx(float(together.corrupt_value[i]), abs=1e-5)
        with torch.no_grad():
            plain = model(torch.tensor([a]))[0, -1]
        assert float(plain[i + 1] - plain[i + 4]) == pytest.approx(float(alone.clean_value), abs=1e-5)


def test_values_do_not_depend_on_the_batch_split():
    model = tiny("llama-gqa")
    task = random_task(model, n=7)
    again = task.on(model, batch_size=2)
    torch.testing.assert_close(task.clean_value, again.clean_value, atol=1e-6, rtol=1e-5)
    some = task.take([5, 0])
    assert some.clean_value.tolist() == task.clean_value[[5, 0]].tolist()


def test_the_induction_task_reads_what_follows_in_the_first_half(induction_toy):
    task = induction_task(induction_toy, n_prompts=4, block=20)
    rows = torch.arange(4)[:, None]
    answers = task.metric.correct[:, :, 0]
    assert torch.equal(answers, task.clean[rows, task.at + 1])
    assert torch.equal(answers, task.clean[rows, task.at + 1 - 20])
    assert torch.equal(task.clean[:, 20:], task.corrupt[:, 20:])
    assert task.gap > 5
    with pytest.raises(ConfigError, match="context"):
        induction_task(induction_toy, block=33)


def test_no_prompt_is_on_both_sides_of_a_split(tiny_model):
    task = random_task(tiny_model, n=6)
    doubled = task.take([0, 1, 2, 1, 3, 4, 0, 5])
    first, rest = doubled.split(3)
    assert torch.equal(first.clean, task.clean[:3])
    assert torch.equal(rest.clean, task.clean[[3, 4, 5]])
    assert torch.equal(rest.clean_value, task.clean_value[[3, 4, 5]])
    for n, which in ((0, task), (6, task), (9, task), (1, task.take([2, 2, 2]))):
        with pytest.raises(ConfigError, match="cannot be split"):
            which.split(n)


def test_a_metric_by_name_takes_over_the_answers(tiny_model):
    assert get_args(MetricName) == tuple(METRICS)
    task = random_task(tiny_model, n=6)
    for name in METRICS:
        changed = task.measured_by(tiny_model, metric_by_name(name, task.metric), check_gap=False)
        assert torch.equal(changed.clean, task.clean)
        if name in ("kl", "l2"):
            assert changed.clean_value.abs().max() < 1e-5, "no distance from itself"
            assert changed.gap > 0
        else:
            assert torch.equal(changed.metric.correct, task.metric.correct)
    again = task.measured_by(tiny_model, metric_by_name("logit-diff", task.metric), check_gap=False)
    torch.testing.assert_close(again.clean_value, task.clean_value)
    with pytest.raises(ConfigError, match="needs correct answers"):
        metric_by_name("log-prob", KLToClean())
    with pytest.raises(UnknownNameError, match="did you mean 'kl'"):
        metric_by_name("k", task.metric)


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="greater-than"):
        make_task("greater_than", tiny("native-ln"))
    assert set(TASKS) == {"induction", "ioi", "greater-than"}


@pytest.mark.real
def test_smollm2_does_indirect_objects_and_years(smollm2):
    ioi = ioi_task(smollm2, n_prompts=12)
    assert float((ioi.clean_value > 0).double().mean()) > 0.9
    text = "".join(token_strings(smollm2, ioi.clean[0][: ioi.lengths[0]].tolist()))
    io = token_strings(smollm2, ioi.metric.correct[0, 0].tolist())[0]
    subject = token_strings(smollm2, ioi.metric.wrong[0, 0].tolist())[0]
    assert text.count(io.strip()) == 1
    assert text.count(subject.strip()) == 2
    years = greater_than_task(smollm2, n_prompts=12)
    assert years.gap > 0.5
    assert int(years.metric.correct.max()) < smollm2.cfg.d_vocab


def write(path, lines):
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return path


GOOD = {"clean": "abc d", "corrupt": "abe d", "correct": "x", "wrong": "y"}


def test_a_file_of_prompts_is_a_task(tmp_path, tiny_model):
    task = task_from_file(
        tiny_model, write(tmp_path / "p.jsonl", [GOOD, {**GOOD, "correct": ["x", "z"]}]), check_gap=False
    )
    assert task.name == "p"
    assert task.metric.name == "logit difference"
    assert task.metric.per_prompt()[1]["correct"] == [ord("x"), ord("z")]
    csv = tmp_path / "q.csv"
    csv.write_text("clean,corrupt,correct\nabc,abd,x\n", encoding="utf-8")
    assert task_from_file(tiny_model, csv, check_gap=False).metric.name == "log-probability"


def test_an_answer_of_several_tokens_lists_them(tmp_path, tiny_model):
    with pytest.raises(PromptError, match=r"line 2.*2 tokens.*'x' 'y'"):
        task_from_file(tiny_model, write(tmp_path / "p.jsonl", [GOOD, {**GOOD, "correct": "xy"}]))


def test_bad_files_name_the_line(tmp_path, tiny_model):
    with pytest.raises(PromptError, match="positions must match"):
        task_from_file(tiny_model, write(tmp_path / "a.jsonl", [{**GOOD, "corrupt": "abcd e"}]))
    with pytest.raises(CorruptError, match="line 1: lacks corrupt"):
        task_from_file(tiny_model, write(tmp_path / "b.jsonl", [{"clean": "a", "correct": "b"}]))
    uneven = write(tmp_path / "c.jsonl", [GOOD, {k: v for k, v in GOOD.items() if k != "wrong"}])
    with pytest.raises(CorruptError, match="1 of 2"):
        task_from_file(tiny_model, uneven)
    with pytest.raises(MissingError):
        task_from_file(tiny_model, tmp_path / "none.jsonl")
    (tmp_path / "d.jsonl").write_text("not json", encoding="utf-8")
    with pytest.raises(CorruptError, match="line 1"):
        task_from_file(tiny_model, tmp_path / "d.jsonl")
    (tmp_path / "e.txt").write_text("x", encoding="utf-8")
    with pytest.raises(ConfigError, match="jsonl"):
        task_from_file(tiny_model, tmp_path / "e.txt")
