"""Two features beside each other: known cosines come back, random ones do not beat their null."""

import json

import numpy as np
import pytest
import torch
from fake_live import FakeLive
from make_counterparts import counterparts
from make_features import write_features
from make_saes import saved
from page_text import text_of
from scipy.sparse import csr_matrix
from visit import unguarded

from dashboard.app import create_app
from dashboard.compare import _data, measure, page
from dashboard.data import feature_names
from dashboard.data.features import one
from dashboard.directions import page as directions
from dashboard.sae import page as sae_page
from dashboard.sources import current
from interp.artifacts import save_artefact
from interp.errors import ConfigError, UnknownNameError, UsageError
from interp.recording.store import Recording
from interp.workspace import Workspace
from saes.acts.run import Run
from saes.acts.writing import Say
from saes.evaluation.matching import random_like, unit
from saes.evaluation.sae_comparison import SAEComparison
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.topk import TopKSAE
from workbench.__main__ import main

MODEL, HOOK, MLP = "small:mlp-2l", "blocks.1.hook_resid_post", "blocks.1.mlp.hook_post"
N = 64
"""Latents."""


@pytest.fixture(scope="module")
def place(tmp_path_factory, text_documents) -> Workspace:
    """Dictionaries of a small model: one, the same in another order, a random one, and one of other weights."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    workspace = Workspace(tmp_path_factory.mktemp("compare") / "workspace", create=True)
    at = ["--workspace", str(workspace.root), "--threads", "1"]
    corpus = workspace.root / "texts.jsonl"
    corpus.write_text("".join(json.dumps({"text": each.text}) + "\n" for each in text_documents))
    points = ["--hook-points", HOOK, "--corpus", str(corpus)]
    assert main(["record", MODEL, *points, "--tokens", "4000", "--context-length", "32", "--name", "rec", *at]) == 0
    recording = Recording(workspace.path("recording", "rec"))
    generator = torch.Generator().manual_seed(0)
    rows = unit(torch.randn(N, recording.d(HOOK), generator=generator))
    order = torch.randperm(N, generator=generator)
    planted(workspace, recording, "one", rows)
    planted(workspace, recording, "permuted", 3 * rows[order])
    planted(workspace, recording, "random", random_like(rows, generator=generator))
    planted(workspace, recording, "foreign", rows, weight_hash="0" * 64)
    np.save(workspace.root / "order.npy", order.numpy())
    for name in ("one", "permuted"):
        assert main(["features", name, *at]) == 0
    assert main(["compare", "saes", "one", "permuted", "random", "--match", "--name", "stored", *at]) == 0
    torch.set_num_threads(before)
    return workspace


def planted(
    workspace: Workspace, recording: Recording, name: str, rows: torch.Tensor, *, weight_hash: str = ""
) -> None:
    """Write an SAE whose decoder has these rows."""
    metadata = SAEMetadata(model=MODEL, weight_hash=weight_hash or recording.weight_hash, hook_point=HOOK)
    directions = unit(rows)
    weights = Weights(directions.T.contiguous(), torch.zeros(len(rows)), rows, torch.zeros(rows.shape[1]))
    parents = {recording.key: recording.manifest.content_hash}
    saved(workspace, name, TopKSAE(weights, k=8, metadata=metadata), recording="rec", **parents)


@pytest.fixture(scope="module")
def order(place) -> list[int]:
    return np.load(place.root / "order.npy").tolist()


def pair(place: Workspace, a: str, b: str) -> measure.MeasuredPair:
    return measure.pair(place, _data.named(place, a), _data.named(place, b))


def by_name(found: list[measure.Measure], start: str) -> measure.Measure:
    return next(each for each in found if each.name.startswith(start))


def test_a_feature_is_itself(place):
    found = pair(place, "one:12", "one:12")
    cosine, together = by_name(found.measures, "cosine of the dir"), by_name(found.measures, "tokens on which both")
    assert cosine.value == pytest.approx(1, abs=1e-6)
    assert cosine.p is not None
    assert cosine.p < 0.02
    assert cosine.null is not None
    assert cosine.null < 0.5
    assert by_name(found.measures, "correlation").value == pytest.approx(1, abs=1e-6)
    assert together.null is not None
    assert together.value > together.null
    assert found.verdict == "They are the same."
    assert found.missing == []


def test_features_of_the_copy_point_and_fire_alike(place, order):
    found = pair(place, "one:20", f"permuted:{order.index(20)}")
    assert by_name(found.measures, "cosine of the dir").value == pytest.approx(1, abs=1e-6)
    assert by_name(found.measures, "correlation").value == pytest.approx(1, abs=1e-5)


def test_pairs_with_a_random_dictionary_stay_within_the_null(place):
    pairs = [pair(place, f"one:{i}", f"random:{i}") for i in range(10, 40)]
    small = [by_name(found.measures, "cosine of the dir").p for found in pairs]
    assert np.mean(np.array(small, float) <= 0.05) < 0.2
    assert all(("No more alike" in found.verdict) == (p > 0.05) for found, p in zip(pairs, small, strict=True))


def test_a_feature_can_be_chatted_along(place, live):
    client = unguarded(place, live)
    with client.application.app_context():
        text = text_of(directions.layout(current(), feature="permuted:5"))
        assert "Say it with the model" in text
        assert "Choose and judge a strength" in text or "runs no analyses" in text
    steered = Say(direction="permuted:5", message="Hello", strength=2.0)._steering(Run(place))
    [step] = steered.recipe.steps
    assert step.amount == pytest.approx(2 * one(place, "permuted", 5).row.max_activation)
    assert step.target.index == 5
    for wrong, error in (("permuted:x", ConfigError), ("none:5", UnknownNameError), ("none", UnknownNameError)):
        with pytest.raises(error):
            Say(direction=wrong, message="Hello")._steering(Run(place))


def test_correlations_are_pearsons():
    dense = np.random.default_rng(0).normal(size=(200, 5)).clip(0)
    dense[:, 4] = 0
    values = dense[:, 1] + 0.5 * dense[:, 2]
    expected = [np.corrcoef(values, dense[:, i])[0, 1] for i in range(4)]
    found = measure.correlations(csr_matrix(dense), values)
    assert found[:4] == pytest.approx(expected)
    assert np.isnan(found[4])


def test_the_null_leaves_out_the_two_themselves(place):
    a, b = _data.named(place, "one:1"), _data.named(place, "one:2")
    along_b, along_a = np.arange(4.0), np.arange(10.0, 14)
    assert measure.values_of_other_pairs(a, b, along_b, along_a).tolist() == [0, 3, 10, 13]
    other = _data.named(place, "random:2")
    assert measure.values_of_other_pairs(a, other, along_b, along_a).tolist() == [0, 1, 3, 10, 12, 13]


def test_other_weights_and_other_kinds_are_refused_with_the_reason(place):
    assert "other weights" in pair(place, "one:1", "foreign:1").missing[0]
    for a, b, expected in (
        ("one:1", "one", UsageError),
        ("one:1", "one:64", UsageError),
        ("random:64", "one:1", UsageError),
        ("onee:1", "one:1", UnknownNameError),
        (f"neurons:{MLP}:7", "one:1", UsageError),
    ):
        with pytest.raises(expected):
            measure.compare(place, a, b)


def shown(workspace: Workspace, **address: str) -> str:
    """Return the page before its callbacks, as text."""
    with create_app(workspace, live=FakeLive()).server.app_context():
        return text_of(page.layout(page.current(), **address))


def test_the_page_shows_both_features_and_their_measures(place):
    with create_app(place, live=FakeLive()).server.app_context():
        names = ["one:12", "permuted:3"]
        text = text_of([page.show_stored(names), page.show_measured(names)])
    assert "cosine of the directions they write" in text
    assert "Strongest" in text


def test_without_names_the_dictionaries_stand_beside_their_baselines(place):
    text = shown(place)
    for part in ("permuted", "untrained", "one, random: 0.0% of features have a partner"):
        assert part in text


def test_a_name_that_is_not_there_is_answered_with_the_nearest(place):
    assert "did you mean" in shown(place, a="one:12", b="onne:3")


@pytest.fixture(scope="module")
def models_apart(place) -> Workspace:
    """Features of two models, `here` and `there`: 0 to 3 and 10 to 13 fire on the same words, 4 on words of its own."""
    for name, dictionary, model in (("here", "sae:one", MODEL), ("there", "sae:foreign", "small:other")):
        rows = [{"feature": i, "label": f"{name} {i}", "n_fired": 9} for i in range(16)]
        write_features(place, name, rows, dictionary=dictionary, model=model)
    save_artefact(counterparts("here", "there"), place.path("counterparts", "apart"))
    return place


def test_counterparts_are_side_by_side_and_in_the_menu(models_apart):
    text = shown(models_apart)
    assert "80% of here's features have a counterpart in there; 0% with documents shuffled" in text
    assert "here 0 ↔ there 10" in text, "the menu"
    assert text.index("here 2 ↔") < text.index("here 0 ↔"), "more than one word comes first"
    assert "/compare?a=here%3A0&b=there%3A10" in text
    alone = text[text.index("In here, not in there: 1") :]
    assert "here 4" in alone[: alone.index("In there, not in here")]
    assert "there 14" in alone
    assert shown(models_apart, pairs="apart").count("counterpart") == text.count("counterpart")


def test_features_of_two_models_are_compared_by_the_words_they_fire_on(models_apart):
    measured = pair(models_apart, "here:1", "there:11")
    assert "other weights" in measured.missing[0]
    assert [(measure.value, measure.null) for measure in measured.measures] == [
        (pytest.approx(0.8), 0.1),
        (pytest.approx(0.9), 0.5),
    ]
    assert measured.verdict.startswith("They fire on the same words: correlation 0.80")
    assert pair(models_apart, "there:11", "here:1").verdict == measured.verdict
    assert pair(models_apart, "here:4", "there:14").verdict.startswith("They fire on other words")
    assert "workbench compare features" in pair(models_apart, "here:1", "there:12").missing[0]


def test_a_proposal_is_a_name_with_its_label(models_apart):
    proposed = feature_names.proposals(models_apart, "")
    assert "here:3 here 3" in proposed
    assert feature_names.bare_name("here:3 here 3") == "here:3"
    assert feature_names.bare_name("river bank") == "river bank"
    assert feature_names.bare_name("12", "here") == "here:12"
    assert feature_names.proposals(models_apart, "here:3") == feature_names.proposals(models_apart, "here:3 here 3")
    assert "here:3 here 3" in feature_names.proposals(models_apart, "3")
    assert feature_names.proposals(models_apart, "HERE 3")[0] == "here:3 here 3", "a word of its label"
    assert feature_names.proposals(models_apart, "no such word") == []


def test_matched_features_of_two_saes_are_on_the_page_sae(place, order):
    matches = place.open(SAEComparison, "stored").matches
    assert matches is not None
    rows = matches.rows("pair = 'one, permuted'")
    assert sorted(row.first for row in rows) == list(range(N))
    assert [order[row.second] for row in rows] == [row.first for row in rows]
    with create_app(place, live=FakeLive()).server.app_context():
        text = text_of(sae_page.show_dictionary({"name": "one"}, "finished", "dark"))
    assert "one, permuted: 100.0% of features have a partner" in text
    assert "one, random: 0.0% of features have a partner" in text
    assert f"/compare?a=one%3A{rows[0].first}&b=permuted%3A{rows[0].second}" in text


def test_the_answer_for_scripts_is_json_with_its_nulls(place):
    client = create_app(place, live=FakeLive()).server.test_client()
    reply = client.get("/api/compare?a=one:12&b=permuted:3", headers={"Host": "127.0.0.1"})
    found = json.loads(reply.data)
    assert reply.status_code == 200
    assert {"name", "value", "null", "p", "of"} == found["measures"][0].keys()
    assert client.get("/api/compare?a=one:1&b=x:1", headers={"Host": "127.0.0.1"}).status_code == 404
    assert client.get("/api/compare?a=one&b=one:1", headers={"Host": "127.0.0.1"}).status_code == 400
