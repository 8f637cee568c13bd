"""Questions to a model while it is steered: log-odds of words, of replies, and the loss on neutral text.

All rows of a question run in one batch, padded at their end; logits are computed only where they are read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from interp.directions.examples import ContrastPairs
from interp.directions.sides import encode_sides, padded
from interp.errors import ConfigError, PromptError
from interp.geometry.words import encode
from interp.interventions.arms import PASS_LOGITS, PASS_TOKENS, Arms, prefix_of, read_arms
from interp.models.adapter import bos_token_id
from interp.models.hooked import HookedModel

REPLY_READ = 16
"""Tokens of a reply whose log-probability counts."""


@dataclass(frozen=True)
class Questions:
    """Texts, the positions whose logits are read, and what is read there."""

    tokens: Int[Tensor, "rows pos"]
    at: Int[Tensor, "rows k"]
    """positions whose logits are read"""
    ids: Int[Tensor, "rows k"]
    """token that follows at each; unused with `words`"""
    counts: Bool[Tensor, "rows k"]
    """False for padding"""
    words: tuple[int, ...] = ()
    """tokens whose log-odds together are the answer; empty: the mean log-probability of `ids`"""
    two_sided: bool = False
    """The second half of the rows are the other sides; the answer is the difference."""
    question: str = ""
    """the question, in words"""
    measured_in: str = "nats"
    prompts: tuple[str, ...] = ()
    """a prompt of each question, for samples"""

    def __len__(self) -> int:
        return len(self.tokens) // (1 + self.two_sided)

    @property
    def n_tokens(self) -> int:
        """Tokens of the passes of one arm."""
        return self.tokens.numel()

    def half(self, odd: int) -> "Questions":
        """Return the even-numbered questions (0) or the odd-numbered ones (1)."""
        rows = torch.arange(len(self.tokens)) % len(self) % 2 == odd
        return replace(self.rows(rows), prompts=self.prompts[odd::2])

    @torch.no_grad()
    def effects(
        self, model: HookedModel, arms: Arms, done: Callable[[int], None] | None = None
    ) -> Float64[np.ndarray, "arms n"]:
        """Return the change of every answer in every arm from the unchanged model, which is an arm of its own.

        `done` is called with the tokens of each pass.
        """
        rows = max(1, min(PASS_TOKENS // self.tokens.shape[1], PASS_LOGITS // (self.at.shape[1] * model.cfg.d_vocab)))
        changes = []
        for start in range(0, len(self.tokens), rows):
            part = self.rows(slice(start, start + rows))
            prefix, _ = prefix_of(model, part.tokens.to(model.cfg.device), arms)
            values = read_arms(model, prefix, arms, part.read, at=part.at, done=done)
            changes.append(values[1:] - values[:1])
        return self.answers(torch.cat(changes, 1)).numpy()

    def rows(self, at: slice | Tensor) -> "Questions":
        """Return some rows."""
        return replace(self, tokens=self.tokens[at], at=self.at[at], ids=self.ids[at], counts=self.counts[at])

    def read(self, logits: Float[Tensor, "arms rows k vocab"]) -> Float[Tensor, "arms rows"]:
        """Return the answer of every row, on the CPU: some devices have no double precision."""
        logits = logits.cpu()
        if self.words:
            inside = logits[:, :, 0].double().log_softmax(-1)[..., list(self.words)].logsumexp(-1)
            return inside - torch.log(-torch.expm1(inside.clamp(max=-1e-12)))
        ids, counts = self.ids.to(logits.device), self.counts.to(logits.device)
        taken = logits.gather(-1, ids[None, ..., None].expand(len(logits), -1, -1, 1))[..., 0]
        log_p = (taken - logits.logsumexp(-1)).double()
        return (log_p * counts).sum(-1) / counts.sum(-1)

    def answers(self, rows: Float[Tensor, "arms rows"]) -> Float[Tensor, "arms n"]:
        """Return the answer of every question from those of its rows."""
        return rows[:, : len(self)] - rows[:, len(self) :] if self.two_sided else rows


def word_questions(model: HookedModel, prompts: Sequence[str], words: Sequence[int], named: Sequence[str]) -> Questions:
    """Ask for the log-odds of tokens, together, as the next token after each prompt; `named` are their texts."""
    if not words:
        raise ConfigError("steering needs target tokens to measure its effect: name some words as targets")
    rows = encode(model, prompts)
    at = torch.tensor([[len(row) - 1] for row in rows])
    listed = ", ".join(repr(word) for word in named[:4]) + (" ..." if len(named) > 4 else "")
    question = f"log-odds of {listed} as the next token"
    return Questions(
        torch.tensor(padded(rows)), at, torch.zeros_like(at), torch.ones_like(at, dtype=torch.bool), tuple(words),
        False, question, "nats", tuple(prompts),
    )  # fmt: skip


def reply_questions(model: HookedModel, examples: ContrastPairs) -> Questions:
    """Ask for the log-probability per token of the reply of one side minus that of the other."""
    encoded = [encode_sides(model, pair, examples) for pair in examples.pairs]
    rows = [(pair[side], start) for side in (0, 1) for *pair, start in encoded]
    what = "texts" if examples.kind == "texts" else "replies"
    question = f"log-probability of the {what} of one side minus those of the other"
    return _texts(rows, two_sided=True, question=question, prompts=prompts_of(examples))


def prompts_of(examples: ContrastPairs) -> tuple[str, ...]:
    """Return a prompt of each example, to be continued: of a text its first six words."""
    if examples.kind == "texts":
        return tuple(" ".join(pair.away.split()[:6]) for pair in examples.pairs)
    return tuple(pair.prompt or pair.away for pair in examples.pairs)


def neutral_text(model: HookedModel, texts: Sequence[str]) -> Questions:
    """Ask for the log-probability per token of texts that have nothing to do with the direction."""
    rows, first = encode(model, texts), int(bos_token_id(model) is not None)
    if min(map(len, rows)) < first + 2:
        raise PromptError("expected documents of two tokens or more, one has fewer: give longer text")
    return _texts([(row, max(first, 1)) for row in rows], question="neutral text", all_tokens=True)


def _texts(
    rows: Sequence[tuple[list[int], int]],
    *,
    question: str,
    two_sided: bool = False,
    prompts: tuple[str, ...] = (),
    all_tokens: bool = False,
) -> Questions:
    """Read the log-probability of each row's tokens from a position on."""
    starts = [max(start, 1) for _, start in rows]
    most = max(len(ids) for ids, _ in rows) if all_tokens else REPLY_READ
    ends = [min(len(ids), start + most) for (ids, _), start in zip(rows, starts, strict=True)]
    k = max(end - start for start, end in zip(starts, ends, strict=True))
    at, following, counts = (torch.zeros(len(rows), k, dtype=torch.long) for _ in range(3))
    for i, ((ids, _), start, end) in enumerate(zip(rows, starts, ends, strict=True)):
        n = end - start
        at[i, :n] = torch.arange(start - 1, end - 1)
        following[i, :n] = torch.tensor(ids[start:end])
        counts[i, :n] = 1
    tokens = torch.tensor(padded([ids for ids, _ in rows]))
    return Questions(tokens, at, following, counts.bool(), (), two_sided, question, "nats a token", prompts)
