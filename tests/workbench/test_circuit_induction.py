"""`workbench circuit induction` and `show`, on the planted model."""

from interp.circuits.induction_circuit import InductionCircuit
from interp.workspace import Workspace
from workbench.__main__ import main


def test_planted_circuit_is_written_and_shown(tmp_path, capsys):
    workspace = ["--workspace", str(tmp_path)]
    assert main(["circuit", "induction", "planted:induction", "--prompts-per-seed", "4", *workspace]) == 0
    assert "found: " in capsys.readouterr().out
    assert Workspace(tmp_path).open(InductionCircuit, "induction-planted-induction").verdict.found
    assert main(["circuit", "show", "induction-planted-induction", *workspace]) == 0
    assert "L0H0 -k-> L1H0" in capsys.readouterr().out


def test_a_model_without_one_says_why(tmp_path, capsys):
    workspace = ["--workspace", str(tmp_path)]
    assert main(["circuit", "induction", "planted:copying", "--prompts-per-seed", "4", *workspace]) == 0
    assert "not found: no head attends by induction" in capsys.readouterr().out


def test_a_circuit_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["circuit", "show", "nothing", "--workspace", str(tmp_path)]) == 2
    assert "nothing" in capsys.readouterr().err
