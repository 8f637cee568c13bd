"""One fit for all scaling laws: planted coefficients, yesterday's answers, and intervals that hold the truth."""

import numpy as np
import pytest

from interp.statistics import percentile_interval
from saes.evaluation._scaling_law import Fit, fit_law, predict, refits

SIZES = np.log(np.geomspace(1e3, 1e6, 12))
CENTRED = SIZES - SIZES.mean()
ONE = np.ones_like(CENTRED)
FLOOR_AND_POWER = (ONE[:, None], np.stack([ONE, -CENTRED], axis=1))
THETA = np.array([np.log(0.8), np.log(0.5), 0.4])
STARTS = [np.array([-1.0, -1.0, exponent]) for exponent in (0.2, 0.8)]


def test_derivatives_are_those_of_small_steps():
    _, slopes = predict(FLOOR_AND_POWER, THETA)
    steps = [
        predict(FLOOR_AND_POWER, THETA + 1e-6 * unit)[0] - predict(FLOOR_AND_POWER, THETA)[0] for unit in np.eye(3)
    ]
    np.testing.assert_allclose(slopes.T, np.array(steps) / 1e-6, atol=1e-5)


def test_a_power_law_with_an_offset_comes_back_exactly():
    y = np.log(0.8 + 0.5 * np.exp(-0.4 * CENTRED))
    found = fit_law(FLOOR_AND_POWER, y, STARTS, huber=0.01)
    np.testing.assert_allclose(found.theta, THETA, atol=1e-6)
    assert found.sigma == pytest.approx(0, abs=1e-7)
    assert found.df == 9


def test_one_failed_run_does_not_bend_the_law():
    y = predict(FLOOR_AND_POWER, THETA)[0]
    y[5] += 1.0
    np.testing.assert_allclose(fit_law(FLOOR_AND_POWER, y, STARTS, huber=0.01).theta, THETA, atol=0.15)
    plain = fit_law(FLOOR_AND_POWER, y, STARTS, huber=100.0).theta
    assert np.abs(plain - THETA).max() > 0.3, "least squares is bent by it"


def test_intervals_of_the_exponent_hold_it():
    terms, inside = (np.stack([ONE, -CENTRED], axis=1),), 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        y = predict(terms, THETA[1:])[0] + rng.normal(0, 0.05, 12)
        found = fit_law(terms, y, [np.zeros(2)], huber=1.0)
        again = refits(found, 60, rng)
        inside += percentile_interval(found.theta[1], np.array([theta[1] for theta in again])).contains(0.4)
    assert inside >= 25  # at 95 % fewer come three times in a thousand


def test_a_law_of_as_many_coefficients_as_observations_has_one_degree_of_freedom():
    saturated = Fit((np.eye(3),), np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 2.0]), cost=0.0, huber=1.0)
    assert saturated.df == 1
    assert saturated.sigma == pytest.approx(2)


def test_refits_spread_as_students_t_with_the_free_degrees():
    """In a linear law the variance is known: residual sum over `free`, times that of Student's t."""
    free, terms = 10, (np.stack([ONE, -CENTRED], axis=1),)
    y = predict(terms, THETA[1:])[0] + np.random.default_rng(0).normal(0, 0.05, 12)
    found = fit_law(terms, y, [np.zeros(2)], huber=100.0)
    again = refits(found, 2000, np.random.default_rng(1))
    variance = np.square(found.residuals).sum() / free / np.square(CENTRED).sum() * free / (free - 2)
    assert np.std([theta[1] for theta in again]) == pytest.approx(np.sqrt(variance), rel=0.1)
    assert np.mean([theta[1] for theta in again]) == pytest.approx(found.theta[1], abs=0.1 * np.sqrt(variance))
