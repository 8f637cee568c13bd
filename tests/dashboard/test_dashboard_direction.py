"""A direction on the geometry page without a browser: the verdict and its numbers, what is missing, hostile texts."""

import json
from collections.abc import Iterator

import pytest
from make_direction import HOSTILE_NAME, TOKENS, direction
from make_geometry import LISTS, geometry
from page_text import text_of

from dashboard.app import create_app
from dashboard.components.pages import Context
from dashboard.figures.geometry import along_figure, in_planes_figure, probe_over_layers
from dashboard.figures.theme import DARK, LIGHT
from dashboard.geometry import page
from dashboard.overview.data import overview
from interp.geometry.direction import DirectionGeometry
from interp.geometry.separation import WordsAlong
from interp.workspace import Workspace

MODEL = "smollm2-135m"


@pytest.fixture
def own(tmp_path, live) -> Iterator[Workspace]:
    """Lists, two directions of their model and one of another, within their app."""
    workspace = Workspace(tmp_path / "ws", create=True)
    geometry(workspace)
    direction(workspace, model=MODEL)
    direction(workspace, "plain", plain=True, model=MODEL)
    direction(workspace, "foreign", model="another")
    with create_app(workspace, live=live).server.app_context():
        yield workspace


def told_of(workspace: Workspace, name: str) -> str:
    return text_of(page.layout(Context(workspace, None), name=name)) + text_of(
        page._show({"name": name, "list": None}, "dark")
    )


def along_of(workspace: Workspace, name: str = "pushed") -> WordsAlong:
    return workspace.open(DirectionGeometry, name).along


def test_the_verdict_names_the_list_that_is_set_apart_and_the_push(own):
    told = told_of(own, "pushed")
    assert "It separates weekdays from the other lists. Steering along it raises its tokens, more than" in told
    assert "standard deviations from the others" in told
    assert "too few words beyond" not in told, "lists that it was made of are not judged at all"
    for figure in ("along", "spectrum", "planes", "probe", "steering"):
        assert f"direction-{figure}" in told
    assert "random directions" in told


def test_what_was_not_measured_says_why(own):
    told = told_of(own, "plain")
    assert "Steering along it was not measured" in told
    assert "interventions were left out" in told
    assert "four words are too few" in told
    assert "is not in it" in told


def test_lists_and_directions_of_one_model_stand_beside_each_other(own):
    for name in ("pushed", "shapes"):
        told = text_of(page.layout(Context(own, None), name=name))
        assert all(f"name=word-geometry/shapes&list={each}" in told for each in ("weekdays", "digits"))
        assert "/geometry?name=directions/pushed" in told
        assert "/geometry?name=directions/plain" in told
        assert '"href": "/geometry?name=directions/foreign"' not in told, (
            "the menu has it, the list of this model has not"
        )
    alone = text_of(page.layout(Context(own, None), name="foreign"))
    assert "name=word-geometry/shapes&list" not in alone


def test_lists_and_a_direction_of_one_name_are_both_reached(own):
    direction(own, "shapes", model=MODEL)
    lists, single = "word-geometry/shapes", "directions/shapes"
    told = text_of(page.layout(Context(own, None), name=lists))
    for key, text in ((lists, "shapes · word geometry"), (single, "shapes · direction")):
        assert json.dumps({"value": f"/geometry?name={key}", "label": text}, ensure_ascii=False) in told
    assert "A circle" in told
    assert "It separates weekdays" in text_of(page.layout(Context(own, None), name=single))
    assert "geometry-plane" in text_of(page._show({"name": lists, "list": None}, "light"))
    assert "direction-along" in text_of(page._show({"name": single, "list": None}, "light"))


def test_hostile_names_and_tokens_are_text(own):
    told = told_of(own, "pushed")
    assert HOSTILE_NAME in told
    assert TOKENS[0][:20] in told
    figure = along_figure(along_of(own), LIGHT)
    assert "<script>" not in figure.to_json().replace("\\u003c", "<")


def test_words_that_it_was_made_of_are_rings_and_lists_set_apart_have_the_accent(own):
    figure = along_figure(along_of(own), DARK)
    assert list(figure.layout.yaxis.ticktext)[:2] == ["weekdays", "digits"]
    traces = [trace for trace in figure.data if trace.hovertext is not None]
    rings = [trace for trace in traces if trace.marker.symbol == "circle-open"]
    assert sum(len(trace.x) for trace in rings) == 8
    accented = [trace for trace in traces if trace.marker.color == DARK.accent]
    assert len(accented) == 1
    assert len(accented[0].x) == len(LISTS["weekdays"])


def test_probes_show_random_directions_too(own):
    probes = own.open(DirectionGeometry, "pushed").probes
    assert not isinstance(probes, str)
    assert "random directions" in {trace.name for trace in probe_over_layers(probes, "hook_embed", LIGHT).data}


def test_bars_that_exceed_random_directions_are_coloured(own):
    lists = along_of(own).lists
    bars = in_planes_figure(lists, LIGHT).data[0]
    assert [colour == LIGHT.accent for colour in bars.marker.color] == [
        each.plane_share > each.random_plane_high for each in lists
    ]


@pytest.mark.parametrize("text", ["{}", "[1]", '{"lists": 3}', "{"])
def test_a_damaged_file_is_named_where_its_numbers_are_missing_and_the_rest_stays(own, text):
    (own.path("direction", "pushed") / "along.json").write_text(text)
    told = told_of(own, "pushed")
    assert "along.json" in told
    assert "direction-along" not in told
    assert "direction-steering" in told
    assert "direction-probe" in told
    assert "cannot be read" in text_of(page.layout(Context(own, None), name="shapes")), "in the list of directions"


def test_a_missing_file_is_said_where_it_is_missing(own):
    (own.path("direction", "pushed") / "probes.json").unlink()
    told = told_of(own, "pushed")
    assert "probes.json is missing from the artefact" in told
    assert "direction-steering" in told


def test_the_overview_says_what_it_does_and_leads_to_it(own):
    card = next(card for card in overview(own).cards["direction"] if card.name == "pushed")
    assert "steers the output" in card.sentence
    assert ("separates", "weekdays") in card.facts
    assert card.href == "/geometry?name=directions/pushed"
