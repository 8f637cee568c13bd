"""The tour names what this workspace has."""

from urllib.parse import parse_qs, urlsplit

from dashboard.data.tour import tour_steps
from interp.workspace import Workspace
from saes import search_features
from saes.features.telling import telling
from workbench.demo import DATA


def test_the_word_and_the_feature_of_the_tour_lead_to_each_other():
    search, feature, *others = tour_steps(Workspace(DATA), "shipped")
    word = parse_qs(urlsplit(search[-1]).query)["q"][0]
    name, number = feature[-1].split("/")[2:]
    hits = search_features(Workspace(DATA), word, features=name, limit=3, examples=False).hits
    assert int(number) in [hit.feature for hit in hits]
    assert [step[-1] for step in others] == ["/prompt", "/atlas"]


def test_the_tour_of_a_workspace_without_features_labels_or_maps(place: Workspace, workspace: Workspace):
    assert [step[-1] for step in tour_steps(place, "empty")] == ["/prompt"]
    assert not telling(workspace, workspace.default("features").name, None)
    assert [step[-1] for step in tour_steps(workspace, "none")] == ["/search", "/feature", "/prompt", "/atlas"]


def test_telling_features_have_labels_of_their_own_beyond_the_null():
    shipped = Workspace(DATA)
    chosen = telling(shipped, "demo", None, 12)
    sql = "select count(*) as n from f where label_score > label_null_high and list_contains(?::int[], feature)"
    path = shipped.table_path("features", "demo", "features")
    assert shipped.query(sql, [feature for feature, _ in chosen], f=path)["n"][0].as_py() == 12
    assert len({label.split(" (")[0] for _, label in chosen} - {"noun", "verb", "adjective"}) == 12
