"""Modern Hopfield retrieval: energy never rises, stored patterns are kept, and three kinds of fixed point."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import ConfigError, NonFiniteError
from interp.studies.hopfield import classify, energies, patterns_for_mass, retrieve, separation, settle

SIZES = (st.integers(1, 12), st.integers(1, 8), st.integers(1, 5))
drawn = st.tuples(*SIZES, st.floats(0.01, 20), st.floats(0.1, 5), st.integers(0, 999))


def random_memory(n, d, m, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    patterns = scale * torch.randn(n, d, generator=generator, dtype=torch.float64)
    return patterns, 2 * scale * torch.randn(m, d, generator=generator, dtype=torch.float64)


@settings(max_examples=80, deadline=None)
@given(drawn)
def test_a_step_lowers_the_energy_by_half_its_squared_length_at_least(case):
    n, d, m, beta, scale, seed = case
    patterns, states = random_memory(n, d, m, scale, seed)
    found = retrieve(patterns, states, beta)
    slack = 1e-9 * (1 + found.energy.abs())
    assert (found.energy_after <= found.energy - found.moved / 2 + slack).all()
    assert (found.energy_after >= -slack).all()
    longest = patterns.square().sum(1).max()
    assert (found.energy_after <= 2 * longest + slack).all(), "theorem 1: below 2 M^2 for states among the patterns"


@settings(max_examples=20, deadline=None)
@given(drawn)
def test_the_step_is_minus_the_gradient_of_the_energy(case):
    n, d, m, beta, scale, seed = case
    patterns, states = random_memory(n, d, m, scale, seed)
    states.requires_grad_()
    energies(patterns, states, beta).sum().backward()
    found = retrieve(patterns, states.detach(), beta)
    torch.testing.assert_close(states.detach() - states.grad, found.state, rtol=1e-6, atol=1e-8)


@settings(max_examples=40, deadline=None)
@given(drawn)
def test_weights_entropy_and_counts_agree(case):
    n, d, m, beta, scale, seed = case
    found = retrieve(*random_memory(n, d, m, scale, seed), beta)
    torch.testing.assert_close(found.weights.sum(1), torch.ones(m, dtype=torch.float64))
    assert (found.entropy <= math.log(n) + 1e-9).all()
    assert (found.n_patterns >= 1 - 1e-9).all()
    for row, count in zip(found.weights, found.n_mass.tolist(), strict=True):
        largest = row.sort(descending=True).values
        assert float(largest[:count].sum()) >= 0.9 - 1e-9
        assert count == 1 or float(largest[: count - 1].sum()) < 0.9


def test_the_energy_is_equation_2_of_the_paper():
    patterns, state, beta = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.5, 0.5]]), 1.5
    lse = math.log(math.exp(1.5 * 0.5) + math.exp(1.5 * 1.0)) / 1.5
    assert float(energies(patterns, state, beta)) == pytest.approx(-lse + 0.25 + math.log(2) / 1.5 + 2)


@pytest.mark.parametrize("seed", range(3))
def test_separated_patterns_are_retrieved_in_one_step_with_exponentially_small_error(seed):
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.nn.functional.normalize(torch.randn(40, 32, generator=generator, dtype=torch.float64), dim=1)
    noisy = patterns + 0.02 * torch.randn(patterns.shape, generator=generator, dtype=torch.float64)
    away, gap, errors = (noisy - patterns).norm(dim=1), separation(patterns), []
    for beta in (10.0, 20.0, 40.0, 80.0):
        error = (retrieve(patterns, noisy, beta).state - patterns).norm(dim=1)
        bound = 2 * 39 * (-beta * (gap - 2 * away)).exp()
        assert (error <= bound + 1e-12).all(), "theorem 5"
        errors.append(float(error.log().mean()))
    slopes = torch.tensor(errors).diff() / torch.tensor([10.0, 20.0, 40.0])
    assert (slopes < -0.2).all(), "the log of the error falls linearly with beta"


def test_temperature_decides_between_one_pattern_a_cluster_and_all():
    """Two tight clusters of three patterns: cold retrieves one, lukewarm a cluster, hot the mean of all."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(8, dtype=torch.float64)[:2].repeat_interleave(3, 0)
    patterns = centres + 0.1 * torch.randn(6, 8, generator=generator, dtype=torch.float64)
    kinds = {}
    for beta in (2000.0, 8.0, 0.1):
        state, _ = settle(patterns, patterns[:1], beta)
        found = retrieve(patterns, state, beta)
        kinds[beta] = classify(int(found.n_mass[0]), 6)
        assert float(found.moved) < 1e-9
    assert kinds == {2000.0: "single pattern", 8.0: "metastable", 0.1: "global averaging"}
    torch.testing.assert_close(settle(patterns, patterns[:1], 0.01)[0][0], patterns.mean(0), atol=0.02, rtol=0)


