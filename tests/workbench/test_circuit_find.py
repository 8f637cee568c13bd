"""`workbench circuit find`: from a task to a folder, and what it says when it cannot."""

import json

from interp.circuits.circuit import Circuit
from interp.models.planted import planted_circuit
from workbench.__main__ import main


def find(folder, *more: str) -> int:
    return main(["circuit", "find", *more, "--workspace", str(folder), "--random-circuits", "2"])


def test_the_planted_circuit_is_found_and_kept(workspace_folder, capsys):
    options = ("planted:induction", "--task", "induction", "--prompts", "8", "--edges", "4", "--name", "planted")
    assert find(workspace_folder, *options) == 0
    folder = workspace_folder / "circuits" / "planted"
    circuit = Circuit.load(folder)
    assert {edge.key for edge in circuit.edges} <= {edge.key for edge in planted_circuit().edges}
    assert circuit.settings["task"] == "induction"
    assert circuit.evaluation["ablation"] == "resample"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["summary"]["n_edges"] == len(circuit.edges)
    assert "strongest" in capsys.readouterr().out


def test_a_task_that_the_model_does_not_do_is_one_line(workspace_folder, capsys):
    assert find(workspace_folder, "small:attn-only-2l", "--task", "induction", "--prompts", "8") == 2
    assert "no gap beyond chance" in capsys.readouterr().err
    assert find(workspace_folder, "small:attn-only-2l", "--task", "ioi") == 2
    assert "single tokens" in capsys.readouterr().err
    assert find(workspace_folder, "small:attn-only-2l", "--task", "iol") == 2
    assert "did you mean 'ioi'" in capsys.readouterr().err
    assert find(workspace_folder, "small:attn-only-2l", "--task", "missing.jsonl") == 2
    assert "missing.jsonl" in capsys.readouterr().err
