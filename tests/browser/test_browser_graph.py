"""The graph page in the browser: light, choose, pin, name, fold groups, intervene, by pointer and by keys."""

import json
import shutil
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import wait_for_address
from make_graph import make_graph, write_graph
from test_browser_axe import axe_visit, violations  # noqa: F401 (a fixture)

from interp.notes import FILE, Notes
from interp.tracing.graph import AttributionGraph
from interp.tracing.part import graph_effects, part_of
from interp.workspace import Workspace

pytestmark = pytest.mark.browser

VIEW = "document.querySelector('#graph-view').graphView"
CROSSING_LINE = """(view) => {
  const { canvas, scene, model } = view, { items, links } = scene;
  for (let y = 20; y < canvas.height - 20; y += 3)
    for (let x = 60; x < canvas.width - 20; x += 3) {
      const link = canvas.hit(x, y) < 0 ? canvas.linkAt(x, y) : -1;
      if (link < 0) continue;
      const [a, b] = [links.from[link], links.to[link]].map((k) => items[k].node);
      if (a >= 0 && b >= 0 && model.position[a] !== model.position[b])
        return { x, y, source: model.ids[a], target: model.ids[b] };
    }
}"""
"""A point on a line between two positions, with the ids of its ends."""


@pytest.fixture(scope="module")
def graphs(base_workspace: Workspace) -> Iterator[dict[str, AttributionGraph]]:
    """Two graphs in the workspace, one of hostile texts."""
    settings: dict[str, dict[str, Any]] = {
        "capital": {"n_features": 60, "n_edges": 500},
        "hostile": {"hostile": True, "n_tokens": 13},
    }
    for name, given in settings.items():
        write_graph(base_workspace, name, **given)
    yield {name: make_graph(**given) for name, given in settings.items()}
    for name in settings:
        shutil.rmtree(base_workspace.root / "graphs" / name)


@pytest.fixture(autouse=True)
def no_edits(base_workspace: Workspace, graphs):
    """Every test starts from graphs that nobody has edited."""
    notes = Notes.open(base_workspace)
    for name in graphs:
        key = f"graphs/{name}"
        notes.save_graph_edits(key, {}, was=notes.graph_edits(key))


def open_graph(visit, address: str = "/graph/capital"):
    page = visit.open(address)
    page.wait_for_selector("#graph-view[data-ready]")
    page.wait_for_selector("#graph-view .wb-graph-area[data-edges], #graph-view[data-view=list]")
    return page


def place(page, node: str) -> tuple[float, float]:
    """Return the position of a node on the screen."""
    page.evaluate("document.querySelector('.wb-graph-area').scrollIntoView({ block: 'center' })")
    at = f"{VIEW}.scene.at[{VIEW}.model.numbers.get(id)]"
    x, y = page.evaluate(f"(id) => {VIEW}.canvas.place({VIEW}.scene.items[{at}])", node)
    box = page.locator(".wb-graph-area").bounding_box()
    return box["x"] + x, box["y"] + y


def strongest(graph: AttributionGraph, n: int = 1) -> list[str]:
    """Return the latents of largest effect on the target."""
    effect = graph_effects(graph)
    found = sorted(range(len(graph.nodes)), key=lambda i: -abs(effect[i]))
    return [graph.nodes[i].id for i in found if graph.nodes[i].kind == "feature"][:n]


def saved(page) -> dict:
    """Return the edits once they are stored."""
    page.wait_for_function(f"(() => {{ const e = {VIEW}.edits; return !e.sending && "
                           "document.querySelector('#graph-view').dataset.saved; })()")  # fmt: skip
    page.wait_for_timeout(450)
    return json.loads(page.locator("#graph-view").get_attribute("data-saved"))


def between(graph: AttributionGraph) -> list[int]:
    """Return the numbers of latents and errors, those of largest effect first."""
    effect = np.abs(graph_effects(graph))
    found = [i for i, node in enumerate(graph.nodes) if node.kind in ("feature", "error")]
    return sorted(found, key=lambda i: -effect[i])


