"""Chats of one model beside each other, steered and not, in one batch and token by token.

    for said in side_by_side(model, [Chat(tokens), Chat(tokens, steps)], 80):
        said[1].token, said[1].shift

A steered chat has a second row in the batch, which reads the same text unsteered: so every token has its shift, the
log-probability in the steered model less that in the unsteered one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from interp.errors import PromptError
from interp.interventions.apply import hooks_of
from interp.interventions.conversation import Conversation, MovedToken, Reply
from interp.interventions.edits import at_mask
from interp.interventions.intervention import Intervention
from interp.models.adapter import token_strings
from interp.models.generation import (
    NEXT_USER,
    NextToken,
    Offset,
    chat_tokens,
    end_tokens,
    generate,
    has_template,
    sampled,
)
from interp.models.hooked import HookedModel
from interp.models.identity import model_spec, weight_hash
from interp.runtime import make_generator


@dataclass(frozen=True, eq=False)
class Chat:
    """A text to go on with, and what is changed in the model meanwhile."""

    tokens: Int64[Tensor, "1 pos"]
    steps: Sequence[Intervention] = ()


class Said(NamedTuple):
    """One more token of a chat."""

    token: int
    shift: float
    """nats: its log-probability with the interventions, less that without; 0 in a chat without any"""


def side_by_side(
    model: HookedModel, chats: Sequence[Chat], n_new: int, choose: Callable[[Tensor], Tensor] | None = None
) -> Iterator[list[Said]]:
    """Yield the next token of every chat, up to `n_new` times.

    Rows that are still alike are read once. `choose` picks tokens `[chats]` from logits `[chats, d_vocab]` (default:
    the most likely). Raises `ConfigError` for texts of different lengths in a model without a cache, and as `hooks_of`.
    """
    rows = [(at, on) for at, chat in enumerate(chats) for on in ([True, False] if chat.steps else [False])]
    texts = [tuple(chats[at].tokens[0].tolist()) for at, _ in rows]
    alike = [(text, at if on else -1) for text, (at, on) in zip(texts, rows, strict=True)]
    read = list(dict.fromkeys(alike))
    whole = torch.tensor([read.index(each) for each in alike])
    leader = torch.tensor([[at for at, _ in rows].index(at) for at in range(len(chats))])
    chat_of = torch.tensor([at for at, _ in rows])

    width = max(map(len, texts))
    valid = torch.tensor([[False] * (width - len(text)) + [True] * len(text) for text, _ in read])
    tokens = torch.tensor([[0] * (width - len(text)) + list(text) for text, _ in read])
    device = model.cfg.device
    offset = Offset(valid=None if valid.all() else valid.to(device))
    steered = torch.tensor([at for _, at in read])

    def rows_of(at: int) -> Callable[[Tensor], Tensor]:
        return lambda value: (steered == at)[:, None]

    hooks = [
        (name, at_mask(hook, rows_of(at)))
        for at, chat in enumerate(chats)
        for name, hook in hooks_of(model, chat.steps, offset=offset)
    ]
    step = NextToken(model, hooks, offset=offset)
    taken: list[Tensor] = []

    def pick(logits: Tensor) -> Tensor:
        ids = (logits[leader].argmax(-1) if choose is None else choose(logits[leader])).to(logits.device)
        ids = ids[chat_of]
        taken.append(logits.log_softmax(-1).gather(1, ids[:, None])[:, 0])
        return ids

    first = [step(tokens.to(device))[whole]]
    step.select(whole.to(device))
    steered = steered[whole]
    for ids in generate(lambda given: first.pop() if first else step(given), tokens[whole].to(device), n_new, pick):
        log_p, chosen = taken.pop().tolist(), ids.tolist()
        yield [
            Said(chosen[row], log_p[row] - log_p[row + 1] if chats[at].steps else 0.0)
            for at, row in enumerate(leader.tolist())
        ]


def reply_to(model: HookedModel, talk: Conversation, message: str) -> "Replies":
    """Return the replies to a message, which are written as they are asked for.

    Raises `PromptError` for an empty message or a full context, `MismatchError` for other weights, `ConfigError` for a
    model that cannot chat.
    """
    if not message.strip():
        raise PromptError("the message is empty; type one")
    talk.recipe.check(weight_hash(model), {})
    names, n_layers = talk.chats, model.cfg.n_layers
    chats = [Chat(chat_tokens(model, talk.messages(name, message)), talk.steps(name, n_layers)) for name in names]
    longest = max(chat.tokens.shape[1] for chat in chats)
    if longest + talk.n_new > model.cfg.n_ctx:
        raise PromptError(
            f"the conversation has {longest} tokens, which with {talk.n_new} new ones exceed the context of "
            f"{model.cfg.n_ctx} tokens of {model_spec(model)}; begin a new conversation, or ask for shorter replies"
        )
    generator = make_generator(talk.seed + len(talk.turns), "chat")
    choose = sampled(talk.temperature, generator, coupled=True)
    return Replies(model, names, side_by_side(model, chats, talk.n_new, choose))


class Replies(Iterator[list[MovedToken | None]]):
    """The replies of all chats, a token of each at a time; None for a chat that has ended."""

    def __init__(self, model: HookedModel, names: Sequence[str], said: Iterator[list[Said]]):
        self.names, self.template = names, has_template(model)
        self._model, self._said, self._ends = model, said, end_tokens(model)
        self._ids: list[list[int]] = [[] for _ in names]
        self._tokens: list[list[MovedToken]] = [[] for _ in names]
        self._ended = [False] * len(names)

    def __next__(self) -> list[MovedToken | None]:
        if all(self._ended):
            raise StopIteration
        return [self._take(at, each) for at, each in enumerate(next(self._said))]

    def _take(self, at: int, said: Said) -> MovedToken | None:
        if self._ended[at] or said.token in self._ends:
            self._ended[at] = True
            return None
        self._ids[at].append(said.token)
        token = MovedToken(token_strings(self._model, [said.token])[0], said.shift)
        self._tokens[at].append(token)
        self._ended[at] = not self.template and NEXT_USER in self._text(at)
        return token

    def _text(self, at: int) -> str:
        return self._model.tokenizer.decode(self._ids[at], skip_special_tokens=True)

    def finished(self) -> dict[str, Reply]:
        """Return what was said so far; without a template a reply ends where the next line of the user begins."""
        return {name: self._reply(at) for at, name in enumerate(self.names)}

    def _reply(self, at: int) -> Reply:
        text, tokens = self._text(at), self._tokens[at]
        if not self.template and NEXT_USER in text:
            text = text.partition(NEXT_USER)[0]
            while tokens and len("".join(each.text for each in tokens)) > len(text):
                tokens = tokens[:-1]
        return Reply(text=text, tokens=tuple(tokens), cut=not self._ended[at])
