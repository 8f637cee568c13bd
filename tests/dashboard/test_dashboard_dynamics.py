"""The dynamics page without a browser: phases, curves, controls, frequencies, maps, and what is missing or damaged."""

from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq
import pytest
from make_dynamics import SPECS, grokking, induction
from make_series import series
from page_text import text_of

from dashboard.app import create_app
from dashboard.components.pages import Context
from dashboard.dynamics import data as view
from dashboard.dynamics import grokking as grok_page
from dashboard.dynamics import page
from dashboard.dynamics.data import MAX_TABLE_ROWS, curve_rows
from dashboard.figures.studies import frequency_shares, training_curves
from dashboard.figures.theme import DARK, LIGHT
from dashboard.overview.data import overview
from interp.artifacts import STUDIES, Draft
from interp.errors import CorruptError, UnknownNameError, UsageError
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
    layout = page.layout(Context(workspace, None), **address)
    state = next(each.data for each in layout.children if getattr(each, "id", "") == "dynamics-state")
    return text_of(layout) + text_of(page._show(state, "dark"))


def test_the_phases_of_every_seed_are_told(own):
    told = all_of(own, name="grok")
    assert "It grokked: memorised at epoch 100, generalised at epoch 400." in told
    assert "both happened" in told
    other = all_of(own, name="grok", seed="4")
    assert "memorised its training pairs, and never generalised" in other
    assert "no frequency dominates at the end" in other
    assert "There is no interval between" in other


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"memorised": None}, "never memorised its training pairs"),
        ({"memorised": 1.0, "generalising": 2.0, "generalised": None}, "end of training"),
        ({"memorised": 9.0, "generalising": 2.0, "generalised": 3.0}, "without memorising"),
    ],
)
def test_what_did_not_grok_says_in_which_way(found, words):
    assert words in grok_page._verdict({"grokked": False, **found})


def test_a_circuit_that_did_not_form_as_expected_is_not_called_one():
    assert "not both happened" in grok_page._unseen({"formed_unseen": [-0.5, -2.1]})


def test_a_toy_is_shown_with_its_control(own):
    told = all_of(own, name="induction")
    assert "It begins to copy suddenly at step 200" in told
    assert f"Its control on the same data, {SPECS[1]} seed 0, does not begin to copy." in told
    assert f"second copy, {SPECS[1]}" in told
    other = all_of(own, name="induction", spec=SPECS[1], seed="0")
    assert "It does not begin to copy" in other
    assert f"{SPECS[0]} seed 0, begins to copy at step 200." in other


def test_a_toy_without_a_control_says_so(own):
    induction(own, "alone", specs=SPECS[:1])
    assert "the effect of the data alone is unknown" in all_of(own, name="alone")


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
        page.layout(Context(own, None), **address)


@pytest.mark.parametrize("kind", STUDIES)
@pytest.mark.parametrize("summary", [{"runs": []}, {"runs": [{"seed": "none"}]}, {}])
def test_a_summary_without_runs_is_refused(own, kind, summary):
    Draft.open(own.path(kind, "odd"), kind=kind, config={}).finish(summary=summary, parents={})
    with pytest.raises(CorruptError, match="odd"):
        page.layout(Context(own, None), name="odd")


@pytest.mark.parametrize(("table", "lost", "kept"), [
    ("curves", "dynamics-outside", "dynamics-logits"), ("shares", "dynamics-logits", "dynamics-outside"),
])  # fmt: skip
def test_a_missing_table_is_said_where_it_is_missing_and_the_rest_stays(own, table, lost, kept):
    (own.path("grokking", "grok") / f"{table}.parquet").unlink()
    told = all_of(own, name="grok")
    assert f"{table}.parquet is missing from the artefact" in told
    assert f'"id": "{lost}"' not in told
    assert f'"id": "{kept}"' in told


def test_a_run_whose_rows_are_gone_is_said(own):
    with pytest.raises(CorruptError, match="no curve of seed 77"):
        view.curves(own, own.find("grok", *STUDIES), view.Run(77, "", {}))
    with pytest.raises(CorruptError, match="no frequencies of seed 77"):
        view.shares(own, "grok", 77)


def test_curves_and_shares_are_those_of_the_seed(own):
    run = view.find(view.runs(own.manifest("grokking", "grok")), 4)
    found = view.curves(own, own.find("grok", *STUDIES), run)
    raw = pq.read_table(own.path("grokking", "grok") / "curves.parquet").to_pandas()
    mine = raw[(raw.seed == 4) & (raw.curve == "test_loss")]
    assert found.steps.tolist() == mine.step.to_list()
    np.testing.assert_array_equal(found.get("test_loss"), mine.value)
    assert np.isnan(found.get("no such curve")).all()
    shares = view.shares(own, "grok", 3)
    assert shares.logits.shape == (len(found.steps), 6)
    assert shares.logits[-1].argmax() == 1


