"""How strongly the weights of one head reach into the query, key or value of a later one."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.figures.theme import Theme, colour_bar, message_figure, styled
from interp.names import parse_node

MAX_SENDERS = 40
"""rows of the map; more cannot be read"""
_CROWDED = 150
"""cells beyond which the marks get smaller"""
VIAS = {"q": "query", "k": "key", "v": "value"}


def senders(rows: list[dict[str, Any]], via: str) -> tuple[list[str], int]:
    """The senders to show for one input, in the model's order, and how many there are: the strongest for any reader."""
    best: dict[str, float] = {}
    for row in rows:
        if row["via"] == via and row["score"] is not None:
            rank = row["score"] + (10.0 if row["is_argmax"] else 0.0)
            best[row["source"]] = max(best.get(row["source"], -1.0), rank)
    kept = sorted(best, key=lambda name: -best[name])[:MAX_SENDERS]
    return sorted(kept, key=lambda name: parse_node(name).order), len(best)


def composition_map(rows: list[dict[str, Any]], via: str, colours: Theme) -> go.Figure:
    """Senders down, readers across. A dot: above the null's upper bound; a ring: the reader's strongest sender.

    Scores are `||W_A W_B|| / (||W_A|| ||W_B||)`, 0 to 1 (Elhage et al. 2021); the null keeps the spectra and rotates.
    """
    rows = [row for row in rows if row["via"] == via and row["score"] is not None]
    if not rows:
        return message_figure(f"no {VIAS.get(via, via)} composition was measured", colours)
    names, _ = senders(rows, via)
    readers = sorted({row["target"] for row in rows}, key=lambda name: parse_node(name).order)
    shown = [row for row in rows if row["source"] in set(names)]
    score = np.full((len(names), len(readers)), np.nan, np.float32)
    hover = np.full(score.shape, "", object)
    for row in shown:
        at = names.index(row["source"]), readers.index(row["target"])
        score[at], hover[at] = row["score"], _composition_hover(row)
    figure = go.Figure(
        go.Heatmap(
            z=score,
            zmin=0,
            zmax=float(np.nanmax(score)),
            colorscale=colours.sequential,
            xgap=2,
            ygap=2,
            hovertext=hover,
            hoverinfo="text",
            colorbar=colour_bar(colours, "composition"),
        )
    )
    above = [r for r in shown if r["null_high"] is not None and r["score"] > r["null_high"]]
    crowded = score.size > _CROWDED
    dot = {"symbol": "circle", "size": 3 if crowded else 6, "color": colours.opposite, "line": {"width": 0}}
    _marks(figure, above, names, readers, dot, colours)
    strongest = [r for r in shown if r["is_argmax"]]
    ring = {"symbol": "circle-open", "size": 10 if crowded else 14, "color": colours.opposite, "line": {"width": 2}}
    _marks(figure, strongest, names, readers, ring, colours)
    styled(figure, colours, height=max(200, 18 * len(names) + 90))
    figure.update_xaxes(tickvals=list(range(len(readers))), ticktext=readers, side="top", showgrid=False,
                        title_text=f"reads, through its {VIAS[via]}")  # fmt: skip
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, showgrid=False, title_text="writes")
    figure.update_yaxes(range=[len(names) - 0.5, -0.5])
    return figure


def _marks(
    figure: go.Figure,
    rows: list[dict[str, Any]],
    names: list[str],
    readers: list[str],
    marker: dict[str, Any],
    colours: Theme,
) -> None:
    marker = {"line": {"width": 1, "color": colours.surface}} | marker
    figure.add_scatter(
        x=[readers.index(r["target"]) for r in rows],
        y=[names.index(r["source"]) for r in rows],
        mode="markers",
        marker=marker,
        hoverinfo="skip",
    )


def _composition_hover(row: dict[str, Any]) -> str:
    words = f"<b>{row['source']} → {row['target']}</b> {row['score']:.3f}"
    if row["null_mean"] is not None and row["null_high"] is not None:
        words += f"<br>rotated at random {row['null_mean']:.3f}, at most {row['null_high']:.3f}"
    return words + ("<br>its strongest sender" if row["is_argmax"] else "")
