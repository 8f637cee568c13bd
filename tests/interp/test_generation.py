"""Text of a chat model: the likeliest continuation, with a cache or without; a model that cannot chat is refused."""

import pytest
import torch

from interp.errors import ConfigError
from interp.models.generation import NextToken, chat_tokens, generate

pytestmark = pytest.mark.real


def test_the_reply_is_the_likeliest_continuation_token_by_token(smollm2):
    prompt = tokens = chat_tokens(smollm2, "What is the capital of France? Answer in one word.")
    reply = torch.cat(list(generate(NextToken(smollm2), prompt, 6))).tolist()
    with torch.no_grad():
        for _ in reply:
            tokens = torch.cat([tokens, smollm2(tokens)[:, -1:].argmax(-1)], 1)
    assert tokens[0, prompt.shape[1] :].tolist() == reply
    assert "Paris" in smollm2.tokenizer.decode(reply, skip_special_tokens=True)


def test_a_model_that_cannot_chat_says_so(tiny_model):
    with pytest.raises(ConfigError, match="cannot hold a chat; choose a Hugging Face model"):
        chat_tokens(tiny_model, "hello")
