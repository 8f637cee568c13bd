"""Power of tools: the share of planted claims that each supports, over the strength of what was planted."""

from collections.abc import Sequence

import plotly.graph_objects as go

from dashboard.figures.theme import DASHES, Theme, legend_above, styled, whiskers
from interp.results import Record


def power_curves(rows: Sequence[Record], colours: Theme, *, height: int | None = None) -> go.Figure:
    """One curve for each tool and kind of claim, with 95 % intervals: kinds differ in colour, tools in dashes.

    `rows` have `tool`, `kind`, `effect`, `share`, `low` and `high`.
    """
    figure = go.Figure()
    tools, kinds = (list(dict.fromkeys(row[name] for row in rows)) for name in ("tool", "kind"))
    for tool, kind in dict.fromkeys((row["tool"], row["kind"]) for row in rows):
        mine = sorted((r for r in rows if (r["tool"], r["kind"]) == (tool, kind)), key=lambda row: row["effect"])
        look = {
            "color": colours.categories[kinds.index(kind) % len(colours.categories)],
            "dash": DASHES[tools.index(tool) % len(DASHES)],
        }
        figure.add_scatter(
            x=[row["effect"] for row in mine],
            y=[row["share"] for row in mine],
            error_y=whiskers(*([row[end] for row in mine] for end in ("share", "low", "high")), thickness=1),
            mode="lines+markers",
            name=f"{kind}, {tool}" if len(tools) > 1 else kind,
            line=look,
            hovertemplate="strength %{x}: %{y:.0%} supported<extra>%{fullData.name}</extra>",
        )
    figure.update_xaxes(title_text="strength of what was planted (1: in full)", range=[0, 1.03])
    figure.update_yaxes(title_text="share supported", range=[0, 1.03])
    return legend_above(styled(figure, colours, height=height or 380))
