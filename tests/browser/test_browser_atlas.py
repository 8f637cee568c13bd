"""The map by real mouse and key events: pan, zoom, hover, click, lasso, search, links, exports, drawing."""

import csv
import re

import numpy as np
import pytest
from conftest import wait_for_address
from make_series import series

pytestmark = pytest.mark.browser

DRAWN = ".atlas[data-prepared]"
TAKEN = ".atlas-place > .atlas[data-prepared]"
STATE = "JSON.parse(JSON.stringify(document.querySelector('.atlas').atlasView.state))"
VIEW = "document.querySelector('.atlas').atlasView"
POINT = f"""(id) => {{ const v = {VIEW}, box = v.root.getBoundingClientRect(), {{xy}} = v.points;
    return [box.left + v.camera.screenX(xy[2 * id]), box.top + v.camera.screenY(xy[2 * id + 1])]; }}"""
CAMERA = f"(({{x, y, zoom, whole}}) => ({{x, y, zoom, whole}}))({VIEW}.camera)"
BRIGHT = f"{VIEW}.points.codes.reduce((n, code) => n + (code < 128), 0)"
SETTLED = f"!{VIEW}.moving && {VIEW}.root.dataset.detail === 'full'"
INKED = """(canvas) => { const c = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d');
    c.drawImage(canvas, 0, 0);
    const {data} = c.getImageData(0, 0, canvas.width, canvas.height);
    return data.reduce((n, v, i) => n + (i % 4 === 3 && v > 0), 0); }"""
LONELY = f"""() => {{ const v = {VIEW}, {{xy}} = v.points;
    const at = (i) => [v.camera.screenX(xy[2 * i]), v.camera.screenY(xy[2 * i + 1])];
    let best = -1, most = 0;
    for (let i = 0; i < v.n; i++) {{
        const [x, y] = at(i), {{width, height}} = v.camera;
        if (x < 60 || y < 120 || x > width - 200 || y > height - 140 || v.overlay.labelAt(x, y)) continue;
        let near = 1e9;
        for (let j = 0; j < v.n; j++) if (j !== i) near = Math.min(near, Math.hypot(at(j)[0] - x, at(j)[1] - y));
        if (near > most) [best, most] = [i, near];
    }}
    return best; }}"""
RED, BLUE = (0, 0, 1), (0, 0, 2)
DRAW = """async () => { const {Renderer} = await import('/assets/atlas/renderer.mjs');
    window.drawn = (given, {opacity = 0.5, selecting = false, moving = false}) => {
        const canvas = document.createElement('canvas'), renderer = new Renderer(canvas);
        const colours = new Float32Array(4 * 256);
        colours.set([255, 0, 0, opacity, 0, 0, 255, opacity], 4);
        colours.set([255, 0, 0, 0.38 * opacity + 0.04], 4 * 129);
        renderer.resize(40, 20);
        renderer.wholeCost = 180;
        const xy = Float32Array.from(given.flatMap(([x, y]) => [x, y])), codes = Uint8Array.from(given, (p) => p[2]);
        const camera = {x: 0, y: 0, zoom: 1, width: 40, height: 20};
        renderer.draw({xy, codes}, {camera, colours, radius: 0.5, grid: null, selecting}, moving);
        return [...canvas.getContext('2d').getImageData(0, 0, 40, 20).data]; }; }"""
ZOOMED = f"""() => {{ const v = {VIEW}, {{camera, labels}} = v, found = []; let overlaps = 0;
    const clash = (a, b) => Math.abs(a.x - b.x) * camera.zoom < (a.width + b.width) / 2
        && Math.abs(a.y - b.y) * camera.zoom < (a.height + b.height) / 2;
    for (let step = 0; step < 160; step++) {{
        camera.zoom = camera.whole * 1.04 ** step;
        const shown = labels.filter((l) => camera.zoom >= l.from && camera.zoom < l.to);
        for (const a of shown) for (const b of shown) if (a !== b && clash(a, b)) overlaps++;
        found.push(shown.map((l) => labels.indexOf(l)));
    }}
    return {{found, overlaps, n: labels.length}}; }}"""


def open_map(visit, address="/atlas/embeddings"):
    page = visit.open(address)
    page.wait_for_selector(TAKEN)
    return page


