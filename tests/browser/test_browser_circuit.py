"""A circuit in the browser: thin it, ask an edge, fold groups, come back by the address, take it along."""

import contextlib
import json
import re
import struct
from collections.abc import Iterator

import pytest
from conftest import settle, wait_for_address
from test_browser_axe import axe_visit, violations  # noqa: F401 (a fixture)

from interp.notes import Notes
from interp.workspace import Workspace

pytestmark = pytest.mark.browser

VIEW = "document.getElementById('circuit-graph')?.graphView"


@pytest.fixture(autouse=True)
def no_edits(base_workspace: Workspace) -> Iterator[None]:
    """Leave the circuits as nobody has grouped them."""
    yield
    notes = Notes.open(base_workspace)
    for key in ("edge-circuits/ioi", "induction-circuits/induction"):
        notes.save_graph_edits(key, {}, was=notes.graph_edits(key))


def graph_is_drawn(page, edges: int | None = None) -> None:
    """Until the graph has its edges and all of it is in view."""
    wanted = "> 0" if edges is None else f"=== {edges}"
    page.wait_for_selector("#circuit-graph[data-ready]")
    page.wait_for_function(f"Number({VIEW}.root.dataset.links) {wanted}")
    page.wait_for_function(f"Number({VIEW}.area.dataset.edges) {wanted}")
    page.wait_for_function(
        f"""(() => {{ const {{ canvas, scene }} = {VIEW};
            return scene.items.every((item) => {{ const [x, y] = canvas.place(item);
                return x > 0 && y > 0 && x < canvas.width && y < canvas.height; }}); }})()"""
    )


def spot(page, name: str) -> tuple[float, float]:
    """Where a node, a group or an edge is on the screen; of an edge a point that no other one is nearer to."""
    page.evaluate(f"{VIEW}.area.scrollIntoView({{ block: 'center' }})")
    page.wait_for_timeout(60)
    at = page.evaluate(
        f"""async (name) => {{
            const {{ pointOf, curveOf }} = await import('/assets/graph/marks.mjs');
            const {{ scene, model, canvas, linkOf }} = {VIEW};
            const item = scene.items.find((each) => each.label.startsWith(name)) ?? null;
            if (item) return canvas.place(item);
            const e = {VIEW}.linkOf(name), curve = curveOf(scene, e, canvas.camera);
            const steps = [0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8].map((t) => pointOf(curve, t));
            return steps.find(([x, y]) => canvas.linkAt(x, y) === e && canvas.hit(x, y) < 0); }}""",
        name,
    )
    box = page.locator(".wb-graph-area").bounding_box()
    return box["x"] + at[0], box["y"] + at[1]


def click(page, name: str) -> None:
    page.mouse.click(*spot(page, name))


@pytest.mark.parametrize("query", ["", "?n=7"])
def test_the_first_picture_takes_one_request(visit, query):
    asked = []
    visit.page.on("request", lambda request: asked.append(request.url.partition("/circuit-data/")[2]))
    page = visit.open(f"/circuit/edge-circuits/ioi{query}")
    graph_is_drawn(page)
    page.wait_for_timeout(500)
    assert [url.partition("?")[0] for url in asked if url] == ["edge-circuits/ioi/graph.json"]


def shown(page) -> dict:
    """All that a visitor would call the view: drawn items and lines with their places, and what the side says."""
    items = page.evaluate(
        f"{VIEW}.scene.items.map((item) => [item.label, Math.round(item.x), Math.round(item.y)]).sort()"
    )
    lines = page.evaluate(f"[...{VIEW}.scene.links.strength]")
    side = page.locator("#circuit-side h2").inner_text()
    return {"items": items, "lines": lines, "side": side, "count": page.locator(".wb-graph-share").inner_text()}


def test_a_click_on_an_edge_shows_its_evidence_and_its_readers_pattern(visit):
    page = visit.open("/circuit/induction")
    graph_is_drawn(page, 4)
    assert "induction heads in" in page.locator(".wb-verdict").first.inner_text()
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
    page.wait_for_function("document.querySelector('#circuit-side h2').innerText === 'Numbers'")
    wait_for_address(page, without="at=")
    assert visit.errors == []
    assert visit.outside == []


def settled(page) -> int:
    """The number of edges in the address, once it has been the same for a second."""
    page.wait_for_function(f"{VIEW}.scene.links.from.length < 24")
    before, now = None, page.url
    while before != now or "n=" not in now:
        page.wait_for_timeout(1000)
        before, now = now, page.url
    return int(re.search(r"n=(\d+)", now)[1])