def test_runs_measured_at_different_steps_are_drawn_together(own):
    runs = view.runs(own.manifest("induction_onset", "induction"))
    mine, other = (view.curves(own, own.find("induction", *STUDIES), run) for run in runs)
    steps, first, second = view.aligned(mine, other)
    assert len(steps) == len(mine.steps) > len(other.steps)
    assert np.isfinite(first.get("accuracy")).all()
    assert np.isnan(second.get("accuracy")).sum() == len(mine.steps) - len(other.steps)


def test_the_maps_of_checkpoints_are_shown_and_no_other_atlas_is_taken_for_them(tmp_path, live):
    from make_workspace import build

    workspace = build(tmp_path / "ws", n_features=40, n_points=40)
    with create_app(workspace, live=live).server.app_context():
        assert "There is no atlas of the same name" in all_of(workspace, name="grok")
        series(workspace, "grok")
        assert view.series(workspace, "grok") is None
        (tmp_path / "ws" / "atlases" / "grok").rename(tmp_path / "ws" / "atlases" / "other")
        series(workspace, "grok", source="checkpoint:modular-13-seed3-epoch600")
        told = all_of(workspace, name="grok")
        assert '"id": "dynamics-map"' in told
        assert "These are maps of seed 3" in told
        assert '"href": "/atlas/grok"' in told
        (workspace.path("atlas", "grok") / "points.parquet").unlink()
        assert "points.parquet is missing" in all_of(workspace, name="grok")


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


def test_a_run_of_the_real_writer_is_shown(tmp_path, live):
    """The format is the writer's, and the fixture holds the same columns and keys."""
    from interp.studies.grokking import ModularConfig, describe_grokking, train_modular
    from interp.studies.save import save_grokking

    config = ModularConfig(p=13, d_model=16, n_heads=2, d_mlp=24, epochs=20, log_every=4, seeds=(3, 4))
    workspace = Workspace(tmp_path, create=True)
    real = save_grokking(describe_grokking(list(train_modular(config)), config), workspace.path("grokking", "real"))
    grokking(workspace, "made")
    made = workspace.manifest("grokking", "made")
    assert set(real.summary) == set(made.summary)
    assert set(real.summary["runs"][0]) == set(made.summary["runs"][0])
    for table in ("curves", "shares"):
        schemas = [pq.read_schema(workspace.table_path("grokking", name, table)) for name in ("real", "made")]
        assert schemas[0].equals(schemas[1])
    with create_app(workspace, live=live).server.app_context():
        told = all_of(workspace, name="real", seed="4")
    assert "wb-notice-error" not in told
    assert "It did not grok" in told


def test_sizes_are_shown_with_their_law_and_without_one(tmp_path, live):
    """As the real writer leaves them."""
    from interp.studies.language_scaling import LanguageRun, ScalingRecipe, fit_language_scaling
    from interp.studies.save import save_language_scaling

    workspace, rng = Workspace(tmp_path, create=True), np.random.default_rng(0)
    tokens = (200_000, 400_000, 800_000, 1_600_000)
    for name, slope, leap in (("law", 0.35, 1.0), ("flat", 0.0, 1.0), ("leap", 0.01, 0.6)):
        runs = [
            LanguageRun(
                n_params=24 * width**2, seed=seed, tokens=tokens, name=f"width {width}",
                losses=tuple(float((1.2 + 9 / (24 * width**2) ** slope + 60 / t**0.42) * np.exp(rng.normal(0, 0.004)))
                             * (leap if width * t > 5e7 else 1) for t in tokens),
            )
            for width in (8, 12, 24, 48, 64) for seed in (0, 1)
        ]  # fmt: skip
        found = fit_language_scaling(runs, n_bootstrap=4, n_permutations=999)
        save_language_scaling(found, ScalingRecipe(), "ab" * 32, workspace.path("language_scaling", name), seed=0)
    with create_app(workspace, live=live).server.app_context():
        told = all_of(workspace, name="law", seed="1")
        assert "The loss falls by a scaling law." in told
        assert "predicted from the smaller" in told
        assert told.index("width 8") < told.index("width 64")
        assert "seed 1" in told
        flat = all_of(workspace, name="flat")
        assert "No scaling law fits the losses." in flat
        assert "it could be chance that larger models have no lower loss" in flat
        assert "the fitted law does not predict the largest model" in all_of(workspace, name="leap")
        (workspace.path("language_scaling", "law") / "scaling.json").unlink()
        assert "scaling.json is missing" in all_of(workspace, name="law")
    cards = {card.name: card for card in overview(workspace).cards["language_scaling"]}
    assert "5 sizes on the same text: a law fits their loss" in cards["law"].sentence
    assert "no law fits their loss" in cards["flat"].sentence
    assert "does not predict the largest model" in cards["leap"].sentence
