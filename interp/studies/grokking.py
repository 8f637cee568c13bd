"""Grokking of modular addition: training, Fourier progress measures and phases (Nanda et al. 2023, Power et al. 2022).

**Training** (`train_modular`): a transformer of one layer, without norms and biases, with ReLU.

    tokens  a  b  =      ->      a + b mod p

Only the last position is read. Its query is the same for all pairs, so keys and values are tables over tokens and a
step costs milliseconds. Weight decay causes grokking. Epochs are divided into batches, so that seeds do not get stuck
with a few wrong pairs. Every parameter is `[n_seeds, ...]`; seeds are independent, each with its own split, batches,
weights and optimiser moments.

**Progress measures** (`measure_progress`). The network that generalises adds by rotation (Nanda et al. 2023, section
4), which shows in the Fourier components of embedding and logits. For a few key frequencies k,

    logits(a, b, c)  ~  sum over key k of  A_k cos(w_k (a + b - c))        w_k = 2 pi k / p,  k = 1 .. (p - 1) / 2

| measure | | 0, 1 |
|---|---|---|
| `logit_share[k]` | fraction of the power of the centred logits in `cos w_k(a+b)`, `sin w_k(a+b)` | 0 none, 1 all |
| `embedding_share[k]` | fraction of the power of `W_E` along tokens in `cos w_k a`, `sin w_k a` | 0 none, 1 all |
| restricted loss | on all pairs, from the key frequencies' part of the logits alone (5.1) | `log p` is chance |
| excluded loss | on training pairs, from the logits without that part: the loss of memorisation alone | |
| Gini | of the Fourier norms of `W_E` | 0 all equal, near 1 few dominate |

Embedding and logits are analysed independently, so their agreement on the frequencies is evidence. The cause is tested
by `ablate_frequencies`: the network runs without the key frequencies in its embedding, with them alone, and without as
many others.

Phases are found by `interp.studies.grokking_phases`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from interp.atlas.vector_map import MapSettings, VectorMap
from interp.errors import ConfigError, MismatchError, NonFiniteError
from interp.models.training import TrainingFile
from interp.seeds import make_generator
from interp.studies.grokking_phases import (
    CURVES,
    LEARNED,
    FrequencyAblation,
    Grokking,
    ModularConfig,
    SeedRun,
    find_phases,
)
from interp.threads import one_thread

Parameters = dict[str, Tensor]
_MEASURES = CURVES[:4]
"""what a snapshot says of the outputs; the other curves need key frequencies"""


@dataclass(frozen=True)
class Snapshot:
    """State of training after an epoch; the first axis of every tensor is seeds."""

    epoch: int
    """0 before the first step"""
    parameters: Parameters
    """copies on the CPU"""
    train_loss: Float64[Tensor, " n_seeds"]
    """nats"""
    test_loss: Float64[Tensor, " n_seeds"]
    train_accuracy: Float64[Tensor, " n_seeds"]
    test_accuracy: Float64[Tensor, " n_seeds"]


def train_modular(config: ModularConfig, *, device: str = "cpu", state: Path | None = None) -> Iterator[Snapshot]:
    """Train all seeds at once, yielding before the first epoch, every `log_every` epochs and after the last.

    Training ends early, `settle` epochs after every seed has reached a test accuracy above `LEARNED`. Random numbers
    are drawn on the CPU, so every device starts from the same weights and sees the same batches. Snapshots are on the
    CPU. `state` is a file from which the same call goes on where it was interrupted, after it yielded again what is in
    the files next to it. Raises `NonFiniteError` when a loss is not finite, `ConfigError` for mps.
    """
    if device.startswith("mps"):
        raise ConfigError("losses are computed in float64, which mps does not have; use --device cpu")
    parameters = {name: value.to(device).requires_grad_() for name, value in initial_parameters(config).items()}
    training = training_pairs(config).to(device)
    optimizer = torch.optim.AdamW(
        parameters.values(),
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        foreach=True,
    )
    yield _snapshot(0, parameters, training, config)
    generators = [make_generator(seed, "modular batches") for seed in config.seeds]
    file = TrainingFile(state) if state else None
    first_epoch = file.load(parameters, optimizer, generators)[0] if file else 0
    best_accuracy, last_epoch = torch.full((len(config.seeds),), -torch.inf, dtype=torch.float64), config.epochs
    for epoch, tensors in file.added(first_epoch) if file else ():
        weights = {name: tensors[name] for name in parameters}  # their order counts in sums
        snapshot = Snapshot(epoch, weights, *(tensors[name] for name in _MEASURES))
        yield snapshot
        best_accuracy, last_epoch = _ending(best_accuracy, last_epoch, snapshot, config)
    if first_epoch >= last_epoch:
        return
    for epoch in range(first_epoch + 1, config.epochs + 1):
        loss = torch.zeros((), device=device)
        for pairs in _shuffled(training, generators).tensor_split(min(config.batches, training.shape[1]), 1):
            with torch.enable_grad(), one_thread():  # matrices this small are slower on several threads
                loss = pair_losses(all_logits(parameters, config, pairs), config, pairs).mean(1).sum()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
        if epoch % config.log_every == 0 or epoch == config.epochs:
            if not bool(torch.isfinite(loss)):
                raise NonFiniteError(f"a loss is {float(loss)} at epoch {epoch}; use a lower lr (it is {config.lr})")
            snapshot = _snapshot(epoch, parameters, training, config)
            if file:
                file.add(epoch, {name: getattr(snapshot, name) for name in _MEASURES} | snapshot.parameters)
                file.save(parameters, optimizer, generators, epoch)
            yield snapshot
            best_accuracy, last_epoch = _ending(best_accuracy, last_epoch, snapshot, config)
            if epoch >= last_epoch:
                return


def _ending(best: Tensor, last: int, snapshot: Snapshot, config: ModularConfig) -> tuple[Tensor, int]:
    """Return the best test accuracies so far, and the epoch after which training ends."""
    now = torch.maximum(best, snapshot.test_accuracy)
    if config.settle is None or bool((best > LEARNED).all()) or not bool((now > LEARNED).all()):
        return now, last
    return now, snapshot.epoch + config.settle


def _shuffled(train: Tensor, order: list[torch.Generator]) -> Tensor:
    """Shuffle the pairs of every seed independently."""
    drawn = torch.stack([torch.randperm(train.shape[1], generator=generator) for generator in order])
    return train.gather(1, drawn.to(train.device))


def initial_parameters(config: ModularConfig) -> Parameters:
    """Draw Gaussian weights of variance `1 / d_model` (the unembedding `1 / p`), each seed from its own generator."""
    p, d, heads, mlp = config.p, config.d_model, config.n_heads, config.d_mlp
    shapes = {
        "W_E": (p + 1, d),
        "W_pos": (3, d),
        "W_Q": (d, heads, d // heads),
        "W_K": (d, heads, d // heads),
        "W_V": (d, heads, d // heads),
        "W_O": (heads, d // heads, d),
        "W_in": (d, mlp),
        "W_out": (mlp, d),
        "W_U": (d, p),
    }
    generators = [make_generator(seed, "modular weights") for seed in config.seeds]
    return {
        name: torch.stack([torch.randn(*shape, generator=g) for g in generators]) / (p if name == "W_U" else d) ** 0.5
        for name, shape in shapes.items()
    }


def training_pairs(config: ModularConfig) -> Int64[Tensor, "n_seeds n_train"]:
    """Return the training pairs of each seed, as numbers `a * p + b`.

    `(b, a)` is always drawn with `(a, b)`. Otherwise half of the test pairs would be mirror images of training pairs,
    and a model that learned only the symmetry would pass 60 % of the test.
    """
    p = config.p
    apart, same = torch.triu_indices(p, p, 1).T, torch.arange(p)[:, None].expand(-1, 2)
    indices = []
    for seed in config.seeds:
        generator = make_generator(seed, "modular split")
        drawn = [
            pairs[torch.randperm(len(pairs), generator=generator)[: round(config.train_fraction * len(pairs))]]
            for pairs in (apart, same)
        ]
        a, b = torch.cat(drawn).T
        indices.append(torch.cat([a * p + b, b * p + a]).unique())
    return torch.stack(indices)


def all_logits(
    parameters: Parameters, config: ModularConfig, pairs: Int[Tensor, "n_seeds n_pairs"] | None = None
) -> Float[Tensor, "n_seeds n_pairs p"]:
    """Return logits at `=` for `pairs` or all, in order `a * p + b`."""
    if pairs is None:
        pairs = torch.arange(config.p**2, device=parameters["W_E"].device).expand(len(config.seeds), -1)
    W_E, W_pos = parameters["W_E"], parameters["W_pos"]
    at = [W_E[:, :-1] + W_pos[:, 0:1], W_E[:, :-1] + W_pos[:, 1:2], W_E[:, -1:] + W_pos[:, 2:3]]  # a, b, =
    q = torch.einsum("sd,sdhk->shk", at[2][:, 0], parameters["W_Q"]) / (config.d_model // config.n_heads) ** 0.5
    which = [pairs // config.p, pairs % config.p, torch.zeros_like(pairs)]
    scores, values = [], []
    for x, index in zip(at, which, strict=True):
        k = torch.einsum("snd,sdhk->snhk", x, parameters["W_K"])
        v = torch.einsum("snd,sdhk,shke->snhe", x, parameters["W_V"], parameters["W_O"])
        scores.append(_taken(torch.einsum("shk,snhk->snh", q, k), index))
        values.append(_taken(v, index))
    pattern = torch.stack(scores, -1).softmax(-1)  # [seed, pair, head, 3]
    z = sum((pattern[..., i, None] * value).sum(2) for i, value in enumerate(values))
    resid = z + at[2]
    resid = resid + torch.relu(resid @ parameters["W_in"]) @ parameters["W_out"]
    return resid @ parameters["W_U"]


def pair_losses(
    logits: Float[Tensor, "n_seeds n_pairs p"],
    config: ModularConfig,
    pairs: Int[Tensor, "n_seeds n_pairs"] | None = None,
) -> Float64[Tensor, "n_seeds n_pairs"]:
    """Return cross-entropy in float64; float32 stops at 1e-7, while grokking continues below."""
    right = answers(config, pairs, len(logits)).to(logits.device)
    return -logits.double().log_softmax(-1).gather(2, right[..., None])[..., 0]


def answers(
    config: ModularConfig, pairs: Int[Tensor, "n_seeds n_pairs"] | None, n_seeds: int
) -> Int[Tensor, "n_seeds n_pairs"]:
    """Return the answers `a + b mod p`."""
    if pairs is None:
        pairs = torch.arange(config.p**2).expand(n_seeds, -1)
    return (pairs // config.p + pairs % config.p) % config.p


def _taken(table: Tensor, index: Tensor) -> Tensor:
    """Return `table[seed, index[seed, pair]]`."""
    return table[torch.arange(len(index), device=index.device)[:, None], index]


@torch.no_grad()
def _snapshot(epoch: int, parameters: Parameters, train: Tensor, config: ModularConfig) -> Snapshot:
    logits = all_logits(parameters, config).cpu()
    losses = pair_losses(logits, config)
    right = (logits.argmax(-1) == answers(config, None, len(logits))).double()
    chosen = torch.zeros_like(right, dtype=torch.bool).scatter_(1, train.cpu(), True)

    def mean(values: Tensor, of: Tensor) -> Tensor:
        return (values * of).sum(1) / of.sum(1)

    copies = {name: value.detach().cpu().clone() for name, value in parameters.items()}
    return Snapshot(
        epoch, copies, mean(losses, chosen), mean(losses, ~chosen), mean(right, chosen), mean(right, ~chosen)
    )


KEY_SHARE = 0.02
"""Fraction of the logits' power above which a frequency is key. Unstructured logits give each about `1 / p^2`."""
ABOVE_EVEN = 2.0
"""Multiple of an even share of the embedding's power above which a frequency is key; all its power is in them."""


