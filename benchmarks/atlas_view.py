"""Speed of the atlas in the browser, against Plotly's WebGL scatter: one Chromium, one run, the same points.

`python -m benchmarks.atlas_view [--points 10000 100000 1000000] [--json]`. Chromium runs headless and without a
graphics card, so the processor computes Plotly's WebGL. Ours paints points by the processor on every machine.
The canvas is 1000 x 700.

ready   time from navigation until everything is drawn, for the view in a page of its own and in the dashboard
drag    longest frame of a drag of 30 steps by real mouse events
full    time from the release of the mouse until every point is drawn again
hover   time from a mouse event until the ring is on the point under the mouse, the median of twenty
heap    size of the JavaScript heap at the end, array buffers included
For Plotly, ready, the longest frame of the same drag, and heap are measured.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Result, at_most, print_table
from interp.atlas.vector_map import Region
from interp.workspace import Workspace
from tools.chromium import FLAGS, chromium

SIZES = (10_000, 100_000, 1_000_000)
VIEWERS = ("view", "dashboard", "plotly")
WIDTH, HEIGHT = 1000, 700
LIMITS = {
    100_000: {"ready": 1200.0},
    1_000_000: {"ready": 3000.0, "drag": 50.0, "full": 500.0, "hover": 50.0, "heap": 120.0},
}
_UNITS = {"heap": "MB"}

# frames are timed by what asks for the next as soon as one came
WATCH = """() => { const w = window.watch = {last: performance.now(), longest: 0};
  const step = (t) => { w.longest = Math.max(w.longest, t - w.last); w.last = t; w.id = requestAnimationFrame(step); };
  requestAnimationFrame((t) => { w.last = t; step(t); }); }"""
LONGEST = "() => { cancelAnimationFrame(window.watch.id); return window.watch.longest; }"
TWO_FRAMES = (
    "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"
)


def measure(sizes: tuple[int, ...], viewers: tuple[str, ...] = VIEWERS) -> Iterator[dict[str, Any]]:
    """Yield one record per size and viewer: milliseconds, and megabytes of heap."""
    from playwright.sync_api import sync_playwright

    pages = {"view": ("bare", _ours), "dashboard": ("atlas", _dashboard), "plotly": ("plotly", _plotly)}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        workspace = Workspace(Path(folder) / "workspace", create=True)
        for n in sizes:
            write_map(workspace, f"points-{n}", n)
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        with _serving(workspace) as base:
            browser.new_page().goto(base)  # the first request of all sets the server up
            for n, viewer in itertools.product(sizes, viewers):
                path, measured = pages[viewer]
                yield {"n": n, "viewer": viewer, **_visit(browser, f"{base}/{path}/points-{n}", measured)}
        browser.close()


def _visit(browser: Any, address: str, measured: Callable[[Any], dict[str, float]]) -> dict[str, float]:
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    context.set_default_timeout(240_000)
    page = context.new_page()
    page.goto(address, wait_until="commit")
    try:
        return {key: round(value, 1) for key, value in measured(page).items()}
    finally:
        context.close()


def _ours(page: Any) -> dict[str, float]:
    page.wait_for_selector(".atlas[data-ready]")
    ready = float(page.locator(".atlas").get_attribute("data-ready"))  # two frames after it was drawn
    page.wait_for_selector(".atlas[data-prepared]")
    page.wait_for_timeout(400)
    drag = _dragged(page)
    full = page.evaluate(
        """() => new Promise(done => { const t = performance.now();
             const {dataset, atlasView} = document.querySelector('.atlas');
             const whole = () => dataset.detail === 'full' && !atlasView.moving;
             const look = () => whole() ? done(performance.now() - t) : setTimeout(look, 2);
             look(); })"""
    )
    return {
        "ready": ready,
        "drag": drag,
        "full": full,
        "hover": _hovered(page),
        "heap": _heap(page),
    }


def _dashboard(page: Any) -> dict[str, float]:
    page.wait_for_selector(".atlas[data-ready]")
    ready = float(page.locator(".atlas").get_attribute("data-ready"))
    page.wait_for_selector(".atlas-place > .atlas")  # the map is drawn before the page around it is up
    return {"ready": ready, "whole page": page.evaluate("performance.now()")}


def _plotly(page: Any) -> dict[str, float]:
    page.wait_for_function("window.drawn")
    ready = page.evaluate(TWO_FRAMES)
    drag = _dragged(page)
    page.mouse.move(500, 350)
    return {"ready": ready, "drag": drag, "heap": _heap(page)}


def _heap(page: Any) -> float:
    """Return the megabytes of the JavaScript heap after a collection, array buffers included."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used = session.send("Runtime.getHeapUsage")
    return (used["usedSize"] + used.get("backingStorageSize", 0)) / 1e6