def ink(page) -> int:
    """How many pixels of the points' canvas are not background."""
    page.wait_for_function(SETTLED)
    return page.evaluate(f"() => {{ {VIEW}.drawPoints(false); return ({INKED})({VIEW}.sheets.points); }}")


def lonely(page) -> int:
    """A point with nobody and no name near it, so that a click means it."""
    return page.evaluate(LONELY)


def test_a_click_shows_a_points_true_neighbours_and_one_leads_on(visit):
    page = open_map(visit)
    point = lonely(page)
    x, y = page.evaluate(POINT, point)
    page.mouse.move(x - 3, y)
    page.mouse.move(x, y, steps=3)
    page.wait_for_selector(f".atlas-tip[data-point='{point}']")
    page.mouse.click(x, y)
    page.wait_for_selector(".wb-chosen")
    assert page.locator(".wb-chosen li").count() == 15
    page.wait_for_function("document.querySelector('.atlas').atlasView.state.neighbours.length === 15")
    first = page.locator(".wb-chosen li button").first
    label = first.inner_text().strip()
    first.click()
    page.wait_for_function("(l) => document.querySelector('.wb-chosen h2').innerText.trim() === l", arg=label)
    page.wait_for_url(re.compile(r"point=\d+"))
    assert visit.errors == []


@pytest.mark.slow
def test_the_feature_of_a_point_opens_by_its_link_a_second_click_and_enter(visit):
    page = open_map(visit, "/atlas/demo-features?point=57")
    page.get_by_text("Open the feature").click()
    page.wait_for_url(re.compile(r"/feature/demo/57"))
    page = open_map(visit, "/atlas/demo-features")
    point = lonely(page)
    for _ in range(2):  # a click chooses, another opens
        page.mouse.click(*page.evaluate(POINT, point))
        page.wait_for_function(f"{VIEW}?.state.point === {point} || location.pathname.startsWith('/feature')")
        page.wait_for_timeout(500)
    page.wait_for_url(re.compile(rf"/feature/demo/{point}"))
    page = open_map(visit, "/atlas/demo-features")
    page.locator(".atlas-live").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".wb-chosen")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/feature/demo/\d+"))


def test_wheel_zooms_about_the_pointer_and_a_drag_moves_the_map_with_it(visit):
    page = open_map(visit)
    x, y = page.evaluate(POINT, 33)
    before = page.evaluate(CAMERA)
    page.mouse.move(x, y)
    page.mouse.wheel(0, -300)
    page.wait_for_function(f"document.querySelector('.atlas').atlasView.camera.zoom > {before['zoom'] * 1.4}")
    assert page.evaluate(POINT, 33) == pytest.approx([x, y], abs=0.6)
    page.mouse.down()
    page.mouse.move(x + 90, y + 40, steps=6)
    page.mouse.up()
    assert page.evaluate(POINT, 33) == pytest.approx([x + 90, y + 40], abs=0.6)
    page.wait_for_function("location.search.includes('at=')")
    page.locator("[data-atlas=all]").click()
    page.wait_for_function("!location.search.includes('at=')")


@pytest.mark.slow
def test_keys_move_and_zoom_and_escape_clears(visit):
    page = open_map(visit, "/atlas/embeddings?selection=region%3A4")
    page.locator(".atlas-live").focus()
    before = page.evaluate(CAMERA)
    for key in ("+", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    after = page.evaluate(CAMERA)
    assert after["zoom"] == pytest.approx(1.4 * before["zoom"])
    assert after["x"] > before["x"]
    page.keyboard.press("0")
    assert page.evaluate(CAMERA)["zoom"] == pytest.approx(before["whole"])
    page.keyboard.press("Escape")
    page.wait_for_function("!location.search.includes('selection=')")
    assert page.evaluate(BRIGHT) == 400


def test_shift_drag_selects_what_the_table_then_lists(visit):
    page = open_map(visit)
    box = page.locator(".atlas").bounding_box()
    left, top, right, low = box["x"] + 60, box["y"] + 120, box["x"] + 420, box["y"] + 420
    page.keyboard.down("Shift")
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, low), (left, low), (left, top + 10)):
        page.mouse.move(x, y, steps=8)
    page.mouse.up()
    page.keyboard.up("Shift")
    page.wait_for_function("location.search.includes('selection=lasso')")
    page.wait_for_function("document.querySelector('#atlas-table-title').innerText.startsWith('Chosen points')")
    bright = page.evaluate(BRIGHT)
    assert 0 < bright < 400
    assert page.locator("#atlas-table-title").inner_text() == f"Chosen points: {bright}"
    assert page.locator(".atlas-found").inner_text() == f"{bright} selected"
    with page.expect_download() as saved:
        page.locator("[data-atlas=table]").click()
    with open(saved.value.path(), encoding="utf-8", newline="") as lines:
        listed = {int(row["point"]) for row in csv.DictReader(lines)}
    expected = page.evaluate(
        "Array.from(document.querySelector('.atlas').atlasView.chosenPoints, (v, i) => v ? i : -1).filter(i => i >= 0)"
    )
    assert listed == set(expected)
    again = open_map(visit, page.url.removeprefix(visit.base))  # the address alone brings the selection back
    again.wait_for_function(f"{BRIGHT} === {bright}")


