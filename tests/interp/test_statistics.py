"""Intervals, p-values and rank statistics: textbook numbers, coverage, and what they refuse."""

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binomtest, ttest_1samp

from interp.errors import ConfigError, NonFiniteError
from interp.nulls import holm, p_from_null, prediction_bound
from interp.statistics import (
    Interval,
    auroc,
    auroc_interval,
    bootstrap_counts,
    bootstrap_interval,
    expanded,
    p_above,
    percentile_interval,
    proportion_interval,
    rank_correlation,
    rank_correlation_interval,
    ratio_interval,
    t_interval,
)


def test_an_interval_prints_and_answers_for_one_of_its_entries():
    several = Interval(np.array([0.5, 2.0]), np.array([0.25, 1.0]), np.array([0.75, 3.0]))
    assert several.at(1) == (2.0, 1.0, 3.0)
    assert f"{several.at(0):.2f}" == "0.50 (0.25 to 0.75)"
    assert several.contains(1.0).tolist() == [False, True]
    assert several.clip(0, 1).high.tolist() == [0.75, 1.0]
    assert several.clip(0, 1).estimate.tolist() == [0.5, 2.0]


def test_the_t_interval_is_that_of_scipy_and_of_one_observation_infinite():
    values = np.random.default_rng(0).normal(1, 2, (3, 4, 9))
    values[0, 1, :3] = np.nan
    oracle = ttest_1samp(values, 0, axis=-1, nan_policy="omit").confidence_interval(0.9)
    found = t_interval(values, 0.9)
    np.testing.assert_allclose([found.low, found.high], oracle, rtol=1e-12)
    np.testing.assert_allclose(found.estimate, np.nanmean(values, -1), rtol=1e-12)
    assert t_interval(np.array([3.0])) == (3, -np.inf, np.inf)
    assert t_interval(np.array([1.0, 2, 3, 4])).low == pytest.approx(0.4457, abs=1e-4)


def test_p_above_is_the_t_test_and_decides_without_spread():
    values = np.random.default_rng(1).normal(0.3, 1, (5, 12))
    bounds = np.linspace(-0.5, 0.5, 5)
    each = [ttest_1samp(row, bound, alternative="greater").pvalue for row, bound in zip(values, bounds, strict=True)]
    np.testing.assert_allclose(p_above(values, bounds), each, rtol=1e-12)
    assert p_above(np.array([[1.0, 1, 1], [0, 0, 0]])).tolist() == [0, 1]
    assert p_above(np.array([[7.0]])).tolist() == [1]


def test_one_more_draw_stays_below_its_bound_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3, 2, (10_000, 7))
    seen, new = draws[:, :6], draws[:, 6]
    for n_tests in (1, 4):
        bound = prediction_bound(seen.mean(1), seen.std(1, ddof=1), 6, n_tests=n_tests)
        assert np.mean(new > bound) == pytest.approx(0.05 / n_tests, abs=0.006)


def test_holm_is_the_textbook_adjustment():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    assert holm(np.full((2, 2), 0.5)).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(("alternative", "p"), [("greater", 2 / 5), ("less", 5 / 5), ("two-sided", 3 / 5)])
def test_the_value_counts_among_the_draws(alternative, p):
    null = np.array([-3.0, 1.0, 2.0, 0.0])
    assert p_from_null(2.0, null, alternative=alternative) == pytest.approx(p)
    stacked = p_from_null(np.array([2.0, 9.0]), np.stack([null, null], 1), alternative=alternative)
    assert stacked[0] == pytest.approx(p)
    assert stacked[1] == pytest.approx(1.0 if alternative == "less" else 1 / 5)


def test_equal_up_to_rounding_counts_as_reached_and_nan_is_refused():
    assert p_from_null(0.3, np.array([0.1 + 0.2, 0.3 - 1e-16, 0.2])) == 3 / 4
    with pytest.raises(NonFiniteError, match="NaN"):
        p_from_null(np.nan, np.zeros(3))
    with pytest.raises(NonFiniteError, match="NaN"):
        p_from_null(0.0, np.array([np.nan]))


