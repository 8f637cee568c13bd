"""Every variation of a claim as a dot with its interval, its null as a band, the worst case as a line."""

from math import isnan

import plotly.graph_objects as go

from dashboard.figures.theme import Theme, legend_above, styled, whiskers
from interp.claims import Claim, Outcome


def claim_variations(claim: Claim, colours: Theme, *, height: int | None = None) -> go.Figure:
    """One row per variation: the number with its 95 % interval, and a band up to the largest value of its nulls."""
    rows, figure = claim.variations, go.Figure()
    names = [f"{at}. {row.changed}" for at, row in enumerate(rows, 1)]
    looks: dict[Outcome, str] = {
        "supported": colours.accent, "undecided": colours.muted, "not supported": colours.opposite
    }  # fmt: skip
    low = min([0.0, *(x for row in rows for x in (row.null, row.value) if not isnan(x))])
    figure.add_bar(
        y=names,
        x=[None if isnan(row.null) else row.null - low for row in rows],
        base=low,
        orientation="h",
        name="nulls, up to the largest",
        marker={"color": colours.grid, "line": {"width": 0}},
        customdata=[row.null for row in rows],
        hovertemplate="null at most %{customdata:.3g}<extra></extra>",
    )
    for outcome, colour in looks.items():
        some = [(name, row) for name, row in zip(names, rows, strict=True) if row.outcome == outcome]
        if not some:
            continue
        figure.add_scatter(
            y=[name for name, _ in some],
            x=[row.value for _, row in some],
            error_x=whiskers(*zip(*((row.value, row.low, row.high) for _, row in some), strict=True), thickness=1.2),
            mode="markers",
            name=outcome,
            marker={"color": colour, "size": 10},
            hovertemplate="%{y}: %{x:.3g}<extra>%{fullData.name}</extra>",
        )
    legend_above(styled(figure, colours, height=height or 120 + 28 * len(rows)))
    worst = min(rows, key=lambda row: row.margin)
    if not isnan(worst.value):
        figure.add_vline(x=worst.value, line={"color": colours.opposite, "width": 1, "dash": "dot"})
    figure.update_xaxes(title_text=f"{claim.stated.unit}<br>dotted: the variation least above its null")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure
