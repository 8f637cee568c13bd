"""HTTP routes of the graph page, outside Dash.

    GET  /graph-data/<name>/graph.json         nodes and edges as columns (`data.content`)
    GET  /graph-data/<name>/node.json?n=12     the page and the examples of a latent
    GET  /graph-data/<name>/edits.json         pins, groups, names, positions and hidden nodes of the visitor
    POST /graph-data/<name>/edits.json         replace them: `{"edits": {...}, "was": {...}}`

Edits are stored among the notes of the workspace (`interp.notes`), so that an export carries them.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import flask

from dashboard.components.pages import artefact_key, current
from dashboard.graph import data
from dashboard.notes.page import notes
from interp.errors import ArtifactError, ConfigError, ConflictError, ResourceError, UnknownNameError, WorkbenchError

Answer = Callable[[str], dict[str, Any]]


def register(server: flask.Flask) -> None:
    """Add the routes to the server."""
    for path, method, answer in (
        ("graph", "GET", _graph), ("node", "GET", _node), ("edits", "GET", _edits), ("edits", "POST", _save),
    ):  # fmt: skip
        server.add_url_rule(
            f"/graph-data/<name>/{path}.json", f"graph_{answer.__name__}", _as_json(answer), methods=[method]
        )


def _as_json(answer: Answer) -> Callable[[str], flask.Response]:
    """Return the answer as JSON, or our error with its status: 400, 404, 409 for a conflict, 500, 503."""

    @wraps(answer)
    def reply(name: str) -> flask.Response:
        try:
            found, status = answer(name), 200
        except WorkbenchError as error:
            kinds = ((ConflictError, 409), (UnknownNameError, 404), (ResourceError, 503), (ArtifactError, 500))
            status = next((status for kind, status in kinds if isinstance(error, kind)), 400)
            found = {"error": str(error)}
            if isinstance(error, ConflictError):
                found["theirs"] = flask.json.loads(error.theirs)
        text = flask.json.dumps(found, separators=(",", ":"), allow_nan=False)
        return flask.Response(text, status, mimetype="application/json", headers={"Cache-Control": "no-store"})

    return reply


def _graph(name: str) -> dict[str, Any]:
    workspace = current().workspace
    return data.content(workspace, data.choose(workspace, name))


def _node(name: str) -> dict[str, Any]:
    given = flask.request.args.get("n", "")
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise ConfigError(f"n is the number of a node, got {given[:40]!r}")
    workspace = current().workspace
    return data.describe(workspace, data.choose(workspace, name), int(given))


def _edits(name: str) -> dict[str, Any]:
    return {"edits": notes().graph_edits(artefact_key(data.choose(current().workspace, name)))}


def _save(name: str) -> dict[str, Any]:
    key = artefact_key(data.choose(current().workspace, name))
    try:
        given = flask.request.get_json()
    except RecursionError:
        raise ConfigError("the body is nested too deeply") from None
    parts = [given.get(part) for part in ("edits", "was")] if isinstance(given, dict) else [None]
    if not all(isinstance(part, dict) for part in parts):
        raise ConfigError("the body should be an object with `edits` and `was`, both objects")
    return {"edits": notes().save_graph_edits(key, parts[0], was=parts[1])}
