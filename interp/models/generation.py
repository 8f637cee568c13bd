"""Text that a model writes: the one loop that generates tokens, prompts with or without a chat template, and chat.

`NextToken` gives the logits, `generate` writes with them, and the caller stops whenever it likes:

    step = NextToken(model)
    for token in generate(step, tokens, 30):            # [rows], as it is written
        ...

A pass without the hook points that nobody uses, for text that is written one token at a time.

TransformerLens wraps every block, norm and linear map in a module of its own. Over a single token these wrappers take
about a third of the time. `without_idle` runs the modules of transformers themselves, but where a hook looks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from interp.errors import ConfigError, PromptError
from interp.models.adapter import hook_points_by_name, key_value_cache, run_with_hooks, to_tokens
from interp.models.hooked import Hook, HookedModel, PassOptions
from interp.models.identity import model_spec
from interp.names import canonical_hook_point

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint


class Wrapper(NamedTuple):
    """A wrapped module of a model."""

    parent: nn.Module
    name: str
    """name among the children of `parent`"""
    inner: nn.Module
    """the module of transformers"""
    wrapper: nn.Module
    points: "list[HookPoint]"
    """hook points of the wrapper itself"""


def wrappers_of(model: HookedModel) -> list[Wrapper]:
    """Return the wrappers that a pass may do without: none in a model of TransformerLens' own.

    Attention stays wrapped where the wrapper has weights of its own, as that of GPT-2, which splits them.
    """
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge.generalized_components import AttentionBridge, PositionEmbeddingsAttentionBridge
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

    wrappers: list[Wrapper] = []

    def search(parent: nn.Module) -> None:
        for name, child in parent.named_children():
            inner: nn.Module | None = child
            if isinstance(child, GeneralizedComponent):
                if isinstance(child, AttentionBridge) and type(child) is not PositionEmbeddingsAttentionBridge:
                    continue
                inner = child.original_component
                points = [point for point in child.children() if isinstance(point, HookPoint)]
                if inner is not None:
                    wrappers.append(Wrapper(parent, name, inner, child, points))
            if inner is not None:
                search(inner)

    if hasattr(model.original_model, "config"):
        search(model.original_model)
    return wrappers


@contextmanager
def without_idle(model: HookedModel, wrappers: Sequence[Wrapper], hook_points: Iterable[str]) -> Iterator[None]:
    """Run the modules of transformers within the block, but for wrappers that have hooks, or will at `hook_points`.

    No other pass of the model may run meanwhile.
    """
    known = hook_points_by_name(model) if wrappers else {}
    hooked = {id(known.get(canonical_hook_point(name))) for name in hook_points}
    idle = [
        wrapper
        for wrapper in wrappers
        if not any(id(point) in hooked or point.fwd_hooks or point.bwd_hooks for point in wrapper.points)
    ]
    for wrapper in idle:
        wrapper.parent._modules[wrapper.name] = wrapper.inner
    try:
        yield
    finally:
        for wrapper in idle:
            wrapper.parent._modules[wrapper.name] = wrapper.wrapper


@dataclass
class Offset:
    """Tokens before those of the present pass, whose keys and values are cached.

    With a cache, each pass sees the newest token alone. Hooks that share an `Offset` with a `NextToken` still know the
    position of that token in the whole text, so that the BOS stays unchanged.
    """

    tokens: int = 0

    def positions(self, n: int) -> Tensor:
        """Return the positions in the text of the `n` tokens of a pass, `[1, n]`."""
        return torch.arange(n)[None] + self.tokens


class NextToken:
    """Logits of the next token, from passes with hooks. Keys and values of earlier tokens are cached where they can be.

    With a cache a pass sees the new tokens only. Hooks that depend on the position count from `offset`, which is kept
    up to date; hooks given without one run on the whole text each time. Models of transformers have a cache, those of
    TransformerLens' own do not.
    """

    def __init__(self, model: HookedModel, hooks: Sequence[tuple[str, Hook]] = (), *, offset: Offset | None = None):
        self.model, self.hooks, self.offset = model, [*hooks, ("unembed.hook_in", _last)], offset or Offset()
        self._names = [name for name, _ in self.hooks]
        self._cache = key_value_cache(model) if offset is not None or not hooks else None
        self.options: PassOptions = {} if self._cache is None else {"past_key_values": self._cache, "use_cache": True}
        self._wrappers = [] if self._cache is None else wrappers_of(model)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return the logits `[rows, d_vocab]` float32 after `tokens [rows, pos]`, the text of the last call longer."""
        new = tokens if self._cache is None else tokens[:, self.offset.tokens :]
        with torch.no_grad(), without_idle(self.model, self._wrappers, self._names):
            logits = run_with_hooks(self.model, new, self.hooks, **self.options)[:, -1].float()
        if self._cache is not None:
            self.offset.tokens = tokens.shape[1]
        return logits

    def select(self, rows: Tensor) -> None:
        """Go on with some rows of the batch, `[n]` int64: a row may be taken several times."""
        if self._cache is not None:
            self._cache.batch_select_indices(rows)


def _last(value: Tensor, hook: object) -> Tensor:
    return value[:, -1:]


