"""Training by the command line stores L0 and FVU on the doctor's prose, where the model is at hand."""

import pytest

from interp.models.loading import load_model
from interp.recording.record import record
from interp.recording.recorded import RecordConfig
from interp.text.corpora import Document
from interp.workspace import Workspace
from saes.training.stored import StoredSAE
from tests.campaigns.set_ups import write_family
from workbench.__main__ import main
from workbench.first_look import SWITCH, prose_measure


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("prose")
    folder = write_family("llama", root / "llama")
    workspace, model = Workspace(root / "w", create=True), load_model(str(folder))
    from interp.text.passages import PASSAGES

    texts = [Document(id=str(n), label="prose", text=text) for n, text in enumerate(PASSAGES * 4)]
    config = RecordConfig(tokens=1500, context_length=32)
    record(model, texts, workspace.path("recording", "text"), config, hook_points=["blocks.1.hook_resid_post"])
    return workspace, model


def test_a_trained_dictionary_states_its_scores_and_the_doctor_finds_them_again(recorded, monkeypatch, capsys):
    workspace, _ = recorded
    monkeypatch.delenv(SWITCH, raising=False)
    words = [
        "train",
        "text",
        "--tokens",
        "2048",
        "--batch-size",
        "256",
        "--d-sae",
        "64",
        "--k",
        "8",
        "--heldout-fraction",
        "0.4",
    ]
    assert main([*words, "--workspace", str(workspace.root)]) == 0
    stored = workspace.open(StoredSAE, "text")
    assert stored.prose is not None
    assert stored.prose.l0 > 0
    doctor = ["doctor", stored.model, "--dictionary", "text", "--quick", "--workspace", str(workspace.root)]
    main(doctor)
    assert "as when it was made: L0" in capsys.readouterr().out


def test_other_weights_and_a_missing_model_state_nothing_and_say_so(recorded, monkeypatch, capsys):
    workspace, _ = recorded
    monkeypatch.delenv(SWITCH, raising=False)
    model = workspace.open(StoredSAE, "text").model
    sae = workspace.open(StoredSAE, "text").load()
    assert prose_measure(model, "0" * 64)(sae) is None
    assert "other weights" in capsys.readouterr().err
    assert prose_measure("no/such-folder", "")(sae) is None
    assert "was not loaded" in capsys.readouterr().err
