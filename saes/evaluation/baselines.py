"""Dictionaries that learned no features, saved, evaluated and spliced as any other: what an SAE must beat.

The principal components are in `pca.py`; the neurons of an MLP with what they write in `neurons.py`.

A dictionary that was never trained, in the place of one that was: the null of every claim about features.

The principal components of a place as a dictionary: the linear baseline that features must beat.

Feature `i` is the distance from the mean along component `i`, feature `d + i` the same in the other direction, so that
activations are >= 0. A token keeps its `k` largest: that is a TopK SAE with 2 d features whose weights were computed
rather than learned, and it is saved, loaded, evaluated and spliced as one. With `k = d` the reconstruction is exact.
"""

import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.recording.store import Recording
from interp.runtime import make_generator
from saes.kinds.base import SAE, SAEMetadata, TopK, Weights
from saes.kinds.topk import TopKSAE
from saes.kinds.transcoder import Transcoder


def coordinates_of(recording: Recording, hook_point: str, *, k: int) -> TopKSAE:
    """The coordinates of a place, at `mlp.hook_post` the neurons: feature `i < d` is the distance from the mean along
    coordinate `i`, feature `d + i` the same in the other direction; a token keeps its `k` largest.

    Raises `ConfigError` when `k` exceeds the width.
    """
    name = recording.check_hook_point(hook_point)
    d, mean = recording.d(name), recording.stats(name).mean.float()
    _check_k(k, d, name)
    both = torch.cat([torch.eye(d), -torch.eye(d)])
    return TopKSAE(Weights(both.T.contiguous(), torch.zeros(2 * d), both, mean), k=k, metadata=_at(recording, name))


def untrained_sae(recording: Recording, hook_point: str, *, d_sae: int, k: int, seed: int = 0) -> TopKSAE:
    """A TopK SAE as training would start it: random unit directions, the encoder their transpose, `b_dec` the mean.

    Raises `ConfigError` when `k` exceeds `d_sae`.
    """
    name = recording.check_hook_point(hook_point)
    _check_k(k, d_sae, name)
    drawn = torch.randn(d_sae, recording.d(name), generator=make_generator(seed, "baseline", "untrained"))
    rows = torch.nn.functional.normalize(drawn, dim=1)
    mean = recording.stats(name).mean.float()
    weights = Weights(rows.T.contiguous(), torch.zeros(d_sae), rows, mean)
    return TopKSAE(weights, k=k, metadata=_at(recording, name))


def untrained_like(sae: SAE, recording: Recording, x: Tensor, *, seed: int = 0) -> TopKSAE:
    """An untrained SAE of the size of `sae`, and as sparse as it is on `x [n, d_in]`."""
    active = sum(int((sae.encode_sparse(part).values > 0).sum()) for part in x.split(4096))
    k = max(1, min(round(active / max(len(x), 1)), sae.d_sae))
    return untrained_sae(recording, sae.hook_point, d_sae=sae.d_sae, k=k, seed=seed)


def _check_k(k: int, most: int, name: str) -> None:
    if not 1 <= k <= most:
        raise ConfigError(f"k must lie between 1 and {most} at {name}, got {k}")


def _at(recording: Recording, hook_point: str) -> SAEMetadata:
    return SAEMetadata(
        model=recording.model,
        weight_hash=recording.weight_hash,
        hook_point=hook_point,
        context_size=recording.context_length,
        bos=str(recording.manifest.config.get("bos", "")),
    )


def random_dictionary_like(sae: SAE, *, k: int, seed: int = 0) -> SAE:
    """Random unit directions of the same sizes at the same place, `k` active per token, with the same `b_dec`.

    The encoder is the decoder's transpose where the widths agree. A skip connection is part of no feature and is kept.
    """
    generator = make_generator(seed, "untrained", sae.metadata.hook_point)
    rows = torch.nn.functional.normalize(torch.randn(sae.d_sae, sae.d_out, generator=generator), dim=1)
    reads = rows
    if sae.d_in != sae.d_out:
        reads = torch.nn.functional.normalize(torch.randn(sae.d_sae, sae.d_in, generator=generator), dim=1)
    like = sae.W_dec
    W_enc, W_dec = (each.to(like.device, like.dtype) for each in (reads.T.contiguous(), rows))
    weights = Weights(W_enc, torch.zeros_like(sae.b_enc), W_dec, sae.b_dec.detach().clone())
    k = min(k, sae.d_sae)
    if not isinstance(sae, Transcoder):
        return TopKSAE(weights, k=k, metadata=sae.metadata)
    skip = None if sae.W_skip is None else sae.W_skip.detach().clone()
    return Transcoder(weights, activation=TopK(k), W_skip=skip, metadata=sae.metadata)


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
