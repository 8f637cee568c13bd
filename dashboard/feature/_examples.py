"""The examples of a feature: by group, or in a range of activation that is chosen on the histogram.

A click or a drag on the histogram, or the slider under it, chooses a range. Three switches set the amount of text
(snippet, stored window, document) and the activation of full colour (of the feature, of the list, of the example).
Documents come from the recording, through the model process (`Live.documents`), which says why they cannot be read.
"""

from collections.abc import Callable
from itertools import groupby
from typing import Any, Literal, cast

import dash_mantine_components as dmc
from dash import Dash, Input, NoUpdate, Output, State, ctx, html, no_update
from dash.development.base_component import Component

from dashboard.components.evidence import activation_bars
from dashboard.components.frame import Part, attempt, attrs, explain, fold, panel, still
from dashboard.components.tokens import token_strip
from dashboard.data import features as view
from dashboard.figures.saes import filled_bins
from dashboard.figures.theme import visible
from dashboard.sources import Live, current
from interp.errors import WorkbenchError
from saes.acts.features import DocumentText, ReadDocuments
from saes.features.schema import ExampleRow

GROUPS = {
    "top": ("Strongest", "the largest activations, one per context"),
    "q4": ("Upper quarter", "quantiles 75 to 100 % of its activations"),
    "q3": ("Third quarter", "50 to 75 %"),
    "q2": ("Second quarter", "25 to 50 %"),
    "q1": ("Lower quarter", "0 to 25 %, the weakest activations"),
}
SNIPPET = 5
"""Tokens of a snippet on each side of the peak."""
N_DOCUMENTS = 6
"""Examples whose document is shown at a time."""
View = Literal["snippet", "context", "document"]
Scale = Literal["feature", "list", "example"]
VIEWS = (("snippet", "Snippet"), ("context", "Window"), ("document", "Full text"))
SCALES = (("feature", "feature"), ("list", "list"), ("example", "example"))
READING = {"view": "context", "scale": "feature"}
"""Initial state of the switches."""


def histogram_panel(feature: view.One) -> html.Section:
    """Return the histogram of activations, with a slider that chooses a range of its bins."""
    bins = filled_bins(feature.row.histogram)
    parts: list[Part] = [html.P("It never fired, so there is no histogram.", className="wb-none")]
    if sum(feature.row.histogram):
        aria = attrs({"aria-label": "Histogram of activations"})
        parts = [html.Div(bars(feature), id="feature-histogram", className="wb-histogram", role="figure", **aria)]
        slider = dmc.RangeSlider(
            id="feature-range", value=[bins.start, bins.stop], min=bins.start, max=bins.stop, step=1, minRange=1,
            label=None, size="xs", flex=1, thumbFromLabel="Lowest activation of the examples, a bin of the histogram",
            thumbToLabel="Highest activation of the examples, a bin of the histogram",
        )  # fmt: skip
        whole = dmc.Button("All", id="feature-range-all", variant="default", size="compact-xs")
        parts.append(html.Div([html.Span("examples", className="wb-quiet"), slider, whole], className="wb-density"))
        see = html.Button("see the examples", id="feature-range-see", type="button", className="wb-link")
        span = html.Span(
            said(feature, (bins.start, bins.stop)), id="feature-range-said", **attrs({"aria-live": "polite"})
        )
        first = html.Span(id="feature-range-first", **attrs({"data-first": str(bins.start)}))
        parts.append(html.P([span, " ", see, first], className="wb-note"))
    return panel(
        "Activations",
        *parts,
        more="Tokens per range of activation (logarithmic); dotted line: the mean. Click a bar, drag over bars or move "
        "the slider to see examples from that range.",
    )


def bars(feature: view.One, chosen: tuple[int, int] | None = None) -> list[Component]:
    """Return the filled bins of a feature's histogram; those outside of `chosen`, `(first, end)`, are faint."""
    bins = filled_bins(feature.row.histogram)
    within = None
    if chosen is not None and chosen != (bins.start, bins.stop):
        within = range(chosen[0] - bins.start, chosen[1] - bins.start)
    edges = feature.features.histogram_edges[bins.start : bins.stop + 1]
    return activation_bars(
        feature.row.histogram[bins.start : bins.stop], edges, mean=feature.row.mean_activation, chosen=within
    )


