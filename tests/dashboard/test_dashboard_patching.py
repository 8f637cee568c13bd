"""Activation patching on the prompt page: live and from disk, escaped, and every failure one sentence."""

import json
import math
from pathlib import Path

import pytest
from fake_live import FakeLive, patched, patches
from make_workspace import HOSTILE
from page_text import text_of

from dashboard.app import create_app
from dashboard.figures.attribution import patching_map
from dashboard.figures.theme import theme
from dashboard.overview import _data as overview
from dashboard.prompt import _panels as patching
from interp.artifacts import save_artefact
from interp.patching.patching_map import Patch, PatchingMap
from interp.workspace import Workspace

TOKENS = ["<|im_start|>", *HOSTILE[:4]]


@pytest.fixture
def stored(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "workspace", create=True)
    save_artefact(patched(TOKENS, [*TOKENS[:-1], " other"]), workspace.path("patching", "mine"))
    return workspace


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_map_marks_what_lies_beyond_the_null(scheme):
    heat, dots = patching_map(patches(TOKENS), theme(scheme), tokens=TOKENS).data
    assert (list(dots.x), list(dots.y)) == ([3], [2])
    assert heat.z[2][3] == pytest.approx(0.97)
    assert "null -0.200 to +0.500" in heat.hovertext[2][3]
    assert "<script" not in json.dumps(heat.hovertext.tolist())


def test_a_map_without_a_null_has_no_marks():
    at = {"head": None, "position": None, "token": None}
    rows = [Patch(layer=layer, **at, effect=0.5, stderr=math.nan) for layer in range(3)]
    assert len(patching_map(rows, theme("light")).data) == 1


def test_a_stored_map_says_what_was_measured(stored):
    found = stored.open(PatchingMap, "mine")
    assert found.to_records() == [row.record() for row in patches(TOKENS)]
    assert found.strongest(1)[0].where == f"layer 2, position 3 {TOKENS[3]!r}"
    shown = text_of(patching.effects(found, theme("light")))
    assert "1 of 30" in shown
    assert "values of random tokens" in shown
    assert "at most 0.25" in shown
    (card,) = overview.overview(stored).cards["patching"]
    assert card.href == "/prompt?patching=mine"


def test_the_page_opens_a_stored_map_by_its_address(stored):
    from dashboard.prompt.page import layout
    from dashboard.sources import PageSources

    menu = next(
        each
        for each in layout(PageSources(stored, FakeLive()), patching="mine")._traverse()
        if getattr(each, "id", "") == "prompt-patch-stored"
    )
    assert (menu.value, menu.data[1:]) == ("mine", ["mine"])


def test_a_map_that_is_not_there_or_damaged_is_one_sentence(stored):
    folder = stored.path("patching", "mine")
    with create_app(stored, live=FakeLive()).server.app_context():
        assert "mine" in text_of(patching.show_stored_patches("mien", "light"))
        (folder / "prompts.json").write_text('{"clean": ["a"], "corrupt": [1]}')
        assert "prompts.json: corrupt.0 should be a valid string" in text_of(
            patching.show_stored_patches("mine", "light")
        )
        (folder / "patches.parquet").write_bytes(b"damaged")
        assert "patches.parquet" in text_of(patching.show_stored_patches("mine", "light"))


def test_the_button_asks_the_model_and_shows_errors_in_place(stored):
    live = FakeLive()
    with create_app(stored, live=live).server.app_context():
        given = ("one two", "one three", "a", "b", "resid_pre", "denoise", False, "", "light")
        assert "beyond the null" in text_of(patching.measure_patches(1, "m", *given))
        assert live.calls == [("patch", "resid_pre denoise: a-b")]
        uneven = ("one two", "one", "a", "b", "z", "noise", True, "", "light")
        assert "reword one of the two" in text_of(patching.measure_patches(1, "m", *uneven))


def test_the_real_model_finds_the_token_that_differs(tiny_model, monkeypatch, stored):
    """An untrained model: the whole effect enters at the changed token, and the final residual is read at the end."""
    from dashboard.live import LiveModel
    from interp.errors import ConfigError, PromptError
    from saes.acts.patching import PatchPrompts

    live = LiveModel(stored)
    monkeypatch.setattr("interp.models.loading.load_model", lambda spec, **_: tiny_model)
    asked = {"clean": "a cat", "corrupt": "a bat", "model": "m"}
    for answers in ({"answer": "a", "wrong": "b"}, {"answer": "b", "wrong": "a"}):
        try:
            found = live.ask(PatchPrompts(**asked, **answers))
        except ConfigError:
            continue
        at = {(row.layer, row.position): row.effect for row in found.rows}
        assert at[0, 3] == pytest.approx(1, abs=1e-4)  # BOS, a, space, then the changed byte
        assert at[0, 5] == pytest.approx(0, abs=1e-4)
        break
    else:
        pytest.fail("neither order of the answers has a gap")
    with pytest.raises(PromptError, match="several tokens"):
        live.ask(PatchPrompts(**asked, answer="long"))
    with pytest.raises(PromptError, match="answer to the clean prompt is empty"):
        live.ask(PatchPrompts(**asked, answer=""))
    with pytest.raises(PromptError, match="at most 64"):
        live.ask(PatchPrompts(**asked | {"clean": "a cat" * 20, "corrupt": "a bat" * 20}, answer="a", wrong="b"))
