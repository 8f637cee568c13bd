"""Relations on the feature page: each beside its null, absent ones explained, links to what holds the feature."""

from page_text import text_of

from dashboard.feature import data as view
from dashboard.feature.page import detail
from dashboard.feature.relations import effect_verdict


def test_a_feature_is_compared_with_random_directions(workspace):
    beyond, within = (text_of(detail(workspace, "demo", index, "light")) for index in (0, 1))
    assert "beyond most random directions (p 0.005 of 200)" in beyond
    assert "No more than a random direction: 60% of 200" in within
    assert "Effects on all logits" in within
    assert "stays below 0.19" in within
    assert "40 tokens, 2.5 if they fired independently" in within.replace("shares ", "")


def test_neurons_link_to_their_page_where_they_are_described(workspace):
    row = view.relations(workspace, "demo", 1)
    assert row is not None
    shown = text_of(detail(workspace, "demo", 1, "light"))
    assert f"/feature/neurons/{row['neurons'][0]}" in shown


def test_tables_of_earlier_versions_say_how_relations_are_made(workspace):
    assert view.relations(workspace, "neurons", 1) is None
    assert "workbench features` with --name neurons --overwrite" in text_of(detail(workspace, "neurons", 1, "light"))


def test_a_feature_links_to_its_point_on_the_map(workspace):
    found = view.uses(workspace, "demo", 3)
    shown = text_of(detail(workspace, "demo", 3, "dark"))
    for atlas, point in found.maps:
        assert f"/atlas/{atlas}?point={point}" in shown
    assert found.maps


def test_no_verdict_without_a_null():
    assert effect_verdict(None, "promote") == ""
