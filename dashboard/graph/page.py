"""*Graph*: one attribution graph, with its scores beside their baselines, to read, edit and save as a picture.

The browser draws the graph itself (assets/graph/): tokens below, targets above, a column per position, a row per layer.
The address holds the chosen node, both thresholds, the target and the pins; pins, groups, names, positions and hidden
nodes are stored among the notes of the workspace (`routes`).
"""

import json
from typing import Any
from urllib.parse import quote

from dash import Dash, dcc, html

from dashboard.components.evidence import records_table
from dashboard.components.frame import attrs, page, panel
from dashboard.components.pages import (
    Context,
    Page,
    artefact_key,
    artefact_menu,
    graph_href,
    menu_choices,
)
from dashboard.figures.theme import DARK, FONT, LIGHT, MONO, Theme, visible
from dashboard.graph import data, routes
from interp.artifacts import Manifest
from interp.tracing.graph import KIND, VARIANTS, AttributionGraph
from interp.workspace import Workspace

SHOWN_TARGETS = 5
"""Targets that the header names."""
LONG_PROMPT = 40
"""Tokens from which a prompt may scroll, and so takes the keyboard."""
SHOWN_FLOWS = 14
"""Flows between groups of nodes that the table lists."""
EXAMPLE = "The capital of France is"
SCORES = {
    "replacement": (
        "Replacement score",
        "share of the influence that starts at tokens and not at errors: how much of the way from tokens to targets "
        "the latents account for",
    ),
    "completeness": (
        "Completeness",
        "share of the input of nodes, weighted by their influence, that does not come from errors",
    ),
}
BASELINES = {"floor": "no latent", "untrained": "untrained"}


def layout(context: Context, name: str | None = None, **_: Any) -> html.Div:
    """`/graph/<name>?at=<node>&nodes=&edges=&target=&pins=<nodes>&view=list&collapse=1&only=1` (assets/graph/)."""
    manifest = data.choose(context.workspace, name)
    found = data.graph(context.workspace, manifest)
    key = artefact_key(manifest)
    choices = menu_choices(context.workspace, (KIND,), _href)
    source = {
        "data-graph-source": f"/graph-data/{quote(manifest.name)}",
        "data-graph-name": manifest.name,
        "data-colours": json.dumps({each.name: _colours(each) for each in (LIGHT, DARK)}),
    }
    return page(
        "Graph",
        header(found),
        html.Div(id="graph-view", className="wb-graph-view", **attrs(source)),
        *over_words(context.workspace, manifest),
        legend(),
        controls=[artefact_menu("Graph", choices, _href(key), width=220, key=key), *_another(context)],
    )


def _href(key: str) -> str:
    return graph_href(key.removeprefix("graphs/"))


def _another(context: Context) -> list[Any]:
    """Return the link to the form of the verb, where the server runs it."""
    if context.runs is None or "trace" not in context.runs.catalogue.forms:
        return []
    return [dcc.Link("Trace another prompt", href="/runs?verb=trace", className="wb-link")]


def header(found: AttributionGraph) -> html.Section:
    """Return the prompt, its targets with their probabilities, and every score beside its baselines."""
    first = _asked(found)
    tokens = [html.Span(visible(text, 40), className="wb-graph-token") for text in found.token_texts]
    scrolls = attrs({"tabIndex": 0} if len(tokens) > LONG_PROMPT else {})
    parts = [
        html.Div(
            [
                html.H2(f"Why does {found.model} {first}?", className="wb-graph-title"),
                html.P(tokens, className="wb-tokens wb-graph-prompt", dir="auto", **scrolls),
                html.P(_about(found), className="wb-note"),
            ],
            className="wb-graph-asked",
        ),
        html.Div([html.H3("Targets"), targets(found)], className="wb-graph-cell"),
        html.Div([html.H3("Scores"), *scores(found.scores)], className="wb-graph-cell"),
        html.Div([html.H3("Against the free model"), *effects(found.scores)], className="wb-graph-cell"),
    ]
    return html.Section(
        parts, className="wb-panel wb-graph-head", **attrs({"aria-label": "Prompt, targets and scores"})
    )


