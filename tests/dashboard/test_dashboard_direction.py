"""A direction on the geometry page without a browser: the verdict and its numbers, what is missing, hostile texts."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from make_direction import HOSTILE_NAME, TOKENS, direction
from make_geometry import LISTS, geometry
from page_text import text_of
from visit import unguarded

from dashboard.app import create_app
from dashboard.components.evidence import percent
from dashboard.components.pages import page_of
from dashboard.directions import page
from dashboard.figures.geometry import along_figure, in_planes_figure, layers_and_strengths, probe_over_layers
from dashboard.figures.theme import DARK, LIGHT
from dashboard.sources import PageSources
from dashboard.turns import answered_in_lines
from interp.directions.study import DirectionGeometry
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
    return text_of(page.layout(PageSources(workspace, None), name=name)) + text_of(page.show_direction(name, "dark"))


def along_of(workspace: Workspace, name: str = "pushed") -> WordsAlong:
    return workspace.open(DirectionGeometry, name).along


def test_the_verdict_tells_the_choice_its_judgement_and_their_nulls(own):
    told = told_of(own, "pushed")
    assert "It separates weekdays from the other lists, further than random directions." in told
    assert " works: +1.90 [+1.20, +2.60] nats; 99 random directions at most" in told
    assert "strength 1 (25 long)" in told
    assert "+1.9 [+1.2, +2.6] nats, p 0.01" in told
    assert percent(0.125) in told, "the share that moved the wrong way"
    assert "3 features at most" in told, "placebos"
    assert "standard deviations from the others" in told
    assert "too few words besides" not in told, "lists that it was made of are not judged at all"
    for figure in ("along", "spectrum", "planes", "probe", "steering", "grid"):
        assert f"direction-{figure}" in told
    assert "untrained model" in told


def test_a_cell_that_costs_too_much_has_no_colour(own):
    choice = own.open(DirectionGeometry, "pushed").choice
    assert not isinstance(choice, str)
    [cells] = layers_and_strengths(choice, LIGHT).data
    assert np.isnan(cells.z[:, 2]).all()
    assert cells.z[1, 1] == 2.0


def test_what_was_not_measured_says_why(own):
    told = told_of(own, "plain")
    assert " was not measured" in told
    assert "interventions were left out" in told
    assert "four words are too few" in told
    assert "is not in it" in told


def test_the_lines_of_transformers_are_those_of_the_direction(own):
    told = told_of(own, "pushed")
    assert "register_forward_hook" in told
    assert "pushed.gguf" in told


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


@pytest.mark.parametrize("text", ["{}", "[1]", '{"lists": 3}', "{", None])
def test_a_damaged_file_is_named_where_its_numbers_are_missing_and_the_rest_stays(own, text):
    path = own.path("direction", "pushed") / "along.json"
    path.unlink() if text is None else path.write_text(text)
    told = told_of(own, "pushed")
    assert ("along.json" if text else "along.json is missing from the artefact") in told
    assert "direction-along" not in told
    assert "direction-steering" in told
    assert "direction-probe" in told


def test_a_direction_that_works_is_a_finding_beside_its_null(own):
    [found] = own.open(DirectionGeometry, "pushed").findings()
    assert found.value == 1.9
    assert found.null == own.open(DirectionGeometry, "pushed").choice.judged.random_effect.max()
    assert page_of(found.href) == "/directions/pushed"
    assert own.open(DirectionGeometry, "plain").findings() == []


@pytest.fixture
def chats(tmp_path, live) -> Iterator[Any]:
    """A visitor of a workspace with one direction."""
    workspace = Workspace(tmp_path / "ws", create=True)
    direction(workspace, model=MODEL)
    client = unguarded(workspace, live)
    with client.application.app_context():
        yield client


def test_every_chat_says_a_token_a_line_and_then_its_reply(chats, live):
    body = {"direction": "pushed", "message": "Hello", "strength": 1.5, "n_new": 3, "visitor": "v"}
    lines = [json.loads(line) for line in chats.post("/api/act/say", json=body).get_data().splitlines()]
    assert [len(line["said"]) for line in lines] == [3, 3, 3, 0]
    assert [*lines[-1]["replies"]] == ["unsteered", "steered", "random direction"]
    assert [token for token, _ in lines[-1]["replies"]["steered"]["tokens"]] == [line["said"][1] for line in lines[:-1]]
    assert ("say", "Hello 1.5") in live.calls
    empty = chats.post("/api/act/say", json=body | {"message": " "}).get_data()
    assert json.loads(empty) == {"error": "the message is empty; type one"}


def test_no_token_is_written_once_the_page_is_closed(chats):
    made, ended = [], []

    def steps() -> Iterator[int]:
        try:
            for number in range(100):
                made.append(number)
                yield number
        finally:
            ended.append(True)

    with chats.application.test_request_context():
        answer = answered_in_lines(steps(), "v")
        lines = iter(answer.response)
        assert [next(lines), next(lines)] == ["0\n", "1\n"]
        answer.close()
        del lines
    assert made == [0, 1]
    assert ended
