"""The logit lens: its last layer is the model itself."""

import pytest
import torch
from architectures import ALL_NAMES, tiny

from interp.errors import PromptError
from interp.lenses.logit_lens import follow_token, logit_lens
from interp.models.adapter import final_norm_and_unembed, run_with_cache, to_tokens
from interp.models.loading import load_model


@pytest.fixture(scope="module")
def model():
    return load_model("small:mlp-2l", seed=1)


@pytest.fixture(scope="module")
def tokens(model):
    return to_tokens(model, "a <b>bold</b> claim")


def test_every_layer_is_its_residual_through_the_final_norm(model, tokens):
    lens = logit_lens(model, tokens)
    assert lens.layers == ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
    for layer, name in enumerate(lens.layers):
        _, cache = run_with_cache(model, tokens, [name])
        with torch.no_grad():
            p = final_norm_and_unembed(model, cache[name])[0].softmax(-1)
        torch.testing.assert_close(lens.probabilities[layer], p.topk(5).values, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(lens.entropy[layer], -(p * p.log()).sum(-1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_the_last_layer_is_the_model_with_any_norm(name):
    tokens = torch.randint(50, (1, 7), generator=torch.Generator().manual_seed(0))
    lens = logit_lens(tiny(name), tokens, top=50)
    with torch.no_grad():
        log_p = tiny(name)(tokens)[0].log_softmax(-1)
    torch.testing.assert_close(lens.probabilities[-1], log_p.exp().gather(1, lens.token_ids[-1]), rtol=1e-4, atol=1e-5)
    assert float(lens.kl[-1].abs().max()) < 1e-5
    assert float(lens.kl[0].mean()) > 1e-3


def test_kl_is_the_divergence_of_the_reading_from_the_output(model, tokens):
    lens = logit_lens(model, tokens)
    with torch.no_grad():
        target = model(tokens)[0].log_softmax(-1)
        for layer, name in enumerate(lens.layers):
            _, cache = run_with_cache(model, tokens, [name])
            reading = final_norm_and_unembed(model, cache[name])[0].log_softmax(-1)
            expected = torch.nn.functional.kl_div(reading, target, log_target=True, reduction="none").sum(-1)
            torch.testing.assert_close(lens.kl[layer], expected, rtol=1e-3, atol=1e-5)


def test_a_token_is_followed_by_rank_and_probability(model, tokens):
    lens = logit_lens(model, tokens, top=model.cfg.d_vocab)
    followed = follow_token(model, tokens, ord("b"))
    assert followed.layers == lens.layers
    places = (lens.token_ids == ord("b")).int().argmax(-1)
    assert torch.equal(followed.rank, places)
    expected = lens.probabilities.gather(-1, places[..., None])[..., 0]
    torch.testing.assert_close(followed.probability, expected)
    with pytest.raises(PromptError, match="token id below"):
        follow_token(model, tokens, model.cfg.d_vocab)


def test_records_are_plain_and_keep_hostile_text(model, tokens):
    lens = logit_lens(model, tokens, top=2)
    records = lens.to_records()
    assert len(records) == 3 * tokens.shape[1]
    assert [r["token"] for r in records[: tokens.shape[1]]] == list(lens.tokens)
    assert "<" in lens.tokens
    last = records[-1]
    assert last["layer"] == 2
    assert last["position"] == tokens.shape[1] - 1
    assert [entry["token_id"] for entry in last["top"]] == lens.token_ids[-1, -1].tolist()
    assert last["top"][0]["token"] == lens.top_tokens[-1][-1][0]


def test_prompts_that_do_not_fit_are_refused(model):
    for bad in (torch.zeros(1, 0).long(), torch.zeros(2, 3).long(), torch.zeros(3).long()):
        with pytest.raises(PromptError):
            logit_lens(model, bad)
    with pytest.raises(PromptError, match="shorten"):
        logit_lens(model, torch.zeros(1, model.cfg.n_ctx + 1).long())


@pytest.mark.real
def test_smollm2_arrives_at_paris_late():
    model = load_model("smollm2-135m")
    lens = logit_lens(model, to_tokens(model, "The capital of France is"))
    assert lens.top_tokens[-1][-1][0] == " Paris"
    assert lens.top_tokens[0][-1][0] != " Paris"
    assert lens.probabilities[-1, -1, 0] > 0.5