def _asked(found: AttributionGraph) -> str:
    """Return what the graph explains, after "Why does MODEL"."""
    if not found.targets:
        return "answer as it does"
    one = found.targets[0]
    ours, _, other = one.label.partition(" - ")
    if one.contrast is not None and other:
        return f"prefer “{visible(ours.strip(), 30)}” to “{visible(other.strip(), 30)}”"
    return f"say “{visible(one.label, 30)}”"


def _about(found: AttributionGraph) -> str:
    latents = "MLP neurons" if found.dictionary == "neurons" else f"latents of {found.dictionary}"
    frozen = found.settings.get("frozen")
    held = ", ".join(map(str, frozen)) if isinstance(frozen, list | tuple) else str(frozen or "attention and norms")
    said = f"Direct effects between {latents}, with {held} held at the values of this prompt."
    pruned, stored = found.settings.get("edges_kept"), int(found.edges.kept.sum())
    if isinstance(pruned, int) and pruned > stored:
        said += f" Of {pruned:,} edges of the pruned graph, the {stored:,} with the largest scores are stored."
    return visible(said, 500)


def targets(found: AttributionGraph) -> html.Ol:
    """Return the explained outputs with the share of the influence that starts at each."""
    rows = [
        html.Li(
            [
                html.Span(visible(each.label, 22), className="wb-token", title=repr(each.label)[:200]),
                html.Span(
                    html.Span(style={"width": f"{min(max(each.weight, 0.0), 1.0):.1%}"}),
                    className="wb-track", **attrs({"aria-hidden": "true"}),
                ),
                html.Span(f"{each.weight:.1%}", className="wb-value"),
            ]
        )
        for each in found.targets[:SHOWN_TARGETS]
    ]  # fmt: skip
    if rest := found.targets[SHOWN_TARGETS:]:
        share = sum(each.weight for each in rest)
        rows.append(html.Li(html.Span(f"{len(rest)} more, together {share:.1%}", className="wb-quiet wb-graph-more")))
    return html.Ol(rows, className="wb-bars", **attrs({"aria-label": "Targets and their probabilities"}))


def scores(known: dict[str, Any]) -> list[Any]:
    """Return each score on a line from 0 to 1, with its baselines on the same line."""
    shown: list[Any] = []
    for name, (title, meaning) in SCORES.items():
        value = _number(known.get(name))
        if value is None:
            continue
        marks = {words: _number(known.get(f"{name}_{key}")) for key, words in BASELINES.items()}
        said = [f"{words} {mark:.2f}" for words, mark in marks.items() if mark is not None]
        missing = [words for words, mark in marks.items() if mark is None]
        text = ", ".join([*said, "perfect 1"]) + (f"; not measured: {', '.join(missing)}" if missing else "")
        shown.append(_strip(title, value, [mark for mark in marks.values() if mark is not None], text, meaning))
    return shown or [html.P("No score was computed.", className="wb-none")]


def effects(known: dict[str, Any]) -> list[Any]:
    """Return how well the graph predicts ablations in the model with nothing frozen, or that this was not measured."""
    found = known.get("effects")
    if not isinstance(found, dict) or _number(found.get("spearman")) is None:
        return [
            html.P("Not measured for this graph: its edges are exact in the frozen model alone.", className="wb-none")
        ]
    low, high = _number(found.get("spearman_low")), _number(found.get("spearman_high"))
    interval = "" if low is None or high is None else f", 95 % interval {low:.2f} to {high:.2f}"
    slope = _number(found.get("slope"))
    direct = _number(found.get("direct_spearman"))
    beside = "no agreement 0" + ("" if direct is None else f", by direct effects alone {direct:.2f}")
    marks = [0.0] if direct is None else [0.0, direct]
    strip = _strip(
        "Rank correlation", float(found["spearman"]), marks, f"{beside}, perfect 1{interval}",
        "of the predicted and the measured effect of ablating a latent with nothing frozen", bounds=(low, high),
    )  # fmt: skip
    said = f"{found.get('n', '?')} latents were ablated"
    return [
        strip,
        html.P(said + (f"; slope {slope:.2f} (1: exact)." if slope is not None else "."), className="wb-note"),
    ]


