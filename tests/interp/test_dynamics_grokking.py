"""Modular addition: measures on logits whose frequencies are planted, training against a plain loop, and grokking."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.errors import ConfigError, MismatchError, NonFiniteError
from interp.studies.grokking import (
    ModularConfig,
    ablate_frequencies,
    all_logits,
    answers,
    describe_grokking,
    embedding_frequencies,
    gini,
    initial_parameters,
    key_frequencies,
    measure_progress,
    pair_losses,
    pair_waves,
    shares,
    token_waves,
    train_modular,
    training_pairs,
)
from interp.studies.grokking_phases import find_phases

SMALL = ModularConfig(p=11, d_model=16, n_heads=2, d_mlp=24, epochs=6, log_every=3, seeds=(0, 1))


def test_waves_are_an_orthonormal_basis():
    waves = token_waves(11).flatten(0, 1)
    torch.testing.assert_close(waves @ waves.T, torch.eye(10, dtype=torch.float64))
    pairs = pair_waves(11).flatten(0, 1)
    torch.testing.assert_close(pairs @ pairs.T, torch.eye(10, dtype=torch.float64))


def test_pairs_are_trained_with_their_mirror_or_not_at_all():
    config = ModularConfig()
    for pairs in training_pairs(config):
        chosen = set(pairs.tolist())
        assert len(chosen) == len(pairs)
        mirrored = {(pair % config.p) * config.p + pair // config.p for pair in chosen}
        assert mirrored == chosen
        assert len(pairs) == pytest.approx(config.train_fraction * config.p**2, rel=0.01)


def test_the_tables_compute_what_a_transformer_written_out_computes():
    parameters = {name: value.double() for name, value in initial_parameters(SMALL).items()}
    pairs = torch.tensor([[0, 13, 120], [7, 60, 61]])
    found = all_logits(parameters, SMALL, pairs)
    for seed in range(2):
        w = {name: value[seed] for name, value in parameters.items()}
        for at, pair in enumerate(pairs[seed].tolist()):
            x = w["W_E"][torch.tensor([pair // 11, pair % 11, 11])] + w["W_pos"]
            z = torch.zeros(16, dtype=torch.float64)
            for head in range(2):
                q, k, v = (x @ w[f"W_{side}"][:, head] for side in "QKV")
                pattern = (q[2] @ k.T / 8**0.5).softmax(-1)
                z = z + pattern @ v @ w["W_O"][head]
            resid = x[2] + z
            resid = resid + torch.relu(resid @ w["W_in"]) @ w["W_out"]
            torch.testing.assert_close(found[seed, at], resid @ w["W_U"])


def test_seeds_beside_each_other_are_the_seeds_alone():
    both = list(train_modular(SMALL))
    alone = list(train_modular(ModularConfig(**{**vars(SMALL), "seeds": (1,)})))
    for two, one in zip(both, alone, strict=True):
        assert two.epoch == one.epoch
        torch.testing.assert_close(two.parameters["W_E"][1], one.parameters["W_E"][0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(two.test_loss[1], one.test_loss[0], atol=1e-5, rtol=1e-4)


def planted(config: ModularConfig, keys: list[int], strength: float) -> torch.Tensor:
    a, b, c = torch.meshgrid(*[torch.arange(config.p, dtype=torch.float64)] * 3, indexing="ij")
    logits = sum(torch.cos(2 * torch.pi * k * (a + b - c) / config.p) for k in keys)
    return strength * logits.reshape(1, config.p**2, config.p)  # type: ignore[union-attr]


def test_planted_frequencies_are_read_off_the_logits(monkeypatch: pytest.MonkeyPatch):
    config = ModularConfig(p=13, d_model=16, n_heads=2, seeds=(0,))
    logits = planted(config, [2, 5], 20.0)
    monkeypatch.setattr("interp.studies.grokking.all_logits", lambda *_: logits)
    parameters = initial_parameters(config)
    share, _ = shares(parameters, config)
    assert key_frequencies(share) == [[2, 5]]
    torch.testing.assert_close(share[0, [1, 4]], torch.tensor([0.5, 0.5], dtype=torch.float64))
    found = measure_progress(parameters, config, [[2, 5]])
    torch.testing.assert_close(found.restricted_loss, pair_losses(logits, config).mean(1))
    torch.testing.assert_close(found.excluded_loss, torch.log(torch.tensor([13.0], dtype=torch.float64)))
    half = measure_progress(parameters, config, [[2]])
    assert found.restricted_loss < half.restricted_loss < half.excluded_loss + 5


def test_planted_frequencies_are_what_the_network_needs(monkeypatch: pytest.MonkeyPatch):
    config = ModularConfig(p=13, d_model=16, n_heads=2, seeds=(0, 1))
    waves = token_waves(13) * (13 / 2) ** 0.5  # cosine and sine of 6 frequencies, which are columns of the embedding
    kept = torch.tensor([0.0, 1, 0, 0, 1, 0])  # 2 and 5 carry the sum
    parameters = initial_parameters(config)
    parameters["W_E"][:, :-1] = 0
    parameters["W_E"][:, :-1, :12] = (waves * kept[:, None, None]).flatten(0, 1).T.float()

    def adds_by_rotation(parameters, config, pairs=None):
        parts = parameters["W_E"][:, :-1, :12].unflatten(-1, (6, 2)).double()
        turned = torch.complex(*parts.unbind(-1))
        both = torch.einsum("sak,sbk->sabk", turned, turned)
        return torch.einsum("sabk,kc->sabc", both, torch.complex(waves[:, 0], -waves[:, 1])).real.flatten(1, 2)

    monkeypatch.setattr("interp.studies.grokking.all_logits", adds_by_rotation)
    right, wrong = ablate_frequencies(parameters, config, [[2, 5], [1, 3]])
    assert right is not None
    assert wrong is not None
    assert (right.whole, right.keys_alone) == (1, 1)
    assert right.without_keys < 0.2, "chance is 1 / 13"
    assert min(right.without_others) == 1
    assert len(right.without_others) == 20
    assert wrong.keys_alone < 0.2
    assert wrong.without_keys == 1
    assert min(wrong.without_others) < 0.2, "a draw removes both 2 and 5"
    assert ablate_frequencies(parameters, config, [[], [1, 2, 3, 4]])[0] is None
    few = ablate_frequencies(parameters, config, [[], [1, 2, 3, 4]])[1]
    assert few is not None
    assert few.without_others == (), "two others are fewer than four"
    doubled = {name: values.double() for name, values in parameters.items()}
    before = doubled["W_E"].clone()
    assert ablate_frequencies(doubled, config, [[2, 5], [1, 3]]) == [right, wrong]
    assert torch.equal(doubled["W_E"], before), "the parameters stay as they were"


def test_random_logits_have_no_key_frequencies():
    config = ModularConfig(seeds=(0, 1, 2))
    logit_share, embedding_share = shares(initial_parameters(config), config)
    assert key_frequencies(logit_share) == [[], [], []]
    assert float(embedding_share.sum(1).mean()) == pytest.approx(1)
    assert embedding_frequencies(embedding_share) == [[], [], []]


def test_gini_of_equal_values_is_zero_and_of_one_is_nearly_one():
    assert float(gini(torch.ones(10))) == pytest.approx(0, abs=1e-6)
    assert float(gini(torch.eye(10)[0])) == pytest.approx(0.9)


def test_phases_need_a_gap():
    epochs = np.arange(0, 100, 10)
    ramp = np.linspace(0, 1, 10)
    assert not find_phases(epochs, ramp, ramp).grokked, "what generalises as it learns does not grok"
    late = np.array([0, 0, 0, 0, 0, 0, 0.5, 0.9, 1, 1])
    found = find_phases(epochs, np.minimum(1, ramp * 4), late)
    assert found.grokked
    assert (found.memorised, found.generalising, found.generalised) == (30, 60, 80)
    assert not find_phases(epochs, np.minimum(1, ramp * 4), 0 * late).grokked


def test_a_modulus_that_is_no_prime_is_refused():
    nan = float("nan")
    for wrong in (
        *({"p": 36}, {"p": 7.5}, {"train_fraction": 1.0}, {"p": 5, "train_fraction": 0.99}, {"n_heads": 5}),
        *({"n_heads": 0}, {"epochs": 0}, {"lr": nan}, {"weight_decay": nan}),
    ):
        with pytest.raises(ConfigError):
            ModularConfig(**wrong)
    assert int(answers(ModularConfig(p=5, seeds=(0,)), None, 1)[0, 24]) == 3


def test_weights_without_any_power_have_no_share_in_any_frequency():
    nothing = {name: 0 * value for name, value in initial_parameters(SMALL).items()}
    for share in shares(nothing, SMALL):
        assert torch.equal(share, torch.zeros(2, 5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("ask", "error", "expected"),
    [
        (lambda p: shares({name: value * torch.nan for name, value in p.items()}, SMALL), NonFiniteError, "W_E"),
        (lambda p: shares(p, replace(SMALL, p=13)), MismatchError, "trained with"),
        (lambda p: shares(p, replace(SMALL, seeds=(0, 1, 2))), MismatchError, "trained with"),
        (lambda p: measure_progress(p, SMALL, [[1]]), ConfigError, "each of 2 seeds"),
        (lambda p: measure_progress(p, SMALL, [[0], [1]]), ConfigError, "from 1 to 5"),
        (lambda p: measure_progress(p, SMALL, [[1], [6]]), ConfigError, "from 1 to 5"),
        (lambda p: describe_grokking([], SMALL), ConfigError, "at least one snapshot"),
        (lambda p: find_phases(np.arange(3), np.zeros(2), np.zeros(3)), ConfigError, "one value for each step"),
    ],
)
def test_what_has_no_frequencies_or_phases_is_refused(ask, error, expected):
    with pytest.raises(error, match=expected):
        ask(initial_parameters(SMALL))


@pytest.mark.slow
def test_three_seeds_grok_by_frequencies_that_embedding_and_logits_agree_on():
    config = ModularConfig()
    found = describe_grokking(list(train_modular(config)), config)
    for seed, run in enumerate(found.runs):
        phases = run.phases
        assert phases.grokked, phases
        assert phases.gap is not None
        assert phases.gap >= 2 * config.log_every, "training accuracy above .99 while test accuracy is below .3"
        change = found.circuit_forms_unseen(seed)
        assert change is not None
        assert change[0] < -0.2, "the restricted loss falls while nothing shows"
        assert 1 <= len(run.keys) <= 6
        assert set(run.keys) <= set(run.embedding_keys)
        assert found.logit_share[-1, seed].sum() > 0.8
        assert found.curves["restricted_loss"][-1, seed] < 0.2
        assert found.curves["excluded_loss"][-1, seed] > 2
        assert run.ablation is not None
        assert run.ablation.without_keys < 0.2 < 0.8 < min(run.ablation.without_others)
        assert found.curves["gini"][-1, seed] > 2 * found.curves["gini"][0, seed]


@pytest.mark.slow
def test_without_weight_decay_it_memorises_and_stays_there():
    config = ModularConfig(weight_decay=0.0, epochs=500, log_every=50)
    found = describe_grokking(list(train_modular(config)), config)
    for run in found.runs:
        assert run.phases.memorised is not None
        assert run.phases.generalising is None
        assert not run.phases.grokked


def test_training_ends_some_epochs_after_every_seed_has_generalised(monkeypatch):
    from interp.studies import grokking as modular

    monkeypatch.setattr(modular, "LEARNED", -1.0)  # as soon as it is looked at
    config = replace(SMALL, epochs=400, log_every=2, settle=6)
    assert [s.epoch for s in train_modular(config)] == [0, 2, 4, 6, 8]
    assert [s.epoch for s in train_modular(replace(config, epochs=8, settle=None))] == [0, 2, 4, 6, 8]