def test_a_graph_opens_on_the_sixty_largest_effects_and_the_slider_shows_more(visit, graphs):
    page, graph = open_graph(visit), graphs["capital"]
    ranked, ends = between(graph), len(graph.nodes) - len(between(graph))
    shown = page.evaluate(f"{VIEW}.scene.items.filter(i => i.kind < 2).map(i => i.node)")
    assert {*shown} == {*ranked[:60]}
    assert page.locator("#graph-view").get_attribute("data-nodes") == str(60 + ends)
    assert page.locator(".wb-graph-slider output").first.inner_text() == f"60 of {len(ranked)}"
    page.evaluate(f"{VIEW}.change({{ edges: 1 }})")
    page.get_by_role("slider", name="Nodes").focus()
    page.keyboard.press("End")
    page.wait_for_function(f"{VIEW}.scene.items.length === {len(graph.nodes)}")
    assert page.evaluate(f"{VIEW}.scene.links.from.length") == len(graph.edges)
    wait_for_address(page, f"nodes={len(ranked)}&edges=1")
    assert visit.errors == visit.outside == []


@pytest.mark.parametrize("query", ["", "view=list", "nodes=20&edges=0.5&target=0&pins=feature:9:9:9&background=1"])
def test_the_first_picture_takes_one_request(visit, graphs, query):
    asked = []
    visit.page.on("request", lambda request: asked.append(request.url.partition("/graph-data/")[2]))
    page = open_graph(visit, f"/graph/capital?{query}")
    page.wait_for_timeout(500)
    assert [url.partition("?")[0] for url in asked if url] == ["capital/graph.json"]
    page.evaluate(f"{VIEW}.change({{ nodes: 30 }})")
    assert [url.partition("?")[0] for url in asked if url] == ["capital/graph.json", "capital/part.json"]


