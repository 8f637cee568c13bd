"""A circuit under attack: what an adversary leaves of it."""

import plotly.graph_objects as go

from dashboard.figures.theme import Theme, legend_above, styled, whiskers
from interp.circuits.worst_case import CHOSEN, RANDOM_EDGES, Attack, WorstCase


def worst_case_curve(worst_case: WorstCase, colours: Theme, *, height: int = 230) -> go.Figure:
    """Faithfulness over number of edges (log), in the mean and in the worst case, and the circuit that was attacked.

    Where a circuit that stands was searched, its growth under the whole attack is dashed, beside highest-ranked edges.
    """
    rows, figure = [row for row in worst_case.sizes.rows() if row.n_edges], go.Figure()
    for name, colour in (("mean", colours.muted), ("worst", colours.accent)):
        words = {"mean": "all other edges replaced", "worst": "helpers replaced"}[name]
        _line_of(figure, words, [(row.n_edges, getattr(row, name)) for row in rows], colour)
    for name, words, colour in (
        ("worst", "grown, attacked", colours.opposite),
        ("ranked", "highest-ranked, attacked", colours.muted),
    ):
        if worst_case.grown:
            _line_of(figure, words, [(row.n_edges, getattr(row, name)) for row in worst_case.grown], colour, "dash")
    _attacked(figure, worst_case.settings.n_edges, worst_case.worst, colours, "this circuit")
    return _left(figure, "edges", colours, height)


def attack_strength(worst_case: WorstCase, colours: Theme, *, height: int = 230) -> go.Figure:
    """Faithfulness left over number of edges attacked (log), strongest helpers first, by what replaces them.

    The diamond is the adversary's choice that leaves least, the square as many random edges, with their range.
    """
    figure = go.Figure()
    for ablation, dash in zip(worst_case.settings.ablations, ("solid", "dash", "dot", "dashdot"), strict=False):
        rows = worst_case.strength.rows("ablation = ? and n_removed > 0", ablation, order="n_removed")
        _line_of(figure, ablation, [(row.n_removed, row.left) for row in rows], colours.accent, dash)
    chosen = worst_case.of(CHOSEN)
    of = (RANDOM_EDGES, chosen.ablation, chosen.wording)
    null = next(row for row in worst_case.rows if (row.what, row.ablation, row.wording) == of)
    _attacked(figure, chosen.n_removed, chosen, colours, CHOSEN)
    _attacked(figure, null.n_removed, null, colours, RANDOM_EDGES, colour=colours.muted, symbol="square")
    return _left(figure, "edges attacked", colours, height)


def _line_of(figure: go.Figure, name: str, points: list[tuple[int, float]], colour: str, dash: str = "solid") -> None:
    figure.add_scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": dash},
        hovertemplate="%{x:,} edges: %{y:.2f}<extra>%{fullData.name}</extra>",
    )


def _attacked(
    figure: go.Figure, x: int, row: Attack, colours: Theme, name: str, colour: str = "", symbol: str = "diamond"
) -> None:
    figure.add_scatter(
        x=[x],
        y=[row.left],
        error_y=whiskers([row.left], [row.low], [row.high]),
        name=name,
        mode="markers",
        marker={"color": colour or colours.opposite, "size": 9, "symbol": symbol},
        hovertemplate=f"{name}, %{{x:,}} edges: %{{y:.2f}}<extra></extra>",
    )


def _left(figure: go.Figure, x: str, colours: Theme, height: int) -> go.Figure:
    legend_above(styled(figure, colours, height=height))
    for level in (0.0, 1.0):
        figure.add_hline(y=level, line={"color": colours.grid, "width": 1}, layer="below")
    figure.update_xaxes(type="log", title_text=x, showgrid=False)
    figure.update_yaxes(title_text="faithfulness left", nticks=5, showgrid=False)
    return figure
