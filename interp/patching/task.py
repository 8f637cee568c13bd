"""A task: clean prompts that show a behaviour, corrupted prompts that do not, and a metric that separates the two.

    task = Task.of(model, clean, corrupt, LogitDiff(correct, wrong), name="indirect object")
    task.gap        # mean metric on the clean prompts minus on the corrupted ones

Clean and corrupted prompts of a pair have the same length, so that positions correspond. Prompts of different length
are padded on the right: a causal model never attends there, so nothing changes. The metric is read at each prompt's own
last token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from interp.errors import ConfigError, NoGapError
from interp.models.adapter import run_with_hooks
from interp.models.hooked import HookedModel
from interp.models.passes import read_hook
from interp.patching.metrics import Metric
from interp.patching.patching_map import Origin, TaskSettings

Prompts = Tensor | Sequence[Sequence[int]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Prompt pairs, positions read, the metric, and its values on both sides for one model."""

    name: str
    clean: Int64[Tensor, "n pos"]
    """`[n, pos]` int64, padded on the right"""
    corrupt: Int64[Tensor, "n pos"]
    """corrupted prompts, the same shape"""
    lengths: Int[Tensor, " n"]
    """`[n]` number of tokens of each prompt before padding"""
    at: Int[Tensor, "n n_read"]
    """`[n, n_read]` positions whose logits the metric reads"""
    metric: Metric
    clean_value: Float[Tensor, " n"]
    """`[n]` metric on the clean prompts"""
    corrupt_value: Float[Tensor, " n"]
    """`[n]` metric on the corrupted prompts"""
    origin: Origin = field(default_factory=dict)
    """what made the prompts: generator, seed, ..."""

    @classmethod
    def of(
        cls,
        model: HookedModel,
        clean: Prompts,
        corrupt: Prompts,
        metric: Metric,
        *,
        name: str = "task",
        at: Int[Tensor, "n n_read"] | None = None,
        batch_size: int = 32,
        check_gap: bool = True,
        origin: Origin | None = None,
    ) -> "Task":
        """Make a task and measure the model on clean and corrupted prompts.

        `at [n, n_read]` are the positions to read, by default the last token of each prompt. Raises `ConfigError` when
        a pair differs in length, a token or an answer is not in the vocabulary, or the prompts exceed the context. Also
        raises it when the metric does not separate clean from corrupted prompts (a gap within two standard errors of
        zero).
        """
        clean, lengths = _padded(clean, "clean")
        corrupt, corrupt_lengths = _padded(corrupt, "corrupt")
        _check_pairs(lengths, corrupt_lengths)
        _check_tokens(model, clean, corrupt)
        if getattr(model.cfg, "attention_dir", "causal") != "causal" and len(set(lengths.tolist())) > 1:
            raise ConfigError(
                "attention of this model is not causal, so padding changes it; give prompts of one length"
            )
        at = lengths[:, None] - 1 if at is None else at.cpu()
        if at.shape[0] != len(clean) or bool((at < 0).any() | (at >= lengths[:, None]).any()):
            raise ConfigError(f"at must be [n, n_read] positions within the {len(clean)} prompts")
        metric.check(len(clean), at.shape[1], model.cfg.d_vocab)
        unmeasured = torch.full((len(clean),), torch.nan, dtype=torch.float64)
        task = cls(
            name=name,
            clean=clean,
            corrupt=corrupt,
            lengths=lengths,
            at=at,
            metric=metric,
            clean_value=unmeasured,
            corrupt_value=unmeasured,
            origin=origin or {},
        )
        return task.on(model, batch_size=batch_size, check_gap=check_gap)

    def on(self, model: HookedModel, *, batch_size: int = 32, check_gap: bool = False) -> "Task":
        """Return the same prompts measured on another model; distances then refer to its clean logits."""
        clean = torch.cat([read_logits(model, *part) for part in self._parts(self.clean, batch_size)])
        metric = self.metric.bind(clean)
        rows = torch.arange(len(self.clean)).split(batch_size)
        corrupt_value = [
            metric.take(r)(read_logits(model, *part))
            for r, part in zip(rows, self._parts(self.corrupt, batch_size), strict=True)
        ]
        task = replace(
            self,
            metric=metric,
            clean_value=metric(clean).cpu().double(),
            corrupt_value=torch.cat(corrupt_value).cpu().double(),
        )
        if check_gap:
            task.check_gap()
        return task

    def measured_by(
        self, model: HookedModel, metric: Metric, *, batch_size: int = 32, check_gap: bool = True
    ) -> "Task":
        """Return the same prompts with another metric. Raises `ConfigError` when it does not fit or has no gap."""
        metric.check(self.n_prompts, self.at.shape[1], model.cfg.d_vocab)
        return replace(self, metric=metric).on(model, batch_size=batch_size, check_gap=check_gap)

    @property
    def n_prompts(self) -> int:
        return len(self.clean)

    @property
    def gap(self) -> float:
        """Mean metric on clean minus on corrupted prompts, in the metric's unit."""
        return float((self.clean_value - self.corrupt_value).mean())

    @property
    def gap_error(self) -> float:
        """Standard error of the gap over prompts; 0 for a single prompt."""
        if self.n_prompts < 2:
            return 0.0
        return float((self.clean_value - self.corrupt_value).std() / self.n_prompts**0.5)

    def check_gap(self) -> None:
        """Raise `NoGapError` when the metric does not separate clean from corrupted prompts."""
        smallest = max(2 * self.gap_error, 1e-6 * float(self.clean_value.abs().mean()), 1e-9)
        if not self.gap > smallest:
            raise NoGapError(
                f"the metric ({self.metric.name}) is {float(self.clean_value.mean()):.4g} on the clean prompts and "
                f"{float(self.corrupt_value.mean()):.4g} on the corrupted ones, no gap beyond chance (standard error "
                f"{self.gap_error:.2g}): the model does not do this task, or the corruption leaves the answer; choose "
                "other prompts or another metric"
            )

    def take(self, rows: Tensor | Sequence[int]) -> "Task":
        """Return the task of some prompts, in that order."""
        rows = rows if isinstance(rows, Tensor) else torch.tensor(list(rows), dtype=torch.long)
        tensors = ("clean", "corrupt", "lengths", "at", "clean_value", "corrupt_value")
        return replace(self, metric=self.metric.take(rows), **{name: getattr(self, name)[rows] for name in tensors})

    def split(self, n: int) -> "tuple[Task, Task]":
        """Split into the first `n` prompts and held-out prompts: all others whose clean prompt is not among the first.

        Raises `ConfigError` when a side is empty.
        """
        first, rest = self.take(range(min(n, self.n_prompts))), self.take(range(n, self.n_prompts))
        rest = rest.other_than(first)
        if n < 1 or not rest.n_prompts:
            raise ConfigError(
                f"{self.n_prompts} prompts cannot be split into {n} and others that differ from them; give more prompts"
            )
        return first, rest

    def other_than(self, *others: "Task") -> "Task":
        """Return the prompts that are in none of the other tasks; padding does not count."""
        seen = {row for task in others for row in task._unpadded()}
        return self.take([i for i, row in enumerate(self._unpadded()) if row not in seen])

    def _unpadded(self) -> list[tuple[int, ...]]:
        return [tuple(row[:n]) for row, n in zip(self.clean.tolist(), self.lengths.tolist(), strict=True)]

    @property
    def settings(self) -> TaskSettings:
        """Settings that determine the numbers of this task."""
        return TaskSettings(name=self.name, metric=self.metric.name, n_prompts=self.n_prompts, origin=self.origin)

    def _parts(self, tokens: Tensor, batch_size: int) -> list[tuple[Tensor, Tensor]]:
        return list(zip(tokens.split(batch_size), self.at.split(batch_size), strict=True))


