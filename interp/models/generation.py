"""Prompts as text or in a chat template, and chat with a local model: one user message in, one reply out."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from interp.errors import ConfigError, PromptError
from interp.models.hooked import HookedModel
from interp.models.identity import model_spec

if TYPE_CHECKING:
    from torch import Tensor


class Completion(NamedTuple):
    """A reply, and the numbers of tokens in and out."""

    text: str
    tokens_in: int
    tokens_out: int
    cut: bool
    """the reply was cut at the limit"""


def chat_tokens(model: HookedModel, content: str, start: str = "") -> "Tensor":
    """Return one user message in the model's chat template, `[1, pos]` int64, up to the answer, which begins with
    `start`.

    Without a chat template the text is used unchanged. Raises `ConfigError` for a model that cannot generate text.
    """
    if model.tokenizer is None or not hasattr(model.original_model, "generate"):
        raise ConfigError(f"{model_spec(model)} cannot hold a chat; choose a Hugging Face model such as smollm2-135m")
    if not model.tokenizer.chat_template:
        return model.tokenizer(content + start, return_tensors="pt")["input_ids"]
    message = [{"role": "user", "content": content}]
    text = model.tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    return model.tokenizer(text + start, add_special_tokens=False, return_tensors="pt")["input_ids"]


def prompt_tokens(model: HookedModel, text: str, *, chat: bool = False) -> "Tensor":
    """Return the tokens of a prompt, `[1, pos]` int64: the text, or with `chat` the model's chat template around it.

    Raises `PromptError` for an empty prompt, one that is too long, or a model without a chat template.
    """
    from interp.models.adapter import to_tokens

    if not chat:
        return to_tokens(model, text)
    if not getattr(model.tokenizer, "chat_template", None):
        raise PromptError(f"{model_spec(model)} has no chat template; leave the template off, or choose a chat model")
    tokens = chat_tokens(model, text).to(model.cfg.device)
    if tokens.shape[1] > model.cfg.n_ctx:
        raise PromptError(f"the prompt has {tokens.shape[1]} tokens, the context holds {model.cfg.n_ctx}; shorten it")
    return tokens


def complete_chat(
    model: HookedModel,
    content: str,
    *,
    max_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    start: str = "",
    bits: int = 0,
) -> Completion:
    """Return the model's reply to one message: the most likely one, or a sample drawn by `seed` at a temperature above
    0. The reply is forced to begin with `start`. With `bits`, the rest is constrained to that many zeros and ones,
    separated by commas and closed by a bracket: the model chooses the digits only.

    Raises `PromptError` when message and reply do not fit its context.
    """
    import torch

    tokens = chat_tokens(model, content, start).to(model.cfg.device)
    n, most = tokens.shape[1], 2 * bits or max_tokens
    if n + most > model.cfg.n_ctx:
        raise PromptError(
            f"a message of {n} tokens and a reply of up to {most} do not fit the {model.cfg.n_ctx} tokens of "
            f"{model_spec(model)}; send fewer or shorter contexts in one request"
        )
    settings: dict[str, Any] = {"do_sample": temperature > 0, "max_new_tokens": most}
    if temperature > 0:
        settings["temperature"] = temperature
    if bits:
        settings["prefix_allowed_tokens_fn"] = _only_bits(model.tokenizer, bits, n)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        generate: Any = model.original_model.generate
        reply = generate(tokens, attention_mask=torch.ones_like(tokens), **settings)[0, n:]
    text = model.tokenizer.decode(reply, skip_special_tokens=True)
    ended = bits or model.tokenizer.eos_token_id in reply.tolist()
    return Completion(start + text, n, len(reply), not ended and len(reply) == most)


def _only_bits(tokenizer: Any, bits: int, n: int) -> "Callable[[int, Tensor], list[int]]":
    """Return the constraint on token ids after `n` prompt tokens, so that the answer is a JSON list of 0s and 1s."""
    zero, one, comma, close = (tokenizer(c, add_special_tokens=False)["input_ids"][-1] for c in "01,]")

    def allowed(_: int, tokens: "Tensor") -> list[int]:
        written = len(tokens) - n
        if written % 2 == 0:
            return [zero, one]
        return [close if written == 2 * bits - 1 else comma]

    return allowed