def test_the_slider_thins_the_graph_and_moves_the_mark_on_the_curve(visit):
    page = visit.open("/circuit/ioi")
    graph_is_drawn(page, 24)
    page.locator(".wb-graph-slider input").focus()
    for _ in range(12):
        page.keyboard.press("ArrowLeft")
    n = settled(page)
    graph_is_drawn(page, n)
    assert page.locator(".wb-graph-share").inner_text().startswith(f"{n} of 1,108")
    page.wait_for_function(f"document.getElementById('circuit-faithful').innerText.endsWith('with the best {n}')")
    marks = "document.querySelector('#circuit-curve .js-plotly-plot').data.at(-1).x[0]"
    page.wait_for_function(f"{marks} === {n}")
    assert page.locator(".wb-circuit-table .ag-center-cols-container .ag-row").count() <= n
    page.get_by_role("button", name="As found").click()
    graph_is_drawn(page, 24)
    wait_for_address(page, without="n=")
    assert visit.errors == []


def test_a_smallest_score_shows_the_edges_above_it_and_a_switch_those_on_paths(visit):
    page = visit.open("/circuit/ioi")
    graph_is_drawn(page, 24)
    page.fill("input[aria-label^='Smallest score']", "0.5")
    page.keyboard.press("Enter")
    wait_for_address(page, "n=")
    page.wait_for_function(f"{VIEW}.known.includes('\"n\":' + {VIEW}.state.n)")
    weights = page.evaluate(f"[...{VIEW}.scene.links.weight].map(Math.abs)")
    assert min(weights) >= 0.5
    assert len(weights) == page.evaluate(f"{VIEW}.model.weight.filter((w) => Math.abs(w) >= 0.5).length")
    page.get_by_label("only edges on a path").check()
    wait_for_address(page, "paths=1")
    page.wait_for_function(f"{VIEW}.known.includes('true') && {VIEW}.scene.links.from.length < {len(weights)}")
    alone = f"{VIEW}.scene.items.filter((item, k) => !{VIEW}.scene.links.out[k].length).map((item) => item.label)"
    assert page.evaluate(alone) == ["logits"]


def test_lines_are_as_wide_as_their_score_in_the_colour_of_their_input(visit):
    page = visit.open("/circuit/ioi?n=40")
    graph_is_drawn(page, 40)
    weights, strengths = page.evaluate(f"[[...{VIEW}.scene.links.weight], [...{VIEW}.scene.links.strength]]")
    sizes = [abs(weight) for weight in weights]
    assert sizes == sorted(sizes), "the strongest last, on top"
    assert strengths == sorted(strengths)
    assert strengths[0] < 0.2 < strengths[-1] == 1
    looks = page.evaluate(
        f"""(async () => {{ const {{ lineOf }} = await import('/assets/graph/marks.mjs');
            const {{ links }} = {VIEW}.scene, {{ lines }} = {VIEW}.canvas.theme;
            return [...links.via].map((via, e) => [via, links.weight[e] < 0, ...lines[lineOf(links, e)]]); }})()"""
    )
    assert all(bool(dash) == negative for _, negative, _, dash in looks), "a negative score is dashed"
    assert len({colour for *_, colour, _ in looks}) == len({via for via, *_ in looks}) == 4


def test_a_line_bends_round_a_node_in_its_way_and_no_two_nodes_lie_on_each_other(visit):
    page = visit.open("/circuit/ioi?n=40")
    graph_is_drawn(page, 40)
    places = page.evaluate(f"{VIEW}.scene.items.map(({{ x, y }}) => [x, y])")
    assert len({tuple(place) for place in places}) == len(places)
    rows = page.evaluate(f"{VIEW}.scene.items.map(({{ y, layer }}) => [layer, y])")
    assert [layer for layer, _ in sorted(rows, key=lambda row: -row[1])] == sorted(layer for layer, _ in rows)
    through = page.evaluate(
        f"""(() => {{ const {{ links, items }} = {VIEW}.scene, bows = [];
            links.from.forEach((from, e) => {{ const a = items[from], b = items[links.to[e]];
                const low = Math.min(a.y, b.y), high = Math.max(a.y, b.y);
                if (Math.abs(a.x - b.x) < 1 && items.some(({{ x, y }}) =>
                    Math.abs(x - a.x) < 1 && y > low + 1 && y < high - 1)) bows.push(Math.abs(links.bow[e])); }});
            return bows; }})()"""
    )
    assert through
    assert min(through) > 30
    free = page.evaluate(f"[...{VIEW}.scene.links.bow].filter((bow) => bow === 0).length")
    assert free > 0