class Progress(NamedTuple):
    """Progress measures of one snapshot; the first axis of every tensor is seeds."""

    restricted_loss: Float64[Tensor, " n_seeds"]
    """nats, all pairs"""
    excluded_loss: Float64[Tensor, " n_seeds"]
    """nats, training pairs"""
    logit_share: Float64[Tensor, "n_seeds frequencies"]
    """`(p - 1) / 2` frequencies"""
    embedding_share: Float64[Tensor, "n_seeds frequencies"]
    gini: Float64[Tensor, " n_seeds"]
    weight_norm: Float64[Tensor, " n_seeds"]
    """sum of squares of all weights"""


def measure_progress(parameters: Parameters, config: ModularConfig, keys: list[list[int]]) -> Progress:
    """Measure `parameters` with each seed's key frequencies (`key_frequencies` at the end of training).

    Raises `MismatchError` on parameters of another config, `ConfigError` on invalid frequencies, `NonFiniteError`.
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


def key_frequencies(logit_share: Float[Tensor, "n_seeds frequencies"]) -> list[list[int]]:
    """Return per seed the frequencies (from 1) with more than `KEY_SHARE` of the logits' power, rising."""
    return _above(logit_share, KEY_SHARE)


def embedding_frequencies(embedding_share: Float[Tensor, "n_seeds frequencies"]) -> list[list[int]]:
    """Return per seed the frequencies with more than `ABOVE_EVEN` times an even share of the embedding's power."""
    return _above(embedding_share, ABOVE_EVEN / embedding_share.shape[1])


