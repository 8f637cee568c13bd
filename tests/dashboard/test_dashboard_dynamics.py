"""The dynamics page without a browser: phases, curves, controls, frequencies, maps, and what is missing or damaged."""

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from dash import html
from make_dynamics import SPECS, grokking, induction
from make_series import series
from page_text import text_of

from dashboard.app import create_app
from dashboard.dynamics import _data as view
from dashboard.dynamics import _grokking as grok_page
from dashboard.dynamics import _induction as induction_page
from dashboard.dynamics import page
from dashboard.dynamics._data import MAX_TABLE_ROWS, curve_rows
from dashboard.figures.studies import frequency_shares, training_curves
from dashboard.figures.theme import DARK, LIGHT
from dashboard.sources import PageSources
from interp.artifacts import ARRAYS, save_artefact
from interp.errors import CorruptError, UnknownNameError, UsageError
from interp.studies.grokking_phases import Grokking, Phases
from interp.studies.induction_onset import InductionOnset
from interp.workspace import Workspace


@pytest.fixture
def own(tmp_path, live) -> Iterator[Workspace]:
    """A workspace of one's own, and its app."""
    workspace = Workspace(tmp_path / "ws", create=True)
    grokking(workspace)
    induction(workspace)
    with create_app(workspace, live=live).server.app_context():
        yield workspace


def all_of(workspace: Workspace, **address: str) -> str:
    """Everything that an address shows, its figures too."""
    layout = page.layout(PageSources(workspace, None), **address)
    state = next(each.data for each in layout.children if getattr(each, "id", "") == "dynamics-state")
    return text_of(layout) + text_of(page.show_run(state, "dark"))


def test_the_phases_of_every_seed_are_told(own):
    told = all_of(own, name="grok")
    assert "It grokked: memorised at epoch 100, generalised at epoch 400." in told
    assert "both happened" in told
    other = all_of(own, name="grok", seed="4")
    assert "memorised its training pairs, and never generalised" in other
    assert "no frequency dominates at the end" in other
    assert "Memorisation and generalisation leave no interval" in other


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        (Phases(None, 2.0, 3.0), "never memorised its training pairs"),
        (Phases(1.0, 2.0, None), "end of training"),
        (Phases(9.0, 2.0, 3.0), "without memorising"),
    ],
)
def test_what_did_not_grok_says_in_which_way(own, phases, words):
    found = own.open(Grokking, "grok")
    changed = replace(found, runs=(replace(found.runs[0], phases=phases), *found.runs[1:]))
    assert words in text_of(grok_page.summary_panel(changed, 0, []))


def test_a_circuit_that_did_not_form_as_expected_is_not_called_one(own, monkeypatch):
    monkeypatch.setattr(Grokking, "circuit_forms_unseen", lambda found, at: (-0.5, -2.1))
    assert "not both happened" in all_of(own, name="grok")


def test_a_toy_is_shown_with_its_control(own):
    told = all_of(own, name="induction")
    assert "It begins to copy suddenly at step 200" in told
    assert "its control on the same data does not (induction score at most" in told
    assert f"Control: {SPECS[1]} seed 0." in told
    assert f"second copy, {SPECS[1]}" in told
    other = all_of(own, name="induction", spec=SPECS[1], seed="0")
    assert "It does not begin to copy" in other
    assert "its control on the same data does at step 200" in other


def test_a_toy_without_a_control_says_so(own):
    induction(own, "alone", specs=SPECS[:1])
    assert "no control was trained on the same data" in all_of(own, name="alone")


def test_a_spec_is_text(own):
    hostile = "<img src=x onerror='window.pwned=1'>"
    induction(own, "hostile", specs=(SPECS[0], hostile))
    told = all_of(own, name="hostile")
    assert "dangerously" not in told.lower()
    figure = training_curves([1, 2], {hostile: np.ones(2)}, LIGHT, marks={"<b>": 1}, levels={"<i>": 1}).to_json()
    assert not any(tag in figure.replace("\\u003c", "<") for tag in ("<img", "<b>", "<i>"))


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ({"name": "grk"}, UnknownNameError, "did you mean 'grok'"),
        ({"name": "grok", "seed": "9"}, UnknownNameError, "seed 3"),
        ({"name": "grok", "seed": "x"}, UsageError, "whole number"),
        ({"name": "induction", "spec": "toy:induction-2"}, UnknownNameError, "toy:induction-2l"),
        ({"name": "../grok"}, Exception, "not a usable name"),
    ],
)
def test_a_wrong_address_says_what_was_expected(own, address, error, message):
    with pytest.raises(error, match=message):
        page.layout(PageSources(own, None), **address)


@pytest.mark.parametrize("folder", ["grokking/grok", "induction-onsets/induction"])
def test_a_study_without_runs_is_refused(own, folder):
    found = own.open_key(folder)
    save_artefact(replace(found, runs=()), found.folder, overwrite=True)
    with pytest.raises(CorruptError, match="the study has no run"):
        page.layout(PageSources(own, None), name=folder)


