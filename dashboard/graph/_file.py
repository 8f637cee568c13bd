"""A graph as one HTML file that opens without a server: its story, the nodes in its boxes, its tests and its hashes.

    text = graph_html(workspace, "capital")

The file draws with the modules of the page (assets/graph/story.mjs). Its policy allows only the two scripts whose
hashes it names, and no request; texts reach it escaped, or as JSON that is never parsed as HTML.
"""

import base64
import hashlib
from typing import Any

import flask
from dash import html

from dashboard.answers import finite_json
from dashboard.components.frame import Part, attrs, panel
from dashboard.components.markup import download, page_file
from dashboard.components.modules import ASSETS, import_map, inert
from dashboard.figures.theme import visible
from dashboard.graph import _data
from dashboard.graph._checks import about, effects, scores, trust
from dashboard.sources import current
from interp.errors import ConfigError
from interp.tracing.graph import AttributionGraph
from interp.workspace import Workspace

MODULES = (ASSETS / "dom.mjs", *(ASSETS / "graph" / f"{name}.mjs" for name in ("file", "marks", "model", "story")))
_START = 'import { open } from "page/file"; open();'
_STYLE = (
    "h1 { font: 600 19px/1.4 var(--wb-font); margin: 4px 0; overflow-wrap: anywhere } main > * + * { margin-top: 14px }"
    " .wb-evidence :is(td, th) { text-align: left; overflow-wrap: anywhere } [data-opened] { overflow-x: auto }"
)


def graph_html(workspace: Workspace, name: str) -> str:
    """Return a graph as HTML. Raises `ConfigError` for one that has no story."""
    graph = _data.choose(workspace, name)
    content = _data.content(workspace, graph)
    if content["story"] is None:
        raise ConfigError(f"the graph {name} has no target, and so no story; export it as {name}.json")
    imports, data = import_map(MODULES), inert(finite_json(_drawn(graph, content)))
    sheets = ((ASSETS / "graph" / f"{name}.css").read_text(encoding="utf-8") for name in ("graph", "story"))
    return page_file(
        graph.headline(),
        html.Main(_parts(graph, content["story"])),
        head=f'<style>{"".join(sheets)}{_STYLE}</style><script type="importmap">{imports}</script>',
        scripts=f'<script type="application/json" id="graph">{data}</script><script type="module">{_START}</script>',
        allow=f"script-src {_hash(imports)} {_hash(_START)} data:;",
    )


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _drawn(graph: AttributionGraph, content: dict[str, Any]) -> dict[str, Any]:
    """Return what the file's script draws: the story, and the label, layer, token and effect of the nodes in boxes."""
    story, columns = content["story"], content["nodes"]
    effect = _data.part(graph, _data.opening(graph, {}, {}, ()))["effects"] or columns["influence"]
    names = ("label", "kind", "layer", "position", "index")
    return {
        "story": story,
        "nodes": {
            number: {name: columns[name][number] for name in names} | {"effect": effect[number]}
            for box in story["boxes"]
            for number in box["nodes"]
        },
        "tokens": content["tokens"],
        **_data.answer_of(graph),
    }


def _parts(graph: AttributionGraph, story: dict[str, Any]) -> list[Part]:
    tests = [box["test"] for box in story["boxes"] if box["test"]]
    hold = sum(test["holds"] for test in tests)
    grouped = (
        f"Boxes: {hold} of the {len(tests)} tested act as one. Null: random groups of latents of the same layers."
        if tests
        else "Boxes: whether their members act as one was not tested."
    )
    tested = [html.P(trust(graph)), html.P(grouped)]
    traced = f"Dictionary: {graph.dictionary}. Traced {graph.about.created}, version {graph.about.code_version}."
    aims = " rather than ".join(visible(side.strip() or side, 40) for side in graph.targets[0].sides if side)
    hashes = {f"graph: {graph.about.key}": graph.about.content_hash, **graph.about.parents}
    rows = [html.Tr([html.Td(name), html.Td(known)]) for name, known in hashes.items()]
    return [
        html.H1(f"{visible(graph.prompt.strip(), 300)} → {aims}", dir="auto"),
        html.Section(className="wb-story", **attrs({"data-story": "", "aria-label": "Story"})),
        html.Section(**attrs({"data-opened": "", "aria-live": "polite"})),
        panel("How it was tested", *tested, *effects(graph), *scores(graph), html.P(about(graph))),
        panel("What it was made from", html.Table(html.Tbody(rows), className="wb-evidence"), html.P(traced)),
    ]


def register(server: flask.Flask) -> None:
    """Add the address that downloads the file of a graph."""
    server.add_url_rule("/graph-data/<name>/story.html", "graph_html", _answer, methods=["GET"])


def _answer(name: str) -> flask.Response:
    return download(graph_html(current().workspace, name), f"{name}.html")