@pytest.mark.slow
def test_alt_drag_selects_a_rectangle_and_the_box_mode_zooms(visit):
    page = open_map(visit)
    box = page.locator(".atlas").bounding_box()
    page.keyboard.down("Alt")
    page.mouse.move(box["x"] + 80, box["y"] + 130)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 400, steps=5)
    page.mouse.up()
    page.keyboard.up("Alt")
    page.wait_for_function("location.search.includes('selection=box')")
    zoom = page.evaluate(CAMERA)["zoom"]
    page.locator("[data-atlas=box]").click()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 280, steps=4)
    page.mouse.up()
    page.wait_for_function(f"document.querySelector('.atlas').atlasView.camera.zoom > {3 * zoom}")
    assert page.locator("[data-atlas=pan]").get_attribute("aria-pressed") == "true"


def test_search_keeps_matches_bright_and_the_rest_in_sight(visit):
    page = open_map(visit)
    whole = ink(page)
    page.keyboard.press("f")
    page.keyboard.type("river")
    page.wait_for_function("document.querySelector('.atlas-found').innerText.includes('found')")
    found = int(page.locator(".atlas-found").inner_text().split()[0])
    assert page.evaluate(f"{VIEW}.hits.size") == found > 0  # they glow, and their neighbours keep their colour
    near = page.evaluate(f"{VIEW}.sought.near.reduce((n, v, i) => n + (v && !{VIEW}.sought.found[i]), 0)")
    assert page.evaluate(BRIGHT) == found + near > found
    page.wait_for_function(f"!{VIEW}.camera.fitted && {SETTLED}")  # it moves to what it found
    box, at = page.evaluate(
        f"[{VIEW}.camera.box, [...{VIEW}.sought.found].flatMap((m, i) => m ? [{VIEW}.place(i)] : [])]"
    )
    assert len(at) == found
    assert all(box[0] <= x <= box[2] and box[1] <= y <= box[3] for x, y in at)
    page.wait_for_function(f"{VIEW}.names.seen().every((id) => {VIEW}.names.known.has(id))")
    assert set(page.evaluate(f"[...{VIEW}.hits]")) <= set(page.evaluate(f"{VIEW}.names.seen()"))  # few points are named
    page.evaluate(f"{VIEW}.camera.fit(), {VIEW}.moved(), {VIEW}.rested()")
    page.wait_for_function(SETTLED)
    assert ink(page) == pytest.approx(whole, rel=0.1)  # dimmed, not hidden
    page.wait_for_function("location.search.includes('q=river')")
    page.wait_for_function(f"document.querySelector('#atlas-table-title').innerText.endsWith(': {found}')")


@pytest.mark.slow
def test_an_address_restores_colour_place_and_filter(visit):
    page = open_map(visit, "/atlas/embeddings?colour=kept&at=1%2C2%2C9&filter=kept%3A0.5%2C1&overlays=none")
    page.wait_for_function(f"{BRIGHT} === 200")
    assert page.locator(".atlas-choice select").first.input_value() == "kept"
    camera = page.evaluate(CAMERA)
    assert (camera["x"], camera["y"]) == (1, 2)
    assert page.evaluate(STATE)["overlays"] == []
    page.get_by_text("show all").click()
    page.wait_for_function(f"{BRIGHT} === 400")
    wait_for_address(page, without="filter")
    bar = page.locator(".atlas-scale").bounding_box()  # and a drag over the scale makes a filter
    page.mouse.move(bar["x"] + bar["width"] / 2, bar["y"] + 5)
    page.mouse.down()
    page.mouse.move(bar["x"] + bar["width"], bar["y"] + 5, steps=4)
    page.mouse.up()
    page.wait_for_function("location.search.includes('filter=kept')")
    assert page.evaluate(BRIGHT) == pytest.approx(200, abs=8)


