"""Statistics of every latent over a recording, in one streaming pass.

1. read a block of whole contexts, and encode its real rows;
2. group the firings of the block by feature;
3. update counts, histograms, the strongest firings and a uniform sample of firings, each with its window.

A *firing* is one feature active on one row. A block's firings are grouped by feature, in row order. The activations
around a firing are then next to it in the list, and a window is read by walking left and right. The loops are compiled,
and linear in the number of firings.

Memory does not grow with the number of tokens. It is `d_sae * ((n_top + n_sample) * (2 * window + 6) + 200) * ~4` bytes
(about 80 MB for 4,608 features at the defaults), plus one block.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from interp.dictionary import Dictionary, SparseActs
from interp.errors import ConfigError, MismatchError, NonFiniteError
from interp.progress import Progress
from interp.recording.store import Recording, TokenShard
from saes.features._token_index import Spelling, TokenIndex

N_SAMPLE = 64
"""Firings sampled per feature; quarters of activation and labels are estimated from them."""
BLOCK_ROWS = 4096
MAX_BINS = 40


class FeatureStatistics:
    """Statistics of firings, accumulated block by block. The result does not depend on the division into blocks."""

    def __init__(self, d_sae: int, *, context_length: int, window: int, n_top: int, n_sample: int, seed: int):
        for name, number, least in (("n_top", n_top, 1), ("n_sample", n_sample, 1), ("window", window, 0)):
            if number < least:
                raise ConfigError(f"{name} must be at least {least}, got {number}")
        self.d_sae, self.context_length, self.window = d_sae, context_length, window
        self.seed = np.uint64(seed)
        self.n_tokens = 0
        self.totals = Totals(
            np.zeros(d_sae, np.int64),
            np.zeros(d_sae, np.float64),
            np.zeros(d_sae, np.float32),
            np.zeros((d_sae, N_FINE_BINS), np.int64),
        )
        self.top = _empty_slots(d_sae, n_top, window)
        self.sample = _empty_slots(d_sae, n_sample, window)

    def add(self, acts: SparseActs, rows: Tensor) -> None:
        """Add one block of whole contexts: the activations of `rows [n]`, global row numbers in ascending order."""

        values = acts.values.detach().to("cpu", torch.float32).contiguous().numpy()
        indices = acts.indices.detach().to("cpu", torch.int64).contiguous().numpy()
        firings = group_by_feature(values, indices, rows.numpy(), self.d_sae)
        add_totals(firings, self.totals)
        update_strongest(firings, self.top, self.window, self.context_length)
        update_sample(firings, self.sample, self.window, self.context_length, self.seed)
        self.n_tokens += len(rows)

    @classmethod
    def joined(cls, parts: "Sequence[FeatureStatistics]") -> "FeatureStatistics":
        """Return the statistics of several dictionaries over one recording as those of one."""
        first = parts[0]
        out = cls(
            0,
            context_length=first.context_length,
            window=first.window,
            n_top=first.top.keys.shape[1],
            n_sample=first.sample.keys.shape[1],
            seed=int(first.seed),
        )
        out.d_sae, out.n_tokens = sum(part.d_sae for part in parts), first.n_tokens
        out.totals = Totals(*(np.concatenate(arrays) for arrays in zip(*(part.totals for part in parts), strict=True)))
        out.top = Slots(*(np.concatenate(arrays) for arrays in zip(*(part.top for part in parts), strict=True)))
        out.sample = Slots(*(np.concatenate(arrays) for arrays in zip(*(part.sample for part in parts), strict=True)))
        return out

    @property
    def density(self) -> np.ndarray:
        """Fraction of tokens on which each feature is active, `[d_sae]` float64; 0 never, 1 always."""
        return self.totals.n_fired / max(self.n_tokens, 1)

    @property
    def mean_activation(self) -> np.ndarray:
        """Mean activation over active tokens, `[d_sae]` float64; 0 for a feature that never fired."""
        return self.totals.total / np.maximum(self.totals.n_fired, 1)

    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """Return counts of activations `[d_sae, n_bins]`, and the log-spaced edges `[n_bins + 1]` of all features.

        The pass counts into fine bins over 48 octaves. Here the range in use is divided into at most 40 equal bins.
        """

        fine = self.totals.fine_histogram
        used = np.flatnonzero(fine.sum(0))
        low, high = (used[0], used[-1] + 1) if len(used) else (0, 1)
        per_bin = -(-(high - low) // MAX_BINS)
        n_bins = -(-(high - low) // per_bin)
        cut = fine[:, low : low + n_bins * per_bin]
        cut = np.pad(cut, ((0, 0), (0, n_bins * per_bin - cut.shape[1])))
        edges = 2.0 ** ((low + per_bin * np.arange(n_bins + 1)) / BINS_PER_OCTAVE + LOWEST_OCTAVE)
        return cut.reshape(len(fine), n_bins, per_bin).sum(2), edges


class Encoded(NamedTuple):
    """A dictionary whose firings are collected."""

    dictionary: Dictionary
    hook_point: str
    """the hook point that it reads, among those of the recording"""
    words: tuple[TokenIndex, Spelling] | None = None
    """collects in the same pass on which tokens each feature fires"""


def collect_together(
    wanted: Sequence[Encoded],
    recording: Recording,
    *,
    window: int,
    n_top: int,
    n_sample: int = N_SAMPLE,
    seed: int,
    block_rows: int = BLOCK_ROWS,
    progress: Progress | None = None,
) -> list[FeatureStatistics]:
    """Collect the statistics of every feature of some dictionaries in one pass over all real rows.

    A live recording runs its model once for all hook points. Raises `MismatchError` when the recording's width is not
    the dictionary's, `NonFiniteError` on NaN or infinity.
    """
    for dictionary, hook_point, _ in wanted:
        width = recording.d(hook_point)
        if width != dictionary.d_in:
            raise MismatchError(
                f"the dictionary reads vectors of {dictionary.d_in}, {hook_point} of {recording.folder} has {width}; "
                "choose the recording it was trained on"
            )
    length = recording.context_length
    every = [
        FeatureStatistics(
            source.dictionary.d_sae, context_length=length, window=window, n_top=n_top, n_sample=n_sample, seed=seed
        )
        for source in wanted
    ]
    step = max(1, block_rows // length) * length
    names = list(dict.fromkeys(source.hook_point for source in wanted))
    for shard in range(recording.n_shards):
        tokens = recording.token_shard(shard)
        real = tokens.document >= 0
        for start in range(0, len(real), step):
            local = real[start : start + step].nonzero().squeeze(1) + start
            if not len(local):
                continue
            values = recording.read_local(names, shard, local)
            rows = local + int(recording.shard_starts[shard])
            for (dictionary, hook_point, words), statistics in zip(wanted, every, strict=True):
                acts = _encode(dictionary, values[hook_point].float(), rows, recording, hook_point)
                statistics.add(acts, rows)
                if words is not None:
                    _add_to_index(words, acts, tokens, local.numpy(), length)
            if progress is not None:
                done = int(recording.shard_starts[shard]) + min(start + step, len(real))
                progress(done, recording.n_rows, {"tokens": every[0].n_tokens})
    return every


def _add_to_index(
    index: tuple[TokenIndex, Spelling], acts: SparseActs, tokens: TokenShard, at: np.ndarray, context_length: int
) -> None:
    """Add the firings on the tokens `at [n]` of a shard. Words begin anew after BOS or padding, and in another text."""
    document = tokens.document.numpy()[at]
    begins = (np.diff(at, prepend=-2) != 1) | (np.diff(document, prepend=-2) != 0) | (at % context_length == 0)
    values, features = acts.values.detach().to("cpu", torch.float32), acts.indices.detach().to("cpu", torch.int64)
    index[0].add(values.numpy(), features.numpy(), tokens.tokens.numpy()[at].astype(np.int64), begins, index[1])


@torch.no_grad()
def _encode(dictionary: Dictionary, x: Tensor, rows: Tensor, recording: Recording, hook_point: str) -> SparseActs:
    if not torch.isfinite(x.sum()):
        bad = (~torch.isfinite(x).all(1)).nonzero().squeeze(1)
        if len(bad):
            raise NonFiniteError(
                f"{recording.folder}: {hook_point} holds NaN or infinity at row {int(rows[bad[0]])} "
                f"({len(bad)} rows in this block); record it again in a wider dtype"
            )
    acts = dictionary.encode_sparse(x.to(dictionary.decoder_directions.device))
    if not torch.isfinite(acts.values.sum()):
        raise NonFiniteError(
            "expected finite latent activations, the dictionary gives NaN or infinity on finite inputs; "
            "its weights are damaged: train or import it again"
        )
    return acts


def _empty_slots(d_sae: int, n: int, window: int):

    return Slots(
        np.full((d_sae, n), -1.0, np.float64),
        np.zeros((d_sae, n), np.int64),
        np.zeros((d_sae, n), np.float32),
        np.zeros((d_sae, n, 2 * window + 1), np.float32),
        np.zeros(d_sae, np.int64),
    )


BINS_PER_OCTAVE = 4
LOWEST_OCTAVE, HIGHEST_OCTAVE = -24, 24
N_FINE_BINS = BINS_PER_OCTAVE * (HIGHEST_OCTAVE - LOWEST_OCTAVE)


class Totals(NamedTuple):
    """Running sums per feature."""

    n_fired: np.ndarray
    """Number of firings, `[d_sae]` int64."""
    total: np.ndarray
    """Sum of activations, `[d_sae]` float64."""
    maximum: np.ndarray
    """Largest activation, `[d_sae]` float32."""
    fine_histogram: np.ndarray
    """Counts of activations in log-spaced bins, `[d_sae, N_FINE_BINS]` int64."""


class Slots(NamedTuple):
    """The firings with the largest keys of each feature, each with its window of activations."""

    keys: np.ndarray
    """Key by which firings are ranked, `[d_sae, n]` float64; -1 in an empty slot."""
    rows: np.ndarray
    """Global row of the firing, `[d_sae, n]` int64."""
    values: np.ndarray
    """Activation of the firing, `[d_sae, n]` float32."""
    windows: np.ndarray
    """Activations of the feature on the rows around, `[d_sae, n, 2 * window + 1]` float32; 0 outside the context."""
    worst: np.ndarray
    """Slot with the smallest key, which is replaced next, `[d_sae]` int64."""


class Firings(NamedTuple):
    """The firings of one block, grouped by feature."""

    starts: np.ndarray
    """Bounds `[d_sae + 1]` int64: the firings of feature `f` are `starts[f]:starts[f + 1]`."""
    rows: np.ndarray
    """Global row of each firing, `[n_firings]` int64, ascending within a feature."""
    values: np.ndarray
    """Activation of each firing, `[n_firings]` float32."""


@njit(cache=True)
def group_by_feature(values, indices, rows, d_sae):
    """Group the firings in `values, indices [n_rows, k]` by feature, with a counting sort; zeros are padding."""
    starts = np.zeros(d_sae + 1, np.int64)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            if values[i, j] > 0:
                starts[indices[i, j] + 1] += 1
    for f in range(d_sae):
        starts[f + 1] += starts[f]
    free = starts[:-1].copy()
    out_rows = np.empty(starts[-1], np.int64)
    out_values = np.empty(starts[-1], np.float32)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            if values[i, j] > 0:
                at = free[indices[i, j]]
                free[indices[i, j]] = at + 1
                out_rows[at] = rows[i]
                out_values[at] = values[i, j]
    return Firings(starts, out_rows, out_values)


@njit(cache=True)
def add_totals(firings, totals):
    """Add a block's firings to counts, sums, maxima and fine log-spaced histograms."""
    for f in range(len(firings.starts) - 1):
        for i in range(firings.starts[f], firings.starts[f + 1]):
            value = firings.values[i]
            totals.n_fired[f] += 1
            totals.total[f] += value
            totals.maximum[f] = max(totals.maximum[f], value)
            octave = np.log2(value) - LOWEST_OCTAVE
            fine = min(max(int(octave * BINS_PER_OCTAVE), 0), N_FINE_BINS - 1)
            totals.fine_histogram[f, fine] += 1


