"""Everything about one feature: numbers, what it promotes, its neighbours, and text on which it fires."""

from itertools import groupby
from typing import Any

from dash import html

from dashboard.components.attributes import attrs
from dashboard.components.bars import token_bars
from dashboard.components.feature_links import feature_line
from dashboard.components.frame import graph, notice, panel, stat
from dashboard.components.token_strip import token_strip
from dashboard.figures.histogram import activation_histogram
from dashboard.figures.theme import theme, visible
from dashboard.pages.feature_labels import labels_panel
from dashboard.views import features as view
from interp.workspace import Workspace

GROUPS = {
    "top": ("Strongest", "where it fires most"),
    "q4": ("Upper quarter", "75 to 100 % of its active values"),
    "q3": ("Third quarter", "50 to 75 %"),
    "q2": ("Second quarter", "25 to 50 %"),
    "q1": ("Lower quarter", "0 to 25 %: what it mostly sees"),
}
_DENSE = 0.1


def detail(workspace: Workspace, name: str, index: int, scheme: str | None) -> html.Div:
    """The right side of the page. Raises `UsageError` when there is no such feature."""
    row = view.one(workspace, name, index)
    near = view.labels(workspace, name, row["neighbours"])
    parts: list[Any] = [_heading(row), _numbers(row)]
    if row["n_fired"] == 0:
        parts.append(
            notice(
                html.Strong("A dead feature. "),
                "It fired on none of the tokens that were looked at, so there are no examples and no label.",
                tone="warning",
            )
        )
    elif row["density"] > _DENSE:
        parts.append(
            notice(html.Strong("A dense feature. "), f"It fires on {row['density']:.0%} of all tokens.", tone="warning")
        )
    explained = view.explanations(workspace, name, index)
    if explained:
        parts.append(labels_panel(row, explained))
    parts.append(html.Div([_histogram(row, scheme), *_effects(row)], className="wb-facets"))
    fired = [_examples(workspace, name, row)] if row["n_fired"] else []
    parts.append(html.Div([*fired, _neighbours(name, row, near)], className="wb-lower"))
    return html.Div(parts)


def _heading(row: dict[str, Any]) -> html.Div:
    label = visible(row["label"] or "", 400) or ("never fires" if row["n_fired"] == 0 else "no label")
    return html.Div(
        [
            html.Span(f"#{row['feature']}", className="wb-feature-id", id="feature-number"),
            html.H2(label, className="wb-feature-title", dir="auto"),
            html.Span(f"label from {row['label_source']}", className="wb-quiet") if row["label"] else None,
        ],
        className="wb-feature-head",
        **attrs({"aria-live": "polite"}),
    )


def _numbers(row: dict[str, Any]) -> html.Div:
    return html.Div(
        [
            stat("density", f"{row['density']:.3%}", "share of tokens on which it is active"),
            stat("tokens", f"{row['n_fired']:,}", "tokens on which it is active"),
            stat("mean", f"{row['mean_activation']:.3g}", "mean activation over those tokens"),
            stat("max", f"{row['max_activation']:.3g}", "largest activation seen"),
            stat("decoder norm", f"{row['decoder_norm']:.3g}", "length of its direction"),
            stat("features in all", f"{row['n_features']:,}", f"in {row['dictionary']}"),
        ],
        className="wb-stats",
    )


def _histogram(row: dict[str, Any], scheme: str | None) -> html.Section:
    figure = activation_histogram(
        row["histogram"], row["histogram_edges"], theme(scheme), marker=row["mean_activation"], height=210
    )
    return panel(
        "Activations",
        graph("feature-histogram", figure=figure, height=210, label="Histogram of activations"),
        note="tokens per strength; dotted: the mean",
    )


def _effects(row: dict[str, Any]) -> list[html.Section]:
    sides = [("promoted", "Promotes", False), ("suppressed", "Suppresses", True)]
    pairs = {side: list(zip(row[f"{side}_tokens"], row[f"{side}_logits"], strict=True)) for side, _, _ in sides}
    if not pairs["promoted"]:
        return [panel("Promotes", html.P("This place does not write to the residual stream.", className="wb-none"))]
    largest = max(abs(value) for side in pairs.values() for _, value in side)
    return [
        panel(
            title,
            token_bars(pairs[side], label=f"{title} tokens", signed=signed, maximum=largest, form="{:+.2f}".format),
            note=f"next tokens whose logit it {'lowers' if signed else 'raises'} most",
        )
        for side, title, signed in sides
    ]


def _neighbours(name: str, row: dict[str, Any], near: dict[int, str]) -> html.Section:
    pairs = zip(row["neighbours"], row["neighbour_cosines"], strict=True)
    lines = [feature_line(name, n, near.get(n, ""), f"{cosine:.2f}") for n, cosine in pairs]
    return panel("Neighbours", html.Ol(lines, className="wb-lines"), note="the same direction, by cosine")


def _examples(workspace: Workspace, name: str, row: dict[str, Any]) -> html.Section:
    found = view.examples(workspace, name, row["feature"])
    groups = [_group(group, list(rows), row["max_activation"]) for group, rows in groupby(found, lambda e: e["group"])]
    return panel(
        "Where it fires",
        *groups,
        note="colour is activation / maximum; the outlined token is the peak; hover for the value",
        className="wb-examples",
    )


def _group(group: str, rows: list[dict[str, Any]], maximum: float) -> html.Section:
    title, meaning = GROUPS.get(group, (group, ""))
    return html.Section(
        [
            html.H3([title, html.Span(meaning, className="wb-quiet")]),
            html.Ol([_example(row, maximum) for row in rows]),
        ]
    )


def _example(row: dict[str, Any], maximum: float) -> html.Li:
    place = f"document {row['document_id']}, token {row['position']}"
    return html.Li(
        [
            html.Span(f"{row['activation']:.3g}", className="wb-value"),
            token_strip(row["tokens"], row["activations"], maximum=maximum, peak=row["peak"]),
            html.Span(visible(row["document_label"] or "", 24), className="wb-source", title=place),
        ]
    )
