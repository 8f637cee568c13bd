"""The SAE page without a browser: what a log says while it is written, states of runs, scores, figures, addresses."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from dash import dcc
from hypothesis import given, settings
from hypothesis import strategies as st
from make_saes import (
    HOOK_POINT,
    RECORDING,
    concept,
    described,
    dictionaries,
    evaluated,
    evaluation,
    finished,
    health_lines,
    imported,
    make_silent,
    unfinished,
    write_log,
)
from page_text import text_of

from dashboard.app import create_app
from dashboard.figures.saes import PANELS, HealthRun, drift, health_figure
from dashboard.figures.scaling import (
    SAME_L0,
    DictionaryPoint,
    density_histogram,
    frontier,
    pareto_plane,
    scaling_curves,
)
from dashboard.figures.theme import DARK, LIGHT
from dashboard.overview._data import card
from dashboard.sae import data as view
from dashboard.sae import page as sae
from dashboard.sae.data import MAX_LINES, first_not_finite, read_log
from dashboard.sources import PageSources
from interp.artifacts import STATUS, partial_path, save_artefact
from interp.statistics import Interval
from interp.workspace import Workspace
from saes.evaluation.evaluation import ConceptScores


@pytest.fixture(scope="module")
def saes(tmp_path_factory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("saes") / "workspace", create=True)
    dictionaries(workspace)
    return workspace


@pytest.fixture
def inside(saes, live) -> Iterator[Workspace]:
    """Within the app of that workspace, as callbacks run."""
    with create_app(saes, live=live).server.app_context():
        yield saes


def entry(workspace: Workspace, name: str, **options) -> view.Entry:
    return view.choose(workspace, name, view.entries(workspace, **options))


# The log


def test_half_a_line_at_the_end_is_being_written_and_a_broken_one_before_is_counted(tmp_path):
    write_log(tmp_path, health_lines(512, 16, tokens=200_000))
    path = tmp_path / "log.jsonl"
    whole = read_log(path)
    path.write_text(path.read_text() + '{"step": 50, "tok')
    assert read_log(path) == whole
    path.write_text(path.read_text() + "\n[1, 2]\n\x00\n" + json.dumps({"step": 60, "tokens": 60 * 4096}) + "\n")
    assert read_log(path).unreadable == 3
    assert read_log(path).rows[-1]["step"] == 60


@pytest.mark.parametrize("text", ["", "\n", "{", "null\n", '{"step": "x", "tokens": 1}\n'])
def test_a_log_with_nothing_in_it_is_an_empty_one(tmp_path, text):
    (tmp_path / "log.jsonl").write_text(text)
    assert read_log(tmp_path / "log.jsonl").rows == []
    assert read_log(tmp_path / "absent.jsonl").rows == []


def test_a_log_of_any_length_is_read_as_a_few_lines_from_first_to_last(tmp_path):
    line = health_lines(512, 16, tokens=50_000)[0]
    path = tmp_path / "log.jsonl"
    with open(path, "w") as log:
        log.writelines(json.dumps({**line, "step": s, "tokens": 4096 * s}) + "\n" for s in range(1, 12_001))
    found = read_log(path)
    steps = np.array([row["step"] for row in found.rows])
    assert found.unreadable == 0
    assert (steps[0], steps[-1]) == (1, 12_000)
    assert MAX_LINES * 0.9 < len(steps) <= MAX_LINES
    assert np.diff(steps).max() < 3 * 12_000 / MAX_LINES


def test_a_long_log_that_is_broken_in_the_middle_is_still_read(tmp_path):
    lines = [json.dumps({"step": s, "tokens": s, "note": "x" * 200}) for s in range(1, 4001)]
    lines[2000:2400] = ["\x00" * 200] * 400
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    found = read_log(tmp_path / "log.jsonl")
    assert 20 < found.unreadable < 60
    assert found.rows[-1]["step"] == 4000


@settings(max_examples=40, deadline=None)
@given(slope=st.floats(-0.5, 0.5), n=st.integers(30, 200))
def test_drift_is_the_change_over_the_last_fifth(slope, n):
    share = np.arange(1, n + 1) / n
    rows = [{"step": i, "tokens": 1e6 * s, "threshold": 1 + slope * s} for i, s in enumerate(share)]
    late = share[share >= 0.8 - 1e-12]
    expected = slope * (late[-1] - late[0]) / (1 + slope * late.mean())
    assert drift(rows) == pytest.approx(expected, abs=1e-9 + 0.02 * abs(expected))


def test_no_threshold_has_no_drift():
    assert drift(health_lines(512, 16, tokens=500_000, threshold=False)) is None
    assert drift([]) is None


def test_the_step_at_which_the_loss_was_lost_is_told(tmp_path):
    rows = health_lines(512, 16, tokens=200_000)
    assert first_not_finite(rows) is None
    rows[2]["loss"] = float("nan")
    write_log(tmp_path, rows)  # as Python's json writes it: NaN
    lost = first_not_finite(read_log(tmp_path / "log.jsonl").rows)
    assert lost["step"] == rows[2]["step"]


# States


def test_states_follow_the_last_sign_of_life(tmp_path):
    workspace = Workspace(tmp_path)
    folder = unfinished(workspace, "run", 512, 16, tokens=500_000)
    make_silent(folder, seconds=0)
    now = time.time()
    assert entry(workspace, "run", now=now + 60).state == "training"
    late = entry(workspace, "run", now=now + 7200)
    assert late.state == "silent"
    assert late.quiet == pytest.approx(7200, abs=3)
    assert "No log line for 2 hours" in text_of(sae.live_notice(late))


def test_runs_of_one_process_take_turns_so_their_time_adds_up(tmp_path):
    workspace = Workspace(tmp_path)
    unfinished(workspace, "one", 512, 16, tokens=400_000)
    alone = entry(workspace, "one").seconds_left
    assert alone == pytest.approx((999_424 - 368_640) / 14_200)
    unfinished(workspace, "two", 1024, 16, tokens=400_000)
    assert entry(workspace, "one").seconds_left == pytest.approx(2 * alone)


def test_a_run_that_has_seen_every_token_is_being_written(tmp_path):
    workspace = Workspace(tmp_path)
    draft_folder = unfinished(workspace, "run", 512, 16, tokens=999_424)
    status = json.loads((draft_folder / STATUS).read_text())
    status["progress"]["tokens"] = status["progress"]["total_tokens"]
    (draft_folder / STATUS).write_text(json.dumps(status))
    assert entry(workspace, "run").state == "finishing"


def test_odd_folders_are_passed_over_or_told(tmp_path, live):
    workspace = Workspace(tmp_path)
    finished(workspace, "whole", 512, 16)
    (tmp_path / "saes" / "empty").mkdir()
    (tmp_path / "saes" / "hollow.partial").mkdir()
    shutil.copytree(tmp_path / "saes" / "whole", tmp_path / "saes" / "cut")
    (tmp_path / "saes" / "cut" / "manifest.json").write_text('{"kind": ')
    torn = partial_path(workspace.path("sae", "torn"))
    torn.mkdir()
    (torn / STATUS).write_text('{"state": "run')
    states = {each.name: each.state for each in view.entries(workspace)}
    assert states == {"whole": "finished", "cut": "broken", "torn": "broken"}
    assert "not valid JSON" in text_of(sae.layout(PageSources(workspace, live), name="torn"))


def test_a_run_that_will_replace_a_dictionary_says_so(tmp_path):
    workspace = Workspace(tmp_path)
    finished(workspace, "again", 512, 16)
    aside = tmp_path / "aside"
    shutil.move(workspace.path("sae", "again"), aside)
    unfinished(workspace, "again", 512, 16, tokens=100_000)
    shutil.move(aside, workspace.path("sae", "again"))
    (found,) = view.entries(workspace)
    assert found.replaces
    assert "will replace" in text_of(sae.live_notice(found))


def test_a_sweep_is_what_read_the_same_batches(saes):
    names = [each.name for each in view.sweep(saes, entry(saes, "sweep-d512-k16"), view.entries(saes))]
    assert names[0] == "sweep-d512-k16"
    assert len(names) == view.MAX_OVERLAID
    assert not {"relu", "big", "peer"} & set(names)  # other tokens, another seed, another tool
    assert [e.name for e in view.sweep(saes, entry(saes, "peer"), view.entries(saes))] == ["peer"]


def test_a_run_that_goes_on_is_shown_first_else_the_newest(saes):
    assert view.choose(saes, None, view.entries(saes)).name == "going"


# Scores


def test_the_plane_holds_this_hook_point_and_its_baselines(saes):
    points = view.points(saes, entry(saes, "big"), view.entries(saes))
    assert {p.name for p in points if p.baseline} == {"pca", "untrained"}
    assert len([p for p in points if not p.baseline]) == 10  # the imported one has no scores yet
    assert {p.recording for p in points} == {RECORDING}


def test_an_imported_dictionary_takes_its_scores_from_an_evaluation(tmp_path):
    workspace = Workspace(tmp_path)
    imported(workspace, "peer")
    evaluated(workspace, "peer")
    (point,) = view.points(workspace, entry(workspace, "peer"), view.entries(workspace))
    assert (point.l0, point.fvu) == (33.0, 0.14)
    inside = view.in_the_model(workspace, "peer")
    assert (inside[0].ce_recovered, inside[1]) == (0.991, "peer")
    fewer = replace(inside[0], n_tokens=inside[0].n_tokens // 2)
    newer = replace(evaluation("peer"), in_model=fewer)
    save_artefact(newer, workspace.path("evaluation", "newer"), parents={}, seed=0)
    assert [each.name for each in view.evaluations(workspace, "peer")] == ["newer", "peer"]
    assert view.in_the_model(workspace, "peer") == inside, "more tokens count before the newest"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(1, 100), st.floats(0.01, 1)), min_size=1, max_size=12))
def test_every_dictionary_has_one_on_the_frontier_that_is_as_good_with_as_few_features(pairs):
    points = [DictionaryPoint(str(i), "topk", l0, fvu) for i, (l0, fvu) in enumerate(pairs)]
    best = frontier(points)
    for point in points:
        assert any(p.l0 <= point.l0 * (1 + SAME_L0) ** len(best) and p.fvu <= point.fvu for p in best)
    for one in best:
        assert not any(p.l0 < one.l0 and p.fvu <= one.fvu for p in points)
    assert all(a.l0 * (1 + SAME_L0) < b.l0 and a.fvu > b.fvu for a, b in pairwise(best))
    assert [p.l0 for p in best] == sorted(p.l0 for p in best)


def test_every_feature_is_in_one_bin_or_dead(tmp_path):
    workspace = Workspace(tmp_path)
    described(workspace, "some", 900)
    found = view.densities(workspace, "some")
    assert sum(found.counts) + found.dead == 900
    assert found.dead == 17
    assert np.allclose(np.diff(found.edges), 1 / view.BINS_PER_DECADE)
    density = 10 ** np.random.default_rng(0).normal(-3, 0.7, 900).clip(-6, -0.3)
    density[:17] = 0
    expected, _ = np.histogram(np.log10(density[17:]), bins=np.array(found.edges))
    assert np.abs(expected - found.counts).sum() <= 2  # values on an edge


def test_a_scaling_fit_belongs_to_its_runs(saes):
    found = view.scaling(saes, "sweep-d512-k16")
    assert found.name == "scaling"
    assert view.scaling(saes, "big") is None


# Figures


def test_the_health_figure_has_every_run_in_every_panel_and_the_chosen_on_top():
    runs = [HealthRun(name, health_lines(n, 16, tokens=900_000)) for name, n in (("a", 512), ("b", 1024))]
    figure = health_figure(runs, LIGHT)
    assert len(figure.data) == 2 * len(PANELS)
    assert [trace.name for trace in figure.data] == ["b"] * 6 + ["a"] * 6
    assert sum(bool(trace.showlegend) for trace in figure.data) == 2
    assert {trace.legendgroup for trace in figure.data} == {"a", "b"}
    assert list(figure.data[6].x) == [row["tokens"] for row in runs[0].rows]
    said = [(a.hovertext or "").replace("<br>", " ") for a in figure.layout.annotations]
    assert all(panel.means in said for panel in PANELS)


def test_a_gap_is_drawn_where_there_is_no_number():
    rows = health_lines(512, 16, tokens=400_000)
    rows[3] |= {"loss": float("nan"), "fvu": None, "dead": "much", "threshold": None}
    figure = health_figure([HealthRun("a", rows)], DARK)
    for place, panel in enumerate(PANELS):
        if panel.column in ("loss", "fvu", "dead", "threshold"):
            assert figure.data[place].y[3] is None, panel.column


def test_panels_without_numbers_say_so_and_one_line_is_enough():
    kinds = health_figure([HealthRun("relu", health_lines(512, 16, tokens=900_000, threshold=False))], LIGHT)
    assert "this kind has none" in [a.text for a in kinds.layout.annotations]
    one = health_figure([HealthRun("new", health_lines(512, 16, tokens=45_000)[:1])], LIGHT)
    assert all(len(trace.x) == 1 and "markers" in trace.mode for trace in one.data)
    assert "no line of the training log" in health_figure([HealthRun("none", [])], LIGHT).layout.annotations[0].text


def test_the_drift_stands_in_the_title_of_the_threshold():
    rows = health_lines(512, 16, tokens=900_000)
    figure = health_figure([HealthRun("a", rows)], LIGHT)
    moved = drift(rows)
    assert moved is not None
    assert f"threshold · drift {moved:+.1%}" in [a.text for a in figure.layout.annotations]
    assert figure.layout.shapes[0].x1 == rows[-1]["tokens"]


def test_marks_tell_baselines_and_other_documents_apart():
    points = [
        DictionaryPoint("a", "topk", 16, 0.2, 512, 16, "demo"),
        DictionaryPoint("b", "topk", 32, 0.1, 512, 32, "other"),
        DictionaryPoint("pca", "baseline", 16, 0.4, recording="demo", baseline=True),
    ]
    figure = pareto_plane(points, "a", LIGHT)
    symbols = {trace.name: trace.marker.symbol for trace in figure.data if trace.name}
    assert symbols == {"topk": ("circle", "circle-open"), "baseline": ("x-thin",)}
    assert "no dictionary" in pareto_plane([], "a", LIGHT).layout.annotations[0].text


def test_the_scaling_figure_shows_runs_law_and_prediction(saes):
    found = view.scaling(saes, "sweep-d512-k16")
    figure = scaling_curves(found, LIGHT, chosen="sweep-d512-k16")
    shown_runs = [trace for trace in figure.data if trace.name]
    assert [trace.name for trace in shown_runs] == ["k 16", "k 32"]
    assert sum(len(trace.x) for trace in shown_runs) == len(found.runs)
    crosses = [trace for trace in figure.data if trace.marker.symbol == "x-thin"]
    assert [list(trace.x) for trace in crosses] == [[4096], [4096]]
    assert "no runs" in scaling_curves(replace(found, runs=()), LIGHT).layout.annotations[0].text


def test_density_figure_counts_what_it_draws(saes):
    found = view.densities(saes, "big")
    figure = density_histogram(found, LIGHT)
    assert sum(figure.data[0].y) == sum(found.counts)


# Pages


@pytest.mark.parametrize("name", ["going", "old", "big", "peer", "relu", "sweep-d1024-k16", None])
def test_every_dictionary_has_a_page(inside, live, name):
    page = text_of(sae.layout(PageSources(inside, live), name=name, unknown="<script>"))
    chosen = name or "going"
    assert f"/sae?name={chosen}" in page
    card, below = sae.show_dictionary({"name": chosen}, "", "dark")
    figure, _ = sae.show_training({"name": chosen}, True, [], "light")
    assert chosen in text_of(card)
    assert len(figure.data) == (
        0 if name == "peer" else 6 * len(view.sweep(inside, entry(inside, chosen), view.entries(inside)))
    )
    assert ("sae-scaling" in text_of(below)) == (name == "sweep-d1024-k16")


def test_the_card_says_what_was_measured_and_where_it_came_from(inside):
    big = text_of(sae.show_dictionary({"name": "big"}, "", "light")[0])
    assert all(word in big for word in ("0.991", "0.985", "4,608", HOOK_POINT, "/feature/big", "244 steps"))
    peer = text_of(sae.show_dictionary({"name": "peer"}, "", "light")[0])
    assert all(word in peer for word in ("sparsify", "checkpoints/layers.9", "4.0e-07", "Imported"))


def test_concepts_stand_beside_baselines_and_lead_to_their_features(tmp_path, live):
    workspace = Workspace(tmp_path / "workspace", create=True)
    finished(workspace, "big", 4608, 32)
    evaluated(workspace, "older")  # of another dictionary, and without concepts
    with create_app(workspace, live=live).server.app_context():
        assert "Everyday concepts" not in text_of(sae.show_dictionary({"name": "big"}, "", "light")[1])
    others = dict.fromkeys(("component", "coordinate", "untrained"), 0.44)  # the layer has no MLP hook point
    months = concept("months", 17, Interval(0.91, 0.8, 1.0), null=Interval(0.3, 0.1, 0.5), **others,
                     steering=1.25, steering_p=0.025)  # fmt: skip
    found = ConceptScores(scores=(months,), null={"judge": Interval(0.05, 0.0, 0.1)}, features="big")
    evaluated(workspace, "big", name="scored", concepts=found)
    with create_app(workspace, live=live).server.app_context():
        page = text_of(sae.show_dictionary({"name": "big"}, "", "light")[1])
    assert "100% of 1 concepts held out; those of an untrained dictionary 0%, with shuffled labels 5%." in page
    wanted = ("months", "/feature/big/17", "0.80 to 1.00", "0.97", "AUROC 0.66", "1.25", "scored")
    assert all(word in page for word in wanted)
    (workspace.path("evaluation", "scored") / "concepts.json").write_text('{"value": {"scores": 3}}')
    with create_app(workspace, live=live).server.app_context():
        card, below = sae.show_dictionary({"name": "big"}, "", "light")
    assert "0.991" in text_of(card)
    assert "concepts.json: value" not in text_of(below)
    assert "concepts.json" in text_of(below)


def test_only_what_changed_is_sent_again(inside, live):
    from dash import no_update

    layout = sae.layout(PageSources(inside, live), name="going")
    held = {part.id: part.data for part in layout.children if isinstance(part, dcc.Store)}
    logs, listed = held["sae-logs"], held["sae-listed"]
    answer = sae.follow_training(1, {"name": "going"}, "training", logs, listed)
    assert answer == (no_update,) * 5 + (False,)
    answer = sae.follow_training(1, {"name": "going"}, "training", [], "before")
    assert no_update not in (answer[0], answer[1], answer[3], answer[4])


def test_the_page_and_its_figures_load_no_torch(saes):
    code = (
        "import sys; from interp.workspace import Workspace; from dashboard.app import create_app\n"
        "from dashboard.sae import page as sae; from fake_live import FakeLive\n"
        f"app = create_app(Workspace({str(saes.root)!r}), live=FakeLive())\n"
        "with app.server.app_context():\n"
        "    sae.show_dictionary({'name': 'big'}, '', 'light')\n"
        "    sae.show_training({'name': 'going'}, True, [], 'dark')\n"
        "print(*sorted({'torch', 'numba', 'sklearn', 'transformers'} & set(sys.modules)))"
    )
    command, environment = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=True)
    assert out.stdout.strip() == ""


def test_the_overview_and_this_page_name_one_kind_of_a_dictionary(tmp_path):
    workspace = Workspace(tmp_path, create=True)
    finished(workspace, "own", 64, 8, kind="batchtopk")
    imported(workspace, "peer", architecture="jumprelu")
    facts = {each.name: dict(card(workspace, each).facts) for each in workspace.artifacts("sae")}
    shown = {each.name: each.kind for each in view.entries(workspace)}
    assert (facts["own"]["kind"], shown["own"]) == ("batchtopk", "batchtopk")
    assert (facts["peer"]["architecture"], shown["peer"]) == ("jumprelu", "architecture jumprelu")
    assert "kind" not in facts["peer"]