def generate(
    step: Callable[[Tensor], Tensor],
    tokens: Tensor,
    n_new: int,
    choose: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Tensor]:
    """Yield the tokens that are written after a text, one position at a time.

    Args:
        step: gives the logits of the next token after a text; `NextToken` is one.
        tokens: the texts to continue, `[rows, pos]`.
        n_new: the number of tokens to write.
        choose: picks a token from logits (default: the most likely; `sampled` draws).
    Returns: an iterator over at most `n_new` tensors of tokens, `[rows]` each.

    >>> written = [*generate(NextToken(model), tokens, 4)]
    >>> len(written), written[0].shape
    (4, torch.Size([1]))
    """
    for _ in range(n_new):
        logits = step(tokens)
        chosen = logits.argmax(-1) if choose is None else choose(logits)
        tokens = torch.cat([tokens, chosen[:, None].to(tokens)], 1)
        yield tokens[:, -1]


def sampled(temperature: float, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Return a `choose` that samples at a temperature; the most likely token at 0.

    All rows share the Gumbel noise of `generator` by which a token is drawn, so that equal distributions give equal
    tokens. Raises `ConfigError` for a temperature below 0.
    """
    if temperature < 0:
        raise ConfigError(f"temperature must be at least 0, got {temperature}")

    def choose(logits: Tensor) -> Tensor:
        if not temperature:
            return logits.argmax(-1)
        noise = torch.empty(logits.shape[1]).exponential_(generator=generator).log_()
        return (logits.cpu() / temperature - noise).argmax(-1)

    return choose


def check_room(model: HookedModel, tokens: Tensor, n_new: int) -> None:
    """Raise `PromptError` where `tokens [rows, pos]` and `n_new` more do not fit the context."""
    if tokens.shape[1] + n_new > model.cfg.n_ctx:
        raise PromptError(
            f"the prompt has {tokens.shape[1]} tokens, which with {n_new} new ones exceed the model's context of "
            f"{model.cfg.n_ctx}; shorten the prompt, or ask for fewer"
        )


Message = Mapping[str, str]
"""`{"role": "system", "user" or "assistant", "content": text}`"""
NEXT_USER = "\nUser:"
"""End of a reply in a model without a chat template."""


def has_template(model: HookedModel) -> bool:
    """Return whether a model has a chat template. Raises `ConfigError` for one that cannot generate text."""
    if model.tokenizer is None or not hasattr(model.original_model, "generate"):
        raise ConfigError(f"{model_spec(model)} cannot hold a chat; choose a Hugging Face model such as smollm2-135m")
    return bool(model.tokenizer.chat_template)


def chat_tokens(model: HookedModel, content: str | Sequence[Message]) -> Tensor:
    """Return one user message, or a conversation, in the model's chat template, `[1, pos]` int64, up to the answer.

    Without a chat template a text is used unchanged, and a conversation has lines that begin with `User:` and
    `Assistant:`, after the system prompt. Raises `ConfigError` for a model that cannot generate text.
    """
    if not has_template(model):
        text = content if isinstance(content, str) else _as_lines(content)
        return model.tokenizer(text, return_tensors="pt")["input_ids"]
    messages = [{"role": "user", "content": content}] if isinstance(content, str) else [dict(turn) for turn in content]
    fill = partial(model.tokenizer.apply_chat_template, add_generation_prompt=True, tokenize=False)
    try:
        text = fill(messages)
    except Exception as error:  # a template raises errors of jinja2, which is no dependency of ours
        if messages[0]["role"] != "system" or len(messages) < 2:
            raise ConfigError(f"the chat template of {model_spec(model)} refuses these messages: {error}") from None
        first, second, *rest = messages  # templates such as Gemma's know no system prompt
        joined = {"role": "user", "content": f"{first['content']}\n\n{second['content']}"}
        text = fill([joined, *rest])
    return model.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]


def _as_lines(messages: Sequence[Message]) -> str:
    names = {"system": "", "user": "User: ", "assistant": "Assistant: "}
    return "\n".join(names[message["role"]] + message["content"].strip() for message in messages) + "\nAssistant:"


def end_tokens(model: HookedModel) -> set[int]:
    """Return the tokens that end a reply: those of the tokenizer and of the model's own settings."""
    eos = getattr(getattr(model.original_model, "generation_config", None), "eos_token_id", None)
    ids = eos if isinstance(eos, list) else [eos]
    return {token for token in (*ids, model.tokenizer.eos_token_id) if token is not None}


def prompt_tokens(model: HookedModel, text: str, *, chat: bool = False) -> Tensor:
    """Return the tokens of a prompt, `[1, pos]` int64: the text, or with `chat` the model's chat template around it.

    Raises `PromptError` for an empty prompt, one that is too long, or a model without a chat template.
    """
    if not chat:
        return to_tokens(model, text)
    if not getattr(model.tokenizer, "chat_template", None):
        raise PromptError(f"{model_spec(model)} has no chat template; leave the template off, or choose a chat model")
    tokens = chat_tokens(model, text).to(model.cfg.device)
    if tokens.shape[1] > model.cfg.n_ctx:
        raise PromptError(f"the prompt has {tokens.shape[1]} tokens, the context holds {model.cfg.n_ctx}; shorten it")
    return tokens
