"""The sparse step in compiled loops, for the CPU. Imports numba: import it lazily.

Each row (a token) or latent is processed by one thread in a fixed order, so the result does not depend on the number of
threads. Active latents are in CSR form: those of row `r` are `latents[starts[r] : starts[r + 1]]`.
"""

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from interp.threads import run_compiled
from saes.kernels._plain import PlainOps
from saes.kernels._selection import WIDTH, above, add_rows, dot, topk_batch, topk_rows
from saes.kernels.state import Active, AdamStep, Decoded, Gradients

_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


@njit(cache=True, parallel=True)
def _pack(source, start, out):
    """Copy `WIDTH` columns of `source [n, d]`, from `start` on, to the flat `out`; 0 where there are fewer."""
    width = min(WIDTH, source.shape[1] - start)
    for row in prange(source.shape[0]):
        at = row * WIDTH
        for c in range(width):
            out[at + c] = source[row, start + c]
        for c in range(width, WIDTH):
            out[at + c] = 0


@njit(cache=True, parallel=True)
def _decode(target, W_dec, room, starts, latents, values, ends, scale, grad, grad_values, squared):
    """Per row and prefix (`latents < ends[g]`): error `r - target` and its square; gradients `scale * error`, summed
    over the prefixes that hold group `g`; and the gradient of every value.

    `WIDTH` columns at a time, copied to `room [d_sae * WIDTH]`: so much of a decoder stays in the cache of a core.
    """
    groups = len(ends)
    for start in range(0, target.shape[1], WIDTH):
        _pack(W_dec, start, room)
        width = min(WIDTH, target.shape[1] - start)
        for row in prange(target.shape[0]):
            errors, firsts = np.zeros(groups * WIDTH, target.dtype), np.empty(groups + 1, np.int64)
            firsts[0], stop = starts[row], starts[row + 1]
            for g in range(groups):  # each prefix continues the one before
                at = g * WIDTH
                if g:
                    errors[at : at + WIDTH] = errors[at - WIDTH : at]
                else:
                    for c in range(width):
                        errors[c] = -target[row, start + c]
                end = firsts[g] if g < groups - 1 else stop
                while end < stop and latents[end] < ends[g]:
                    end += 1
                add_rows(errors, at, values, latents, room, firsts[g], end)
                squared[g, row] = dot(errors, at, errors, at) + (squared[g, row] if start else 0)
                firsts[g + 1] = end
            for g in range(groups - 1, -1, -1):
                at = g * WIDTH
                for c in range(WIDTH):
                    errors[at + c] *= scale
                if g < groups - 1:
                    for c in range(WIDTH):
                        errors[at + c] += errors[at + WIDTH + c]
                for c in range(width):
                    grad[g, row, start + c] = errors[at + c]
                for a in range(firsts[g], firsts[g + 1]):
                    product = dot(errors, at, room, latents[a] * WIDTH)
                    grad_values[a] = product + (grad_values[a] if start else 0)


@njit(cache=True)
def _by_latent(starts, latents, values, slopes, g_b):
    """Transpose the CSR matrix: rows, values and slopes of the entries grouped by latent, rows rising; the number of
    firings per latent. `g_b [d_sae]` gets the sum of the slopes.

    Entries without value and slope (padding) are left out.
    """
    counts, fired = np.zeros(len(g_b) + 1, np.int64), np.zeros(len(g_b), np.int64)
    g_b[:] = 0
    for a in range(len(latents)):
        fires = values[a] > 0
        fired[latents[a]] += fires
        if fires or slopes[a] != 0:
            counts[latents[a] + 1] += 1
    first = np.cumsum(counts)
    at = first[:-1].copy()
    n = first[-1]
    rows = np.empty(n, np.int64)
    by_value, by_slope = np.empty(n, values.dtype), np.empty(n, slopes.dtype)
    for row in range(len(starts) - 1):
        for a in range(starts[row], starts[row + 1]):
            if values[a] > 0 or slopes[a] != 0:
                slot = at[latents[a]]
                rows[slot], by_value[slot], by_slope[slot] = row, values[a], slopes[a]
                g_b[latents[a]] += slopes[a]
                at[latents[a]] = slot + 1
    return first, rows, by_value, by_slope, fired


