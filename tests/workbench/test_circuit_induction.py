"""`workbench circuit induction` and `show`, on the planted model."""

from interp.circuits.induction_circuit import InductionCircuit
from interp.workspace import Workspace


def test_planted_circuit_is_written_and_shown(cli, tmp_path):
    assert "found: " in cli(tmp_path, "circuit", "induction", "planted:induction", "--prompts-per-seed", 4)
    assert Workspace(tmp_path).open(InductionCircuit, "induction-planted-induction").verdict.holds
    assert "L0H0 -k-> L1H0" in cli(tmp_path, "circuit", "show", "induction-planted-induction")


def test_a_model_without_one_says_why(cli, tmp_path):
    out = cli(tmp_path, "circuit", "induction", "planted:copying", "--prompts-per-seed", 4)
    assert "not found: no head attends by induction" in out
