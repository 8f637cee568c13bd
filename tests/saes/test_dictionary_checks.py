"""The doctor's checks of a dictionary: healthy ones pass, rebuilt bugs fail the check that is there for them."""

from dataclasses import replace

import pytest

from interp.doctor.examine import set_up
from saes.evaluation.dictionary_checks import TRIALS, Applied, CardScores, checks_of_dictionary
from tests.campaigns.doctor import DICTIONARIES, OF_EDITS, Ward, alarms
from tests.campaigns.formats import FORMATS
from tests.campaigns.museum import EXHIBITS

BUGS = {
    "activations not rescaled to the training scale": "scale of the input",
    "dictionary applied a layer off": "hook point",
    "dictionary applied to the middle of the block": "hook point",
    "decoder rows in another order than latents": "learned",
    "b_dec not subtracted from the input": "encoder",
    "b_dec added twice": "decoder",
    "b_dec with the other sign": "scale of the input",
    "activations scaled in the encoder, not in the decoder": "size of latents",
    "decoder rows without the norms they had": "size of latents",
    "some decoder rows in another order": "size of latents",
    "TopK without ReLU": "threshold",
    "a dictionary of another state of the model": "weights",
    "encoder transposed or of another dictionary": "as its card says",
    "threshold missing: BatchTopK read as ReLU": "threshold",
    "threshold in other units": "as its card says",
    "decoder rows with 40 % noise": "as when it was made",
    "threshold 1.6 times too large": "as when it was made",
    "encoder bias with the other sign": "as when it was made",
}


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return Ward(tmp_path_factory.mktemp("ward"))


@pytest.mark.parametrize("kind", [*DICTIONARIES, *FORMATS])
def test_a_healthy_dictionary_fails_no_check(ward, kind):
    patient = ward.patient(OF_EDITS, 0, kind)
    checks = list(checks_of_dictionary(set_up(patient.model, referred=False), patient.sae, patient.said))
    assert not alarms(checks, [])
    passed = {check.name for check in checks if check.verdict == "passed"}
    assert passed >= set(BUGS.values()) - {"weights", "as its card says"}


def test_every_bug_of_dictionaries_is_tried():
    assert BUGS.keys() == {each.name for each in EXHIBITS if each.kind == "dictionary"}


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_fails_the_check_that_is_there_for_it(ward, name):
    [exhibit] = [each for each in EXHIBITS if each.name == name]
    [own] = [each for each in TRIALS if each.experiment.name == BUGS[name]]
    patient = ward.patient(OF_EDITS, 5, exhibit.where[0] if exhibit.where[0] in DICTIONARIES else "topk")
    with patient.undo:
        exhibit.apply(patient)
        assert own.run(Applied(set_up(patient.model, referred=False), patient.sae, patient.said)).verdict == "failed"


def test_a_dictionary_without_a_card_is_measured_and_not_judged(ward):
    patient = ward.patient(OF_EDITS, 0, "topk")
    checks = {
        check.name: check
        for check in checks_of_dictionary(set_up(patient.model, referred=False), patient.sae, CardScores())
    }
    assert checks["as its card says"].verdict == "measured"
    assert "no card" in checks["as its card says"].came
    assert checks["as when it was made"].verdict == "not checked"
    assert "not stated" in checks["as when it was made"].came


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", DICTIONARIES)
def test_scores_on_prose_are_the_same_when_measured_again_and_others_for_other_prose(ward, kind, seed):
    [own] = [each for each in TRIALS if each.experiment.name == "as when it was made"]
    patient = ward.patient(OF_EDITS, seed, kind)
    setup = set_up(patient.model, referred=False, seed=seed)
    assert own.run(Applied(setup, patient.sae, patient.said)).verdict == "passed"
    other = replace(patient.said, prose=replace(patient.said.prose, tokens_hash="0"))
    assert own.run(Applied(setup, patient.sae, other)).verdict == "not checked"
