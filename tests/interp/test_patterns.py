"""Definitions of the kinds on random tokens: planted patterns, invariants, and a slow second implementation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_scores import slow_score

from interp.circuits.head_kinds import score_pattern, target_masks, target_weights, uniform_scores

BOS = 0
KINDS = tuple(target_masks(torch.tensor([[BOS, 1]]), BOS))


def random_causal(batch: int, n_heads: int, n: int, seed: int) -> torch.Tensor:
    scores = torch.randn(batch, n_heads, n, n, generator=torch.Generator().manual_seed(seed)) * 3
    return scores.masked_fill(~torch.ones(n, n).tril().bool(), -torch.inf).softmax(-1)


def scores_of(tokens: torch.Tensor, pattern: torch.Tensor, bos: int | None) -> torch.Tensor:
    return score_pattern(pattern, target_weights(target_masks(tokens, bos)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_that_attends_to_its_targets_alone_scores_one(kind: str):
    block = torch.randperm(40)[:7] + 1
    tokens = torch.cat([torch.tensor([BOS]), block, block, block])[None]
    masks = target_masks(tokens, BOS)
    mask = masks[kind][0].float()
    pattern = torch.where(mask.sum(1, keepdim=True) > 0, mask / mask.sum(1, keepdim=True).clamp(min=1), 0)
    pattern[mask.sum(1) == 0, 0] = 1  # queries without a target rest on BOS
    scores = dict(zip(KINDS, scores_of(tokens, pattern[None, None], BOS)[0, 0].tolist(), strict=True))
    assert scores[kind] == pytest.approx(1)


def test_a_perfect_induction_head_is_none_of_the_other_kinds():
    tokens = torch.tensor([[BOS, 5, 6, 7, 8, 5, 6, 7, 8]])
    pattern = torch.zeros(1, 1, 9, 9)
    pattern[..., :5, 0] = 1
    for q in range(5, 9):
        pattern[..., q, q - 3] = 1  # the token after the earlier copy, which lies 4 back
    scores = dict(zip(KINDS, scores_of(tokens, pattern, BOS)[0, 0].tolist(), strict=True))
    assert scores["induction"] == 1
    assert scores["previous_token"] == scores["duplicate_token"] == scores["current_token"] == 0
    assert scores["first_token"] == pytest.approx(4 / 8)


def test_attention_to_bos_is_no_match():
    tokens = torch.tensor([[BOS, 5, BOS, 5, 6]])
    masks = target_masks(tokens, BOS)
    for kind in ("previous_token", "duplicate_token", "induction"):
        assert not masks[kind][0, 2].any(), f"{kind}: BOS as a query"
    assert not masks["duplicate_token"][0, :, 2].any()
    assert not masks["previous_token"][0, 3].any(), "the token after BOS has no previous token"
    assert not masks["induction"][0, :, 1].any(), "what follows BOS follows no token"
    assert masks["induction"][0, 3, 2], "BOS itself may be what followed a token"


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 5), min_size=2, max_size=14),
    bos=st.sampled_from([BOS, None]),
    seed=st.integers(0, 1000),
)
def test_scores_equal_the_definition_spelled_out_in_loops(tokens: list[int], bos: int | None, seed: int):
    pattern = random_causal(1, 2, len(tokens), seed)
    ours = scores_of(torch.tensor([tokens]), pattern, bos)[0]
    for head in range(2):
        for i, kind in enumerate(KINDS):
            expected = slow_score(kind, tokens, pattern[0, head].tolist(), bos)
            if expected is None:
                assert ours[head, i].isnan(), kind
            else:
                assert ours[head, i].item() == pytest.approx(expected, abs=1e-5), kind


@settings(max_examples=40, deadline=None)
@given(tokens=st.lists(st.integers(0, 4), min_size=2, max_size=12), bos=st.sampled_from([BOS, None]))
def test_targets_never_lie_in_the_future(tokens: list[int], bos: int | None):
    for kind, mask in target_masks(torch.tensor([tokens]), bos).items():
        assert not mask[0].triu(1).any(), kind


@settings(max_examples=40, deadline=None)
@given(tokens=st.lists(st.integers(0, 4), min_size=2, max_size=12), seed=st.integers(0, 100))
def test_scores_lie_between_zero_and_one(tokens: list[int], seed: int):
    scores = scores_of(torch.tensor([tokens]), random_causal(1, 3, len(tokens), seed), BOS)
    finite = scores[scores.isfinite()]
    assert ((finite >= 0) & (finite <= 1 + 1e-5)).all()


def test_the_even_head_has_its_closed_form():
    n = 12
    tokens = torch.arange(1, n + 1)[None]  # no BOS, no repeats
    scores = dict(zip(KINDS, uniform_scores(target_weights(target_masks(tokens, None)), n)[0].tolist(), strict=True))
    expected = sum(1 / (q + 1) for q in range(1, n)) / (n - 1)
    for kind in ("previous_token", "first_token", "current_token"):
        assert scores[kind] == pytest.approx(expected)


def test_prompts_of_one_batch_do_not_mix():
    tokens = torch.randint(0, 6, (4, 10), generator=torch.Generator().manual_seed(0))
    pattern = random_causal(4, 3, 10, 1)
    together = scores_of(tokens, pattern, BOS)
    alone = torch.cat([scores_of(tokens[i : i + 1], pattern[i : i + 1], BOS) for i in range(4)])
    torch.testing.assert_close(together, alone, equal_nan=True)
