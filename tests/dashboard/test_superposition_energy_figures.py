"""Figures of superposition and energy: every row is drawn, axes are named, and nothing to draw is said."""

import numpy as np
import pytest

from dashboard.figures.studies import (
    capacity_curve,
    dimensionality_figure,
    directions_figure,
    interference_matrix,
    load_curve,
    phase_diagram,
    retrieval_grid,
    temperature_curves,
)
from dashboard.figures.theme import theme

HEADS = [
    {
        "layer": i, "head": j, "name": f"L{i}H{j}", "kind": "metastable", "mass_share": 0.1 * i + j, "n_mass": 3.0,
        "first_share": 0.2, "score_spread": 1.0, "energy": 9.0, "energy_after": 4.0,
    }
    for i in range(3)
    for j in range(2)
]  # fmt: skip
CELLS = [
    {"density": d, "importance": w, "phase": phase, "agreement": 1.0, "norm": 1.0, "shared": 0.0, "unexplained": 0.1}
    for d, w, phase in (
        (0.1, 1.0, "superposition"), (0.1, 2.0, "dedicated"), (1.0, 1.0, "not represented"), (1.0, 2.0, "dedicated"),
    )
]  # fmt: skip
LOADS = [
    {"load": 0.1, "overlap": 0.9, "overlap_low": 0.8, "overlap_high": 1.0, "theory": 0.95},
    {"load": 0.2, "overlap": 0.4, "overlap_low": 0.3, "overlap_high": 0.5, "theory": float("nan")},
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_has_named_axes_and_what_it_was_given(scheme):
    colours = theme(scheme)
    sweep = {
        "model": [{"temperature": 1.0, "heat_capacity": 2.0}],
        "null": [{"temperature": 1.0, "heat_capacity": 1.0}],
    }
    figures = [
        retrieval_grid(HEADS, colours),
        temperature_curves(sweep, colours),
        load_curve(LOADS, colours),
        capacity_curve([{"d": 10, "modern": 30.0, "classical": 4.0}], colours),
        interference_matrix(np.eye(3), colours),
        dimensionality_figure([{"density": 0.1, "dimensionality": 0.4}], colours),
        phase_diagram(CELLS, colours),
    ]
    for figure in figures:
        assert figure.layout.xaxis.title.text
        assert figure.layout.yaxis.title.text
        assert figure.data


def test_heads_lie_where_they_belong():
    grid = retrieval_grid(HEADS, theme("light")).data[0]
    assert grid.z[2][1] == pytest.approx(1.2)
    assert "L2H1" in grid.hovertext[2][1]


def test_phases_lie_where_they_belong():
    cells = phase_diagram(CELLS, theme("light")).data[0]
    assert [list(row) for row in cells.z] == [[2, 1], [0, 1]]


def test_directions_are_arrows_from_the_centre():
    figure = directions_figure(np.array([[1.0, 0.0], [0.0, -0.5]]), theme("light"))
    assert [list(trace.x) + list(trace.y) for trace in figure.data[1:]] == [[0, 1.0, 0, 0.0], [0, 0.0, 0, -0.5]]


def test_interference_is_centred_on_zero():
    heat = interference_matrix(np.array([[1.0, -0.3], [-0.3, 1.0]]), theme("light")).data[0]
    assert (heat.zmin, heat.zmax) == (-1, 1)


def test_nothing_to_draw_is_said():
    colours = theme("light")
    for figure in (
        retrieval_grid([], colours), temperature_curves({}, colours), load_curve([], colours),
        capacity_curve([], colours), dimensionality_figure([], colours), phase_diagram([], colours),
        directions_figure(np.zeros((3, 4)), colours),
    ):  # fmt: skip
        assert figure.layout.annotations[0].text
