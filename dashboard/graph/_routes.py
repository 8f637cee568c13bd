"""HTTP routes of the graph page, outside Dash.

    GET  /graph-data/<name>/graph.json         all that the first picture needs: nodes and edges as columns, the edits
                                               of the visitor, and the part that an address shows (`?nodes=&pins=...`)
    POST /graph-data/<name>/part.json          another part (`_data.part`)
    GET  /graph-data/<name>/node.json?n=12     the page and the examples of a latent
    POST /graph-data/<name>/edits.json         replace pins, groups and names of the visitor:
                                               `{"edits": {...}, "was": {...}}`
    GET  /graph-data/<name>/export.json        the graph with its edits as graph JSON, for other viewers
    POST /graph-data/<name>/split.json         split an edge by heads: `{"source": "...", "target": "..."}`
    POST /graph-data/<name>/loadings.json      share of the influence that passes through each head
    POST /graph-data/<name>/reasons.json       why a head attended: `{"layer": 1, "head": 0, "query": 8, "key": 3}`

Edits are stored among the notes of the workspace (`interp.notes`), so that an export carries them.
"""

from itertools import islice
from typing import Annotated, Any

import flask
from annotated_types import Ge, Interval

from dashboard.components.pages import prompt_href
from dashboard.data.workspace import notes
from dashboard.graph import _data
from dashboard.requests import RequestFields, add_routes
from dashboard.sources import current
from interp.artifacts import as_json
from interp.errors import ConfigError
from interp.notes import GraphMarks
from interp.results import Record
from interp.tracing.graph import AttributionGraph
from saes.acts.graphs import ExplainHead, LoadHeads, SplitEdge

Answer = dict[str, Any]
MAX_HEADS = 12
"""Heads that the split of an edge names."""
MAX_REASONS, MAX_PAIRS = 6, 10
"""Nodes of the query and of the key, and pairs of them, that the reasons for an attention name."""


def register(server: flask.Flask) -> None:
    """Add the routes to the server."""
    reads = {"graph": _graph, "node": _node, "export": _export}
    asks = {"part": _part, "edits": _save, "split": _split, "reasons": _reasons, "loadings": _loadings}
    add_routes(server, "/graph-data/<name>", reads, asks, _opened)


def _opened(name: str) -> AttributionGraph:
    return _data.choose(current().workspace, name)


def _graph(name: str) -> Answer:
    workspace = current().workspace
    graph = _data.choose(workspace, name)
    content, edits = _data.content(workspace, graph), notes().graph_edits(graph.key)
    shown = _data.opening(graph, flask.request.args, edits, content["background"])
    return content | {"edits": edits, "shown": as_json(shown), "part": _data.part(graph, shown)}


def _node(name: str) -> _data.DescribedLatent:
    number = flask.request.args.get("n", "")
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise ConfigError(f"n is the number of a node, got {number[:40]!r}")
    workspace = current().workspace
    return _data.describe(workspace, _data.choose(workspace, name), int(number))


def _export(name: str) -> Answer:
    workspace = current().workspace
    graph = _data.choose(workspace, name)
    return _data.exported(workspace, graph, notes().graph_edits(graph.key))


Number = Annotated[int, Ge(0)]


def _part(
    request: RequestFields,
    graph: AttributionGraph,
    *,
    nodes: Annotated[int, Ge(0)],
    edges: Annotated[float, Interval(ge=0, le=1)],
    target: str | None = None,
    pins: tuple[str, ...] = (),
    hidden: tuple[str, ...] = (),
) -> Answer:
    return _data.part(graph, _data.ShownPart(nodes=nodes, edges=edges, target=target, pins=pins, hidden=hidden))


def _save(request: RequestFields, graph: AttributionGraph, *, edits: GraphMarks, was: dict[str, Any]) -> Answer:
    return {"edits": notes().save_graph_edits(graph.key, as_json(edits), was=was)}


def _split(request: RequestFields, graph: AttributionGraph, *, source: str, target: str) -> Answer:
    split = current().live.ask(SplitEdge(graph=graph.name, source=source, target=target))
    position = graph.node(target).position
    heads: list[Record] = []
    for row in split.to_records()[:MAX_HEADS]:
        layer, head = row["head"].removeprefix("L").split("H")
        href = prompt_href(
            text=graph.prompt, model=graph.model, layer=layer, head=head, token=position, key=row["position"]
        )
        heads.append(row | {"href": href, "layer": int(layer), "number": int(head), "query": position})
    return {"total": split.total, "stays": split.stays, "heads": heads, "headline": split.headline()}


def _reasons(
    request: RequestFields, graph: AttributionGraph, *, layer: Number, head: Number, query: Number, key: Number
) -> Answer:
    act = ExplainHead(graph=graph.name, layer=layer, head=head, query=query, key=key)
    reasons = current().live.ask(act)
    rows = (row for row in reasons.to_records() if {row["query_node"], row["key_node"]} <= graph.number.keys())
    pairs = list(islice(rows, MAX_PAIRS))
    rest = reasons.relative_score - sum(row["relative"] for row in pairs)
    answer = {"headline": reasons.headline(), "pairs": pairs, "rest": rest, "left_out": reasons.left_out}
    sides = {"query_side": reasons.query_side, "key_side": reasons.key_side}
    return answer | {name: [share._asdict() for share in side[:MAX_REASONS]] for name, side in sides.items()}


def _loadings(request: RequestFields, graph: AttributionGraph) -> Answer:
    loadings = current().live.ask(LoadHeads(graph=graph.name))
    return {"shares": loadings.shares.round(5).tolist(), "headline": loadings.headline()}
