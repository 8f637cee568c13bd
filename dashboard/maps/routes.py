"""HTTP routes of the atlas view, outside Dash: arrays as bytes, texts of visible points, and tables.

    /atlas-data/<name>/about.json   regions.json   cells.json      columns, regions, cells
    /atlas-data/<name>/xy.bin       <column>.bin                   float32, uint16 or int32, low byte first, by point
    /atlas-data/<name>/texts.json?ids=3,14                         label, region, context and values
    /atlas-data/<name>/search.bin?q=river                          a bit per point, the first in the lowest bit
    /atlas-data/<name>/points.csv                                  the chosen points as a table

All are reads. An answer that depends on the artefact alone has its content hash as ETag, so that an unchanged map is
not sent twice.

The map is drawn before Dash has started, which takes about a second: on /atlas the head of the page names the modules
and arrays that the browser should fetch at once (`head`, assets/atlas/early.mjs), and the component takes the
drawn map over.
"""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote

import flask
import numpy as np

from dashboard.answers import finite_json
from dashboard.maps import columns as data
from dashboard.maps import data as view
from dashboard.maps.data import PointFilter, chosen, matches
from dashboard.sources import current
from interp.errors import UsageError, WorkbenchError

_BYTES = "application/octet-stream"

Answer = Callable[..., flask.Response]


def register(server: flask.Flask) -> None:
    """Add the routes to the server."""
    for path, answer in (
        ("about.json", _about), ("regions.json", _regions), ("cells.json", _cells), ("texts.json", _texts),
        ("search.bin", _search), ("points.csv", _csv), ("<column>.bin", _column),
    ):  # fmt: skip
        server.add_url_rule(f"/atlas-data/<name>/{path}", f"atlas_{answer.__name__}", answer, methods=["GET"])


def _cached(name: str, what: str, make: Callable[[], bytes | str], mimetype: str) -> flask.Response:
    """Return the answer with its ETag, or 304 when the browser has it; `make` is called only when it is needed."""
    hash_ = current().workspace.manifest("atlas", name).content_hash
    response = flask.Response(mimetype=mimetype)
    response.set_etag(f"{hash_[:40]}-{what}")
    response.headers["Cache-Control"] = "private, no-cache"
    if flask.request.if_none_match.contains_weak(response.get_etag()[0] or ""):
        response.status_code = 304
        return response
    response.set_data(make())
    return response


def _about(name: str) -> flask.Response:
    return _cached(name, "about", lambda: finite_json(data.about(current().workspace, name)), "application/json")


def _regions(name: str) -> flask.Response:
    return _cached(name, "regions", lambda: finite_json(data.regions(current().workspace, name)), "application/json")


def _cells(name: str) -> flask.Response:
    return _cached(name, "cells", lambda: finite_json(view.cells(current().workspace, name)), "application/json")


def _column(name: str, column: str) -> flask.Response:
    def make() -> bytes:
        values = data.array(current().workspace, name, column)
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()

    return _cached(name, f"column-{column.encode().hex()}", make, _BYTES)


def _texts(name: str) -> flask.Response:
    try:
        ids = [int(part) for part in flask.request.args.get("ids", "").split(",") if part]
    except ValueError:
        raise UsageError("ids are point numbers separated by commas") from None
    texts = view.texts(current().workspace, name, ids)
    headers = {"Cache-Control": "private, no-cache"}
    return flask.Response(finite_json(texts), mimetype="application/json", headers=headers)


def _search(name: str) -> flask.Response:
    workspace = current().workspace
    mask = matches(workspace, name, flask.request.args.get("q", ""))
    masks = [mask, *([near] if (near := view.neighbours(workspace, name, mask)) is not None else [])]
    bits = b"".join(np.packbits(each, bitorder="little").tobytes() for each in masks)
    headers = {"X-Found": str(int(mask.sum())), "Cache-Control": "private, no-cache"}
    return flask.Response(bits, mimetype=_BYTES, headers=headers)


def _choice() -> PointFilter:
    query = flask.request.args
    return PointFilter(query.get("search", ""), query.get("selection", ""), query.get("filter", ""))


def _csv(name: str) -> flask.Response:
    workspace, choice = current().workspace, _choice()
    chosen(workspace, name, choice)  # raises on a malformed choice, before the first line is sent
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"', "Cache-Control": "private, no-cache"}
    return flask.Response(view.csv_lines(workspace, name, choice), mimetype="text/csv", headers=headers)


MODULES = sorted(path.name for path in (Path(__file__).parents[1] / "assets" / "atlas").glob("*.mjs"))
_PATH = re.compile(r"^/atlas(?:/([^/]+))?/?$")


def head(asset_url: Callable[[str], str]) -> str:
    """Return the lines for the head of the current page; empty except on `/atlas` with a map that exists."""
    match = _PATH.match(unquote(flask.request.path))
    if match is None:
        return ""
    try:
        made = view.choose(current().workspace, match[1] or flask.request.args.get("name"))
    except WorkbenchError:
        return ""  # the page says what is wrong
    data = f"/atlas-data/{quote(made.name)}"
    arrays = ["xy.bin"]
    if made.regions_per_level:
        level = [] if flask.request.args.get("colour") else [f"level_{made.whole_map_level}.bin"]
        arrays += ["regions.json", *level]
    modules = [f'<link rel="modulepreload" href="{asset_url(f"atlas/{module}")}">' for module in MODULES]
    return "\n".join(
        [
            f'<link rel="preload" as="fetch" crossorigin href="{data}/about.json" data-atlas="{data}">',
            *(f'<link rel="preload" as="fetch" crossorigin href="{data}/{array}">' for array in arrays),
            *modules,
            f'<script type="module" async src="{asset_url("atlas/early.mjs")}"></script>',
        ]
    )
