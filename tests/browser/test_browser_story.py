"""The story of a graph in the browser: planted boxes and arrows, unfolded by a click or by keys, on the page and in
the file that opens from disk."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import wait_for_address
from make_graph import make_graph, make_story, write_graph
from test_browser_axe import axe_visit, violations  # noqa: F401 (a fixture)

from dashboard.graph import _data
from dashboard.graph.exchange import write_export
from interp.tracing.graph import AttributionGraph
from interp.workspace import Workspace

pytestmark = pytest.mark.browser

BOXES = ".wb-story-box"
NAMES = {"plain": False, "wild": True}
SIZES: dict[str, Any] = {"n_features": 60, "n_edges": 500}


@pytest.fixture(scope="module", autouse=True)
def told(base_workspace: Workspace) -> Iterator[dict[str, AttributionGraph]]:
    """Two graphs with planted stories; the names in one are hostile."""
    for name in NAMES:
        write_graph(base_workspace, name, **SIZES)

    def story_of(_: Workspace, graph: AttributionGraph, *more: Any) -> dict[str, Any]:
        return make_story(graph, hostile=NAMES[graph.name])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_data, "story_of", story_of)
        yield {name: make_graph(**SIZES) for name in NAMES}
    for name in NAMES:
        shutil.rmtree(base_workspace.root / "graphs" / name)


def open_story(visit: Any, address: str = "/graph/plain") -> Any:
    page = visit.open(address)
    page.wait_for_selector(f"#graph-view[data-ready] {BOXES}")
    return page


def places(page: Any) -> list[dict[str, float]]:
    """Return the rectangle of every box on the screen."""
    return page.eval_on_selector_all(
        BOXES,
        "all => all.map(e => (({ x, y, width, height }) => ({ x, y, width, height }))(e.getBoundingClientRect()))",
    )


def overlap(a: dict[str, float], b: dict[str, float]) -> bool:
    return not (
        a["x"] + a["width"] <= b["x"] or b["x"] + b["width"] <= a["x"]
        or a["y"] + a["height"] <= b["y"] or b["y"] + b["height"] <= a["y"]
    )  # fmt: skip


def test_a_graph_opens_on_its_story_from_the_prompt_below_to_the_answer_above(visit, told):
    page, story = open_story(visit), make_story(told["plain"])
    assert page.locator(BOXES).count() == 12
    assert page.locator(".wb-story-sentence").inner_text() == "token 1 leads to Paris."
    assert "left out: 25 %" in page.locator(".wb-story-foot").inner_text()
    assert "4 of 5 concepts act as one" in page.locator(".wb-story-foot").inner_text()
    at = places(page)
    for i, a in enumerate(at):
        assert not any(overlap(a, b) for b in at[:i])
    top, middle, bottom = at[11]["y"], [box["y"] for box in at[4:11]], [box["y"] for box in at[:4]]
    assert top < min(middle)
    assert max(middle) < min(bottom)
    assert page.locator(".wb-story-against").all_inner_texts() == [page.locator(BOXES).nth(6).inner_text()]
    assert "argues against Paris" in page.locator(BOXES).nth(6).inner_text()
    assert page.locator(".wb-story-mixed").count() == 1
    assert (
        page.locator(BOXES)
        .nth(7)
        .locator(".wb-story-mixed")
        .get_attribute("title")
        .endswith("0.10, random groups 0.30")
    )
    widths = page.eval_on_selector_all(
        ".wb-story-arrow", "all => all.map(g => [g.dataset.ends, +g.firstChild.getAttribute('stroke-width')])"
    )
    weights = {f"{arrow['source']} {arrow['target']}": abs(arrow["weight"]) for arrow in story["arrows"]}
    assert {ends for ends, _ in widths} == {*weights}
    by_weight = sorted(widths, key=lambda row: weights[row[0]])
    assert [width for _, width in by_weight] == sorted(width for _, width in widths)
    assert page.locator(".wb-story-arrow.wb-story-negative").get_attribute("data-ends") == "6 9"
    assert page.locator(".wb-graph-area").is_hidden()
    assert visit.errors == visit.outside == []


def test_a_click_unfolds_a_box_into_its_nodes_and_one_leads_back(visit, told):
    page, story = open_story(visit), make_story(told["plain"])
    page.locator(BOXES).nth(5).click()
    wait_for_address(page, "box=5&view=graph")
    page.wait_for_selector("#graph-view[data-view=graph] .wb-graph-area[data-edges]")
    view, nodes = "document.querySelector('#graph-view').graphView", told["plain"].nodes
    page.wait_for_function(f"{view}.known === {view}.wanted")
    shown = page.evaluate(f"{view}.scene.items.map(i => i.node)")
    ends = {i for i, node in enumerate(nodes) if node.kind in ("token", "logit")}
    assert {*shown} - ends == {*story["boxes"][5]["nodes"]}
    panel = page.locator(".wb-graph-chosen")
    assert "Carries 7 % of the influence on Paris" in panel.inner_text()
    assert "agreement 0.70, random groups 0.30" in panel.inner_text()
    assert panel.locator(".wb-graph-line").count() == 3
    page.get_by_role("button", name="Show all nodes").click()
    page.wait_for_function(f"{view}.scene.items.length > 60")
    page.get_by_role("button", name="Story", exact=True).click()
    wait_for_address(page, "view=story")
    assert page.locator(BOXES).first.is_visible()
    open_story(visit, "/graph/plain?view=story")
    page = visit.open("/graph/plain?view=graph")
    page.wait_for_selector("#graph-view[data-view=graph] .wb-graph-area[data-edges]")
    assert page.locator(".wb-story").is_hidden()
    assert visit.errors == []


def test_the_address_keeps_the_form_of_a_trace_that_it_fills_in(visit):
    page = open_story(visit, "/graph/plain?trace=Berlin+is&target=the&contrast=Paris")
    wait_for_address(page, "trace=Berlin%20is")
    wait_for_address(page, "target=the&view=story")
    assert page.locator(".wb-graph-title .wb-chip[aria-current]").count() == 0, "the word is no number of an answer"


def test_keys_reach_every_box_in_the_order_of_reading_and_enter_opens_it(visit):
    page = open_story(visit)
    page.locator(BOXES).first.focus()
    assert page.locator(".wb-story-arrow:not(.wb-story-dim)").count() == 1, "the arrows of the others are dim"
    reached = []
    for _ in range(12):
        reached.append(int(page.evaluate("document.activeElement.dataset.box")))
        page.keyboard.press("Tab")
    assert reached == [*range(12)]
    page.locator(BOXES).nth(4).focus()
    page.keyboard.press("Enter")
    wait_for_address(page, "box=4")


def test_the_story_and_an_unfolded_box_break_no_rule_of_axe(axe_visit):  # noqa: F811
    page = axe_visit.open("/graph/wild")
    page.wait_for_selector(f"#graph-view[data-ready] {BOXES}")
    assert violations(page) == []
    page.locator(BOXES).nth(5).click()
    page.wait_for_selector("#graph-view[data-view=graph] .wb-graph-area[data-edges]")
    assert violations(page) == []


def test_a_narrow_screen_shows_the_whole_story_and_scrolls_nowhere(visit):
    visit.page.set_viewport_size({"width": 390, "height": 844})
    page = open_story(visit, "/graph/wild")
    page.wait_for_function("document.documentElement.scrollWidth <= innerWidth + 1")
    at = places(page)
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in at)
    for i, a in enumerate(at):
        assert not any(overlap(a, b) for b in at[:i])


def test_the_file_draws_the_same_story_from_disk_and_asks_for_nothing(visit, browser, base_workspace, tmp_path):
    page = open_story(visit, "/graph/wild")
    drawn = page.locator(BOXES).all_inner_texts()
    with page.expect_download() as download:
        page.get_by_role("link", name="Save as a file").click()
    assert download.value.suggested_filename == "wild.html"
    file = tmp_path / "out" / "wild.html"
    [said] = write_export(base_workspace, "wild", file)
    assert "opens in any browser" in said
    assert file.stat().st_size == download.value.path().stat().st_size < 300_000
    context = browser.new_context(color_scheme="dark")
    try:
        page, problems, asked = context.new_page(), [], []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_selector(BOXES)
        assert page.locator(BOXES).all_inner_texts() == drawn
        assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
        page.locator(BOXES).nth(5).focus()
        page.keyboard.press("Enter")
        assert page.locator("[data-opened] tbody tr").count() == 3
        assert page.evaluate("window.pwned") is None
        surface = "getComputedStyle(document.querySelector('.wb-story')).backgroundColor"
        assert page.evaluate(surface) == "rgb(23, 26, 31)"
        page.emulate_media(color_scheme="light")
        assert page.evaluate(surface) == "rgb(255, 255, 255)"
        said = page.locator("main").inner_text()
        assert "4 of the 5 tested act as one. Null: random groups" in said
        assert "random orders within ±0.29" in said
        assert problems == []
    finally:
        context.close()
