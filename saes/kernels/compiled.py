"""The sparse step in compiled loops, for the CPU. Imports numba: import it lazily.

Each row (a token) or latent is processed by one thread in a fixed order, so the result does not depend on the number of
threads. Active latents are in CSR form: those of row `r` are `latents[starts[r] : starts[r + 1]]`.

Selection of the largest pre-activations, per row or over a batch, compares integers `(bits of the value, lower latent
first)`, so the selected set is unique whatever the algorithm or the number of threads. float32 and bfloat16 share one
loop, because the bits of positive floats sort like integers.
"""

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from interp.runtime import run_compiled
from saes.kernels.plain import PlainOps
from saes.kernels.state import Active, AdamStep, Decoded, Gradients

LOW = np.int64(0xFFFFFFFF)


@njit(cache=True, inline="always")
def _pack(bits, column):
    return (np.int64(bits) << np.int64(32)) | (LOW - np.int64(column))


@njit(cache=True)
def keep_largest(keys, n, k):
    """Move the `k` largest of `keys[:n]` to the front (in no order): quickselect, descending."""
    low, high = 0, n - 1
    while low < high:
        pivot = keys[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            return


@njit(cache=True)
def _scan_row(row, k, keys):
    """Write packed keys of the (at most) `k` largest positive values of a row to the front of `keys`; return the count.

    One pass: values above a running floor are collected. When the buffer is full it is cut back to `k`, and the floor
    rises to the smallest value retained. Few values exceed the floor after the first hundred.
    """
    n, floor, room = 0, np.int64(0), len(keys)
    for column in range(len(row)):
        bits = row[column]
        if bits > floor:
            keys[n] = _pack(bits, column)
            n += 1
            if n == room:
                keep_largest(keys, n, k)
                n = k
                smallest = keys[0]
                for i in range(1, k):
                    smallest = min(smallest, keys[i])
                floor = smallest >> np.int64(32)  # an equal value further right ranks below those retained
    if n > k:
        keep_largest(keys, n, k)
        n = k
    return n


@njit(cache=True, parallel=True)
def topk_rows(bits, k, out_bits, out_latents):
    """Select the `k` largest positive values per row of `bits [n, d_sae]` (int32 or int16 views of floats).

    The result is sorted by latent.

    Rows with fewer than `k` positive values are padded with bits 0 (the value 0.0) and latent 0.
    """
    for r in prange(bits.shape[0]):
        keys = np.empty(4 * k + 16, np.int64)
        n = _scan_row(bits[r], k, keys)
        order = np.sort(LOW - (keys[:n] & LOW))
        for i in range(n):
            out_latents[r, i] = order[i]
            out_bits[r, i] = bits[r, order[i]]
        for i in range(n, k):
            out_latents[r, i] = 0
            out_bits[r, i] = 0


@njit(cache=True, parallel=True)
def count_above(bits, floors):
    """Count the values of each row that exceed their latent's floor (`floors [d_sae]`, bits >= 0); `[n]`."""
    counts = np.zeros(bits.shape[0], np.int64)
    for r in prange(bits.shape[0]):
        n = 0
        for column in range(bits.shape[1]):
            n += bits[r, column] > floors[column]
        counts[r] = n
    return counts


@njit(cache=True, parallel=True)
def fill_above(bits, floors, starts, out_bits, out_latents):
    """Write values above their latent's floor, row after row, sorted by latent; row `r` begins at `starts[r]`."""
    for r in prange(bits.shape[0]):
        at = starts[r]
        for column in range(bits.shape[1]):
            value = bits[r, column]
            if value > floors[column]:
                out_latents[at] = column
                out_bits[at] = value
                at += 1


@njit(cache=True)
def nth_largest(values, n):
    """Return the `n`-th largest (from 1) entry of an integer array."""
    keys = values.astype(np.int64)
    keep_largest(keys, len(keys), n)
    smallest = keys[0]
    for i in range(1, n):
        smallest = min(smallest, keys[i])
    return smallest


def topk_batch(bits, n):
    """Select the `n` largest positive values of all `bits [rows, d_sae]`: `(starts, latents, bits)`, latents rising.

    A floor estimated from a sample of rows keeps the candidates few. If the estimate exceeds the n-th largest,
    selection is repeated with floor 0, so the result is exact.
    """
    floors = np.full(bits.shape[1], _sampled_floor(bits, n), bits.dtype)
    starts, latents, values = above(bits, floors)
    if starts[-1] < n:
        starts, latents, values = above(bits, np.zeros_like(floors))
    if starts[-1] > n:
        return _cut(starts, latents, values, n, nth_largest(values, n))
    return starts, latents, values


def above(bits, floors):
    """Select the values of `bits [rows, d_sae]` above their latent's floor (>= 0): `(starts, latents, bits)`."""
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(count_above(bits, floors))])
    values, latents = np.empty(starts[-1], bits.dtype), np.empty(starts[-1], np.int64)
    fill_above(bits, floors, starts[:-1], values, latents)
    return starts, latents, values


