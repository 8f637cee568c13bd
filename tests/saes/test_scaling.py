"""The scaling law: planted coefficients lie inside their intervals, shuffled losses have none, gaps are refused."""

import math

import numpy as np
import pytest

from interp.errors import ConfigError, NonFiniteError
from saes.evaluation.scaling import FLOOR_P, Law, ScalingRun, SizeLaw, fit_scaling

POWER = Law(alpha=0.2, beta_k=-0.3, beta_n=-0.12, gamma=-0.01)
FLOORED = Law(alpha=-0.5, beta_k=0.26, beta_n=-0.17, gamma=-0.02, zeta=-3.0, eta=-0.1)
SMALL = ((256, 512, 1024), (16, 32))
WIDE = ((256, 512, 1024, 2048, 4096, 8192), (8, 16, 32, 64))


def planted(law: Law, grid, *, noise: float = 0.0, seed: int = 0, n_seeds: int = 1, shuffle: bool = False):
    """Runs on a grid of sizes and k, with log-normal noise."""
    rng = np.random.default_rng(seed)
    cells = [(n, k, s) for n in grid[0] for k in grid[1] for s in range(n_seeds)]
    losses = np.array([law.loss(n, k) for n, k, _ in cells]) * np.exp(noise * rng.normal(size=len(cells)))
    if shuffle:
        losses = rng.permutation(losses)
    return [ScalingRun(n=n, k=k, seed=s, loss=float(loss)) for (n, k, s), loss in zip(cells, losses, strict=True)]


def fits(law: Law, grid, seeds: int, n_bootstrap: int, **options) -> list[SizeLaw]:
    return [
        fit_scaling(
            planted(law, grid, seed=seed, **options), n_bootstrap=n_bootstrap, generator=np.random.default_rng(seed)
        )
        for seed in range(seeds)
    ]


@pytest.mark.parametrize(("law", "grid"), [(POWER, SMALL), (FLOORED, WIDE)])
def test_a_law_without_noise_is_found_exactly(law, grid):
    found = fit_scaling(planted(law, grid), n_bootstrap=1).law
    for name in ("alpha", "beta_k", "beta_n", "gamma", "eta"):
        assert getattr(found, name) == pytest.approx(getattr(law, name), abs=1e-3), name
    assert found.zeta == (None if law.zeta is None else pytest.approx(law.zeta, abs=1e-3))


def test_the_coefficients_are_those_of_the_fit_that_came_before():
    """The former fits (reweighted least squares without a floor) gave these on the same runs, to five figures."""
    law = fit_scaling(planted(POWER, SMALL, noise=0.01), n_bootstrap=2).law
    expected = (0.43706, -0.37449, -0.15810, 0.00202)
    assert (law.alpha, law.beta_k, law.beta_n, law.gamma) == pytest.approx(expected, abs=1e-5)


def test_planted_exponents_lie_inside_their_intervals():
    found = fits(POWER, SMALL, 20, 60, noise=0.01)
    for k in SMALL[1]:
        inside = [f.exponents[k].contains(POWER.exponent(k)) for f in found]
        assert sum(inside) >= 17, (k, sum(inside))
        assert sum(f.exponents[k].contains(0) for f in found) <= 1, "far from 0"


def test_shuffled_losses_have_no_exponent():
    found = fits(POWER, SMALL, 20, 60, noise=0.01, shuffle=True)
    for k in SMALL[1]:
        assert sum(not f.exponents[k].contains(0) for f in found) <= 3
    assert all("cannot be told from no change" in f.details()[0] for f in found if f.exponents[16].contains(0))


def test_a_planted_floor_is_told_from_zero_and_measured():
    found = fits(FLOORED, WIDE, 6, 40, noise=0.002)
    assert all(f.has_floor and f.floor_p is not None and f.floor_p < FLOOR_P for f in found)
    for k in WIDE[1]:
        assert sum(f.exponents[k].contains(FLOORED.exponent(k)) for f in found) >= 5
        assert sum(f.floors[k].contains(FLOORED.floor(k)) for f in found) >= 5


