"""The geometry page without a browser: what a list is said to be, what is missing and why, figures, damaged files."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from make_geometry import HOSTILE_LIST, LISTS, NO_PROMPTS, geometry
from page_text import text_of

from dashboard.app import create_app
from dashboard.figures.geometry import (
    joined_by,
    order_over_layers,
    plane_figure,
    probe_over_layers,
    rotation_figure,
    short_hook_point,
    spectrum_figure,
    steering_figure,
)
from dashboard.figures.theme import DARK, LIGHT
from dashboard.geometry import page
from dashboard.geometry.page import VERDICTS
from dashboard.sources import PageSources
from interp.errors import CorruptError
from interp.geometry.sweeps import RotationSweep, StrengthSweep
from interp.geometry.word_geometry import ConceptGeometry, WordGeometry
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


def found_in(workspace: Workspace, name: str = "shapes") -> dict[str, ConceptGeometry]:
    return workspace.open(WordGeometry, name).lists


def shown(name: str, word_list: str) -> str:
    return text_of(page.show_geometry({"name": name, "list": word_list}, "light"))


@pytest.mark.parametrize(
    ("word_list", "verdict", "joined"),
    [("weekdays", "circle", "closed"), ("digits", "line", "open"), ("compass points", "undecided", ""),
     (HOSTILE_LIST, "cluster", "")],
)  # fmt: skip
def test_the_planted_shapes_are_named_and_joined_only_where_there_is_an_order(
    workspace, live, word_list, verdict, joined
):
    shape = found_in(workspace)[word_list].shape
    assert (shape.verdict, joined_by(shape)) == (verdict, joined)
    told = text_of(page.layout(PageSources(workspace, live), name="shapes", list=word_list))
    assert VERDICTS[verdict] in told


def test_an_order_that_may_close_is_joined_with_a_doubt(workspace):
    assert joined_by(replace(found_in(workspace)["weekdays"].shape, verdict="ordered")) == "unsure"
    assert joined_by(replace(found_in(workspace)["digits"].shape, verdict="ordered")) == "open"


def test_no_number_stands_without_its_null(inside):
    told = text_of(page.layout(PageSources(inside, None), list="weekdays")) + shown("shapes", "weekdays")
    for words in ("smallest possible", "null: words dealt to lists at random", "the best plane of isotropic points has",
                  "isotropic points in the same number of dimensions", "or the other sense at most", "by chance 14.3%",
                  "Base rate", "control labels", "of simulated arcs"):  # fmt: skip
        assert words in told, words


def test_a_part_that_a_list_cannot_have_is_its_reason(inside):
    assert NO_PROMPTS.format("compass points") in shown("shapes", "compass points")
    assert NO_PROMPTS.format("weekdays") not in shown("shapes", "weekdays")


def test_one_list_alone_has_no_others_to_be_told_from(own):
    geometry(own, "alone", lists={"weekdays": LISTS["weekdays"]})
    told = text_of(page.layout(PageSources(own, None), name="alone")) + shown("alone", "weekdays")
    assert "no other list to separate it from" in told
    assert "a probe needs words of another list" in told
    assert "a direction needs words of another list" in told
    assert "geometry-rotation" in told
    assert "choice-next" not in told


def test_the_panels_of_a_list_have_its_sweeps(inside):
    told = shown("shapes", "weekdays")
    for panel in ("plane", "spectrum", "order", "probe", "steering", "rotation"):
        assert f"geometry-{panel}" in told
    assert "moves its words by +0.7 nats on held-out prompts; random directions by at most" in told


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "should hold a JSON object"),
        ('{"weekdays": 3}', "weekdays"),
        ('{"weekdays": {"shape": {"verdict": "circle"}}}', r"weekdays\.shape\.\w+ is missing"),
        ("{", "not valid JSON"),
        (None, "workbench verify"),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(own, text, says):
    path = own.path("word_geometry", "shapes") / "lists.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(CorruptError, match=rf"lists\.json.*{says}"):
        page.layout(PageSources(own, None))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_words_are_text(inside, scheme):
    told = text_of(page.layout(PageSources(inside, None), list=HOSTILE_LIST))
    assert "<script>window.pwned=1</script>" in told
    assert "dangerously" not in told.lower()
    figure = plane_figure(found_in(inside)[HOSTILE_LIST].shape, DARK if scheme == "dark" else LIGHT)
    drawn = figure.to_json()
    assert "&lt;script" in drawn.replace("\\u003c", "<") or "&lt;script" in drawn
    assert "<script>" not in drawn.replace("\\u003c", "<")
    assert "%{x}" not in drawn


def test_the_plane_shows_both_halves_in_the_order_of_the_list(workspace):
    shape = found_in(workspace)["weekdays"].shape
    figure = plane_figure(shape, LIGHT)
    traces = {trace.name: trace for trace in figure.data if trace.name}
    judge = traces["sentences that judge"]
    assert list(judge.text) == list(LISTS["weekdays"])
    assert len(traces["sentences that fit"].x) == 7
    assert traces["sentences that fit"].marker.symbol != judge.marker.symbol
    path = traces["in the order of the list"]
    assert (path.x[0], path.y[0]) == (path.x[-1], path.y[-1])
    without = plane_figure(replace(shape, verdict="nothing"), LIGHT)
    assert "in the order of the list" not in {trace.name for trace in without.data}
    unsure = plane_figure(replace(shape, verdict="ordered"), LIGHT)
    assert [trace.name for trace in unsure.data].count("last to first") == 1


def test_layers_mark_the_chosen_one_and_name_places_shortly(workspace):
    found = found_in(workspace)["weekdays"]
    figure = order_over_layers(found.shape, LIGHT)
    assert list(figure.layout.xaxis.ticktext) == ["embed", "0", "1", "2", "3", "4"]
    assert [note.text for note in figure.layout.annotations] == ["chosen"]
    assert figure.layout.annotations[0].x == 3
    assert not isinstance(found.probes, str)
    assert {trace.name for trace in probe_over_layers(found.probes, found.shape.hook_point, LIGHT).data} == {
        "95 % interval", "accuracy", "control labels", "base rate",
    }  # fmt: skip
    assert short_hook_point("blocks.3.attn.hook_z") == "blocks.3.attn.hook_z"


def test_the_spectrum_is_shares_that_reach_one(workspace):
    found = found_in(workspace)["digits"].shape.spectrum
    bars, sums, null = spectrum_figure(found, LIGHT).data
    assert sum(bars.y) == pytest.approx(1)
    assert sums.y[-1] == pytest.approx(1)
    assert list(null.y) == [0.5, 0.9, 0.99]


def test_sweeps_show_every_random_direction_and_bear_what_is_not_known(workspace):
    one = found_in(workspace)["weekdays"]
    assert isinstance(one.steering, StrengthSweep)
    assert isinstance(one.rotation, RotationSweep)
    figure = steering_figure(one.steering, LIGHT)
    assert sum(trace.name == "random directions" for trace in figure.data) == 4
    assert np.isnan(one.rotation.moved.low[0]), "an end without bound is not a number"
    turned = rotation_figure(one.rotation, LIGHT)
    whiskers = next(trace for trace in turned.data if trace.name == "rotated").error_y
    assert whiskers.arrayminus[0] == 0
    assert whiskers.arrayminus[1] == pytest.approx(0.2)


def test_what_a_model_gave_is_shown(tmp_path, live):
    import torch

    from interp.artifacts import save_artefact
    from interp.geometry.report import measure_concepts
    from interp.geometry.words import own_concept
    from interp.models.small import SmallConfig, build_small

    model = build_small(SmallConfig(n_layers=2, d_model=16, n_heads=1), seed=0, device="cpu", dtype=torch.float32)
    lists = [own_concept("first", list("ABCDEFG"), cyclic=True), own_concept("second", list("uvwxy"), cyclic=False)]
    sentences = ("x {word}", "so {word}", "and {word}", "it is {word}")
    written = Workspace(tmp_path, create=True)
    found = measure_concepts(model, lists, sentences=sentences)
    save_artefact(found, written.path("word_geometry", "real"))
    with create_app(written, live=live).server.app_context():
        told = text_of(page.layout(PageSources(written, live))) + shown("real", "second")
    assert "wb-notice-error" not in told
    assert "has no prompts that ask for the next item" in told