def _sampled_floor(bits, n):
    """Estimate, from up to 64 rows, a value that about 1.5 `n` of all values exceed; 0 when few are positive."""
    sample = bits[:: max(1, len(bits) // 64)].ravel()
    positive = sample[sample > 0]
    rank = int(1.5 * n * len(sample) / bits.size) + 1
    return nth_largest(positive, rank) if rank <= len(positive) else 0


@njit(cache=True)
def _cut(starts, latents, values, n, smallest):
    """Keep the values above `smallest` and the first ones equal to it, `n` in all."""
    ties = n
    for value in values:
        ties -= value > smallest
    new_starts, kept_values, kept_latents = np.zeros_like(starts), np.empty(n, values.dtype), np.empty(n, np.int64)
    at = 0
    for row in range(len(starts) - 1):
        for a in range(starts[row], starts[row + 1]):
            tie = values[a] == smallest and ties > 0
            ties -= tie
            if tie or values[a] > smallest:
                kept_values[at], kept_latents[at] = values[a], latents[a]
                at += 1
        new_starts[row + 1] = at
    return new_starts, kept_latents, kept_values


_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}
FAST = {"reassoc", "contract", "arcp", "nsz"}  # allows vectorised sums; NaN and infinity keep their meaning


@njit(cache=True, parallel=True, fastmath=FAST)
def _decode(target, W_dec, starts, latents, values, scale, grad, grad_values, squared):
    """Per row: error `r - target`, its square, the gradient `scale * error`, and the gradient of every value."""
    d = target.shape[1]
    for row in prange(target.shape[0]):
        error = grad[row]
        for c in range(d):
            error[c] = -target[row, c]
        for a in range(starts[row], starts[row + 1]):
            direction, value = W_dec[latents[a]], values[a]
            if value > 0:
                for c in range(d):
                    error[c] += value * direction[c]
        total = target[0, 0] * 0
        for c in range(d):
            total += error[c] * error[c]
            error[c] *= scale
        squared[row] = total
        for a in range(starts[row], starts[row + 1]):
            direction, dot = W_dec[latents[a]], target[0, 0] * 0
            for c in range(d):
                dot += error[c] * direction[c]
            grad_values[a] = dot


@njit(cache=True, parallel=True, fastmath=FAST)
def _decode_nested(target, W_dec, starts, latents, values, ends, scale, grad, grad_values, squared):
    """`_decode` for every prefix at once: `grad [G, n, d]`, where `g` sums over the prefixes that hold group `g`."""
    d, groups = target.shape[1], len(ends)
    for row in prange(target.shape[0]):
        a = starts[row]
        for g in range(groups):  # errors: each prefix continues the one before
            error = grad[g, row]
            for c in range(d):
                error[c] = -target[row, c] if g == 0 else grad[g - 1, row, c]
            while a < starts[row + 1] and latents[a] < ends[g]:
                direction, value = W_dec[latents[a]], values[a]
                if value > 0:
                    for c in range(d):
                        error[c] += value * direction[c]
                a += 1
            total = target[0, 0] * 0
            for c in range(d):
                total += error[c] * error[c]
            squared[g, row] = total
        for g in range(groups - 1, -1, -1):  # gradients: each group adds up the prefixes from its own on
            for c in range(d):
                grad[g, row, c] *= scale
                if g < groups - 1:
                    grad[g, row, c] += grad[g + 1, row, c]
        g = 0
        for a in range(starts[row], starts[row + 1]):
            while latents[a] >= ends[g]:
                g += 1
            direction, dot = W_dec[latents[a]], target[0, 0] * 0
            for c in range(d):
                dot += grad[g, row, c] * direction[c]
            grad_values[a] = dot


@njit(cache=True)
def _by_latent(starts, latents, values, slopes, d_sae):
    """Transpose the CSR matrix: entries grouped by latent, rows rising, and the number of firings per latent.

    Entries without value and slope (padding) are left out.
    """
    counts, fired = np.zeros(d_sae + 1, np.int64), np.zeros(d_sae, np.int64)
    for a in range(len(latents)):
        fires = values[a] > 0
        fired[latents[a]] += fires
        if fires or slopes[a] != 0:
            counts[latents[a] + 1] += 1
    first = np.cumsum(counts)
    at = first[:-1].copy()
    entries, rows = np.empty(first[-1], np.int64), np.empty(first[-1], np.int64)
    for row in range(len(starts) - 1):
        for a in range(starts[row], starts[row + 1]):
            if values[a] > 0 or slopes[a] != 0:
                slot = at[latents[a]]
                entries[slot], rows[slot] = a, row
                at[latents[a]] = slot + 1
    return first, entries, rows, fired


@njit(cache=True, parallel=True, fastmath=FAST)
def _weight_gradients(x, grad, values, slopes, first, entries, rows, g_enc, g_b, g_dec):
    """`g_enc[i] = sum slope * x`, `g_b[i] = sum slope`, `g_dec[i] = sum value * grad`, over the entries of latent i."""
    d, d_out = x.shape[1], grad.shape[1]
    for i in prange(len(first) - 1):
        enc, dec, bias = g_enc[i], g_dec[i], x[0, 0] * 0
        for c in range(d):
            enc[c] = 0
        for c in range(d_out):
            dec[c] = 0
        for e in range(first[i], first[i + 1]):
            row, value, slope = rows[e], values[entries[e]], slopes[entries[e]]
            bias += slope
            if d == d_out:
                for c in range(d):
                    enc[c] += slope * x[row, c]
                    dec[c] += value * grad[row, c]
            else:
                for c in range(d):
                    enc[c] += slope * x[row, c]
                for c in range(d_out):
                    dec[c] += value * grad[row, c]
        g_b[i] = bias


@njit(cache=True, parallel=True, fastmath=FAST)
def _project(g_dec, W_dec, g_enc, g_b, squared):
    """Remove from each decoder gradient its component along the (unit) row; write squared norms per latent."""
    d, d_in = W_dec.shape[1], g_enc.shape[1]
    for i in prange(W_dec.shape[0]):
        along = W_dec[0, 0] * 0
        for c in range(d):
            along += g_dec[i, c] * W_dec[i, c]
        total = g_b[i] * g_b[i]
        for c in range(d):
            g_dec[i, c] -= along * W_dec[i, c]
            total += g_dec[i, c] * g_dec[i, c]
        for c in range(d_in):
            total += g_enc[i, c] * g_enc[i, c]
        squared[i] = total


@njit(cache=True, parallel=True, fastmath=FAST)
def _adam(weights, gradients, mean, square, shrink, rate, beta1, beta2, root_scale, eps, unit_rows):
    """Take one fused Adam step on every row; with `unit_rows` each row is then divided by its norm."""
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
        number = _scalar(scale / groups, target)
        if groups == 1:
            run_compiled(_decode, target, W_dec, *active, number, out.grad[0], out.grad_values, out.squared[0])
        else:
            run_compiled(_decode_nested, target, W_dec, *active, np.array(ends), number, *out)
        return out

    def weight_gradients(
        self, x: Tensor, decoded: Decoded, active: Active, slopes: Tensor, out: Gradients, ends: tuple[int, ...] = ()
    ) -> Tensor:
        """See `PlainOps.weight_gradients`."""
        first, entries, rows, fired = run_compiled(_by_latent, *active, slopes, len(out.b_enc))
        start = 0
        for grad, end in zip(decoded.grad, ends or (len(out.b_enc),), strict=True):
            mine = slice(start, end)
            gradients = (out.W_enc[mine], out.b_enc[mine], out.W_dec[mine])
            run_compiled(
                _weight_gradients, x, grad, active.values, slopes, first[start : end + 1], entries, rows, *gradients
            )
            start = end
        return torch.from_numpy(fired)

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
        found = self._buffers.get(name)
        if found is None or found.shape != torch.Size(shape) or found.dtype != dtype:
            found = self._buffers[name] = torch.empty(shape, dtype=dtype)
        return found


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
