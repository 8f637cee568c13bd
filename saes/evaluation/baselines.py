"""Baseline dictionaries without learned features, saved, evaluated and spliced like any SAE.

- an untrained SAE (random unit directions): the null for every claim about features
- the principal components of a hook point: the linear baseline
- the coordinates of a hook point (at `mlp.hook_post` the neurons): the baseline of the standard basis

The last two are TopK SAEs of 2 d latents whose weights are computed rather than learned. Latent `i < d` is the distance
from the mean along direction `i`, and latent `d + i` the distance in the opposite direction, so activations are >= 0.
A token retains its `k` largest; with `k = d` the reconstruction is exact.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError
from interp.recording.store import Recording
from interp.seeds import make_generator
from saes.kinds.base import SAE, SAEMetadata, TopK, Weights
from saes.kinds.topk import TopKSAE
from saes.kinds.transcoder import Transcoder


def coordinates_of(recording: Recording, hook_point: str, *, k: int) -> TopKSAE:
    """Return the coordinates of a hook point as a dictionary; at `mlp.hook_post` they are the neurons.

    Latent `i < d` is the distance from the mean along coordinate `i`, latent `d + i` that in the opposite direction. A
    token retains its `k` largest. Raises `ConfigError` when `k` exceeds the width.
    """
    name = recording.check_hook_point(hook_point)
    d, mean = recording.d(name), recording.stats(name).mean.float()
    _check_k(k, d, name)
    both = torch.cat([torch.eye(d), -torch.eye(d)])
    return TopKSAE(
        Weights(both.T.contiguous(), torch.zeros(2 * d), both, mean), k=k, metadata=SAEMetadata.of(recording, name)
    )


def untrained_sae(recording: Recording, hook_point: str, *, d_sae: int, k: int, seed: int = 0) -> TopKSAE:
    """Return a TopK SAE as initialised before training.

    Decoder rows are random unit directions, the encoder is their transpose, and `b_dec` is the mean activation. Raises
    `ConfigError` when `k` exceeds `d_sae`.
    """
    name = recording.check_hook_point(hook_point)
    _check_k(k, d_sae, name)
    drawn = torch.randn(d_sae, recording.d(name), generator=make_generator(seed, "baseline", "untrained"))
    rows = torch.nn.functional.normalize(drawn, dim=1)
    mean = recording.stats(name).mean.float()
    weights = Weights(rows.T.contiguous(), torch.zeros(d_sae), rows, mean)
    return TopKSAE(weights, k=k, metadata=SAEMetadata.of(recording, name))


def untrained_like(sae: SAE, recording: Recording, x: Float[Tensor, "n d_in"], *, seed: int = 0) -> TopKSAE:
    """Return an untrained SAE with the size and device of `sae`, and with its L0 on `x [n, d_in]`."""
    active = sum(int((sae.encode_sparse(part.to(sae.device)).values > 0).sum()) for part in x.split(4096))
    k = max(1, min(round(active / max(len(x), 1)), sae.d_sae))
    return untrained_sae(recording, sae.hook_point, d_sae=sae.d_sae, k=k, seed=seed).to(sae.device)


def _check_k(k: int, most: int, name: str) -> None:
    if not 1 <= k <= most:
        raise ConfigError(f"k must lie between 1 and {most} at {name}, got {k}")


def random_dictionary_like(sae: SAE, *, k: int, seed: int = 0) -> SAE:
    """Return a dictionary of random unit directions with the shape, hook points and `b_dec` of `sae`.

    `k` latents are active per token. The encoder is the decoder's transpose where the widths agree. A skip connection
    is copied, since it belongs to no latent.
    """
    generator = make_generator(seed, "untrained", sae.metadata.hook_point)
    rows = torch.nn.functional.normalize(torch.randn(sae.d_sae, sae.d_out, generator=generator), dim=1)
    reads = rows
    if sae.d_in != sae.d_out:
        reads = torch.nn.functional.normalize(torch.randn(sae.d_sae, sae.d_in, generator=generator), dim=1)
    like = sae.W_dec
    W_enc, W_dec = (matrix.to(like.device, like.dtype) for matrix in (reads.T.contiguous(), rows))
    weights = Weights(W_enc, like.new_zeros(sae.d_sae), W_dec, sae.b_dec.detach().clone())
    k = min(k, sae.d_sae)
    if not isinstance(sae, Transcoder):
        return TopKSAE(weights, k=k, metadata=sae.metadata)
    skip = None if sae.W_skip is None else sae.W_skip.detach().clone()
    return Transcoder(weights, activation=TopK(k), W_skip=skip, metadata=sae.metadata)


@torch.no_grad()
def pca_of(recording: Recording, hook_point: str, *, k: int, heldout_fraction: float = 0.1) -> TopKSAE:
    """Return the principal components of the training rows as a dictionary, largest variance first.

    Component `i` has two latents, since activations are not negative: `i` for its positive side, `d + i` for the
    negative one. One pass over the recording, with sums in float64; memory `[d, d]`. Raises `ConfigError` when `k`
    exceeds the width.
    """
    name = recording.check_hook_point(hook_point)
    d, mean = recording.d(name), recording.stats(name).mean
    if not 1 <= k <= d:
        raise ConfigError(f"k must lie between 1 and the width {d} of {name}, got {k}")
    scatter, total, n = torch.zeros(d, d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64), 0
    for batch in recording.sequential([name], split="train", heldout_fraction=heldout_fraction):
        x = batch.activations[name].double() - mean  # centred near the true mean, which avoids cancellation
        scatter.addmm_(x.T, x)
        total, n = total + x.sum(0), n + len(x)
    offset = total / max(n, 1)
    _, vectors = torch.linalg.eigh(scatter / max(n, 1) - torch.outer(offset, offset))  # ascending variance
    components = vectors.T.flip(0).float()
    both = torch.cat([components, -components])
    weights = Weights(both.T.contiguous(), torch.zeros(2 * d), both, (mean + offset).float())
    return TopKSAE(weights, k=k, metadata=SAEMetadata.of(recording, name))
