"""A training step on several ranks (`interp.ranks`): division of the work, and selection over all ranks.

Every number of a step is a sum over tokens, a sum over latents, or a selection of the largest values. Ranks share
either the tokens of a batch (data parallel: each holds the whole dictionary and an equal slice of the rows) or the
latents of a dictionary (each holds all rows and an equal slice of the latents). Sums over the shared axis are added
over ranks, and selection is over all ranks, so the step equals that of one process up to rounding of sums. One process
alone pays nothing for this.

The `n`-th largest of numbers on several ranks is found by radix selection: ranks add up histograms of the next 11 bits.
It is exact and exchanges 16 KB a round whatever the batch: three rounds for float32, six for float64. Of equal numbers
at the cut, the earlier ones (by token, then by latent) are selected, as by the compiled loops of one process. (torch's
top-k, which selects on a GPU and in float64, takes any of the equal ones.)
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from interp.ranks import ALONE, Ranks
from saes.kernels.state import Active, AdamStep, Decoded, Gradients, Ops

DIGIT = 11
_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
_BITS = {torch.float32: 31, torch.float64: 63}


@dataclass(frozen=True)
class Spread:
    """Ranks that share tokens, and ranks that share latents. At most one of the two has more than one rank."""

    tokens: Ranks = ALONE
    """each holds an equal slice of a batch's rows"""
    latents: Ranks = ALONE
    """each holds an equal slice of the latents"""

    @property
    def ranks(self) -> Ranks:
        """All ranks of the run."""
        return self.latents if self.latents.world > 1 else self.tokens

    @property
    def alone(self) -> bool:
        return self.ranks.world == 1

    def largest(self, keys: Tensor, order: Tensor, n: int, *, bits: int = 63) -> Tensor:
        """Mark which of `keys [m]` (int64, > 0, below `2^bits`) are among the `n` largest of all ranks.

        Of equal keys those with the lower `order [m]` (int64, index of each key over all ranks) come first.
        """
        if self.alone:
            by_order = order.argsort()
            first = by_order[keys[by_order].argsort(descending=True, stable=True)][:n]
            return torch.zeros_like(keys, dtype=torch.bool).index_fill_(0, first, True)
        cut = self._nth_largest(keys, n, bits)
        if cut.above + cut.ties <= n:
            return keys >= cut.key
        tied = keys == cut.key
        last = int(-self.ranks.least(-float(order.max() if len(order) else 0)))
        early = self._nth_largest(last + 1 - order[tied], n - cut.above, max(1, (last + 1).bit_length()))
        return (keys > cut.key) | (tied & (last + 1 - order >= early.key))

    def _nth_largest(self, keys: Tensor, n: int, bits: int) -> "_Cut":
        """The `n`-th largest key of all ranks; where there are no more than `n`, a cut below all of them."""
        key, above, ties = 0, 0, 0
        for shift in range((bits - 1) // DIGIT * DIGIT, -1, -DIGIT):
            digits = keys >> shift
            inside = digits[digits >> DIGIT == key] & ((1 << DIGIT) - 1)
            counts = self.ranks.add(torch.bincount(inside, minlength=1 << DIGIT)).cpu().flip(0)
            reached = counts.cumsum(0)
            if above + int(reached[-1]) < n:
                return _Cut(0, int(reached[-1]), 0)
            bin_ = int(torch.searchsorted(reached, n - above))
            ties = int(counts[bin_])
            above += int(reached[bin_]) - ties
            key = key << DIGIT | ((1 << DIGIT) - 1 - bin_)
        return _Cut(key, above, ties)


UNSHARED = Spread()


class _Cut(NamedTuple):
    key: int
    above: int
    """how many are larger"""
    ties: int
    """how many are equal"""


class SpreadOps:
    """The operations of a backend that involve all ranks: selection, and the sum that gives the reconstruction."""

    def __init__(self, ops: Ops, spread: Spread):
        self._ops, self._spread = ops, spread

    def select_topk(self, pre: Tensor, k: int) -> Active:
        """Select the `k` largest of each row over all ranks' latents; return those of this rank."""
        latents = self._spread.latents
        if latents.world == 1:
            return self._ops.select_topk(pre, k)
        active = self._ops.select_topk(pre, min(k, pre.shape[1]))
        values = active.values.view(len(pre), -1)
        chosen = _first_largest(torch.cat(latents.gather(values), dim=1), k)
        local = chosen[:, latents.rank * values.shape[1] :][:, : values.shape[1]] & (values > 0)
        return _kept(active, local.flatten())

    def select_batch(self, pre: Tensor, n: int) -> Active:
        """Select the largest positive values of all ranks, `n` for each rank that shares the tokens."""
        tokens, latents = self._spread.tokens, self._spread.latents
        whole = n * tokens.world
        active = self._ops.select_batch(pre, whole)
        keys = active.values.view(_INTEGERS[active.values.dtype]).long()
        rows = torch.repeat_interleave(active.starts.diff()) + tokens.rank * len(pre)
        width = pre.shape[1]
        places = rows * (width * latents.world) + latents.rank * width + active.latents
        return _kept(active, self._spread.largest(keys, places, whole, bits=_BITS[active.values.dtype]))

    def select_above(self, pre: Tensor, threshold: Tensor) -> Active:
        """Select by threshold; no other rank is needed."""
        return self._ops.select_above(pre, threshold)

    def decode(
        self, target: Tensor, W_dec: Tensor, active: Active, scale: float, ends: tuple[int, ...] = ()
    ) -> Decoded:
        """Add up the reconstructions of ranks that share the latents; the error is the same on all of them."""
        latents = self._spread.latents
        if latents.world == 1:
            return self._ops.decode(target, W_dec, active, scale, ends)
        assert not ends, "nested prefixes of a shared dictionary are refused before"
        part = self._ops.decode(torch.zeros_like(target), W_dec, active, 1.0).grad[0]
        missing = target - latents.add(part)
        # nothing is left to add, so this pass gives the error's gradients alone
        return self._ops.decode(missing, W_dec, active._replace(values=torch.zeros_like(active.values)), scale)

    def weight_gradients(
        self, x: Tensor, decoded: Decoded, active: Active, slopes: Tensor, out: Gradients, ends: tuple[int, ...] = ()
    ) -> Tensor:
        """Compute the gradients of this rank's tokens and latents."""
        return self._ops.weight_gradients(x, decoded, active, slopes, out, ends)

    def project(self, out: Gradients, W_dec: Tensor) -> float:
        """Project, and return the squared norm over all ranks, with `b_dec` counted once."""
        latents = self._spread.latents
        share = out if latents.first else replace(out, b_dec=out.b_dec[:0])
        return latents.total(self._ops.project(share, W_dec))

    def adam(self, weight: Tensor, grad: Tensor, moments: tuple[Tensor, Tensor], step: AdamStep, unit: bool) -> None:
        """Update the parameters that this rank holds."""
        self._ops.adam(weight, grad, moments, step, unit)


def kth_largest(ops: Ops, rows: Tensor, k: int, latents: Ranks) -> Tensor:
    """Return the `k`-th largest positive value of each of `rows [n, m]` over all ranks' columns, `[n, 1]`.

    0 where there are fewer. `ops` are those of this rank alone.
    """
    width = min(k, rows.shape[1])
    largest = rows.new_zeros(len(rows), k)
    if width:
        largest[:, :width] = ops.select_topk(rows, width).values.view(len(rows), width)
    if latents.world > 1:
        largest = torch.cat(latents.gather(largest), dim=1).topk(k, dim=1).values
    return largest.amin(1, keepdim=True)


def _first_largest(values: Tensor, k: int) -> Tensor:
    """Mark the `k` largest of each row, bool `[n, m]`; of equal values the first."""
    floor = values.topk(k, dim=1).values[:, -1:]
    above, tied = values > floor, values == floor
    return above | (tied & (tied.cumsum(1) <= k - above.sum(1, keepdim=True)))


def _kept(active: Active, keep: Tensor) -> Active:
    """Return the entries that `keep [nnz]` marks."""
    before = torch.cat([keep.new_zeros(1, dtype=torch.int64), keep.cumsum(0)])
    return Active(before[active.starts], active.latents[keep], active.values[keep])