def test_a_floor_too_small_to_be_told_is_allowed_for():
    found = fits(FLOORED, WIDE, 4, 40, noise=0.01)
    assert not all(f.has_floor for f in found)
    for k in WIDE[1]:
        assert sum(f.exponents_above_floor[k].contains(FLOORED.exponent(k)) for f in found) >= 3
    assert all("If there is one, the loss above it" in f.details()[1] for f in found if not f.has_floor)


def test_no_floor_is_claimed_where_there_is_none():
    found = fits(POWER, ((256, 512, 1024, 2048), (16, 32)), 6, 5, noise=0.01)
    assert sum(f.has_floor for f in found) <= 1
    assert all("cannot be told from zero" in f.details()[1] for f in found if not f.has_floor)
    assert all(f.floors[16].estimate >= 0 and f.floors[16].high < POWER.loss(2048, 16) * 1.05 for f in found)


def test_more_seeds_narrow_the_interval():
    def width(n_seeds: int) -> float:
        found = fits(POWER, SMALL, 6, 40, noise=0.02, n_seeds=n_seeds)
        return float(np.median([f.exponents[16].high - f.exponents[16].low for f in found]))

    assert width(9) < 0.6 * width(1)  # a third, but for chance


def test_units_of_the_loss_change_no_exponent():
    runs = planted(POWER, SMALL, noise=0.01)
    scaled = [ScalingRun(n=run.n, k=run.k, loss=run.loss * 7) for run in runs]
    one, two = fit_scaling(runs, n_bootstrap=5), fit_scaling(list(reversed(scaled)), n_bootstrap=5)
    assert two.law.beta_n == pytest.approx(one.law.beta_n, abs=1e-6)
    assert two.law.alpha == pytest.approx(one.law.alpha + math.log(7), abs=1e-5)


def test_the_largest_size_is_predicted_where_the_law_holds_and_missed_where_it_breaks():
    runs = planted(POWER, WIDE, noise=0.003)
    held = fit_scaling(runs, n_bootstrap=5).left_out
    assert [each.k for each in held] == list(WIDE[1])
    assert max(abs(each.error) for each in held) < 0.02 < min(abs(each.unchanged) for each in held)
    broken = [ScalingRun(n=r.n, k=r.k, loss=r.loss * (1.4 if r.n == 8192 else 1)) for r in runs]
    assert all(each.error < -0.25 for each in fit_scaling(broken, n_bootstrap=5).left_out)


def test_bands_hold_the_curve_and_runs_lie_on_it():
    found = fit_scaling(planted(POWER, SMALL, noise=0.01), n_bootstrap=60)
    assert all(point.loss.contains(point.loss.estimate) for point in found.curves)
    assert {point.k for point in found.curves} == set(SMALL[1])
    assert found.scatter == pytest.approx(0.01, rel=1.0)


def test_the_same_generator_gives_the_same_intervals():
    runs = planted(POWER, SMALL, noise=0.01)
    one, two = (fit_scaling(runs, n_bootstrap=10, generator=np.random.default_rng(3)) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        (((256, 512), (16, 32)), "n 1,024 too"),
        (((256, 512, 1024), (16,)), "k 32 too"),
        (((), ()), "n 512"),
        (((256, 300, 320), (16, 32)), "factor of at least 2"),
    ],
)
def test_too_little_says_what_is_missing(grid, says):
    with pytest.raises(ConfigError, match=says):
        fit_scaling(planted(POWER, grid))


def test_combinations_left_out_are_named():
    runs = [run for run in planted(POWER, SMALL) if (run.n, run.k) not in ((512, 32), (1024, 16))]
    with pytest.raises(ConfigError, match="n 512 with k 32, n 1,024 with k 16"):
        fit_scaling(runs)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 0.0, -0.1])
def test_a_loss_that_is_no_positive_number_is_refused(loss):
    runs = [*planted(POWER, SMALL), ScalingRun(n=256, k=16, loss=loss, name="bad")]
    with pytest.raises(NonFiniteError, match="bad"):
        fit_scaling(runs)
