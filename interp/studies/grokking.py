"""Modular addition: the transformer that groks, several seeds in one tensor (Nanda et al. 2023, Power et al. 2022).

    tokens  a  b  =      ->      a + b mod p         one layer, no norms, no biases, ReLU

Only the last position is read, and its query is the same for all pairs, so keys and values are tables over tokens and a
step costs milliseconds. Weight decay is what makes it grok; that an epoch is cut into batches keeps seeds from being
caught with a few pairs wrong. Every parameter is `[n_seeds, ...]`; the seeds never meet, each has its own split,
batches, weights and optimiser moments.

What grokking grows: an addition by angles, seen in the Fourier components of embedding and logits.

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

Grokking, told in phases (Nanda et al. 2023, section 5.2), by thresholds stated beforehand:

    memorisation        until training accuracy is above .99
    circuit formation   from there until test accuracy is above .3: nothing shows outside, inside the restricted loss
                        falls and the excluded loss rises
    clean-up            from there until test accuracy is above .99: what was memorised is given up

A run grokked when it has all three, with a gap between the first and the last of at least one measurement: training
accuracy above .99 while test accuracy is below .3. Key frequencies are read off the last snapshot and followed back.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.errors import ConfigError, MismatchError, NonFiniteError
from interp.results import Record, Result
from interp.runtime import make_generator, one_thread
from interp.studies.config import ModularConfig
from interp.studies.induction_emerges import first_at

Parameters = dict[str, Tensor]
LEARNED = 0.99
"""accuracy above which pairs are learned"""


@dataclass(frozen=True)
class Snapshot:
    """Where training stands after an epoch; every tensor starts with the seeds."""

    epoch: int
    """0 before the first step"""
    parameters: Parameters
    """copies"""
    train_loss: Tensor
    """`[n_seeds]` nats"""
    test_loss: Tensor
    train_accuracy: Tensor
    test_accuracy: Tensor


def train_modular(config: ModularConfig) -> Iterator[Snapshot]:
    """Train all seeds at once, yielding before the first epoch, every `log_every` and after the last.

    It ends early, `settle` epochs after every seed had a test accuracy above `LEARNED`.

    Raises `NonFiniteError` when a loss is no number.
    """
    parameters = {name: value.requires_grad_() for name, value in initial_parameters(config).items()}
    train = training_pairs(config)
    optimizer = torch.optim.AdamW(
        parameters.values(),
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        foreach=True,
    )
    yield _snapshot(0, parameters, train, config)
    generalised, last = torch.zeros(len(config.seeds), dtype=torch.bool), config.epochs
    order = [make_generator(seed, "modular batches") for seed in config.seeds]
    for epoch in range(1, config.epochs + 1):
        loss = torch.zeros(())
        for pairs in _shuffled(train, order).tensor_split(min(config.batches, train.shape[1]), 1):
            with torch.enable_grad(), one_thread():  # products this small take longer on several
                loss = pair_losses(all_logits(parameters, config, pairs), config, pairs).mean(1).sum()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
        if epoch % config.log_every == 0 or epoch == config.epochs:
            if not bool(torch.isfinite(loss)):
                raise NonFiniteError(f"a loss is {float(loss)} at epoch {epoch}; use a lower lr (it is {config.lr})")
            snapshot = _snapshot(epoch, parameters, train, config)
            yield snapshot
            if not bool(generalised.all()):
                generalised |= snapshot.test_accuracy > LEARNED
                if config.settle is not None and bool(generalised.all()):
                    last = epoch + config.settle
            if epoch >= last:
                return


def _shuffled(train: Tensor, order: list[torch.Generator]) -> Tensor:
    """The pairs of every seed in a random order of its own."""
    return train.gather(1, torch.stack([torch.randperm(train.shape[1], generator=each) for each in order]))


def initial_parameters(config: ModularConfig) -> Parameters:
    """Gaussian weights of variance `1 / d_model` (the unembedding `1 / p`), each seed from its own generator."""
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


def training_pairs(config: ModularConfig) -> Tensor:
    """`[n_seeds, n_train]` int64: numbers `a * p + b` of the pairs each seed trains on, always `(b, a)` with `(a, b)`.

    Drawn singly, half of the test would be mirror images of what was trained on: a model that learned no more than that
    the order does not matter then passes 60 % of it.
    """
    p = config.p
    apart, same = torch.triu_indices(p, p, 1).T, torch.arange(p)[:, None].expand(-1, 2)
    found = []
    for seed in config.seeds:
        generator = make_generator(seed, "modular split")
        drawn = [
            pairs[torch.randperm(len(pairs), generator=generator)[: round(config.train_fraction * len(pairs))]]
            for pairs in (apart, same)
        ]
        a, b = torch.cat(drawn).T
        found.append(torch.cat([a * p + b, b * p + a]).unique())
    return torch.stack(found)


def all_logits(parameters: Parameters, config: ModularConfig, pairs: Tensor | None = None) -> Tensor:
    """`[n_seeds, n_pairs, p]` logits at `=` for `pairs [n_seeds, n_pairs]`, by default all in order `a * p + b`."""
    if pairs is None:
        pairs = torch.arange(config.p**2).expand(len(config.seeds), -1)
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


def pair_losses(logits: Tensor, config: ModularConfig, pairs: Tensor | None = None) -> Tensor:
    """`[n_seeds, n_pairs]` cross-entropy in float64: float32 ends at 1e-7, where grokking is still under way."""
    right = answers(config, pairs, len(logits))
    return -logits.double().log_softmax(-1).gather(2, right[..., None])[..., 0]


def answers(config: ModularConfig, pairs: Tensor | None, n_seeds: int) -> Tensor:
    """`[n_seeds, n_pairs]`: a + b mod p."""
    if pairs is None:
        pairs = torch.arange(config.p**2).expand(n_seeds, -1)
    return (pairs // config.p + pairs % config.p) % config.p


def _taken(table: Tensor, index: Tensor) -> Tensor:
    """`table[seed, index[seed, pair]]`."""
    return table[torch.arange(len(index))[:, None], index]


@torch.no_grad()
def _snapshot(epoch: int, parameters: Parameters, train: Tensor, config: ModularConfig) -> Snapshot:
    logits = all_logits(parameters, config)
    losses = pair_losses(logits, config)
    right = (logits.argmax(-1) == answers(config, None, len(logits))).double()
    chosen = torch.zeros_like(right, dtype=torch.bool).scatter_(1, train, True)

    def mean(values: Tensor, of: Tensor) -> Tensor:
        return (values * of).sum(1) / of.sum(1)

    copies = {name: value.detach().clone() for name, value in parameters.items()}
    return Snapshot(
        epoch, copies, mean(losses, chosen), mean(losses, ~chosen), mean(right, chosen), mean(right, ~chosen)
    )


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


UNKNOWN = 0.3
OUTSIDE = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
INSIDE = ("restricted_loss", "excluded_loss", "gini", "weight_norm")


@dataclass(frozen=True)
class Phases:
    """Epochs at which one seed's phases end; None where it never came to that."""

    memorised: float | None
    generalising: float | None
    """test accuracy above .3"""
    generalised: float | None
    """test accuracy above .99"""

    @property
    def gap(self) -> float | None:
        """Epochs between having memorised and beginning to generalise."""
        if self.memorised is None or self.generalising is None:
            return None
        return self.generalising - self.memorised

    @property
    def grokked(self) -> bool:
        """Whether all three phases are there, in this order, with a gap."""
        return self.generalised is not None and self.gap is not None and self.gap > 0


