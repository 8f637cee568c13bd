"""What pages ask of a workspace: right rows, small answers, plain words, and names that cannot leave the workspace."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_features import write_features

from dashboard.components.pages import page_of
from dashboard.data import features as features
from dashboard.heads import page as heads
from dashboard.maps import data as atlas
from dashboard.overview import _data as overview
from interp.artifacts import KINDS, Table, address_of, save_artefact
from interp.atlas.vector_map import VectorMap
from interp.circuits.head_scores import HeadScore, HeadScores
from interp.workspace import Workspace
from saes.features.schema import Features


def test_a_feature_knows_what_labels_artefacts_say_of_it(workspace):
    demo, neurons = workspace.open(Features, "demo"), workspace.open(Features, "neurons")
    (found,) = features.explanations(workspace, demo, 10)
    assert (found.label.label, found.made.name, found.made.judge) == ("names of rivers", "demo-judge", "judge")
    assert features.explanations(workspace, demo, 12) == []
    assert features.explanations(workspace, neurons, 10) == [], "they are labels of other features"


def test_labels_of_features_that_were_built_anew_are_not_shown(small):
    path = small.root / "features" / "demo" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "content_hash": "0" * 64}))
    assert features.explanations(small, small.open(Features, "demo"), 10) == []


def test_listing_is_capped_whatever_is_asked(workspace):
    found = features.listing(workspace, "demo", features.ListQuery(), 0, 10**6)
    assert len(found.rows) == features.MAX_ROWS
    assert found.total == 240


@settings(max_examples=25, deadline=None)
@given(
    start=st.integers(0, 260),
    size=st.integers(1, 60),
    sort=st.sampled_from(["feature", "label", "density", "max_activation"]),
    descending=st.booleans(),
)
def test_pages_of_the_list_are_slices_of_the_whole(workspace, start, size, sort, descending):
    query = features.ListQuery(sort=sort, descending=descending)
    whole = [row for at in (0, 200) for row in features.listing(workspace, "demo", query, at, at + 200).rows]
    part = features.listing(workspace, "demo", query, start, start + size)
    assert part.rows == whole[start : start + size]
    assert part.total == len(whole) == 240


def test_listing_filters_by_text_and_density(workspace):
    query = features.ListQuery(text="PROSE about", density_low=0.01, density_high=0.1)
    found = features.listing(workspace, "demo", query)
    assert 0 < found.total < 240
    assert all("prose about" in r["label"] and 0.01 <= r["density"] <= 0.1 for r in found.rows)


@pytest.mark.parametrize("text", ["'; drop table f; --", "%", "_", "\\", "<script>"])
def test_search_text_is_a_value_not_sql(workspace, text):
    found = features.listing(workspace, "demo", features.ListQuery(text=text))
    assert all(text in r["label"] for r in found.rows)


def test_random_feature_is_alive_and_repeatable(workspace):
    drawn = [features.random_live(workspace, "demo", seed=s) for s in range(40)]
    assert drawn == [features.random_live(workspace, "demo", seed=s) for s in range(40)]
    assert all(features.one(workspace, "demo", i).row.n_fired > 0 for i in set(drawn))
    assert len(set(drawn)) > 20


def test_the_page_of_maps_opens_on_the_truest_not_the_newest(tmp_path, workspace):
    made = workspace.open(VectorMap, "embeddings")
    mine = Workspace(tmp_path / "ws", create=True)
    for name, trust in (("poor", 0.58), ("true", 0.93), ("unmeasured", None), ("newest", 0.7)):
        quality = trust and replace(made.quality, trustworthiness=trust)
        save_artefact(replace(made, quality=quality), mine.path("atlas", name))
    assert atlas.choose(mine, None).name == "true"
    assert atlas.choose(mine, "poor").name == "poor"


def test_head_scores_of_a_new_kind_come_after_those_with_a_meaning(workspace):
    made = workspace.open(HeadScores, "smollm2-135m")
    sinks = [replace(row, kind="sink") for row in made.of_kind("induction")]
    scores = replace(made, scores=Table.of(HeadScore, [*sinks, *made.rows]), per_prompt=None)
    assert heads.kinds_of(scores) == [*heads.kinds_of(made), "sink"]


def test_overview_has_every_artefact_the_unfinished_and_the_broken(small):
    (small.root / "saes" / "demo" / "manifest.json").write_text("{")
    found = overview.overview(small)
    assert {kind: len(cards) for kind, cards in found.cards.items() if cards} == {
        "recording": 1, "features": 2, "atlas": 2, "heads": 1, "heads_in_text": 1, "model_comparison": 1,
        "latent_comparison": 1,
        "induction_circuit": 1, "edge_circuit": 1, "labels": 1, "word_geometry": 1, "grokking": 1, "certificate": 1,
    }  # fmt: skip
    assert [(b.kind, b.name) for b in found.broken] == [("sae", "demo")]
    assert [(p.kind, p.name) for p in found.partials] == [("sae", "wide")]
    assert found.models == ["smollm2-135m"]


def test_a_set_of_transcoders_is_one_row(tmp_path):
    workspace = Workspace(tmp_path, create=True)
    for layer in range(3):
        write_features(workspace, f"set-{layer}", [{"feature": 0}], [], dictionary=f"transcoders:set:{layer}")
    (card,) = overview.overview(workspace).cards["features"]
    assert card.name.startswith("set-")


def test_every_kind_has_a_class_a_name_and_an_address(place):
    assert len({each.load().title for each in KINDS.values()}) == len(KINDS)
    assert all(each.load().kind == kind for kind, each in KINDS.items())
    assert all(page_of(address_of(f"{each.folder}/a")).startswith("/") for each in KINDS.values())
    assert page_of(address_of("recordings/a b")) == "/artefact/recordings/a%20b"
    assert sorted(overview.overview(place).cards) == sorted(KINDS)