def _above(share: Tensor, least: float) -> list[list[int]]:
    return [[k + 1 for k in (row > least).nonzero()[:, 0].tolist()] for row in share]


def shares(
    parameters: Parameters, config: ModularConfig
) -> tuple[Float64[Tensor, "n_seeds frequencies"], Float64[Tensor, "n_seeds frequencies"]]:
    """Return `logit_share` and `embedding_share`, which need no key frequencies; 0 where there is no power."""
    progress = measure_progress(parameters, config, [[1]] * len(config.seeds))
    return progress.logit_share, progress.embedding_share


def token_waves(p: int) -> Float64[Tensor, "({p}-1)//2 2 {p}"]:
    """Return cosine and sine of every frequency over tokens, orthonormal."""
    k = torch.arange(1, (p - 1) // 2 + 1, dtype=torch.float64)
    angle = 2 * torch.pi * k[:, None] * torch.arange(p, dtype=torch.float64) / p
    return torch.stack([angle.cos(), angle.sin()], 1) * (2 / p) ** 0.5


def pair_waves(p: int) -> Float64[Tensor, "({p}-1)//2 2 {p}**2"]:
    """Return cosine and sine of `a + b` over all pairs in order `a * p + b`, unit norm."""
    pairs = torch.arange(p**2)
    return token_waves(p)[:, :, (pairs // p + pairs % p) % p] / p**0.5


def gini(values: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows"]:
    """Return the Gini coefficient over the last axis: 0 when all are equal, `1 - 1/n` when one value has everything."""
    ordered = values.sort(-1).values
    n = values.shape[-1]
    rank = torch.arange(1, n + 1, dtype=values.dtype)
    return ((2 * rank - n - 1) * ordered).sum(-1) / (n * ordered.sum(-1).clamp_min(1e-300))


def sum_of_squares(parameters: Parameters) -> Float64[Tensor, " n_seeds"]:
    """Return the sum of squares of all weights per seed."""
    return torch.stack([value.double().square().flatten(1).sum(1) for value in parameters.values()]).sum(0)


def _embedding(W_E: Tensor, p: int) -> tuple[Tensor, Tensor]:
    """Return the frequencies' shares of `W_E [n_seeds, p, d_model]`, and the Gini coefficient of their norms."""
    parts = torch.einsum("kwn,snd->skwd", token_waves(p), W_E)
    centred = W_E - W_E.mean(1, keepdim=True)
    return _share(parts, centred), gini(parts.square().sum(3).sqrt().flatten(1))


def _share(parts: Tensor, centred: Tensor) -> Tensor:
    """Return each frequency's fraction of the power, `[n_seeds, (p - 1) / 2]`; 0 when there is no power."""
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
            f"expected frequencies from 1 to {half} for each of {len(config.seeds)} seeds, got {keys}; take those "
            "of `key_frequencies`"
        )
    for name, value in parameters.items():
        if not torch.isfinite(value).all():
            raise NonFiniteError(f"weights must be finite, {name} holds NaN or infinity; train with a lower lr")


def _at(logits: Tensor, pairs: Tensor) -> Tensor:
    return logits.gather(1, pairs[..., None].expand(-1, -1, logits.shape[-1]))


N_OTHERS = 20
"""Draws of frequencies that are not key, for the null of an ablation."""


@torch.no_grad()
def ablate_frequencies(
    parameters: Parameters, config: ModularConfig, keys: list[list[int]]
) -> list[FrequencyAblation | None]:
    """Remove frequencies from the embedding of the numbers and run the network; None for a seed without keys.

    The mean of the embedding over numbers, the position and the token `=` stay. Draws are the same in every call.
    Raises as `measure_progress` does.
    """
    _check(parameters, config, keys)
    everything = list(range(1, (config.p - 1) // 2 + 1))
    generator = make_generator(0, "other frequencies")
    others = [[k for k in everything if k not in mine] for mine in keys]
    draws = [
        [
            [rest[i] for i in torch.randperm(len(rest), generator=generator)[: len(mine)].tolist()]
            for _ in range(N_OTHERS)
        ]
        for mine, rest in zip(keys, others, strict=True)
    ]
    null = torch.stack([_accuracy_without(parameters, config, list(drawn)) for drawn in zip(*draws, strict=True)])
    whole, alone, without = (
        _accuracy_without(parameters, config, removed).tolist() for removed in ([[]] * len(keys), others, keys)
    )
    return [
        FrequencyAblation(
            whole=whole[seed],
            keys_alone=alone[seed],
            without_keys=without[seed],
            without_others=tuple(null[:, seed].tolist()) if len(others[seed]) >= len(mine) else (),
        )
        if mine
        else None
        for seed, mine in enumerate(keys)
    ]


def _accuracy_without(
    parameters: Parameters, config: ModularConfig, removed: list[list[int]]
) -> Float64[Tensor, " n_seeds"]:
    """Return the accuracy on test pairs of each seed, with its frequencies removed from the embedding."""
    W_E, waves = parameters["W_E"].to(torch.float64, copy=True), token_waves(config.p)
    for seed, frequencies in enumerate(removed):
        basis = waves[[k - 1 for k in frequencies]].flatten(0, 1)
        W_E[seed, :-1] -= basis.T @ (basis @ W_E[seed, :-1])
    logits = all_logits({**parameters, "W_E": W_E.to(parameters["W_E"].dtype)}, config)
    right = (logits.argmax(-1) == answers(config, None, len(logits))).double()
    test = torch.ones_like(right).scatter_(1, training_pairs(config), 0)
    return (right * test).sum(1) / test.sum(1)


@torch.no_grad()
def describe_grokking(snapshots: list[Snapshot], config: ModularConfig) -> Grokking:
    """Return curves, key frequencies and phases of the snapshots of `train_modular`.

    Raises `ConfigError` without a snapshot, and as `measure_progress` does.
    """
    if not snapshots:
        raise ConfigError("expected at least one snapshot, got none; give it list(train_modular(config))")
    logit_share, embedding_share = shares(snapshots[-1].parameters, config)
    keys, embedding_keys = key_frequencies(logit_share), embedding_frequencies(embedding_share)
    ablations = ablate_frequencies(snapshots[-1].parameters, config, keys)
    measured = [measure_progress(snapshot.parameters, config, keys) for snapshot in snapshots]
    values = [_curve(snapshots if name in _MEASURES else measured, name) for name in CURVES]
    epochs = np.array([snapshot.epoch for snapshot in snapshots])
    train, test = (values[CURVES.index(name)] for name in ("train_accuracy", "test_accuracy"))
    runs = [
        SeedRun(
            seed=seed,
            phases=find_phases(epochs, train[:, at], test[:, at]),
            keys=tuple(keys[at]),
            embedding_keys=tuple(embedding_keys[at]),
            ablation=ablations[at],
        )
        for at, seed in enumerate(config.seeds)
    ]
    return Grokking(
        settings=config,
        runs=tuple(runs),
        epochs=epochs,
        values=np.stack(values),
        logit_share=_curve(measured, "logit_share"),
        embedding_share=_curve(measured, "embedding_share"),
    )


def _curve(rows: "list[Snapshot] | list[Progress]", name: str) -> np.ndarray:
    return np.stack([getattr(row, name).numpy() for row in rows])


CHECKPOINTS = 6
"""number of maps in the series of an embedding"""


def embedding_series(snapshots: list[Snapshot], config: ModularConfig, *, at: int = 0) -> VectorMap:
    """Map the number tokens of the seed of index `at` at checkpoints spread over training, in one frame.

    `snapshots` are those of the training that `config` describes.
    """
    from interp.atlas.build import build_series
    from interp.atlas.sources import AtlasSource

    p = config.p
    chosen = [snapshots[i] for i in np.unique(np.linspace(0, len(snapshots) - 1, CHECKPOINTS).round().astype(int))]
    sources = [
        AtlasSource(
            vectors=snapshot.parameters["W_E"][at, :-1].float(),
            source=f"checkpoint:modular-{p}-seed{config.seeds[at]}-epoch{snapshot.epoch}",
            labels=[str(number) for number in range(p)],
            items=np.arange(p, dtype=np.int32),
            values=np.arange(p, dtype=np.float32),
            value_name="number",
            item_kind="index",
        )
        for snapshot in chosen
    ]
    names = [f"epoch {snapshot.epoch}" for snapshot in chosen]
    return build_series(sources, names, MapSettings(n_neighbors=4), seed=at)
