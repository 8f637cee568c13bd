"""Head scores: planted heads are found, untrained ones are not, SmolLM2 agrees with a slow second reading."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from slow_scores import slow_score

from interp.circuits.config import HeadScoresConfig
from interp.circuits.head_kinds import (
    draw_prompts,
    interval,
    pattern_scores,
    score_heads,
    summarise_scores,
    target_masks,
    target_weights,
    uniform_scores,
    untrained_bounds,
)
from interp.circuits.head_scores import HeadSettings
from interp.errors import ConfigError
from interp.models.adapter import bos_token_id, run_with_cache
from interp.models.loading import load_model

BOS = 0
KINDS = tuple(target_masks(torch.tensor([[BOS, 1]]), BOS))
"""Kinds on random tokens; those on text are in `test_head_texts.py`."""


class PlantedHeads:
    """A stand-in model of one layer whose heads each follow one kind's targets with a given share of attention."""

    def __init__(self, share: float):
        self.share = share
        self.cfg = SimpleNamespace(n_layers=1, n_ctx=64, device="cpu")
        self.original_model = SimpleNamespace()

    def run_with_hooks(self, tokens, fwd_hooks):
        masks = target_masks(tokens, BOS)
        n = tokens.shape[1]
        even = torch.ones(n, n).tril() / torch.arange(1, n + 1)[:, None]
        heads = []
        for mask in masks.values():
            on_target = mask / mask.sum(2, keepdim=True).clamp(min=1)
            share = torch.where(mask.any(2, keepdim=True), self.share, 0.0)
            heads.append(share * on_target + (1 - share) * even)
        for _, hook in fwd_hooks:
            hook(torch.stack(heads, 1), hook=None)


def planted_scores(share: float):
    ids = torch.arange(1, 200)
    model = PlantedHeads(share)
    repeated, unrepeated = draw_prompts(ids, BOS, 12, 41, 8, 20, 0)
    weights = target_weights(target_masks(repeated, BOS))
    scores = pattern_scores(model, repeated, weights, 5)
    null = pattern_scores(model, unrepeated, weights, 5)
    even = uniform_scores(weights, 41)
    untrained = even.T[None, None].repeat(1, 5, 1, 1)
    settings = HeadSettings(
        model="planted", weight_hash="0" * 64, prompts=12, seeds=(0,), lags=(8, 20), context_length=41, bos=BOS
    )
    return summarise_scores(KINDS, scores, null, (even, untrained), settings)


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_planted_heads_are_found_as_their_own_kind(share: float):
    found = planted_scores(share)
    for head, kind in enumerate(KINDS):
        assert share - 1e-5 <= found.score[kind][0, head] <= 1 + 1e-5
        assert found.above_null[kind][0, head]
        assert found.strongest(kind, 1)[0][0].head == head
        others = [h for h in range(len(KINDS)) if h != head]
        assert not found.above_null[kind][0, others].any(), kind


def test_a_planted_share_of_one_scores_one_within_rounding():
    found = planted_scores(1.0)
    for head, kind in enumerate(KINDS):
        assert found.score[kind][0, head] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nothing_is_found_in_an_untrained_model(seed: int):
    model = load_model("small:mlp-2l", seed=seed)
    config = HeadScoresConfig(n_prompts=8, context_length=61, seeds=(seed, seed + 10), min_lag=10, max_lag=30)
    scores = score_heads(model, config)
    for kind in KINDS:
        assert not scores.above_null[kind].any(), f"{kind}: {scores.strongest(kind)}"


def test_scores_do_not_depend_on_the_batch_size():
    model = load_model("small:attn-only-2l")
    repeated, _ = draw_prompts(torch.arange(1, 200), bos_token_id(model), 7, 33, 5, 15, 3)
    weights = target_weights(target_masks(repeated, bos_token_id(model)))
    whole, pieces = (pattern_scores(model, repeated, weights, size) for size in (7, 2))
    torch.testing.assert_close(whole, pieces)


def test_the_same_seed_gives_the_same_scores_and_another_seed_others():
    model = load_model("small:attn-only-2l")
    config = HeadScoresConfig(n_prompts=3, context_length=33, min_lag=5, max_lag=15)
    first, again, other = (score_heads(model, replace(config, seeds=(seed,))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.per_prompt, again.per_prompt)
    assert not np.array_equal(first.per_prompt, other.per_prompt)


def test_intervals_cover_the_true_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    draws = rng.beta(2, 3, size=(2000, 48))
    _, low, high = interval(draws, 0.95)
    covered = ((low <= 0.4) & (high >= 0.4)).mean()
    assert 0.93 <= covered <= 0.97


def test_a_wide_spread_among_untrained_heads_raises_the_bound():
    rng = np.random.default_rng(0)
    narrow = np.full((2, 4, 6), 0.05) + rng.normal(0, 0.001, (2, 4, 1))
    wide = np.full((2, 4, 6), 0.05) + rng.normal(0, 0.05, (2, 4, 1))
    assert untrained_bounds(narrow, 0.05, 8)[1] < 0.07
    assert untrained_bounds(wide, 0.05, 8)[1] > 0.1


@pytest.mark.parametrize(
    "settings",
    [{"n_prompts": 1, "seeds": (0,)}, {"seeds": ()}, {"context_length": 10_000}, {"context_length": 30, "max_lag": 60}],
)
def test_settings_that_cannot_work_are_refused(settings: dict):
    with pytest.raises(ConfigError):
        score_heads(load_model("small:attn-only-2l"), HeadScoresConfig(**settings))


@pytest.mark.real
def test_scores_on_smollm2_equal_a_slow_reading_of_its_patterns():
    model = load_model("smollm2-135m")
    bos = bos_token_id(model)
    repeated, _ = draw_prompts(torch.arange(100, 40_000), bos, 2, 41, 10, 18, 5)
    fast = pattern_scores(model, repeated, target_weights(target_masks(repeated, bos)), 2)
    heads = [(18, 6), (16, 0), (14, 3), (29, 1)]
    _, cache = run_with_cache(model, repeated, [f"blocks.{layer}.attn.hook_pattern" for layer, _ in heads])
    for layer, head in heads:
        for prompt in range(2):
            pattern = cache[f"blocks.{layer}.attn.hook_pattern"][prompt, head].tolist()
            for i, kind in enumerate(KINDS):
                expected = slow_score(kind, repeated[prompt].tolist(), pattern, bos)
                assert fast[layer, head, i, prompt].item() == pytest.approx(expected, abs=1e-4)
    assert fast[18, 6, KINDS.index("induction")].mean() > 0.6


def test_every_kind_of_head_has_a_sentence_about_it():
    from interp.circuits.head_kinds import KINDS
    from interp.names import HEAD_KINDS

    assert set(HEAD_KINDS) == set(KINDS)
