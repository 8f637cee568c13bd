"""Fine-tuning effects: everything that changed, by layer, in multiples of its null; latents of a crosscoder."""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import Theme, escape, message_figure, styled
from interp.changes.comparison import MOST, QUESTIONS, Change
from interp.nulls import null_verdict
from saes.evaluation.latent_comparison import LatentComparison

LEAST = 0.03
"""smallest multiple of a bound that is drawn; what is smaller lies there"""


def changes_figure(changes: Sequence[Change], colours: Theme, *, height: int = 380) -> go.Figure:
    """The largest change of each question in every layer, in multiples of its null's upper bound; filled: beyond it.

    `changes` in the order of the model. Predictions and tokens have no layer and are left out.
    """
    rows = [row for row in changes if row.place]
    if not any(row.value > 0 for row in rows):
        return message_figure("the two models are the same in every layer", colours, height=height)
    families: dict[tuple[str, str], dict[str, Change]] = {}
    for row in rows:
        largest = families.setdefault((row.question, row.text), {})
        if row.place not in largest or (row.found, row.times) > (largest[row.place].found, largest[row.place].times):
            largest[row.place] = row
    figure = go.Figure()
    for ((question, text), largest), colour in zip(sorted(families.items()), cycle(colours.categories), strict=False):
        shown = [largest[place] for place in _places(rows) if place in largest]
        name, unit = QUESTIONS[shown[0].question]
        name = f"{name}, {escape(text, 30)}" if question == "stream" else name
        hover = [
            f"{escape(row.name)}: {row.value:.3g} {unit}, null up to {row.bound:.2g} ({null_verdict(row.found)})"
            + (f"<br>{escape(' '.join(row.words))}" if row.words and row.found else "")
            for row in shown
        ]
        figure.add_scatter(
            x=[row.place for row in shown], y=[max(row.times, LEAST) for row in shown], name=name,
            mode="lines+markers", line={"width": 1, "color": colour}, customdata=hover,
            marker={"size": 8, "symbol": ["circle" if row.found else "circle-open" for row in shown], "color": colour},
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
    figure.add_hline(1, line={"color": colours.muted, "dash": "dot"})
    styled(figure, colours, height=height)
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0})
    figure.update_xaxes(title_text="place in the model", categoryorder="array", categoryarray=_places(rows))
    ends = [np.log10(LEAST), np.log10(max(10.0, *(row.times for row in rows))) + 0.1]
    figure.update_yaxes(title_text=f"multiples of the null (at most {MOST:,.0f})", type="log", dtick=1, range=ends)
    return figure


def _places(rows: Sequence[Change]) -> list[str]:
    """Return the sites of the model in its order, `embed` first."""
    layers = sorted({int(row.place[1:]) for row in rows if row.place[1:].isdecimal()})
    known = {row.place for row in rows}
    ends = [place for place in ("unembed", "other") if place in known]
    return [*(["embed"] if "embed" in known else []), *(f"L{layer}" for layer in layers), *ends]


BINS = 40


def latents_histogram(comparison: LatentComparison, colours: Theme, *, height: int = 320) -> go.Figure:
    """Latents by relative norm: 0 for the first model alone, 0.5 for both, 1 for the second alone.

    Latents of one model that latent scaling does not confirm have a mark of their own, since they may be artefacts.
    `rare` ones are left out.
    """
    norm, kind, sure = comparison.relative_norm, comparison.kinds, comparison.confirmed
    if not (kind != "rare").any():
        return message_figure("no latent fired often enough to assign it to a model", colours, height=height)
    exclusive = np.isin(kind, ["first only", "second only"])
    parts = [
        ("in both, or between", (kind != "rare") & ~exclusive, colours.noise),
        ("of one model, not confirmed", exclusive & ~sure, colours.opposite),
        ("of one model, confirmed", exclusive & sure, colours.accent),
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
    ends = [f"0<br>{escape(comparison.first, 24)} only", "0.5<br>both", f"1<br>{escape(comparison.second, 24)} only"]
    figure.update_xaxes(title_text="fraction of the decoder norm in the second", tickvals=[0, 0.5, 1], ticktext=ends)
    figure.update_xaxes(range=[-0.02, 1.02], showgrid=False)
    figure.update_yaxes(title_text="latents (log scale)", type="log", dtick=1)
    return figure
