"""Transitions are found where they were planted, and nowhere else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from interp.errors import ConfigError, NonFiniteError
from interp.studies._transitions import find_transition, first_at, walk_p_value

STEPS = np.arange(0, 1500, 25)


def logistic(middle: float, width: float, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    return low + (high - low) / (1 + np.exp(-(STEPS - middle) / width))


@settings(max_examples=40, deadline=None)
@given(
    middle=st.floats(350, 1100),
    width=st.floats(5, 60),
    low=st.floats(-3, 3),
    way=st.floats(0.5, 4),
    down=st.booleans(),
    seed=st.integers(0, 50),
)
def test_a_planted_change_is_found_where_it_is(middle, width, low, way, down, seed):  # fmt: skip
    noise = np.random.default_rng(seed).normal(0, 0.01 * way, len(STEPS))
    found = find_transition(STEPS, logistic(middle, width, low, low - way if down else low + way) + noise)
    assert found.sudden, found.reason
    assert found.middle == pytest.approx(middle, abs=30)
    assert found.onset == pytest.approx(middle - np.log(9) * width, abs=45)
    assert found.end == pytest.approx(middle + np.log(9) * width, abs=45)


def test_noise_a_line_and_a_slow_curve_are_no_transitions():
    flat = [find_transition(STEPS, np.random.default_rng(seed).normal(size=len(STEPS))) for seed in range(40)]
    assert sum(found.sudden for found in flat) <= 1
    line = find_transition(STEPS, 0.002 * STEPS)
    assert not line.sudden
    assert "gradual" in line.reason
    assert not find_transition(STEPS, logistic(750, 300)).sudden
    assert not find_transition(STEPS, np.ones(len(STEPS))).sudden
    small = logistic(700, 20, 0.04, 0.07)
    assert find_transition(STEPS, small).sudden
    assert not find_transition(STEPS, small, least=0.1).sudden


def walks(seed: int, n_walks: int, n: int, correlation: float, df: float) -> np.ndarray:
    """Return random walks `[n_walks, n]`; successive steps have this correlation, innovations this t distribution."""
    rng, shape = np.random.default_rng(seed), (n_walks, n + 100)
    drawn = rng.standard_normal(shape) if np.isinf(df) else rng.standard_t(df, shape)
    return lfilter([1.0], [1.0, -correlation], drawn)[:, 100:].cumsum(1)


KINDS = [(0.0, np.inf), (0.0, 3.0), (0.0, 2.0), (0.5, 5.0), (0.8, np.inf), (0.8, 2.0)]


@pytest.mark.parametrize("n", [15, 60])
@pytest.mark.parametrize(("correlation", "df"), KINDS)
def test_random_walks_have_no_transitions(n, correlation, df):
    steps = np.linspace(0, 1475, n)
    found = [find_transition(steps, walk) for walk in walks(1, 400, n, correlation, df)]
    assert sum(each.sudden for each in found) <= 30, "400 walks at a rate of .05: 20 with a standard error of 4.4"
    p = np.array([1.0 if each.p is None else each.p for each in found])
    for level in (0.01, 0.05, 0.1, 0.3):
        most = level + 2.6 * (level * (1 - level) / len(p)) ** 0.5
        assert (p <= level).mean() <= most, "p is at most uniform"


def test_size_and_speed_alone_find_transitions_in_random_walks():
    found = [find_transition(STEPS, walk) for walk in walks(1, 200, len(STEPS), 0.8, 2.0)]
    assert sum(each.sudden or "random walks change as much" in each.reason for each in found) > 50


def test_the_hardest_family_is_judged_at_its_level():
    p = [walk_p_value(STEPS, walk) for walk in walks(2, 600, len(STEPS), 0.8, 2.0)]
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.08, "nominal .05, standard error .009: valid and not conservative"


@pytest.mark.parametrize("drift", [0.1, 0.3, 1.0])
def test_walks_with_drift_have_none(drift):
    drifting = walks(3, 200, len(STEPS), 0.0, np.inf) + drift * np.arange(len(STEPS))
    assert sum(find_transition(STEPS, walk).sudden for walk in drifting) <= 4


@pytest.mark.parametrize("width", [5, 20, 60])
@pytest.mark.parametrize("n", [15, 60])
def test_a_planted_jump_is_no_random_walk(n, width):
    steps = np.linspace(0, 1475, n)
    rng = np.random.default_rng(0)
    for middle in rng.uniform(350, 1100, 20):
        found = find_transition(steps, 1 / (1 + np.exp(-(steps - middle) / width)) + rng.normal(0, 0.01, n))
        assert found.sudden, found.reason
        assert found.p is not None
        assert found.p <= 0.05


def test_a_jump_between_sloping_parts_is_found():
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(0, 0.01, len(STEPS))
        assert find_transition(STEPS, logistic(700, 10) + 0.0001 * STEPS + noise).sudden


def test_a_long_curve_is_judged_by_means_of_neighbours():
    steps = np.arange(500.0)
    noise = np.random.default_rng(0).normal(0, 0.02, len(steps))
    assert find_transition(steps, 1 / (1 + np.exp(-(steps - 200) / 8)) + noise).sudden
    assert not any(find_transition(steps, walk).sudden for walk in walks(4, 20, len(steps), 0.0, np.inf))


def test_the_p_value_of_curves_without_noise():
    assert walk_p_value(np.arange(20), np.ones(20)) == 1
    assert walk_p_value(STEPS, 0.5 * STEPS) == 1
    assert walk_p_value(np.arange(40), np.repeat([0.0, 1.0], 20)) == 0.001


def test_a_curve_that_comes_back_has_its_onset_where_it_goes_for_good():
    curve = logistic(900, 20)
    curve[9] = 0.4  # a spike
    found = find_transition(STEPS, curve)
    assert found.middle == pytest.approx(900, abs=15)


def test_what_is_no_curve_is_refused():
    with pytest.raises(ConfigError, match="8 measurements"):
        find_transition(STEPS[:5], STEPS[:5])
    with pytest.raises(ConfigError, match="rising"):
        find_transition(STEPS[::-1], STEPS)
    with pytest.raises(NonFiniteError, match="step 50"):
        find_transition(STEPS, np.where(STEPS == 50, np.nan, 1.0))
    for value in (np.nan, np.inf):
        with pytest.raises(NonFiniteError, match=f"step {value:g}"):
            find_transition(np.append(STEPS[:-1], value), logistic(700, 20))
    for ask in (find_transition, lambda steps, values: first_at(steps, values, 0.5)):
        for values in (STEPS[:-1], np.stack([STEPS, STEPS], 1), 1.0):
            with pytest.raises(ConfigError, match="one value for each step"):
                ask(STEPS, values)
    with pytest.raises(ConfigError, match="least nan"):
        find_transition(STEPS, STEPS, least=np.nan)
    with pytest.raises(NonFiniteError):
        first_at(STEPS, STEPS * np.nan, 1)
    assert first_at(STEPS, STEPS, 100) == 100
    assert first_at(STEPS, STEPS, 1e9) is None


def test_a_sudden_rise_that_levels_off_slowly_is_found():
    """Phase changes begin suddenly and saturate: values of an induction score, 21 measurements."""
    steps = np.arange(0, 1050, 50)
    rise = 0.04 + 0.7 * (1 - np.exp(-np.maximum(steps - 340, 0) / 130))
    for seed in range(5):
        for curve in (rise, -rise, rise[::-1]):
            found = find_transition(steps, curve + np.random.default_rng(seed).normal(0, 0.005, len(steps)))
            assert found.sudden, found.reason