def final_point(model: HookedModel) -> str:
    """Return the hook point of the residual stream before the final norm."""
    return "ln_final.hook_in" if hasattr(model, "ln_final") else "unembed.hook_in"


@torch.no_grad()
def read_logits(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], at: Int[Tensor, "batch n_read"]
) -> Float[Tensor, "batch n_read d_vocab"]:
    """Return logits at positions `at` only, `[batch, n_read, d_vocab]`; other logits are not computed."""
    return run_with_hooks(model, tokens.to(model.cfg.device), [read_hook(at)])


def _padded(prompts: Prompts, what: str) -> tuple[Tensor, Tensor]:
    """Return tokens padded with 0 on the right, `[n, pos]`, and the lengths `[n]`."""
    if isinstance(prompts, Tensor):
        if prompts.ndim != 2 or not prompts.numel():
            raise ConfigError(f"{what} prompts must be [n, pos] token ids, got shape {list(prompts.shape)}")
        return prompts.long().cpu(), torch.full((len(prompts),), prompts.shape[1])
    if not prompts or not all(len(row) for row in prompts):
        raise ConfigError(
            f"{what} prompts: expected one or more, none empty, got {[len(row) for row in prompts]} tokens"
        )
    lengths = torch.tensor([len(row) for row in prompts])
    tokens = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
    for row, ids in zip(tokens, prompts, strict=True):
        row[: len(ids)] = torch.as_tensor(ids)
    return tokens, lengths


def _check_pairs(clean: Tensor, corrupt: Tensor) -> None:
    if len(clean) != len(corrupt):
        raise ConfigError(f"{len(clean)} clean prompts and {len(corrupt)} corrupted ones; they come in pairs")
    different = (clean != corrupt).nonzero()[:, 0].tolist()
    if different:
        first = different[0]
        raise ConfigError(
            f"prompt {first}: {int(clean[first])} clean tokens, {int(corrupt[first])} corrupted ones"
            f" ({len(different)} such pairs); positions must match, so reword one of the two"
        )


def _check_tokens(model: HookedModel, clean: Tensor, corrupt: Tensor) -> None:
    cfg = model.cfg
    if clean.shape[1] > cfg.n_ctx:
        raise ConfigError(f"the longest prompt has {clean.shape[1]} tokens, the model's context holds {cfg.n_ctx}")
    for what, tokens in (("clean", clean), ("corrupt", corrupt)):
        if int(tokens.min()) < 0 or int(tokens.max()) >= cfg.d_vocab:
            raise ConfigError(f"{what} prompts hold a token outside the vocabulary of {cfg.d_vocab}")
