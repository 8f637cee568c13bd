"""The geometry of directions: known frames to the last digit, the bound by the rank, and what random ones give."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from notebooks.superposition import measure_geometry, random_geometry


def polygon(n: int) -> torch.Tensor:
    angle = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    return torch.stack([angle.cos(), angle.sin()], 1)


def simplex() -> torch.Tensor:
    return torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)


def antiprism() -> torch.Tensor:
    top, turned = math.sqrt(2 / 3) * polygon(4), math.sqrt(2 / 3) * polygon(8)[1::2]
    height = torch.full((4, 1), 1 / math.sqrt(3), dtype=torch.float64)
    return torch.cat([torch.cat([top, height], 1), torch.cat([turned, -height], 1)])


FRAMES = [
    (torch.eye(3), 1, {"dedicated": 3}, 3),
    (torch.tensor([[1.0], [-1.0]]), 1 / 2, {"antipodal pair": 1}, 1),
    (polygon(3), 2 / 3, {"triangle": 1}, 2),
    (polygon(4), 1 / 2, {"antipodal pair": 2}, 2),
    (polygon(5), 2 / 5, {"pentagon": 1}, 2),
    (polygon(6), 1 / 3, {"hexagon": 1}, 2),
    (simplex(), 3 / 4, {"tetrahedron": 1}, 3),
    (antiprism(), 3 / 8, {"square antiprism": 1}, 3),
]


@pytest.mark.parametrize(("rows", "dimensionality", "polytopes", "rank"), FRAMES)
@pytest.mark.parametrize("length", [1.0, 1.3])
def test_regular_polytopes_are_named_and_use_up_the_rank(rows, dimensionality, polytopes, rank, length):
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    found = measure_geometry(length * rows[order])
    torch.testing.assert_close(found.dimensionality, torch.full((len(rows),), dimensionality, dtype=torch.float64))
    assert found.polytopes() == polytopes
    assert found.rank == rank
    assert found.total == pytest.approx(rank, abs=1e-9)
    assert found.represented == len(rows)


@pytest.mark.parametrize("seed", range(3))
def test_frames_in_orthogonal_spaces_keep_their_own_dimensionalities(seed):
    rows = torch.zeros(8, 4, dtype=torch.float64)
    rows[:5, :2], rows[5:7, 2:3], rows[7, 3] = polygon(5), torch.tensor([[0.9], [-0.9]]), 1.2
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q
    found = measure_geometry(rows @ turn)
    assert found.polytopes() == {"antipodal pair": 1, "dedicated": 1, "pentagon": 1}
    torch.testing.assert_close(found.dimensionality, torch.tensor([0.4] * 5 + [0.5] * 2 + [1.0], dtype=torch.float64))
    assert found.total == pytest.approx(4)


def test_a_frame_that_is_not_tight_stays_below_the_rank():
    """(1, 0) and (1, 1): D = 1 / (1 + 1), and 2 / (1/2 + 2) for the longer one."""
    found = measure_geometry(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert found.dimensionality.tolist() == pytest.approx([1 / 2, 2 / (0.5 + 2)])
    assert found.rank == 2
    assert found.total == pytest.approx(1.3)
    assert found.leverage.tolist() == pytest.approx([1, 1])
    assert found.polytopes() == {"irregular": 1}


matrices = st.tuples(st.integers(1, 12), st.integers(1, 6), st.integers(0, 2**31), st.floats(0, 2))


@settings(max_examples=60, deadline=None)
@given(matrices)
def test_dimensionalities_never_exceed_leverages_and_sum_to_the_rank_at_most(drawn):
    n, d, seed, spread = drawn
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=generator, dtype=torch.float64)
    rows *= (spread * torch.randn(n, 1, generator=generator, dtype=torch.float64)).exp()
    found = measure_geometry(rows)
    assert (found.dimensionality <= found.leverage + 1e-9).all()
    assert (found.dimensionality <= 1 + 1e-9).all()
    assert found.total <= found.rank + 1e-9
    turned = measure_geometry(rows @ torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q)
    torch.testing.assert_close(turned.dimensionality, found.dimensionality, rtol=1e-6, atol=1e-9)
    scaled = measure_geometry(7 * rows)
    torch.testing.assert_close(scaled.dimensionality, found.dimensionality, rtol=1e-6, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 6), st.integers(0, 2**31))
def test_every_tight_frame_uses_up_the_rank(d, more, seed):
    """Columns of an orthogonal matrix are a tight frame of rows, whatever its lengths."""
    square = torch.randn(d + more, d + more, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = measure_geometry(torch.linalg.qr(square).Q[:, :d])
    assert found.total == pytest.approx(d, abs=1e-8)
    assert found.rank == d


def test_interference_is_what_one_feature_shows_in_another():
    found = measure_geometry(torch.tensor([[2.0, 0.0], [0.6, 0.8], [0.0, 1e-12]]))
    assert found.interference[0, 1] == pytest.approx(0.36)  # (u_0 . w_1)^2
    assert found.interference[1, 0] == pytest.approx(1.44)  # a long direction shows more
    assert found.interference.diagonal().tolist() == [0, 0, 0]
    assert found.dimensionality[2] == 0, "what is not there has no dimensionality"
    assert found.represented == 2


def test_nothing_represented_is_said_and_not_divided():
    found = measure_geometry(torch.zeros(3, 2))
    assert found.dimensionality.tolist() == [0, 0, 0]
    assert (found.rank, found.total, found.represented) == (0, 0, 0)


def test_random_directions_are_neither_tight_nor_regular():
    tightness, regular = random_geometry(5, 2, n_draws=100)
    assert regular == 0
    assert tightness.high < 1
    assert (tightness, regular) == random_geometry(5, 2, n_draws=100), "the same seed, the same null"
    assert random_geometry(1, 2, n_draws=3)[0] == pytest.approx((1, 1, 1)), "one direction is always a frame"
