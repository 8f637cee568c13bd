"""Geometry and dynamics in a real browser: a choice changes picture and address, keys walk, the map is there."""

from collections.abc import Iterator
from typing import Any

import make_monitor
import pytest
from conftest import serving, wait_for_address
from make_direction import direction
from make_dynamics import induction
from make_geometry import LISTS, geometry
from make_series import series
from make_workspace import build

from interp.artifacts import save_artefact
from interp.directions.study import DirectionGeometry
from interp.workspace import Workspace

pytestmark = pytest.mark.browser

WORDS = """() => document.querySelector('#geometry-plane .js-plotly-plot, #geometry-plane.js-plotly-plot')?.data
    ?.find(trace => trace.name === 'sentences that judge')?.text?.join(' ')"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    found = build(tmp_path_factory.mktemp("choices") / "workspace", n_features=40, n_points=40)
    series(found, "grok", source="checkpoint:modular-13-seed3-epoch600")
    induction(found)
    geometry(found, "other", lists={"weekdays": LISTS["weekdays"]})
    direction(found, model="smollm2-135m")
    [pushed] = found.values(DirectionGeometry)
    watched = make_monitor.monitor("smollm2-135m", pushed.settings.weight_hash)
    save_artefact(watched, found.path("monitor", "watched"))
    return found


@pytest.fixture
def found(visit, workspace, live) -> Iterator[Any]:
    """A visitor of that workspace."""
    with serving(workspace, live) as visit.base:
        yield visit


def test_a_direction_is_drawn_on_its_own_page(found):
    page = found.open("/directions/pushed")
    page.wait_for_selector(".wb-verdict >> text=random directions at most")
    page.wait_for_selector(".wb-verdict >> text=It separates weekdays")
    for figure in ("steering", "grid", "along", "spectrum", "planes", "probe"):
        page.wait_for_selector(f"#direction-{figure} .main-svg")
    assert page.locator("#directions-parts [role=figure]:not([aria-label])").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("window.pwned") is None
    assert found.errors == []
    assert found.outside == []


def test_chats_are_steered_side_by_side_stopped_watched_and_begun_anew(found):
    page = found.open("/directions/pushed")
    page.focus("#say-message")
    page.keyboard.type("Hello")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("you")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-chat='random direction'] >> text=mean shift 0.05 nats a token")
    assert page.locator(".wb-say-message").inner_text() == "Hello\nyou"
    tips = page.locator("[data-chat=steered] .wb-mark").evaluate_all("all => all.map(each => each.dataset.tip)")
    assert tips == ["shift +1.5 nats", "shift +0.5 nats", "shift −0.5 nats"]
    assert page.locator("[data-chat=steered] .wb-lowered").count() == 1
    page.keyboard.type("slowly")
    page.keyboard.press("Enter")
    page.wait_for_selector("#say-log .wb-say-turn:nth-child(2)")
    page.keyboard.press("Escape")
    page.wait_for_selector("#say-status >> text=Stopped.")
    assert page.locator("#say-log .wb-say-turn").count() == 1
    assert page.input_value("#say-message") == "slowly", "a message that was stopped can be changed"
    page.fill("#say-message", " ")
    page.keyboard.press("Enter")
    page.wait_for_selector("#say-status >> text=the message is empty")
    page.select_option("#say-monitor", "watched")
    page.fill("#say-message", "again")
    page.keyboard.press("Enter")
    turn = page.locator("#say-log .wb-say-turn:nth-child(2)")
    turn.locator("[data-chat=unsteered] >> text=monitor fires, mean score +1.5").wait_for()
    tips = turn.locator("[data-chat=unsteered] .wb-mark").evaluate_all("all => all.map(each => each.dataset.tip)")
    assert tips == ["score +4", "score −1", "score +1.5"]
    page.click("#say-new")
    page.wait_for_selector("#say-log .wb-say-turn", state="detached")
    assert page.evaluate("window.pwned") is None
    assert found.errors == []
    page = found.open("/artefact/monitors/watched")
    page.wait_for_selector(".wb-verdict >> text=A monitor that works: it catches 90% at 5% false alarms")
    page.wait_for_selector("#artefact-figure .main-svg")
    page.fill("#monitor-text", "two words")
    page.click("#monitor-run")
    page.wait_for_selector("#monitor-drawn >> text=The monitor fires: mean score +2.50")
    assert page.locator("#monitor-drawn .wb-mark").count() == 2
    assert page.evaluate("window.pwned") is None


def test_choosing_a_list_changes_the_picture_and_the_address(found):
    page = found.open("/geometry?name=shapes")
    page.wait_for_function(f"({WORDS})() === '{' '.join(LISTS['weekdays'])}'")
    page.locator(".wb-choice", has_text="digits").click()
    page.wait_for_function(f"({WORDS})() === '{' '.join(LISTS['digits'])}'")
    wait_for_address(page, end="/geometry?name=word-geometry/shapes&list=digits")
    assert page.locator("[aria-current=true]").inner_text().startswith("digits")
    page.keyboard.press("j")
    page.wait_for_selector(".wb-verdict >> text=too short")
    wait_for_address(page, end="list=compass+points")
    page.wait_for_selector("#geometry-parts >> text=has no prompts that ask for the next item")
    page.keyboard.press("k")
    page.wait_for_function(f"({WORDS})() === '{' '.join(LISTS['digits'])}'")
    page.go_back()
    page.wait_for_selector(".wb-verdict >> text=too short")
    assert found.errors == []
    assert found.outside == []


def test_another_artefact_is_chosen_by_keyboard(found):
    page = found.open("/geometry?name=shapes")
    page.locator("#artefact-menu").focus()
    page.keyboard.press("Enter")
    page.get_by_role("option", name="other").click()
    page.wait_for_selector(".wb-findings >> text=not tested: no other list", state="attached")  # folded
    wait_for_address(page, end="/geometry?name=word-geometry/other")
    assert found.errors == []


def test_tables_say_what_the_figures_show(found):
    page = found.open("/geometry?name=shapes&list=weekdays")
    page.wait_for_selector("#geometry-plane .main-svg")
    fold = page.locator("#geometry-parts summary:has-text('table')").first
    fold.focus()
    page.keyboard.press("Enter")
    assert "Wednesday" in page.locator("#geometry-parts details[open]").inner_text()
    assert page.locator("#geometry-parts [role=figure]:not([aria-label])").count() == 0


def test_the_switch_redraws_the_figures(found):
    colour = "() => document.querySelector('#geometry-plane .js-plotly-plot')?.layout?.font?.color"
    page = found.open("/geometry?name=shapes")
    page.wait_for_function(f"({colour})()")
    before = page.evaluate(f"({colour})()")
    page.click("#scheme-toggle")
    page.wait_for_function(f"({colour})() && ({colour})() !== '{before}'")
    page.evaluate("localStorage.clear()")  # other visits share this browser
    assert found.errors == []


def test_a_seed_is_chosen_and_its_frequencies_and_maps_are_there(found):
    page = found.open("/dynamics?name=grok")
    page.wait_for_selector("#dynamics-logits .main-svg")
    page.wait_for_selector("#dynamics-map .atlas[data-ready] .atlas-frames input")
    page.locator(".wb-choice", has_text="seed 4").click()
    page.wait_for_selector(".wb-verdict >> text=never generalised")
    wait_for_address(page, end="/dynamics?name=grokking/grok&seed=4")
    page.wait_for_selector("#dynamics-map .atlas[data-ready] .atlas-frames input")
    slider = page.locator("#dynamics-map .atlas-frames input")
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_function("document.querySelector('#dynamics-map .atlas').dataset.frame === '0'")
    wait_for_address(page, end="/dynamics?name=grokking/grok&seed=4")
    page.get_by_text("Open the map by itself").click()
    page.wait_for_selector("#atlas-map .atlas")
    wait_for_address(page, "/atlas/grok")
    assert found.errors == []
    assert found.outside == []


def test_a_toy_and_its_control_are_drawn_together(found):
    page = found.open("/dynamics?name=induction")
    page.wait_for_selector("#dynamics-composition .main-svg")
    names = page.evaluate("document.querySelector('#dynamics-loss .js-plotly-plot').data.map(trace => trace.name)")
    assert names == ["second copy", "first copy", "second copy, toy:induction-1l"]
    page.locator(".wb-choice", has_text="toy:induction-1l").click()
    page.wait_for_selector(".wb-verdict >> text=does not begin to copy")
    wait_for_address(page, "seed=0&spec=toy%3Ainduction-1l")
    assert found.errors == []
