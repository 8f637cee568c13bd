"""The page of what changed between two models: findings, figures, a crosscoder's latents, damaged files."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from make_changes import HOSTILE_TEXT, changes, difference
from page_text import text_of

from dashboard.app import create_app
from dashboard.changes import page
from dashboard.figures.changes import changes_figure, latents_histogram
from dashboard.figures.theme import LIGHT
from dashboard.sources import PageSources
from interp.artifacts import MANIFEST, Table, kinds_of, read_json, save_artefact, write_json
from interp.changes.comparison import ModelComparison
from interp.changes.report import what_changed
from interp.errors import MissingError, UnknownNameError
from interp.models.small import SmallConfig, build_small
from interp.workspace import Workspace
from saes.evaluation.latent_comparison import ComparedLatent, LatentComparison

CONFIG = SmallConfig(n_layers=2, d_model=16, n_heads=2, d_mlp=32, n_ctx=32)


@pytest.fixture
def own(tmp_path, live) -> Iterator[Workspace]:
    """A workspace of one's own to damage, and its app."""
    workspace = Workspace(tmp_path / "ws", create=True)
    difference(workspace, "pair")
    changes(workspace, "fine")
    with create_app(workspace, live=live).server.app_context():
        yield workspace


def shown(name: str, scheme: str = "light") -> str:
    return text_of(page.show_comparison({"name": name}, scheme))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_planted_change_is_listed_beside_its_null_and_drawn(own, scheme):
    told = shown("model-comparisons/fine", scheme) + text_of(page.layout(PageSources(own, None), name="fine"))
    assert "Fine-tuning base into tuned moves predictions by 0.4 nats a token" in told
    assert "changes-layers" in told
    for part in ("2 of 6", "L1.mlp.out", "magma", "L1.mlp", "lava rose", "base, null steered", "1 of 1 positions"):
        assert part in told
    assert " ash" not in told
    assert "<img" not in told.replace(HOSTILE_TEXT, "")
    assert "wb-notice-error" not in told


def test_the_list_begins_with_what_is_furthest_above_its_null(own):
    answers = own.open(ModelComparison, "fine").answers()
    assert [answer.best.question for answer in answers[:3]] == ["stream", "stream", "weights"]
    assert own.open(ModelComparison, "fine").words() == {
        "difference": {"lava", "volcano", HOSTILE_TEXT}, "writes": {"magma"},
        "predictions": {"lava", "molten", HOSTILE_TEXT}, "continuations": {"lava", "rose"},
    }  # fmt: skip


def test_the_table_of_rows_has_an_end(own, monkeypatch):
    """A model has hundreds, and a browser stood still over a cell for each number of each."""
    monkeypatch.setattr(page, "LISTED", 2)
    assert "2 of 14 rows beyond the null" in shown("model-comparisons/fine")


def test_where_nothing_is_beyond_its_null_no_word_is_shown(own):
    changes(own, "same", moved=False)
    told = shown("model-comparisons/same")
    assert "lava'" not in told
    assert "magma" not in told
    assert "The two models predict the same at every position" in told
    assert "base, null steered" not in told
    assert own.open(ModelComparison, "same").words()["predictions"] == set()


def test_the_figure_has_a_line_per_question_and_the_null_at_one(own):
    found = own.open(ModelComparison, "fine")
    lines = {trace.name: trace for trace in changes_figure(found.changes.rows(), LIGHT).data}
    weights = lines["weights"]
    assert list(weights.x) == ["L0", "L1", "L2"]
    assert list(weights.y) == pytest.approx([0.5, 20, 20])
    assert list(weights.marker.symbol) == ["circle-open", "circle", "circle"]
    assert len(lines) == 7
    assert all("<img" not in name for name in lines)
    same = [replace(row, value=0.0, found=False) for row in found.changes.rows()]
    assert not changes_figure(same, LIGHT).data