@njit(cache=True, parallel=True)
def _row_sums(first, rows, weights, source, room, out):
    """`out[i] = sum weight * source[row]` over the entries of latent i; `room [n * WIDTH]` as in `_decode`."""
    d = out.shape[1]
    flat = out.reshape(-1)
    for start in range(0, d, WIDTH):
        _pack(source, start, room)
        width = min(WIDTH, d - start)
        for i in prange(len(first) - 1):
            if width == WIDTH:
                at = i * d + start
                flat[at : at + WIDTH] = 0
                add_rows(flat, at, weights, rows, room, first[i], first[i + 1])
            else:
                part = np.zeros(WIDTH, out.dtype)
                add_rows(part, 0, weights, rows, room, first[i], first[i + 1])
                out[i, start:] = part[:width]


@njit(cache=True, inline="always")
def _inner(left, right, at, d):
    """Return the inner product of two flat arrays' values `at .. at + d`."""
    total, whole = left.dtype.type(0), d - d % WIDTH
    for start in range(0, whole, WIDTH):
        total += dot(left, at + start, right, at + start)
    for c in range(whole, d):
        total += left[at + c] * right[at + c]
    return total


@njit(cache=True, parallel=True)
def _project(g_dec, W_dec, g_enc, g_b, squared):
    """Remove from each decoder gradient its component along the (unit) row; write squared norms per latent."""
    d, d_in = W_dec.shape[1], g_enc.shape[1]
    dec, weights, enc = g_dec.reshape(-1), W_dec.reshape(-1), g_enc.reshape(-1)
    for i in prange(W_dec.shape[0]):
        along = _inner(dec, weights, i * d, d)
        for c in range(d):
            g_dec[i, c] -= along * W_dec[i, c]
        squared[i] = g_b[i] * g_b[i] + _inner(dec, dec, i * d, d) + _inner(enc, enc, i * d_in, d_in)


@njit(cache=True, parallel=True)
def _adam(weights, gradients, mean, square, shrink, rate, beta1, beta2, root_scale, eps, unit_rows):
    """Take one fused Adam step on every row; with `unit_rows` each row is then divided by its norm."""
    d, flat = weights.shape[1], weights.reshape(-1)
    one = weights[0, 0] * 0 + 1
    for i in prange(weights.shape[0]):
        for c in range(d):
            g = gradients[i, c] * shrink
            m = beta1 * mean[i, c] + (one - beta1) * g
            v = beta2 * square[i, c] + (one - beta2) * g * g
            mean[i, c], square[i, c] = m, v
            weights[i, c] -= rate * m / (np.sqrt(v) * root_scale + eps)
        if unit_rows:
            inverse = one / np.sqrt(_inner(flat, flat, i * d, d))
            for c in range(d):
                weights[i, c] *= inverse