def said(feature: view.One, bins: tuple[int, int]) -> str:
    """Return the range of some bins of the histogram, `(first, end)`, and the number of tokens in it."""
    edges = feature.features.histogram_edges
    tokens = sum(feature.row.histogram[bins[0] : bins[1]])
    high = min(edges[min(bins[1], len(edges) - 1)], feature.row.max_activation)  # the last bin is wider than its values
    return f"{edges[bins[0]]:.3g} to {high:.3g}: {tokens:,} tokens;"


def examples_panel(feature: view.One, reading: dict[str, str] | None) -> html.Section:
    """Return the panel of examples with its switches, set as `reading` says."""
    chosen = READING | (reading or {})
    switches = [
        _switch("feature-view", "Amount of text", VIEWS, chosen["view"]),
        html.Span("full colour: maximum of the", className="wb-quiet"),
        _switch("feature-scale", "Full colour is the maximum of", SCALES, chosen["scale"]),
    ]
    bins = filled_bins(feature.row.histogram)
    shown = listed(feature, (bins.start, bins.stop), chosen, current_live)
    return panel(
        "Examples",
        html.Div(switches, className="wb-controls wb-example-switches"),
        html.Div(shown, id="feature-examples", **attrs({"aria-live": "polite"})),
        more="Text around its activations, with the peak token outlined. Point at a token, or step through active "
        "tokens with the arrow keys, to see activation, position in the document and token id.",
        className="wb-examples",
    )


def _switch(id: str, label: str, choices: tuple[tuple[str, str], ...], value: str) -> dmc.SegmentedControl:
    data = [{"value": key, "label": text} for key, text in choices]
    return dmc.SegmentedControl(id=id, data=cast(Any, data), value=value, size="xs", **attrs({"aria-label": label}))


def current_live() -> Live:
    """Return the model process of the dashboard."""
    return current().live


def listed(
    feature: view.One, bins: tuple[int, int], reading: dict[str, str], live: Callable[[], Live]
) -> list[Component]:
    """Return the examples whose activation lies in some bins, `(first, end)`; of the whole range by group.

    `live()` returns the model process, which is asked for documents only.
    """
    whole = filled_bins(feature.row.histogram)
    features, index = feature.features, feature.row.feature
    edges = features.histogram_edges
    scale, amount = cast(Scale, reading["scale"]), cast(View, reading["view"])
    if bins[0] <= whole.start and bins[1] >= whole.stop:
        examples = view.examples(features, index)
        groups = [(GROUPS.get(group, (group, "")), list(rows)) for group, rows in groupby(examples, lambda e: e.group)]
    else:
        low, high = edges[bins[0]], edges[min(bins[1], len(edges) - 1)]
        examples, n_stored = view.examples_between(features, index, low, high, last=bins[1] >= whole.stop)
        groups = [
            ((f"Activation {low:.3g} to {high:.3g}", _coverage(feature, bins, len(examples), n_stored)), examples)
        ]
    texts, remark = _documents(features.name, index, examples, live) if amount == "document" else ({}, None)
    parts: list[Component] = [html.P(remark, className="wb-note")] if remark else []
    strongest = feature.row.max_activation
    sections: list[Component] = []
    for (title, meaning), rows in groups:
        top = strongest if scale == "feature" else max((example.activation for example in rows), default=strongest)
        lines = [
            _example(example, example.activation if scale == "example" else top, amount, texts) for example in rows
        ]
        heading = html.H3([title, html.Span(meaning, className="wb-quiet")])
        sections.append(html.Section([heading, html.Ol(lines) if lines else None]))
    if len(sections) > 1:  # the strongest, and the quarters
        summary = f"Weaker activations: {sum(len(rows) for _, rows in groups[1:])} examples by quarter"
        sections[1:] = [fold(summary, html.Div(sections[1:]))]
    return parts + sections


