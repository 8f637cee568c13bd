"""The right side of the atlas: the chosen point, how true the map is, and its regions."""

from typing import Any

from dash import html

from dashboard.addresses import feature_href
from dashboard.components.attributes import attrs
from dashboard.components.frame import panel, quiet_link, stat
from dashboard.components.token_strip import token_text
from dashboard.figures.theme import visible
from interp.artifacts import Manifest


def quality_panel(manifest: Manifest) -> html.Section:
    """How much of the full space the map keeps, each number with what it means."""
    s = manifest.summary
    trust, recall = s.get("trustworthiness"), s.get("recall_at_15")
    continuity, triplets = s.get("continuity"), s.get("triplet_accuracy")
    lines = []
    if recall is not None:
        lines.append(f"Of each point's 15 true neighbours the map keeps {recall:.0%} among the 15 nearest.")
    if trust is not None:
        lines.append(f"Neighbours on the map are true ones to {trust:.2f} (1: all of them, 0.5: as good as chance).")
    if continuity is not None:
        lines.append(f"True neighbours lie together on the map to {continuity:.2f} (by the same measure).")
    if triplets is not None:
        lines.append(f"Which of two points is nearer to a third, the map says rightly in {triplets:.0%} (chance: 50%).")
    if s.get("quality_sample"):
        of = "each point" if s["quality_sample"] == s.get("n_points") else f"{s['quality_sample']:,} random points"
        lines.append(f"Measured on {of} against all others.")
    lines.append("So read regions, not distances; colour by “kept” to see where the map is true.")
    if s.get("neighbours") == "approximate":
        lines.append(
            f"Neighbour lists were searched, not counted out: they hold {s['neighbours_recall']:.0%} of the true ones."
        )
    numbers = [
        stat("points", f"{s.get('n_points', 0):,}"),
        stat("from dimensions", f"{s.get('d', 0):,}"),
        stat("regions", " · ".join(f"{n:,}" for n in s.get("regions_per_level") or [0]), "on each zoom level"),
    ]
    notes = [html.P(visible(note, 300), className="wb-note", dir="auto") for note in s.get("notes") or []]
    said = [html.H3("What else to know"), *notes] if notes else []
    body = [html.Div(numbers, className="wb-stats"), *[html.P(line) for line in lines], *said]
    return panel("How true is this map", *body)


def regions_panel(regions: list[dict[str, Any]]) -> html.Section:
    """The largest regions by size; each selects its points."""
    rows = [
        html.Li(
            [
                html.Button(
                    visible(region["label"], 60) or "no label",
                    **attrs({"data-atlas-region": region["region"], "dir": "auto"}),
                    className="wb-link",
                    type="button",
                ),
                html.Span(f"{region['size']:,}", className="wb-value"),
            ]
        )
        for region in regions
    ]
    body = html.Ol(rows, className="wb-lines") if rows else html.P("None found.", className="wb-none")
    return panel("Regions", body, note="dense places, by number of points; press one to select it")


def point_panel(features: str | None, found: dict[str, Any]) -> html.Section:
    """The chosen point and its true neighbours, from the full space."""
    lines = [
        html.Li(
            [
                html.Button(
                    token_text(label, 40),
                    **attrs({"data-atlas-point": n}),
                    className="wb-link",
                    type="button",
                ),
                html.Span(f"{cosine:.2f}", className="wb-value"),
            ]
        )
        for n, label, _, cosine in found["neighbours"]
    ]
    link = quiet_link("Open the feature", feature_href(features, found["item"])) if features else None
    return panel(
        token_text(found["label"] or "no label", 60),
        html.P(
            f"{visible(found['region'], 60) or 'between regions'} · number {found['item']:,}",
            className="wb-note",
            dir="auto",
        ),
        html.P(visible(found["context"], 400), className="wb-tokens", dir="auto") if found["context"] else None,
        link,
        html.H3("True neighbours"),
        html.Ol(lines, className="wb-lines"),
        className="wb-chosen",
    )
