"""One message, answered by a model unsteered, steered, and steered at random: a reply for each, token by token.

    replies = [Reply(model, messages, hooks, 80) for hooks in (unsteered, steered)]
    for tokens in zip_longest(*replies):
        ...
    replies[1].finished().shift

A finished reply is read once more with and once without its interventions, which gives the shift of every token: its
log-probability in the steered model, less that in the unsteered one after the same text.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from interp.interventions.apply import Hooks
from interp.interventions.conversation import ChatReply, MovedToken
from interp.models.adapter import run_with_hooks, token_strings
from interp.models.generation import (
    NEXT_USER,
    Message,
    NextToken,
    Offset,
    chat_tokens,
    check_room,
    end_tokens,
    generate,
    has_template,
)
from interp.models.hooked import HookedModel

Watch = tuple[str, Callable[[Tensor], Tensor]]
"""A hook point, and what scores its activations `[n, d]`: a monitor."""


class Reply(Iterator[str]):
    """The reply of one chat, a token at a time."""

    def __init__(
        self,
        model: HookedModel,
        messages: Sequence[Message],
        hooks: Callable[[Offset | None], Hooks],
        n_new: int,
        choose: Callable[[Tensor], Tensor] | None = None,
    ):
        """Set up the reply to the last of some messages; `hooks(offset)` are its interventions.

        Raises `PromptError` where it does not fit the context, `ConfigError` for a model that cannot chat.
        """
        self._model, self._hooks = model, hooks
        self._read: Int64[Tensor, "1 pos"] = chat_tokens(model, messages).to(model.cfg.device)
        self._ends = end_tokens(model)
        check_room(model, self._read, n_new)
        offset = Offset()
        step = NextToken(model, hooks(offset), offset=offset)
        self._written = generate(step, self._read, n_new, choose)
        self._ids: list[int] = []
        self._ended = False

    def __next__(self) -> str:
        if self._ended:
            raise StopIteration
        token = int(next(self._written))
        if token in self._ends:
            self._ended = True
            raise StopIteration
        self._ids.append(token)
        self._ended = not has_template(self._model) and NEXT_USER in self._text()
        return token_strings(self._model, [token])[0]

    def _text(self) -> str:
        return self._model.tokenizer.decode(self._ids, skip_special_tokens=True)

    def finished(self, watch: Watch | None = None) -> ChatReply:
        """Return what was said so far, its shifts, and the scores of a monitor, which reads the model as it ran.

        Without a chat template a reply ends where the next line of the user begins.
        """
        text, tokens = self._text(), token_strings(self._model, self._ids)
        if not has_template(self._model) and NEXT_USER in text:
            text = text.partition(NEXT_USER)[0]
            while tokens and len("".join(tokens)) > len(text):
                tokens = tokens[:-1]
        ids, seen = self._ids[: len(tokens)], list[Tensor]()
        look = [] if watch is None else [(watch[0], lambda value, hook: seen.append(value[0, -len(ids) :].flatten(1)))]
        shifts, scores = [0.0] * len(ids), list[float]()
        hooks = self._hooks(None)
        if ids and (hooks or watch):
            as_run = self._log_p(ids, [*hooks, *look])
            shifts = (as_run - self._log_p(ids, [])).tolist() if hooks else shifts
            scores = watch[1](seen[0]).tolist() if watch else scores
        return ChatReply(
            text=text,
            tokens=tuple(map(MovedToken, tokens, shifts)),
            cut=not self._ended,
            shift=sum(map(abs, shifts)) / max(1, len(shifts)),
            scores=tuple(scores),
        )

    def _log_p(self, ids: list[int], hooks: Hooks) -> Float[Tensor, " n"]:
        """Return the log-probability of every token of the reply, in one pass over the whole text."""
        new = torch.tensor([ids], device=self._read.device)
        before_new = ("unembed.hook_in", lambda value, hook: value[:, -len(ids) - 1 : -1])
        logits = run_with_hooks(self._model, torch.cat([self._read, new], 1), [*hooks, before_new])
        return logits[0].float().log_softmax(-1).gather(1, new[0, :, None].to(logits.device))[:, 0]
