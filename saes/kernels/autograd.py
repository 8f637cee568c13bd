"""One training step of a kind that is given by its loss: gradients by autograd, everything else as in `step.py`.

1. the kind (`Learner`) measures a batch: loss, activations, fraction of variance unexplained;
2. gradients of its parameters; sums over ranks that share the tokens;
3. clip, Adam, and the kind's own constraint.

The state is a `RunState`: parameters and buffers by their names in the module. The learner holds nothing else that a
resume would need. Random numbers drawn inside a step follow from the seed and the number of the step.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from interp.errors import ConfigError
from interp.seeds import derive_seed
from saes.kernels.spread import UNSHARED, Spread, SpreadOps
from saes.kernels.state import Ops, RunState
from saes.kernels.step import StepResult


@dataclass(frozen=True, kw_only=True)
class LossInputs:
    """Everything that a loss may use, in training units (rows of mean norm `sqrt(d)`).

    Rows are tokens in random order. A kind that reads neighbouring tokens overrides `Learner.measure`, which is given
    the whole batch: the tokens before each row, of the same document, become two further fields of this class,
    `before [n, window, d_in]` and `before_real [n, window]` (False where the document begins). No signature changes.
    """

    x: Tensor
    """`[n, d_in]`; with several layers `[n, n_layers, d_in]`"""
    target: Tensor
    """`[n, d_out]`: `x` itself for an autoencoder"""
    variance: Tensor
    """`[]`: variance of the target over the recording, summed over coordinates; `[n_layers]` with several layers"""
    dead: Tensor
    """`[d_sae]` bool: latents that have not fired within the dead window"""
    warmth: float
    """Weight of a sparsity penalty as a fraction of its full weight: rises from 0 to 1 at the start of a run."""
    progress: float
    """Steps taken as a fraction of the run, at most 1."""
    ops: Ops
    """Selections of the largest values, over all ranks (`select_batch`)."""

    def fvu(self, recons: Tensor) -> Tensor:
        """Return the fraction of variance unexplained: mean squared error over variance, `[]`."""
        return (recons - self.target).square().sum() / (len(self.x) * self.variance)


class BatchMeasurements(NamedTuple):
    """Measurements of one batch."""

    loss: Tensor
    """`[]`: mean over the tokens of the batch, with its graph"""
    fvu: Tensor
    """`[]`"""
    acts: Tensor
    """`[..., n, d_sae]`, >= 0"""
    threshold: Tensor | None = None
    """`[]`: value that separates active from silent latents, of which the least over ranks is logged"""


class Learner(nn.Module, ABC):
    """A module that learns by the loss that it measures."""

    @abstractmethod
    def measure(self, batch: LossInputs) -> BatchMeasurements:
        """Return the loss of a batch and what is logged of it."""

    def constrain(self) -> None:
        """Project parameters back to their constraints after an update; without gradients."""
        return


@dataclass(frozen=True, kw_only=True)
class AutogradSettings:
    """Settings that are constant over a run."""

    variance: float | Sequence[float]
    """Variance of the target, summed over coordinates; one for each layer."""
    n_steps: int
    dead_window: int = 10_000_000
    clip_norm: float = 1.0
    sparsity_warmup_steps: int = 0
    seed: int = 0


class AutogradStepper:
    """Take steps on a `RunState` by the loss of a learner."""

    def __init__(self, settings: AutogradSettings, learner: Learner, ops: Ops, spread: Spread = UNSHARED):
        self.settings, self.learner, self.spread = settings, learner, spread
        self.ops: Ops = ops if spread.alone else SpreadOps(ops, spread)

    def step(self, state: RunState, x: Tensor, lr: float, target: Tensor | None = None) -> StepResult:
        """Take one step on `x [n, ...]`, changing `state` in place. `target` None: `x` is its own target.

        Each rank that shares a batch passes its rows, the same number on every rank.
        """
        tokens, n = self.spread.tokens, len(x) * self.spread.tokens.world
        bind(self.learner, state)
        parameters = dict(self.learner.named_parameters())
        measures, gradients = self._gradients(state, parameters, self._batch(state, x, target))
        fired = (measures.acts.detach() > 0).sum(-2)
        numbers = torch.stack([measures.loss.detach().double(), measures.fvu.detach().double()]).cpu() / tokens.world
        tokens.add(*gradients.values(), fired, numbers)
        loss, fvu = numbers.tolist()
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients.values()))
        state.step += 1
        adam = state.adam_step(lr, norm, self.settings.clip_norm)
        for name, weight in state.extra.items():
            flat = (t.view(1) if t.ndim == 0 else t for t in (weight, gradients[name], *state.moments[name]))
            weight, gradient, *moments = flat
            self.ops.adam(weight, gradient, (moments[0], moments[1]), adam, False)
        with torch.no_grad():
            self.learner.constrain()
        self._keep(state)
        state.count(fired, n)
        n_dead = int((state.silent >= self.settings.dead_window).sum())
        l0 = float(fired.sum()) / n / fired[..., 0].numel()
        return StepResult(loss, fvu, 0.0, l0, n_dead, loss - fvu, self._threshold(measures.threshold))

    def _batch(self, state: RunState, x: Tensor, target: Tensor | None) -> LossInputs:
        settings = self.settings
        return LossInputs(
            x=x,
            target=x if target is None else target,
            variance=torch.as_tensor(settings.variance, dtype=x.dtype, device=x.device),
            dead=state.silent >= settings.dead_window,
            warmth=min(1.0, (state.step + 1) / (settings.sparsity_warmup_steps + 1)),
            progress=(state.step + 1) / settings.n_steps,
            ops=self.ops,
        )

    def _gradients(
        self, state: RunState, parameters: dict[str, nn.Parameter], batch: LossInputs
    ) -> tuple[BatchMeasurements, dict[str, Tensor]]:
        """Return the measurements and the gradients of this rank's share of the mean over all tokens."""
        devices = [batch.x.device] if batch.x.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.enable_grad():
            torch.manual_seed(derive_seed(self.settings.seed, "step", state.step, self.spread.tokens.rank))
            measures = self.learner.measure(batch)
            self._check(measures)
            grads = torch.autograd.grad(
                measures.loss / self.spread.tokens.world, list(parameters.values()), materialize_grads=True
            )
        return measures, dict(zip(parameters, (g.contiguous() for g in grads), strict=True))

    def _check(self, measures: BatchMeasurements) -> None:
        """Raise `ConfigError` for a loss or activations that cannot be trained with."""
        name = type(self.learner).__name__
        if measures.loss.ndim or not measures.loss.requires_grad:
            raise ConfigError(
                f"the loss of {name} must be one number that depends on its parameters, got shape "
                f"{tuple(measures.loss.shape)}; return a mean over tokens, computed without torch.no_grad"
            )
        if bool((measures.acts < 0).any()):
            raise ConfigError(f"{name} gave negative activations; `encode` must return values >= 0, 0 where silent")

    def _keep(self, state: RunState) -> None:
        """Take over what the learner now has, should it have replaced a tensor; buffers are averaged over ranks."""
        state.extra = {name: p.detach().contiguous() for name, p in self.learner.named_parameters()}
        state.buffers = {name: b.detach().contiguous() for name, b in self.learner.named_buffers()}
        shared = [b for b in state.buffers.values() if b.is_floating_point()]
        if not self.spread.alone and shared:
            self.spread.tokens.add(*shared)
            for buffer in shared:
                buffer /= self.spread.tokens.world

    def _threshold(self, level: Tensor | None) -> float | None:
        if level is None:
            return None
        least = self.spread.tokens.least(float(level))
        return least if math.isfinite(least) else 0.0


def bind(learner: nn.Module, state: RunState) -> None:
    """Let a module's parameters and buffers be the tensors of a state."""
    for name, parameter in learner.named_parameters():
        parameter.data = state.extra[name]
    for name, buffer in learner.named_buffers():
        buffer.data = state.buffers[name]
