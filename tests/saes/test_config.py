"""What a run's numbers are chosen to be, and which settings are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import ConfigError, UnknownNameError
from saes.kinds.config import BatchTopKConfig, MatryoshkaConfig, TopKConfig, make_config
from saes.kinds.topk import prefix_ends
from saes.training.config import TrainConfig
from saes.training.schedule import MIN_STEPS, choose_batch, choose_lr, plan


def test_the_measured_short_run_gets_the_measured_rate():
    chosen = plan(TrainConfig(tokens=1_100_000), d_in=576, d_sae=4608)
    assert chosen.n_steps == 268
    assert chosen.batch_size == 4096
    assert 2e-3 < chosen.lr < 3e-3
    assert chosen.k_aux == 256
    assert chosen.dead_window == 110_000


def test_long_runs_get_the_rate_of_the_field():
    assert choose_lr(100_000, 2**14) == pytest.approx(2e-4)
    assert choose_lr(100_000, 2**16) == pytest.approx(1e-4)


@given(tokens=st.integers(256, 10**10), d_sae=st.integers(64, 2**20))
def test_every_budget_has_a_usable_plan(tokens, d_sae):
    chosen = plan(TrainConfig(tokens=tokens), d_in=64, d_sae=d_sae)
    assert chosen.n_steps * chosen.batch_size <= tokens
    assert chosen.n_steps >= MIN_STEPS or chosen.batch_size in (256, 4096)
    assert 0 < chosen.dead_window < tokens
    assert 0 < chosen.lr < 0.05


@given(n=st.integers(1, 3000))
def test_the_rate_rises_stays_and_falls_to_almost_nothing(n):
    chosen = plan(TrainConfig(tokens=n * 256, batch_size=256), d_in=64, d_sae=512)
    rates = [chosen.lr_at(step) for step in range(n)]
    assert all(0 < rate <= chosen.lr for rate in rates)
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    if n >= 50:
        assert max(rates) == pytest.approx(chosen.lr)
        assert rates[-1] < 0.1 * chosen.lr


def test_small_budgets_shrink_the_batch_before_the_number_of_steps():
    assert choose_batch(10**9) == 4096
    assert choose_batch(300_000) == 1024
    assert choose_batch(1000) == 256


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"tokens": 0}, "tokens"),
        ({"lr": -1.0}, "lr"),
        ({"decay_fraction": 1.5}, "decay_fraction"),
        ({"heldout_fraction": 0.0}, "heldout_fraction"),
        ({"tokens": 1000, "dead_window": 1000}, "shorter than the run"),
        ({"encoder_dtype": "bfloat61"}, "bfloat16"),
        ({"clip_norm": 0.0}, "clip_norm"),
    ],
)
def test_impossible_training_settings_are_refused_by_name(settings, word):
    with pytest.raises((ConfigError, UnknownNameError), match=word):
        TrainConfig(**settings)


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match="k must lie between 1 and d_sae = 16"):
        TopKConfig(d_sae=16, k=17)
    with pytest.raises(ConfigError, match="no batch"):
        plan(TrainConfig(tokens=100), d_in=8, d_sae=16)


def test_kinds_are_made_by_name():
    assert make_config("batchtopk", d_sae=64, k=4) == BatchTopKConfig(d_sae=64, k=4)
    with pytest.raises(UnknownNameError, match="did you mean 'topk'"):
        make_config("topkk", d_sae=64, k=4)


@pytest.mark.parametrize(
    ("kind", "settings", "word"),
    [
        ("matryoshka", {"prefixes": (0.5, 0.25)}, "rising shares"),
        ("matryoshka", {"prefixes": (0.5, 1.5)}, "rising shares"),
        ("matryoshka", {"prefixes": ()}, "rising shares"),
        ("jumprelu", {"sparsity": "quadradic"}, "did you mean 'quadratic'"),
        ("jumprelu", {"bandwidth": 0.0}, "bandwidth must be above 0"),
        ("relu", {"l1_coefficient": -1.0}, "l1_coefficient must be at least 0"),
        ("relu", {"k": 4}, "a relu SAE has no k; its settings are d_sae, l1_coefficient"),
        ("transcoder", {"k": 4}, "needs a target"),
        ("transcoder", {"target": "x", "selection": "top"}, "did you mean 'topk'"),
        ("crosscoder", {"sparsity": "l2"}, "did you mean 'l1'"),
    ],
)
def test_settings_that_a_kind_cannot_have_are_refused_by_name(kind, settings, word):
    with pytest.raises((ConfigError, UnknownNameError), match=word):
        make_config(kind, d_sae=64, **settings)


@given(shares=st.lists(st.floats(0.001, 1.0), min_size=1, max_size=6, unique=True), d_sae=st.integers(1, 10**5))
def test_nested_prefixes_rise_and_end_with_the_whole(shares, d_sae):
    ends = prefix_ends(MatryoshkaConfig(d_sae=d_sae, k=1, prefixes=tuple(sorted(shares))))
    assert list(ends) == sorted(set(ends))
    assert ends[0] >= 1
    assert ends[-1] == d_sae