@pytest.mark.parametrize("width", [1440, 1280])
def test_the_ten_strongest_latents_have_names_that_overlap_nothing(visit, graphs, width):
    visit.page.set_viewport_size({"width": width, "height": 900})
    page, graph = open_graph(visit), graphs["capital"]
    page.wait_for_function(f"{VIEW}.canvas.named.length > 0")
    named = page.evaluate(f"{VIEW}.canvas.named")
    latents = [i for i in between(graph) if graph.nodes[i].kind == "feature"]
    assert {each["node"] for each in named} == {*latents[:10]}
    boxes = [each["box"] for each in named]
    boxes += page.evaluate(f"{VIEW}.scene.items.filter(i => i.kind === 3).map(i => {VIEW}.canvas.boxOn(i))")
    for i, a in enumerate(boxes):
        assert a[0] >= 0
        assert a[2] <= page.locator(".wb-graph-area").bounding_box()["width"]
        for b in boxes[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    page.get_by_role("button", name="Closer (+)").click()
    page.get_by_role("button", name="Closer (+)").click()
    page.wait_for_function(f"{VIEW}.canvas.named.length !== 10")


def test_layer_0_is_at_the_bottom_and_the_target_at_the_top(visit, graphs):
    page = open_graph(visit)
    rows = page.evaluate(
        f"{VIEW}.layout.rows.map((r, i) => [i, r.y, r.name]).filter(([i]) => {VIEW}.layout.rows[i].used)"
    )
    assert [name for _, _, name in rows] == ["tokens", *(f"L{i - 1}" for i, _, _ in rows[1:])]
    assert sorted(rows) == sorted(rows, key=lambda row: -row[1]), "a deeper layer is higher up"
    target = page.evaluate(f"Math.max(...{VIEW}.scene.items.filter(i => i.kind === 3).map(i => i.y))")
    assert target < min(y for _, y, _ in rows)


def test_one_target_alone_hides_the_others_and_ranks_by_the_effect_on_it(visit, graphs):
    page, graph = open_graph(visit), graphs["capital"]
    page.get_by_role("link", name="“Lyon”").click()
    wait_for_address(page, "target=1")
    at = next(i for i, node in enumerate(graph.nodes) if node.kind == "logit" and node.index == 1)
    page.wait_for_function(f"{VIEW}?.state?.target === {at}")  # of the page that the link opened
    page.wait_for_function(f"{VIEW}.known === {VIEW}.wanted")
    drawn = f"{VIEW}.scene.items.filter(i => i.kind === 3).map(i => i.node)"
    page.wait_for_function(f"String({drawn}) === '{at}'")  # the scene follows the selection by a frame
    shown = part_of(graph, most=60, edges=graph.thresholds[1], target=at)
    assert page.locator("#graph-view").get_attribute("data-nodes") == str(int(shown.nodes.sum()))
    assert page.locator("#graph-view").get_attribute("data-links") == str(int(shown.edges.sum()))
    effects = page.evaluate(f"{VIEW}.model.sizes")
    np.testing.assert_allclose(effects, graph_effects(graph, 1), rtol=1e-4)
    wait_for_address(page, "target=1")


def test_hover_lights_a_node_and_a_click_opens_it_with_its_edges(visit, graphs):
    page, graph = open_graph(visit), graphs["capital"]
    node = strongest(graph)[0]
    page.mouse.move(*place(page, node))
    page.wait_for_selector(".wb-graph-dim")
    assert page.locator(".wb-graph-tip").is_visible()
    page.mouse.click(*place(page, node))
    page.wait_for_selector(f"#graph-view[data-chosen='{node}']")
    into = graph.edges_into(node)
    lines = page.locator(".wb-graph-chosen ol.wb-graph-edges").first.locator(".wb-value").all_inner_texts()
    expected = [row["weight"] for row in into[: len(lines)]]
    assert [float(line.replace("−", "-")) for line in lines] == pytest.approx(expected, rel=5e-3)
    wait_for_address(page, f"at={node}")
    page.locator(".wb-graph-chosen .wb-graph-line").first.click()
    page.wait_for_selector(f"#graph-view[data-chosen='{into[0]['node']}']")
    page.keyboard.press("Escape")
    assert visit.errors == []


def test_a_pin_and_a_name_survive_reload_and_export(visit, graphs, base_workspace):
    page, first = open_graph(visit), strongest(graphs["capital"])[0]
    page.mouse.click(*place(page, first))
    page.locator("[data-act=pin]").click()
    page.locator("[data-act=name]").click()
    page.get_by_label("Name of the node").fill("<img src=x onerror=window.pwned=1>")
    page.keyboard.press("Enter")
    edits = saved(page)
    assert edits == {"pins": [first], "names": {first: "<img src=x onerror=window.pwned=1>"}}
    page = open_graph(visit, f"/graph/capital?pins={first}")
    assert page.evaluate(f"{VIEW}.edits.stored") == edits
    assert page.evaluate("window.pwned") is None
    with urllib.request.urlopen(f"{visit.base}/api/notes/export") as answer:
        exported = json.load(answer)["graphs"]["graphs/capital"]
    assert {name: value for name, value in exported.items() if value} == edits
    assert (base_workspace.root / FILE).exists()
    assert visit.errors == []


def test_a_collapsed_group_has_the_signed_sums_of_its_members(visit, graphs):
    page, graph = open_graph(visit), graphs["capital"]
    members = strongest(graph, 3)
    page.evaluate(f"{VIEW}.edits.regroup([['say a city', {json.dumps(members)}]])")
    page.get_by_label("collapse groups").check()
    page.wait_for_function(f"{VIEW}.scene.items.some(i => i.node < 0)")
    found = page.evaluate(
        f"""() => {{ const {{ items, links }} = {VIEW}.scene, g = items.findIndex(i => i.node < 0);
            return {{ label: items[g].label, into: links.into[g].map(e => [items[links.from[e]].node, links.weight[e]]),
                      out: links.out[g].map(e => [items[links.to[e]].node, links.weight[e]]) }}; }}"""
    )
    assert found["label"] == "say a city (3)"
    inside = {graph.number[node] for node in members}
    for side, own, other in (("into", graph.edges.target, graph.edges.source),
                             ("out", graph.edges.source, graph.edges.target)):  # fmt: skip
        assert found[side]
        for node, weight in found[side]:
            rows = [e for e in range(len(graph.edges)) if int(own[e]) in inside and int(other[e]) == node]
            assert weight == pytest.approx(float(graph.edges.weight[rows].sum()), abs=1e-3)
            assert node not in inside
    assert saved(page)["groups"] == [["say a city", members]]
    wait_for_address(page, "collapse=1")


def test_the_list_does_everything_by_keyboard(visit, graphs):
    page, graph = open_graph(visit, "/graph/capital?view=list"), graphs["capital"]
    assert page.locator(".wb-graph-area").is_hidden()
    rows = page.locator(".wb-graph-table tbody tr")
    assert rows.count() == 60 + len(graph.nodes) - len(between(graph))
    page.get_by_label("Filter nodes").fill("target")
    assert rows.count() == 3
    page.get_by_label("Filter nodes").fill("")
    page.evaluate("document.querySelector('.wb-graph-table tbody tr[tabindex=\"0\"]').focus()")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("p")
    focused = "document.activeElement.dataset.node"
    first = page.evaluate(f"{VIEW}.model.ids[{focused}]")
    page.locator("tr:focus").filter(has_text="pinned").wait_for()  # the server says what is drawn with the pin
    page.keyboard.press("n")
    page.keyboard.press("Control+a")
    page.keyboard.type("one of them")
    page.keyboard.press("Enter")
    assert saved(page) == {"pins": [first], "names": {first: "one of them"}}
    page.evaluate("document.querySelector('.wb-graph-table tbody tr[tabindex=\"0\"]').focus()")
    here = page.evaluate(f"{VIEW}.model.ids[{focused}]")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#graph-view[data-chosen='{here}']")
    assert page.evaluate("document.activeElement.closest('.wb-graph-chosen') !== null")
    assert visit.errors == []


def test_keys_walk_the_graph(visit, graphs):
    page, graph = open_graph(visit), graphs["capital"]
    page.locator(".wb-graph-area").focus()
    page.keyboard.press("ArrowDown")
    chosen = page.locator("#graph-view").get_attribute("data-chosen")
    assert chosen.startswith("logit:")
    page.keyboard.press("ArrowDown")
    below = page.locator("#graph-view").get_attribute("data-chosen")
    shown = {graph.nodes[i].id for i in between(graph)[:60]} | {n.id for n in graph.nodes if n.kind == "token"}
    assert below == next(row["node"] for row in graph.edges_into(chosen) if row["node"] in shown)
    page.keyboard.press("Escape")
    assert page.locator("#graph-view").get_attribute("data-chosen") is None


def test_a_narrow_screen_shows_the_list_and_scrolls_nowhere(visit, graphs):
    visit.page.set_viewport_size({"width": 390, "height": 844})
    page = open_graph(visit)
    assert page.locator(".wb-graph-table").is_visible()
    assert page.locator(".wb-graph-area").is_hidden()
    page.wait_for_function("document.documentElement.scrollWidth <= innerWidth + 1")


def test_a_picture_is_saved_and_hostile_texts_stay_texts(visit, graphs):
    page = open_graph(visit, "/graph/hostile?nodes=1000&edges=1")
    assert page.evaluate("window.pwned") is None
    page.locator("#graph-view").get_by_text("More", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").click()
    picture = download.value.path().read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000, "a graph, not an empty sheet"
    assert download.value.suggested_filename == "hostile.png"
    assert visit.errors == visit.outside == []


def test_two_windows_do_not_overwrite_each_other(visit, graphs, base_workspace):
    page = open_graph(visit)
    first, second = strongest(graphs["capital"], 2)
    Notes.open(base_workspace).save_graph_edits("graphs/capital", {"pins": [second]}, was={})
    page.evaluate(f"{VIEW}.edits.togglePin('{first}')")
    page.locator(".wb-graph-notice").filter(has_text="changed elsewhere meanwhile").wait_for()
    assert Notes.open(base_workspace).graph_edits("graphs/capital") == {"pins": [second]}


def test_an_edge_from_another_token_is_split_by_heads_that_lead_to_their_attention(visit, graphs, live):
    page, graph = open_graph(visit), graphs["capital"]
    position = {node.id: node.position for node in graph.nodes}
    node = next(
        name for name in strongest(graph, 40)
        if any(position[row["node"]] != position[name] for row in graph.edges_into(name))
    )  # fmt: skip
    page.evaluate(f"{VIEW}.choose({graph.number[node]})")
    page.get_by_text("Heads that move it", exact=True).click()
    page.get_by_role("button", name="Split by heads").click()
    link = page.get_by_role("link", name="L1H0")
    assert "layer=1" in link.get_attribute("href")
    assert "head=0" in link.get_attribute("href")
    assert "+0.75" in page.locator(".wb-graph-chosen table").inner_text()
    assert any(call == "split" and text.endswith(node) for call, text in live.calls)
    page.get_by_role("button", name="Why L1H0 attends").click()
    page.get_by_text("Pairs of query and key").wait_for()
    why = page.locator(".wb-graph-why").inner_text()
    assert "+3.00 above the mean of other keys" in why
    assert "not in this graph, on" in why
    assert "9999 on" in why
    assert "by query and key alone" in why
    dashed = f"[...{VIEW}.scene.links.via].filter((via) => via === 1).length"
    assert page.evaluate(dashed) == 1, "from the node that the graph left out"
    assert ("reasons", f"capital: L1H0 {position[node]} -> 1") in live.calls
    page.evaluate(f"{VIEW}.choose(null)")
    assert page.evaluate(dashed) == 0
    spot = page.evaluate(f"({CROSSING_LINE})({VIEW})")
    box = page.locator(".wb-graph-area").bounding_box()
    page.mouse.click(box["x"] + spot["x"], box["y"] + spot["y"])
    page.wait_for_function(f"{VIEW}.root.dataset.chosen === {json.dumps(spot['target'])}")
    page.get_by_role("button", name="Why L1H0 attends").wait_for()
    assert live.calls[-1] == ("split", f"capital: {spot['source']} -> {spot['target']}")
    page.get_by_text("Heads of the whole graph", exact=True).click()
    page.get_by_role("button", name="Measure", exact=True).click()
    loads = page.get_by_role("region", name="Heads of the whole graph")
    loads.get_by_role("img", name="Share of influence by layer and head").wait_for()
    assert "L1H1 carries 50.0% of the graph's influence, the mean head 17.5%" in loads.inner_text()
    assert page.evaluate("window.pwned") is None
    assert visit.errors == []


def test_sliders_change_a_node_and_a_group_at_once_beside_prediction_null_and_texts(visit, graphs, live):
    page = open_graph(visit)
    node, *members = strongest(graphs["capital"], 3)
    page.evaluate(f"{VIEW}.edits.regroup([['cities', {json.dumps(members)}]])")
    page.get_by_role("button", name="Change the group cities").click()
    page.mouse.click(*place(page, node))
    page.locator("[data-act=change]").click()
    page.locator(".wb-graph-sliders input").last.fill("1.5")
    page.get_by_role("button", name="Run in the model").click()
    page.wait_for_selector(".wb-graph-texts")
    said = page.locator(".wb-graph-intervene").inner_text()
    beside = ("predicted by the graph", "−1.1", "random latents, same layers", "−0.2 to +0.3", "0.05")
    for words in ("cities (2)", "× 0", "× 1.5", "one run", "measured", "−1.25", *beside, "without", "with"):
        assert words in said
    factors = f"capital: {members[0]} x 0, {members[1]} x 0, {node} x 1.5"
    assert {("intervene free", factors), ("graph text", factors)} <= {*live.calls}
    assert page.evaluate("window.pwned") is None
    assert visit.errors == []


def test_groups_collapse_into_boxes_that_do_not_overlap(visit, graphs):
    page = open_graph(visit)
    assert page.get_by_label("collapse groups").is_hidden()
    assert page.get_by_role("region", name="Groups").is_hidden()
    page.evaluate(
        f"""() => {{ const near = {VIEW}.scene.ranked.map(k => {VIEW}.scene.items[k].node).slice(0, 24);
            {VIEW}.edits.regroup(Array.from({{ length: 12 }}, (_, g) =>
                [`group number ${{g}}`, [near[2 * g], near[2 * g + 1]].map(i => {VIEW}.model.ids[i])])); }}"""
    )
    page.get_by_label("collapse groups").check()
    page.wait_for_function(f"{VIEW}.scene.items.filter(i => i.node < 0).length === 12")
    boxes = page.evaluate(f"{VIEW}.scene.items.filter(i => i.node < 0).map(i => {VIEW}.canvas.boxOn(i))")
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    page.get_by_role("button", name="Ungroup all").click()
    page.wait_for_function(f"{VIEW}.scene.items.every(i => i.node >= 0)")
    assert page.evaluate("window.pwned") is None
    assert visit.errors == []


def test_groups_of_a_former_graph_of_the_name_are_not_shown(visit, graphs, base_workspace):
    node = strongest(graphs["capital"])[0]
    groups = [["gone", ["feature:1:1:999999"]], ["here", [node, "feature:1:1:999998"]]]
    Notes.open(base_workspace).save_graph_edits("graphs/capital", {"groups": groups}, was={})
    page = open_graph(visit)
    assert page.locator(".wb-graph-group-name").all_inner_texts() == ["here"]
    assert page.evaluate(f"{VIEW}.edits.value.groups") == groups, "they are kept: the former graph may come back"


def test_an_address_of_no_node_says_so(visit, graphs):
    page = open_graph(visit, "/graph/capital?at=feature:9:9:9")
    assert "no node feature:9:9:9" in page.locator(".wb-graph-notice").inner_text()


@pytest.mark.parametrize("address", ["/graph/hostile", "/graph/hostile?view=list"])
def test_both_views_break_no_rule_of_axe(axe_visit, graphs, address):  # noqa: F811
    page = open_graph(axe_visit, address)
    first, second = strongest(graphs["hostile"], 2)
    page.evaluate(f"{VIEW}.edits.regroup([['two', ['{first}', '{second}']]])")
    page.evaluate(f"{VIEW}.choose({VIEW}.model.numbers.get('{first}'))")
    page.evaluate(f"{VIEW}.panel.intervene.add('{first}')")
    page.get_by_role("button", name="Run in the model").click()
    page.wait_for_selector(".wb-graph-texts")
    page.wait_for_timeout(300)
    assert violations(page) == []


def test_the_file_of_a_graph_opens_from_disk_and_asks_for_nothing(visit, graphs, browser, tmp_path):
    page = open_graph(visit, "/graph/hostile")
    with page.expect_download() as download:
        page.get_by_role("link", name="Save as a file").click()
    assert download.value.suggested_filename == "hostile.html"
    download.value.save_as(tmp_path / "hostile.html")
    context = browser.new_context(color_scheme="dark")
    try:
        page, problems, asked = context.new_page(), [], []
        page.on("console", lambda message: problems.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "hostile.html").as_uri())
        assert asked == [(tmp_path / "hostile.html").as_uri()]
        assert page.evaluate("window.pwned") is None
        surface = "getComputedStyle(document.querySelector('.wb-panel')).backgroundColor"
        dark = page.evaluate(surface)
        page.emulate_media(color_scheme="light")
        assert page.evaluate(surface) != dark
        assert "random orders within ±0.29" in page.locator("main").inner_text()
        assert problems == []
    finally:
        context.close()
