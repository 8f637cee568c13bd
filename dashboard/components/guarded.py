"""A panel whose content may be missing or damaged: it says so, and the rest of the page stays."""

from collections.abc import Callable
from typing import Any

from dash import html

from dashboard.components.frame import explain, notice, panel
from interp.errors import WorkbenchError


def guarded(title: str, body: Callable[[], list[Any]], *, note: str = "") -> html.Section:
    """The panel with what `body` returns, or with the reason why there is nothing."""
    try:
        return panel(title, *body(), note=note or None)
    except WorkbenchError as error:
        return panel(title, notice(explain(error), tone="error"))
