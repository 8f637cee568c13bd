"""The Boltzmann machine: sampling and gradients against sums over all states, and learning of a planted machine."""

import itertools
import math

import numpy as np
import pytest
import torch

from interp.errors import ConfigError, NonFiniteError
from interp.statistics import t_interval
from interp.studies.boltzmann import (
    BoltzmannMachine,
    all_states,
    contrastive_divergence,
    exact_gradient,
    learn,
    new_machine,
    state_numbers,
)
from interp.studies.classical_networks import recall


def random_machine(n_visible=4, n_hidden=2, scale=0.5, seed=0) -> BoltzmannMachine:
    machine = new_machine(n_visible, n_hidden, scale=scale, seed=seed)
    bias = 0.3 * torch.randn(machine.n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return BoltzmannMachine(couplings=machine.couplings, bias=bias, n_visible=n_visible)


def planted_data(machine: BoltzmannMachine, n: int, seed: int) -> torch.Tensor:
    """Visible rows drawn from the exact distribution."""
    drawn = torch.multinomial(machine.exact(), n, replacement=True, generator=torch.Generator().manual_seed(seed))
    return all_states(machine.n)[drawn][:, : machine.n_visible]


def test_a_lone_spin_follows_its_bias_and_a_pair_its_coupling():
    lone = BoltzmannMachine(
        couplings=torch.zeros(1, 1).double(), bias=torch.tensor([0.7], dtype=torch.float64), n_visible=1
    )
    assert float(lone.moments().first) == pytest.approx(math.tanh(0.7))
    pair = torch.tensor([[0.0, 0.9], [0.9, 0.0]], dtype=torch.float64)
    machine = BoltzmannMachine(couplings=pair, bias=torch.zeros(2, dtype=torch.float64), n_visible=2)
    assert float(machine.moments().second[0, 1]) == pytest.approx(math.tanh(0.9))
    assert float(machine.moments(temperature=3).second[0, 1]) == pytest.approx(math.tanh(0.3))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_gibbs_samples_have_the_exact_moments(seed, temperature):
    machine = random_machine(8, 0, seed=seed)
    chains = machine.sample(6000, 40, temperature=temperature, generator=torch.Generator().manual_seed(seed))
    exact = machine.moments(temperature)
    torch.testing.assert_close(chains.mean(0), exact.first, atol=0.06, rtol=0)
    torch.testing.assert_close(chains.T @ chains / len(chains), exact.second, atol=0.06, rtol=0)


def test_gibbs_samples_visit_every_state_as_often_as_they_should():
    machine = random_machine(4, 0, seed=3)
    chains = machine.sample(40_000, 40, generator=torch.Generator().manual_seed(0))
    share = torch.bincount(state_numbers(chains), minlength=16).double() / len(chains)
    exact = machine.exact()
    assert ((share - exact).abs() <= 5 * (exact * (1 - exact) / len(chains)).sqrt()).all()


def test_states_are_numbered_in_their_order():
    states = all_states(5)
    assert torch.equal(state_numbers(states), torch.arange(32))


@pytest.mark.parametrize("n_hidden", [0, 2])
def test_the_gradient_is_that_of_the_likelihood(n_hidden):
    """Finite differences of the exact log-likelihood, one parameter at a time."""
    machine, step = random_machine(4, n_hidden, seed=1), 1e-5
    data = planted_data(random_machine(4, 2, seed=9), 50, 0)
    by = exact_gradient(machine, data)
    for i in range(machine.n):
        values = []
        for shift in (step, -step):
            bias = machine.bias.clone()
            bias[i] += shift
            moved = BoltzmannMachine(couplings=machine.couplings, bias=bias, n_visible=4)
            values.append(moved.log_likelihood(data))
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(by.first[i]), abs=1e-6)
        for j in range(i):
            values = []
            for shift in (step, -step):
                couplings = machine.couplings.clone()
                couplings[i, j] += shift
                couplings[j, i] += shift
                values.append(
                    BoltzmannMachine(couplings=couplings, bias=machine.bias, n_visible=4).log_likelihood(data)
                )
            assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(by.second[i, j]), abs=1e-6)


def test_long_contrastive_divergence_is_the_exact_gradient_and_short_points_the_same_way():
    machine, data = random_machine(5, 2, seed=2), planted_data(random_machine(5, 2, seed=4), 4000, 0)
    exact, generator = exact_gradient(machine, data).second, torch.Generator().manual_seed(0)
    long = contrastive_divergence(machine, data, n_sweeps=40, generator=generator).second
    torch.testing.assert_close(long, exact, atol=0.09, rtol=0)
    short = contrastive_divergence(machine, data, n_sweeps=1, generator=generator).second
    assert float(torch.nn.functional.cosine_similarity(short.flatten(), exact.flatten(), dim=0)) > 0.7
    assert float(short.norm()) < float(exact.norm()), "one sweep from the data sees part of the difference"


def test_exact_learning_recovers_a_planted_machine():
    truth = random_machine(6, 0, scale=0.4, seed=5)
    errors = []
    for seed in range(3):
        data = planted_data(truth, 8000, seed)
        *_, last = learn(new_machine(6, seed=seed), data, steps=150, lr=0.4)
        errors.append(float((last.machine.couplings - truth.couplings).abs().max()))
        assert last.log_likelihood == pytest.approx(truth.log_likelihood(data), abs=0.01)
    assert t_interval(np.array(errors))[2] < 0.2
    untrained = float((new_machine(6).couplings - truth.couplings).abs().max())
    assert untrained > 0.5


