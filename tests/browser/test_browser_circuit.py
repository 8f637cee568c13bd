"""A circuit in the browser: thin it, ask an edge, group nodes, come back by the address, take it along."""

import json
import re
import struct

import pytest
from conftest import wait_for_address

pytestmark = pytest.mark.browser

DARK_SURFACE = "rgb(23,26,31)"
CY = "document.getElementById('circuit-graph')?._cyreg?.cy"


def graph_is_drawn(page, edges: int | None = None) -> None:
    """Until the graph has its edges and all of it is in view."""
    wanted = "> 0" if edges is None else f"=== {edges}"
    page.wait_for_function(f"{CY}?.edges().length {wanted}")
    page.wait_for_timeout(250)  # the fit that follows
    page.wait_for_function(
        f"""(() => {{ const cy = {CY}, box = cy.elements().renderedBoundingBox();
            return box.x1 > -2 && box.y1 > -2 && box.x2 < cy.width() + 2 && box.y2 < cy.height() + 2; }})()"""
    )


def point(page, element: str) -> tuple[float, float]:
    """Where a node, or the middle of an edge, is on the screen."""
    page.evaluate("document.getElementById('circuit-graph').scrollIntoView({ block: 'center' })")
    page.wait_for_timeout(60)
    x, y = page.evaluate(
        f"""(id) => {{ const cy = {CY}, e = cy.getElementById(id), z = cy.zoom(), p = cy.pan();
            const m = e.isNode() ? e.position() : e.midpoint();
            return [m.x * z + p.x, m.y * z + p.y]; }}""",
        element,
    )
    box = page.locator("#circuit-graph").bounding_box()
    return box["x"] + x, box["y"] + y


def click(page, element: str, **options) -> None:
    page.mouse.click(*point(page, element), **options)


def shown(page) -> dict:
    """All that a visitor would call the view: drawn elements with their places, and what the side says."""
    elements = page.evaluate(
        f"{CY}.elements().map(e => [e.id(), e.isNode() ? Math.round(e.position('x')) : e.data('width')]).sort()"
    )
    side = page.locator("#circuit-side h2").inner_text()
    return {"elements": elements, "side": side, "count": page.locator("#circuit-count").inner_text()}


def test_a_click_on_an_edge_shows_its_evidence_and_its_readers_pattern(visit):
    page = visit.open("/circuit/induction")
    graph_is_drawn(page, 4)
    assert "Found." in page.locator("#circuit-side").inner_text()
    click(page, "L1H2-k-L5H3")
    page.wait_for_selector(".wb-circuit-chosen")
    said = page.locator(".wb-circuit-chosen").inner_text()
    assert "+0.55" in said
    assert "Attention of L5H3" in said
    page.wait_for_selector("#circuit-pattern .main-svg")
    wait_for_address(page, "at=L1H2-k-L5H3")
    click(page, "L4H1")
    page.wait_for_function("document.querySelector('#circuit-side h2').innerText === 'L4H1'")
    click(page, "L1H2-k-L5H3")  # the same edge again
    page.wait_for_function("document.querySelector('#circuit-side h2').innerText.includes('→')")
    page.get_by_role("button", name="close", exact=True).click()
    page.wait_for_function("document.querySelector('#circuit-side h2').innerText === 'What was found'")
    wait_for_address(page, without="at=")
    assert visit.errors == []
    assert visit.outside == []


def settled(page) -> int:
    """The number of edges in the address, once it has been the same for a second."""
    page.wait_for_function(f"{CY}.edges().length < 24")
    before, now = None, page.url
    while before != now or "n=" not in now:
        page.wait_for_timeout(1000)
        before, now = now, page.url
    return int(re.search(r"n=(\d+)", now)[1])


def test_the_slider_thins_the_graph_and_moves_the_mark_on_the_curve(visit):
    page = visit.open("/circuit/ioi")
    graph_is_drawn(page, 24)
    page.locator("#circuit-slider [role=slider]").focus()
    for _ in range(12):
        page.keyboard.press("ArrowLeft")
    n = settled(page)
    graph_is_drawn(page, n)
    assert page.locator("#circuit-count").inner_text().startswith(f"{n} of 1,108")
    assert f"with the best {n}" in page.locator("#circuit-faithful").inner_text()
    marks = "document.querySelector('#circuit-curve .js-plotly-plot').data.at(-1).x[0]"
    page.wait_for_function(f"{marks} === {n}")
    assert page.locator(".wb-circuit-table .ag-center-cols-container .ag-row").count() <= n
    page.click("#circuit-found")
    graph_is_drawn(page, 24)
    wait_for_address(page, without="n=")
    assert visit.errors == []


def test_nodes_are_grouped_folded_and_found_again_by_the_address(visit):
    page = visit.open("/circuit/ioi?n=40")
    graph_is_drawn(page, 40)
    first, second = page.evaluate(f"{CY}.nodes('.head').slice(0, 2).map(n => n.id())")
    click(page, first)
    page.keyboard.down("Shift")
    click(page, second)
    page.keyboard.up("Shift")
    page.wait_for_function("document.querySelectorAll('.mantine-MultiSelect-pill, .mantine-Pill-root').length === 2")
    page.fill("#circuit-group-name", "early; <b>one</b>")
    page.click("#circuit-group")
    page.wait_for_selector(".wb-group")
    assert "early; <b>one</b>" in page.locator(".wb-group").inner_text()
    page.get_by_role("button", name="fold", exact=True).click()
    page.wait_for_function(f"{CY}.nodes('.group').length === 1")
    assert page.evaluate(f"{CY}.getElementById('{first}').length") == 0
    graph_is_drawn(page)
    click(page, "group:early; <b>one</b>")
    page.wait_for_selector(".wb-members")
    wait_for_address(page, "at=group")
    before = shown(page)
    page.goto(page.url)
    graph_is_drawn(page)
    page.wait_for_selector(".wb-members")
    assert shown(page) == before
    page.get_by_role("button", name="unfold").click()
    page.wait_for_function(f"{CY}.nodes('.group').length === 0")
    page.get_by_role("button", name="Ungroup").click()
    page.wait_for_selector(".wb-group", state="detached")
    assert visit.errors == []


