"""Chats of one model side by side, steered and not, in one batch and token by token.

    for said in Chats(model, [(), steps]).write([tokens, tokens], 80):
        said[1].token, said[1].shift

A steered chat has a second row in the batch, which reads the same text unsteered: so every token has its shift, the
log-probability in the steered model less that in the unsteered one.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from interp.errors import PromptError
from interp.interventions.apply import hooks_of
from interp.interventions.conversation import ChatReply, Conversation, MovedToken
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
from interp.seeds import make_generator

Watch = tuple[str, Callable[[Tensor], Tensor]]
"""A hook point, and what scores its activations `[n, d]`: a monitor of the chats."""


class ChatToken(NamedTuple):
    """One more token of a chat."""

    token: int
    shift: float
    """nats: its log-probability with the interventions, less that without; 0 in a chat without any"""
    score_before: float | None = None
    """score of the token before it by a monitor, which reads a token when the next one is written"""


class Chats:
    """Chats of one model, each with its interventions, that write in one batch.

    Keys and values of earlier text stay in memory, so that only new messages are read.
    """

    def __init__(self, model: HookedModel, steps: Sequence[Sequence[Intervention]], watch: Watch | None = None):
        """Set up chats with the interventions of each, none for an unsteered one; `watch` reads them as they run.

        Raises as `hooks_of`.
        """
        self.model, self._steps = model, steps
        rows = [(at, on) for at, mine in enumerate(steps) for on in ([True, False] if mine else [False])]
        self._chat_of = torch.tensor([at for at, _ in rows])
        self._all = torch.tensor([at if on else -1 for at, on in rows])
        self._steered = self._all
        """row of the present pass -> the chat whose interventions it has, -1 for none"""
        self._leader = torch.tensor([[at for at, _ in rows].index(at) for at in range(len(steps))])
        self._tokens = torch.zeros(len(rows), 0, dtype=torch.long)
        self._step: NextToken | None = None
        self._offset = Offset()
        self._hooks = [
            (name, at_mask(hook, self._rows_of(at)))
            for at, mine in enumerate(steps)
            for name, hook in hooks_of(model, mine, offset=self._offset)
        ]
        self._watch, self._last = watch, torch.zeros(0)
        if watch is not None:
            self._hooks.append((watch[0], self._see))

    def _see(self, value: Tensor, hook: object = None) -> Tensor:
        """Keep the activations of the newest token, after the interventions: `[rows, d]`."""
        self._last = value[:, -1].flatten(1)
        return value

    def _rows_of(self, at: int) -> Callable[[Tensor], Tensor]:
        return lambda value: (self._steered == at)[:, None].to(value.device)

    def write(
        self, texts: Sequence[Int64[Tensor, "1 pos"]], n_new: int, choose: Callable[[Tensor], Tensor] | None = None
    ) -> Iterator[list[ChatToken]]:
        """Yield the next token of every chat after its whole text, up to `n_new` times.

        `choose` picks tokens `[chats]` from logits `[chats, d_vocab]` (default: the most likely). Raises `ConfigError`
        for texts of different lengths in a model without a cache.
        """
        taken: list[Tensor] = []

        def pick(logits: Tensor) -> Tensor:
            leading = logits[self._leader]
            ids = (leading.argmax(-1) if choose is None else choose(leading)).to(logits.device)[self._chat_of]
            taken.append(logits.log_softmax(-1).gather(1, ids[:, None])[:, 0])
            return ids

        rows = [texts[at][0].tolist() for at in self._chat_of.tolist()]
        first = [self._continue(rows) if self._continues(rows, n_new) else self._begin(rows)]

        def step(tokens: Tensor) -> Tensor:
            self._tokens = tokens
            assert self._step is not None
            return first.pop() if first else self._step(tokens)

        for ids in generate(step, self._tokens.to(self.model.cfg.device), n_new, pick):
            log_p, chosen, leaders = taken.pop().tolist(), ids.tolist(), self._leader.tolist()
            before = [None] * len(leaders) if self._watch is None else self._watch[1](self._last[leaders]).tolist()
            yield [
                ChatToken(chosen[row], log_p[row] - log_p[row + 1] if self._steps[at] else 0.0, before[at])
                for at, row in enumerate(leaders)
            ]

    def _begin(self, rows: list[list[int]]) -> Tensor:
        """Return the logits `[rows, d_vocab]` after whole texts. Rows that are still alike are read once."""
        alike = [(tuple(text), at) for text, at in zip(rows, self._all.tolist(), strict=True)]
        read = list(dict.fromkeys(alike))
        whole = torch.tensor([read.index(row) for row in alike])
        tokens, valid = _padded([list(text) for text, _ in read])
        device = self.model.cfg.device
        self._offset.tokens, self._offset.valid = 0, None if valid.all() else valid.to(device)
        self._steered = torch.tensor([at for _, at in read])
        self._step = NextToken(self.model, self._hooks, offset=self._offset)
        logits = self._step(tokens.to(device))
        self._step.select(whole.to(device))
        if self._watch is not None:
            self._last = self._last[whole.to(device)]
        self._steered, self._tokens = self._all, tokens[whole]
        return logits[whole.to(device)]

    def _continues(self, rows: list[list[int]], n_new: int) -> bool:
        """Return whether keys and values in memory can be used: gaps between them would shift a sliding window."""
        config, cached = getattr(self.model.original_model, "config", None), self._offset.tokens
        fits = cached + max(map(len, rows)) + n_new <= self.model.cfg.n_ctx
        return cached > 0 and fits and not getattr(config, "sliding_window", None)

    def _continue(self, rows: list[list[int]]) -> Tensor:
        """Return the logits after texts whose beginning was read; cached text that they do not share is masked."""
        assert self._step is not None
        read, n = self._tokens.cpu(), self._offset.tokens
        was = torch.ones(read.shape, dtype=torch.bool) if self._offset.valid is None else self._offset.valid.cpu()
        valid, rest = torch.zeros(len(rows), n, dtype=torch.bool), list[list[int]]()
        for row, text in enumerate(rows):
            at = was[row, :n].nonzero()[:, 0]
            known = read[row, at].tolist()
            shared = next((i for i, (a, b) in enumerate(zip(known, text[:-1], strict=False)) if a != b), None)
            shared = min(len(known), len(text) - 1) if shared is None else shared
            valid[row, at[:shared]] = True
            rest.append(text[shared:])
        tokens, new = _padded(rest)
        self._offset.valid = torch.cat([valid, new], 1).to(self.model.cfg.device)
        self._tokens = torch.cat([read[:, :n], tokens], 1)
        return self._step(self._tokens.to(self.model.cfg.device))


def _padded(texts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Return texts in rows of one length, padded in front, and where they are, both `[rows, pos]`."""
    width = max(map(len, texts))
    tokens = torch.tensor([[0] * (width - len(text)) + text for text in texts])
    return tokens, torch.tensor([[False] * (width - len(text)) + [True] * len(text) for text in texts])


