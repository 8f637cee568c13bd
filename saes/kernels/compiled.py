"""The sparse step in compiled loops, for the CPU. Imports numba: import it lazily.

Each row (a token) or latent is the work of one thread, in a fixed order, so the result does not depend on the number
of threads. Active latents are in CSR form: those of row `r` are `latents[starts[r] : starts[r + 1]]`.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from saes.kernels import select
from saes.kernels.plain import PlainOps
from saes.kernels.state import Active, AdamStep, Decoded, Gradients

_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}
FAST = {"reassoc", "contract", "arcp", "nsz"}  # lets sums use vector lanes; NaN and infinity stay what they are


@njit(cache=True, parallel=True, fastmath=FAST)
def _decode(x, W_dec, starts, latents, values, scale, grad, grad_values, squared):
    """Per row: error `r - x`, its square, the gradient `scale * error`, and the gradient of every active value."""
    d = x.shape[1]
    for row in prange(x.shape[0]):
        error = grad[row]
        for c in range(d):
            error[c] = -x[row, c]
        for a in range(starts[row], starts[row + 1]):
            direction, value = W_dec[latents[a]], values[a]
            for c in range(d):
                error[c] += value * direction[c]
        total = x[0, 0] * 0
        for c in range(d):
            total += error[c] * error[c]
            error[c] *= scale
        squared[row] = total
        for a in range(starts[row], starts[row + 1]):
            direction, dot = W_dec[latents[a]], x[0, 0] * 0
            for c in range(d):
                dot += error[c] * direction[c]
            grad_values[a] = dot if values[a] > 0 else 0


@njit(cache=True)
def _by_latent(starts, latents, values, d_sae):
    """The transpose of the CSR matrix: entries grouped by latent, rows rising. Zeros (padding) are left out."""
    counts = np.zeros(d_sae + 1, np.int64)
    for a in range(len(latents)):
        if values[a] > 0:
            counts[latents[a] + 1] += 1
    first = np.cumsum(counts)
    at = first[:-1].copy()
    entries, rows = np.empty(first[-1], np.int64), np.empty(first[-1], np.int64)
    for row in range(len(starts) - 1):
        for a in range(starts[row], starts[row + 1]):
            if values[a] > 0:
                slot = at[latents[a]]
                entries[slot], rows[slot] = a, row
                at[latents[a]] = slot + 1
    return first, entries, rows


@njit(cache=True, parallel=True, fastmath=FAST)
def _weight_gradients(x, grad, values, grad_values, first, entries, rows, g_enc, g_b, g_dec):
    """`g_enc[i] = sum dv * x`, `g_b[i] = sum dv`, `g_dec[i] = sum v * grad`, over the tokens where latent i fired."""
    d = x.shape[1]
    for i in prange(len(first) - 1):
        enc, dec, bias = g_enc[i], g_dec[i], x[0, 0] * 0
        for c in range(d):
            enc[c] = 0
            dec[c] = 0
        for e in range(first[i], first[i + 1]):
            row, value, slope = rows[e], values[entries[e]], grad_values[entries[e]]
            bias += slope
            for c in range(d):
                enc[c] += slope * x[row, c]
                dec[c] += value * grad[row, c]
        g_b[i] = bias


@njit(cache=True, parallel=True, fastmath=FAST)
def _project(g_dec, W_dec, g_enc, g_b, squared):
    """Remove from each decoder gradient the part along its (unit) row; squared length of all gradients per latent."""
    d = W_dec.shape[1]
    for i in prange(W_dec.shape[0]):
        along = W_dec[0, 0] * 0
        for c in range(d):
            along += g_dec[i, c] * W_dec[i, c]
        total = g_b[i] * g_b[i]
        for c in range(d):
            g_dec[i, c] -= along * W_dec[i, c]
            total += g_dec[i, c] * g_dec[i, c] + g_enc[i, c] * g_enc[i, c]
        squared[i] = total


@njit(cache=True, parallel=True, fastmath=FAST)
def _adam(weights, gradients, mean, square, shrink, rate, beta1, beta2, root_scale, eps, unit_rows):
    """One Adam step on every row, fused; with `unit_rows` each row is then divided by its length."""
    d = weights.shape[1]
    one = weights[0, 0] * 0 + 1
    for i in prange(weights.shape[0]):
        length = weights[0, 0] * 0
        for c in range(d):
            g = gradients[i, c] * shrink
            m = beta1 * mean[i, c] + (one - beta1) * g
            v = beta2 * square[i, c] + (one - beta2) * g * g
            mean[i, c], square[i, c] = m, v
            w = weights[i, c] - rate * m / (np.sqrt(v) * root_scale + eps)
            weights[i, c] = w
            length += w * w
        if unit_rows:
            inverse = one / np.sqrt(length)
            for c in range(d):
                weights[i, c] *= inverse


class CompiledOps:
    """The operations of `state.Ops` on CPU tensors. Selection from types other than float32 and bfloat16 is torch's."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._plain = PlainOps()

    def select_topk(self, pre: Tensor, k: int) -> Active:
        """See `PlainOps.select_topk`."""
        if pre.dtype not in _BITS:
            return self._plain.select_topk(pre, k)
        shape, bits = (len(pre), k), _bits(pre)
        latents, out = np.empty(shape, np.int64), np.empty(shape, bits.dtype)
        _run(select.topk_rows, bits, k, out, latents)
        starts = np.arange(len(pre) + 1) * k
        return _active((starts, latents.ravel(), out.ravel()), pre.dtype)

    def select_batch(self, pre: Tensor, n: int) -> Active:
        """See `PlainOps.select_batch`."""
        if pre.dtype not in _BITS:
            return self._plain.select_batch(pre, n)
        return _active(_run(select.topk_batch, _bits(pre), n), pre.dtype)

    def select_above(self, pre: Tensor, threshold: Tensor) -> Active:
        """See `PlainOps.select_above`."""
        if pre.dtype not in _BITS:
            return self._plain.select_above(pre, threshold)
        return _active(_run(select.above, _bits(pre), _bits(threshold.detach().to(pre.dtype))), pre.dtype)

    def decode(self, x: Tensor, W_dec: Tensor, active: Active, scale: float) -> Decoded:
        """See `PlainOps.decode`."""
        out = Decoded(
            self.buffer("grad", x.shape, x.dtype),
            self.buffer("grad_values", active.values.shape, x.dtype),
            self.buffer("squared", (len(x),), x.dtype),
        )
        _run(_decode, x, W_dec, *active, _scalar(scale, x), *out)
        return out

    def weight_gradients(self, x: Tensor, decoded: Decoded, active: Active, out: Gradients) -> Tensor:
        """See `PlainOps.weight_gradients`."""
        grouped = _run(_by_latent, *active, len(out.b_enc))
        gradients = (active.values, decoded.grad_values)
        _run(_weight_gradients, x, decoded.grad, *gradients, *grouped, out.W_enc, out.b_enc, out.W_dec)
        return torch.from_numpy(np.diff(grouped[0]))

    def project(self, out: Gradients, W_dec: Tensor) -> float:
        """See `PlainOps.project`."""
        squared = self.buffer("norms", out.b_enc.shape, out.b_enc.dtype)
        _run(_project, out.W_dec, W_dec, out.W_enc, out.b_enc, squared)
        return float(squared.double().sum() + out.b_dec.double().square().sum())

    def adam(self, weight: Tensor, grad: Tensor, moments: tuple[Tensor, Tensor], step: AdamStep, unit: bool) -> None:
        """See `PlainOps.adam`."""
        tensors = [t.view(-1, t.shape[-1]) for t in (weight, grad, *moments)]
        numbers = (step.shrink, step.rate, step.beta1, step.beta2, step.root_scale, step.eps)
        _run(_adam, *tensors, *(_scalar(number, weight) for number in numbers), unit)

    def buffer(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor that is reused from step to step: fresh memory costs more than filling it."""
        found = self._buffers.get(name)
        if found is None or found.shape != torch.Size(shape) or found.dtype != dtype:
            found = self._buffers[name] = torch.empty(shape, dtype=dtype)
        return found


def _run(kernel: Callable[..., Any], *arguments: Any) -> Any:
    """Call a kernel with tensors as arrays, on as many threads as torch uses."""
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, most))
    if (
        torch.get_num_threads() != threads
    ):  # numba starts its threads at first use and resets OpenMP's number, torch's too
        torch.set_num_threads(threads)
    return kernel(*(a.numpy() if isinstance(a, Tensor) else a for a in arguments))


def _scalar(number: float, like: Tensor) -> np.generic:
    """The number in the tensor's own type, so that the loop does not widen to float64."""
    return np.float32(number) if like.dtype == torch.float32 else np.float64(number)


def _bits(values: Tensor) -> np.ndarray:
    return values.view(_BITS[values.dtype]).numpy()


def _active(selected: tuple[np.ndarray, np.ndarray, np.ndarray], dtype: torch.dtype) -> Active:
    starts, latents, bits = selected
    return Active(torch.from_numpy(starts), torch.from_numpy(latents), _floats(bits, dtype))


def _floats(bits: np.ndarray, dtype: torch.dtype) -> Tensor:
    """float32 values of selected bits."""
    return torch.from_numpy(bits).view(dtype).float()
