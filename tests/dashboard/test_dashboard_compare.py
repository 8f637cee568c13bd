"""Two things beside each other: known cosines and matches come back, random ones do not beat their null."""

import json
import shutil

import numpy as np
import pytest
import torch
from fake_live import FakeLive
from make_recording import recording
from make_saes import saved
from page_text import text_of
from scipy.sparse import csr_matrix

from dashboard.app import create_app
from dashboard.compare import data, measure, page
from interp.changes.comparison import ModelComparison
from interp.errors import UnknownNameError, UsageError
from interp.geometry.space import SpaceComparison
from interp.models.loading import load_model
from interp.models.residual import norm_of
from interp.recording.store import Recording
from interp.workspace import Workspace
from saes.evaluation.config import SCORES
from saes.evaluation.matching import random_like, unit
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
    assert main(["compare", "saes", "one", "permuted", "--match", "--no-baselines", "--name", "stored", *at]) == 0
    close = ["--points", "128", "--batch", "32", "--hook-points", HOOK, "blocks.0.hook_resid_post"]
    assert main(["geometry", "compare", MODEL, *close, "--name", "layers", *at]) == 0
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


def pair(place: Workspace, a: str, b: str) -> measure.Measured:
    return measure.pair(place, data.thing(place, a), data.thing(place, b))


def by_name(found: list[data.Measure], start: str) -> data.Measure:
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
    assert found.finding == "They are the same."
    assert found.missing == []


def test_a_permuted_copy_is_matched_exactly_by_the_permutation(place, order, tmp_path):
    bare = Workspace(shutil.copytree(place.root, tmp_path / "workspace"))
    shutil.rmtree(bare.path("sae_comparison", "stored"))
    now, stored = (measure.saes(at, *(data.thing(at, name) for name in ("one", "permuted"))) for at in (bare, place))
    for found in (now, stored):
        assert sorted(found.first) == list(range(N))
        assert [order[second] for second in found.second] == found.first
        assert found.values == pytest.approx([1.0] * N, abs=1e-5)
        assert found.measures[0].value == 1
        assert found.measures[0].null is not None
        assert found.measures[0].null < 0.1
    back = measure.saes(place, data.thing(place, "permuted"), data.thing(place, "one"))
    assert [order[first] for first in back.first] == back.second
    assert back.pairs(2)[0]["cosine"] == pytest.approx(1, abs=1e-5)


def test_features_of_the_copy_point_and_fire_alike(place, order):
    found = pair(place, "one:20", f"permuted:{order.index(20)}")
    assert by_name(found.measures, "cosine of the dir").value == pytest.approx(1, abs=1e-6)
    assert by_name(found.measures, "correlation").value == pytest.approx(1, abs=1e-5)
    assert found.nearest[0] == (order.index(20), pytest.approx(1, abs=1e-6))


def test_a_random_dictionary_matches_no_better_than_the_null(place):
    found = measure.saes(place, data.thing(place, "one"), data.thing(place, "random"))
    share, mean = found.measures
    assert share.value == share.null == 0
    assert mean.value == pytest.approx(mean.null, abs=0.04)
    small = [by_name(pair(place, f"one:{i}", f"random:{i}").measures, "cosine of the dir").p for i in range(10, 40)]
    assert np.mean(np.array(small, float) <= 0.05) < 0.2
    assert found.cosines is not None
    assert sum(found.cosines.counts) == sum(found.cosines.other) == pytest.approx(1)


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


def test_a_neuron_beside_a_feature_is_one_of_its_model(workspace, tmp_path):
    workspace = Workspace(shutil.copytree(workspace.root, tmp_path / "workspace"))
    _, alone = data.two(workspace, "neurons:12", f"neurons:{MLP}:7")
    assert alone.model == "smollm2-135m"
    recording(workspace, "other", model="other", hook_points=(MLP,))
    assert data.thing(workspace, f"neurons:{MLP}:7").model == "other"
    assert data.two(workspace, f"neurons:{MLP}:7", "demo:3")[0].model == "smollm2-135m"
    assert data.two(workspace, "demo:3", f"neurons:{MLP}:7")[1].model == "smollm2-135m"


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
    a, b = data.thing(place, "one:1"), data.thing(place, "one:2")
    along_b, along_a = np.arange(4.0), np.arange(10.0, 14)
    assert measure.values_of_other_pairs(a, b, along_b, along_a).tolist() == [0, 3, 10, 13]
    other = data.thing(place, "random:2")
    assert measure.values_of_other_pairs(a, other, along_b, along_a).tolist() == [0, 1, 3, 10, 12, 13]


def test_other_weights_and_other_kinds_are_refused_with_the_reason(place):
    assert "other weights" in pair(place, "one:1", "foreign:1").missing[0]
    assert "other weights" in measure.compare(place, "one", "foreign")["missing"][0]
    for a, b, expected in (
        ("one:1", "one", UsageError),
        ("one:1", "one:64", UsageError),
        ("random:64", "one:1", UsageError),
        ("onee", "one", UnknownNameError),
        ("neurons:blocks.1.hook_resid_post:1", "one:1", UsageError),
    ):
        with pytest.raises(expected):
            measure.compare(place, a, b)


