"""Direct logit attribution: parts that sum to the logit on every architecture; the right part on a planted model."""

import pytest
import torch
from architectures import ALL_NAMES, POST_NORM, gain, tiny

from interp.errors import PromptError
from interp.lenses.direct_attribution import attribution_points, direct_logit_attribution, token_ids
from interp.models.adapter import run_with_cache
from interp.models.loading import load_model
from interp.models.residual import norm_of
from interp.models.toys import planted_induction

ANSWERS, WRONGS = torch.tensor([3, 7, 7]), torch.tensor([9, 1, 4])


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(50, (3, 8), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ALL_NAMES)
@pytest.mark.parametrize("target", ["logit", "centred_logit", "logit_difference"])
def test_parts_sum_to_the_models_own_number(name, target, tokens):
    model = tiny(name)
    with torch.no_grad():
        logits = model(tokens)[torch.arange(3), torch.tensor([7, 2, 5])].double()
    if name == "gemma-2":  # whose logits are capped at 10
        logits = 10 * (logits / 10).atanh()
    expected = logits[torch.arange(3), ANSWERS]
    if target == "logit_difference":
        expected = expected - logits[torch.arange(3), WRONGS]
    elif target == "centred_logit":
        expected = expected - logits.mean(-1)
    wrong = WRONGS if target == "logit_difference" else None
    found = direct_logit_attribution(
        model, tokens, ANSWERS, wrong, position=torch.tensor([-1, 2, 5]), centre=target == "centred_logit"
    )
    torch.testing.assert_close(found.values.sum(0), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.total, expected, rtol=1e-6, atol=1e-4 if name == "gemma-2" else 1e-6)
    assert found.settings["target"] == target


@pytest.mark.parametrize("name", ALL_NAMES)
def test_values_of_an_earlier_pass_give_the_same_attribution(name, tokens):
    model = tiny(name)
    points = attribution_points(model)
    assert (points == []) == (name == "gemma-2")  # whose logits are capped
    if points:
        again = direct_logit_attribution(
            model, tokens, 3, 9, position=4, earlier=run_with_cache(model, tokens, points)[1]
        )
        found = direct_logit_attribution(model, tokens, 3, 9, position=4)
        torch.testing.assert_close(again.values, found.values)
        torch.testing.assert_close(again.total, found.total, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_shares_equal_parts_pushed_through_the_norm_one_by_one(name, tokens):
    model = tiny(name)
    found = direct_logit_attribution(model, tokens, 3, 9)
    points = ["blocks.1.hook_resid_post", "blocks.1.attn.hook_z", "blocks.0.hook_mlp_out"]
    _, cache = run_with_cache(model, tokens, points)
    x = cache[points[0]][:, -1]
    with torch.no_grad():
        direction = model.W_U[:, 3] - model.W_U[:, 9]
        has_norm = hasattr(model.ln_final.original_component, "weight")
        gain_final = gain(name, model.ln_final.original_component) if has_norm else torch.ones(32)
        centred = name in ("native-ln", "gpt2", "neox")
        moved = x - x.mean(-1, keepdim=True) if centred else x
        eps = 1e-6 if name in ("llama-gqa", *POST_NORM) else 1e-5
        scale = (moved.pow(2).mean(-1, keepdim=True) + eps).sqrt() if has_norm else 1.0

        def push(part):
            part = part - part.mean(-1, keepdim=True) if centred else part
            return ((part / scale * gain_final) @ direction).double()

        head = cache[points[1]][:, -1, 2] @ model.blocks[1].attn.W_O[2]
        if name in POST_NORM:
            together = (cache[points[1]][:, -1, :, None] @ model.blocks[1].attn.W_O)[:, :, 0].sum(1)
            root = (together.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
            head = head / root * gain(name, model.blocks[1].ln1_post.original_component)
        torch.testing.assert_close(found["L1H2"], push(head), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found["L0MLP"], push(cache[points[2]][:, -1]), rtol=1e-3, atol=1e-4)


def test_layers_accumulate_to_the_total_and_batches_do_not_matter(tokens):
    model = tiny("gpt2")
    found = direct_logit_attribution(model, tokens, ANSWERS)
    assert found.by_layer()[-1]["accumulated"] == pytest.approx(float(found.total.mean()), rel=1e-4)
    again = direct_logit_attribution(model, tokens, ANSWERS, batch_size=1)
    torch.testing.assert_close(again.values, found.values, rtol=1e-4, atol=1e-5)
    assert found.heads.shape == (2, 4, 3)
    assert found.mlps.shape == (2, 3)


def test_the_planted_induction_head_writes_the_whole_logit():
    model = planted_induction()
    block = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([block, block])[None, :24]
    found = direct_logit_attribution(model, tokens, int(tokens[0, 8]), centre=False)
    best = found.top(1)[0]
    assert best["part"] == "L1H0"
    assert best["share"] == pytest.approx(1.0, abs=1e-4)
    assert float(found["L0H0"].abs()) < 1e-4


def test_rms_norms_on_centred_inputs_are_not_taken_for_layer_norms():
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(2))
    x = 100 * (x - x.mean(-1, keepdim=True))
    assert not norm_of(tiny("llama-gqa"), "ln_final", 32).centred
    assert norm_of(tiny("neox"), "ln_final", 32).centred


def test_what_cannot_be_attributed_is_refused(tokens):
    model = tiny("gpt2")
    with pytest.raises(PromptError, match="below 50"):
        direct_logit_attribution(model, tokens, 50)
    with pytest.raises(PromptError, match="one for each of 3"):
        direct_logit_attribution(model, tokens, [1, 2])
    with pytest.raises(PromptError, match="8 tokens"):
        direct_logit_attribution(model, tokens, 1, position=8)


def test_an_answer_of_several_tokens_is_refused():
    model = load_model("small:mlp-1l")  # bytes as tokens
    assert token_ids(model, "a", 2).tolist() == [ord("a")] * 2
    with pytest.raises(PromptError, match="2 tokens"):
        token_ids(model, "ab", 2)
