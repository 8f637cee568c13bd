"""`workbench prove` from the command line, on the neurons of a small untrained model."""

import pytest

from interp.artifacts import partial_path
from interp.workspace import Workspace
from saes.features.proof import Proof
from workbench.__main__ import main

PLACE = "blocks.0.mlp.hook_post"
PROVE = ("prove", "neurons", "--draws", 9, "--examples", 2, "--others", 4, "--new-tokens", 2)


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


def live_neuron(workspace: Workspace) -> int:
    path = workspace.table_path("features", "neurons", "features")
    return workspace.query("select feature from f where n_fired > 50 order by feature", f=path)["feature"][0].as_py()


def test_a_neuron_of_an_untrained_model_is_not_proved_and_the_artefact_says_so(cli, folder):
    workspace = Workspace(folder)
    feature = live_neuron(workspace)
    shown = cli(folder, *PROVE, "--feature", feature)
    said = " ".join(shown.split())
    assert "of 9 random directions and" in said
    assert "Tested: " in said
    assert "features of like density" in shown
    proof = workspace.open(Proof, f"neurons-{feature}")
    assert proof.holds() == []
    assert proof.verdict() in said
    undecided = proof.undecided()
    assert all("only 9 random directions" in reason for reason in undecided.values())
    assert all(p > 4 / 10 for name, p in proof.p_holm().items() if name not in undecided), "ruled out by nine draws"
    assert set(proof.about.parents) == {"features/neurons", "model:small:mlp-2l"}
    assert "as there was no Jacobian lens" in said
    assert {"ablate", "steer", "joined"} <= set(proof.p_holm()) or proof.words.any_direction_may_pass
    assert "--overwrite" in cli(folder, *PROVE, "--feature", feature, code=2)


def test_a_stopped_proof_starts_again_from_the_same_command(cli, folder, monkeypatch):
    words = (*PROVE, "--feature", live_neuron(Workspace(folder)) + 1, "--name", "stopped")

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("saes.features.measure_proof.prove", stop)
        cli(folder, *words, code=130)
    path = Workspace(folder).path("proof", "stopped")
    assert partial_path(path).exists()
    cli(folder, *words)
    assert not partial_path(path).exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [(["--feature", "100000"], "its features are 0 to"), (["--feature", "1", "--strength", "-2"], "strength")],
)
def test_what_cannot_be_proved_is_one_line(cli, folder, options, says):
    assert says in cli(folder, *PROVE, *options, "--name", "wrong", code=2)
    path = Workspace(folder).path("proof", "wrong")
    assert not path.exists()
    assert not partial_path(path).exists()