def all_examples(feature: view.One) -> list[Component]:
    """Return every stored example by group, in its stored window."""
    whole = filled_bins(feature.row.histogram)
    if not feature.row.n_fired:
        return [html.P("It never fired.", className="wb-none")]
    return listed(feature, (whole.start, whole.stop), READING, current_live)


def _coverage(feature: view.One, bins: tuple[int, int], n: int, n_stored: int) -> str:
    tokens = sum(feature.row.histogram[bins[0] : bins[1]])
    text = f"{tokens:,} tokens of the recording; {n} of the {n_stored} stored examples"
    return text if n else f"{text}: only the strongest and some of each quarter are stored"


def _documents(
    name: str, feature: int, rows: list[ExampleRow], live: Callable[[], Live]
) -> tuple[dict[int, DocumentText], str | None]:
    """Return the documents of the first examples by recording row, and a sentence on those that are missing."""
    wanted = [example.row for example in rows[:N_DOCUMENTS]]
    try:
        documents = live().ask(ReadDocuments(features=name, feature=feature, rows=tuple(wanted)))
    except WorkbenchError as error:
        return {}, f"The full text cannot be shown: {explain(error)} The stored windows are shown instead."
    more = f"Full text of the first {N_DOCUMENTS} of {len(rows)} examples; " if len(rows) > N_DOCUMENTS else ""
    cut = "Longer documents are cut around the peak." if any(document.cut for document in documents) else ""
    remark = f"{more}{'the others show their stored window. ' if more else ''}{cut}"
    return dict(zip(wanted, documents, strict=True)), remark or None


def _example(row: ExampleRow, maximum: float, amount: View, texts: dict[int, DocumentText]) -> html.Li:
    origin = f"document {row.document_id}, token {row.position}"
    first, peak = row.position - row.peak, row.peak
    tokens, values, ids = row.tokens, row.activations, row.token_ids
    if whole := texts.get(row.row):
        tokens, values, ids, first, peak = whole.tokens, whole.activations, whole.token_ids, whole.first, whole.peak
    elif amount == "snippet":
        start = max(0, peak - SNIPPET)
        part = slice(start, peak + SNIPPET + 1)
        tokens, values, ids = tokens[part], values[part], ids[part]
        first, peak = first + start, peak - start
    return html.Li(
        [
            html.Span(f"{row.activation:.3g}", className="wb-value"),
            token_strip(tokens, values, maximum=maximum, peak=peak, ids=ids, first=first),
            html.Span(visible(row.document_label or "", 24), className="wb-source", title=origin),
        ]
    )


def _whole(_presses: object, first: int, end: int) -> list[int]:
    return [first, end]


def register(app: Dash) -> None:
    """Add the callbacks: a range chosen on the histogram, and the examples that follow it and the switches."""
    app.callback(
        Output("feature-range", "value"),
        Input("feature-range-all", "n_clicks"),
        State("feature-range", "min"),
        State("feature-range", "max"),
        prevent_initial_call=True,
    )(_whole)
    app.callback(
        Output("feature-examples", "children"),
        Output("feature-histogram", "children"),
        Output("feature-range-said", "children"),
        Input("feature-range", "value"),
        Input("feature-view", "value"),
        Input("feature-scale", "value"),
        State("feature-state", "data"),
        prevent_initial_call=True,
    )(_draw)
    # apart, since a callback with an output that stays on the page runs for every feature that is opened
    app.clientside_callback(
        "(view, scale) => ({ view, scale })",
        Output("feature-reading", "data"),
        Input("feature-view", "value"),
        Input("feature-scale", "value"),
        prevent_initial_call=True,
    )


def _draw(
    chosen: list[int], amount: str, scale: str, state: view.FeatureState
) -> tuple[Component, list[Component] | NoUpdate, str]:
    reading = {"view": amount, "scale": scale}
    feature = view.one(current().workspace, state["features"], state["index"])
    first, end = (int(edge) for edge in chosen)
    shown = attempt(lambda: still(html.Div(listed(feature, (first, end), reading, current_live))))
    drawn: list[Component] | NoUpdate = no_update
    if ctx.triggered_id == "feature-range":
        drawn = [still(bar) for bar in bars(feature, (first, end))]
    return shown, drawn, said(feature, (first, end))
