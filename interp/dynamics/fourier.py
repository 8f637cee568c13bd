"""What grokking grows: an addition by angles, seen in the Fourier components of embedding and logits.

The network that generalises adds by rotating (Nanda et al. 2023, section 4): for a few key frequencies k,

    logits(a, b, c)  ~  sum over key k of  A_k cos(w_k (a + b - c))        w_k = 2 pi k / p,  k = 1 .. (p - 1) / 2

| measure | | 0, 1 |
|---|---|---|
| `logit_share[k]` | of the power of the centred logits, how much is in `cos w_k(a+b)`, `sin w_k(a+b)` | 0 none, 1 all |
| `embedding_share[k]` | of the power of `W_E` along tokens, how much is in `cos w_k a`, `sin w_k a` | 0 none, 1 all |
| restricted loss | on all pairs, of the key frequencies' part of the logits alone (5.1) | `log p` knows nothing |
| excluded loss | on training pairs, of the logits without that part: what memory alone explains | |
| Gini | of the Fourier norms of `W_E` | 0 all alike, towards 1 few |

Embedding and logits are read apart from each other: that they name the same frequencies is a check, not a definition.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from interp.dynamics.modular import ModularConfig, Parameters, all_logits, pair_losses, training_pairs
from interp.errors import ConfigError, MismatchError, NonFiniteError

KEY_SHARE = 0.02
"""Share of the logits' power above which a frequency is key. Logits without structure give each about `1 / p^2`."""
ABOVE_EVEN = 2.0
"""All of an embedding's power lies in the frequencies, whatever it is: a key holds more than twice an even share."""


class Progress(NamedTuple):
    """Measures of one snapshot; every tensor starts with the seeds."""

    restricted_loss: Tensor
    """`[n_seeds]` nats, all pairs"""
    excluded_loss: Tensor
    """`[n_seeds]` nats, training pairs"""
    logit_share: Tensor
    """`[n_seeds, (p - 1) / 2]`"""
    embedding_share: Tensor
    gini: Tensor
    """`[n_seeds]`"""
    weight_norm: Tensor
    """`[n_seeds]` sum of squares of all weights"""


def measure_progress(parameters: Parameters, config: ModularConfig, keys: list[list[int]]) -> Progress:
    """Measures of `parameters` with each seed's key frequencies (found at the end of training, `key_frequencies`).

    Raises `MismatchError` on parameters of another config, `ConfigError` on keys that are no frequencies of it,
    `NonFiniteError`.
    """
    _check(parameters, config, keys)
    logits = all_logits(parameters, config).double()
    centred = logits - logits.mean(-1, keepdim=True)
    waves = pair_waves(config.p)
    parts = torch.einsum("kwn,snc->skwc", waves, centred)
    restricted = torch.zeros_like(centred)
    for seed, mine in enumerate(keys):
        rows = [k - 1 for k in mine]
        restricted[seed] = torch.einsum("kwn,kwc->nc", waves[rows], parts[seed, rows])
    train = training_pairs(config)
    excluded = pair_losses(_at(centred - restricted, train), config, train)
    return Progress(
        pair_losses(restricted, config).mean(1),
        excluded.mean(1),
        _share(parts, centred),
        *_embedding(parameters["W_E"][:, :-1].double(), config.p),
        sum_of_squares(parameters),
    )


def key_frequencies(logit_share: Tensor) -> list[list[int]]:
    """Per seed the frequencies (from 1) that hold more than `KEY_SHARE` of the logits' power, rising."""
    return _above(logit_share, KEY_SHARE)


def embedding_frequencies(embedding_share: Tensor) -> list[list[int]]:
    """The same of the embedding: those with more than `ABOVE_EVEN` times an even share."""
    return _above(embedding_share, ABOVE_EVEN / embedding_share.shape[1])


def _above(share: Tensor, least: float) -> list[list[int]]:
    return [[k + 1 for k in (row > least).nonzero()[:, 0].tolist()] for row in share]


def shares(parameters: Parameters, config: ModularConfig) -> tuple[Tensor, Tensor]:
    """`logit_share` and `embedding_share` alone: they need no key frequencies. 0 where there is no power at all."""
    found = measure_progress(parameters, config, [[1]] * len(config.seeds))
    return found.logit_share, found.embedding_share


def token_waves(p: int) -> Tensor:
    """`[(p - 1) / 2, 2, p]` float64: cosine and sine of every frequency over tokens, of length one, at right angles."""
    k = torch.arange(1, (p - 1) // 2 + 1, dtype=torch.float64)
    angle = 2 * torch.pi * k[:, None] * torch.arange(p, dtype=torch.float64) / p
    return torch.stack([angle.cos(), angle.sin()], 1) * (2 / p) ** 0.5


def pair_waves(p: int) -> Tensor:
    """`[(p - 1) / 2, 2, p^2]`: the same of `a + b` over all pairs in order `a * p + b`, of length one."""
    pairs = torch.arange(p**2)
    return token_waves(p)[:, :, (pairs // p + pairs % p) % p] / p**0.5


def gini(values: Tensor) -> Tensor:
    """`[...]` Gini coefficient over the last axis: 0 when all are equal, `1 - 1/n` when one holds everything."""
    ordered = values.sort(-1).values
    n = values.shape[-1]
    place = torch.arange(1, n + 1, dtype=values.dtype)
    return ((2 * place - n - 1) * ordered).sum(-1) / (n * ordered.sum(-1).clamp_min(1e-300))


def sum_of_squares(parameters: Parameters) -> Tensor:
    return torch.stack([value.double().square().flatten(1).sum(1) for value in parameters.values()]).sum(0)


def _embedding(W_E: Tensor, p: int) -> tuple[Tensor, Tensor]:
    """Shares of the frequencies in `W_E [n_seeds, p, d_model]`, and the Gini coefficient of their norms."""
    parts = torch.einsum("kwn,snd->skwd", token_waves(p), W_E)
    centred = W_E - W_E.mean(1, keepdim=True)
    return _share(parts, centred), gini(parts.square().sum(3).sqrt().flatten(1))


def _share(parts: Tensor, centred: Tensor) -> Tensor:
    """`[n_seeds, (p - 1) / 2]`: the power of each frequency's parts over all power; 0 when there is none."""
    return parts.square().sum((2, 3)) / centred.square().sum((1, 2))[:, None].clamp_min(1e-300)


def _check(parameters: Parameters, config: ModularConfig, keys: list[list[int]]) -> None:
    expected, came = (len(config.seeds), config.p + 1, config.d_model), tuple(parameters["W_E"].shape)
    if came != expected:
        raise MismatchError(
            f"W_E of this config is [n_seeds, p + 1, d_model] = {list(expected)}, got {list(came)}; give the config "
            "that these parameters were trained with"
        )
    half = (config.p - 1) // 2
    if len(keys) != len(config.seeds) or not all(1 <= k <= half for mine in keys for k in mine):
        raise ConfigError(
            f"frequencies from 1 to {half} were expected for each of {len(config.seeds)} seeds, got {keys}; take those "
            "of `key_frequencies`"
        )
    for name, value in parameters.items():
        if not torch.isfinite(value).all():
            raise NonFiniteError(f"weights must be finite, {name} holds NaN or infinity; train with a lower lr")


def _at(logits: Tensor, pairs: Tensor) -> Tensor:
    return logits.gather(1, pairs[..., None].expand(-1, -1, logits.shape[-1]))