def over_words(workspace: Workspace, manifest: Manifest) -> list[html.Section]:
    """Return the flows between groups of nodes over the words of a template, for a graph that was traced with one."""
    if "flows" not in manifest.summary:
        return []
    path = workspace.table_path(KIND, manifest.name, VARIANTS.removesuffix(".parquet"))
    rows = workspace.query("select * from f", f=path).to_pylist()
    beyond = [row for row in rows if row["low"] > 0 or row["high"] < 0]
    n = manifest.summary["words"]
    said = (
        f"The same prompt with {n} words: the part of all influence that goes straight from one group of nodes to "
        f"another, with its mean and 95 % interval over the words. {len(beyond)} of {len(rows)} flows differ from 0; "
        f"with nothing there, {len(rows) * 0.05:.0f} would."
    )
    return [
        panel(
            "Over other words",
            html.P(said, className="wb-note"),
            records_table(beyond or rows, limit=SHOWN_FLOWS),
            className="wb-graph-words",
        )
    ]


def _strip(
    title: str, value: float, marks: list[float], text: str, meaning: str, *, bounds: tuple[Any, Any] = (None, None)
) -> html.Div:
    """Return a number with a line from 0 to 1: a bar to the value, a tick for each baseline, a band for an interval."""
    band = []
    if None not in bounds:
        low, high = (min(max(each, 0.0), 1.0) for each in bounds)
        band = [html.I(className="wb-graph-band", style={"left": f"{low:.1%}", "width": f"{high - low:.1%}"})]
    line = html.Div(
        [
            html.I(className="wb-graph-fill", style={"width": f"{min(max(value, 0.0), 1.0):.1%}"}),
            *band,
            *(html.I(className="wb-graph-tick", style={"left": f"{min(max(mark, 0.0), 1.0):.1%}"}) for mark in marks),
        ],
        className="wb-graph-strip",
        **attrs({"aria-hidden": "true"}),
    )
    head = html.Div([html.Span(title, title=meaning), html.Strong(f"{value:.2f}")], className="wb-graph-score")
    return html.Div([head, line, html.P(text, className="wb-note")], title=meaning)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def legend() -> html.Section:
    """Return the panel that says how to read the picture."""
    signs = [
        ([html.I(className="wb-line", style={"background": "var(--wb-accent)"})], "positive direct effect"),
        ([html.I(className="wb-line", style={"background": "var(--wb-opposite)"})], "negative direct effect"),
        ([html.I(className="wb-graph-sign wb-graph-latent")], "latent, larger with its influence"),
        ([html.I(className="wb-graph-sign wb-graph-error")], "error: part of an MLP's output that no latent explains"),
        ([html.I(className="wb-graph-sign wb-graph-square")], "token"),
    ]
    keys = (
        "Drag moves the view, or a node; the wheel zooms. Shift-click or x marks, p pins, g groups the marked, n "
        "names, h hides, Ctrl Z takes back. On the graph, arrow keys go to the strongest reader, the strongest source, "
        "and along the layer."
    )
    return panel(
        "Reading the graph",
        html.Div([html.Span([*sign, words]) for sign, words in signs], className="wb-legend"),
        html.P(keys, className="wb-note"),
        note="A line is the direct effect of the lower node on the upper one, in the model with attention and norms "
        "held at the values of this prompt. Its width grows with the part of the upper node's input that it makes up.",
    )


def _colours(theme: Theme) -> dict[str, Any]:
    names = ("surface", "text", "muted", "grid", "accent", "opposite")
    return {name: getattr(theme, name) for name in names} | {
        "categories": theme.categories, "font": FONT, "mono": MONO,
        "node": "#8792a0" if theme is LIGHT else "#7d8896", "soft": "#e7f0fd" if theme is LIGHT else "#1b2a42",
    }  # fmt: skip


def _first_graph(_: Workspace, model: str) -> tuple[str, dict[str, Any]]:
    return "trace", {"model": model, "prompt": EXAMPLE}


def register(app: Dash) -> None:
    """Add the routes; everything else happens in the browser."""
    routes.register(app.server)


PAGE = Page(
    title="Graph",
    path="/graph",
    templates=("/graph/<name>",),
    order=65,
    layout=layout,
    register=register,
    shows="An attribution graph answers why a model gave its answer: it follows the answer's logits back through the "
    "features of every layer to the tokens of the prompt, each line a direct effect with its sign, and says how far "
    "the model itself agrees.",
    command=f'workbench trace MODEL --prompt "{EXAMPLE}"',
    fill=_first_graph,
)
