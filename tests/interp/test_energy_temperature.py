"""A distribution as Boltzmann's: known systems, derivatives by finite differences, gauges, and its null."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import ConfigError, NonFiniteError, UnknownNameError
from interp.studies.boltzmann import energy_levels, random_energy_null, sweep_temperatures

HEAT = [0.25, 0.5, 1.0, 2.0, 4.0]


def random_logits(n_rows=3, d_vocab=50, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n_rows, d_vocab, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("gap", [0.5, 1.0, 4.0])
def test_two_levels_give_schottkys_heat_capacity(gap):
    found = sweep_temperatures(torch.tensor([0.0, -gap]), HEAT)
    x = gap / torch.tensor(HEAT, dtype=torch.float64)
    expected = x**2 * x.exp() / (1 + x.exp()) ** 2
    torch.testing.assert_close(found.heat_capacity[0], expected)
    torch.testing.assert_close(found.free_energy[0] + gap / 2, -(gap / x) * (1 + (-x).exp()).log())


def test_equal_logits_have_no_heat_capacity_and_all_the_entropy():
    found = sweep_temperatures(torch.full((64,), 7.0), HEAT)
    torch.testing.assert_close(found.entropy[0], torch.full((5,), math.log(64), dtype=torch.float64))
    assert float(found.heat_capacity.abs().max()) < 1e-12
    torch.testing.assert_close(found.n_tokens[0], torch.full((5,), 64.0, dtype=torch.float64))


@pytest.mark.parametrize("gauge", ["mean", "surprisal"])
@pytest.mark.parametrize("seed", range(3))
def test_heat_capacity_and_entropy_are_the_derivatives(gauge, seed):
    step, heat = 1e-4, torch.tensor(HEAT, dtype=torch.float64)
    logits = random_logits(seed=seed)
    at, below, above = (sweep_temperatures(logits, heat + shift, gauge=gauge) for shift in (0, -step, step))
    torch.testing.assert_close((above.energy - below.energy) / (2 * step), at.heat_capacity, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(-(above.free_energy - below.free_energy) / (2 * step), at.entropy, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(at.energy - heat * at.entropy, at.free_energy)
    torch.testing.assert_close(
        heat * (above.entropy - below.entropy) / (2 * step), at.heat_capacity, rtol=1e-5, atol=1e-7
    )


@settings(max_examples=40, deadline=None)
@given(st.floats(-300, 300), st.integers(0, 1000), st.sampled_from(["mean", "surprisal"]))
def test_an_offset_of_the_logits_changes_nothing(offset, seed, gauge):
    logits = random_logits(seed=seed)
    one, other = (sweep_temperatures(each, HEAT, gauge=gauge) for each in (logits, logits + offset))
    for name in ("energy", "entropy", "free_energy", "heat_capacity"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-6, atol=1e-8)


def test_gauges_differ_by_a_constant_in_energy_and_free_energy_and_in_nothing_else():
    mean, surprisal = (sweep_temperatures(random_logits(), HEAT, gauge=gauge) for gauge in ("mean", "surprisal"))
    torch.testing.assert_close(mean.entropy, surprisal.entropy)
    torch.testing.assert_close(mean.heat_capacity, surprisal.heat_capacity)
    shift = surprisal.energy - mean.energy
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift))
    torch.testing.assert_close(surprisal.free_energy - mean.free_energy, shift)
    torch.testing.assert_close(energy_levels(random_logits(), "mean").mean(1), torch.zeros(3, dtype=torch.float64))
    at_one = HEAT.index(1.0)
    assert float(surprisal.free_energy[:, at_one].abs().max()) < 1e-9
    torch.testing.assert_close(surprisal.energy[:, at_one], surprisal.entropy[:, at_one])


def test_at_temperature_one_it_is_the_models_own_distribution():
    logits = random_logits()
    p = logits.softmax(1)
    found = sweep_temperatures(logits, [1.0])
    torch.testing.assert_close(found.entropy[:, 0], -(p * p.log()).sum(1))
    torch.testing.assert_close(found.heat_capacity[:, 0], (p * logits**2).sum(1) - (p * logits).sum(1) ** 2)


def test_cold_is_certain_and_hot_is_even():
    found = sweep_temperatures(random_logits(), [1e-3, 1e4])
    assert float(found.entropy[:, 0].max()) < 1e-6
    torch.testing.assert_close(
        found.entropy[:, 1], torch.full((3,), math.log(50), dtype=torch.float64), atol=1e-4, rtol=0
    )
    assert (found.entropy.diff(dim=1) > 0).all()


def test_normal_logits_are_their_own_null_and_a_known_answer_is_not():
    heat = torch.linspace(0.4, 4, 19)
    plain = random_logits(4, 4000, seed=1)
    null = random_energy_null(plain, heat, n_draws=4)
    assert float((sweep_temperatures(plain, heat).entropy - null.entropy).mean(0).abs().max()) < 0.35
    known = plain.clone()
    known[:, 0] = 24
    assert (sweep_temperatures(known, heat).entropy[:, 3] < random_energy_null(known, heat).entropy[:, 3] - 2).all()
    torch.testing.assert_close(null.entropy, random_energy_null(plain, heat, n_draws=4).entropy)


def test_the_random_energy_model_freezes_where_derrida_says():
    sigma, d_vocab = 3.0, 40_000
    critical = sigma / math.sqrt(2 * math.log(d_vocab))
    logits = random_logits(4, d_vocab, seed=2, scale=sigma)
    hot = sweep_temperatures(logits, [2 * critical])
    expected = math.log(d_vocab) - sigma**2 / (2 * (2 * critical) ** 2)
    assert float(hot.entropy.mean()) == pytest.approx(expected, rel=0.05)
    assert float(sweep_temperatures(logits, [critical / 3]).entropy.mean()) < 0.12 * math.log(d_vocab)


def test_a_single_deep_token_melts_at_one_temperature():
    """Depth D below n even tokens: weight one half, and so the peak, near T = D / log n."""
    logits = torch.zeros(10_000, dtype=torch.float64)
    logits[0] = 20
    heat = torch.linspace(0.5, 5, 91)
    found = sweep_temperatures(logits, heat)
    assert float(found.peak_temperature) == pytest.approx(20 / math.log(10_000), rel=0.05)


def test_a_sweep_is_saved_with_its_gauge_and_gives_rows(tmp_path):
    found = sweep_temperatures(random_logits(), HEAT, gauge="surprisal")
    found.save(tmp_path / "sweep.json")
    assert json.loads((tmp_path / "sweep.json").read_text())["settings"]["gauge"] == "surprisal"
    assert [row["temperature"] for row in found.to_records()] == HEAT
    assert found.to_records()[2]["entropy"] == pytest.approx(float(found.entropy[:, 2].mean()))


def test_arrays_are_swept_as_tensors_are():
    for ask in (sweep_temperatures, random_energy_null):
        array, tensor = ask(random_logits().numpy(), np.array(HEAT)), ask(random_logits(), HEAT)
        assert torch.equal(array.free_energy, tensor.free_energy)


def test_what_has_no_temperature_is_refused():
    for heat in ([], [0.0, 1.0], [1.0, 0.5], [-1.0], [math.nan], [1.0, math.nan], [1.0, math.inf], [2, 0], [1e-200]):
        with pytest.raises(ConfigError, match="temperatures"):
            sweep_temperatures(random_logits(), heat)
    for ask in (sweep_temperatures, random_energy_null):
        for logits in (torch.zeros(3, 1), torch.zeros(3, 0), torch.zeros(0, 3), torch.tensor(1.0)):
            with pytest.raises(ConfigError, match="two tokens"):
                ask(logits, [1.0])
    with pytest.raises(UnknownNameError, match="gauge"):
        energy_levels(random_logits(), "zero")
    with pytest.raises(NonFiniteError, match="forbidden"):
        sweep_temperatures(torch.tensor([0.0, -math.inf]), [1.0])
    with pytest.raises(UnknownNameError, match="gauge"):
        sweep_temperatures(random_logits(), HEAT, gauge="zero")
