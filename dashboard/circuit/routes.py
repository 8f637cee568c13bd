"""HTTP routes of the circuit page, outside Dash; `<folder>/<name>` is the key of a circuit.

    GET  /circuit-data/<folder>/<name>/graph.json    all that may be drawn, as columns (`drawing.content`)
    POST /circuit-data/<folder>/<name>/part.json     what is shown of it: `{"n": 24, "paths": false}`
    GET  /circuit-data/<folder>/<name>/edits.json    groups and positions of the visitor
    POST /circuit-data/<folder>/<name>/edits.json    replace them: `{"edits": {...}, "was": {...}}`
    POST /circuit-data/<folder>/<name>/groups.json   groups of the shown nodes: `{"by": "role", "n": 24, ...}`
    GET  /circuit-data/<folder>/<name>/export.json   the circuit as shown, which `Circuit.load` reads: `?n=24&paths=1`

Edits are stored among the notes of the workspace (`interp.notes`), so that an export carries them.
"""

from typing import Annotated, Any

import flask
from annotated_types import Ge

from dashboard.circuit import data
from dashboard.circuit.drawing import View, content, part
from dashboard.components.pages import current, whole_number
from dashboard.data.workspace import notes
from dashboard.requests import Asked, add_routes
from interp.artifacts import FOLDERS, as_json, kinds_of
from interp.circuits.found_circuit import FoundCircuit, open_circuit
from interp.errors import UnknownNameError
from interp.notes import GraphMarks


def register(server: flask.Flask) -> None:
    """Add the routes to the server."""
    reads = {"graph": _graph, "edits": _edits, "export": _export}
    asks = {"part": _part, "edits": _save, "groups": _groups}
    add_routes(server, "/circuit-data/<folder>/<name>", reads, asks, _open)


def _open(folder: str, name: str) -> FoundCircuit:
    folders = [FOLDERS[kind] for kind in kinds_of("circuit")]
    if folder not in folders:
        raise UnknownNameError("folder of circuits", folder, folders)
    return open_circuit(current().workspace, f"{folder}/{name}")


def _graph(folder: str, name: str) -> dict[str, Any]:
    return content(_open(folder, name))


Edges = Annotated[int, Ge(1)] | None
"""Number of the strongest edges; None for the circuit as it was found."""


def _part(asked: Asked, found: FoundCircuit, *, n: Edges = None, paths: bool = False) -> dict[str, Any]:
    return part(found, View(n, paths))


def _edits(folder: str, name: str) -> dict[str, Any]:
    return {"edits": notes().graph_edits(_open(folder, name).key)}


def _save(asked: Asked, found: FoundCircuit, *, edits: GraphMarks, was: dict[str, Any]) -> dict[str, Any]:
    return {"edits": notes().save_graph_edits(found.key, as_json(edits), was=was)}


def _groups(asked: Asked, found: FoundCircuit, *, by: str, n: Edges = None, paths: bool = False) -> dict[str, Any]:
    rows = View(n, paths).rows(data.scored(found))
    return {"groups": [*data.propose(by, found.circuit, rows).items()]}


def _export(folder: str, name: str) -> dict[str, Any]:
    found, query = _open(folder, name), flask.request.args
    view = View(whole_number(query.get("n", "")), query.get("paths") == "1")
    rows = view.rows(data.scored(found), limit=None)
    shown = {"n": view.n, "paths": view.paths, "groups": notes().graph_edits(found.key).get("groups", [])}
    return data.export(found, rows, shown, whole=view.whole)
