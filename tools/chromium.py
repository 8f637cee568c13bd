"""The system's Chromium on a running dashboard: for pictures, benchmarks, and tests of the browser."""

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

from dashboard.serve import make_server
from interp.workspace import Workspace

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
READY = ".wb-page:not(.wb-waiting)"
ASLEEP = """() => new Promise((found) => requestAnimationFrame(() => setTimeout(
    () => found(document.readyState === "complete" && !document.querySelector("[data-dash-is-loading=true]")))))"""
"""Of the browser: after the next frame, whether all is loaded and no part of the page waits for the server."""


def chromium() -> str:
    """Return the path of the system's Chromium. Exits with a sentence where there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        raise SystemExit(f"no Chromium on this machine ({', '.join(NAMES)} were looked for); install one")
    return path


@contextlib.contextmanager
def serving(workspace: Workspace, **options: Any) -> Iterator[str]:
    """Serve a workspace in a thread, and yield its address; `options` are those of `make_server`."""
    server = make_server(workspace, **options)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def settle(page: Any, unanswered: set[Any], *, seconds: float = 30, looks: int = 3, pause: float = 20) -> None:
    """Wait until all requests are answered, no part of the page waits, and it stayed so for `looks` looks.

    A look waits for a frame, so that what an answer sets off has begun; `pause` milliseconds lie between two.
    Playwright's "networkidle" waits half a second without a request, once per document. `unanswered` holds the requests
    that wait, kept up to date by the caller. Raises `TimeoutError`.
    """
    from playwright.sync_api import Error

    end, quiet = time.monotonic() + seconds, 0
    while quiet < looks:
        asleep = False
        with contextlib.suppress(Error):  # the page is on its way to another
            asleep = page.evaluate(ASLEEP) and not unanswered
        quiet = quiet + 1 if asleep else 0
        if time.monotonic() > end:
            open_ones = ", ".join(each.url for each in unanswered)
            raise TimeoutError(f"{page.url}: {seconds:g} s passed, and it waits for {open_ones or 'its parts'}")
        page.wait_for_timeout(pause)