def test_p_values_of_a_true_null_are_uniform():
    rng = np.random.default_rng(0)
    p = p_from_null(rng.normal(size=2000), rng.normal(size=(199, 2000)))
    assert [np.mean(p <= level) for level in (0.05, 0.5)] == pytest.approx([0.05, 0.5], abs=0.03)


def _mean(values, axis):
    return values.mean(axis)


def test_the_bootstrap_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    samples = rng.exponential(1, (300, 60))
    found = bootstrap_interval(_mean, samples, rng=rng, n_resamples=400)
    assert np.mean(found.contains(1.0)) == pytest.approx(0.93, abs=0.04)
    assert found.estimate.tolist() == samples.mean(-1).tolist()
    assert found.low.shape == found.high.shape == (300,)


def test_samples_are_drawn_together():
    one = np.random.default_rng(0).normal(size=40)
    ratio = bootstrap_interval(
        lambda a, b, axis: a.sum(axis) / b.sum(axis), 3 * one, one, rng=np.random.default_rng(0), n_resamples=50
    )
    assert ratio == pytest.approx((3, 3, 3))


def test_the_bootstrap_of_one_observation_is_that_one_and_nan_draws_drop_out():
    assert bootstrap_interval(_mean, np.array([2.0]), rng=np.random.default_rng(0)) == (2, 2, 2)
    assert percentile_interval(0.0, np.array([np.nan, 1.0, 1.0])) == (0, 1, 1)


def test_as_many_new_draws_fall_outside_of_percentiles_as_they_say():
    found = percentile_interval(0.0, np.arange(1.0, 200)[:, None])
    assert (found.low[0], found.high[0]) == pytest.approx((5, 195)), "of 200 places for one more draw, 5 at either end"
    assert percentile_interval(0.0, np.arange(10.0)) == (0, 0, 9), "the extremes, where there are too few"


def test_a_ratio_has_the_ends_at_which_students_test_turns():
    rng = np.random.default_rng(0)
    under = rng.lognormal(0, 0.5, (2, 6))
    over = 0.5 * under + rng.normal(0, 0.3, (2, 6))
    found = ratio_interval(over, under, 0.9)
    np.testing.assert_allclose(found.estimate, over.mean(1) / under.mean(1))
    for end in (found.low, found.high):
        np.testing.assert_allclose(ttest_1samp(over - end[:, None] * under, 0, axis=1).pvalue, 0.1)
    assert (found.low < found.estimate).all()
    assert ratio_interval(3 * under[0], under[0]) == pytest.approx((3, 3, 3))
    assert ratio_interval(over[0], np.array([1.0, -1, 2, -2, 1, -1]))[1:] == (-np.inf, np.inf)


def test_a_ratio_of_four_pairs_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    under = rng.lognormal(-0.125, 0.5, (4000, 4))
    assert np.mean(ratio_interval(under * rng.random((4000, 4)), under).contains(0.5)) == pytest.approx(0.95, abs=0.015)


def test_counts_give_the_resamples_of_a_mean():
    values = np.random.default_rng(0).normal(size=50)
    counts = bootstrap_counts(50, 4000, np.random.default_rng(1))
    assert (counts.sum(1) == 50).all()
    by_counts = percentile_interval(values.mean(), counts @ values / 50)
    gathered = bootstrap_interval(_mean, values, rng=np.random.default_rng(2), n_resamples=4000)
    assert by_counts == pytest.approx(gathered, abs=0.03), "the same interval, but for the draws"


def test_auroc_counts_pairs():
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 5, 40).astype(float), rng.random(40) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[truth] for b in scores[~truth]]
    assert auroc(scores, truth) == pytest.approx(float(np.mean(pairs)))
    with pytest.raises(ConfigError, match="0 true of 40"):
        auroc(scores, np.zeros(40, bool))


