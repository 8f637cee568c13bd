"""Fine-tuning effects: changes of weights and of the residual stream, transplanted parts, latents of a crosscoder."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import Theme, escape, heat_map, message_figure, styled, whiskers
from interp.changes.measured import RepresentationChanges, Transplant, WeightChange
from interp.nulls import null_verdict
from saes.evaluation.latent_comparison import LatentComparison

ORDER = ("embed", "pos_embed", "ln1", "W_Q", "W_K", "W_V", "W_O", "b_O", "ln2", "mlp.gate", "mlp.in", "mlp.out")
AFTER = ("ln_final", "unembed", "other")


def weights_figure(rows: Sequence[WeightChange], colours: Theme, *, height: int | None = None) -> go.Figure:
    """Change of every kind of matrix (across) in every layer (down), the largest of its heads, as a share of its null.

    The scale is the logarithm of `change / null_high`, pale up to the null; cells beyond it show their change.
    """
    if not any(row.change for row in rows):
        return message_figure("the weights are bitwise identical", colours)
    known = [*ORDER, *AFTER]
    kinds = sorted({row.kind for row in rows}, key=lambda kind: known.index(kind) if kind in known else len(known))
    layers = sorted({row.layer for row in rows if row.layer is not None})
    names = ["outside", *(f"L{layer}" for layer in layers)]
    z = np.full((len(names), len(kinds)), np.nan)
    text = [["" for _ in kinds] for _ in names]
    hover = [["" for _ in kinds] for _ in names]
    for row in sorted(rows, key=lambda row: row.change):  # the largest is drawn last
        at = 0 if row.layer is None else 1 + layers.index(row.layer), kinds.index(row.kind)
        ratio = row.change / max(row.null_high, 1e-9)
        if np.isnan(z[at]) or ratio >= 10 ** z[at] or row.above_null:
            z[at] = np.log10(max(ratio, 1.0))
            text[at[0]][at[1]] = f"{row.change:.2g}" if row.above_null else ""
            hover[at[0]][at[1]] = (
                f"{escape(row.name)}: {row.change:.3g}, null up to {row.null_high:.2g}<br>"
                f"rank of the change {_number(row.rank)} (random {_number(row.random_rank)})"
            )
    top = max(1.0, float(np.nanmax(z)))
    figure = heat_map(
        z, colours, "change, in multiples of the null", top=top, gap=2, x=kinds, y=names, text=text,
        texttemplate="%{text}", customdata=hover, hovertemplate="%{customdata}<extra></extra>", hoverongaps=False,
    )  # fmt: skip
    ticks = list(range(int(top) + 1))
    figure.update_traces(colorbar={"tickvals": ticks, "ticktext": [f"{10**tick:,}" for tick in ticks]})
    styled(figure, colours, height=height or 120 + 34 * len(names))
    figure.update_yaxes(title_text="layer", showgrid=False)
    figure.update_xaxes(title_text="matrix (the head that changed most)", showgrid=False)
    return figure


def stream_figure(texts: Mapping[str, RepresentationChanges], colours: Theme, *, height: int = 320) -> go.Figure:
    """Change of the residual stream after each layer, a line per text with its interval; dotted: bound of its null."""
    figure = go.Figure()
    layers = [layer for changes in texts.values() for layer in changes.layers]
    shown = [value for layer in layers for value in (layer.change.estimate, layer.null_high) if value > 0]
    if not shown:
        return message_figure("the residual streams are identical on every text", colours, height=height)
    floor = min(shown) / 3
    for (name, changes), colour in zip(texts.items(), colours.categories, strict=False):
        label, rows = escape(name), changes.layers
        x = [row.name for row in rows]
        y, low, high = np.maximum(np.array([row.change for row in rows], float).T, floor)
        marks = ["circle" if row.above_null else "circle-open" for row in rows]
        figure.add_scatter(
            x=x, y=y, error_y=whiskers(y, low, high, thickness=1.5, width=4), name=label, mode="lines+markers",
            line={"color": colour},
            marker={"size": 8, "symbol": marks}, customdata=[row.cka.estimate for row in rows],
            hovertemplate="after %{x}: %{y:.3g} of its variance, CKA %{customdata:.4f}<extra>" + label + "</extra>",
        )  # fmt: skip
        null = [max(row.null_high, floor) for row in rows]
        figure.add_scatter(
            x=x, y=null, name=f"{label}: null up to", mode="lines",
            line={"color": colour, "dash": "dot", "width": 1},
            hovertemplate="after %{x}: null up to %{y:.2g}<extra></extra>",
        )  # fmt: skip
    styled(figure, colours, height=height)
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0})
    figure.update_xaxes(title_text="residual stream after layer")
    figure.update_yaxes(title_text="change (fraction of the base's variance)", type="log", dtick=1)
    return figure


def transplant_figure(rows: Sequence[Transplant], colours: Theme, *, height: int | None = None) -> go.Figure:
    """Fraction of the behaviour that a transplanted part carries or removes; marks: random changes of equal norm."""
    rows = [row for row in rows if row.changed]
    if not any(np.isfinite(row.carried.estimate) for row in rows):
        return message_figure("the two models behave alike, so no part was transplanted", colours)
    names = [escape(row.name) for row in rows]
    figure = go.Figure()
    for direction, label, colour in (
        ("carried", "put into the base: behaviour gained", colours.accent),
        ("removed", "reverted in the tuned model: behaviour lost", colours.opposite),
    ):
        value, low, high = np.array([getattr(row, direction) for row in rows], float).T
        error = whiskers(value, low, high, width=3, thickness=1.2, color=colours.muted)
        verdicts = [null_verdict(getattr(row, f"{direction}_found")) for row in rows]
        figure.add_bar(
            x=value, y=names, orientation="h", name=label, error_x=error,
            marker={"color": colour}, customdata=verdicts, offsetgroup=direction,
            hovertemplate="%{y}: %{x:.0%}, %{customdata}<extra></extra>",
        )  # fmt: skip
    for direction, label, symbol in (
        ("carried", "null: random change put in, upper bound", "line-ns-open"),
        ("removed", "null: random change reverted, upper bound", "diamond-tall-open"),
    ):
        figure.add_scatter(
            x=[getattr(row, f"{direction}_bound") for row in rows], y=names, mode="markers", name=label,
            marker={"symbol": symbol, "size": 11, "color": colours.text, "line": {"width": 1.5}},
            hovertemplate="%{y}: %{x:.0%}<extra>" + label + "</extra>",
        )  # fmt: skip
    styled(figure, colours, height=height or 130 + 34 * len(names))
    figure.update_layout(barmode="group", showlegend=True)
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0})
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title_text="fraction of the difference in behaviour", tickformat=".0%", zeroline=True)
    figure.update_xaxes(zerolinecolor=colours.muted)
    return figure


def _number(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "-"


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
