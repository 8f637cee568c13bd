"""The geometry page without a browser: what a list is said to be, what is missing and why, figures, damaged files."""

from collections.abc import Iterator

import plotly.graph_objects as go
import pytest
from make_geometry import HOSTILE_LIST, LISTS, NO_PROMPTS, PLACES, geometry
from page_text import text_of

from dashboard.app import create_app
from dashboard.components.pages import Context
from dashboard.figures.geometry import (
    order_over_layers,
    plane_figure,
    probe_over_layers,
    rotation_figure,
    spectrum_figure,
    steering_figure,
)
from dashboard.figures.theme import DARK, LIGHT
from dashboard.geometry import data as view
from dashboard.geometry import page
from dashboard.overview.data import overview
from interp.errors import CorruptError, UnknownNameError
from interp.workspace import Workspace


@pytest.fixture
def inside(workspace, live) -> Iterator[Workspace]:
    """Within the app of the synthetic workspace, as callbacks run."""
    with create_app(workspace, live=live).server.app_context():
        yield workspace


@pytest.fixture
def own(tmp_path, live) -> Iterator[Workspace]:
    """A workspace of one's own to damage, and its app."""
    workspace = Workspace(tmp_path / "ws", create=True)
    geometry(workspace)
    with create_app(workspace, live=live).server.app_context():
        yield workspace


def found_in(workspace: Workspace, name: str = "shapes") -> dict[str, view.WordList]:
    return view.lists(workspace, workspace.manifest("word_geometry", name))


def shown(name: str, word_list: str) -> str:
    return text_of(page._show({"name": name, "list": word_list}, "light"))


@pytest.mark.parametrize(
    ("word_list", "verdict", "joined"),
    [("weekdays", "circle", "closed"), ("digits", "line", "open"), ("compass points", "undecided", ""),
     (HOSTILE_LIST, "cluster", "")],
)  # fmt: skip
def test_the_planted_shapes_are_named_and_joined_only_where_there_is_an_order(
    workspace, live, word_list, verdict, joined
):
    one = view.find(found_in(workspace), word_list)
    assert (one.verdict, one.joined) == (verdict, joined)
    told = text_of(page.layout(Context(workspace, live), name="shapes", list=word_list))
    assert view.VERDICTS[verdict] in told


def test_an_order_that_may_close_is_joined_with_a_doubt():
    shape = {"verdict": "ordered", "order": {"cyclic": True}, "layer": 0, "hook_points": ["hook_embed"]}
    assert view.WordList("x", shape, "", "", "", {}).joined == "unsure"
    shape["order"] = {"cyclic": False}
    assert view.WordList("x", shape, "", "", "", {}).joined == "open"


def test_no_number_stands_without_its_null(inside):
    told = text_of(page.layout(Context(inside, None), list="weekdays")) + shown("shapes", "weekdays")
    for words in ("smallest possible", "words assigned to lists at random", "the best plane of isotropic points holds",
                  "isotropic points in as many dimensions", "random directions at most", "by chance 14.3%",
                  "Base rate", "control labels", "of simulated horseshoes"):  # fmt: skip
        assert words in told, words


def test_a_part_that_a_list_cannot_have_is_its_reason(inside):
    assert NO_PROMPTS.format("compass points") in shown("shapes", "compass points")
    assert NO_PROMPTS.format("weekdays") not in shown("shapes", "weekdays")


def test_one_list_alone_has_no_others_to_be_told_from(own):
    geometry(own, "alone", lists={"weekdays": LISTS["weekdays"]})
    told = text_of(page.layout(Context(own, None), name="alone")) + shown("alone", "weekdays")
    assert "there is no other list to separate it from" in told
    assert "a probe needs words of another list" in told
    assert "a direction needs words of another list" in told
    assert "geometry-rotation" in told
    assert "choice-next" not in told


