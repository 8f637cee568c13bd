"""The doctor: healthy set-ups pass every check, rebuilt bugs fail the check that is there for them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from interp.artifacts import open_artefact, save_artefact
from interp.doctor.certificate import Certificate, certificates_of
from interp.doctor.examine import MODEL_TRIALS, examine, set_up
from interp.doctor.trials import Skip, due, gap, run_trials, trial
from interp.errors import ConfigError
from interp.models.adapter import hook_points_by_name, pattern_is_editable
from interp.models.loading import load_model
from interp.patching.activation import activation_patching
from interp.workspace import Workspace
from tests.campaigns.doctor import OF_EDITS, Ward, alarms, examined
from tests.campaigns.museum import EXHIBITS
from tests.campaigns.set_ups import FAMILIES

BY_NAME = {each.name: each for each in EXHIBITS}


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return Ward(tmp_path_factory.mktemp("ward"))


@pytest.fixture(scope="module")
def healthy(ward: Ward) -> dict[str, list]:
    return {family: examined(ward.patient(family, 0), "model") for family in ("gpt2", "gemma2", "opt")}


def test_healthy_models_fail_no_check(healthy):
    for family, checks in healthy.items():
        assert not alarms(checks, []), family
        idle = {check.name for check in checks if check.verdict == "not checked"}
        assert idle <= {"text", "chat template", *(["scores"] if family == "opt" else [])}, family


@pytest.mark.parametrize(
    ("name", "family", "check"),
    [
        ("attention scale or query weights off by a factor", "llama", "model: logits alone"),
        ("soft cap of the logits dropped", "gemma2", "model: logits alone"),
        ("a hook never fires", "gpt2", "hooks: read"),
        ("a hook fires and what it returns is dropped", "llama", "hooks: edited"),
        ("a hook sees the values of another layer", "llama", "hooks: attention and MLP"),
        ("a hook detaches: gradients end at it", "llama", "hooks: gradients"),
        ("a hook detaches: gradients end at it", "gemma2", "hooks: gradients"),
        ("an intervention reaches only the first row of a batch", "llama", "edits: every row"),
        ("heads in another order at the hook than in the weights", "llama", "hooks: values read by heads"),
        ("what a hook shows is scaled, what it writes is not", "gpt2", "hooks: modules"),
        ("bias of one head's values dropped", "qwen2", "model: logits alone"),
        ("sliding window left out", "mistral", "model: logits alone"),
        ("BOS doubled", "llama", "model: tokens"),
        ("a tokenizer of another revision", "gpt2", "model: tokens"),
        ("left padding counted as positions", "gpt2", "model: padded left"),
        ("cached generation ignores the prompt", "llama", "model: cache"),
        ("steering one token late", "llama", "edits: first position"),
        ("strength in other units than stated", "llama", "edits: size"),
        ("steering while generating starts at the wrong token", "llama", "edits: generated steered"),
        ("a patch takes the other run's values a position off", "llama", "edits: patched with itself"),
    ],
)
def test_a_bug_fails_the_check_that_is_there_for_it(ward, name, family, check):
    exhibit, part_and_name = BY_NAME[name], check.split(": ")
    assert family in (*exhibit.where, OF_EDITS)
    [own] = [each for each in MODEL_TRIALS if [each.experiment.part, each.experiment.name] == part_and_name]
    well, ill = ward.patient(family, 3), ward.patient(family, 3)
    assert own.run(set_up(well.model)).verdict == "passed"
    with ill.undo:
        exhibit.apply(ill)
        assert own.run(set_up(ill.model)).verdict == "failed"


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_sample_of_the_vocabulary_shows_a_detached_hook_and_leaves_the_model_whole(ward, family, monkeypatch):
    monkeypatch.setattr("interp.doctor._response_checks.WORDS", 16)
    [own] = [each for each in MODEL_TRIALS if each.experiment.name == "gradients"]
    patient = ward.patient(family, 3)
    unembedding = patient.model.unembed.original_component.weight
    check = own.run(set_up(patient.model))
    assert check.verdict == "passed", check.came
    with patient.undo:
        BY_NAME["a hook detaches: gradients end at it"].apply(patient)
        assert own.run(set_up(patient.model)).verdict == "failed"
    assert patient.model.unembed.original_component.weight is unembedding


def test_every_exhibit_names_families_or_dictionaries_that_there_are():
    assert len({each.name for each in EXHIBITS}) == len(EXHIBITS) >= 24
    for each in EXHIBITS:
        assert set(each.where) <= {*FAMILIES, "jumprelu", "biased jumprelu"}, each.name


def test_a_small_model_of_our_own_has_no_reference_and_says_so(tiny_model):
    found = examine(tiny_model)
    assert not found.failed
    by_name = {check.name: check for check in found.checks}
    assert by_name["logits alone"].verdict == "not checked"
    assert "no other program runs" in by_name["logits alone"].came
    assert "untrained" in by_name["text"].came
    assert by_name["edited"].verdict == "passed"


def test_a_trial_that_raises_is_not_checked_and_never_passed(tiny_model):
    how = {"did": "", "expected": "", "means": ""}

    @trial("model", "broken", **how)
    def broken(setup):
        raise RuntimeError("it broke\nin two lines")

    @trial("model", "left out", **how)
    def left_out(setup):
        raise Skip("nothing to read")

    setup = set_up(tiny_model, quick=True)
    came = [(check.verdict, check.came) for check in run_trials([broken, left_out], setup)]
    assert came == [("not checked", "it ended with RuntimeError: it broke"), ("not checked", "nothing to read")]


def test_gap_is_in_units_of_the_spread_and_infinite_for_what_is_not_finite():
    expected = torch.tensor([0.0, 2.0, 4.0])
    assert gap(expected, expected) == 0
    assert gap(expected + 1, expected) == pytest.approx(0.5)
    assert gap(torch.tensor([0.0, torch.nan, 4.0]), expected) == float("inf")
    assert gap(expected[:2], expected) == float("inf")


def test_weights_written_past_autograd_are_noticed(ward):
    patient = ward.patient("llama", 0)
    before = set_up(patient.model).weight_hash
    patient.weights("o_proj.weight")[0].data[0, 0] += 1
    assert set_up(patient.model).weight_hash != before


def test_a_certificate_is_found_by_weights_and_by_what_was_made_from_them(tiny_model, tmp_path: Path):
    workspace = Workspace(tmp_path / "workspace", create=True)
    quick = examine(tiny_model, quick=True)
    assert len(quick.to_records()) == len(due(MODEL_TRIALS, quick=True)) < len(MODEL_TRIALS)
    assert "checks passed" in quick.headline()
    assert certificates_of(workspace, {"model:tiny": quick.settings.weight_hash}) == {}
    made = save_artefact(quick, workspace.path("certificate", "quick"), parents={"model:else": "another"})
    assert open_artefact(Certificate, workspace.path("certificate", "quick")).checks == quick.checks
    mine = {made.key: made.about.content_hash}
    assert certificates_of(workspace, {"model:tiny": quick.settings.weight_hash}) == mine
    assert certificates_of(workspace, {"model:tiny": "other", "saes/none": ""}) == {}  # an empty hash is of nothing
    other = replace(quick, settings=replace(quick.settings, weight_hash="0" * 64))
    of_weights = {"model:tiny": quick.settings.weight_hash}
    first = save_artefact(other, workspace.path("certificate", "first"), parents=of_weights)
    of_first = {first.key: first.about.content_hash}
    second = save_artefact(replace(other), workspace.path("certificate", "second"), parents=of_first)
    assert certificates_of(workspace, {second.key: second.about.content_hash}) == mine
    assert certificates_of(workspace, {second.key: "replaced since"}) == {}
    whole = replace(quick, settings=replace(quick.settings, quick=False))
    whole = save_artefact(whole, workspace.path("certificate", "a-whole-one"))
    found = certificates_of(workspace, {"model:tiny": quick.settings.weight_hash})
    assert found == {whole.key: whole.about.content_hash}  # comes before a quick one


def test_hook_points_that_lie_are_not_offered(ward, tiny_model):
    """The doctor found them: they never fire, hold something else, or an edit reaches nothing."""
    assert "blocks.0.attn.hook_attn_scores" not in hook_points_by_name(tiny_model)
    assert pattern_is_editable(tiny_model)
    opt = load_model(str(ward.patient("opt", 0).model.cfg.model_name))
    assert "blocks.0.attn.hook_attn_scores" not in hook_points_by_name(opt)
    assert not pattern_is_editable(opt)
    pair = set_up(opt).prompts.rows[0]
    with pytest.raises(ConfigError, match="does not reach the logits"):
        activation_patching(opt, (pair, pair.flip(1)), lambda logits: logits[:, -1, 0], what="pattern")
    pythia = hook_points_by_name(ward.patient("pythia", 0).model)
    assert not {"blocks.0.hook_resid_mid", "blocks.0.attn.hook_rot_q"} & set(pythia)
