"""*Head*: one attention head over a text: its kinds, its words, its examples, its circuits, and its proof.

`/api/head.html?name=NAME&head=L5H1` is the page as one HTML file, `/api/head?name=NAME&head=L5H1` its numbers as JSON;
`/api/openapi.json` has the schema.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import flask
from dash import Dash, Input, Output, State, dcc, html

from dashboard.components.frame import Children, attempt, explain, notice, page, panel, quiet_link, still
from dashboard.components.markup import download, page_file
from dashboard.components.pages import (
    Page,
    artefact_href,
    artefact_menu,
    graph_href,
    head_href,
    page_of,
    prompt_href,
)
from dashboard.data.heads import HeadReport, mentions, report_of
from dashboard.head import _sections
from dashboard.sources import PageSources, current, open_artefact
from interp.artifacts import address_of
from interp.circuits.heads_in_text import HeadsInText
from interp.errors import UsageError, WorkbenchError
from interp.names import HeadName, parse_head
from interp.tracing.graph import AttributionGraph
from interp.workspace import Workspace
from saes.acts.graphs import LoadHeads
from saes.acts.heads import AblateHead

if TYPE_CHECKING:
    from interp.tracing.loadings import HeadLoadings

MOST_GRAPHS = 8
"""Newest graphs of the model that are split by heads."""


def layout(context: PageSources, name: str | None = None, head: str = "L0H0", **_: object) -> html.Div:
    """`/head/<name>/<head>`."""
    text_heads = context.workspace.open(HeadsInText, open_artefact(context.workspace, ("heads_in_text",), name).name)
    report = report_of(text_heads, head)
    names = [(m.name, head_href(m.name, head)) for m in context.workspace.newest("heads_in_text")]
    which = parse_head(head)
    silent = text_heads.silent(which)
    files = [
        html.A("HTML", href=f"/api/head.html?name={text_heads.name}&head={which}", className="wb-link", download=""),
        html.A("JSON", href=f"/api/head?name={text_heads.name}&head={which}", className="wb-link", target="_blank"),
    ]
    return page(
        f"Head {which}",
        dcc.Store(id="head-state", data={"name": text_heads.name, "head": str(which)}),
        notice(silent) if silent else None,
        _sections.summary(report),
        html.P([*_beside(text_heads, which), *files], className="wb-head-links"),
        html.Div(
            [
                html.Div([still(_sections.examples_panel(report)), _proof(context)], className="wb-stack"),
                html.Div([_sections.kinds_panel(report), _place(context, report)], className="wb-stack"),
            ],
            className="wb-two",
        ),
        *map(still, _sections.words_panels(report)),
        _sections.provenance(report),
        controls=artefact_menu("Model", names, head_href(text_heads.name, head), width=200, key=text_heads.key),
    )


def _beside(text_heads: HeadsInText, head: HeadName) -> list[dcc.Link]:
    """Return links to all heads and to the heads before and after this one."""
    layers, heads = text_heads.shape
    at = head.layer * heads + head.head
    near = [HeadName(*divmod(i, heads)) for i in (at - 1, at + 1) if 0 <= i < layers * heads]
    links = [quiet_link("All heads", page_of(address_of(text_heads.key)))]
    return [*links, *(quiet_link(str(name), head_href(text_heads.name, str(name))) for name in near)]


def _place(context: PageSources, report: HeadReport) -> html.Section:
    """Return links to the circuits that name the head, and to its attention on its strongest example."""
    head = parse_head(report.head)
    places = mentions(context.workspace, report.model, head)
    lines = [
        html.Li([quiet_link(mention.key, artefact_href(context.workspace, mention.key)), f": {mention.text}"])
        for mention in places
    ]
    text = "".join(report.examples[0].segments[-1].pieces) if report.examples else ""
    prompt = prompt_href(text=text.strip(), model=report.model, layer=head.layer, head=head.head)
    graphs = html.Button("Its share in the graphs", id="head-graphs", className="wb-act", type="button",
                         hidden=not _graphs(context.workspace, report.model))  # fmt: skip
    return panel(
        "Its place",
        html.Ul(lines) if lines else html.P("No circuit of this workspace names it.", className="wb-none"),
        html.P(quiet_link("Its strongest example on Prompt: why it looks there", prompt)) if text else None,
        graphs,
        html.Div(id="head-in-graphs", role="status"),
        html.Div("Splitting graphs by heads", id="head-graphs-busy", className="wb-busy"),
    )


def _graphs(workspace: Workspace, model: str) -> list[AttributionGraph]:
    """Return the newest graphs of a model."""
    return [graph for graph in workspace.values(AttributionGraph) if graph.model == model][:MOST_GRAPHS]


@lru_cache(maxsize=64)
def _loadings(graph: str, version: str) -> "HeadLoadings":
    del version  # the content hash: a graph made again under its name is another
    return current().live.ask(LoadHeads(graph=graph))


def in_graphs(_: int | None, state: dict[str, str]) -> Children:
    """Return links to the graphs of the model, those first in which the head carries most of the influence."""

    def body() -> Children:
        workspace, head = current().workspace, parse_head(state["head"])
        rows: list[tuple[float, str, str]] = []
        for graph in _graphs(workspace, workspace.open(HeadsInText, state["name"]).settings.model):
            try:
                loadings = _loadings(graph.name, graph.about.content_hash)
            except WorkbenchError as error:
                rows.append((0.0, graph.name, f": {explain(error)}"))
                continue
            share = float(loadings.shares[head.layer, head.head])
            rank = int((abs(loadings.shares) > abs(share)).sum()) + 1
            rows.append((share, graph.name, f": {share:.2%}, number {rank} of {loadings.shares.size} heads"))
        rows.sort(key=lambda row: -abs(row[0]))
        return [
            html.P("Share of each graph's influence on paths through this head:", className="wb-note"),
            html.Ul([html.Li([quiet_link(name, graph_href(name)), said]) for _, name, said in rows]),
        ]

    return attempt(body)


def _proof(context: PageSources) -> html.Section:
    return panel(
        "Does the model need it?",
        html.P("The model reads eight of the examples, with the output of this head replaced by its mean and then with "
               "that of 19 random heads: a minute for a small model."),
        html.Button("Ablate it on its examples", id="head-ablate", className="wb-act", type="button"),
        html.Div(id="head-proof", role="status"),
        html.Div("Loading the model" if context.live.state == "cold" else "Ablating", id="head-busy",
                 className="wb-busy"),
        note="change of the prediction at the query, in nats, beside random heads",
    )  # fmt: skip


def register(app: Dash) -> None:
    """Add the buttons of the proof and of the graphs, and the address of the file."""
    for output, button, busy, answer in (
        ("head-in-graphs", "head-graphs", "head-graphs-busy", in_graphs),
        ("head-proof", "head-ablate", "head-busy", prove),
    ):
        app.callback(
            Output(output, "children"),
            Input(button, "n_clicks"),
            State("head-state", "data"),
            running=[
                (Output(busy, "className"), "wb-busy wb-busy-on", "wb-busy"),
                (Output(button, "disabled"), True, False),
            ],
            prevent_initial_call=True,
        )(answer)
    app.server.add_url_rule("/api/head.html", "head_html", _answer, methods=["GET"])


def prove(_: int | None, state: dict[str, str]) -> Children:
    """Return what ablating the head does, in words, or the reason why it could not be measured."""

    def body() -> Children:
        answer = current().live.ask(AblateHead(heads=state["name"], head=state["head"], nulls="standard"))
        return [html.P(answer.headline()), *(html.P(line, className="wb-note") for line in answer.details())]

    return attempt(body)


def head_html(text_heads: HeadsInText, head: str) -> str:
    """Return the page of one head as one HTML file."""
    report = report_of(text_heads, head)
    parts = [
        html.H1(f"Head {report.head} of {report.model}"), _sections.summary(report), _sections.kinds_panel(report),
        *_sections.words_panels(report), _sections.examples_panel(report), _sections.provenance(report),
    ]  # fmt: skip
    return page_file(f"Head {report.head} of {report.model}", html.Main(parts, className="wb-stack"))


def _answer() -> flask.Response:
    name, head = flask.request.args.get("name", ""), flask.request.args.get("head", "")
    if not name or not head:
        raise UsageError("head.html needs name=NAME and head=L5H1")
    return download(head_html(current().workspace.open(HeadsInText, name), head), f"{name}-{head}.html")


PAGE = Page(
    title="Head",
    path="/head",
    templates=("/head/<name>/<head>",),
    group="circuits",
    order=51,
    listed=False,
    layout=layout,
    register=register,
    about="One head over a text",
    shows="One attention head over a text: its kinds, the words it reads and writes, and its strongest examples.",
    command="workbench heads MODEL --text docstrings",
    fill=lambda _, model: ("heads", {"model": model, "text": "docstrings", "text_tokens": 20_000}),
)
