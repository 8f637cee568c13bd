"""Whose features they are: latents of a crosscoder of two models, by how much of each lies in the second."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import Theme, escape, message_figure, styled

BINS = 40


def difference_histogram(
    relative_norm: Sequence[float],
    kinds: Sequence[str],
    confirmed: Sequence[bool],
    colours: Theme,
    *,
    first: str,
    second: str,
    height: int = 320,
) -> go.Figure:
    """Latents by relative norm: at 0 the first model has them alone, at a half both, at 1 the second alone.

    Those of one model that latent scaling does not confirm are drawn apart: they may well be artefacts. `rare` ones are
    left out.
    """
    norm, kind, sure = np.asarray(relative_norm, float), np.asarray(kinds), np.asarray(confirmed, bool)
    if not (kind != "rare").any():
        return message_figure("no latent fired often enough to say whose it is", colours, height=height)
    own = np.isin(kind, ["first only", "second only"])
    parts = [
        ("in both, or between", (kind != "rare") & ~own, colours.noise),
        ("of one model, not confirmed", own & ~sure, colours.opposite),
        ("of one model, confirmed", own & sure, colours.accent),
    ]
    edges = np.linspace(0, 1, BINS + 1)
    figure = go.Figure()
    for name, chosen, colour in parts:
        counts, _ = np.histogram(norm[chosen], edges)
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts,
            width=0.94 / BINS,
            name=f"{name} ({int(chosen.sum()):,})",
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate="%{y:,} latents at %{x:.2f}<extra>" + name + "</extra>",
        )
    styled(figure, colours, height=height)
    figure.update_layout(barmode="stack", showlegend=True)
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "traceorder": "normal"})
    ends = [f"0<br>{escape(first, 24)} only", "0.5<br>both", f"1<br>{escape(second, 24)} only"]
    figure.update_xaxes(title_text="share of the decoder's length in the second", tickvals=[0, 0.5, 1], ticktext=ends)
    figure.update_xaxes(range=[-0.02, 1.02], showgrid=False)
    figure.update_yaxes(title_text="latents (log scale)", type="log", dtick=1)
    return figure