@njit(cache=True)
def update_strongest(firings, slots, window, context_length):
    """Update each feature's slots: the strongest firing of each of the `n` contexts where it fires most strongly."""
    for f in range(len(firings.starts) - 1):
        for i in range(firings.starts[f], firings.starts[f + 1]):
            key = np.float64(firings.values[i])
            if key <= slots.keys[f, slots.worst[f]]:
                continue
            slot = _slot_of_context(slots, f, firings.rows[i] // context_length, context_length)
            if key > slots.keys[f, slot]:
                _put(slots, f, slot, key, i, firings, window, context_length)


@njit(cache=True)
def update_sample(firings, slots, window, context_length, seed):
    """Update a uniform sample of each feature's firings: those with the largest hash of `(seed, feature, row)`.

    The hash does not depend on the order of reading, so neither does the sample.
    """
    for f in range(len(firings.starts) - 1):
        for i in range(firings.starts[f], firings.starts[f + 1]):
            key = _uniform(seed, f, firings.rows[i])
            if key > slots.keys[f, slots.worst[f]]:
                _put(slots, f, slots.worst[f], key, i, firings, window, context_length)


@njit(cache=True)
def _slot_of_context(slots, f, context, context_length):
    """Return the slot that already holds a firing in this context, or else the one with the smallest key."""
    for slot in range(slots.keys.shape[1]):
        if slots.keys[f, slot] >= 0 and slots.rows[f, slot] // context_length == context:
            return slot
    return slots.worst[f]


@njit(cache=True)
def _put(slots, f, slot, key, i, firings, window, context_length):
    slots.keys[f, slot] = key
    slots.rows[f, slot] = firings.rows[i]
    slots.values[f, slot] = firings.values[i]
    _write_window(slots.windows[f, slot], i, f, firings, window, context_length)
    worst = 0
    for column in range(1, slots.keys.shape[1]):
        if slots.keys[f, column] < slots.keys[f, worst]:
            worst = column
    slots.worst[f] = worst


@njit(cache=True)
def _write_window(out, i, f, firings, window, context_length):
    """Write the activations around firing `i` into `out`, walking to both sides within its window and context."""
    row = firings.rows[i]
    first = max(row - window, row - row % context_length)
    last = min(row + window, row - row % context_length + context_length - 1)
    out[:] = 0
    j = i
    while j >= firings.starts[f] and firings.rows[j] >= first:
        out[window + firings.rows[j] - row] = firings.values[j]
        j -= 1
    j = i + 1
    while j < firings.starts[f + 1] and firings.rows[j] <= last:
        out[window + firings.rows[j] - row] = firings.values[j]
        j += 1


@njit(cache=True)
def _uniform(seed, f, row):
    """Return a number in [0, 1), a 64-bit hash of the arguments (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = np.uint64(seed) + np.uint64(row) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(f) * np.uint64(0xD1B54A32D192ED03)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return np.float64(x >> np.uint64(11)) * (1.0 / 9007199254740992.0)