def _dragged(page: Any) -> float:
    """Return the longest frame, in milliseconds, while the mouse moves the map; the last frame is included."""
    page.mouse.move(500, 400)
    page.evaluate(WATCH)
    page.mouse.down()
    for i in range(30):
        page.mouse.move(500 + 6 * i, 400 + 3 * i)
    page.mouse.up()
    page.evaluate("() => new Promise(done => requestAnimationFrame(done))")
    return page.evaluate(LONGEST)


def _hovered(page: Any) -> float:
    """Return the median milliseconds from a mouse event to the frame that shows the ring and the point's number."""
    page.evaluate(
        """() => { const view = document.querySelector('.atlas').atlasView; window.hovers = [];
             const shown = (event) => () => view.visitor.point >= 0 && hovers.push(performance.now() - event.timeStamp);
             const wait = (event) => requestAnimationFrame(() => setTimeout(shown(event)));
             view.sheets.live.addEventListener('pointermove', wait); }"""
    )
    for i in range(20):
        page.mouse.move(380 + 12 * i, 300 + 5 * i)
        page.wait_for_timeout(60)
    times = page.evaluate("hovers")
    return statistics.median(times) if times else float("nan")


def as_results(records: list[dict[str, Any]]) -> list[Result]:
    """Return each limit as the ratio measured / allowed: 1 is the limit, lower is better."""
    by = {(r["n"], r["viewer"]): r for r in records}
    results = []
    for n, limits in LIMITS.items():
        for key, allowed in limits.items():
            ours, theirs = by.get((n, "view")), by.get((n, "plotly"), {})
            if ours is None:
                continue
            unit = _UNITS.get(key, "ms")
            beside = f"; plotly {theirs[key]:,.0f} {unit}" if key in theirs else ""
            results.append(
                at_most(
                    f"atlas {key}, {n:,} points",
                    ours[key] / allowed,
                    1.0,
                    f"{allowed:g} {unit}",
                    f"{ours[key]:,.0f} {unit}{beside}",
                )
            )
    return results


