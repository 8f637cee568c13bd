"""Figures of superposition: every row is drawn, axes are named, and nothing to draw is said."""

import numpy as np
import pytest

from dashboard.figures.studies import (
    dimensionality_figure,
    directions_figure,
    interference_matrix,
    phase_diagram,
)
from dashboard.figures.theme import theme

CELLS = [
    {"density": d, "importance": w, "phase": phase, "agreement": 1.0, "norm": 1.0, "shared": 0.0, "unexplained": 0.1}
    for d, w, phase in (
        (0.1, 1.0, "superposition"), (0.1, 2.0, "dedicated"), (1.0, 1.0, "not represented"), (1.0, 2.0, "dedicated"),
    )
]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_has_named_axes_and_what_it_was_given(scheme):
    colours = theme(scheme)
    figures = [
        interference_matrix(np.eye(3), colours),
        dimensionality_figure([{"density": 0.1, "dimensionality": 0.4}], colours),
        phase_diagram(CELLS, colours),
    ]
    for figure in figures:
        assert figure.layout.xaxis.title.text
        assert figure.layout.yaxis.title.text
        assert figure.data


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
        dimensionality_figure([], colours),
        phase_diagram([], colours),
        directions_figure(np.zeros((3, 4)), colours),
    ):
        assert figure.layout.annotations[0].text
