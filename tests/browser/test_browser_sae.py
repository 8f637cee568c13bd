"""The SAE page in a real browser: a run that goes on is followed without a reload, and what it ends in is shown."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import serving, settle, wait_for_address
from make_saes import advance, dictionaries, finished, health_lines, settings

from interp.artifacts import Draft
from interp.artifacts.artefact import settings_json
from interp.workspace import Workspace

pytestmark = pytest.mark.browser

POINTS = """name => Math.max(0, ...(document.querySelector('#sae-health .js-plotly-plot')?.data || [])
    .filter(trace => trace.name === name).map(trace => trace.x.length))"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    found = Workspace(tmp_path_factory.mktemp("saes") / "workspace", create=True)
    dictionaries(found)
    return found


@pytest.fixture
def saes(visit, workspace, live) -> Iterator[Any]:
    """A visitor of a workspace with dictionaries in every state."""
    with serving(workspace, live) as visit.base:
        yield visit


def open_sae(visit: Any, address: str) -> Any:
    """Open an address and wait for the card."""
    visit.page.goto(visit.base + address)
    visit.page.wait_for_selector("#sae-card .wb-panel")
    return visit.page


def test_a_run_that_goes_on_is_followed_to_its_end_without_a_reload(saes, workspace):
    config, folder = settings_json(settings(2048, 32, seed=5)), workspace.path("sae", "run")
    shutil.rmtree(folder, ignore_errors=True)  # of a first try
    draft = Draft.open(folder, kind="sae", config=config, seed=0)
    (draft.path / "log.jsonl").unlink(missing_ok=True)  # of a first try that did not come to its end
    lines = health_lines(2048, 32, tokens=999_424)
    advance(draft, lines[:6])
    page = open_sae(saes, "/sae?name=run")
    page.wait_for_function(f"({POINTS})('run') === 6")
    page.evaluate("window.stayed = true")
    advance(draft, lines[6:15])
    with open(draft.path / "log.jsonl", "a") as log:
        log.write('{"step": 151, "tok')  # a line that is being written
    page.wait_for_function(f"({POINTS})('run') === 15")
    page.wait_for_selector("#sae-live >> text=614,400 of 999,424 tokens")
    assert page.locator("#sae-live progress").count() == 1
    finished(workspace, "run", 2048, 32, seed=5, draft=draft)
    page.wait_for_selector("#sae-card >> text=held-out tokens")
    page.wait_for_selector("#sae-plane .main-svg")
    page.wait_for_function(f"({POINTS})('run') === {len(lines)}")
    assert page.locator("#sae-live").inner_text() == ""
    assert page.evaluate("window.stayed") is True
    assert saes.errors == []
    assert saes.outside == []


def test_the_list_is_walked_by_keyboard_and_the_address_follows(saes):
    page = open_sae(saes, "/sae?name=big")
    assert page.locator("[aria-current=true]").inner_text().startswith("big")
    link = page.locator("#sae-list a", has_text="sweep-d1024-k16")
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#sae-scaling .main-svg")
    wait_for_address(page, end="/sae?name=sweep-d1024-k16")
    page.go_back()
    page.wait_for_selector("[aria-current=true] >> text=big")
    assert saes.errors == []


def test_its_sweep_can_be_left_out(saes):
    page = open_sae(saes, "/sae?name=sweep-d512-k16")
    page.wait_for_function("document.querySelector('#sae-health .js-plotly-plot')?.data?.length === 48")
    page.locator("label", has_text="with other runs of its sweep").click()
    page.wait_for_function("document.querySelector('#sae-health .js-plotly-plot').data.length === 6")
    assert saes.errors == []


@pytest.mark.slow
def test_no_width_scrolls_sideways(saes):
    for name in ("going", "sweep-d512-k16", "old", "peer"):
        page = open_sae(saes, f"/sae?name={name}")
        settle(page)  # a figure that is being drawn does not hear of a new width
        for width in (1280, 420):
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_function("document.documentElement.scrollWidth <= innerWidth + 1")
