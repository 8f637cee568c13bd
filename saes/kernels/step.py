"""One training step of a sparse autoencoder.

1. encode: `pre = (x - b_dec) @ W_enc + b_enc`, the only dense product;
2. select the active latents (the kind says how) and decode them: `recons = values @ W_dec + b_dec`;
3. loss `= FVU + aux_coefficient * L_aux`, where FVU is the squared error over the variance of the data;
4. gradients of the weights from the active latents alone, AuxK's added;
5. clip, Adam (dense: silent latents coast on their momentum as in any Adam), decoder rows back to length 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from saes.kernels.auxk import EVERY, AuxK, add_auxk, dead_latents
from saes.kernels.plain import PlainOps
from saes.kernels.state import NAMES, Active, AdamStep, Gradients, Ops, TrainState

Select = Callable[[Ops, Tensor], Active]


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """What stays the same from step to step."""

    variance: float
    """Mean squared distance of a row from the mean row: the loss of an SAE that outputs the mean is 1."""
    k_aux: int
    aux_coefficient: float = 1 / 32
    dead_window: int = 10_000_000
    clip_norm: float = 1.0
    encoder_dtype: torch.dtype = torch.float32


class StepResult(NamedTuple):
    """What a step saw, before its update."""

    loss: float
    fvu: float
    aux: float
    """L_aux; 0 when no latent is dead"""
    l0: float
    n_dead: int


class Stepper:
    """Takes steps on a `TrainState`; holds the backend and the gradient buffers, nothing that a resume would need."""

    def __init__(self, settings: StepSettings, select: Select, ops: Ops):
        self.settings, self.select, self.ops = settings, select, ops
        self._gradients: Gradients | None = None
        self._pre: Tensor | None = None

    def step(self, state: TrainState, x: Tensor, lr: float) -> StepResult:
        """One step on `x [n, d_in]`, changing `state` in place."""
        n_dead, loss, fvu, aux, counts, gradients = self.gradients(state, x)
        self._apply(state, gradients, lr)
        _count(state, counts, len(x))
        return StepResult(loss, fvu, aux, float(counts.sum()) / len(x), n_dead)

    def gradients(self, state: TrainState, x: Tensor) -> tuple[int, float, float, float, Tensor, Gradients]:
        """`(n_dead, loss, fvu, aux, firing counts, gradients)`; the gradients' memory is reused by the next call."""
        s, centred = self.settings, x - state.b_dec
        pre = self._encode(state, centred)
        active = self.select(self.ops, pre)
        scale = 2 / (len(x) * s.variance)
        decoded = self.ops.decode(centred, state.W_dec, active, scale)
        out = self._gradients = self._gradients or Gradients(
            *(torch.empty_like(w) for w in state.parameters().values())
        )
        counts = self.ops.weight_gradients(centred, decoded, active, out)
        fvu = float(decoded.squared.double().sum()) / (len(x) * s.variance)
        aux, n_dead = 0.0, 0
        if s.aux_coefficient:
            n_dead, dead = dead_latents(state, s.dead_window, s.k_aux)
            if n_dead:
                part, aux_settings = slice(None, None, EVERY), AuxK(s.k_aux, s.aux_coefficient)
                error = decoded.grad[part] / scale
                aux = add_auxk(self.ops, state, centred[part], error, pre[part], dead, aux_settings, out)
        # b_dec enters twice: added to the reconstruction, subtracted from the encoder's input
        torch.sub(decoded.grad.sum(0), out.b_enc @ state.W_enc, out=out.b_dec)
        return n_dead, fvu + s.aux_coefficient * aux, fvu, aux, counts, out

    def _encode(self, state: TrainState, centred: Tensor) -> Tensor:
        dtype = torch.float32 if centred.dtype == torch.float32 else centred.dtype
        if dtype == torch.float32 and self.settings.encoder_dtype == torch.bfloat16:
            dtype = torch.bfloat16
        shape = (len(centred), state.d_sae)
        if self._pre is None or self._pre.shape != shape or self._pre.dtype != dtype:
            self._pre = torch.empty(shape, dtype=dtype, device=centred.device)
        return torch.addmm(state.b_enc.to(dtype), centred.to(dtype), state.W_enc.to(dtype).T, out=self._pre)

    def _apply(self, state: TrainState, gradients: Gradients, lr: float) -> None:
        norm = math.sqrt(self.ops.project(gradients, state.W_dec))
        state.step += 1
        adam = AdamStep(
            rate=lr / (1 - AdamStep._field_defaults["beta1"] ** state.step),
            root_scale=1 / math.sqrt(1 - AdamStep._field_defaults["beta2"] ** state.step),
            shrink=min(1.0, self.settings.clip_norm / max(norm, 1e-30)),
        )
        for name, grad in zip(NAMES, gradients, strict=True):
            self.ops.adam(getattr(state, name), grad, state.moments[name], adam, unit=name == "W_dec")


def choose_ops(x: Tensor | torch.device | str) -> Ops:
    """Compiled loops on the CPU, torch operations elsewhere."""
    device = x.device if isinstance(x, Tensor) else torch.device(x)
    if device.type != "cpu":
        return PlainOps()
    from saes.kernels.compiled import CompiledOps

    return CompiledOps()


def _count(state: TrainState, counts: Tensor, n: int) -> None:
    """Update tokens since last fired and the running density (a mean over about the last 50 steps)."""
    state.silent.add_(n).masked_fill_(counts > 0, 0)
    weight = max(1 / state.step, 0.02)
    state.density.mul_(1 - weight).add_(counts.float() / n, alpha=weight)
