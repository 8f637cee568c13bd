"""The page of what changed between two models: findings, figures, a crosscoder's latents, damaged files."""

from collections.abc import Iterator

import pytest
import torch
from make_changes import HOSTILE_TEXT, MOVED, changes, difference
from page_text import text_of

from dashboard.app import create_app
from dashboard.changes import page
from dashboard.changes import page as view
from dashboard.components.pages import Context
from dashboard.overview.data import overview
from interp.artifacts import MANIFEST, MODEL_COMPARISONS, read_json, write_json
from interp.changes.report import what_changed
from interp.errors import CorruptError, MissingError, UnknownNameError
from interp.models.small import SmallConfig, build_small
from interp.workspace import Workspace

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
    return text_of(page._show({"name": name}, scheme))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_planted_change_is_named_drawn_and_tabled(own, scheme):
    told = shown("fine", scheme)
    assert "2 of 8 components moved" in told
    assert all(name in told for name in MOVED)
    assert "output, by its own weights on the same input" in told
    for figure in ("changes-weights", "changes-stream", "changes-transplants"):
        assert figure in told
    assert "wb-notice-error" not in told
    assert "Effects of fine-tuning base into tuned" in text_of(page.layout(Context(own, None), name="fine"))


def test_where_no_head_changed_it_says_so(own):
    path = own.path("model_comparison", "fine") / "changes.json"
    raw = read_json(path)
    for row in raw["heads"]:
        row["found"] = False
    write_json(path, raw)
    assert "No head changed beyond its null" in shown("fine")


def test_a_crosscoders_latents_are_drawn_and_confirmed_ones_come_first(own):
    told = shown("pair")
    assert "changes-latents" in told
    assert "tuned only" in told
    assert "4,000 held-out tokens" in told
    rows = view.own_latents(own, own.find("pair", "latent_comparison"))
    assert [(row["latent"], row["confirmed"]) for row in rows] == [(0, True), (1, False)]


def test_the_overview_leads_to_both(own):
    cards = overview(own).cards
    assert {card.href for kind in MODEL_COMPARISONS for card in cards[kind]} == {
        "/changes?name=model-comparisons/fine",
        "/changes?name=latent-comparisons/pair",
    }


def test_without_a_name_it_is_the_newest_and_a_wrong_one_is_answered_with_the_nearest(own, tmp_path):
    created = {"pair": "2026-01-02T00:00:00Z", "fine": "2026-01-01T00:00:00Z"}
    for found in own.newest(*MODEL_COMPARISONS):
        path = own.path(found.kind, found.name) / MANIFEST
        write_json(path, read_json(path) | {"created": created[found.name]})
    assert "Latents of a crosscoder" in text_of(page.layout(Context(own, None)))
    with pytest.raises(UnknownNameError, match="fine"):
        page.layout(Context(own, None), name="fien")
    with pytest.raises(MissingError):
        page.layout(Context(Workspace(tmp_path / "empty", create=True), None))


def test_comparisons_of_two_kinds_with_one_name_are_both_reached(own):
    difference(own, "fine")
    for key, part in (("model-comparisons/fine", "changes-weights"), ("latent-comparisons/fine", "changes-latents")):
        layout = page.layout(Context(own, None), name=key)
        state = next(each.data for each in layout.children if getattr(each, "id", "") == "changes-state")
        assert part in text_of(page._show(state, "light"))
        menu = next(each for each in layout._traverse() if getattr(each, "id", "") == "artefact-menu")
        assert menu.value == f"/changes?name={key}"
        assert [each["label"] for each in menu.data if each["value"] == menu.value] != ["fine"]


def test_a_damaged_file_is_named(own):
    path = own.path("model_comparison", "fine") / "changes.json"
    write_json(path, read_json(path) | {"weights": "gone"})
    with pytest.raises(CorruptError, match="weights"):
        view.changes(own, own.find("fine", "model_comparison"))
    path.unlink()
    with pytest.raises(CorruptError, match="missing"):
        view.changes(own, own.find("fine", "model_comparison"))


def test_the_made_up_comparison_has_the_shape_of_a_real_one_and_both_can_be_shown(own):
    base, tuned = (build_small(CONFIG, seed=0, device="cpu", dtype=torch.float32) for _ in range(2))
    with torch.no_grad():
        tuned.blocks[1].mlp.out.original_component.weight.mul_(20)
    tokens = torch.randint(0, 256, (12, 24), generator=torch.Generator().manual_seed(0))
    real = what_changed(base, tuned, {HOSTILE_TEXT: tokens}, names=("base", "tuned"), n_random=3).to_json()
    path = own.path("model_comparison", "fine") / "changes.json"
    made = read_json(path)
    assert set(made) == set(real)
    assert set(made["summary"]["behaviour"]) == set(real["summary"]["behaviour"])
    for part in ("weights", "heads", "transplants"):
        assert set(made[part][0]) == set(real[part][0]), part
    assert set(made["representations"]["prose"][0]) == set(real["representations"][HOSTILE_TEXT][0])
    write_json(path, real)
    told = shown("fine")
    assert "1 of 30 components moved by more than the null" in told
    assert "L1.mlp.out" in told
    assert "wb-notice-error" not in told