def write_map(workspace: Workspace, name: str, n: int, seed: int = 0) -> None:
    """Write a synthetic map: 60 Gaussian clusters in 12 groups, labels, values, two levels of regions."""
    import pyarrow as pa

    from interp.artifacts import Table, save_artefact
    from interp.atlas.vector_map import MapPoint, Neighbourhood, VectorMap, VectorMapSettings

    rng = np.random.default_rng(seed)
    blot = rng.choice(60, n, p=rng.dirichlet(np.full(60, 3.0)))
    angle = np.arange(60) % 12 * 2.399963  # the golden angle
    groups = 9 * np.sqrt((np.arange(60) % 12 + 0.5) / 12)
    centres = groups[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + rng.normal(0, 1.1, (60, 2))
    xy = (centres[blot] + rng.normal(0, 1, (n, 2)) * rng.uniform(0.15, 0.6, 60)[blot, None]).astype(np.float32)
    fine = np.where(rng.random(n) < 0.04, -1, blot)
    coarse = np.where(fine < 0, -1, fine % 12)
    points = {
        "point": np.arange(n, dtype=np.int32), "x": xy[:, 0], "y": xy[:, 1], "label": [f" token {i}" for i in range(n)],
        "density": rng.random(n).astype(np.float32), "item": np.arange(n, dtype=np.int32),
        "value": rng.normal(0, 1, n).astype(np.float32), "kept": rng.random(n).astype(np.float32),
        "levels": np.stack([coarse, np.where(fine < 0, -1, fine + 12)], 1).tolist(),
        **dict.fromkeys(("context", "group"), pa.nulls(n, pa.string())),
    }  # fmt: skip
    rows = [_region(coarse == r, r, 0, -1, xy) for r in range(12)]
    rows += [_region(fine == r, r + 12, 1, r % 12, xy) for r in range(60)]
    made = VectorMap(
        settings=VectorMapSettings(source="synthetic"), n_points=n, n_given=n, d=2, layout="umap", quality=None,
        search="exact", search_recall=1.0, regions_per_level=(12, 60), naming=None, outside=0.04, grids=(),
        value_name="value", item_kind="index", features=None, notes=(), frame_quality=(), moved_null=None,
        points=Table.of_columns(MapPoint, points), regions=Table.of(Region, rows),
        neighbours=Table.of(Neighbourhood, []), cells=None, frames=None,
    )  # fmt: skip
    save_artefact(made, workspace.path("atlas", name), seed=seed)


def _region(inside: np.ndarray, region: int, level: int, parent: int, xy: np.ndarray) -> Region:
    mine = xy[inside] if inside.any() else np.zeros((1, 2), np.float32)
    low, high, middle = (point.astype(float) for point in (mine.min(0), mine.max(0), np.median(mine, axis=0)))
    return Region(
        region=region, level=level, parent=parent, label=f"{'group' if level == 0 else 'blot'} {region}",
        size=int(inside.sum()), x=middle[0], y=middle[1], x_min=low[0], x_max=high[0], y_min=low[1], y_max=high[1],
        contour=[], priority=float(inside.sum()),
    )  # fmt: skip


@contextmanager
def _serving(workspace: Workspace) -> Iterator[str]:
    """Serve the dashboard with two additional pages: our view alone, and Plotly's."""
    from dashboard.serve import make_server

    server = make_server(workspace)
    _add_pages(server.app, workspace)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(5)


BARE = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/assets/atlas.css">
<style>html, body { margin: 0; height: 100%; }</style><div id="map"></div>
<script type="module">import { AtlasView, sourceAt } from "/assets/atlas/view.mjs";
new AtlasView(document.getElementById("map"), sourceAt("/atlas-data/NAME"));</script>"""
PLOTLY = """<!doctype html><meta charset="utf-8"><style>html, body { margin: 0; }</style>
<div id="map" style="width: 1000px; height: 700px"></div><script src="/bench/plotly.js"></script><script type="module">
const get = async (what, kind) => new kind(await (await fetch(`/atlas-data/NAME/${what}.bin`)).arrayBuffer());
const [xy, colour] = await Promise.all([get("xy", Float32Array), get("level_0", Uint16Array)]);
const x = xy.filter((_, i) => i % 2 === 0), y = xy.filter((_, i) => i % 2);
const marker = {size: 3, color: Array.from(colour)};
await Plotly.newPlot("map", [{type: "scattergl", mode: "markers", x, y, marker, hoverinfo: "x+y"}],
  {dragmode: "pan", margin: {l: 0, r: 0, t: 0, b: 0}, hovermode: "closest"}, {scrollZoom: true, displayModeBar: false});
window.drawn = true;</script>"""


def _add_pages(app: Any, workspace: Workspace) -> None:
    """Add two pages without the dashboard's content security policy, which forbids Plotly's compiled draw calls."""
    import plotly
    from werkzeug.wrappers import Request, Response

    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    inner = app.wsgi_app

    def outer(environ: dict[str, Any], start: Any) -> Any:
        first, _, name = Request(environ).path.strip("/").partition("/")
        if first == "bench":
            return Response(script.read_bytes(), mimetype="text/javascript")(environ, start)
        if first in ("bare", "plotly"):
            page = (BARE if first == "bare" else PLOTLY).replace("NAME", name)
            return Response(page, mimetype="text/html")(environ, start)
        return inner(environ, start)

    app.wsgi_app = outer


def run() -> list[Result]:
    """Measure the milliseconds relative to those allowed, for 100,000 and a million points."""
    return as_results(list(measure(SIZES)))


def _line(record: dict[str, Any]) -> str:
    return "  ".join(value if key == "viewer" else f"{key} {value:,}" for key, value in record.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--viewers", nargs="+", choices=VIEWERS, default=list(VIEWERS))
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    arguments = parser.parse_args()
    timings = []
    for record in measure(tuple(arguments.points), tuple(arguments.viewers)):
        timings.append(record)
        if not arguments.json:
            print(_line(record), flush=True)
    if arguments.json:
        print(json.dumps(timings, indent=1))
    else:
        print_table(as_results(timings))
