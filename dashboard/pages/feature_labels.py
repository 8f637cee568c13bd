"""The labels of one feature side by side: who wrote each, and what it scored on text that the writer did not see."""

from typing import Any

from dash import html

from dashboard.components.frame import panel
from dashboard.figures.theme import visible

_SCORES = (
    ("detection", "detection", "told the label, which held-out contexts does it fire in? Against random ones"),
    ("detection_hard", "look-alikes", "the same against contexts with its tokens, or of its nearest features"),
    ("fuzzing", "fuzzing", "told the label, which marked tokens are right?"),
)


def labels_panel(row: dict[str, Any], explained: list[dict[str, Any]]) -> html.Section:
    """Every label of a feature with its scores; the one from token statistics first when no other row has it."""
    lines = [_line(each["label"] or "no label could be read", each["label_source"], each) for each in explained]
    statistics = explained[0]["statistics_label"] or (row["label"] if row["label_source"] == "token statistics" else "")
    if statistics and all(each["label"] != statistics for each in explained):
        lines.insert(0, _line(statistics, "token statistics", None))
    return panel(
        "Labels",
        html.Ol(lines, className="wb-labels"),
        note="balanced accuracy on held-out contexts, with its 95 % interval: .5 knows nothing, 1 is always right; "
        "in brackets the score with another feature's label",
    )


def _line(label: str, source: str, scored: dict[str, Any] | None) -> html.Li:
    scores = [html.Span("not scored", className="wb-quiet")]
    if scored is not None:
        scores = [_score(scored, *each) for each in _SCORES if scored[each[0]] is not None] or scores
    by = source
    if scored is not None and scored["scorer"] != source:
        by = f"{source}, scored by {scored['scorer']}"
    return html.Li(
        [
            html.Span(visible(label, 300), dir="auto"),
            html.Span(visible(by, 60), className="wb-source", title=by),
            html.Div(scores, className="wb-label-scores"),
        ]
    )


def _score(row: dict[str, Any], name: str, title: str, meaning: str) -> html.Span:
    null = row[f"{name}_null"]
    value = f"{row[name]:.2f}"
    interval = f"{row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f}"
    baseline = "" if null is None else f" [{null:.2f}]"
    return html.Span(
        [f"{title} ", html.Strong(value), html.Span(f" {interval}{baseline}", className="wb-quiet")],
        title=f"{meaning}; {row[f'{name}_n']} contexts, F1 {row[f'{name}_f1']:.2f}",
    )
