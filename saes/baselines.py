"""Dictionaries that learned no features, saved, evaluated and spliced as any other: what an SAE must beat.

The principal components are in `pca.py`; the neurons of an MLP with what they write in `neurons.py`.
"""

import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.recording.store import Recording
from interp.runtime import make_generator
from saes.kinds.base import SAE, SAEMetadata, Weights
from saes.kinds.topk import TopKSAE


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
