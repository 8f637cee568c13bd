"""Modular addition: the transformer that groks, several seeds in one tensor (Nanda et al. 2023, Power et al. 2022).

    tokens  a  b  =      ->      a + b mod p         one layer, no norms, no biases, ReLU

Only the last position is read, and its query is the same for all pairs, so keys and values are tables over tokens and a
step costs milliseconds. Weight decay is what makes it grok; that an epoch is cut into batches keeps seeds from being
caught with a few pairs wrong. Every parameter is `[n_seeds, ...]`; the seeds never meet, each has its own split,
batches, weights and optimiser moments.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.errors import ConfigError, NonFiniteError
from interp.runtime import make_generator, one_thread

Parameters = dict[str, Tensor]
LEARNED = 0.99
"""accuracy above which pairs are learned"""


@dataclass(frozen=True, kw_only=True)
class ModularConfig:
    """How it is built and trained."""

    p: int = 37
    """the modulus, a prime"""
    train_fraction: float = 0.75
    """of the pairs, mirror images kept together; the others are the test"""
    d_model: int = 64
    n_heads: int = 4
    d_mlp: int = 192
    lr: float = 5e-3
    weight_decay: float = 1.0
    """0 memorises and stays there: the control; at 2 some seeds end with two frequencies that do not explain all"""
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-5
    """of AdamW: with 1e-8 steps stay long where gradients vanish, and what was learned comes and goes (Thilak et al.
    2022, 2206.04817)"""
    batches: int = 3
    """parts of the training pairs, drawn anew in each epoch, with a step on each"""
    epochs: int = 800
    """passes over the training pairs, at most"""
    settle: int | None = 140
    """epochs after the last seed has generalised, where training ends; None: after all `epochs`"""
    log_every: int = 4
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        if not isinstance(self.p, int) or self.p < 5 or any(self.p % factor == 0 for factor in range(2, self.p)):
            raise ConfigError(f"p must be a prime of at least 5, got {self.p}: frequencies of others share components")
        if not 0 < self.train_fraction < 1 or not 0 < round(self.train_fraction * self.p) < self.p:
            raise ConfigError(
                f"train_fraction must leave pairs to train on and to test, got {self.train_fraction} of p {self.p}"
            )
        if min(self.d_model, self.n_heads, self.d_mlp) < 1 or self.d_model % self.n_heads:
            raise ConfigError(
                f"d_model {self.d_model} must be a multiple of n_heads {self.n_heads}, and every size at least 1"
            )
        if (
            min(self.epochs, self.batches, self.log_every, len(self.seeds)) < 1
            or (self.settle or 0) < 0
            or not (self.lr > 0 and self.eps > 0 and self.weight_decay >= 0)
        ):
            raise ConfigError(
                "epochs, batches, log_every, lr, eps must be above 0, weight_decay and settle at least 0; a seed given"
            )


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
