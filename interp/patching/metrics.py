"""Metrics of a task: one number per prompt from its logits; larger is better.

    metric = LogitDiff(correct=[5, 9], wrong=[7, 2])      # one token id per prompt
    metric(logits)                                        # [batch, n_read, d_vocab] -> [batch]
    metric.take(rows)(logits_of_those_rows)

`n_read` is the number of positions that a task reads per prompt: one where the answer is one token, many in
sequences. A metric is the mean over them. Answers may be sets of tokens (all years above a year).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ConfigError, UnknownNameError


@dataclass(frozen=True)
class Metric(ABC):
    """`metric(logits [batch, n_read, d_vocab]) -> [batch]`, larger is better."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in settings, with its unit."""

    @abstractmethod
    def __call__(self, logits: Float[Tensor, "batch n_read d_vocab"]) -> Float[Tensor, " batch"]: ...

    @abstractmethod
    def take(self, rows: Int[Tensor, " n_taken"]) -> Self:
        """Return the metric of some prompts, in that order."""

    def bind(self, clean_logits: Float[Tensor, "n n_read d_vocab"]) -> Self:
        """Return the metric with the clean logits `[n, n_read, d_vocab]` as reference; most metrics need none."""
        return self

    def check(self, n: int, n_read: int, d_vocab: int) -> None:  # noqa: B027 (most metrics fit any task)
        """Raise `ConfigError` when it does not fit a task of `n` prompts."""

    @property
    def flat_at_clean(self) -> bool:
        """True where the gradient is zero on the clean prompts, as for a distance from them."""
        return False

    def per_prompt(self) -> list[dict[str, list[int]]]:
        """Return the answers of each prompt as plain values, for `prompts.json`; empty without answers."""
        return []


@dataclass(frozen=True, eq=False)
class _Answers(Metric):
    """Metric with token answers, `[n, n_read, k]` int64 padded with -1."""

    correct: Any
    wrong: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "correct", _token_sets(self.correct, "correct"))
        if self.wrong is not None:
            object.__setattr__(self, "wrong", _token_sets(self.wrong, "wrong"))

    def take(self, rows: Int[Tensor, " n_taken"]) -> Self:
        return replace(self, correct=self.correct[rows], wrong=None if self.wrong is None else self.wrong[rows])

    def check(self, n: int, n_read: int, d_vocab: int) -> None:
        for what, tokens in (("correct", self.correct), ("wrong", self.wrong)):
            if tokens is None:
                continue
            if tokens.shape[0] != n or tokens.shape[1] not in (1, n_read):
                raise ConfigError(
                    f"{what} answers are for {tokens.shape[0]} prompts at {tokens.shape[1]} positions, the task has "
                    f"{n} prompts read at {n_read}; give one answer per prompt (or per position read)"
                )
            if int(tokens.max()) >= d_vocab:
                raise ConfigError(f"{what} answers are token ids below {d_vocab}, got {int(tokens.max())}")

    def per_prompt(self) -> list[dict[str, list[int]]]:
        rows = []
        for row in range(len(self.correct)):
            entry = {"correct": _plain(self.correct[row])}
            if self.wrong is not None:
                entry["wrong"] = _plain(self.wrong[row])
            rows.append(entry)
        return rows


class LogitDiff(_Answers):
    """Mean logit of the correct tokens minus mean logit of the wrong ones, in logits; 0 is no preference.

    Without `wrong`, minus the mean over the vocabulary. Used by Wang et al. (2022) for the indirect object.
    """

    @property
    def name(self) -> str:
        return "logit difference" if self.wrong is not None else "logit above the mean"

    def __call__(self, logits: Float[Tensor, "batch n_read d_vocab"]) -> Float[Tensor, " batch"]:
        against = logits.mean(-1) if self.wrong is None else _mean_over(logits, self.wrong)
        return (_mean_over(logits, self.correct) - against).mean(1)


class ProbDiff(_Answers):
    """Probability of the correct tokens minus that of the wrong ones, -1 to 1 (Hanna et al. 2023, greater-than)."""

    @property
    def name(self) -> str:
        return "probability difference"

    def __call__(self, logits: Float[Tensor, "batch n_read d_vocab"]) -> Float[Tensor, " batch"]:
        probs = logits.softmax(-1)
        wrong = 0 if self.wrong is None else _sum_over(probs, self.wrong)
        return (_sum_over(probs, self.correct) - wrong).mean(1)


