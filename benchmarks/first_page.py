"""Time until `workbench --help` and the first page of the dashboard, each from a cold process.

`python -m benchmarks.first_page [--json]`. The ratio is seconds / the seconds allowed, the median of five processes: 1
is the limit and lower is better. A page is timed from the start of Python to the answer of its last request without a
prompt: the document, the layout, the callback graph and the page itself. The benchmark fails when torch was loaded.

`python -m benchmarks.first_page --workspace DIR [--page /directions]` serves a workspace of your own instead, five
times, to a browser with an empty cache, and prints the seconds until `serve` says its address, and from then until all
that the page draws at once is drawn: three findings on the overview, the figures of *Directions*.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.prompt_page import FLAGS, chromium, wait_until
from benchmarks.report import Result, at_most, main

HELP_SECONDS, PAGE_SECONDS, REPEATS = 0.5, 2.0, 5
DRAWN = {
    "/": "() => document.querySelectorAll('#overview-found .wb-card').length === 3",
    "/directions": "() => document.querySelectorAll('#directions-parts .js-plotly-plot .main-svg').length > 1",
}
"""Of the browser, by page: whether what it draws at once is drawn."""

FIRST_PAGE = """
import sys
from werkzeug.test import Client
from dashboard.serve import make_server
from interp.workspace import Workspace

server = make_server(Workspace(sys.argv[1]))
client = Client(server.app)
host = {"Host": f"127.0.0.1:{server.server_port}"}
for path in ("/", "/_dash-layout", "/_dash-dependencies"):
    assert client.get(path, headers=host).status_code == 200, path
page = {
    "output": ".._pages_content.children..._pages_store.data..",
    "outputs": [{"id": "_pages_content", "property": "children"}, {"id": "_pages_store", "property": "data"}],
    "inputs": [
        {"id": "_pages_location", "property": "pathname", "value": "/"},
        {"id": "_pages_location", "property": "search", "value": ""},
        {"id": "scheme", "property": "data", "value": "light"},
    ],
    "changedPropIds": ["_pages_location.pathname"],
}
answer = client.post("/_dash-update-component", json=page, headers=host)
assert answer.status_code == 200, answer.text
assert "Overview" in answer.text and "That did not work" not in answer.text
assert "torch" not in sys.modules, "torch was loaded before any prompt"
"""


def run() -> list[Result]:
    """Measure the seconds until the help text and the first page, relative to the seconds allowed."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = _workspace(Path(folder) / "workspace")
        help_seconds = _seconds(["-m", "workbench", "--help"])
        page_seconds = _seconds(["-c", FIRST_PAGE, str(workspace)])
    return [
        _result("workbench --help", help_seconds, HELP_SECONDS),
        _result("first dashboard page, without torch", page_seconds, PAGE_SECONDS),
    ]


def print_opened(workspace: Path, path: str) -> None:
    """Print the seconds until a server is ready, and until a page is drawn, in every turn and their medians."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        _opened(browser, workspace, path)  # fills the disk cache, and is not counted
        turns = [_opened(browser, workspace, path) for _ in range(REPEATS)]
        browser.close()
    for name, values in zip(("ready", "drawn after ready", "CPU of the server"), zip(*turns, strict=True), strict=True):
        print(f"{path} {name}: median {median(values):.2f} s ({', '.join(f'{value:.2f}' for value in values)})")


def _opened(browser: Any, workspace: Path, path: str) -> tuple[float, float, float]:
    command = [sys.executable, "-m", "workbench", "serve", "--workspace", str(workspace), "--no-browser"]
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    started = time.perf_counter()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        assert server.stdout is not None
        address = next(found[1] for line in server.stdout if (found := re.search(r"is at (http://[^/]+)/", line)))
        ready = time.perf_counter()
        page.goto(address + path, wait_until="commit")
        wait_until(page, DRAWN[path], 60)
        drawn = time.perf_counter()
        used = sum(map(int, Path(f"/proc/{server.pid}/stat").read_text().split()[13:15])) / os.sysconf("SC_CLK_TCK")
    finally:
        context.close()
        server.terminate()
        server.wait()
    return ready - started, drawn - ready, used


def _result(question: str, seconds: list[float], allowed: float) -> Result:
    return at_most(
        question,
        median(seconds) / allowed,
        1.0,
        f"{allowed:g} seconds",
        f"{median(seconds):.2f} s, best {min(seconds):.2f}, worst {max(seconds):.2f} of {len(seconds)}",
    )


def _seconds(arguments: list[str]) -> list[float]:
    """Return wall seconds of fresh interpreters, after an uncounted one that fills the disk cache."""
    taken = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        taken.append(time.perf_counter() - started)
    return taken[1:]


def _workspace(root: Path) -> Path:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fixtures"))
    from make_workspace import build

    return build(root, n_features=512, n_points=2000).root


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--page", choices=DRAWN, default="/")
    given, _ = parser.parse_known_args()
    if given.workspace:
        print_opened(given.workspace, given.page)
    else:
        main(run)
