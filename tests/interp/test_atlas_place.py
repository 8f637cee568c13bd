"""New points: each alone, near what it is like, and nothing on the map moves."""

import numpy as np
import pytest
import torch

from interp.atlas.layout import lay_out, place_points
from interp.atlas.neighbours import nearest_neighbours
from interp.errors import ConfigError, NonFiniteError

METRICS = ["cosine", "euclidean"]


def clusters(n: int, seed: int, d: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(12, d, generator=torch.Generator().manual_seed(99))
    return centres[torch.arange(n) % 12] + 0.4 * torch.randn(n, d, generator=generator)


@pytest.fixture(scope="module", params=METRICS)
def mapped(request: pytest.FixtureRequest):
    metric = request.param
    x = clusters(600, 0)
    near = nearest_neighbours(x, 15, metric=metric)
    positions = lay_out(x, near, metric=metric, seed=1).positions
    nearest = near.distances[:, 0].numpy()
    return metric, x, positions, nearest


def test_a_new_point_lies_in_the_cluster_it_is_like(mapped):
    metric, x, positions, nearest = mapped
    placed = place_points(clusters(240, 7), x, positions, nearest, metric=metric)
    owner = np.linalg.norm(placed.positions[:, None] - positions[None], axis=2).argmin(1) % 12
    assert (owner == np.arange(240) % 12).mean() > 0.95
    shuffled = np.random.default_rng(0).permutation(positions)
    lost = place_points(clusters(240, 7), x, shuffled, nearest, metric=metric)
    owner = np.linalg.norm(lost.positions[:, None] - positions[None], axis=2).argmin(1) % 12
    assert (owner == np.arange(240) % 12).mean() < 0.3, "on a map without meaning there is no right place"


def test_one_point_some_and_all_give_the_same_places_to_the_bit_and_the_map_stays(mapped):
    metric, x, positions, nearest = mapped
    new, before = clusters(300, 5), positions.copy()
    everything = place_points(new, x, positions, nearest, metric=metric)
    some = torch.tensor([3, 299, 0, 150, 151, 20])
    few = place_points(new[some], x, positions, nearest, metric=metric)
    assert np.array_equal(few.positions, everything.positions[some.numpy()])
    assert torch.equal(few.neighbours.indices, everything.neighbours.indices[some])
    for i in (0, 77, 299):
        alone = place_points(new[i : i + 1], x, positions, nearest, metric=metric)
        assert np.array_equal(alone.positions[0], everything.positions[i])
        assert alone.ordinary[0] == everything.ordinary[i]
    assert np.array_equal(positions, before)


def test_what_is_on_the_map_gets_its_own_place(mapped):
    metric, x, positions, nearest = mapped
    placed = place_points(x[:50], x, positions, nearest, metric=metric)
    assert placed.neighbours.indices[:, 0].tolist() == list(range(50))
    np.testing.assert_array_equal(placed.positions, positions[:50])
    assert (placed.ordinary == 1).all()


@pytest.mark.parametrize("power", [-100, 66])
def test_places_do_not_depend_on_the_unit_and_are_finite_for_any_vector(mapped, power: int):
    metric, x, positions, nearest = mapped
    size, new = 2.0**power, clusters(40, 5)
    unit = size if metric == "euclidean" else 1.0
    expected = place_points(new, x, positions, nearest, metric=metric).positions
    found = place_points(new * size, x * size, positions, nearest * unit, metric=metric).positions
    np.testing.assert_allclose(found, expected, atol=1e-4)
    for size in (1e-40, 3e37):
        assert np.isfinite(place_points(new[:3] * size, x, positions, nearest, metric=metric).positions).all()


def test_a_vector_unlike_everything_is_said_to_be_so(mapped):
    metric, x, positions, nearest = mapped
    strange = -10 * x[:3] if metric == "cosine" else x[:3] + 100
    placed = place_points(strange, x, positions, nearest, metric=metric)
    assert (placed.ordinary == 0).all()
    assert place_points(clusters(200, 3), x, positions, nearest, metric=metric).ordinary.mean() > 0.3


def test_a_point_between_two_clusters_takes_a_side():
    x = torch.cat([torch.eye(2).repeat(20, 1) + 0.01 * torch.randn(40, 2, generator=torch.Generator().manual_seed(0))])
    positions = np.where(np.arange(40)[:, None] % 2, [[10.0, 0.0]], [[-10.0, 0.0]]).astype(np.float32)
    placed = place_points(torch.tensor([[0.6, 0.5]]), x, positions, np.full(40, 0.01), k=30)
    assert abs(abs(placed.positions[0, 0]) - 10) < 2


def test_what_does_not_fit_is_refused():
    x, positions = clusters(30, 0), np.zeros((30, 2), np.float32)
    with pytest.raises(ConfigError, match="as wide"):
        place_points(torch.zeros(2, 5), x, positions, np.ones(30))
    with pytest.raises(NonFiniteError, match="row 0"):
        place_points(torch.full((1, 24), torch.nan), x, positions, np.ones(30))
    alone = place_points(x[:2], x[:1], positions[:1], np.ones(1))
    assert alone.positions.shape == (2, 2)