class LogProb(_Answers):
    """Log-probability of the correct tokens (of a set: of any of them), in nats, at most 0."""

    @property
    def name(self) -> str:
        return "log-probability"

    def __call__(self, logits: Float[Tensor, "batch n_read d_vocab"]) -> Float[Tensor, " batch"]:
        log_probs = logits.log_softmax(-1)
        chosen = log_probs.gather(-1, _wide(self.correct, logits).clamp_min(0))
        chosen = chosen.masked_fill(_wide(self.correct, logits) < 0, -torch.inf)
        return chosen.logsumexp(-1).mean(1)


@dataclass(frozen=True, eq=False)
class _Distance(Metric):
    """Negative distance from the clean logits: 0 on the clean prompts, below 0 elsewhere."""

    clean: Float[Tensor, "n n_read d_vocab"] | None = field(default=None, repr=False)
    """`[n, n_read, d_vocab]`, bound by the task"""

    def bind(self, clean_logits: Float[Tensor, "n n_read d_vocab"]) -> Self:
        return replace(self, clean=clean_logits)

    def take(self, rows: Int[Tensor, " n_taken"]) -> Self:
        return self if self.clean is None else replace(self, clean=self.clean[rows])

    @property
    def flat_at_clean(self) -> bool:
        return True

    def _reference(self, logits: Tensor) -> Tensor:
        assert self.clean is not None, "a task binds the clean logits"
        return self.clean.to(logits.device)


class KLToClean(_Distance):
    """Negative Kullback-Leibler divergence from the clean output, in nats; at most 0."""

    @property
    def name(self) -> str:
        return "minus KL to clean (nats)"

    def __call__(self, logits: Float[Tensor, "batch n_read d_vocab"]) -> Float[Tensor, " batch"]:
        log_p, log_q = self._reference(logits).log_softmax(-1), logits.log_softmax(-1)
        return -(log_p.exp() * (log_p - log_q)).sum(-1).mean(1)


class L2ToClean(_Distance):
    """Negative squared distance of the logits from the clean ones, for models whose output is a number."""

    @property
    def name(self) -> str:
        return "minus squared distance to clean"

    def __call__(self, logits: Float[Tensor, "batch n_read d_vocab"]) -> Float[Tensor, " batch"]:
        return -(logits - self._reference(logits)).pow(2).sum(-1).mean(1)


METRICS: dict[str, Callable[..., Metric]] = {
    "logit-diff": LogitDiff,
    "prob-diff": ProbDiff,
    "log-prob": LogProb,
    "kl": KLToClean,
    "l2": L2ToClean,
}


def metric_by_name(name: str, answers: Metric) -> Metric:
    """Return the metric of `METRICS` with this name, with the answers of another metric where it needs them.

    Raises `UnknownNameError`, and `ConfigError` when the other metric has no answers.
    """
    if name not in METRICS:
        raise UnknownNameError("metric", name, METRICS)
    made = METRICS[name]
    if name in ("kl", "l2"):
        return made()
    if not isinstance(answers, _Answers):
        raise ConfigError(f"{name} needs correct answers, and {answers.name} has none; make the task with answers")
    return made(correct=answers.correct, wrong=answers.wrong)


def _token_sets(answers: Tensor | Sequence[int] | Sequence[Sequence[int]], what: str) -> Tensor:
    """Return answers as `[n, n_read, k]` int64 padded with -1.

    They are given as one id per prompt, a list of ids per prompt, or such a tensor.
    """
    if isinstance(answers, Tensor):
        if answers.ndim not in (1, 3):
            raise ConfigError(f"{what} must be [n] or [n, n_read, k] token ids, got shape {list(answers.shape)}")
        return (answers[:, None, None] if answers.ndim == 1 else answers).long().cpu()
    sets = [[entry] if isinstance(entry, int) else [int(token) for token in entry] for entry in answers]
    if not sets or not all(sets):
        raise ConfigError(f"every prompt needs at least one {what} token")
    width = max(map(len, sets))
    return torch.tensor([[tokens + [-1] * (width - len(tokens))] for tokens in sets])


def _wide(tokens: Tensor, logits: Tensor) -> Tensor:
    return tokens.to(logits.device).expand(-1, logits.shape[1], -1)


def _sum_over(values: Tensor, tokens: Tensor) -> Tensor:
    """Return the sum of `values [batch, n_read, d_vocab]` over tokens that are not padding, `[batch, n_read]`."""
    tokens = _wide(tokens, values)
    return values.gather(-1, tokens.clamp_min(0)).masked_fill(tokens < 0, 0).sum(-1)


def _mean_over(values: Tensor, tokens: Tensor) -> Tensor:
    return _sum_over(values, tokens) / (_wide(tokens, values) >= 0).sum(-1)


def _plain(tokens: Tensor) -> list[int]:
    return [int(token) for token in tokens.flatten() if token >= 0]
