"""What each feature does over a recording, in one streaming pass.

1. read a block of whole contexts, encode its real rows;
2. group the firings by feature (`saes/firing_kernels.py`);
3. update counts, histograms, the strongest firings and a uniform sample of firings, with their windows.

Memory does not grow with the number of tokens: it is `d_sae * ((n_top + n_sample) * (2 * window + 6) + 200) * ~4` bytes
(about 60 MB for 4,608 features at the defaults), plus one block.
"""

import numpy as np
import torch
from torch import Tensor

from interp.dictionary import Dictionary, SparseActs
from interp.errors import ConfigError, MismatchError, NonFiniteError
from interp.progress import Progress
from interp.recording.store import Recording

N_SAMPLE = 64
"""Firings sampled per feature: quartiles and labels are read from these."""
BLOCK_ROWS = 4096
MAX_BINS = 40


class FeatureStatistics:
    """Accumulates firings block by block; the result does not depend on how the rows were cut into blocks."""

    def __init__(self, d_sae: int, *, context_length: int, window: int, n_top: int, n_sample: int, seed: int):
        from saes.firing_kernels import N_FINE_BINS, Totals

        if min(n_top, n_sample) < 1 or window < 0:
            raise ConfigError(f"n_top must be at least 1 and window at least 0, got {n_top} and {window}")
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
        """One block: activations of `rows [n]`, global row numbers in ascending order, whole contexts."""
        from saes.firing_kernels import add_totals, group_by_feature, keep_sample, keep_strongest

        values = acts.values.detach().to("cpu", torch.float32).contiguous().numpy()
        indices = acts.indices.detach().to("cpu", torch.int64).contiguous().numpy()
        firings = group_by_feature(values, indices, rows.numpy(), self.d_sae)
        add_totals(firings, self.totals)
        keep_strongest(firings, self.top, self.window, self.context_length)
        keep_sample(firings, self.sample, self.window, self.context_length, self.seed)
        self.n_tokens += len(rows)

    @property
    def density(self) -> np.ndarray:
        """`[d_sae]` float64: share of tokens on which each feature is active; 0 never, 1 always."""
        return self.totals.n_fired / max(self.n_tokens, 1)

    @property
    def mean_activation(self) -> np.ndarray:
        """`[d_sae]` float64: over active tokens; 0 for a feature that never fired."""
        return self.totals.total / np.maximum(self.totals.n_fired, 1)

    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts `[d_sae, n_bins]` and the edges `[n_bins + 1]` that all features share, log-spaced.

        The pass counts into fine bins over 48 octaves; here the range in use is cut into at most 40 equal ones.
        """
        from saes.firing_kernels import BINS_PER_OCTAVE, LOWEST_OCTAVE

        fine = self.totals.fine_histogram
        used = np.flatnonzero(fine.sum(0))
        low, high = (used[0], used[-1] + 1) if len(used) else (0, 1)
        per_bin = -(-(high - low) // MAX_BINS)
        n_bins = -(-(high - low) // per_bin)
        cut = fine[:, low : low + n_bins * per_bin]
        cut = np.pad(cut, ((0, 0), (0, n_bins * per_bin - cut.shape[1])))
        edges = 2.0 ** ((low + per_bin * np.arange(n_bins + 1)) / BINS_PER_OCTAVE + LOWEST_OCTAVE)
        return cut.reshape(len(fine), n_bins, per_bin).sum(2), edges


def collect_statistics(
    dictionary: Dictionary,
    recording: Recording,
    hook_point: str,
    *,
    window: int,
    n_top: int,
    n_sample: int = N_SAMPLE,
    seed: int,
    block_rows: int = BLOCK_ROWS,
    progress: Progress | None = None,
) -> FeatureStatistics:
    """One pass over all real rows. Raises `MismatchError` on a width that does not fit, `NonFiniteError` on NaN."""
    width = recording.d(hook_point)
    if width != dictionary.d_in:
        raise MismatchError(
            f"the dictionary reads vectors of {dictionary.d_in}, {hook_point} of {recording.folder} has {width}; "
            "choose the recording it was trained on"
        )
    statistics = FeatureStatistics(
        dictionary.d_sae,
        context_length=recording.context_length,
        window=window,
        n_top=n_top,
        n_sample=n_sample,
        seed=seed,
    )
    step = max(1, block_rows // recording.context_length) * recording.context_length
    for shard in range(recording.n_shards):
        real = recording.token_shard(shard).document >= 0
        for start in range(0, len(real), step):
            keep = real[start : start + step].nonzero().squeeze(1)
            x = recording.activation_shard(hook_point, shard, slice(start, start + step))
            rows = keep + start + int(recording.shard_starts[shard])
            x = x.index_select(0, keep).float()
            statistics.add(_encode(dictionary, x, rows, recording, hook_point), rows)
            if progress is not None:
                done = int(recording.shard_starts[shard]) + min(start + step, len(real))
                progress(done, recording.n_rows, {"tokens": statistics.n_tokens})
    return statistics


@torch.no_grad()
def _encode(dictionary: Dictionary, x: Tensor, rows: Tensor, recording: Recording, hook_point: str) -> SparseActs:
    if not torch.isfinite(x.sum()):
        bad = (~torch.isfinite(x).all(1)).nonzero().squeeze(1)
        if len(bad):
            raise NonFiniteError(
                f"{recording.folder}: {hook_point} holds NaN or infinity at row {int(rows[bad[0]])} "
                f"({len(bad)} rows in this block); record it again in a wider dtype"
            )
    acts = dictionary.encode_sparse(x)
    if not torch.isfinite(acts.values.sum()):
        raise NonFiniteError("the dictionary gives NaN or infinity on finite activations; its weights are damaged")
    return acts


def _empty_slots(d_sae: int, n: int, window: int):
    from saes.firing_kernels import Slots

    return Slots(
        np.full((d_sae, n), -1.0, np.float64),
        np.zeros((d_sae, n), np.int64),
        np.zeros((d_sae, n), np.float32),
        np.zeros((d_sae, n, 2 * window + 1), np.float32),
        np.zeros(d_sae, np.int64),
    )
