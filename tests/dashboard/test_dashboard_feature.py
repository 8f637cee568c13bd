"""Relations on the feature page: each beside its null, absent ones explained, links to what holds the feature."""

import json
import shutil
from dataclasses import asdict, replace

import pytest
from page_text import text_of

from dashboard.data import features as view
from dashboard.feature.export import feature_html
from dashboard.feature.page import detail
from dashboard.feature.sections import effect_verdict, heading
from interp.artifacts import save_artefact, write_table
from interp.errors import UsageError
from interp.workspace import Workspace
from saes.explain.imported import read_labels
from saes.features.schema import Features


def test_a_feature_is_compared_with_random_directions(workspace):
    beyond, within = (text_of(detail(workspace, "demo", index, "light")) for index in (0, 1))
    assert "Stronger than 199 of 200 random directions." in beyond
    assert "Stronger than 80 of 200 random directions: not clear." in within
    assert "Effects on all logits" in within
    assert "no neuron is above 0.19" in within
    assert "40 tokens, 2.5 expected by chance" in within


def test_the_title_is_the_users_name_and_what_it_replaces_stands_after_it(workspace):
    row = replace(view.one(workspace, "demo", 0).row, label="says salt, pepper", label_kind="says",
                  other_labels=["noun (88 %)"])  # fmt: skip
    by_words, by_user = (text_of(heading(row, (), own)) for own in ("", "my <b>spices</b>"))
    assert by_words.index("says salt, pepper") < by_words.index("noun (88 %)")
    assert by_user.index("my <b>spices</b>") < by_user.index("says salt, pepper")
    assert "noun" not in by_user


def test_rows_that_are_kept_are_those_of_the_table_until_it_changes(own):
    paths = {table: own.table_path("features", "demo", table) for table in ("features", "examples", "relations")}
    described = own.open(Features, "demo")
    for index in (0, view.BLOCK - 1, view.BLOCK, 239):  # both sides of a border, and the last
        for table, found in (
            ("features", view.one(own, "demo", index)),
            ("relations", view.relations(described, index)),
        ):
            row = own.query("select * from t where feature = ?", index, t=paths[table]).to_pylist()[0]
            assert asdict(found.row) == row
        sql = "select * from t where feature = ? and rank < ? order by group_order, rank"
        rows = own.query(sql, index, view.MAX_EXAMPLES, t=paths["examples"]).to_pylist()
        assert [asdict(each) for each in view.examples(described, index)] == rows
    with pytest.raises(UsageError, match="0 to 239"):
        view.one(own, "demo", 240)
    assert view.labels(own, "demo", [3, 240, 5]) == {i: view.one(own, "demo", i).row.label for i in (3, 5)}
    assert len(view.labels(own, "demo", list(range(240)))) == 240, "a prompt has more features than a page of the list"
    write_table(paths["features"], own.query("select * replace ('other' as label) from t", t=paths["features"]))
    assert view.one(own, "demo", 0).row.label == "other"
    assert view.labels(own, "demo", [5]) == {5: "other"}


def test_a_feature_is_read_once_for_its_page(workspace, monkeypatch):
    opened: list[str] = []

    def counted(self: Workspace, form: type, name: str, open_it=Workspace.open):
        opened.append(f"{form.__name__} {name}")
        return open_it(self, form, name)

    monkeypatch.setattr(Workspace, "open", counted)
    detail(workspace, "demo", 12, "light")
    feature_html(workspace, "demo", 12)
    assert opened.count("Features demo") == 2, "once each"


def test_neurons_link_to_their_page_where_they_are_described(workspace):
    found = view.relations(workspace.open(Features, "demo"), 1)
    shown = text_of(detail(workspace, "demo", 1, "light"))
    assert f"/feature/neurons/{found.row.neurons[0]}" in shown


