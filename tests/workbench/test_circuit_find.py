"""`workbench circuit find`: from a task to a folder, and what it says when it cannot."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from page_text import text_of

from dashboard.circuit import page
from dashboard.figures.theme import LIGHT
from interp.circuits.found_circuit import EdgeCircuit
from interp.circuits.worst_case import WorstCase
from interp.errors import ConfigError
from interp.workspace import Workspace
from tests.interp.architectures import tiny
from tests.interp.circuit_tasks import planted_circuit, random_task
from workbench.verbs.circuit import Find, _other_prompts

FIND = ("circuit", "find", "--n-random", 2)


def test_the_planted_circuit_is_found_and_kept(cli, tmp_path):
    options = ("planted:induction", "--task", "induction", "--prompts", 8, "--n-edges", 4, "--name", "planted")
    assert "strongest" in cli(tmp_path, *FIND, *options)
    found = Workspace(tmp_path).open(EdgeCircuit, "planted")
    assert {edge.key for edge in found.circuit.edges} <= {edge.key for edge in planted_circuit().edges}
    assert found.settings.task.name == "induction"
    assert found.evaluation.settings.ablation == "resample"
    assert found.evaluation.n_edges == len(found.circuit.edges)
    assert found.about.parents == {"model:planted:induction": found.settings.weight_hash}


def test_a_post_norm_model_prints_what_was_held_fixed(cli, tmp_path):
    options = ("planted:post-norm", "--task", "induction", "--prompts", 8, "--n-edges", 4, "--name", "gemma")
    printed = cli(tmp_path, *FIND, *options)
    found = Workspace(tmp_path).open(EdgeCircuit, "gemma")
    assert {edge.key for edge in found.circuit.edges} <= {edge.key for edge in planted_circuit().edges}
    assert f"Held fixed: {found.settings.frozen}." in printed
    assert f"Held fixed: {found.settings.frozen}." in cli(tmp_path, "circuit", "show", "gemma")


def test_parts_are_ranked_by_the_distance_of_the_output(cli, tmp_path):
    options = ("planted:induction", "--task", "induction", "--prompts", 6, "--held-out", 5, "--name", "parts")
    printed = cli(tmp_path, *FIND, *options, "--metric", "kl", "--level", "node")
    found = Workspace(tmp_path).open(EdgeCircuit, "parts")
    assert found.settings.task.metric == "minus KL to clean (nats)"
    assert (found.settings.task.n_prompts, found.evaluation.settings.n_prompts) == (6, 5)
    assert {edge.key for edge in found.circuit.edges} >= {edge.key for edge in planted_circuit().edges}
    assert all(node.effect > 0 for node in found.circuit.nodes if node.name != "logits")
    assert "judged on 5 prompts: other prompts than those that found it" in printed


def test_a_file_is_split_into_prompts_that_find_and_prompts_that_judge(monkeypatch):
    model = tiny("native-ln")
    whole = random_task(model, n=20)
    monkeypatch.setattr(
        "interp.circuits.tasks.task_from_file", lambda model, path, n_prompts, seed: whole.take(range(20)[:n_prompts])
    )

    monkeypatch.setattr(
        "interp.circuits.find.find_circuit",
        lambda model, task, config, *, held_out, progress: (task.n_prompts, held_out and held_out.n_prompts),
    )
    run: Any = SimpleNamespace(model=lambda spec: model, text=lambda path: None)

    def sizes(**options):
        return Find(model="m", task="mine.jsonl", **options).measure(run)

    assert sizes(prompts=6) == (6, 14), "all that the file holds"
    assert sizes(prompts=6, held_out=5) == (6, 5)
    assert sizes(prompts=6, held_out=0) == (6, None)
    assert sizes(prompts=32) == (20, None)
    with pytest.raises(ConfigError, match=r"30 held-out prompts were asked for, .* has 14 that differ"):
        sizes(prompts=6, held_out=30)


def test_an_attack_is_chosen_on_prompts_that_neither_find_nor_judge(monkeypatch):
    model = tiny("native-ln")
    whole = random_task(model, n=20)
    monkeypatch.setattr("interp.circuits.tasks.open_task", lambda model, task, n, **_: whole.take(range(20)[:n]))

    def tasks(**options):
        return Find(model="m", prompts=6, **options)._make_tasks(model)

    for options, n_held_out in (({"task": "mine.jsonl"}, 8), ({"held_out": 5}, 5)):
        found, held_out, further = tasks(attacked=True, **options)
        sizes = [task.n_prompts for task in (found, held_out, further)]
        assert sizes == [6, n_held_out, 6]
        assert further.other_than(found, held_out).n_prompts == 6
    assert tasks()[2] is None
    for wrong in ({"held_out": 0}, {"task": "mine.jsonl", "held_out": 9}):
        with pytest.raises(ConfigError, match="held-out prompts"):
            tasks(attacked=True, **wrong)


def test_the_held_out_prompts_are_in_the_wording_that_is_asked_for(monkeypatch):
    model, asked = tiny("native-ln"), []
    whole = random_task(model, n=60)

    def opened(model, task, n, *, seed, template=None):
        asked.append((seed, template))
        return whole.take(range(30, 60) if template else range(n))

    monkeypatch.setattr("interp.circuits.tasks.open_task", opened)
    _, held_out, _ = Find(model="m", prompts=6, judged_template=2, seed=3)._make_tasks(model)
    assert asked == [(3, None), (3001, 2)]
    assert held_out.clean.equal(whole.clean[30:36])


def test_prompts_that_choose_and_judge_are_none_that_scored_edges(monkeypatch):
    model = tiny("native-ln")
    whole = random_task(model, n=20)
    monkeypatch.setattr(
        "interp.circuits.tasks.task_from_file", lambda model, path, n_prompts, seed: whole.take(range(20)[:n_prompts])
    )
    settings = SimpleNamespace(model="m", task=replace(whole.settings, n_prompts=8))
    circuit: Any = SimpleNamespace(name="mine", settings=settings)
    task, held_out = _other_prompts(model, circuit, "mine.jsonl", 4, 0)
    assert task.clean.equal(whole.clean[8:12])
    assert held_out.clean.equal(whole.clean[12:16])
    with pytest.raises(ConfigError, match=r"14 prompts are needed .* mine.jsonl has 12: ask for fewer"):
        _other_prompts(model, circuit, "mine.jsonl", 7, 0)


def test_a_circuit_is_attacked_by_its_name(cli, tmp_path):
    options = ("planted:induction", "--task", "induction", "--prompts", 8, "--n-edges", 4, "--name", "planted")
    cli(tmp_path, *FIND, *options)
    words = ("--prompts", 4, "--ablations", "resample", "--exchanges", 2, "--fractions", 0.2, 1.0)
    printed = cli(tmp_path, "circuit", "attack", "planted", *words)
    assert "stands: faithfulness 1.00" in printed
    found = Workspace(tmp_path).open(WorstCase, "planted")
    assert "edge-circuits/planted" in found.about.parents
    assert "did you mean 'planted'" in cli(tmp_path, "circuit", "attack", "plnted", code=2)
    shown = cli(tmp_path, "circuit", "show", "planted")
    assert "attacked: " in shown
    assert "keep 100% (random 0%); 100% in the worst case" in shown
    assert "behaviour, 0% lose more than half" in text_of(page._attack_panel(found, LIGHT))
