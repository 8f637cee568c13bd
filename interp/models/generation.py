"""A chat with a model of ours: one user message in, its reply out."""

from typing import TYPE_CHECKING, NamedTuple

from interp.errors import ConfigError, PromptError

if TYPE_CHECKING:
    from torch import Tensor
    from transformer_lens.model_bridge import TransformerBridge


class Completion(NamedTuple):
    """A reply, and how many tokens went in and came out."""

    text: str
    tokens_in: int
    tokens_out: int
    cut: bool
    """it ran into the limit"""


def chat_tokens(model: "TransformerBridge", content: str) -> "Tensor":
    """`[1, pos]` int64: one user message in the model's chat template, ready for its answer.

    A tokenizer without a template gets the text as it is. Raises `ConfigError` for a model that cannot generate text.
    """
    if model.tokenizer is None or not hasattr(model.original_model, "generate"):
        raise ConfigError(
            f"{model.cfg.model_name} cannot hold a chat; choose a Hugging Face model such as smollm2-135m"
        )
    if not model.tokenizer.chat_template:
        return model.tokenizer(content, return_tensors="pt")["input_ids"]
    message = [{"role": "user", "content": content}]
    return model.tokenizer.apply_chat_template(
        message, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]


def complete_chat(
    model: "TransformerBridge", content: str, *, max_tokens: int, temperature: float = 0.0, seed: int = 0
) -> Completion:
    """The model's reply to one message: its likeliest continuation, or one drawn by `seed` at a temperature above 0.

    Raises `PromptError` when message and reply do not fit its context.
    """
    import torch

    tokens = chat_tokens(model, content).to(model.cfg.device)
    n = tokens.shape[1]
    if n + max_tokens > model.cfg.n_ctx:
        raise PromptError(
            f"a message of {n} tokens and a reply of up to {max_tokens} do not fit the {model.cfg.n_ctx} tokens of "
            f"{model.cfg.model_name}; send fewer or shorter contexts in one request"
        )
    settings = {"do_sample": temperature > 0, **({"temperature": temperature} if temperature > 0 else {})}
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        out = model.original_model.generate(  # pyright: ignore[reportCallIssue]
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=max_tokens, **settings
        )
    reply = out[0, n:]
    ended = model.tokenizer.eos_token_id in reply.tolist()
    return Completion(
        model.tokenizer.decode(reply, skip_special_tokens=True), n, len(reply), not ended and len(reply) == max_tokens
    )
