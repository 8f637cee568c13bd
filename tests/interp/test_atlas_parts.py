"""Neighbours, layout, quality and regions, each against a planted answer or another implementation."""

from dataclasses import astuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.atlas import neighbours
from interp.atlas.layout import lay_out, place_points, principal_components
from interp.atlas.neighbours import approximate_neighbours, measure_quality, nearest_neighbours, retained_neighbours
from interp.atlas.regions import local_density
from interp.errors import ConfigError, NonFiniteError, UnknownNameError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def brute_force(x: torch.Tensor, k: int, metric: str) -> tuple[list[list[int]], torch.Tensor]:
    if metric == "cosine":
        unit = torch.nn.functional.normalize(x.double(), dim=1)
        distance = 1 - unit @ unit.T
    else:
        distance = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    distance.fill_diagonal_(torch.inf)
    order = distance.sort(dim=1, stable=True)
    return order.indices[:, :k].tolist(), order.values[:, :k].float()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_neighbours_equal_brute_force(metric: str):
    x = torch.randn(137, 9, generator=generator())
    found = nearest_neighbours(x, 6, metric=metric, block=20)
    indices, distances = brute_force(x, 6, metric)
    assert found.indices.tolist() == indices
    torch.testing.assert_close(found.distances, distances, atol=1e-3, rtol=1e-3)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 25), k=st.integers(1, 30), block=st.integers(1, 30), seed=st.integers(0, 99))
def test_neighbours_never_hold_the_point_itself_and_do_not_depend_on_blocks(n: int, k: int, block: int, seed: int):
    x = torch.randint(-2, 3, (n, 2), generator=generator(seed)).float()  # full of ties and repeats
    found = nearest_neighbours(x, k, metric="euclidean", block=block)
    assert found.indices.shape == (n, min(k, n - 1))
    indices, _ = brute_force(x, min(k, n - 1), "euclidean")
    assert found.indices.tolist() == indices, "ties go to the lower number"
    assert all(i not in row for i, row in enumerate(found.indices.tolist()))


