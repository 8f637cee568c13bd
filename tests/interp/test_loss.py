"""Loss per token: the model's own loss, and what it says about context."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from interp.errors import ConfigError, PromptError
from interp.models.loading import load_model
from interp.models.passes import loss_per_token, repeat_losses
from interp.models.toys import planted_induction
from interp.seeds import make_generator
from interp.text.tokens import repeated_random_tokens


def test_losses_are_the_cross_entropy_of_the_next_token_in_any_batch():
    model = load_model("small:mlp-2l", seed=0)
    tokens = torch.randint(256, (5, 12), generator=torch.Generator().manual_seed(0))
    losses = loss_per_token(model, tokens, batch_size=2)
    with torch.no_grad():
        expected = cross_entropy(model(tokens)[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)


def test_the_planted_model_knows_nothing_of_the_first_block_and_all_of_the_second():
    model, lags = planted_induction(d_vocab=16), torch.tensor([6, 8, 10])
    blocks = [torch.randperm(15, generator=torch.Generator().manual_seed(n))[:n] for n in lags.tolist()]
    bos = torch.tensor([15])
    tokens = torch.stack([torch.cat([bos, block.repeat(4)[:20]]) for block in blocks])
    first, second = repeat_losses(loss_per_token(model, tokens), lags, start=1)
    by_hand = loss_per_token(model, tokens)
    for row, lag in enumerate(lags.tolist()):
        assert first[row] == pytest.approx(float(by_hand[row, :lag].mean()))
        assert second[row] == pytest.approx(float(by_hand[row, lag:].mean()))
        assert float(by_hand[row, lag + 1 :].max()) < 1e-3  # from the second token of the repeat on
    assert (first > math.log(16)).all()


def test_an_untrained_model_learns_nothing_in_context():
    model = load_model("small:attn-only-2l", seed=0)
    prompts = repeated_random_tokens(
        n_prompts=512, context_length=40, d_vocab_ids=torch.arange(256), min_lag=8, max_lag=16, bos=None,
        generator=make_generator(0, "prompts"),
    )  # fmt: skip
    losses = loss_per_token(model, prompts.tokens)
    assert abs(float(losses[:, 34].mean() - losses[:, 2].mean())) < 0.2
    first, second = repeat_losses(losses, prompts.lags)
    assert abs(float((second - first).mean())) < 0.1


def test_prompts_without_a_loss_or_a_repeat_are_refused():
    model = load_model("small:attn-only-1l", seed=0)
    with pytest.raises(PromptError, match="at least 2"):
        loss_per_token(model, torch.zeros(3, 1).long())
    with pytest.raises(ConfigError, match="before and after"):
        repeat_losses(torch.zeros(2, 9), 10)