def test_rank_correlation_of_nothing_is_nothing_and_of_the_same_order_one():
    one, two = np.random.default_rng(0).normal(size=(2, 200))
    found = rank_correlation_interval(one, two, rng=np.random.default_rng(0))
    assert found.low < 0 < found.high
    same = rank_correlation_interval(one, np.exp(one), rng=np.random.default_rng(0), n_resamples=50)
    assert same == pytest.approx((1, 1, 1))
    assert rank_correlation(one, -one) == pytest.approx(-1)
    assert np.isnan(rank_correlation(one, np.ones(200)))
    with pytest.raises(ConfigError, match="three pairs"):
        rank_correlation_interval(one[:2], two[:2], rng=np.random.default_rng(0))


def test_resamples_without_a_correlation_are_left_out():
    one, two = np.array([0.0, 0.0, 0.0, 1.0]), np.array([0.0, 0.0, 0.0, 2.0])
    found = rank_correlation_interval(one, two, rng=np.random.default_rng(0))
    assert found == pytest.approx((1, 1, 1)), "a third of the resamples are constant, the others agree"


def test_expanded_shares_go_to_the_confidence_with_many_documents():
    assert [round(expanded(0.95, n), 3) for n in (8, 1000)] == [0.989, 0.95]


def test_the_interval_of_a_proportion_is_wilsons():
    for count, n in ((0, 5), (3, 20), (20, 20), (7, 9)):
        oracle = binomtest(count, n).proportion_ci(0.9, method="wilson")
        found = proportion_interval(count, n, 0.9)
        np.testing.assert_allclose([found.low, found.high], oracle, atol=1e-9)
        assert found.estimate == count / n
    several = proportion_interval(np.array([0, 10]), 10)
    assert several.low[0] == 0 < several.high[0]
    assert several.low[1] < 1 == several.high[1]


def test_the_interval_of_an_auroc_holds_the_truth_about_as_often_as_it_says():
    """Scores of the two sides are normal, two deviations apart: the truth is `ndtr(2 / sqrt(2))`."""
    rng, truth, inside = np.random.default_rng(0), ndtr(2**0.5), []
    for _ in range(600):
        own, other = rng.normal(2, 1, 12), rng.normal(0, 1, 60)
        inside.append(auroc_interval((own[:, None] > other).astype(float)).contains(truth))
    assert 0.93 <= np.mean(inside) <= 0.98


def test_the_interval_of_an_auroc_without_spread_and_of_one_observation():
    perfect = auroc_interval(np.ones((6, 20)))
    assert (perfect.estimate, perfect.high) == (1, 1)
    assert perfect.low == pytest.approx(proportion_interval(6, 6).low)
    assert auroc_interval(np.ones((1, 20))) == (1, 0, 1)
    even = auroc_interval(np.array([[1.0, 0, 1, 0], [0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0.0]]))
    assert even.estimate == 0.5
    assert even.low <= 0.5 <= even.high


def test_the_bootstrap_of_eight_observations_is_as_wide_as_students():
    values = np.random.default_rng(3).normal(size=8)
    found, student = (
        bootstrap_interval(np.mean, values, rng=np.random.default_rng(0), n_resamples=20_000),
        t_interval(values),
    )
    assert (found.high - found.low) / (student.high - student.low) == pytest.approx(1, abs=0.12)


def test_an_interval_names_its_columns():
    found = Interval(2.0, 1.0, 3.0)
    assert found.columns("x") == {"x": 2, "x_low": 1, "x_high": 3}
    assert found.columns("x", "a", "b") == {"x": 2, "a": 1, "b": 3}


def test_two_observations_have_a_spread():
    found = t_interval(np.array([1.0, 3.0]))
    assert found.high - found.estimate == pytest.approx(12.7062, abs=1e-3)
    assert p_above(np.array([1.0, 3.0])) == pytest.approx(0.1476, abs=1e-3), "t = 2 with one degree of freedom"
