"""The phase diagram of two features in one dimension: trained toys against the three losses in closed form."""

import numpy as np
import pytest
import torch

from notebooks.superposition import (
    PHASES,
    ToyConfig,
    border_distance,
    draw_features,
    ideal_losses,
    ideal_phase,
    loss_and_gradients,
    map_phases,
)

DENSITIES = tuple(np.geomspace(0.03, 1, 5).tolist())
IMPORTANCES = tuple(np.geomspace(0.1, 10, 5).tolist())
CONFIG = ToyConfig(n_features=2, d_hidden=1, steps=400, batch_size=96, lr=3e-2)


@pytest.fixture(scope="module")
def diagram():
    cells = map_phases(DENSITIES, IMPORTANCES, CONFIG, n_seeds=16)
    return [cells[i : i + len(IMPORTANCES)] for i in range(0, len(cells), len(IMPORTANCES))]


def test_trained_phases_are_those_of_the_ideal_losses_away_from_the_borders(diagram):
    clear = [cell for row in diagram for cell in row if border_distance(cell.density, cell.importance) > 0.25]
    assert len(clear) > 15
    assert not [cell for cell in clear if cell.phase != ideal_phase(cell.density, cell.importance)]
    assert {cell.phase for cell in clear} == set(PHASES)


def test_a_rare_feature_is_in_superposition_and_a_common_unimportant_one_dropped(diagram):
    assert diagram[0][2].phase == "superposition"
    assert diagram[0][2].norm == pytest.approx(1, abs=0.15)
    assert diagram[0][2].shared == pytest.approx(1, abs=0.15)
    assert diagram[-1][0].phase == "not represented"
    assert diagram[-1][-1].phase == "dedicated"


@pytest.mark.parametrize(("density", "importance"), [(0.1, 1.0), (0.4, 0.5), (0.9, 3.0)])
def test_ideal_losses_are_those_of_the_ideal_weights(density, importance):
    """The three solutions put into the toy itself, on many rows."""
    x = draw_features(torch.tensor([density]), 400_000, 2, torch.Generator().manual_seed(0))
    weights = torch.tensor([[1.0, importance]])
    solutions = {
        "not represented": ([[1.0], [0.0]], [0.0, density / 2]),
        "dedicated": ([[0.0], [1.0]], [density / 2, 0.0]),
        "superposition": ([[1.0], [-1.0]], [0.0, 0.0]),
    }
    for phase, (W, b) in solutions.items():
        loss = loss_and_gradients(x, torch.tensor([W]), torch.tensor([b]), weights, "relu")[0]
        assert float(loss) == pytest.approx(ideal_losses(density, importance)[phase], rel=0.02), phase


@pytest.mark.parametrize("importance", [0.2, 0.7, 1.0, 2.5])
def test_the_border_of_superposition_is_where_the_closed_form_says(importance):
    border = 4 * importance / (2 + 5 * importance) if importance <= 1 else 4 / (2 * importance + 5)
    assert ideal_phase(border * 0.99, importance) == "superposition"
    assert ideal_phase(border * 1.01, importance) != "superposition"
    assert border_distance(border, importance) == pytest.approx(0, abs=1e-9)


def test_without_the_relu_nothing_is_ever_in_superposition():
    control = ToyConfig(n_features=2, d_hidden=1, steps=500, batch_size=128, lr=3e-2, activation="linear")
    found = map_phases((0.03, 0.3), (0.3, 3.0), control, n_seeds=4)
    assert [cell.phase for cell in found] == ["not represented", "dedicated"] * 2
    assert all(cell.agreement == 1 for cell in found)
