"""Two features beside each other: known cosines come back, random ones do not beat their null."""

import json

import numpy as np
import pytest
import torch
from fake_live import FakeLive
from make_counterparts import counterparts
from make_features import write_features
from make_recording import recording
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
from interp.models.loading import load_model
from interp.models.residual import norm_of
from interp.recording.store import Recording
from interp.workspace import Workspace
from saes.acts.session import Session
from saes.acts.writing import Say
from saes.evaluation.matching import random_like, unit
from saes.evaluation.sae_comparison import SAEComparison
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.topk import TopKSAE
from workbench.__main__ import main

MODEL, HOOK, MLP = "small:mlp-2l", "blocks.1.hook_resid_post", "blocks.1.mlp.hook_post"
N, WRITES, READS = 64, 5, 6
"""Latents; the one that is what neuron 7 writes, and the one that neuron 3 reads."""


@pytest.fixture(scope="module")
def place(tmp_path_factory, text_documents) -> Workspace:
    """Dictionaries of a small model: one, the same in another order, a random one, and one of other weights."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    workspace = Workspace(tmp_path_factory.mktemp("compare") / "workspace", create=True)
    at = ["--workspace", str(workspace.root), "--threads", "1"]
    corpus = workspace.root / "texts.jsonl"
    corpus.write_text("".join(json.dumps({"text": each.text}) + "\n" for each in text_documents))
    points = ["--hook-points", HOOK, MLP, "--corpus", str(corpus)]
    assert main(["record", MODEL, *points, "--tokens", "4000", "--context-length", "32", "--name", "rec", *at]) == 0
    recording = Recording(workspace.path("recording", "rec"))
    generator = torch.Generator().manual_seed(0)
    rows = unit(torch.randn(N, recording.d(HOOK), generator=generator))
    block = load_model(MODEL).blocks[1]
    norm = norm_of(block, "ln2", recording.d(HOOK))
    assert norm is not None
    rows[WRITES] = unit(block.mlp.W_out[7].detach())
    rows[READS] = unit(norm.fold(block.mlp.W_in.detach())[:, 3])
    order = torch.randperm(N, generator=generator)
    planted(workspace, recording, "one", rows)
    planted(workspace, recording, "permuted", 3 * rows[order])
    planted(workspace, recording, "random", random_like(rows, generator=generator))
    planted(workspace, recording, "foreign", rows, weight_hash="0" * 64)
    np.save(workspace.root / "order.npy", order.numpy())
    for name in ("one", "permuted"):
        assert main(["features", name, *at]) == 0
    assert (
        main(["compare", "saes", "one", "permuted", "random", "--match", "--no-baselines", "--name", "stored", *at])
        == 0
    )
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


def by_name(found: list[_data.Measure], start: str) -> _data.Measure:
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
    assert found.nearest[0] == (order.index(20), pytest.approx(1, abs=1e-6))


def test_pairs_with_a_random_dictionary_stay_within_the_null(place):
    pairs = [pair(place, f"one:{i}", f"random:{i}") for i in range(10, 40)]
    small = [by_name(found.measures, "cosine of the dir").p for found in pairs]
    assert np.mean(np.array(small, float) <= 0.05) < 0.2
    assert all(("No more alike" in found.verdict) == (p > 0.05) for found, p in zip(pairs, small, strict=True))
    cosines = pairs[0].cosines
    assert cosines is not None
    assert [sum(cosines.random), sum(cosines.nearest)] == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("value", "p", "closer", "expected"),
    [
        (0.23, 0.01, 0.81, "Somewhat alike, not one feature: cosine 0.23; random pairs reach 0.10, and 81% of "
         "features have as near a neighbour."),
        (0.23, 0.01, 0.02, "Nearer than 98% of nearest neighbours: cosine 0.23; random pairs reach 0.10."),
        (0.05, 0.4, 1.0, "No more alike than random pairs: cosine 0.05; random pairs reach 0.10."),
        (-0.4, 0.01, 1.0, "They point apart: cosine -0.40; random pairs reach 0.10."),
    ],
)  # fmt: skip
def test_the_verdict_follows_both_nulls(place, value, p, closer, expected):
    measures = [
        _data.Measure("cosine of the directions they write", value, 0.1, p, measure.RANDOM_PAIRS),
        _data.Measure(measure.CLOSER, closer, None, None, ""),
    ]
    assert measure.verdict(_data.named(place, "one:1"), _data.named(place, "random:2"), measures) == expected


def test_a_feature_can_be_chatted_along(place, live):
    client = unguarded(place, live)
    with client.application.app_context():
        text = text_of(directions.layout(current(), feature="permuted:5"))
        assert "Say it with the model" in text
        assert "Choose and judge a strength" in text or "runs no analyses" in text
    steered = Say(direction="permuted:5", message="Hello", strength=2.0)._steering(Session(place))
    [step] = steered.recipe.steps
    assert step.amount == pytest.approx(2 * one(place, "permuted", 5).row.max_activation)
    assert step.target.index == 5
    for wrong, error in (("permuted:x", ConfigError), ("none:5", UnknownNameError), ("none", UnknownNameError)):
        with pytest.raises(error):
            Say(direction=wrong, message="Hello")._steering(Session(place))


def test_a_neuron_is_found_by_what_it_writes_and_by_what_it_reads(place):
    writes = pair(place, f"one:{WRITES}", f"neurons:{MLP}:7")
    direct = by_name(writes.measures, "cosine of the directions")
    assert direct.value == pytest.approx(1, abs=1e-5)
    assert direct.p is not None
    assert direct.p < 0.01
    assert writes.nearest[0][0] == 7
    reads = by_name(pair(place, f"one:{READS}", f"neurons:{MLP}:3").measures, "cosine of one:6 with the input weights")
    assert reads.value == pytest.approx(1, abs=1e-5)
    assert reads.null is not None
    assert reads.null < 0.5
    other = by_name(pair(place, f"one:{READS}", f"neurons:{MLP}:4").measures, "cosine of one:6 with the input weights")
    assert abs(other.value) < 0.6


def test_a_neuron_beside_a_feature_is_one_of_its_model(own):
    _, alone = _data.both(own, "neurons:12", f"neurons:{MLP}:7")
    assert alone.model == "smollm2-135m"
    recording(own, "other", model="other", hook_points=(MLP,))
    assert _data.named(own, f"neurons:{MLP}:7").model == "other"
    assert _data.both(own, f"neurons:{MLP}:7", "demo:3")[0].model == "smollm2-135m"
    assert _data.both(own, "demo:3", f"neurons:{MLP}:7")[1].model == "smollm2-135m"


def test_correlations_are_pearsons():
    dense = np.random.default_rng(0).normal(size=(200, 5)).clip(0)
    dense[:, 4] = 0
    values = dense[:, 1] + 0.5 * dense[:, 2]
    expected = [np.corrcoef(values, dense[:, i])[0, 1] for i in range(4)]
    for acts in (dense, csr_matrix(dense)):
        found = measure.correlations(acts, values)
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
        ("neurons:blocks.1.hook_resid_post:1", "one:1", UsageError),
    ):
        with pytest.raises(expected):
            measure.compare(place, a, b)


def test_shared_tokens_are_counted_against_other_features(workspace):
    a, b = _data.named(workspace, "demo:3"), _data.named(workspace, "demo:6")
    promoted = _data.shared_tokens(workspace, a, b)[0]
    path = workspace.table_path("features", "demo", "features")
    lists = {
        row["feature"]: {t.strip().lower() for t in row["promoted_tokens"]} - {""}
        for row in workspace.query("select feature, promoted_tokens from f", f=path).to_pylist()
    }
    assert set(promoted.tokens) == lists[3] & lists[6]
    null = [len(lists[3] & each) for index, each in lists.items() if index not in (3, 6)]
    reach = sum(each >= len(promoted.tokens) for each in null)
    assert promoted.measure.p == pytest.approx((1 + reach) / (1 + len(null)))


def shown(workspace: Workspace, **address: str) -> str:
    """Return the page before its callbacks, as text."""
    with create_app(workspace, live=FakeLive()).server.app_context():
        return text_of(page.layout(page.current(), **address))


def test_the_page_shows_both_features_and_their_measures(place):
    with create_app(place, live=FakeLive()).server.app_context():
        names = ["one:12", "permuted:3"]
        text = text_of([*page.show_stored(names), page.show_measured(names, "dark")])
    assert "cosine of the directions they write" in text
    assert "compare-cosines" in text
    assert "Strongest examples" in text


def test_without_names_the_page_proposes_features(place, workspace):
    text = shown(place)
    assert "Choose two features" in text
    for other in ("/sae", "/geometry", "/changes", "compare saes", "geometry compare", "compare models"):
        assert other in text
    assert "neighbour, cosine" in shown(place, a="one:12")
    assert "did you mean" in shown(place, a="one:12", b="onne:3")
    text = shown(workspace, a="demo:3", b="river")
    assert "Features for river" in text
    assert "/compare?a=demo%3A3&b=demo%3A" in text


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