def reply_to(
    model: HookedModel, talk: Conversation, message: str, kept: Chats | None = None, watch: Watch | None = None
) -> "Replies":
    """Return the replies to a message, which are written as they are asked for; `kept` are the chats of an earlier
    message with the same interventions and the same `watch`, which scores every token.

    Raises `PromptError` for an empty message or a full context, `MismatchError` for other weights, `ConfigError` for a
    model that cannot chat.
    """
    if not message.strip():
        raise PromptError("the message is empty; type one")
    talk.recipe.check(weight_hash(model), {})
    names, n_layers = talk.chats, model.cfg.n_layers
    texts = [chat_tokens(model, talk.messages(name, message)) for name in names]
    longest = max(text.shape[1] for text in texts)
    if longest + talk.n_new > model.cfg.n_ctx:
        raise PromptError(
            f"the conversation has {longest} tokens, which with {talk.n_new} new ones exceed the context of "
            f"{model.cfg.n_ctx} tokens of {model_spec(model)}; begin a new conversation, or ask for shorter replies"
        )
    generator = make_generator(talk.seed + len(talk.turns), "chat")
    choose = sampled(talk.temperature, generator)
    chats = kept or Chats(model, [talk.steps(name, n_layers) for name in names], watch)
    return Replies(chats, names, chats.write(texts, talk.n_new, choose))


class Replies(Iterator[list[MovedToken | None]]):
    """The replies of all chats, a token of each at a time; None for a chat that has ended."""

    def __init__(self, chats: Chats, names: Sequence[str], tokens: Iterator[list[ChatToken]]):
        model = self._model = chats.model
        self.chats, self.names, self.template = chats, names, has_template(model)
        self._said, self._ends = tokens, end_tokens(model)
        self._ids: list[list[int]] = [[] for _ in names]
        self._tokens: list[list[MovedToken]] = [[] for _ in names]
        self._scores: list[list[float]] = [[] for _ in names]
        self.newest: list[float | None] = []
        """by a monitor, of the token before the newest one, in each chat that goes on or has just ended"""
        self._ended = [False] * len(names)

    def __next__(self) -> list[MovedToken | None]:
        if all(self._ended):
            raise StopIteration
        said = next(self._said)
        self.newest = [None for _ in self.names]
        return [self._take(at, token) for at, token in enumerate(said)]

    def _take(self, at: int, written: ChatToken) -> MovedToken | None:
        if self._ended[at]:
            return None
        if self._tokens[at] and written.score_before is not None:
            self.newest[at] = written.score_before
            self._scores[at].append(written.score_before)
        if written.token in self._ends:
            self._ended[at] = True
            return None
        self._ids[at].append(written.token)
        token = MovedToken(token_strings(self._model, [written.token])[0], written.shift)
        self._tokens[at].append(token)
        self._ended[at] = not self.template and NEXT_USER in self._text(at)
        return token

    def _text(self, at: int) -> str:
        return self._model.tokenizer.decode(self._ids[at], skip_special_tokens=True)

    def finished(self) -> dict[str, ChatReply]:
        """Return what was said so far; without a template a reply ends where the next line of the user begins."""
        return {name: self._reply(at) for at, name in enumerate(self.names)}

    def _reply(self, at: int) -> ChatReply:
        text, tokens = self._text(at), self._tokens[at]
        if not self.template and NEXT_USER in text:
            text = text.partition(NEXT_USER)[0]
            while tokens and len("".join(token.text for token in tokens)) > len(text):
                tokens = tokens[:-1]
        scores = tuple(self._scores[at][: len(tokens)])
        return ChatReply(text=text, tokens=tuple(tokens), cut=not self._ended[at], scores=scores)