def test_hidden_patterns_are_no_part_of_a_memory():
    patterns, states = random_memory(5, 3, 2, 1.0, 0)
    visible = torch.tensor([[True] * 2 + [False] * 3, [True] * 5])
    found = retrieve(patterns, states, 1.0, visible=visible)
    alone = retrieve(patterns[:2], states[:1], 1.0)
    torch.testing.assert_close(found.state[0], alone.state[0])
    torch.testing.assert_close(found.energy[0], alone.energy[0])
    assert found.weights[0, 2:].sum() == 0


def test_memories_side_by_side_are_those_one_by_one():
    generator = torch.Generator().manual_seed(0)
    patterns, states = torch.randn(3, 5, 4, generator=generator), torch.randn(3, 2, 4, generator=generator)
    together = retrieve(patterns, states, 0.7)
    for i in range(3):
        alone = retrieve(patterns[i], states[i], 0.7)
        torch.testing.assert_close(together.energy[i], alone.energy)
        torch.testing.assert_close(together.state[i], alone.state)


def test_even_weights_need_nine_tenths_of_the_patterns():
    assert int(patterns_for_mass(torch.full((10,), 0.1))) == 9
    assert int(patterns_for_mass(torch.tensor([0.95, 0.05]))) == 1
    assert classify(1, 32) == "single pattern"
    assert classify(16, 32) == "metastable"
    assert classify(17, 32) == "global averaging"


def test_a_retrieval_is_saved_with_its_settings(tmp_path):
    retrieve(*random_memory(3, 2, 1, 1.0, 0), 2.0).save(tmp_path / "step.json")
    assert json.loads((tmp_path / "step.json").read_text())["settings"] == {"beta": 2.0, "n": 3, "d": 2, "mass": 0.9}


def test_what_is_no_memory_is_refused():
    patterns, states = random_memory(3, 2, 1, 1.0, 0)
    for beta in (0.0, -1.0, math.inf):
        with pytest.raises(ConfigError, match="beta"):
            retrieve(patterns, states, beta)
    with pytest.raises(ConfigError, match="one width"):
        retrieve(patterns, states[:, :1], 1.0)
    with pytest.raises(ConfigError, match="empty"):
        retrieve(patterns, states, 1.0, visible=torch.zeros(1, 3, dtype=torch.bool))
    with pytest.raises(NonFiniteError):
        retrieve(patterns * math.nan, states, 1.0)
    with pytest.raises(ConfigError, match="at least 2"):
        classify(1, 1)
    assert separation(patterns[:1]).tolist() == [math.inf]


@pytest.mark.parametrize(
    "visible",
    [torch.ones(3, 5), torch.ones(2, 5).long(), torch.ones(3, 5).bool(), torch.ones(5).bool()],
)
def test_a_mask_that_is_no_yes_or_no_for_each_state_and_pattern_is_refused(visible):
    with pytest.raises(ConfigError, match=r"expected bool \[2, 5\]"):
        retrieve(*random_memory(5, 3, 2, 1.0, 0), 1.0, visible=visible)


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda p, s: settle(p, s[:0], 1.0), "one of each at least"),
        (lambda p, s: retrieve(p.expand(3, 5, 3), s.expand(2, 2, 3), 1.0), "axes in front"),
        (lambda p, s: settle(p, s, 1.0, max_steps=0), "max_steps 0"),
        (lambda p, s: settle(p, s, 1.0, tolerance=math.nan), "tolerance nan"),
        (lambda p, s: separation(p[0]), r"patterns \[n, d\]"),
        (lambda p, s: separation(p[:0]), "one of each at least"),
        (lambda p, s: classify(1, math.nan), "at least 2"),
    ],
)
def test_states_and_settings_that_lead_nowhere_are_refused(ask, expected):
    with pytest.raises(ConfigError, match=expected):
        ask(*random_memory(5, 3, 2, 1.0, 0))
