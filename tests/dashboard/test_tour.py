"""The tour names what this workspace has."""

from urllib.parse import parse_qs, urlsplit

from dashboard.data.tour import MAP, PROMPT, tour_steps
from interp.workspace import Workspace
from saes import search_features
from saes.features.schema import Features
from saes.features.telling import telling
from workbench.demo import DATA


def test_each_step_leads_to_something_that_is_there():
    search, feature, *others = tour_steps(Workspace(DATA), "shipped")
    word = parse_qs(urlsplit(search.address).query)["q"][0]
    name, number = feature.address.split("/")[2:]
    hits = search_features(Workspace(DATA), word, features=name, limit=3, examples=False).hits
    assert int(number) in [hit.feature for hit in hits]
    assert word in search.link
    assert others == [PROMPT, MAP]


def test_a_workspace_without_features_or_maps_has_the_prompt_alone(place: Workspace):
    assert tour_steps(place, "empty") == (PROMPT,)


def test_without_labels_beyond_the_null_the_tour_opens_the_pages(workspace: Workspace):
    assert not telling(workspace, workspace.default("features").name, None)
    assert [step.address.split("/")[1] for step in tour_steps(workspace, "none")] == [
        "search", "feature", "prompt", "atlas",
    ]  # fmt: skip


def test_telling_features_have_labels_of_their_own_beyond_the_null():
    shipped = Workspace(DATA)
    chosen = telling(shipped, "demo", None, 12)
    rows = {row.feature: row for row in shipped.open(Features, "demo").features.rows() if row.feature in dict(chosen)}
    assert len(chosen) == len({label.split(" (")[0] for _, label in chosen}) == 12
    assert all(row.label_score > row.label_null_high for row in rows.values())
    assert not {"noun", "verb", "adjective"} & {name for row in rows.values() for name in row.label_names}