@dataclass(frozen=True)
class Grokking(Result):
    """Curves and phases of all seeds."""

    config: ModularConfig
    epochs: np.ndarray
    """`[n_snapshots]`"""
    curves: dict[str, np.ndarray]
    """name -> `[n_snapshots, n_seeds]`"""
    logit_share: np.ndarray
    """`[n_snapshots, n_seeds, (p - 1) / 2]`"""
    embedding_share: np.ndarray
    keys: list[list[int]]
    """per seed the key frequencies of the logits"""
    embedding_keys: list[list[int]]
    """per seed those of the embedding, found apart"""
    phases: list[Phases]
    settings: dict[str, Any] = field(default_factory=dict)

    def circuit_forms_unseen(self, seed: int) -> tuple[float, float] | None:
        """Change of the restricted and of the excluded loss (nats) of a seed between having memorised and beginning to
        generalise: below 0 and above 0 when the circuit forms while nothing shows. None without a gap."""
        phases = self.phases[seed]
        if not phases.gap:
            return None
        inside = (self.epochs >= phases.memorised) & (self.epochs <= phases.generalising)
        restricted, excluded = (self.curves[f"{name}_loss"][inside, seed] for name in ("restricted", "excluded"))
        return float(restricted[-1] - restricted[0]), float(excluded[-1] - excluded[0])

    def to_records(self) -> list[Record]:
        """Return one row per snapshot and seed: `epoch, seed` and a column per curve."""
        return [
            {"epoch": int(epoch), "seed": seed} | {name: float(curve[i, seed]) for name, curve in self.curves.items()}
            for i, epoch in enumerate(self.epochs)
            for seed in range(len(self.phases))
        ]

    def headline(self) -> str:
        """Count the seeds that grokked."""
        return f"mod {self.config.p}: {sum(p.grokked for p in self.phases)} of {len(self.phases)} seeds grokked"

    def shown(self) -> list[Record]:
        """Return the phases of each seed, in epochs."""
        return [{"seed": i, **vars(p), "grokked": p.grokked, "keys": self.keys[i]} for i, p in enumerate(self.phases)]


@torch.no_grad()
def describe_grokking(snapshots: list[Snapshot], config: ModularConfig) -> Grokking:
    """Curves, key frequencies and phases of what `train_modular` yielded.

    Raises `ConfigError` without a snapshot, and what `measure_progress` raises.
    """
    if not snapshots:
        raise ConfigError("at least one snapshot was expected, got none; give it list(train_modular(config))")
    logit_share, embedding_share = shares(snapshots[-1].parameters, config)
    keys = key_frequencies(logit_share)
    measured = [measure_progress(snapshot.parameters, config, keys) for snapshot in snapshots]
    curves = {name: _curve(snapshots, name) for name in OUTSIDE} | {name: _curve(measured, name) for name in INSIDE}
    epochs = np.array([snapshot.epoch for snapshot in snapshots])
    return Grokking(
        config=config,
        epochs=epochs,
        curves=curves,
        logit_share=_curve(measured, "logit_share"),
        embedding_share=_curve(measured, "embedding_share"),
        keys=keys,
        embedding_keys=embedding_frequencies(embedding_share),
        phases=[
            find_phases(epochs, curves["train_accuracy"][:, seed], curves["test_accuracy"][:, seed])
            for seed in range(len(config.seeds))
        ],
        settings={"learned": LEARNED, "unknown": UNKNOWN},
    )


def find_phases(epochs: np.ndarray, train_accuracy: np.ndarray, test_accuracy: np.ndarray) -> Phases:
    """The ends of the phases of one run."""
    return Phases(
        first_at(epochs, train_accuracy, LEARNED),
        first_at(epochs, test_accuracy, UNKNOWN),
        first_at(epochs, test_accuracy, LEARNED),
    )


def _curve(rows: "list[Snapshot] | list[Progress]", name: str) -> np.ndarray:
    return np.stack([getattr(row, name).numpy() for row in rows])