def test_scores_are_those_of_the_comparison_that_holds_both(place):
    found = data.scores(place, data.thing(place, "one"), data.thing(place, "permuted"))
    assert found["artefact"] == "stored"
    assert [row["dictionary"] for row in found["rows"]] == ["one", "permuted"]
    assert found["rows"][0]["FVU cut"] is not None
    assert set(found["rows"][0]) <= {"dictionary", *(score.title for score in SCORES)}
    without = data.scores(place, data.thing(place, "one"), data.thing(place, "random"))
    assert without["artefact"] == ""
    verb, options = data.run_of(place, data.thing(place, "one"), data.thing(place, "random")) or ("", {})
    assert verb == "compare saes"
    assert options["recording"] == "rec"


def test_layers_come_from_the_stored_comparison_in_either_order(place):
    found = place.open(SpaceComparison, "layers")
    row = next(row for row in found.cka.to_records() if row["first"] == HOOK and row["second"] != HOOK)
    for a, b in ((HOOK, "blocks.0.hook_resid_post"), (f"{MODEL}@blocks.0.hook_resid_post", HOOK)):
        found = measure.compare(place, a, b)
        assert found["measures"][0].value == pytest.approx(row["cka"])
        assert found["measures"][0].null == pytest.approx(row["shuffled"], abs=1e-6)
    assert measure.compare(place, HOOK, MLP)["missing"]


def test_shared_tokens_are_counted_against_other_features(workspace):
    a, b = data.thing(workspace, "demo:3"), data.thing(workspace, "demo:6")
    promoted = data.shared_tokens(workspace, a, b)[0]
    path = workspace.table_path("features", "demo", "features")
    lists = {
        row["feature"]: {t.strip().lower() for t in row["promoted_tokens"]} - {""}
        for row in workspace.query("select feature, promoted_tokens from f", f=path).to_pylist()
    }
    assert set(promoted.tokens) == lists[3] & lists[6]
    null = [len(lists[3] & each) for index, each in lists.items() if index not in (3, 6)]
    reach = sum(each >= len(promoted.tokens) for each in null)
    assert promoted.measure.p == pytest.approx((1 + reach) / (1 + len(null)))


def test_models_lead_to_what_compares_them(workspace):
    made = workspace.values(ModelComparison)[0]
    found = measure.compare(workspace, made.base, made.tuned)
    assert found["kind"] == "model"
    assert found["artefacts"][0].findings
    assert found["artefacts"][0].href.startswith("/changes?name=")


def shown(workspace: Workspace, **address: str) -> str:
    """Return the page with all of its parts, as text."""
    with create_app(workspace, live=FakeLive()).server.app_context():
        whole = [page.layout(page.current(), **address)]
        if address.get("a") and address.get("b"):
            state = {name: data.thing(workspace, address[name]).name for name in ("a", "b")}
            whole += [*page.show_stored(state, "dark"), page.show_measured(state, "dark")]
        return text_of(whole)


def test_the_page_shows_every_kind(place, workspace):
    text = shown(place, a="one:12", b="permuted:3")
    assert "cosine of the directions they write" in text
    assert "compare-cosines" in text
    assert "Strongest examples" in text
    text = shown(place, a="one", b="permuted")
    assert "100.0% of the latents have a partner" in text
    assert "/compare?a=one%3A" in text
    assert "From the comparison stored" in text
    assert "CKA" in shown(place, a=HOOK, b="blocks.0.hook_resid_post")
    assert f"geometry compare {MODEL}" in shown(place, a=HOOK, b=MLP)
    assert "model_comparison" not in shown(workspace, a="demo:3", b="demo:6")


def test_without_a_name_the_page_proposes_some_and_an_unknown_one_is_said(place):
    assert "Choose two things" in shown(place)
    assert "neighbour, cosine" in shown(place, a="one:12")
    assert "did you mean" in text_of(_page_of(place, a="one:12", b="onne"))


def _page_of(workspace: Workspace, **address: str):
    with create_app(workspace, live=FakeLive()).server.app_context():
        return page.layout(page.current(), **address)


def test_the_answer_for_scripts_is_json_with_its_nulls(place):
    client = create_app(place, live=FakeLive()).server.test_client()
    reply = client.get("/api/compare?a=one:12&b=permuted:3", headers={"Host": "127.0.0.1"})
    found = json.loads(reply.data)
    assert reply.status_code == 200
    assert {"name", "value", "null", "p", "of"} == found["measures"][0].keys()
    assert client.get("/api/compare?a=one&b=x", headers={"Host": "127.0.0.1"}).status_code == 404
    assert client.get("/api/compare?a=one&b=one:1", headers={"Host": "127.0.0.1"}).status_code == 400
