"""*Graph*: one attribution graph with scores and baselines.

The browser draws the graph itself (assets/graph/): tokens below, targets above, a column per position, a row per layer.
The address has the chosen node, both thresholds, the target and the pins; pins, groups and names
are stored among the notes of the workspace (`routes`).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import dash_mantine_components as dmc
import flask
from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from dashboard.components.evidence import records_table
from dashboard.components.forms import fields_data, model_choices
from dashboard.components.frame import Part, attrs, page, panel, verdict
from dashboard.components.pages import Page, artefact_menu, menu_choices, page_of, run_button, runs_href, trace_href
from dashboard.figures.theme import DARK, LIGHT, Theme, canvas_colours, visible
from dashboard.graph import _data, _file, _routes
from dashboard.graph._checks import about, effects, scores, trust
from dashboard.sources import PageSources, current
from interp.models.short_name import short_name
from interp.tracing.graph import KIND, AttributionGraph
from interp.tracing.returning import returning
from interp.workspace import Workspace
from saes.acts.graphs import ChangeLatents

SHOWN_ANSWERS = 4
"""Other likely words that the header offers to explain."""
SHOWN_FLOWS = 14
"""Flows between groups of nodes that the table lists."""
EXAMPLE = "The capital of France is"


def layout(context: PageSources, name: str | None = None, trace: str | None = None, **address: str) -> html.Div:
    """`/graph/<name>?view=list&target=&at=<node>&nodes=&edges=&pins=<nodes>&collapse=1` (assets/graph/).

    `/graph?trace=` with a prompt, and options of the verb, traces it at once, and then opens its graph.
    """
    if trace and trace.strip() and not name:
        values = {"prompt": trace, **{field: address[field] for field in FIELDS if address.get(field)}}
        name = _traced_before(context.workspace, options := asked(context.workspace, values))
        if name is None:
            return _tracing(context, options)
    graph = _data.choose(context.workspace, name)
    choices = menu_choices(context.workspace, (KIND,))
    source = {
        "data-graph-source": f"/graph-data/{quote(graph.name)}",
        "data-graph-name": graph.name,
        "data-colours": json.dumps({theme.name: _colours(theme) for theme in (LIGHT, DARK)}),
    }
    source |= fields_data(change_latents=(ChangeLatents, ("factors", "mode")))
    return page(
        "Graph",
        *trace_form(context, _again(graph)),
        header(graph, address.get("target"), returning(graph, context.workspace.values(AttributionGraph)).headline()),
        html.Div(id="graph-view", className="wb-graph-view", **attrs(source)),
        *over_words(graph),
        legend(),
        controls=[artefact_menu("Graph", choices, page_of(graph.href), width=220, key=graph.key)],
    )


def _traced_before(workspace: Workspace, options: Mapping[str, Any]) -> str | None:
    """Return the newest graph of the same question, traced or begun; None without one."""
    wanted = short_name(str(options["model"])), options["prompt"], options.get("set") or "neurons"
    wanted += options.get("target"), options.get("contrast")
    for graph in () if options.get("chat") else workspace.values(AttributionGraph):
        of = graph.settings
        if (short_name(of.model), graph.prompt.strip(), of.dictionary, of.target, of.contrast) == wanted:
            return graph.name
    return None


def _tracing(context: PageSources, options: dict[str, Any]) -> html.Div:
    """Return the page that traces a prompt: the prompt, and the progress of its run, which is queued."""
    if context.runs is not None and not context.runs.problem:
        context.runs.add("trace", options)
    prompt = html.Span(visible(options["prompt"], 400), className="wb-tokens wb-graph-prompt", dir="auto")
    run = run_button("trace", options, id="trace-now", text="Trace again", opens=True)
    return page("Graph", panel("Tracing", html.P(prompt), run, more="The first picture opens before it is tested."))


def _again(graph: AttributionGraph) -> dict[str, str | None]:
    """Return the options of the verb that traced a graph."""
    of_set = f"transcoders/{graph.dictionary}" in graph.about.parents
    prompt = "".join(_typed(graph)).strip()
    return {"model": graph.model, "set": graph.dictionary if of_set else None, "prompt": prompt}


def _typed(graph: AttributionGraph) -> tuple[str, ...]:
    """Return the tokens of the prompt, without that of its beginning where the workbench traced it."""
    return graph.token_texts[1:] if graph.settings.trace is not None else graph.token_texts


def header(graph: AttributionGraph, target: str | None = None, returns: str = "") -> html.Section:
    """Return a line with the prompt and the answers, and folded under it every score with its baselines.

    `target` is the number of the only one of several answers that is explained; `returns` says how often its latents
    return in graphs of other wordings.
    """
    tokens = [html.Span(visible(text, 40), className="wb-graph-token") for text in _typed(graph)]
    line = html.H2(
        [
            html.Span(tokens, className="wb-tokens wb-graph-prompt", dir="auto"),
            html.Span(" → ", className="wb-quiet"),
            *answers(graph, target),
        ],
        className="wb-graph-title",
    )
    cells: dict[str, list[Part]] = {
        "Target": [html.P(about(graph), className="wb-note")],
        "Scores": [*scores(graph)],
        "Against the free model": [*effects(graph)],
        "Other wordings": [html.P(f"{returns}.", className="wb-note")] if returns else [],
    }
    shown = [html.Div([html.H3(title), *cell], className="wb-graph-cell") for title, cell in cells.items()]
    judged = verdict(f"{trust(graph)}.", html.Div(shown, className="wb-graph-trust"))
    parts = [html.Div([line, *other_answers(graph), *_untested(graph)]), judged]
    return html.Section(parts, className="wb-panel wb-graph-head", **attrs({"aria-label": "Prompt and target"}))


def _untested(graph: AttributionGraph) -> list[Part]:
    """Return the progress of the tests of a first picture, with a link to the whole graph at its end."""
    if not graph.first_picture:
        return []
    queue = current().runs if flask.has_app_context() else None
    run = None if queue is None else queue.using(graph.key)
    shown: list[Part] = [html.P("First picture: the strongest causes, not tested yet.", className="wb-note")]
    if run is not None:
        shown.append(run_button(run.verb, run.options, id="tests", text="Test it", then=page_of(graph.href)))
    return [html.Div(shown)]


def answers(graph: AttributionGraph, target: str | None) -> list[Part]:
    """Return the explained answers, of several each as a link that explains it alone."""
    if not graph.targets:
        return [html.Strong("no target")]
    shown: list[Part] = []
    for number, (explained, probability) in enumerate(zip(graph.targets, graph.probabilities, strict=True)):
        ours, contrast = (visible(side.strip() or side, 30) for side in explained.sides)
        text = f"“{ours}”" + ("" if probability is None else f" {probability:.1%}")
        text += f" rather than “{contrast}”" if contrast else ""
        if len(graph.targets) == 1:
            shown.append(html.Strong(text, className="wb-graph-answer", dir="auto"))
        elif str(number) == target:
            current = attrs({"aria-current": "true"})
            shown.append(html.A(text, href="?target=", title="Show all answers", className="wb-chip", **current))
        else:
            shown.append(dcc.Link(text, href=f"?target={number}", title="Explain it alone", className="wb-chip"))
    return shown


def other_answers(graph: AttributionGraph) -> list[html.P]:
    """Return links that trace other likely words; nothing where none is known."""
    answers = [row for row in _data.candidates(graph) if row["node"] is None and _typed_again(row["text"])]
    shown: list[Part] = ["Or explain "]
    for answer in answers[:SHOWN_ANSWERS]:
        word, against = answer["text"].strip(), graph.targets[0].sides[0].strip()
        traced = trace_href(**(_again(graph) | {"target": word, "contrast": against}))
        text = f"{visible(word, 30)} {100 * answer['probability']:.0f} %"
        shown.append(dcc.Link(text, href=traced, title="Trace why it could be this word", className="wb-chip"))
    return [html.P(shown, className="wb-quiet wb-graph-others")] if answers else []


def _typed_again(token: str) -> bool:
    """Return whether a word leads to the same token (`asked`)."""
    return token.strip() != "" and (token[0] == " " or not token[0].isalnum())


def over_words(graph: AttributionGraph) -> list[html.Section]:
    """Return the flows between groups of nodes over the words of a template, if the graph was traced with one."""
    if graph.flows is None:
        return []
    rows = graph.flows.rows()
    beyond = [row for row in rows if row.beyond]
    text = (
        f"The same prompt with {len(graph.settings.words)} words: direct influence between groups of nodes, mean and "
        f"95 % interval over the words. {len(beyond)} of {len(rows)} flows differ from 0, "
        f"{len(rows) * 0.05:.0f} would by chance."
    )
    return [
        panel(
            "Over other words",
            html.P(text, className="wb-note"),
            records_table([asdict(row) for row in beyond or rows], limit=SHOWN_FLOWS),
            className="wb-graph-words",
        )
    ]


def legend() -> html.Details:
    """Return the folded panel that says how to read the picture."""
    texts = (
        "A circle is a latent, coloured and sized by its effect on the target; a diamond an error, the part of an MLP "
        "that no latent explains; a square a token. A line is the direct effect of the lower node on the upper "
        "one, with attention and norms fixed at the values of this prompt, blue above 0 and orange below; its width is "
        "its share of the upper node's input. Dashed, after why beside a head: a large part of its query or key; a "
        "node with dashed lines alone matters through them alone.",
        "Drag moves the view, the wheel zooms. Keys: p pins, i changes, n names; arrows go to the strongest reader or "
        "source, and along a layer.",
    )
    shown = [html.Summary("Reading the graph"), *(html.P(text, className="wb-note") for text in texts)]
    return html.Details(shown, className="wb-folded wb-graph-reading")


def _colours(theme: Theme) -> dict[str, Any]:
    return canvas_colours(theme, [(theme.accent, []), (theme.opposite, []), (theme.text, [4, 3])])  # the last: reasons


SIZES: dict[str, dict[str, int]] = {
    "quick": {"max_feature_nodes": 1024, "effects": 24},
    "usual": {"max_feature_nodes": 3072, "effects": 32},
    "full": {},
}
"""Size of a graph -> settings of the verb. The background is measured with `full`."""
ASK = {"type": "run-ask", "of": "trace"}
FIELDS: tuple[str, ...] = ("prompt", "target", "size", "contrast", "model", "set", "chat")


def trace_form(context: PageSources, preset: Mapping[str, str | None]) -> list[html.Details]:
    """Return the folded form, filled with options of the verb; nothing where the server runs no analyses."""
    if context.runs is None or "trace" not in context.runs.catalogue.forms:
        return []
    offered = {name: context.runs.catalogue.suggestions(name) for name in ("model", "transcoders")}
    values = {"size": "usual", **{name: value for name, value in preset.items() if value}}
    values.setdefault("model", next(iter(offered["model"]), ""))
    known = [*dict.fromkeys([values["model"], *offered["model"]])]

    def text(name: str, label: str, hint: str) -> dmc.TextInput:
        value, look = values.get(name, ""), f"wb-graph-trace-{name}"
        return dmc.TextInput(
            id=f"graph-trace-{name}", label=label, value=value, placeholder=hint, size="xs", className=look
        )

    def menu(name: str, label: str, data: list[dict[str, str]], value: str) -> dmc.Select:
        return dmc.Select(id=f"graph-trace-{name}", label=label, data=data, value=value, size="xs", allowDeselect=False)

    sets = [{"value": "", "label": "MLP neurons"}, *({"value": name, "label": name} for name in offered["transcoders"])]
    more = html.Details(
        [
            html.Summary("more"),
            html.Div(
                [
                    text("contrast", "against", "the next likely word"),
                    menu("model", "model", model_choices(known), values["model"]),
                    menu("set", "latents", sets, values.get("set", "")),
                    dmc.Checkbox(
                        id="graph-trace-chat", label="in the chat template", checked=bool(preset.get("chat")), size="xs"
                    ),
                    dcc.Link("all settings", id="graph-trace-all", href=_all(values), className="wb-link"),
                ],
                className="wb-graph-trace",
            ),
        ],
        className="wb-folded",
    )
    parts = [
        html.Summary("Trace another prompt"),
        html.Div(
            [
                text("prompt", "prompt", "text whose next token is explained"),
                text("target", "target", "the likeliest content word"),
                menu("size", "size", [{"value": size, "label": size} for size in SIZES], values["size"]),
            ],
            className="wb-graph-trace",
        ),
        more,
        run_button("trace", asked(context.workspace, values), id="trace", text="Trace", opens=True),
    ]
    return [html.Details(parts, className="wb-panel wb-graph-new")]


def _all(values: Mapping[str, str | bool | None]) -> str:
    options = {name: value for name, value in values.items() if name != "size"}
    return runs_href("trace", **options)


def asked(workspace: Workspace, values: Mapping[str, str | bool | None]) -> dict[str, Any]:
    """Return the options of the verb for the fields of the form; words get the space before them that tokens have."""
    prompt = str(values.get("prompt") or "").strip()
    size = SIZES[str(values.get("size") or "usual")]
    options: dict[str, Any] = {"model": values.get("model"), "prompt": prompt, **size}
    for name in ("target", "contrast"):
        if word := str(values.get(name) or "").strip():
            options[name] = f" {word}" if word[0].isalnum() and not values.get("chat") else word
    options |= {name: values[name] for name in ("set", "chat") if values.get(name)}
    options["name"] = _free_name(workspace, prompt)
    return options


def _free_name(workspace: Workspace, prompt: str) -> str:
    """Return an unused name made of the prompt."""
    plain = "-".join(re.findall(r"[A-Za-z0-9]+", prompt))[:48].strip("-") or "prompt"
    taken = {graph.name for graph in workspace.newest(KIND)}
    return next(name for n in range(1, len(taken) + 2) if (name := plain if n == 1 else f"{plain}-{n}") not in taken)


def register_tracing(app: Dash) -> None:
    """Let the button of the form run the fields' options."""

    @app.callback(
        Output(ASK, "data", allow_duplicate=True),
        Output({"type": "run-go", "of": "trace"}, "disabled", allow_duplicate=True),
        Output("graph-trace-all", "href"),
        *(Input(f"graph-trace-{name}", "checked" if name == "chat" else "value") for name in FIELDS),
        State(ASK, "data"),
        prevent_initial_call=True,
    )
    def follow(*inputs: Any) -> tuple[dict[str, Any], bool, str]:
        *fields, now = inputs
        context = current()
        values: dict[str, str | bool | None] = dict(zip(FIELDS, fields, strict=True))
        if context.runs is None:
            raise PreventUpdate
        active = bool(now["run"]) and any(run.id == now["run"] for run in context.runs.active())
        if active:
            raise PreventUpdate
        options = asked(context.workspace, values)
        return {**now, "options": options, "run": None}, not options["prompt"], _all(values)


def _first_graph(_: Workspace, model: str) -> tuple[str, dict[str, Any]]:
    return "trace", {"model": model, "prompt": EXAMPLE}


def register(app: Dash) -> None:
    """Add the routes and the form; everything else happens in the browser."""
    _routes.register(app.server)
    _file.register(app.server)
    register_tracing(app)


PAGE = Page(
    title="Graph",
    path="/graph",
    templates=("/graph/<name>",),
    group="prompts",
    order=65,
    about="An answer, traced back to the words of its prompt",
    layout=layout,
    register=register,
    shows="An attribution graph explains one answer: it follows the answer back through the features of every layer to "
    "the words of the prompt. Each line is a direct effect, for or against. Tests say how far the model agrees.",
    command=f'workbench trace MODEL --prompt "{EXAMPLE}"',
    fill=_first_graph,
)
