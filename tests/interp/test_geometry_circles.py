"""Circles, lines, horseshoes and nothing: what was planted is what is said, and what cannot be known is refused."""

import numpy as np
import pytest

from interp.errors import ConfigError, MismatchError, NonFiniteError
from interp.geometry.circles import circle_test, orderings
from interp.geometry.shapes import fit_plane

SEEDS = range(6)


def planted(kind, n, seed, noise=0.05, d=32):
    """`n` items on a circle of radius 1, along an arc of some degrees, a line or nowhere, in a random plane of `d`;
    `noise`: typical length of what is added."""
    rng = np.random.default_rng(seed)
    steps = np.arange(n)
    if kind == "line":
        flat = np.stack([steps * 2 / n, 0 * steps], axis=1)
    elif kind == "nothing":
        flat = np.zeros((n, 2))
    else:
        angles = np.deg2rad(steps * (360 / n if kind == "circle" else kind / (n - 1)))
        flat = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    frame, _ = np.linalg.qr(rng.standard_normal((d, 2)))
    return flat @ frame.T + noise / np.sqrt(d) * rng.standard_normal((n, d)), frame.T


@pytest.mark.parametrize(("n", "cyclic", "count"), [(4, True, 3), (5, True, 12), (6, True, 60), (7, True, 360)])
def test_orderings_are_counted_up_to_turning_and_mirroring(n, cyclic, count):
    found, exact = orderings(n, cyclic=cyclic, n_draws=1, seed=0)
    assert exact
    assert found.shape == (count, n)
    assert circle_test(planted("circle", n, 0)[0]).smallest_p == 1 / count

    def same(order):
        turned = [tuple((sign * order + shift) % n) for shift in range(n) for sign in (1, -1)]
        return min(turned)

    assert len({same(order) for order in found}) == count


def test_orders_with_ends_are_counted_up_to_mirroring_only():
    assert orderings(5, cyclic=False, n_draws=1, seed=0)[0].shape == (60, 5)


@pytest.mark.parametrize("n", [7, 12])
def test_a_planted_circle_is_found(n):
    for seed in SEEDS:
        found = circle_test(planted("circle", n, seed)[0], n_draws=2000)
        assert found.circular > 0.9
        assert found.circular > found.linear
        assert found.p_circular <= (1 / 360 if n == 7 else 0.001)
        assert found.gap == pytest.approx(1, abs=0.15)
        assert found.shape == "circle"
        assert ("7 items cannot tell" in found.reason) == (n == 7)


@pytest.mark.parametrize("seed", range(3))
def test_eight_items_on_an_arc_of_300_degrees_are_never_called_a_circle_without_doubt(seed):
    found = circle_test(planted(300, 8, seed)[0], n_draws=500)
    assert found.shape != "circle" or "300 degrees" in found.reason


def test_five_items_between_ends_can_be_a_line_and_say_what_p_could_be():
    found = circle_test(planted("line", 5, 0)[0], cyclic=False)
    assert found.shape == "line", found.reason
    assert found.smallest_p == found.p_linear == pytest.approx(1 / 60)


@pytest.mark.slow
def test_random_points_are_unordered_in_nineteen_of_twenty():
    for cyclic in (True, False):
        called = [circle_test(np.random.default_rng(4000 + i).standard_normal((7, 16)), cyclic=cyclic).shape
                  for i in range(300)]  # fmt: skip
        assert 300 - called.count("unordered") <= 26, "5 %: more than 26 of 300 come once in a thousand tries"


@pytest.mark.parametrize("kind", ["line", 180, 240])
@pytest.mark.parametrize("n", [7, 12])
def test_a_line_and_a_horseshoe_have_perfect_order_and_are_no_circles(kind, n):
    for seed in SEEDS:
        found = circle_test(planted(kind, n, seed)[0], n_draws=2000)
        assert found.p_linear <= 0.02, "their order is there"
        assert found.linear > found.circular
        assert found.shape == "line"


