"""Repeated random prompts repeat exactly as stated and nowhere else; their twins never."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import ConfigError
from interp.text.tokens import repeated_random_tokens, unrepeated_random_tokens

IDS = torch.arange(10, 400)


def options(seed: int = 0, **changes) -> dict:
    base = {"n_prompts": 6, "context_length": 40, "d_vocab_ids": IDS, "min_lag": 8, "max_lag": 19, "bos": 1}
    return {**base, "generator": torch.Generator().manual_seed(seed), **changes}


@given(seed=st.integers(0, 1000), low=st.integers(1, 20), extra=st.integers(0, 15), bos=st.sampled_from([None, 1]))
@settings(max_examples=60, deadline=None)
def test_a_token_equals_exactly_those_at_multiples_of_its_lag(seed: int, low: int, extra: int, bos: int | None) -> None:
    prompts = repeated_random_tokens(**options(seed, min_lag=low, max_lag=low + extra, bos=bos))
    assert prompts.tokens.shape == (6, 40)
    assert bool(((prompts.lags >= low) & (prompts.lags <= low + extra)).all())
    start = 0 if bos is None else 1
    if bos is not None:
        assert bool((prompts.tokens[:, 0] == bos).all())
    for row, lag in zip(prompts.tokens[:, start:], prompts.lags.tolist(), strict=True):
        place = torch.arange(len(row))
        same_token = row[:, None] == row[None, :]
        same_phase = (place[:, None] - place[None, :]) % lag == 0
        assert torch.equal(same_token, same_phase)
        assert set(row.tolist()) <= set(IDS.tolist())


def test_the_lag_varies_from_prompt_to_prompt() -> None:
    assert len(repeated_random_tokens(**options(n_prompts=50)).lags.unique()) >= 8


def test_the_twin_has_the_shape_and_lags_but_no_repeat() -> None:
    repeated, unrepeated = repeated_random_tokens(**options(3)), unrepeated_random_tokens(**options(3))
    assert repeated.tokens.shape == unrepeated.tokens.shape
    assert torch.equal(repeated.lags, unrepeated.lags)
    assert all(len(row.unique()) == len(row) for row in unrepeated.tokens)


def test_the_seed_makes_the_prompts() -> None:
    assert torch.equal(repeated_random_tokens(**options(1)).tokens, repeated_random_tokens(**options(1)).tokens)
    assert not torch.equal(repeated_random_tokens(**options(1)).tokens, repeated_random_tokens(**options(2)).tokens)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_lag": 39}, "repeats nothing within 39"),
        ({"min_lag": 20}, "min_lag <= max_lag"),
        ({"min_lag": 0}, "1 <= min_lag"),
        ({"d_vocab_ids": torch.arange(5)}, "the vocabulary offers 5"),
        ({"n_prompts": 0}, "n_prompts"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        repeated_random_tokens(**options(**changes))


def test_a_small_vocabulary_can_repeat_but_not_fill_a_context_without_repeats() -> None:
    few = torch.arange(25)
    assert repeated_random_tokens(**options(d_vocab_ids=few)).tokens.shape == (6, 40)
    with pytest.raises(ConfigError, match="39 different tokens"):
        unrepeated_random_tokens(**options(d_vocab_ids=few))
