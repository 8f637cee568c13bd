"""HTTP routes of the graph page, outside Dash.

    GET  /graph-data/<name>/graph.json         nodes and edges as columns (`data.content`)
    POST /graph-data/<name>/part.json          which of them are shown (`data.part`)
    GET  /graph-data/<name>/node.json?n=12     the page and the examples of a latent
    GET  /graph-data/<name>/edits.json         pins, groups, names, positions and hidden nodes of the visitor
    POST /graph-data/<name>/edits.json         replace them: `{"edits": {...}, "was": {...}}`
    POST /graph-data/<name>/groups.json        groups of latents that act alike, of those in `{"nodes": [...]}`
    GET  /graph-data/<name>/export.json        the graph with its edits as graph JSON, for other viewers
    POST /graph-data/<name>/split.json         split an edge by heads: `{"source": "...", "target": "..."}`
    POST /graph-data/<name>/intervene.json     multiply activations: `{"factors": {"node": 0, ...}, "mode": "free"}`
    POST /graph-data/<name>/text.json          the text written with and without that: `{"factors": {"node": 0, ...}}`

Edits are stored among the notes of the workspace (`interp.notes`), so that an export carries them.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import flask

from dashboard.answers import finite_json, is_object, plain
from dashboard.components.http_errors import json_body
from dashboard.components.pages import current, prompt_href
from dashboard.data.workspace import notes
from dashboard.graph import data
from dashboard.turns import asking
from interp.errors import ConfigError
from interp.results import Record

Answer = Callable[[str], dict[str, Any]]
MAX_HEADS = 12
"""Heads that the split of an edge names."""
MAX_NODES = 300
"""Latents that one intervention changes."""


def register(server: flask.Flask) -> None:
    """Add the routes to the server."""
    for path, method, answer in (
        ("graph", "GET", _graph), ("part", "POST", _part), ("node", "GET", _node), ("edits", "GET", _edits),
        ("edits", "POST", _save), ("groups", "POST", _groups), ("export", "GET", _export),
        ("intervene", "POST", _intervene), ("text", "POST", _text), ("split", "POST", _split),
    ):  # fmt: skip
        server.add_url_rule(
            f"/graph-data/<name>/{path}.json", f"graph_{answer.__name__}", _as_json(answer), methods=[method]
        )


def _as_json(answer: Answer) -> Callable[[str], flask.Response]:
    """Return the route that sends the answer as JSON."""

    @wraps(answer)
    def reply(name: str) -> flask.Response:
        return flask.Response(
            finite_json(answer(name)), mimetype="application/json", headers={"Cache-Control": "no-store"}
        )

    return reply


def _graph(name: str) -> dict[str, Any]:
    workspace = current().workspace
    return data.content(workspace, data.choose(workspace, name))


def _part(name: str) -> dict[str, Any]:
    return data.part(data.choose(current().workspace, name), json_body())


def _node(name: str) -> dict[str, Any]:
    given = flask.request.args.get("n", "")
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise ConfigError(f"n is the number of a node, got {given[:40]!r}")
    workspace = current().workspace
    return data.describe(workspace, data.choose(workspace, name), int(given))


def _edits(name: str) -> dict[str, Any]:
    return {"edits": data.marks(notes(), data.choose(current().workspace, name))}


def _save(name: str) -> dict[str, Any]:
    graph, held, given = data.choose(current().workspace, name), notes(), json_body()
    edits, was = given.get("edits"), given.get("was")
    if not is_object(edits) or not is_object(was):
        raise ConfigError("the body should be an object with `edits` and `was`, both objects")
    if was == data.marks(held, graph):
        was = held.graph_edits(graph.key)  # without any, the groups of the graph stood for them
    return {"edits": held.save_graph_edits(graph.key, edits, was=was)}


def _groups(name: str) -> dict[str, Any]:
    given, workspace = json_body(), current().workspace
    graph = data.choose(workspace, name)
    labels = data.labels_of(workspace, graph, given.get("nodes"))
    with asking(str(given.get("visitor", ""))[:64]):
        found = current().live.graph_groups(graph.name, labels=labels)
    return plain({"groups": [[each.name, each.nodes] for each in found.held], "headline": found.headline()})


def _export(name: str) -> dict[str, Any]:
    workspace = current().workspace
    graph = data.choose(workspace, name)
    return data.exported(workspace, graph, data.marks(notes(), graph))


def _intervene(name: str) -> dict[str, Any]:
    given, graph = json_body(), data.choose(current().workspace, name)
    factors, mode = _factors(given), given.get("mode")
    if not isinstance(mode, str):
        raise ConfigError("`mode` should be a text")
    with asking(str(given.get("visitor", ""))[:64]):
        return plain(current().live.intervene(graph.name, factors=factors, mode=mode))


def _text(name: str) -> dict[str, Any]:
    given, graph = json_body(), data.choose(current().workspace, name)
    with asking(str(given.get("visitor", ""))[:64]):
        return plain(current().live.graph_text(graph.name, factors=_factors(given)))


def _factors(given: Any) -> dict[str, float]:
    """Return the factors of a request, by node id. Raises `ConfigError` for anything else."""
    factors = given.get("factors")
    if not is_object(factors) or not 0 < len(factors) <= MAX_NODES:
        raise ConfigError(f"`factors` should be an object of 1 to {MAX_NODES} factors by node id")
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in factors.values()):
        raise ConfigError("`factors` should be numbers: 0 ablates a latent, 1 leaves it unchanged")
    return factors


def _split(name: str) -> dict[str, Any]:
    given, graph = json_body(), data.choose(current().workspace, name)
    source, target = given.get("source"), given.get("target")
    if not isinstance(source, str) or not isinstance(target, str):
        raise ConfigError("`source` and `target` should be node ids")
    with asking(str(given.get("visitor", ""))[:64]):
        found = current().live.split(graph.name, source=source, target=target)
    position = graph.node(target).position
    heads: list[Record] = []
    for row in found.to_records()[:MAX_HEADS]:
        layer, head = row["head"].removeprefix("L").split("H")
        there = {"layer": layer, "head": head, "token": position, "key": row["position"]}
        heads.append(row | {"href": prompt_href(text=graph.prompt, model=graph.model, **there)})
    return plain({"total": found.total, "stays": found.stays, "heads": heads, "headline": found.headline()})