def test_names_never_overlap_and_never_blink_while_zooming(visit):
    page = open_map(visit)
    seen = page.evaluate(ZOOMED)
    assert seen["overlaps"] == 0
    assert len({label for shown in seen["found"] for label in shown}) == seen["n"] > 8
    for label in range(seen["n"]):
        steps = [i for i, shown in enumerate(seen["found"]) if label in shown]
        assert steps == list(range(steps[0], steps[-1] + 1))


def test_hostile_labels_are_words_in_the_tip_and_the_table(visit):
    page = open_map(visit)
    for point, shows in ((0, "<script>window.pwned=1</script>"), (1, "<img src=x"), (3, "שלום"), (8, "LLLL")):
        page.evaluate(
            f"""async (id) => {{ const view = {VIEW}, [text] = await view.source.texts([id]);
                view.visitor.tip.show(text, 200, 200, view.camera); }}""",
            point,
        )
        assert shows in page.locator(".atlas-tip-label").inner_text()
        box = page.locator(".atlas-tip").bounding_box()
        assert box["width"] <= 345
        assert page.locator(".atlas-tip img, .atlas-tip script, .atlas-tip b").count() == 0
    page.wait_for_selector(".wb-atlas-grid .ag-row[row-index='1'] [col-id=label]")  # readable labels come first
    page.click(".wb-atlas-grid .ag-header-cell[col-id=point]")
    page.locator(".wb-atlas-grid .ag-row[row-index='1'] [col-id=label]", has_text="<img").wait_for()
    assert page.evaluate("window.pwned") is None
    assert visit.errors == []


def test_the_map_is_there_before_the_page_and_keeps_what_was_done_meanwhile(visit):
    held = []
    visit.page.route("**/_dash-layout", lambda route: held.append(route))  # the page around it is kept waiting
    visit.page.goto(visit.base + "/atlas/embeddings?colour=kept")
    visit.page.wait_for_selector(".atlas-early[data-prepared]")
    early = visit.page.locator(".atlas").bounding_box()
    visit.page.locator("[data-atlas=closer]").click()
    visit.page.wait_for_function(f"{VIEW}.state.at !== ''")
    zoom = visit.page.evaluate(CAMERA)["zoom"]
    held[0].continue_()
    visit.page.wait_for_selector(TAKEN)
    assert visit.page.locator(".atlas").count() == 1
    assert visit.page.evaluate(CAMERA)["zoom"] == pytest.approx(zoom, rel=0.02)
    now = visit.page.locator(".atlas").bounding_box()
    assert [now[side] for side in now] == pytest.approx([early[side] for side in now], abs=3)
    visit.page.wait_for_function("location.search.includes('at=') && location.search.includes('colour=kept')")
    assert visit.errors == []


@pytest.mark.slow
def test_a_row_of_the_table_becomes_the_chosen_point(visit):
    page = open_map(visit)
    cell = page.locator(".wb-atlas-grid .ag-row[row-index='4'] [col-id=label]")
    label = cell.inner_text().strip()
    cell.click()
    page.wait_for_selector(".wb-chosen")
    assert label in page.locator(".wb-chosen").inner_text()


@pytest.mark.slow
def test_a_picture_is_saved_with_points_and_names(visit):
    page = open_map(visit)
    with page.expect_download() as saved:
        page.locator("[data-atlas=picture]").click()
    data = saved.value.path().read_bytes()
    assert data.startswith(b"\x89PNG")
    assert saved.value.suggested_filename == "embeddings.png"
    assert len(data) > 5000


