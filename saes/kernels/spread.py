"""A training step spread over ranks (`interp.ranks`): which rank holds what, and choices among what all of them hold.

Every number of a step is a sum over tokens, a sum over latents, or the choice of the largest among all of them. Ranks
may share the tokens of a batch (data parallel: each holds the whole dictionary and an equal run of the rows) or the
latents of a dictionary (each holds all rows and an equal run of the latents). Then the sums over what is shared are
added up over ranks, choices are made among all, and the step is that of one process up to the rounding of sums. A
process that is alone shares nothing, and nothing here costs it anything.

The `n`-th largest of numbers that lie on several ranks is found by its digits (radix selection): ranks add up how many
of their numbers have each value of the next 11 bits. It is exact, and costs 16 KB a round whatever the batch: three
rounds for float32, six for float64. Where equal numbers straddle the cut, the earlier ones (by token, then by latent)
are taken, as in one process.
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
    """Who shares what. At most one of the two has more than one rank."""

    tokens: Ranks = ALONE
    """each holds an equal run of a batch's rows"""
    latents: Ranks = ALONE
    """each holds an equal run of the latents"""

    @property
    def ranks(self) -> Ranks:
        """All ranks of the run."""
        return self.latents if self.latents.world > 1 else self.tokens

    @property
    def alone(self) -> bool:
        return self.ranks.world == 1

    def largest(self, keys: Tensor, places: Tensor, n: int, *, bits: int = 63) -> Tensor:
        """Which of `keys [m]` (int64, > 0, below `2^bits`) are among the `n` largest of all ranks.

        Of equal keys those at the lower `places [m]` (int64, of each key in the whole) come first.
        """
        cut = self._nth_largest(keys, n, bits)
        if cut.above + cut.ties <= n:
            return keys >= cut.key
        tied = keys == cut.key
        last = int(-self.ranks.least(-float(places.max() if len(places) else 0)))
        early = self._nth_largest(last + 1 - places[tied], n - cut.above, max(1, (last + 1).bit_length()))
        return (keys > cut.key) | (tied & (last + 1 - places >= early.key))

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
            place = int(torch.searchsorted(reached, n - above))
            ties = int(counts[place])
            above += int(reached[place]) - ties
            key = key << DIGIT | ((1 << DIGIT) - 1 - place)
        return _Cut(key, above, ties)


UNSHARED = Spread()


class _Cut(NamedTuple):
    key: int
    above: int
    """how many are larger"""
    ties: int
    """how many are equal"""


class SpreadOps:
    """The operations of a backend where they look beyond one rank: selection, and the sum that is a reconstruction."""

    def __init__(self, ops: Ops, spread: Spread):
        self._ops, self._spread = ops, spread

    def select_topk(self, pre: Tensor, k: int) -> Active:
        """The `k` largest of each row, of all ranks' latents; those of this rank are returned."""
        latents = self._spread.latents
        if latents.world == 1:
            return self._ops.select_topk(pre, k)
        found = self._ops.select_topk(pre, min(k, pre.shape[1]))
        values = found.values.view(len(pre), -1)
        chosen = _first_largest(torch.cat(latents.gather(values), dim=1), k)
        mine = chosen[:, latents.rank * values.shape[1] :][:, : values.shape[1]] & (values > 0)
        return _kept(found, mine.flatten())

    def select_batch(self, pre: Tensor, n: int) -> Active:
        """The largest positive values of all ranks, `n` for each rank that shares the tokens."""
        tokens, latents = self._spread.tokens, self._spread.latents
        whole = n * tokens.world
        found = self._ops.select_batch(pre, whole)
        keys = found.values.view(_INTEGERS[found.values.dtype]).long()
        rows = torch.repeat_interleave(found.starts.diff()) + tokens.rank * len(pre)
        width = pre.shape[1]
        places = rows * (width * latents.world) + latents.rank * width + found.latents
        return _kept(found, self._spread.largest(keys, places, whole, bits=_BITS[found.values.dtype]))

    def select_above(self, pre: Tensor, threshold: Tensor) -> Active:
        """Each value is judged alone."""
        return self._ops.select_above(pre, threshold)

    def decode(
        self, target: Tensor, W_dec: Tensor, active: Active, scale: float, ends: tuple[int, ...] = ()
    ) -> Decoded:
        """Ranks that share the latents add up what each reconstructs; the error then belongs to all of them."""
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
        """Of this rank's tokens and latents."""
        return self._ops.weight_gradients(x, decoded, active, slopes, out, ends)

    def project(self, out: Gradients, W_dec: Tensor) -> float:
        """The squared length counts what every rank holds, `b_dec` once."""
        latents = self._spread.latents
        own = out if latents.first else replace(out, b_dec=out.b_dec[:0])
        return latents.total(self._ops.project(own, W_dec))

    def adam(self, weight: Tensor, grad: Tensor, moments: tuple[Tensor, Tensor], step: AdamStep, unit: bool) -> None:
        """Every rank updates what it holds."""
        self._ops.adam(weight, grad, moments, step, unit)


def kth_largest(ops: Ops, rows: Tensor, k: int, latents: Ranks) -> Tensor:
    """`[n, 1]`: the `k`-th largest positive value of each of `rows [n, m]`, of all ranks' columns; 0 where there are
    fewer. `ops` are those of this rank alone."""
    width = min(k, rows.shape[1])
    own = rows.new_zeros(len(rows), k)
    if width:
        own[:, :width] = ops.select_topk(rows, width).values.view(len(rows), width)
    if latents.world > 1:
        own = torch.cat(latents.gather(own), dim=1).topk(k, dim=1).values
    return own.amin(1, keepdim=True)


def _first_largest(values: Tensor, k: int) -> Tensor:
    """Bool `[n, m]`: the `k` largest of each row; of equal values the first."""
    floor = values.topk(k, dim=1).values[:, -1:]
    above, tied = values > floor, values == floor
    return above | (tied & (tied.cumsum(1) <= k - above.sum(1, keepdim=True)))


def _kept(active: Active, keep: Tensor) -> Active:
    """The entries that `keep [nnz]` marks."""
    before = torch.cat([keep.new_zeros(1, dtype=torch.int64), keep.cumsum(0)])
    return Active(before[active.starts], active.latents[keep], active.values[keep])