@pytest.mark.parametrize(
    ("folder", "change", "message"),
    [
        ("grokking/grok", {"runs": []}, r"grok/manifest\.json, summary: runs\.0\.seed should be a valid integer"),
        ("induction-onsets/induction", {}, r"induction/runs\.json"),
    ],
)
def test_values_of_another_form_are_refused(own, folder, change, message):
    path = own.folder(folder) / ("manifest.json" if change else "runs.json")
    raw = json.loads(path.read_text())
    (raw["summary"]["runs"] if change else raw["value"])[0]["seed"] = "none"
    path.write_text(json.dumps(raw))
    with pytest.raises(CorruptError, match=message):
        page.layout(PageSources(own, None), name=folder)


def test_missing_arrays_are_said_where_they_are_missing_and_the_rest_stays(own):
    (own.path("grokking", "grok") / ARRAYS).unlink()
    told = all_of(own, name="grok")
    assert told.count(f"{ARRAYS}: No such file") > 5
    assert "It grokked: memorised at epoch 100" in told
    assert "No atlas of the same name" in told


def test_curves_and_shares_are_those_of_the_seed(own):
    found = own.open(Grokking, "grok")
    first, second = (all_of(own, name="grok", seed=seed) for seed in ("3", "4"))
    middle = f"{found.curves['test_accuracy'][16, 0]:.3g}"
    assert middle in first
    assert middle not in second
    assert found.shares_of(0)["logits"].shape == (len(found.epochs), 6)
    assert found.shares_of(0)["logits"][-1].argmax() == 1


def test_runs_measured_at_different_steps_are_drawn_together(own):
    found = own.open(InductionOnset, "induction")
    mine, other = found.runs
    steps = np.union1d(mine.steps, other.steps)
    assert len(steps) == len(mine.steps) > len(other.steps)
    parts = html.Div(induction_page.panels(own, found, 0, LIGHT))._traverse()
    [figure] = [each.figure for each in parts if getattr(each, "id", "") == "dynamics-accuracy"]
    drawn, control = (np.array(trace.y) for trace in figure.data)
    assert np.isfinite(drawn).all()
    assert np.isnan(control).sum() == len(mine.steps) - len(other.steps)


def test_the_maps_of_checkpoints_are_shown_and_no_other_atlas_is_taken_for_them(small, live):
    with create_app(small, live=live).server.app_context():
        assert "No atlas of the same name" in all_of(small, name="grok")
        series(small, "grok")
        assert view.series(small, "grok") is None
        (small.root / "atlases" / "grok").rename(small.root / "atlases" / "other")
        series(small, "grok", source="checkpoint:modular-13-seed3-epoch600")
        told = all_of(small, name="grok")
        assert '"id": "dynamics-map"' in told
        assert "These maps show seed 3" in told
        assert '"href": "/atlas/grok"' in told
        (small.path("atlas", "grok") / "manifest.json").write_text("{}")
        assert "wb-notice-error" in all_of(small, name="grok")


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_curves_differ_by_more_than_colour_and_marks_are_lines(colours):
    curves = {name: np.linspace(1, 2, 5) for name in "abcde"}
    figure = training_curves(range(5), curves, colours, marks={"x": 1, "none": None, "y": 3}, levels={"chance": 1.5})
    dashes = [(trace.line.color, trace.line.dash) for trace in figure.data]
    assert len(set(dashes)) == 5
    assert len({dash for _, dash in dashes}) == 4
    assert {note.text for note in figure.layout.annotations} == {"x", "y", "chance"}
    log = training_curves(range(5), curves, colours, log=True, levels={"ten": 10.0})
    assert log.layout.annotations[0].y == pytest.approx(1)  # annotations are in powers there, shapes are not
    assert log.layout.shapes[0].y0 == 10


def test_nothing_to_draw_is_said():
    assert training_curves([1], {"a": np.array([np.nan])}, LIGHT).layout.annotations[0].text
    assert frequency_shares(np.full((2, 3), np.nan), [1, 2], LIGHT).layout.annotations[0].text


def test_key_frequencies_are_named_on_the_axis():
    figure = frequency_shares(np.eye(12)[:4], range(4), LIGHT, keys=[2, 9])
    assert list(figure.layout.yaxis.ticktext) == ["<b>2</b>", "5", "<b>9</b>"]


def test_a_table_of_curves_has_both_ends_and_a_limit():
    steps = np.arange(1000)
    rows = curve_rows(steps, {"a": np.where(steps == 0, np.nan, steps)}, "epoch")
    assert len(rows) == MAX_TABLE_ROWS
    assert (rows[0]["epoch"], rows[-1]["epoch"]) == (0, 999)
    assert rows[0]["a"] is None