def test_points_are_drawn_where_they_lie_and_mix_whatever_their_order(visit):
    page = open_map(visit)
    page.evaluate(DRAW)

    def drawn(points, **look):
        """Pixels `[height, width, 4]` of points `(x, y, code)` in a view of 40 x 20 with one unit per pixel."""
        found = page.evaluate("([points, look]) => window.drawn(points, look)", [points, look])
        return np.array(found).reshape(20, 40, 4)

    alone = drawn([(-10, 5, 1), (99, 99, 1)])
    assert np.argwhere(alone[..., 3] > 0).tolist() == [[5, 10]]
    assert alone[5, 10].tolist()[:3] == [255, 0, 0]
    one, ten, turned = (drawn(points)[10, 20] for points in ([RED], [RED, BLUE] * 5, [BLUE, RED] * 5))
    assert (one[3], ten[3]) == pytest.approx((127.5, 255), abs=1)
    assert ten.tolist() == turned.tolist() == pytest.approx([127, 0, 127, 255], abs=1)
    faded = drawn([(-10, 5, 1), (0, 5, 129), (10, 5, 255)], selecting=True, opacity=0.8)[5, :, 3]
    assert faded[10] > 200 > 100 > faded[20] > 0  # not selected
    assert faded[30] == 0  # removed by the filter
    many = [(x % 30 - 15, x // 30 - 5, 1) for x in range(300)]
    assert drawn(many)[..., 3].astype(bool).sum() == 300
    thinned = drawn(many, moving=True)[..., 3].astype(bool)
    assert thinned.sum() == 75  # every fourth, as drawing all took four times as long as a frame may
    assert all(2 <= row.sum() <= 12 for row in thinned[6:16])


def test_the_map_needs_no_webgl(visit):
    visit.page.add_init_script(
        """const get = HTMLCanvasElement.prototype.getContext;
           HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
             return kind.startsWith('webgl') ? null : get.call(this, kind, ...rest); };"""
    )
    page = open_map(visit)
    assert ink(page) > 1000
    assert visit.errors == []


@pytest.mark.slow
def test_a_notebooks_page_works_from_one_file_and_asks_nobody(visit, tmp_path):
    import numpy as np
    from make_workspace import HOSTILE

    from dashboard.maps.view import atlas_view

    rng = np.random.default_rng(0)
    labels = [HOSTILE[i % len(HOSTILE)] if i < 50 else f"word {i}" for i in range(3000)]
    view = atlas_view(rng.normal(size=(3000, 2)), labels=labels, columns={"norm": rng.random(3000)}, colour="norm")
    frame = tmp_path / "frame.html"
    frame.write_text(f"<!doctype html><meta charset=utf-8>{view._repr_html_()}", encoding="utf-8")
    for path in (view.save(tmp_path / "map.html"), frame):
        visit.requests.clear()
        visit.page.goto(path.as_uri())
        inner = visit.page.frames[-1]
        inner.wait_for_selector(DRAWN)
        inner.fill(".atlas-search", "word 29")
        visit.until(inner, "document.querySelector('.atlas-found').innerText.startsWith('110 found')")
        assert {url.split(":")[0] for url in visit.requests} <= {"file", "data", "blob", "about"}
        assert inner.locator("[data-atlas=table]").count() == 0, "no server writes the table"
        assert inner.evaluate("window.pwned") is None
    assert visit.errors == []


def test_a_slider_moves_points_from_map_to_map_and_names_are_those_of_the_last(visit, base_workspace):
    series(base_workspace)
    page = open_map(visit, "/atlas/series")
    place = f"[...{VIEW}.points.xy.slice(0, 2)]"
    last = page.evaluate(place)
    slider = page.locator(".atlas-frames input")
    slider.focus()
    slider.press("Home")
    page.wait_for_selector(".atlas[data-frame='0']")
    assert page.evaluate(place) == pytest.approx([-last[0], -last[1]], abs=1e-4)
    assert page.locator(".atlas-frames output").inner_text() == "blocks.0 (1 of 3)"
    slider.press("ArrowRight")
    page.wait_for_selector(".atlas[data-frame='1']")
    assert page.locator(".atlas-frames output").inner_text() == "<b>blocks.1</b> (2 of 3)"
    slider.press("End")
    page.wait_for_selector(".atlas[data-frame='2']")
    assert page.evaluate(place) == pytest.approx(last, abs=1e-4)
    assert not visit.errors