def test_a_crosscoders_latents_are_drawn_and_confirmed_ones_come_first(own):
    told = shown("latent-comparisons/pair")
    assert "changes-latents" in told
    assert "tuned only" in told
    assert "4,000 held-out tokens" in told
    rows = own.open(LatentComparison, "pair").own(limit=9)
    assert [(row.latent, row.confirmed) for row in rows] == [(0, True), (1, False)]


def test_unconfirmed_latents_of_one_model_are_drawn_apart(own):
    found = own.open(LatentComparison, "pair")
    figure = latents_histogram(found, LIGHT)
    counts = {trace.name.partition(" (")[0]: int(sum(trace.y)) for trace in figure.data}
    assert counts == {"in both, or between": 1, "of one model, not confirmed": 1, "of one model, confirmed": 1}
    assert "<img" not in figure.layout.xaxis.ticktext[0]
    rare = Table.of_columns(ComparedLatent, found.latents.arrow().set_column(1, "kind", [["rare"] * 3]))
    empty = latents_histogram(replace(found, latents=rare), LIGHT)
    assert "fired often enough" in empty.layout.annotations[0].text


def test_without_a_name_it_is_the_newest_and_a_wrong_one_is_answered_with_the_nearest(own, tmp_path):
    created = {"pair": "2026-01-02T00:00:00Z", "fine": "2026-01-01T00:00:00Z"}
    for found in own.newest(*kinds_of("changes")):
        path = own.path(found.kind, found.name) / MANIFEST
        write_json(path, read_json(path) | {"created": created[found.name]})
    assert "A latent that decodes into one model only" in text_of(page.layout(PageSources(own, None)))
    with pytest.raises(UnknownNameError, match="fine"):
        page.layout(PageSources(own, None), name="fien")
    with pytest.raises(MissingError):
        page.layout(PageSources(Workspace(tmp_path / "empty", create=True), None))


def test_comparisons_of_two_kinds_with_one_name_are_both_reached(own):
    difference(own, "fine")
    for key, part in (("model-comparisons/fine", "changes-layers"), ("latent-comparisons/fine", "changes-latents")):
        layout = page.layout(PageSources(own, None), name=key)
        state = next(each.data for each in layout.children if getattr(each, "id", "") == "changes-state")
        assert part in text_of(page.show_comparison(state, "light"))
        menu = next(each for each in layout._traverse() if getattr(each, "id", "") == "artefact-menu")
        assert menu.value == f"/changes?name={key}"
        assert [each["label"] for each in menu.data if each["value"] == menu.value] != ["fine"]


def test_a_damaged_file_is_named_and_the_rest_stays(own):
    path = own.path("model_comparison", "fine") / "said.json"
    raw = read_json(path)
    raw["kl_high"] = "gone"
    write_json(path, raw)
    told = shown("model-comparisons/fine")
    assert "said.json: kl_high should be a valid number, found 'gone'" in told
    assert "changes-layers" in told
    own.path("model_comparison", "fine").joinpath("changes.parquet").unlink()
    assert "changes.parquet is missing" in shown("model-comparisons/fine")


def test_a_measured_comparison_is_shown(own):
    base, tuned = (build_small(CONFIG, seed=0, device="cpu", dtype=torch.float32) for _ in range(2))
    with torch.no_grad():
        tuned.blocks[1].mlp.out.original_component.weight.mul_(20)
    tokens = torch.randint(0, 256, (12, 24), generator=torch.Generator().manual_seed(0))
    found = what_changed(base, tuned, {HOSTILE_TEXT: tokens}, names=("base", "tuned"), n_random=3)
    save_artefact(found, own.path("model_comparison", "real"), seed=0)
    told = shown("model-comparisons/real") + text_of(page.layout(PageSources(own, None), name="real"))
    assert "1 of 30" in told
    assert "L1.mlp.out" in told
    assert "wb-notice-error" not in told