def test_nearly_closed_and_noisy_curves_are_seldom_called_circles():
    called = [circle_test(planted(270, 7, seed, noise=0.5)[0]).shape for seed in range(30)]
    assert called.count("circle") <= 3
    assert called.count("ordered") > 10, "mostly it cannot be told"


def test_items_without_an_order_are_called_ordered_at_the_stated_rate():
    shapes = [circle_test(planted("nothing", 7, seed, noise=1)[0]).shape for seed in range(60)]
    assert shapes.count("unordered") >= 52, "one in twenty may pass"
    assert shapes.count("circle") <= 4


@pytest.mark.parametrize(("n", "smallest"), [(4, 1 / 3), (5, 1 / 12)])
def test_a_perfect_circle_of_too_few_items_is_undecided(n, smallest):
    found = circle_test(planted("circle", n, 0, noise=0)[0])
    assert found.shape == "undecided"
    assert found.smallest_p == pytest.approx(smallest)
    assert f"{n} items" in found.reason


def test_too_few_items_and_one_point_are_refused():
    with pytest.raises(ConfigError, match="at least 4"):
        circle_test(np.eye(3))
    with pytest.raises(ConfigError, match="same point"):
        circle_test(np.ones((7, 3)))


def test_the_verdict_does_not_depend_on_where_a_cycle_starts_nor_on_its_direction():
    points = planted("circle", 7, 3)[0]
    first = circle_test(points)
    for order in (np.roll(np.arange(7), 3), np.arange(7)[::-1]):
        again = circle_test(points[order])
        assert (again.circular, again.linear) == pytest.approx((first.circular, first.linear))
        assert (again.shape, again.p_circular) == (first.shape, first.p_circular)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_plane_of_a_planted_circle_is_found(seed):
    points, frame = planted("circle", 7, seed)
    plane = fit_plane(points)
    assert np.linalg.svd(plane.basis @ frame.T, compute_uv=False).min() > 0.999, "cosines of the principal angles"
    assert plane.share > 0.99 > 0.6 > plane.isotropic_share
    steps = np.abs(np.diff(np.unwrap(plane.angles(points), period=360)))
    assert np.allclose(steps, 360 / 7, atol=3)
    assert plane.radii(points).std() < 0.05
    at_random, _ = np.linalg.qr(np.random.default_rng(seed + 99).standard_normal((32, 2)))
    assert np.linalg.svd(plane.basis @ at_random, compute_uv=False).max() < 0.7


def test_turning_by_a_step_moves_every_item_to_the_next():
    points, _ = planted("circle", 7, 0, noise=0)
    plane = fit_plane(points)
    step = np.diff(plane.angles(points)[:2])[0]
    assert np.allclose(plane.rotate(points, step), np.roll(points, -1, axis=0), atol=1e-9)
    across = points + 5 * np.linalg.svd(plane.basis)[2][5]
    assert np.allclose(plane.rotate(across, 90) - plane.rotate(points, 90), across - points)


def test_a_plane_needs_its_components():
    with pytest.raises(ConfigError, match="0 to 1"):
        fit_plane(planted("circle", 9, 0, noise=0)[0], components=(1, 2))
    for components in ((-1, 0), (1, 1)):
        with pytest.raises(ConfigError, match="two different components"):
            fit_plane(planted("circle", 9, 0)[0], components=components)


def test_a_plane_takes_points_of_its_own_width_and_finite_angles():
    plane = fit_plane(planted("circle", 7, 0)[0])
    for call in (
        lambda: plane.coordinates(np.ones((3, 5))),
        lambda: plane.angles(np.ones((3, 33))),
        lambda: plane.rotate(np.ones((3, 1)), 90),
    ):
        with pytest.raises(MismatchError, match="coordinates"):
            call()
    with pytest.raises(NonFiniteError, match="angle"):
        plane.turn(float("nan"))


def ring(n, seed, noise=0.05):
    rng = np.random.default_rng(seed)
    angles = rng.uniform(0, 2 * np.pi, n)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) + noise * rng.standard_normal((n, 2))