def test_groups_are_folded_and_found_again_by_the_address(visit):
    page = visit.open("/circuit/ioi?n=40")
    graph_is_drawn(page, 40)
    first, second = "L0H0", "L1H0"
    page.evaluate(f"{VIEW}.edits.regroup([['early; <b>one</b>', ['{first}', '{second}']]])")
    page.wait_for_selector(".wb-graph-group-list li")
    assert "early; <b>one</b>" in page.locator(".wb-graph-group-list li").inner_text()
    before = page.evaluate(f"{VIEW}.scene.links.weight.reduce((a, b) => a + b, 0)")
    page.get_by_label("collapse groups").check()
    page.wait_for_function(f"{VIEW}.scene.items.some((item) => item.node < 0)")
    assert page.evaluate(f"{VIEW}.scene.items.some((item) => item.label === '{first}')") is False
    after = page.evaluate(f"{VIEW}.scene.links.weight.reduce((a, b) => a + b, 0)")
    assert after == pytest.approx(before), "a folded group takes over the edges of its members"
    click(page, "early")
    page.wait_for_selector(".wb-members")
    assert page.locator(".wb-members").inner_text().split() == [first, second]
    wait_for_address(page, "at=L0H0,L1H0")
    page.wait_for_selector("#circuit-graph[data-saved*=early]")
    before = shown(page)
    page.goto(page.url)
    graph_is_drawn(page)
    page.wait_for_selector(".wb-members")
    assert shown(page) == before
    page.get_by_role("button", name="Ungroup all").click()
    page.wait_for_selector(".wb-graph-group-list", state="detached")
    assert visit.errors == []


def test_a_line_between_groups_opens_its_edges(visit):
    page = visit.open("/circuit/ioi?n=400")
    graph_is_drawn(page, 400)
    page.get_by_role("button", name="Group by band of layers").click()
    page.wait_for_function(f"{VIEW}.scene.items.filter((item) => item.node < 0).length === 3")
    ids = page.evaluate(
        f"[...{VIEW}.scene.links.from.keys()].map((e) => {VIEW}.edgesOf(e)).find((ids) => ids.length > 12)"
    )
    page.evaluate(f"(ids) => {VIEW}.pick(ids)", ids)
    page.wait_for_selector(f"#circuit-side h2:has-text('{len(ids)} edges through its')")
    assert page.locator("#circuit-side .wb-lines li").count() == 12
    assert page.evaluate(f"{VIEW}.canvas.link") >= 0
    assert visit.errors == []


def test_proposals_group_by_themselves(visit):
    page = visit.open("/circuit/ioi")
    graph_is_drawn(page, 24)
    page.get_by_role("button", name="Group by band of layers").click()
    page.wait_for_function(f"{VIEW}.scene.items.filter((item) => item.node < 0).length === 3")
    page.get_by_role("button", name="Group by role").click()
    page.wait_for_selector(".wb-graph-notice:has-text('No two of the shown nodes')")


def test_roles_have_their_colour_and_the_legend_names_it(visit):
    page = visit.open("/circuit/induction")
    graph_is_drawn(page, 4)
    roles = page.evaluate(f"Object.fromEntries({VIEW}.scene.items.map((item) => [item.label, item.role]))")
    assert roles["L4H1"] == roles["L5H3"] >= 0
    assert roles["L1H2"] not in (roles["L4H1"], -1)
    assert roles["L3H0"] == -1
    legend = page.locator("#circuit-graph .wb-legend").inner_text()
    for words in ("q: query", "k: key", "v: value", "negative score", "induction", "previous token"):
        assert words in legend
    assert "into an MLP" not in legend, "no such edge"
    assert page.evaluate(f"{VIEW}.canvas.named.length") == 4, "every head has its name"


def test_json_and_picture_hold_what_is_shown(visit, tmp_path):
    page = visit.open("/circuit/ioi?n=9")
    graph_is_drawn(page, 9)
    files = {}
    for kind in ("JSON", "PNG"):
        with page.expect_download() as found:
            page.locator(".wb-graph-tools .wb-act", has_text=kind).click()
        files[kind] = tmp_path / found.value.suggested_filename
        found.value.save_as(files[kind])
    assert [file.name for file in files.values()] == ["ioi-9-edges.json", "ioi.png"]
    assert len(json.loads(files["JSON"].read_text())["edges"]) == 9
    picture = files["PNG"].read_bytes()
    assert picture.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", picture[16:24])
    assert width > 300
    assert height > 300
    assert len(picture) > 5000
    assert visit.errors == []


