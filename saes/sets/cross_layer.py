"""Train a cross-layer transcoder (Ameisen et al. 2025): latents of each layer write to it and to all later layers.

    loss = mean over layers of FVU + penalty
           + dead_coefficient * mean over tokens, sum over dead latents of relu(threshold - pre) |W|

`|W|` is the norm of a latent's decoder over all layers that it writes to. Two selections:

    jumprelu    a learned threshold for each latent, by straight-through estimators with a rectangular kernel, and the
                penalty sparsity_coefficient * mean sum tanh(tanh_scale * activation * |W|) / (k * n_layers), whose
                weight rises from 0 over the whole run
    batchtopk   the `k * n_layers` pre-activations of a token with the largest `activation * |W|`, on average over the
                batch and over all layers together; afterwards one value of `activation * |W|` is the threshold of all

The encoder starts uniform in `+- 1 / sqrt(d_sae)`, the decoder in `+- 1 / sqrt(n_layers * d_out)`. Products are dense
and gradients those of autograd, the same code on a GPU. The decoder has `n_layers * (n_layers + 1) / 2` blocks of
`d_sae * d_out`: at the size of SmolLM2 (30 layers) 620 million weights for 2,304 latents a layer.

The state is a `TrainState` with an axis more, `[n_layers, d_sae, ...]` (`W_dec [n_blocks, d_sae, d_out]`), so that
checkpoints and exact resume are those of every run.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import ConfigError, NonFiniteError
from interp.runtime import make_generator, pick_device
from saes.kernels.plain import PlainOps
from saes.kernels.spread import UNSHARED, Spread, SpreadOps
from saes.kernels.state import AdamStep, Ops, TrainState, entry_rows
from saes.kernels.step import SKIP, StepResult, choose_ops
from saes.kinds.clt import CrossLayerTranscoder
from saes.kinds.config import CrossLayerConfig
from saes.kinds.jumprelu import THRESHOLD
from saes.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from saes.training.config import TrainConfig, plan
from saes.training.data import Position, Source, TrainingBatch, check_stats, training_batches
from saes.training.run import Metrics, append_line, measure, truncate_log

SAMPLES = 4
"""Batches from which BatchTopK's threshold is estimated at the end."""


class _Jump(torch.autograd.Function):
    """`pre * 1[pre > threshold]`, and the threshold's gradient by a rectangular kernel."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:  # pyright: ignore
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore
        pre, threshold = ctx.saved_tensors
        near = (pre - threshold).abs() < ctx.bandwidth / 2
        return grad * (pre > threshold), -(threshold / ctx.bandwidth) * (near * grad), None


@dataclass(frozen=True)
class Loss:
    """Loss of a batch and its parts; sums over this rank's tokens, divided by the tokens of the whole batch."""

    whole: Tensor
    fvu: float
    penalty: float
    fired: Tensor
    """`[n_layers, d_sae]` tokens on which each latent fired"""
    smallest: float
    """smallest `activation * |W|`; infinity where nothing fired"""


def decoder_norms(W_dec: Tensor, n_layers: int) -> Tensor:
    """Return the norm of every latent's decoder over all layers that it writes to, `[n_layers, d_sae]`."""
    squares = W_dec.square().sum(-1)
    return torch.stack([part.sum(0) for part in squares.split(list(range(n_layers, 0, -1)))]).sqrt()


