"""Circuits of neurons: planted neurons are found and suffice, random ones do not; without neurons it is refused."""

import pytest
import torch

from interp.artifacts import save_artefact
from interp.circuits.neuron_circuit import NeuronCircuit, NeuronCircuitConfig
from interp.circuits.neurons import _largest, _values, find_neurons
from interp.errors import ConfigError
from interp.patching.metrics import LogitDiff
from interp.patching.task import Task
from interp.workspace import Workspace
from tests.interp.architectures import new_tiny
from workbench.__main__ import main

PLANTED = {0: [3, 11], 1: [7]}
"""Neurons that write anything, by layer."""


def planted_task(name: str, seed: int) -> tuple:
    """Return a new model of which three neurons write (tests share another), and prompts that they decide."""
    model, generator = new_tiny(name), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer, block in enumerate(model.blocks):
            mlp = block.mlp
            keep = torch.zeros(len(mlp.W_out), 1)
            keep[PLANTED.get(layer, [])] = 30
            mlp.out.weight.data = mlp.out.weight.data * (keep.T if mlp.out.weight.shape[1] == len(keep) else keep)
    clean, corrupt = torch.randint(1, model.cfg.d_vocab, (2, 24, 6), generator=generator)
    with torch.no_grad():
        change = model(clean)[:, -1] - model(corrupt)[:, -1]
    task = Task.of(model, clean, corrupt, LogitDiff(change.argmax(1), change.argmin(1)), check_gap=False)
    return model, *task.split(12)


@pytest.mark.parametrize("name", ["gpt2", "llama-gqa"])
def test_planted_neurons_are_found_and_random_ones_do_not_suffice(name: str, tmp_path, capsys) -> None:
    model, task, held_out = planted_task(name, 0)
    found = find_neurons(model, task, held_out, NeuronCircuitConfig(n_neurons=3, verify=3), model_name=name)
    assert {row["neuron"] for row in found.to_records()} == {"L0neurons.3", "L0neurons.11", "L1neurons.7"}
    assert found.evaluation.faithfulness.estimate == pytest.approx(1, abs=1e-4)
    assert found.evaluation.completeness == pytest.approx(0, abs=1e-4)
    assert found.evaluation.random_circuits.mean < 0.5
    assert found.verified.spearman_abs > 0.4
    assert found.without_random > 0.4
    assert "0% of the behaviour is left" in found.details()[1]
    stored = save_artefact(found, Workspace(tmp_path).path("neuron_circuit", "mine"))
    assert Workspace(tmp_path).open(NeuronCircuit, "mine").headline() == stored.headline()
    assert "3 of" in stored.headline()
    assert main(["circuit", "show", "mine", "--workspace", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert all(text in printed for text in (stored.headline(), stored.verdict.reason, "L1neurons.7"))
    assert [row.exact is not None for row in stored.node_scores.rows()] == [True] * 3


def test_all_neurons_are_the_model_and_none_the_corrupted_values() -> None:
    model, task, _ = planted_task("gpt2", 1)
    everything = torch.ones(model.cfg.n_layers, model.cfg.d_mlp, dtype=torch.bool)
    full, empty = _values(model, task, [everything, ~everything], 5)
    torch.testing.assert_close(torch.from_numpy(full), task.clean_value, rtol=1e-4, atol=1e-4)
    assert abs(empty - full).max() > 0.01
    assert _largest(torch.tensor([[1.0, -3.0], [2.0, 0.0]]), 2).tolist() == [[False, True], [True, False]]


def test_a_model_without_neurons_and_a_task_without_them_are_refused(tmp_path, capsys) -> None:
    options = ["--task", "induction", "--prompts", "6", "--workspace", str(tmp_path)]
    assert main(["circuit", "neurons", "planted:induction", *options]) != 0
    assert "no MLP neurons" in capsys.readouterr().err
    silent, task, held_out = planted_task("gpt2", 2)
    with torch.no_grad():
        for block in silent.blocks:
            block.mlp.out.weight.data.zero_()
    with pytest.raises(ConfigError, match="1 prompts are left to judge"):
        find_neurons(silent, task, held_out.take(range(1)), NeuronCircuitConfig(n_neurons=2, verify=2))
    with pytest.raises(ConfigError, match="does not depend on neurons"):
        find_neurons(silent, task, held_out, NeuronCircuitConfig(n_neurons=2, verify=2))