def test_tables_of_earlier_versions_say_how_relations_are_made(workspace):
    assert view.relations(workspace.open(Features, "neurons"), 1) is None
    assert "workbench features` with --name neurons --overwrite" in text_of(detail(workspace, "neurons", 1, "light"))


def test_a_feature_links_to_its_point_on_the_map(workspace):
    found = view.uses(workspace, workspace.open(Features, "demo"), 3)
    shown = text_of(detail(workspace, "demo", 3, "dark"))
    for atlas, point in found.maps:
        assert f"/atlas/{atlas}?point={point}" in shown
    assert found.maps


def test_no_verdict_without_a_null():
    assert effect_verdict(None, 200) == ""


def test_next_and_previous_follow_the_filter_and_the_order(workspace):
    query = view.ListQuery(density_low=1e-3, density_high=0.2, sort="density", descending=True)
    shown = [row["feature"] for row in view.listing(workspace, "demo", query, 0, 200).rows]
    assert view.step(workspace, "demo", query, shown[4], 1) == shown[5]
    assert view.step(workspace, "demo", query, shown[4], -1) == shown[3]
    assert view.step(workspace, "demo", query, shown[0], -1) == shown[0]  # the end of the list
    hidden = next(i for i in range(240) if i not in shown)
    assert view.step(workspace, "demo", query, hidden, 1) == shown[0]
    plain = view.ListQuery()
    assert [view.step(workspace, "demo", plain, at, by) for at, by in ((7, 1), (7, -1), (239, 1), (0, -1))] == [
        *(8, 6, 239, 0)
    ]


def test_an_imported_label_shows_its_source_and_score(own, tmp_path):
    path = tmp_path / "export.jsonl"
    scores = [{"value": 0.875, "explanationScoreTypeName": "eleuther_fuzz", "explanationScoreModelName": "judge"}]
    given = {"modelId": "m", "layer": "9-res", "index": "20", "description": "rivers <i>", "scores": scores}
    path.write_text(json.dumps(given | {"explanationModelName": "gpt-4o"}))
    save_artefact(read_labels(own.open(Features, "demo"), path), own.path("labels", "np"))
    shown = text_of(detail(own, "demo", 20, "light"))
    assert "rivers <i>" in shown
    assert "neuronpedia: gpt-4o" in shown
    assert '"eleuther_fuzz by judge "' in shown
    assert '"0.88"' in shown or '"0.87"' in shown
    assert "without a null" in shown
    assert "eleuther_fuzz by judge <strong>0.8" in feature_html(own, "demo", 20)


def test_a_label_by_rule_is_shown_with_its_score_and_the_others(own):
    shutil.rmtree(own.root / "labels")  # which a model wrote
    assert "label-score" not in text_of(detail(own, "demo", 1, "light")), "nothing was scored"
    path = own.table_path("features", "demo", "features")
    sql = """select * replace (if(feature = 1, 'calendar month (94 %)', 'no label; fires on " the"') as label,
                 if(feature = 1, 'word classes', label_source) as label_source,
                 if(feature = 1, .94::float, null) as label_score, .52::float as label_null,
                 .6::float as label_null_high, 31 as label_heldout,
                 if(feature = 1, ['before number (60 %)'], []) as other_labels,
                 if(feature = 1, ['context'], []) as other_sources, if(feature = 1, [.77::float], []) as other_scores)
             from t"""
    write_table(path, own.query(sql, t=path))
    shown = detail(own, "demo", 1, "light")
    said = shown.children[0].children[0].children[-1]
    assert said.children[1].children == "94%"
    assert "another feature's label: 52%" in said.children[2]
    title = said.title
    assert "balanced accuracy 0.94 on 31 held-out firings" in title
    assert "before number (60 %): 0.77, context" in title
    assert "also: before number (60 %): 0.77, context" in feature_html(own, "demo", 1)
    silent = text_of(detail(own, "demo", 2, "light"))
    assert "no label; fires on" in silent
    assert "no candidate scored above other features' labels on 31 held-out firings" in silent