class CompiledOps:
    """The operations of `state.Ops` on CPU tensors. Dtypes other than float32 and bfloat16 are selected by torch."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._plain = PlainOps()

    def select_topk(self, pre: Tensor, k: int) -> Active:
        """See `PlainOps.select_topk`."""
        if pre.dtype not in _BITS:
            return self._plain.select_topk(pre, k)
        shape, bits = (len(pre), k), _bits(pre)
        latents, out = np.empty(shape, np.int64), np.empty(shape, bits.dtype)
        run_compiled(topk_rows, bits, k, out, latents)
        starts = np.arange(len(pre) + 1) * k
        return _active((starts, latents.ravel(), out.ravel()), pre.dtype)

    def select_batch(self, pre: Tensor, n: int) -> Active:
        """See `PlainOps.select_batch`."""
        if pre.dtype not in _BITS:
            return self._plain.select_batch(pre, n)
        return _active(run_compiled(topk_batch, _bits(pre), n), pre.dtype)

    def select_above(self, pre: Tensor, threshold: Tensor) -> Active:
        """See `PlainOps.select_above`."""
        if pre.dtype not in _BITS:
            return self._plain.select_above(pre, threshold)
        floors = threshold.detach().to(pre.dtype) + 0  # -0 becomes 0: its bits would lie below those of any number
        return _active(run_compiled(above, _bits(pre), _bits(floors)), pre.dtype)

    def decode(
        self, target: Tensor, W_dec: Tensor, active: Active, scale: float, ends: tuple[int, ...] = ()
    ) -> Decoded:
        """See `PlainOps.decode`."""
        groups = len(ends) or 1
        out = Decoded(
            self.buffer("grad", (groups, *target.shape), target.dtype),
            self.buffer("grad_values", active.values.shape, target.dtype),
            self.buffer("squared", (groups, len(target)), target.dtype),
        )
        room = self.buffer("columns", (len(W_dec) * WIDTH,), target.dtype)
        bounds = np.array(ends or (len(W_dec),))
        run_compiled(_decode, target, W_dec, room, *active, bounds, _scalar(scale / groups, target), *out)
        return out

    def weight_gradients(
        self, x: Tensor, decoded: Decoded, active: Active, slopes: Tensor, out: Gradients, ends: tuple[int, ...] = ()
    ) -> Tensor:
        """See `PlainOps.weight_gradients`."""
        first, rows, by_value, by_slope, fired = run_compiled(_by_latent, *active, slopes, out.b_enc)
        self._row_sums(first, rows, by_slope, x, out.W_enc)
        start = 0
        for grad, end in zip(decoded.grad, ends or (len(out.b_enc),), strict=True):
            self._row_sums(first[start : end + 1], rows, by_value, grad, out.W_dec[start:end])
            start = end
        return torch.from_numpy(fired)

    def _row_sums(self, first: np.ndarray, rows: np.ndarray, weights: np.ndarray, source: Tensor, out: Tensor) -> None:
        room = self.buffer("columns of rows", (len(source) * WIDTH,), source.dtype)
        run_compiled(_row_sums, first, rows, weights, source, room, out)

    def project(self, out: Gradients, W_dec: Tensor) -> float:
        """See `PlainOps.project`."""
        squared = self.buffer("norms", out.b_enc.shape, out.b_enc.dtype)
        run_compiled(_project, out.W_dec, W_dec, out.W_enc, out.b_enc, squared)
        rest = (out.b_dec, *out.extra.values())
        return float(squared.double().sum() + sum(g.double().square().sum() for g in rest))

    def adam(self, weight: Tensor, grad: Tensor, moments: tuple[Tensor, Tensor], step: AdamStep, unit: bool) -> None:
        """See `PlainOps.adam`."""
        tensors = [t.view(-1, t.shape[-1]) for t in (weight, grad, *moments)]
        numbers = (step.shrink, step.rate, step.beta1, step.beta2, step.root_scale, step.eps)
        run_compiled(_adam, *tensors, *(_scalar(number, weight) for number in numbers), unit)

    def buffer(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor that is reused from step to step: allocation costs more than filling it."""
        tensor = self._buffers.get(name)
        if tensor is None or tensor.shape != torch.Size(shape) or tensor.dtype != dtype:
            tensor = self._buffers[name] = torch.empty(shape, dtype=dtype)
        return tensor


def _scalar(number: float, like: Tensor) -> np.generic:
    """Convert a number to the tensor's own dtype, so that the loop does not widen to float64."""
    return np.float32(number) if like.dtype == torch.float32 else np.float64(number)


def _bits(values: Tensor) -> np.ndarray:
    return values.view(_BITS[values.dtype]).numpy()


def _active(selected: tuple[np.ndarray, np.ndarray, np.ndarray], dtype: torch.dtype) -> Active:
    starts, latents, bits = selected
    return Active(torch.from_numpy(starts), torch.from_numpy(latents), _floats(bits, dtype))


def _floats(bits: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Convert selected bits to float32 values."""
    return torch.from_numpy(bits).view(dtype).float()
