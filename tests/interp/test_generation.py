"""A chat with a model: the likeliest continuation, found with a cache or without; what does not fit is refused."""

import pytest
import torch

from interp.errors import ConfigError, PromptError
from interp.models.generation import chat_tokens, complete_chat

pytestmark = pytest.mark.real


def test_the_reply_is_the_likeliest_continuation_token_by_token(smollm2):
    question = "What is the capital of France? Answer in one word."
    found = complete_chat(smollm2, question, max_tokens=6)
    tokens = chat_tokens(smollm2, question)
    assert found.tokens_in == tokens.shape[1]
    with torch.no_grad():
        for _ in range(found.tokens_out):
            following = smollm2(tokens)[0, -1].argmax().reshape(1, 1)
            tokens = torch.cat([tokens, following], 1)
    reply = tokens[0, found.tokens_in :]
    assert smollm2.tokenizer.decode(reply, skip_special_tokens=True) == found.text
    assert "Paris" in found.text
    assert found.cut == (smollm2.tokenizer.eos_token_id not in reply.tolist())


def test_a_drawn_reply_follows_from_its_seed(smollm2):
    before = torch.random.get_rng_state()
    one, again, other = (
        complete_chat(smollm2, "Name a colour.", max_tokens=5, temperature=2.0, seed=seed).text for seed in (1, 1, 2)
    )
    assert one == again != other
    assert torch.equal(torch.random.get_rng_state(), before), "nobody else's numbers move"


def test_what_does_not_fit_the_context_is_refused(smollm2):
    with pytest.raises(PromptError, match=r"do not fit the 8192 tokens.*fewer or shorter contexts"):
        complete_chat(smollm2, "word " * 9000, max_tokens=10)


def test_a_model_that_cannot_chat_says_so(tiny_model):
    with pytest.raises(ConfigError, match="cannot hold a chat; choose a Hugging Face model"):
        complete_chat(tiny_model, "hello", max_tokens=4)
