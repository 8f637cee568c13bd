"""The element in which the browser draws routes of a prompt (assets/routes/)."""

import json
from typing import Any
from urllib.parse import quote

from dash import html

from dashboard.components.frame import attrs
from dashboard.components.pages import head_href
from interp.circuits.heads_in_text import HeadsInText
from interp.workspace import Workspace


def routes_view(workspace: Workspace, key: str = "", **more: Any) -> html.Div:
    """Return the element; `key` is that of a stored value, which is drawn at once and without a model.

    It brings the address of the pages of heads of every model whose heads were scored over a text.
    """
    heads = {scores.settings.model: head_href(scores.name, "") for scores in workspace.values(HeadsInText)}
    attributes = {"data-heads": json.dumps(heads)}
    if key:
        attributes["data-routes-source"] = f"/api/artefact?key={quote(key)}"
    waiting = html.P("Reading the routes…", className="wb-none") if key else None
    return html.Div(waiting, className="wb-routes", **attrs(attributes), **more)
