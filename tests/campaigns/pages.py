"""The pages and the read API of the dashboard over a workspace with a damaged file, as subjects of `files`."""

import logging
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.many_visitors import Log, Visitor
from interp.errors import CorruptError

PAGES = (
    "", "feature/demo/3", "feature/neurons/3", "sae/demo", "sae", "runs", "atlas/embeddings", "atlas/demo-features",
    "circuit/ioi", "circuit", "graph/planted", "changes", "notes", "compare", "heads", "geometry", "dynamics", "prompt",
    "search",
)  # fmt: skip
READS = (
    "artefacts", "search?query=the", "features?features=demo&text=the", "feature?features=demo&index=3",
    "examples?features=demo&index=3", "uses?features=demo&index=3", "sae_dashboard?features=demo&index=3",
    "vector?features=demo&index=3", "regions?atlas=embeddings", "circuit?name=ioi", "notes?key=features/demo%233",
)  # fmt: skip
COLUMNS = ("about.json", "xy.bin", "regions.json", "value.bin")


class Tested(Visitor):
    """A visitor of an application in this process."""

    def __init__(self, client: Any):
        self.client = client
        super().__init__(0, Log(), 0)

    def ask(self, method: str, path: str, body: Any = None, kind: str = "") -> bytes:
        answer = self.client.open(path, method=method, json=body)
        self.status = answer.status_code
        return answer.data


def reader(root: Path) -> Callable[[Path], None]:
    """Return a reader of the workspace that will lie at `root`: every page, and every read of the API.

    It raises `CorruptError` where one of them answers with an error, and `AssertionError` where that error is not one
    of the workbench's own.
    """
    from fake_live import FakeLive  # pyright: ignore[reportMissingImports]

    from dashboard.app import create_app
    from interp.workspace import Workspace

    visitor = Tested(create_app(Workspace(root, create=True), live=FakeLive()).server.test_client())
    logged = _Logged()
    logging.getLogger().addHandler(logged)
    asked: dict[str, Callable[[], bytes]] = {f"/{each}": lambda each=each: visitor.open(f"/{each}") for each in PAGES}
    for each in [*(f"/api/{each}" for each in READS), *(f"/atlas-data/embeddings/{each}" for each in COLUMNS)]:
        asked[each] = lambda each=each: visitor.ask("GET", each)

    def read(_: Path) -> None:
        refused = []
        for address, ask in asked.items():
            text = ask().decode("utf-8", "replace").replace("\\u002f", "/")
            about = f"{address}: {visitor.status} {_sentences(text)}"
            assert "An unexpected " not in text, f"{about}\n{logged.last}"
            own = "That did not work" in text or text.startswith('{"error"') or visitor.status == 500
            if own:
                refused.append(about)
        if refused:
            raise CorruptError("; ".join(refused))

    return read


class _Logged(logging.Handler):
    """Keeps the last traceback that the application logs."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.last = "".join(traceback.format_exception(*record.exc_info))


def _sentences(text: str) -> str:
    """Return the sentences in an answer of Dash, or the start of any other."""
    return " | ".join(re.findall(r'"children":"([^"]{20,})"', text)[:4]) or text[:300]