def test_proposals_group_by_themselves_and_one_alone_is_refused(visit):
    page = visit.open("/circuit/ioi")
    graph_is_drawn(page, 24)
    page.click("#circuit-propose")
    page.get_by_role("option", name="by band of layers").click()
    page.wait_for_function(f"{CY}.nodes('.group').length === 3")
    page.get_by_role("button", name="Ungroup").first.click()
    page.wait_for_function(f"{CY}.nodes('.group').length === 2")
    page.fill("#circuit-group-name", "nobody")
    page.click("#circuit-group")
    page.wait_for_selector("#error-strip:not([hidden])")
    assert "at least two nodes" in page.locator("#error-text").inner_text()


def test_json_and_picture_hold_what_is_shown(visit, tmp_path):
    page = visit.open("/circuit/ioi?n=9")
    graph_is_drawn(page, 9)
    with page.expect_download() as found:
        page.click("#circuit-json")
    found.value.save_as(tmp_path / "circuit.json")
    assert found.value.suggested_filename == "ioi-9-edges.json"
    assert len(json.loads((tmp_path / "circuit.json").read_text())["edges"]) == 9
    with page.expect_download() as found:
        page.click("#circuit-png")
    found.value.save_as(tmp_path / "circuit.png")
    picture = (tmp_path / "circuit.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", picture[16:24])
    assert width > 300
    assert height > 300
    assert visit.errors == []


def test_the_table_is_a_way_in_without_the_graph(visit):
    page = visit.open("/circuit/ioi")
    graph_is_drawn(page, 24)
    row = page.locator(".wb-circuit-table .ag-row[row-index='2']")
    ends = [row.locator(f"[col-id={c}]").inner_text() for c in ("source", "target")]
    row.locator("[col-id=source]").click()
    page.wait_for_selector(".wb-circuit-chosen")
    assert page.locator("#circuit-side h2").inner_text() == " → ".join(ends)


def test_keys_zoom_and_escape_lets_go(visit):
    page = visit.open("/circuit/induction?at=L4H1")
    graph_is_drawn(page, 4)
    level = page.evaluate(f"{CY}.zoom()")
    page.locator("body").press("-")
    assert page.evaluate(f"{CY}.zoom()") < level
    page.locator("body").press("0")
    assert page.evaluate(f"{CY}.zoom()") == pytest.approx(level)
    page.locator("body").press("Escape")
    page.wait_for_function("document.querySelector('#circuit-side h2').innerText === 'What was found'")


def test_a_thousand_edges_are_drawn_within_seconds(visit):
    page = visit.open("/circuit/ioi?n=5000")
    graph_is_drawn(page, 1000)
    assert "at most 1,000 are drawn" in page.locator("#circuit-count").inner_text()
    frame = page.evaluate(
        f"""() => new Promise((done) => {{ const cy = {CY}, start = performance.now();
            cy.one('render', () => done(performance.now() - start)); cy.panBy({{ x: 5, y: 5 }}); }})"""
    )
    assert frame < 2000


def test_switching_the_scheme_keeps_the_view(visit):
    page = visit.open("/circuit/ioi?n=30")
    graph_is_drawn(page, 30)
    before = shown(page)
    page.click("#scheme-toggle")
    page.wait_for_function(f"{CY}?.nodes('.head')[0]?.style('background-color') === '{DARK_SURFACE}'")
    graph_is_drawn(page, 30)
    page.wait_for_selector("#circuit-side h2")
    assert shown(page) == before
    page.click("#scheme-toggle")


def test_proof_on_the_heads_page_leads_to_a_pattern_and_to_the_circuit(visit, live):
    page = visit.open("/heads/smollm2-135m")
    page.wait_for_selector("#heads-ablation .main-svg")
    page.wait_for_selector("#heads-composition .main-svg")
    live.calls.clear()
    page.locator(".wb-heads-proof .ag-row[row-index='0'] [col-id=verdict]").click()
    page.wait_for_selector("#heads-pattern-graph .main-svg")
    assert live.calls == [("pattern", "L4H1")]
    page.get_by_text("query", exact=True).click()
    page.wait_for_function(
        "document.querySelector('#heads-composition .js-plotly-plot').layout.xaxis.title.text.includes('query')"
    )
    page.get_by_text("open the circuit").click()
    page.wait_for_url(re.compile(r"/circuit/induction-circuits/induction"))
    assert visit.errors == []


def test_an_answer_and_its_contrast_are_attributed_and_kept(visit, live):
    page = visit.open("/prompt?text=one+two+three")
    page.wait_for_selector("#prompt-shares .wb-stat")
    page.fill("#prompt-answer", "Paris")
    page.press("#prompt-answer", "Enter")
    page.fill("#prompt-contrast", "<i>Rome</i>")
    page.press("#prompt-contrast", "Enter")
    page.wait_for_function("document.querySelector('#prompt-shares').innerText.includes('logit(<i>Rome</i>)')")
    assert ("shares", "Paris-<i>Rome</i>") in live.calls
    page.wait_for_function("location.search.includes('answer=Paris')")
    page.goto(page.url)
    page.wait_for_function("document.querySelector('#prompt-shares')?.innerText.includes('logit(<i>Rome</i>)')")
    assert page.input_value("#prompt-answer") == "Paris"
    assert visit.errors == []
