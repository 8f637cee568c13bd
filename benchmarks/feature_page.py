"""Time to walk along the features of a dictionary of 100,000, in the browser and on the server.

`python -m benchmarks.feature_page [--json]`. The tables are those that ship, eleven times over: 101,376 features with
their examples and relations. A feature is *drawn* once its number and examples are in the page after the key `j`; the
server's share is the time of the answers to the callbacks of that step, as the browser measures them. The server is a
process of its own. Ratios are p95 seconds over the seconds allowed: 1 is the limit.
"""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.many_visitors import served
from benchmarks.prompt_page import wait_until
from benchmarks.report import Result, at_most, main
from tools.chromium import FLAGS, chromium

COPIES = 11
SERVER_SECONDS, DRAWN_SECONDS, STEPS, WARM = 0.06, 0.6, 40, 5
DRAWN = """(index) => document.querySelector("#feature-number")?.innerText === `#${index}`
  && document.querySelectorAll(".wb-examples li").length > 0"""


def run() -> list[Result]:
    """Measure the 95th percentiles of `STEPS` steps along the features."""
    from interp.workspace import Workspace

    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder), create=True)
        build(workspace)
        with served(workspace) as (port, _):
            drawn, answers = _walk(f"http://127.0.0.1:{port}")
    return [
        _result("feature drawn, of 100,000", drawn, DRAWN_SECONDS),
        _result("answer of the server for a feature, of 100,000", answers, SERVER_SECONDS),
    ]


def build(workspace: Any) -> None:
    """Write the features artefact `wide`: the shipped tables `COPIES` times, numbered on."""
    from interp.artifacts import Table, open_artefact, save_artefact
    from saes.features.schema import Features
    from workbench.demo import DATA

    source = open_artefact(Features, DATA / "features" / "demo")
    step = source.n_features
    parts = " union all ".join(f"select * replace (feature + {k * step} as feature) from t" for k in range(COPIES))
    names = ("features", "examples", "relations")
    tables = {name: getattr(source, name) for name in names}
    more: Any = {name: Table.of_columns(table.row, table.query(parts)) for name, table in tables.items()}
    wide = dataclasses.replace(source, n_features=COPIES * step, **more)
    save_artefact(wide, workspace.path("features", "wide"))


def _walk(base: str) -> tuple[list[float], list[float]]:
    """Return the seconds until each feature was drawn, and those of every callback answer on the way."""
    from playwright.sync_api import sync_playwright

    drawn: list[float] = []
    answers: list[float] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.goto(f"{base}/feature/wide/200")
        _until_index(page, 200)  # none of the next hundred is dead
        page.click("#feature-grid .ag-header-cell[col-id=feature]")  # the list opens sorted by the score of the label
        page.wait_for_selector("#feature-grid .ag-row[row-index='0'][row-id='0']")
        page.on("requestfinished", lambda request: _note(request, answers))
        for step in range(WARM + STEPS):
            page.wait_for_timeout(400)
            if step == WARM:
                answers.clear()
            started = time.perf_counter()
            page.locator("body").press("j")
            _until_index(page, 201 + step)
            drawn.append(time.perf_counter() - started)
        browser.close()
    return drawn[WARM:], answers


def _until_index(page: Any, index: int) -> None:
    wait_until(page, f"() => ({DRAWN})({index})", 60)


def _note(request: Any, answers: list[float]) -> None:
    if "_dash-update-component" in request.url:
        timing = request.timing
        answers.append((timing["responseStart"] - timing["requestStart"]) / 1e3)


def _result(question: str, seconds: list[float], limit: float) -> Result:
    p95 = float(np.quantile(seconds, 0.95))
    detail = f"p95 {1e3 * p95:.0f} ms, median {1e3 * float(np.median(seconds)):.0f} ms, {len(seconds)} times"
    return at_most(question, p95 / limit, 1.0, f"{1e3 * limit:g} ms", detail)


if __name__ == "__main__":
    main(run)
