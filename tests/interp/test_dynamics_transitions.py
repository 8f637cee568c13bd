"""Transitions are found where they were planted, and nowhere else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from interp.errors import ConfigError, NonFiniteError
from interp.studies.induction_emerges import find_transition, first_at, walk_p_value

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
    assert found.found, found.reason
    assert found.middle == pytest.approx(middle, abs=30)
    assert found.onset == pytest.approx(middle - np.log(9) * width, abs=45)
    assert found.end == pytest.approx(middle + np.log(9) * width, abs=45)


def test_noise_a_line_and_a_slow_curve_are_no_transitions():
    flat = [find_transition(STEPS, np.random.default_rng(seed).normal(size=len(STEPS))) for seed in range(40)]
    assert sum(found.found for found in flat) <= 1
    line = find_transition(STEPS, 0.002 * STEPS)
    assert not line.found
    assert "gradual" in line.reason
    assert not find_transition(STEPS, logistic(750, 300)).found
    assert not find_transition(STEPS, np.ones(len(STEPS))).found
    small = logistic(700, 20, 0.04, 0.07)
    assert find_transition(STEPS, small).found
    assert not find_transition(STEPS, small, least=0.1).found


def walk(seed: int, n: int = len(STEPS), drift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=n) + drift).cumsum()


@pytest.mark.parametrize(("n", "drift"), [(60, 0.0), (60, 0.3), (12, 0.0)])
def test_the_p_value_is_uniform_under_random_walks(n, drift):
    p = np.array([walk_p_value(walk(seed, n, drift)) for seed in range(400)])
    assert kstest(p, "uniform").pvalue > 0.01
    assert (p <= 0.05).mean() < 0.09, "400 walks: .05 with a standard error of .011"


def test_random_walks_have_no_transitions():
    found = [find_transition(STEPS, walk(seed)) for seed in range(200)]
    assert sum(each.found for each in found) <= 10, "at most the error rate of .05"
    assert any("random walks change as much" in each.reason for each in found)
    quick = [each for each in found if each.found or "random walks" in each.reason]
    assert len(quick) > 20, "size and speed alone find one in six"


@pytest.mark.parametrize("width", [5, 20, 60])
@pytest.mark.parametrize("n", [15, 60])
def test_a_planted_jump_is_no_random_walk(n, width):
    steps = np.linspace(0, 1475, n)
    for seed in range(10):
        noise = np.random.default_rng(seed).normal(0, 0.02, n)
        found = find_transition(steps, 1 / (1 + np.exp(-(steps - 700) / width)) + noise)
        assert found.found, found.reason
        assert found.p is not None
        assert found.p <= 0.02


def test_the_p_value_of_curves_without_noise():
    assert walk_p_value(np.ones(20)) == 1
    assert walk_p_value(0.5 * STEPS) == 1
    assert walk_p_value(np.repeat([0.0, 1.0], 20)) == 0.001


def test_a_curve_that_comes_back_has_its_onset_where_it_goes_for_good():
    curve = logistic(900, 20)
    curve[8:11] = 0.8  # a spike
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