def test_wrong_names_say_the_nearest_right_one(workspace, live):
    context = Context(workspace, live)
    with pytest.raises(UnknownNameError, match="did you mean 'weekdays'"):
        page.layout(context, list="weekday")
    with pytest.raises(UnknownNameError, match="did you mean 'shapes'"):
        page.layout(context, name="shape")


@pytest.mark.parametrize(("file", "lost", "kept"), [
    ("points.parquet", "geometry-plane", "geometry-order"),
    ("layers.parquet", "geometry-order", "geometry-plane"),
])  # fmt: skip
def test_a_missing_table_is_said_where_it_is_missing_and_the_rest_stays(own, file, lost, kept):
    (own.path("word_geometry", "shapes") / file).unlink()
    told = shown("shapes", "weekdays")
    assert f"{file} is missing from the artefact" in told
    assert lost not in told
    assert kept in told
    assert "geometry-steering" in told
    assert "On the other half (6 prompts) it moves the targets by +0.7 nats (+0.2 to +1.2)" in told


@pytest.mark.parametrize(
    "text", ["{}", "[1]", '{"weekdays": 3}', '{"weekdays": {"shape": {"verdict": "circle"}}}', "{"]
)
def test_a_damaged_file_is_one_line_that_names_it(own, text):
    (own.path("word_geometry", "shapes") / "geometry.json").write_text(text)
    with pytest.raises(CorruptError, match=r"geometry\.json"):
        page.layout(Context(own, None))


def test_a_lost_file_is_named_too(own):
    (own.path("word_geometry", "shapes") / "geometry.json").unlink()
    with pytest.raises(CorruptError, match="workbench verify"):
        page.layout(Context(own, None))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_words_are_text(inside, scheme):
    told = text_of(page.layout(Context(inside, None), list=HOSTILE_LIST))
    assert "<script>window.pwned=1</script>" in told
    assert "dangerously" not in told.lower()
    figure = plane_figure(view.points(inside, "shapes", HOSTILE_LIST), DARK if scheme == "dark" else LIGHT)
    drawn = figure.to_json()
    assert "&lt;script" in drawn.replace("\\u003c", "<") or "&lt;script" in drawn
    assert "<script>" not in drawn.replace("\\u003c", "<")
    assert "%{x}" not in drawn


def test_the_plane_shows_both_halves_in_the_order_of_the_list(workspace):
    rows = view.points(workspace, "shapes", "weekdays")
    figure = plane_figure(rows, LIGHT, joined="closed")
    traces = {trace.name: trace for trace in figure.data if trace.name}
    judge = traces["sentences that judge"]
    assert list(judge.text) == list(LISTS["weekdays"])
    assert len(traces["sentences that fit"].x) == 7
    assert traces["sentences that fit"].marker.symbol != judge.marker.symbol
    path = traces["in the order of the list"]
    assert (path.x[0], path.y[0]) == (path.x[-1], path.y[-1])
    assert "in the order of the list" not in {trace.name for trace in plane_figure(rows, LIGHT).data}
    assert [trace.name for trace in plane_figure(rows, LIGHT, joined="unsure").data].count("last to first") == 1


def test_layers_mark_the_chosen_one_and_name_places_shortly(workspace):
    rows = view.layers(workspace, "shapes", "weekdays")
    figure = order_over_layers(rows, LIGHT)
    assert list(figure.layout.xaxis.ticktext) == ["embed", "0", "1", "2", "3", "4"]
    assert [note.text for note in figure.layout.annotations] == ["chosen"]
    assert figure.layout.annotations[0].x == 3
    assert {trace.name for trace in probe_over_layers(rows, LIGHT).data} == {
        "95 % interval", "accuracy", "control labels", "base rate",
    }  # fmt: skip
    assert view.short_hook_point("blocks.3.attn.hook_z") == "blocks.3.attn.hook_z"


