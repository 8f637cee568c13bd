"""The principal components of a place as a dictionary: the linear baseline that features must beat.

Feature `i` is the distance from the mean along component `i`, feature `d + i` the same in the other direction, so that
activations are >= 0. A token keeps its `k` largest: that is a TopK SAE with 2 d features whose weights were computed
rather than learned, and it is saved, loaded, evaluated and spliced as one. With `k = d` the reconstruction is exact.
"""

import torch

from interp.errors import ConfigError
from interp.recording.store import Recording
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.topk import TopKSAE


@torch.no_grad()
def pca_of(recording: Recording, hook_point: str, *, k: int, heldout_fraction: float = 0.1) -> TopKSAE:
    """The components of the training rows, the widest first: feature `i < d` and its mirror image `d + i`.

    One pass over the recording, sums in float64; memory `[d, d]`. Raises `ConfigError` when `k` exceeds the width.
    """
    name = recording.check_hook_point(hook_point)
    d, mean = recording.d(name), recording.stats(name).mean
    if not 1 <= k <= d:
        raise ConfigError(f"k must lie between 1 and the width {d} of {name}, got {k}")
    scatter, total, n = torch.zeros(d, d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64), 0
    for batch in recording.sequential([name], split="train", heldout_fraction=heldout_fraction):
        x = batch.activations[name].double() - mean  # about a fixed point near the mean: no cancellation
        scatter.addmm_(x.T, x)
        total, n = total + x.sum(0), n + len(x)
    offset = total / max(n, 1)
    _, vectors = torch.linalg.eigh(scatter / max(n, 1) - torch.outer(offset, offset))  # rising variance
    components = vectors.T.flip(0).float()
    both = torch.cat([components, -components])
    weights = Weights(both.T.contiguous(), torch.zeros(2 * d), both, (mean + offset).float())
    metadata = SAEMetadata(
        model=recording.model,
        weight_hash=recording.weight_hash,
        hook_point=name,
        context_size=recording.context_length,
        bos=str(recording.manifest.config.get("bos", "")),
    )
    return TopKSAE(weights, k=k, metadata=metadata)
