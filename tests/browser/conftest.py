"""A Chromium and a running dashboard. Without Chromium these tests are skipped, or fail when it is required."""

import contextlib
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fake_live import FakeLive
from make_workspace import build

from interp.workspace import Workspace
from tools import chromium as system
from tools.chromium import FLAGS, READY

VIEWPORT = {"width": 1280, "height": 800}
TIMEOUT = 30_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Try a test of this folder once more when it fails; the report lists it as RERUN.

    A machine with more work than cores lets a browser wait longer than any limit foresees. What is broken fails twice.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=1))


def chromium() -> str:
    """The path of the system's Chromium; skips, or fails when WORKBENCH_REQUIRE_BROWSER=1."""
    try:
        return system.chromium()
    except SystemExit as missing:
        if os.environ.get("WORKBENCH_REQUIRE_BROWSER") == "1":
            pytest.fail(f"{missing}, and WORKBENCH_REQUIRE_BROWSER=1")
        pytest.skip(str(missing))


def wait_until(frame: Any, expression: str, *, arg: Any = None, timeout: float = 30_000) -> None:
    """Until an expression or function is true in the page.

    Playwright's `wait_for_function` compiles text within the page, which our policy forbids; `evaluate` does not.
    """
    from playwright.sync_api import Error

    end, problem = time.monotonic() + timeout / 1000, ""
    while True:
        try:
            if frame.evaluate(expression, arg):
                return
            problem = ""
        except Error as error:  # the page is on its way to another, or not as far as the expression needs
            problem = f" ({error})"
        if time.monotonic() > end:
            raise TimeoutError(f"{timeout:g} ms passed before this was true: {expression}{problem}")
        (frame.page if hasattr(frame, "page") else frame).wait_for_timeout(25)


def list_by_number(page: Any) -> None:
    """Sort the list of features by number; it opens sorted by the score of the label."""
    page.click("#feature-grid .ag-header-cell[col-id=feature]")
    page.wait_for_selector("#feature-grid .ag-row[row-index='0'][row-id='0']")


def wait_for_address(page: Any, part: str = "", *, end: str = "", without: str | None = None) -> None:
    """Until the address has a part, ends so, or is without a part: pages write it a moment after what it tells.

    Tests never assert on `page.url` itself, which is behind the page.
    """
    page.wait_for_url(lambda url: part in url and url.endswith(end) and (without is None or without not in url))


def settle(page: Any) -> None:
    """Wait until a page of a visit is at rest, by what it has asked for."""
    system.settle(page, page.unanswered, seconds=TIMEOUT / 1000)


class Visit:
    """One page of one browser, with everything that it said and asked for."""

    def __init__(self, page: Any, base: str):
        self.page, self.base, self.scheme = page, base, "light"
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.wait_for_function = partial(wait_until, page)
        page.unanswered = set()
        self._listeners = {
            "console": lambda m: self.errors.append(m.text) if m.type == "error" else None,
            "pageerror": lambda error: self.errors.append(str(error)),
            "request": self._asked,
            "requestfinished": self._answered,
            "requestfailed": self._answered,
        }
        for event, listener in self._listeners.items():
            page.on(event, listener)

    def _asked(self, request: Any) -> None:
        self.requests.append(request.url)
        self.page.unanswered.add(request)

    def _answered(self, request: Any) -> None:
        self.page.unanswered.discard(request)

    def open(self, path: str) -> Any:
        """Go there and wait until the page has answered and is quiet."""
        self.page.unanswered.clear()
        self.page.goto(self.base + path)
        self.page.wait_for_selector(READY)
        settle(self.page)
        return self.page

    def leave(self) -> None:
        """Leave the page as a new one would be, in the scheme of the system, but for what the browser keeps else."""
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)
        self.page.evaluate("sessionStorage.clear(); localStorage.removeItem('workbench-scheme')")
        self.page.goto("about:blank")
        self.page.mouse.move(0, 0)
        self.page.set_viewport_size(VIEWPORT)
        self.page.set_default_timeout(TIMEOUT)

    until = staticmethod(wait_until)

    @property
    def outside(self) -> list[str]:
        """Requests that left the machine."""
        return [url for url in self.requests if urlsplit(url).scheme not in ("data", "blob") and not self._ours(url)]

    def _ours(self, url: str) -> bool:
        return url.startswith(self.base + "/")


@pytest.fixture(scope="session")
def live() -> FakeLive:
    return FakeLive()


@pytest.fixture(scope="session")
def base_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The synthetic workspace that the dashboard shows."""
    return build(tmp_path_factory.mktemp("browser") / "workspace")


def serving(workspace: Workspace, live: FakeLive, **options: Any) -> contextlib.AbstractContextManager[str]:
    """Serve a workspace in a thread; the context is its address."""
    return system.serving(workspace, live=live, **options)


@pytest.fixture(scope="session")
def base(base_workspace: Workspace, live: FakeLive) -> Iterator[str]:
    """The address of a dashboard on the synthetic workspace."""
    chromium()  # before anything is started
    with serving(base_workspace, live) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    executable = chromium()
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield instance
        instance.close()


def open_menu_page(page: Any, name: str) -> None:
    """Open a page by the menu of the bar that has it."""
    page.locator(f".wb-menu:has(#nav-{name}) > summary").click()
    page.click(f"#nav-{name}")


def new_context(browser: Any, scheme: str) -> Any:
    context = browser.new_context(viewport=VIEWPORT, color_scheme=scheme)
    context.set_default_timeout(TIMEOUT)
    return context


@pytest.fixture(scope="session")
def shared_context(browser: Any) -> Iterator[Any]:
    """One cache of scripts for all visits that leave no trace in the browser's storage."""
    context = new_context(browser, "light")
    yield context
    context.close()


@pytest.fixture(scope="session")
def used_pages() -> list[Any]:
    """The page that the last visit left, if the next one may have it."""
    return []


@pytest.fixture
def visit(shared_context: Any, base: str, used_pages: list[Any]) -> Iterator[Visit]:
    """A visitor who prefers light, in the page of the visit before: a new one costs the browser as much as two visits.

    A page that was changed for good, or cannot be left, is closed.
    """
    from playwright.sync_api import Error

    page = used_pages.pop() if used_pages else shared_context.new_page()
    changed: list[str] = []
    for name in ("add_init_script", "route"):
        setattr(page, name, partial(_noted, getattr(type(page), name), page, changed))
    visit = Visit(page, base)
    yield visit
    try:
        visit.leave()
    except Error:
        changed.append("cannot be left")
    if changed:
        page.close()
    else:
        used_pages.append(page)


def _noted(method: Any, page: Any, changed: list[str], *arguments: Any, **options: Any) -> Any:
    """Call a method of a page, and note that the page is another one from then on."""
    changed.append(method.__name__)
    return method(page, *arguments, **options)


@pytest.fixture(params=["light", "dark"])
def fresh_visit(browser: Any, base: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A visitor who has never been here and prefers the scheme in `visit.scheme`."""
    context = new_context(browser, request.param)
    visit = Visit(context.new_page(), base)
    visit.scheme = request.param
    yield visit
    context.close()