def test_the_table_is_a_way_in_without_the_graph(visit):
    page = visit.open("/circuit/ioi")
    graph_is_drawn(page, 24)
    row = page.locator(".wb-circuit-table .ag-row[row-index='2']")
    ends = [row.locator(f"[col-id={c}]").inner_text() for c in ("source", "target")]
    row.locator("[col-id=source]").click()
    page.wait_for_selector(".wb-circuit-chosen")
    assert page.locator("#circuit-side h2").inner_text() == " → ".join(ends)
    assert page.evaluate(f"{VIEW}.canvas.link") >= 0, "and it lights in the graph"


def test_keys_zoom_walk_and_let_go(visit):
    page = visit.open("/circuit/induction?at=L4H1")
    graph_is_drawn(page, 4)
    level = page.evaluate(f"{VIEW}.canvas.camera.zoom")
    page.locator("body").press("-")
    assert page.evaluate(f"{VIEW}.canvas.camera.zoom") < level
    page.locator("body").press("0")
    assert page.evaluate(f"{VIEW}.canvas.camera.zoom") == pytest.approx(level)
    page.locator("body").press("Escape")
    page.wait_for_function("document.querySelector('#circuit-side h2').innerText === 'Numbers'")
    area = page.locator(".wb-graph-area")
    area.press("Enter")
    wait_for_address(page, "at=L1H2")
    area.press("ArrowUp")
    wait_for_address(page, "at=L4H1")
    page.wait_for_function("document.querySelector('#circuit-side h2').innerText === 'L4H1'")
    area.press("Enter")
    assert page.evaluate("document.activeElement.id") == "circuit-side"


def test_the_wheel_moves_the_page_and_zooms_with_ctrl(visit):
    page = visit.open("/circuit/induction")
    graph_is_drawn(page, 4)
    page.set_viewport_size({"width": 1280, "height": 500})
    page.mouse.move(*spot(page, "L4H1"))
    level, top = page.evaluate(f"[{VIEW}.canvas.camera.zoom, scrollY]")
    page.mouse.wheel(0, 80)
    page.wait_for_function(f"scrollY > {top}")
    assert page.evaluate(f"{VIEW}.canvas.camera.zoom") == level
    page.keyboard.down("Control")
    page.mouse.wheel(0, -80)
    page.keyboard.up("Control")
    page.wait_for_function(f"{VIEW}.canvas.camera.zoom > {level}")


def test_a_thousand_edges_are_drawn_within_seconds(visit):
    page = visit.open("/circuit/ioi?n=5000")
    graph_is_drawn(page, 1000)
    assert "at most 1,000 are drawn" in page.locator(".wb-graph-share").inner_text()
    frame = page.evaluate(
        f"""() => new Promise((done) => {{ const start = performance.now(), {{ canvas }} = {VIEW};
            delete canvas.root.dataset.edges; canvas.redraw();
            const look = () => (canvas.root.dataset.edges ? done(performance.now() - start) : setTimeout(look, 5));
            look(); }})"""
    )
    assert frame < 2000


def switch(page, scheme: str) -> None:
    """Click the switch until the page has a scheme: a page that is busy may lose a click."""
    for _ in range(5):
        page.click("#scheme-toggle")
        with contextlib.suppress(TimeoutError):
            page.wait_for_function(f"document.documentElement.dataset.scheme === '{scheme}'", timeout=5000)
            return
    raise AssertionError(f"the switch does not make the page {scheme}")


def test_switching_the_scheme_keeps_the_view(visit):
    page = visit.open("/circuit/ioi?n=30")
    graph_is_drawn(page, 30)
    page.wait_for_selector("#circuit-side h2")
    before = shown(page)
    settle(page)
    switch(page, "dark")
    page.wait_for_function(f"{VIEW}?.canvas.theme.surface === '#171a1f'")
    settle(page)  # the page draws the graph anew, beside other work also after the theme is there
    graph_is_drawn(page, 30)
    page.wait_for_selector("#circuit-side h2")
    assert shown(page) == before
    switch(page, "light")


def test_the_graph_is_drawn_on_a_narrow_screen(visit):
    visit.page.set_viewport_size({"width": 390, "height": 800})
    page = visit.open("/circuit/induction")
    graph_is_drawn(page, 4)
    click(page, "L1H2-k-L5H3")
    page.wait_for_function("document.querySelector('#circuit-side h2').innerText === 'L1H2 → L5H3'")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("address", ["/circuit/induction", "/circuit/ioi?n=400&at=L0MLP"])
def test_tables_and_graph_break_no_rule_of_axe_at_any_width(axe_visit, width, address):  # noqa: F811
    axe_visit.page.set_viewport_size({"width": width, "height": 800})
    page = axe_visit.open(address)
    graph_is_drawn(page)
    page.evaluate("document.querySelectorAll('main details').forEach((each) => { each.open = true; })")
    settle(page)
    assert violations(page) == []


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