class CrossLayerRun:
    """One training run, with the methods that `saes.training.train.advance` needs."""

    def __init__(
        self,
        sources: Sequence[Source],
        config: CrossLayerConfig,
        train: TrainConfig,
        folder: Path,
        *,
        device: str | None = None,
        spread: Spread = UNSHARED,
    ):
        """Open or resume the run in `folder`; `sources` are the sites of every layer, in order."""
        self.sources, self.config, self.train, self.folder = sources, config, train, folder
        self.spread, self.ranks, self.n_layers = spread, spread.ranks, len(sources)
        with self.ranks.checked():
            if spread.latents.world > 1:
                raise ConfigError("a cross-layer transcoder cannot share its latents between ranks, only the tokens")
            for source in sources:
                for site in source.sites:
                    check_stats(site.recording, site.hook_point)
            if len({(s.d_in, s.outputs[0].d) for s in sources}) > 1:
                raise ConfigError("all layers of a cross-layer transcoder must have the same widths")
            self.plan = plan(train, d_in=sources[0].d_in, d_sae=config.d_sae)
            self.rows = spread.tokens.share(self.plan.batch_size, "batch_size")
            folder.mkdir(parents=True, exist_ok=True)
            self.device = pick_device(self.ranks.device(device), mps=False)
            saved = read_checkpoint(folder) or self.start()
        self.state, self.position, self.seconds = saved.state.to(self.device), saved.position, saved.seconds
        if self.ranks.first:
            truncate_log(folder, self.state.step)
        own = choose_ops(self.device)
        self._ops: Ops = own if spread.alone else SpreadOps(own, spread)
        self._window: list[tuple[StepResult, float]] = []
        self._scaled = [_Scaled(source, self.device) for source in sources]
        self._diverged = False

    @property
    def done(self) -> bool:
        """True when every step has been taken."""
        return self.state.step >= self.plan.n_steps

    def read(self, _runs: Any, start: Position, *, whole: bool = False) -> Iterator[list[list[TrainingBatch]]]:
        """Yield the batches of this run, alone in a list: one for each layer, this rank's rows of it or all."""
        found = training_batches(
            self.sources,
            batch_size=self.plan.batch_size,
            heldout_fraction=self.train.heldout_fraction,
            seed=self.train.seed,
            start=start,
            part=slice(None) if whole else self.rows,
        )
        return ([batches] for batches in found)

    def start(self) -> Checkpoint:
        """Return the checkpoint before the first step."""
        generator = make_generator(self.train.seed, "cross-layer", "initial weights")
        n, m, d_in, d_out = self.n_layers, self.config.d_sae, self.sources[0].d_in, self.sources[0].outputs[0].d

        def uniform(bound: float, *shape: int) -> Tensor:
            return (2 * torch.rand(*shape, generator=generator) - 1) * bound

        W_enc, W_dec = uniform(m**-0.5, n, m, d_in), uniform((n * d_out) ** -0.5, n * (n + 1) // 2, m, d_out)
        b_dec = torch.stack([(s.mean_out * s.scales.output).float() for s in self.sources])
        silent, density = torch.zeros(n, m, dtype=torch.int64), torch.zeros(n, m)
        state = TrainState(W_enc, torch.zeros(n, m), W_dec, b_dec, silent, density)
        if self.config.selection == "jumprelu":
            state.extra[THRESHOLD] = torch.full((n, m), self.config.threshold)
        if self.config.skip:
            state.extra[SKIP] = torch.zeros(n, d_out, d_in)
        state.zero_moments()
        return Checkpoint(state, Position(), 0.0)

    def step(self, batch: list[TrainingBatch]) -> Metrics | None:
        """Take one step on this rank's rows; metrics when a health line is due."""
        started, state = time.perf_counter(), self.state
        x, y = (
            torch.stack(parts) for parts in zip(*(s(b) for s, b in zip(self._scaled, batch, strict=True)), strict=True)
        )
        weights = {name: w.detach().requires_grad_() for name, w in state.parameters().items()}
        n = x.shape[1] * self.spread.tokens.world
        loss = self.loss(weights, x, y, n, state.silent >= self.plan.dead_window, (state.step + 1) / self.plan.n_steps)
        found = torch.autograd.grad(loss.whole, list(weights.values()))
        grads = dict(zip(weights, (g.contiguous() for g in found), strict=True))
        numbers = torch.tensor([float(loss.whole.detach()), loss.fvu, loss.penalty], dtype=torch.float64)
        fired = loss.fired
        self.spread.tokens.add(*grads.values(), numbers, fired)
        whole, fvu, penalty = numbers.tolist()
        self.position = batch[0].next
        if not math.isfinite(whole):
            self._diverged = True
            raise self.ranks.common(
                NonFiniteError(f"the loss is {whole} at step {state.step}; lower lr (it was {self.plan.lr:.1e})")
            )
        lr = self.plan.lr_at(state.step)
        self._apply(grads, lr)
        weight = max(1 / state.step, 0.02)
        state.silent.add_(n).masked_fill_(fired > 0, 0)
        state.density.mul_(1 - weight).add_(fired.float() / n, alpha=weight)
        smallest = self.spread.tokens.least(loss.smallest)
        dead = int((state.silent >= self.plan.dead_window).sum())
        l0 = float(fired.sum()) / n / self.n_layers
        spent = time.perf_counter() - started
        self.seconds += spent
        self._window.append((StepResult(whole, fvu, 0.0, l0, dead, penalty, self._threshold(smallest)), spent))
        if state.step % self.train.checkpoint_every == 0:
            with self.ranks.checked(patient=True):
                self.checkpoint()
        if state.step % self.train.log_every and not self.done:
            return None
        return self._report(lr)

    def loss(self, w: dict[str, Tensor], x: Tensor, y: Tensor, n: int, dead: Tensor, progress: float) -> Loss:
        """Return the loss of `x`, `y` `[n_layers, rows, d]` in training units, `n` tokens in the whole batch."""
        config, layers = self.config, self.n_layers
        pre = torch.baddbmm(w["b_enc"][:, None], x, w["W_enc"].transpose(1, 2))
        norms = decoder_norms(w["W_dec"], layers)
        acts = self._activate(w, pre, norms.detach())
        recons = decode(acts, w["W_dec"], w["b_dec"])
        if SKIP in w:
            recons = recons + x @ w[SKIP].transpose(1, 2)
        power = torch.tensor([s.variance for s in self.sources], dtype=x.dtype, device=x.device)
        fvu = ((recons - y).square().sum((1, 2)) / (n * power)).mean()
        penalty = fvu.new_zeros(())
        if config.selection == "jumprelu":
            bounded = torch.tanh(config.tanh_scale * acts * norms[:, None])
            penalty = config.sparsity_coefficient * progress * bounded.sum() / (n * config.k * layers)
        if dead.any() and config.dead_coefficient:
            level = w[THRESHOLD][:, None] if THRESHOLD in w else 0.0
            lifted = ((level - pre).relu() * norms[:, None])[dead[:, None].expand_as(pre)]
            penalty = penalty + config.dead_coefficient * lifted.sum() / n
        fires = acts.detach() > 0
        sizes = (acts.detach() * norms.detach()[:, None])[fires]
        least = float(sizes.min()) if len(sizes) else math.inf
        return Loss(fvu + penalty, float(fvu.detach()), float(penalty.detach()), fires.sum(1), least)

    def _activate(self, w: dict[str, Tensor], pre: Tensor, norms: Tensor) -> Tensor:
        """Return activations `[n_layers, rows, d_sae]`."""
        if self.config.selection == "jumprelu":
            at = w[THRESHOLD][:, None].expand_as(pre)
            return _Jump.apply(pre, at, self.config.bandwidth)  # pyright: ignore[reportReturnType]
        flat = (pre.detach() * norms[:, None]).transpose(0, 1).flatten(1).contiguous()
        kept = self._ops.select_batch(flat, self.config.k * self.n_layers * len(flat))
        mask = torch.zeros_like(flat)
        mask[entry_rows(kept), kept.latents] = 1.0
        return pre * mask.unflatten(1, (self.n_layers, -1)).transpose(0, 1)

    def _apply(self, grads: dict[str, Tensor], lr: float) -> None:
        state = self.state
        state.step += 1
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in grads.values()))
        step = AdamStep(
            rate=lr / (1 - AdamStep._field_defaults["beta1"] ** state.step),
            root_scale=1 / math.sqrt(1 - AdamStep._field_defaults["beta2"] ** state.step),
            shrink=min(1.0, self.train.clip_norm / max(norm, 1e-30)),
        )
        for name, weight in state.parameters().items():
            PlainOps().adam(weight, grads[name], state.moments[name], step, unit=False)
        if THRESHOLD in state.extra:
            state.extra[THRESHOLD].clamp_min_(0)

    def _threshold(self, smallest: float) -> float | None:
        if THRESHOLD in self.state.extra:
            return float(self.state.extra[THRESHOLD].mean())
        return smallest if math.isfinite(smallest) else 0.0

    def _report(self, lr: float) -> Metrics:
        results, times = zip(*self._window, strict=True)
        self._window.clear()
        how: dict[str, Any] = {"batch_size": self.plan.batch_size, "seconds": sum(times), "lr": lr}
        metrics = measure(self.state, list(results), self.plan.dead_window, **how)
        with self.ranks.checked():
            if self.ranks.first:
                append_line(self.folder, metrics)
        return metrics

    def checkpoint(self, *, alone: bool = False) -> None:
        """Write a checkpoint (not after a step that diverged); `alone`: another rank was lost."""
        if not self._diverged:
            write_checkpoint(self.folder, Checkpoint(self.state, self.position, self.seconds), self.spread, alone=alone)

    def settle(self) -> TrainState:
        """Return the final state, on the CPU and without moments."""
        self.state = replace(self.state.to("cpu"), moments={})
        return self.state

    def trained(self, state: TrainState) -> CrossLayerTranscoder:
        """Return the transcoder of a state in the units of the model; activations remain in training units."""
        threshold = state.extra.get(THRESHOLD)
        if threshold is None:
            threshold = self._estimate(state) / decoder_norms(state.W_dec, self.n_layers).clamp_min(1e-30)
        W_enc, b_enc, W_dec, b_dec, skips = [], [], [], [], []
        for layer, (source, blocks) in enumerate(zip(self.sources, self._blocks(state.W_dec), strict=True)):
            scales = source.scales
            inner, outer = scales.input.float(), torch.stack([s.scales.output.float() for s in self.sources[layer:]])
            shift = torch.zeros_like(inner) if scales.shift is None else scales.shift.float()
            W_enc.append((state.W_enc[layer] * inner).T.contiguous())
            b_enc.append(state.b_enc[layer] - state.W_enc[layer] @ shift)
            W_dec.append((blocks / outer[:, None]).transpose(0, 1).contiguous())
            bias = state.b_dec[layer]
            if SKIP in state.extra:
                skip = state.extra[SKIP][layer]
                bias = bias - skip @ shift
                skips.append((skip * inner / scales.output.float()[:, None]).T.contiguous())
            b_dec.append(bias / scales.output.float())
        return CrossLayerTranscoder(
            W_enc, b_enc, W_dec, b_dec, threshold=list(threshold.unbind(0)), W_skip=skips or None
        )

    def _blocks(self, W_dec: Tensor) -> list[Tensor]:
        """Return the decoder blocks `[n_targets, d_sae, d_out]` of every layer."""
        return list(W_dec.split(list(range(self.n_layers, 0, -1))))

    @torch.no_grad()
    def _estimate(self, state: TrainState) -> float:
        """Return the mean over a few batches of the smallest selected `activation * |W|`."""
        scaled, found = [_Scaled(source, "cpu") for source in self.sources], []
        norms, ops = decoder_norms(state.W_dec, self.n_layers), choose_ops("cpu")
        for (batch,) in islice(self.read(None, Position(), whole=True), SAMPLES):
            x = torch.stack([s(b)[0] for s, b in zip(scaled, batch, strict=True)])
            pre = torch.baddbmm(state.b_enc[:, None], x, state.W_enc.transpose(1, 2)) * norms[:, None]
            flat = pre.transpose(0, 1).flatten(1).contiguous()
            values = ops.select_batch(flat, self.config.k * self.n_layers * len(flat)).values
            found.append(float(values.min()) if len(values) else 0.0)
        return sum(found) / len(found)


def decode(acts: Tensor, W_dec: Tensor, b_dec: Tensor) -> Tensor:
    """Return outputs `[n_layers, n, d_out]` of activations `[n_layers, n, d_sae]`."""
    n_layers = len(acts)
    blocks = W_dec.split(list(range(n_layers, 0, -1)))
    out = [b_dec[layer].expand(acts.shape[1], -1) for layer in range(n_layers)]
    for source in range(n_layers):
        for offset, block in enumerate(blocks[source]):
            out[source + offset] = torch.addmm(out[source + offset], acts[source], block)
    return torch.stack(out)


class _Scaled:
    """Input and target of one layer in training units."""

    def __init__(self, source: Source, device: Any):
        self.source, self.device = source, device
        self.output = source.scales.output.float().to(device)

    def __call__(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        assert batch.target is not None
        x = self.source.scaled(batch.x.to(self.device, torch.float32))
        return x, batch.target.to(self.device, torch.float32) * self.output