def test_contrastive_divergence_raises_the_likelihood_of_the_data_and_of_nothing_else():
    truth = random_machine(6, 0, scale=0.6, seed=6)
    data = planted_data(truth, 500, 0)
    start = new_machine(6, 3, seed=0)
    *_, last = learn(start, data, steps=150, lr=0.05, n_sweeps=1)
    assert last.log_likelihood > start.log_likelihood(data) + 0.3
    even = all_states(6)
    assert last.machine.log_likelihood(even) < start.log_likelihood(even)


def test_exact_steps_never_lower_the_likelihood():
    data = planted_data(random_machine(5, 0, seed=7), 300, 0)
    known = [each.log_likelihood for each in learn(new_machine(5, 2, scale=0.1), data, steps=60, lr=0.05, log_every=1)]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(known))


def test_a_cold_machine_rests_where_the_hopfield_network_does():
    machine = random_machine(8, 0, seed=8)
    machine = BoltzmannMachine(couplings=machine.couplings, bias=torch.zeros(8, dtype=torch.float64), n_visible=8)
    cold = machine.sample(200, 80, temperature=1e-3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(recall(machine.couplings, cold)[0], cold), "no spin wants to turn"
    ground = machine.energy(all_states(8)).min()
    assert float(machine.exact(0.01).max()) == pytest.approx(0.5, abs=1e-6), "two ground states, opposite to each other"
    assert float(machine.energy(cold).min()) == pytest.approx(float(ground))


def test_the_same_seed_learns_the_same():
    data = planted_data(random_machine(4, 0), 100, 0)
    first, second = (list(learn(new_machine(4, 2), data, steps=20, n_sweeps=2, seed=3))[-1] for _ in range(2))
    assert torch.equal(first.machine.couplings, second.machine.couplings)


def test_what_is_no_machine_is_refused():
    with pytest.raises(ConfigError, match="symmetric"):
        BoltzmannMachine(couplings=torch.tensor([[0.0, 1], [0, 0]]), bias=torch.zeros(2), n_visible=2)
    with pytest.raises(ConfigError, match="diagonal"):
        BoltzmannMachine(couplings=torch.eye(2), bias=torch.zeros(2), n_visible=2)
    with pytest.raises(ConfigError, match="n_visible"):
        BoltzmannMachine(couplings=torch.zeros(2, 2), bias=torch.zeros(2), n_visible=3)
    with pytest.raises(ConfigError, match="sample instead"):
        all_states(17)
    machine = new_machine(3)
    with pytest.raises(ConfigError, match="classical"):
        machine.exact(0.0)
    for data in (torch.zeros(2, 3), torch.ones(2, 4), torch.ones(0, 3)):
        with pytest.raises(ConfigError, match="visible spins"):
            exact_gradient(machine, data)
    with pytest.raises(ConfigError, match="lr"):
        next(learn(machine, torch.ones(1, 3), lr=0))


def test_a_machine_in_float32_is_summed_in_float64_and_stays_float32():
    machine = random_machine(4, 0)
    small = BoltzmannMachine(couplings=machine.couplings.float(), bias=machine.bias.float(), n_visible=4)
    torch.testing.assert_close(small.exact(), machine.exact(), atol=1e-6, rtol=0)
    torch.testing.assert_close(small.moments().second, machine.moments().second, atol=1e-6, rtol=0)
    *_, last = learn(small, planted_data(machine, 50, 0), steps=3)
    assert last.machine.couplings.dtype == last.machine.bias.dtype == torch.float32


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_couplings_and_biases_that_are_no_numbers_are_refused(value):
    zero = torch.zeros(2, dtype=torch.float64)
    with pytest.raises(NonFiniteError, match="couplings must be finite"):
        BoltzmannMachine(couplings=torch.full((2, 2), value).double(), bias=zero, n_visible=2)
    with pytest.raises(NonFiniteError, match="biases must be finite"):
        BoltzmannMachine(couplings=torch.zeros(2, 2).double(), bias=zero + value, n_visible=2)


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda m, g: m.energy(torch.ones(2, 4)), r"\[n_states, 3\]"),
        (lambda m, g: m.energy(torch.zeros(2, 3)), r"\+1 and -1"),
        (lambda m, g: m.sweep(torch.ones(2, 4), 1, generator=g), r"\[n_states, 3\]"),
        (lambda m, g: m.sweep(torch.ones(2, 3), -1, generator=g), "got -1 from 0 on"),
        (lambda m, g: m.sweep(torch.ones(2, 3), 1, first=-2, generator=g), "got 1 from -2 on"),
        (lambda m, g: m.sample(0, 1, generator=g), "one chain"),
        (lambda m, g: contrastive_divergence(m, torch.ones(2, 3), n_sweeps=0, generator=g), "needs a sweep"),
        (lambda m, g: next(learn(m, torch.ones(2, 3), lr=math.nan)), "lr above 0"),
        (lambda m, g: new_machine(2, -1), "hidden"),
        (lambda m, g: BoltzmannMachine(couplings=m.couplings, bias=torch.zeros(3), n_visible=3), "dtype"),
    ],
)
def test_what_does_not_fit_the_machine_is_refused(ask, expected):
    with pytest.raises(ConfigError, match=expected):
        ask(new_machine(3), torch.Generator().manual_seed(0))
