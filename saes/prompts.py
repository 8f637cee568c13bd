"""Prompts with a metric, as attribution asks for them: with a corrupted counterpart or without.

Prompts.of_task(task)                                             # clean and corrupted pairs
Prompts.of_text(model, "The capital of France is", " Paris")      # one prompt, the log-probability of one token
Prompts.of_loss(model, tokens)                                    # the loss on every token
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from interp.circuits.metrics import LogitDiff, LogProb, Metric
from interp.circuits.task import Task
from interp.errors import PromptError


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompts:
    """Tokens, the positions whose logits a metric reads, and the metric."""

    name: str
    tokens: Tensor
    """`[n, pos]` int64, padded on the right"""
    lengths: Tensor
    """`[n]`"""
    at: Tensor
    """`[n, n_read]`"""
    metric: Metric
    corrupt: Tensor | None = None
    """`[n, pos]`: what each prompt is compared with; None: with its features switched off"""

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of_task(cls, task: Task) -> "Prompts":
        """The pairs of a task."""
        return cls(
            name=task.name,
            tokens=task.clean,
            lengths=task.lengths,
            at=task.at,
            metric=task.metric,
            corrupt=task.corrupt,
        )

    @classmethod
    def of_text(
        cls, model: Any, text: str, target: str, wrong: str | None = None, *, corrupt: str | None = None
    ) -> "Prompts":
        """One prompt, BOS first, and the log-probability of `target` after it (nats), or with `wrong` the difference of
        the two logits. `corrupt` is a prompt to compare with.

        Raises `PromptError` when an answer is not one token, or the two prompts differ in length.
        """
        from interp.models.adapter import to_tokens, token_strings

        tokens = to_tokens(model, text).cpu()
        other = None if corrupt is None else to_tokens(model, corrupt).cpu()
        if other is not None and other.shape != tokens.shape:
            pair = [" ".join(map(repr, token_strings(model, each))) for each in (tokens, other)]
            raise PromptError(
                f"{tokens.shape[1]} tokens and {other.shape[1]} in the corrupted prompt, positions must match: "
                f"{pair[0]} against {pair[1]}; reword one of the two"
            )
        right = _one_token(model, target)
        metric = LogProb([right]) if wrong is None else LogitDiff([right], [_one_token(model, wrong)])
        lengths = torch.tensor([tokens.shape[1]])
        return cls(name=text, tokens=tokens, lengths=lengths, at=lengths[:, None] - 1, metric=metric, corrupt=other)

    @classmethod
    def of_loss(cls, tokens: Tensor) -> "Prompts":
        """`tokens [n, pos]`, and the mean log-probability of each next token: minus the loss, in nats.

        Raises `PromptError` below two tokens.
        """
        if tokens.ndim != 2 or tokens.shape[1] < 2:
            raise PromptError(f"a loss needs tokens [n, pos] with at least 2 positions, got {list(tokens.shape)}")
        n, pos = tokens.shape
        metric = LogProb(tokens[:, 1:, None])
        at = torch.arange(pos - 1).expand(n, -1)
        return cls(name="loss", tokens=tokens, lengths=torch.full((n,), pos), at=at, metric=metric)

    def take(self, rows: Tensor) -> "Prompts":
        """Some of the prompts."""
        return replace(
            self,
            tokens=self.tokens[rows],
            lengths=self.lengths[rows],
            at=self.at[rows],
            metric=self.metric.take(rows),
            corrupt=None if self.corrupt is None else self.corrupt[rows],
        )

    def batches(self, batch_size: int) -> "list[Prompts]":
        """In order."""
        return [self.take(rows) for rows in torch.arange(len(self)).split(batch_size)]

    def kept(self, first: int) -> Tensor:
        """`[n, pos]` bool: neither padding nor among the `first` positions."""
        position = torch.arange(self.tokens.shape[1])[None]
        return (position >= first) & (position < self.lengths[:, None])


def _one_token(model: Any, text: str) -> int:
    from interp.models.adapter import token_strings
    from interp.models.tokenizers import tokenizer_of

    ids = list(tokenizer_of(model).encode_batch([text])[0])
    if len(ids) != 1:
        parts = " ".join(repr(part) for part in token_strings(model, ids))
        raise PromptError(
            f"the answer {text!r} is {len(ids)} tokens ({parts or 'none'}); choose one token, often one with a leading "
            "space"
        )
    return ids[0]