def _with_product(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Let products in `dtype` count as the faster ones, whatever this processor has."""
    monkeypatch.setattr(neighbours, "faster_in_bfloat16", lambda rows: dtype == torch.bfloat16)


def _around_directions(width: int, spread: float) -> torch.Tensor:
    return torch.randn(30, width, generator=generator(1)).repeat(50, 1) + spread * torch.randn(
        1500, width, generator=generator(2)
    )


@pytest.mark.parametrize(
    "x",
    [
        _around_directions(24, 1.0),
        _around_directions(24, 0.002),
        _around_directions(3, 0.3),
        _around_directions(200, 1.0),
        # bfloat16 holds these vectors exactly, but not their products
        _around_directions(1024, 0.1).sign(),
    ],
    ids=["apart", "near", "narrow", "wide", "signs"],
)
def test_a_product_in_bfloat16_loses_no_neighbour_however_near_the_next_one_is(
    monkeypatch: pytest.MonkeyPatch, x: torch.Tensor
):
    x = x.clone()
    x[1400:1450] = x[:50]
    monkeypatch.setattr(neighbours.Screening, "OPEN", 1.0)
    _with_product(monkeypatch, torch.bfloat16)
    found = nearest_neighbours(x, 8, block=64)
    _with_product(monkeypatch, torch.float32)
    same = nearest_neighbours(x, 8, block=100)
    assert torch.equal(found.indices, same.indices)
    assert torch.equal(found.distances, same.distances), "not one bit differs"
    torch.testing.assert_close(found.distances, brute_force(x, 8, "cosine")[1], atol=1e-6, rtol=0)


def test_bfloat16_is_left_where_it_decides_too_little(monkeypatch: pytest.MonkeyPatch):
    x = torch.randn(1, 24, generator=generator(1)) + 0.05 * torch.randn(1500, 24, generator=generator(2))
    made: list[torch.Tensor | None] = []
    judge = neighbours.Screening.judge
    monkeypatch.setattr(
        neighbours.Screening, "judge", lambda self, *counts: (judge(self, *counts), made.append(self._rough))[0]
    )
    _with_product(monkeypatch, torch.bfloat16)
    found = nearest_neighbours(x, 8, block=64)
    assert made[0] is not None
    assert made[-1] is None
    torch.testing.assert_close(found.distances, brute_force(x, 8, "cosine")[1], atol=1e-6, rtol=0)


def test_a_row_with_nan_is_named():
    x = torch.randn(20, 3)
    x[13, 1] = torch.nan
    with pytest.raises(NonFiniteError, match="row 13"):
        nearest_neighbours(x, 3)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("power", [-136, -66, 66, 120])
def test_a_map_is_the_same_of_vectors_of_any_size(power: int, metric: str):
    x = torch.randn(200, 8, generator=generator(power)) + 3 * torch.eye(8).repeat(25, 1)
    far = (x.double() * 2.0**power).float()
    near, same = nearest_neighbours(x, 10, metric=metric), nearest_neighbours(far, 10, metric=metric)
    assert (near.indices == same.indices).float().mean() > 0.99, "but for what rounding of the smallest numbers leaves"
    unit = 2.0**power if metric == "euclidean" else 1.0
    torch.testing.assert_close(same.distances.double() / unit, near.distances.double(), atol=1e-3, rtol=1e-3)
    places = lay_out(far, same, metric=metric, seed=1).positions
    assert np.isfinite(places).all()
    measured = [measure_quality(vectors, places, metric=metric, generator=generator()) for vectors in (x, far)]
    assert measured[1] is not None
    np.testing.assert_allclose(astuple(measured[0]), astuple(measured[1]), atol=0.01)
    assert measured[0].trustworthiness > 0.8


@pytest.mark.parametrize("offset", [100.0, 1e5])
def test_directions_around_a_large_common_one_keep_their_neighbours_by_cosine(offset: int):
    x = torch.randn(300, 6, generator=generator(5)) + offset
    indices, _ = brute_force(x, 8, "cosine")
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    true = torch.cdist(unit, unit, compute_mode="donot_use_mm_for_euclid_dist").square() / 2
    for found in (
        nearest_neighbours(x, 8),
        approximate_neighbours(x, 8, metric="cosine", generator=generator())[0],
    ):
        assert (found.indices == torch.tensor(indices)).float().mean() > 0.9
        torch.testing.assert_close(found.distances.double(), true.gather(1, found.indices), rtol=1e-3, atol=0)
    placed = place_points(x[:20], x, x[:, :2].numpy(), found.distances[:, 0].numpy())
    assert placed.neighbours.indices[:, 0].tolist() == list(range(20))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_how_numbers_lie_in_memory_does_not_matter(metric: str):
    x = torch.randn(150, 7, generator=generator(2))
    one, other = (nearest_neighbours(given, 5, metric=metric) for given in (x, x.T.contiguous().T))
    assert torch.equal(one.distances, other.distances)
    mine, theirs = (lay_out(g, near, metric=metric).positions for g, near in ((x, one), (x.T.contiguous().T, other)))
    assert np.array_equal(mine, theirs)


def test_principal_components_equal_the_svd():
    x = torch.randn(60, 8, generator=generator()) * torch.linspace(5, 1, 8)
    u, s, _ = torch.linalg.svd((x - x.mean(0)).double(), full_matrices=False)
    expected = (u * s)[:, :2]
    ours = torch.from_numpy(principal_components(x, 2)).double()
    torch.testing.assert_close(ours.abs(), expected.abs(), atol=1e-4, rtol=1e-4)
    assert principal_components(x[:, :1], 2).shape == (60, 2), "a missing component is zero"


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_trustworthiness_equals_scikit_learn(metric: str):
    from sklearn.manifold import trustworthiness

    x = torch.randn(200, 10, generator=generator())
    positions = (x[:, :2] + 0.5 * torch.randn(200, 2, generator=generator(1))).numpy()
    found = measure_quality(x, positions, metric=metric, generator=generator(), sample=200)
    assert found.trustworthiness == pytest.approx(trustworthiness(x.numpy(), positions, n_neighbors=15, metric=metric))
    if metric == "euclidean":  # continuity is the same measure with the spaces exchanged
        exchanged = trustworthiness(positions, x.numpy(), n_neighbors=15, metric=metric)
        assert found.continuity == pytest.approx(exchanged)


def test_a_map_that_is_the_space_is_perfect_and_a_shuffled_one_is_chance():
    x = torch.randn(400, 2, generator=generator())
    perfect = measure_quality(x, x.numpy(), metric="euclidean", generator=generator())
    assert perfect is not None
    assert astuple(perfect)[:4] == (1, 1, 1, 1)
    shuffled = x[torch.randperm(400, generator=generator(1))].numpy()
    chance = measure_quality(x, shuffled, metric="euclidean", generator=generator())
    assert chance.trustworthiness == pytest.approx(0.5, abs=0.06)
    assert chance.continuity == pytest.approx(0.5, abs=0.06)
    assert chance.recall == pytest.approx(15 / 399, abs=0.02)
    assert chance.triplets == pytest.approx(0.5, abs=0.06)
    kept = retained_neighbours(nearest_neighbours(x, 15, metric="euclidean").indices, x.numpy())
    assert (kept == 1).all()


def test_quality_of_a_handful_of_points_is_not_claimed():
    x = torch.randn(20, 3)
    assert measure_quality(x, x[:, :2].numpy(), metric="cosine", generator=generator()) is None


def test_density_ranks_crowded_places_higher():
    rng = np.random.default_rng(0)
    crowded, sparse = rng.normal(0, 0.1, (100, 2)), rng.uniform(5, 50, (100, 2))
    density = local_density(np.concatenate([crowded, sparse]).astype(np.float32))
    assert density[:100].min() > density[100:].max()
    assert density.min() > 0
    assert density.max() < 1


def test_settings_that_do_not_exist_are_refused():
    x = torch.randn(30, 4)
    near = nearest_neighbours(x, 5)
    with pytest.raises(UnknownNameError, match="layout method"):
        lay_out(x, near, method="isomap")
    with pytest.raises(ConfigError, match="min_dist"):
        lay_out(x, near, min_dist=2)
    with pytest.raises(UnknownNameError, match="metric"):
        nearest_neighbours(x, 5, metric="manhattan")
