"""The phase diagram of two features in one dimension: trained toys against the three losses in closed form."""

import numpy as np
import pytest
import torch

from interp.errors import ConfigError
from interp.studies.superposition import (
    PHASES,
    ToyConfig,
    border_distance,
    draw_features,
    ideal_losses,
    ideal_phase,
    last_feature,
    loss_and_gradients,
    map_phases,
    train_grid,
)

DENSITIES = tuple(np.geomspace(0.03, 1, 5).tolist())
IMPORTANCES = tuple(np.geomspace(0.1, 10, 5).tolist())
CONFIG = ToyConfig(n_features=2, d_hidden=1, steps=400, batch_size=96, lr=3e-2)


@pytest.fixture(scope="module")
def diagram():
    return map_phases(DENSITIES, IMPORTANCES, CONFIG, n_seeds=16, seed=0)


def test_trained_phases_are_those_of_the_ideal_losses_away_from_the_borders(diagram):
    cells = [(i, j) for i in range(len(DENSITIES)) for j in range(len(IMPORTANCES))]
    clear = [(i, j) for i, j in cells if border_distance(DENSITIES[i], IMPORTANCES[j]) > 0.25]
    assert len(clear) > 15
    wrong = [c for c in clear if diagram.phase[c[0]][c[1]] != ideal_phase(DENSITIES[c[0]], IMPORTANCES[c[1]])]
    assert not wrong
    assert {diagram.phase[i][j] for i, j in clear} == set(PHASES)


def test_a_rare_feature_is_in_superposition_and_a_common_unimportant_one_dropped(diagram):
    assert diagram.phase[0][2] == "superposition"
    assert diagram.norm[0, 2] == pytest.approx(1, abs=0.15)
    assert diagram.shared[0, 2] == pytest.approx(1, abs=0.15)
    assert diagram.phase[-1][0] == "not represented"
    assert diagram.phase[-1][-1] == "dedicated"
    assert diagram.unexplained[0, 2] < 0.15


def test_norm_and_interference_are_those_of_the_geometry():
    toys = train_grid(CONFIG, torch.tensor([0.1] * 3), torch.ones(3, 2), n_seeds=3)
    norm, shared = last_feature(toys)
    for toy in range(3):
        geometry = toys.geometry(toy)
        assert float(norm[toy]) == pytest.approx(float(geometry.norm[-1]) ** 2)
        assert float(shared[toy]) == pytest.approx(float(geometry.interference[-1].sum()))


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
    assert [list(row) for row in found.phase] == [["not represented", "dedicated"]] * 2
    assert (found.agreement == 1).all()


def test_records_carry_every_cell(diagram):
    records = diagram.to_records()
    assert len(records) == len(DENSITIES) * len(IMPORTANCES)
    assert set(records[0]) == {"density", "importance", "phase", "agreement", "norm", "shared", "unexplained"}


def test_empty_axes_and_impossible_densities_are_refused():
    with pytest.raises(ConfigError, match="at least one density"):
        map_phases((), (1.0,))
    with pytest.raises(ConfigError, match="density"):
        ideal_losses(0.0, 1.0)
