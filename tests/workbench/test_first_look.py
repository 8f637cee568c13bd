"""The quick examination before a first analysis: once for new weights or a new dictionary, and never in the way."""

import json
from pathlib import Path

import pytest
import torch

from interp.doctor.certificate import Certificate
from interp.models.loading import load_model
from interp.workspace import Workspace
from saes.training.stored import StoredSAE
from tests.campaigns.doctor import principal
from tests.campaigns.set_ups import write_family
from tests.fixtures.make_saes import saved
from workbench import first_look
from workbench.__main__ import main
from workbench.first_look import FirstLook


@pytest.fixture
def turned_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_DOCTOR", raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family("llama", tmp_path_factory.mktemp("first") / "llama")


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w", create=True)


def heads(capsys: pytest.CaptureFixture[str], spec: str, workspace: Workspace, name: str) -> str:
    """Score heads, and return what came on the error stream."""
    words = ["heads", spec, "--name", name, "--n-prompts", "2", "--workspace", str(workspace.root)]
    assert main(words) == 0
    return capsys.readouterr().err


@pytest.mark.usefixtures("turned_on")
def test_new_weights_are_examined_once_and_results_carry_it(folder, place, capsys):
    said = heads(capsys, str(folder), place, "first")
    assert "before the first analysis" in said
    assert "WORKBENCH_DOCTOR=off" in said
    [found] = place.values(Certificate)
    assert found.settings.quick
    assert not found.failed
    assert {"logits alone", "padded left", "tokens", "sum of a block"} <= {each.name for each in found.checks}
    assert "doctor:" not in heads(capsys, str(folder), place, "second")
    for name in ("first", "second"):
        assert place.manifest("heads", name).parents[found.key] == found.about.content_hash


@pytest.mark.usefixtures("turned_on")
def test_a_whole_examination_replaces_a_quick_one(folder, place, capsys):
    heads(capsys, str(folder), place, "first")
    before = place.values(Certificate)[0].about.content_hash
    assert main(["doctor", str(folder), "--workspace", str(place.root)]) == 0
    [found] = place.values(Certificate)
    assert not found.settings.quick
    assert "doctor:" not in heads(capsys, str(folder), place, "second")
    assert place.manifest("heads", "first").parents[found.key] == before
    assert place.manifest("heads", "second").parents[found.key] == found.about.content_hash


def test_the_switch_leaves_it_out(folder, place, capsys, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DOCTOR", "off")
    assert "doctor:" not in heads(capsys, str(folder), place, "first")
    assert not place.values(Certificate)
    assert not [key for key in place.manifest("heads", "first").parents if key.startswith("certificates/")]


@pytest.mark.usefixtures("turned_on")
def test_a_failed_check_is_a_warning_and_the_certificate_says_it(folder, place, capsys):
    model = load_model(str(folder))
    weight = dict(model.original_model.named_parameters())
    next(each for name, each in weight.items() if "q_proj" in name).data *= 2
    FirstLook(place, model, []).run()
    said = capsys.readouterr().err
    assert "WARNING, model logits alone" in said
    assert "All checks: " in said
    assert place.values(Certificate)[0].failed


@pytest.mark.usefixtures("turned_on")
def test_a_new_dictionary_is_examined_in_a_model_that_was(folder, place, capsys):
    model = load_model(str(folder))
    sae, _ = principal(str(folder), "topk", model)
    saved(place, "well", sae)
    sae.W_dec.data = sae.W_dec[torch.randperm(sae.d_sae, generator=torch.Generator().manual_seed(0))]
    saved(place, "shuffled", sae)
    FirstLook(place, model, []).run()
    FirstLook(place, model, ["saes/well", "heads/no-dictionary"]).run()
    assert "WARNING" not in capsys.readouterr().err
    FirstLook(place, model, ["saes/well", "saes/shuffled"]).run()
    said = capsys.readouterr().err
    assert "saes/well" not in said
    assert "WARNING, dictionary learned" in said
    assert "--dictionary shuffled" in said
    found = {each.settings.dictionary: each for each in place.values(Certificate)}
    assert found.keys() == {"", "saes/well", "saes/shuffled"}
    assert found["saes/well"].settings.dictionary_hash == place.open(StoredSAE, "well").about.content_hash
    assert "model" in {each.part for each in found["saes/shuffled"].checks}  # what holds of the weights holds here


@pytest.mark.usefixtures("turned_on")
def test_what_cannot_be_examined_is_said_and_stops_nothing(folder, place, capsys, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no prompts")

    model = load_model(str(folder))
    with monkeypatch.context() as patched:
        patched.setattr("interp.doctor.examine.prompts_of", broken)
        FirstLook(place, model, []).run()
    assert "could not be examined (RuntimeError: no prompts)" in capsys.readouterr().err
    monkeypatch.setattr(first_look, "LARGEST", 10)
    FirstLook(place, model, []).run()
    assert "doctor " in capsys.readouterr().err
    assert not place.values(Certificate)


@pytest.mark.usefixtures("turned_on")
@pytest.mark.parametrize(
    "spec", ["planted:induction", "planted:copying", "planted:post-norm", "small:mlp-1l", "small:attn-only-2l"]
)
def test_models_of_the_workbench_pass(spec, place, capsys):
    FirstLook(place, load_model(spec), []).run()
    assert "WARNING" not in capsys.readouterr().err
    [found] = place.values(Certificate)
    assert len(found.with_verdict("passed")) >= 4


@pytest.mark.usefixtures("turned_on")
def test_a_recording_and_what_is_made_from_it_carry_the_certificate(folder, place, tmp_path, capsys):
    text = tmp_path / "text.jsonl"
    lines = [{"text": f"The river rises in the hills north of town {n}. " * 4, "id": str(n)} for n in range(60)]
    text.write_text("".join(json.dumps(line) + "\n" for line in lines))
    where = ["--workspace", str(place.root), "--name", "own"]
    hook = "blocks.1.hook_resid_post"
    made = ["--hook-points", hook, "--corpus", str(text), "--tokens", "1500", "--context-length", "32"]
    assert main(["record", str(folder), *made, *where]) == 0
    assert main(["train", "own", "--d-sae", "64", "--k", "4", "--tokens", "4000", "--batch-size", "256", *where]) == 0
    [found] = place.values(Certificate)
    for kind in ("recording", "sae"):
        assert place.manifest(kind, "own").parents[found.key] == found.about.content_hash
    capsys.readouterr()
    assert main(["features", "own", *where]) == 0
    assert "saes/own in" in capsys.readouterr().err
    parents = place.manifest("features", "own").parents
    assert {key for key in parents if key.startswith("certificates/")} == {
        each.key for each in place.values(Certificate)
    }
    assert {each.settings.dictionary for each in place.values(Certificate)} == {"", "saes/own"}
