"""How the variance of some points is spread over directions, against points that have no favourite one."""

from itertools import accumulate
from typing import Any

import plotly.graph_objects as go

from dashboard.figures.theme import Theme, legend_above, message_figure, styled


def spectrum_figure(found: dict[str, Any], colours: Theme, *, height: int = 300) -> go.Figure:
    """Bars: the share of each component; line: of it and those before it, from 0 to 1.

    `found` as `interp.geometry.spectrum.Spectrum` keeps it. Of isotropic points, as many in as many dimensions, the
    number of components for 50, 90 and 99 % is known: the diamonds. Where the line lies above them, fewer do.
    """
    values = [value for value in found.get("eigenvalues") or [] if isinstance(value, int | float)]
    total = sum(values)
    if not total > 0:
        return message_figure("the spectrum is not known", colours, height=height)
    shares = [value / total for value in values]
    sums = list(accumulate(shares))
    x = list(range(1, len(shares) + 1))
    figure = go.Figure()
    figure.add_bar(x=x, y=shares, name="each component", marker={"color": colours.noise}, hoverinfo="text",
                   hovertext=[f"component {n}<br>{share:.1%} of the variance<br>eigenvalue {value:.4g}"
                              for n, share, value in zip(x, shares, values, strict=True)])  # fmt: skip
    figure.add_scatter(x=x, y=sums, mode="lines+markers", name="all up to it", marker={"size": 5},
                       line={"color": colours.accent, "width": 2}, hoverinfo="text",
                       hovertext=[f"the first {n}: {share:.1%}" for n, share in zip(x, sums, strict=True)])  # fmt: skip
    null = sorted(
        (int(percent), count) for percent, count in ((found.get("isotropic") or {}).get("dims") or {}).items()
    )
    if null:
        figure.add_scatter(
            x=[count for _, count in null], y=[percent / 100 for percent, _ in null], mode="markers",
            name="isotropic points", marker={"size": 9, "symbol": "diamond-open", "color": colours.opposite,
                                             "line": {"width": 1.8}},
            hovertext=[f"isotropic points need {count} for {percent} %" for percent, count in null], hoverinfo="text",
        )  # fmt: skip
    styled(figure, colours, height=height)
    legend_above(figure)
    figure.update_xaxes(title_text="component", showgrid=False, dtick=max(1, len(x) // 10), range=[0.4, len(x) + 0.6])
    return figure.update_yaxes(title_text="share of the variance", range=[0, 1.04], tickformat=".0%", nticks=6)
