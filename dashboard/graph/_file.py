"""A graph as one HTML file that opens without a server: its largest named nodes, its tests and its hashes.

    text = graph_html(workspace, "capital")

It has no script, and its policy allows no request.
"""

import flask
from dash import html

from dashboard.components.evidence import records_table
from dashboard.components.frame import Part, panel
from dashboard.components.markup import download, page_file
from dashboard.components.modules import ASSETS
from dashboard.figures.theme import visible
from dashboard.graph import _data
from dashboard.graph._checks import about, effects, scores, trust
from dashboard.graph.named import named_nodes
from dashboard.sources import current
from interp.tracing.graph import AttributionGraph
from interp.workspace import Workspace

MOST = 24
"""Nodes that the file lists."""
_STYLE = (
    "h1 { font: 600 19px/1.4 var(--wb-font); margin: 4px 0; overflow-wrap: anywhere } main > * + * { margin-top: 14px }"
    " .wb-evidence :is(td, th) { text-align: left; overflow-wrap: anywhere }"
)


def graph_html(workspace: Workspace, name: str) -> str:
    """Return a graph as HTML."""
    graph = _data.choose(workspace, name)
    sheet = (ASSETS / "graph" / "graph.css").read_text(encoding="utf-8")
    head = f"<style>{sheet}{_STYLE}</style>"
    return page_file(graph.headline(), html.Main(_parts(workspace, graph)), head=head)


def _parts(workspace: Workspace, graph: AttributionGraph) -> list[Part]:
    rows = [
        {"node": visible(node.name, 90), "layer": node.layer, "on": visible(node.token, 20), "effect": node.effect}
        for node in named_nodes(workspace, graph, MOST)
    ]
    traced = f"Dictionary: {graph.dictionary}. Traced {graph.about.created}, version {graph.about.code_version}."
    hashes = {f"graph: {graph.about.key}": graph.about.content_hash, **graph.about.parents}
    made_from = [html.Tr([html.Td(name), html.Td(known)]) for name, known in hashes.items()]
    return [
        html.H1(visible(graph.headline(), 400), dir="auto"),
        panel(
            "Largest effects of named nodes",
            records_table(rows, limit=MOST) if rows else html.P("No node has a label that holds."),
        ),
        panel("How it was tested", html.P(trust(graph)), *effects(graph), *scores(graph), html.P(about(graph))),
        panel("What it was made from", html.Table(html.Tbody(made_from), className="wb-evidence"), html.P(traced)),
    ]


def register(server: flask.Flask) -> None:
    """Add the address that downloads the file of a graph."""
    server.add_url_rule("/graph-data/<name>/graph.html", "graph_html", _answer, methods=["GET"])


def _answer(name: str) -> flask.Response:
    return download(graph_html(current().workspace, name), f"{name}.html")
