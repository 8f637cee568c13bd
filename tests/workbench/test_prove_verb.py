"""`workbench prove` from the command line, on the neurons of a small untrained model."""

import pytest

from interp.artifacts import partial_path
from interp.workspace import Workspace
from saes.features.proof import Proof
from workbench.__main__ import main

PLACE = "blocks.0.mlp.hook_post"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prove")
    text = folder / "text.txt"
    text.write_text("\n\n".join(f"In {m} the {n} rivers rise." for m in ("March", "June", "July") for n in range(60)))
    at = ["--workspace", str(folder)]
    record = ["record", "small:mlp-2l", "--name", "small", "--hook-points", PLACE, "--corpus", str(text)]
    assert main([*record, "--tokens", "3000", "--context-length", "32", *at]) == 0
    assert main(["features", f"neurons:{PLACE}", "--recording", "small", "--name", "neurons", *at]) == 0
    return folder


def prove(folder, *more: str) -> int:
    quick = ["--draws", "9", "--examples", "2", "--others", "4", "--new-tokens", "2"]
    return main(["prove", "neurons", *more, *quick, "--workspace", str(folder)])


def live_neuron(workspace: Workspace) -> int:
    path = workspace.table_path("features", "neurons", "features")
    return workspace.query("select feature from f where n_fired > 50 order by feature", f=path)["feature"][0].as_py()


def test_a_neuron_of_an_untrained_model_is_not_proved_and_the_artefact_says_so(folder, capsys):
    workspace = Workspace(folder)
    feature = live_neuron(workspace)
    assert prove(folder, "--feature", str(feature)) == 0
    shown = capsys.readouterr().out
    said = " ".join(shown.split())
    assert "Undecided: only 9 random directions and 9 features of like density, 59 are needed" in said
    assert "of 9 random directions raise theirs and" in said
    assert "features of like density" in shown
    proof = workspace.open(Proof, f"neurons-{feature}")
    assert proof.holds() == []
    assert set(proof.about.parents) == {"features/neurons", "model:small:mlp-2l"}
    assert "as there was no Jacobian lens" in said
    assert set(proof.p_holm()) == {"ablate", "steer", "lists"}, "it reads bytes, so word lists apply"
    assert prove(folder, "--feature", str(feature)) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_a_stopped_proof_starts_again_from_the_same_command(folder, capsys, monkeypatch):
    feature = str(live_neuron(Workspace(folder)) + 1)
    named = ["--feature", feature, "--name", "stopped"]

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("saes.features.measure_proof.prove", stop)
        assert prove(folder, *named) == 130
    path = Workspace(folder).path("proof", "stopped")
    assert partial_path(path).exists()
    assert prove(folder, *named) == 0
    assert not partial_path(path).exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [(["--feature", "100000"], "its features are 0 to"), (["--feature", "1", "--strength", "-2"], "strength")],
)
def test_what_cannot_be_proved_is_one_line(folder, capsys, options, says):
    assert prove(folder, *options, "--name", "wrong") == 2
    error = capsys.readouterr().err
    assert says in error
    path = Workspace(folder).path("proof", "wrong")
    assert not path.exists()
    assert not partial_path(path).exists()