def test_the_spectrum_is_shares_that_reach_one(workspace):
    found = found_in(workspace)["digits"].shape["spectrum"]
    bars, sums, null = spectrum_figure(found, LIGHT).data
    assert sum(bars.y) == pytest.approx(1)
    assert sums.y[-1] == pytest.approx(1)
    assert list(null.y) == [0.5, 0.9, 0.99]


def test_sweeps_show_every_random_direction_and_bear_what_is_not_known(workspace):
    one = found_in(workspace)["weekdays"]
    figure = steering_figure(one.steering, LIGHT)
    assert sum(trace.name == "random directions" for trace in figure.data) == 4
    turned = rotation_figure(one.rotation, LIGHT)
    whiskers = next(trace for trace in turned.data if trace.name == "rotated").error_y
    assert whiskers.arrayminus[0] == 0
    assert whiskers.arrayminus[1] == pytest.approx(0.2)
    bare = {**one.rotation, "random": [], "low": None, "high": [None] * 6, "swapped": None, "followed": None}
    assert isinstance(rotation_figure(bare, DARK), go.Figure)


@pytest.mark.parametrize("draw", [
    lambda: plane_figure([], LIGHT), lambda: order_over_layers([], LIGHT), lambda: probe_over_layers([], LIGHT),
    lambda: spectrum_figure({"eigenvalues": [0.0, None]}, LIGHT), lambda: steering_figure({}, LIGHT),
    lambda: rotation_figure({"steps": []}, LIGHT),
])  # fmt: skip
def test_nothing_to_draw_is_said(draw):
    assert draw().layout.annotations[0].text


def test_the_overview_leads_to_the_page(workspace):
    card = overview(workspace).cards["word_geometry"][0]
    assert card.href == "/geometry?name=word-geometry/shapes"


def test_the_fixture_holds_what_the_writer_writes(tmp_path, workspace, live):
    """The format is the writer's: the same keys and columns, and a page of an artefact that it wrote itself."""
    import pyarrow.parquet as pq
    import torch

    from interp.geometry.report import measure_concepts, save_geometry
    from interp.geometry.words import own_concept
    from interp.models.small import SmallConfig, build_small

    model = build_small(SmallConfig(n_layers=2, d_model=16, n_heads=1), seed=0, device="cpu", dtype=torch.float32)
    lists = [own_concept("first", list("ABCDEFG"), cyclic=True), own_concept("second", list("uvwxy"), cyclic=False)]
    sentences = ("x {word}", "so {word}", "and {word}", "it is {word}")
    written = Workspace(tmp_path, create=True)
    found = measure_concepts(model, lists, sentences=sentences)
    save_geometry(
        found, written.path("word_geometry", "real"), model_name="small", weight_hash="0", sentences=sentences
    )
    real, made = found_in(written, "real")["first"], found_in(workspace)["weekdays"]
    assert keys(real.shape) == keys(made.shape)
    assert keys(real.probes) == keys(made.probes)
    assert keys(real.steering) == keys(made.steering)
    assert isinstance(real.rotation, str)
    assert set(real.found) == set(made.found)
    for table in ("points", "layers"):
        schemas = [pq.read_schema(w.table_path("word_geometry", name, table)).names
                   for w, name in ((written, "real"), (workspace, "shapes"))]  # fmt: skip
        assert schemas[0] == schemas[1]
    with create_app(written, live=live).server.app_context():
        told = text_of(page.layout(Context(written, live))) + shown("real", "second")
    assert "wb-notice-error" not in told
    assert "has no prompts that ask for the next item" in told


def keys(value) -> object:
    """The names within a value, of lists those of the first entry."""
    if isinstance(value, dict):
        return {key: keys(each) for key, each in value.items()}
    return [keys(value[0])] if isinstance(value, list) and value else None


def test_places_are_those_of_the_fixture():
    assert view.short_hook_point(PLACES[0]) == "embed"
    assert view.short_hook_point(PLACES[3]) == "2"
