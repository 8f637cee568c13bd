"""What a TopK SAE recovers from a toy of superposition, whose features and directions are known.

    toys = train_toys(densities=(0.05,))                              # interp.superposition.toy
    found = recover_toy(toys, toys.best(), folder)                    # trains a TopK SAE on the hidden layer
    found.trained.f1, found.untrained.f1, found.one_at_a_time

The rows are `x @ W`: what the toy's hidden layer holds. A feature that is on adds its strength times its direction, as
in `saes.synthetic`, so the recordings, kinds and scores are the same. Three things differ: nothing is noise; rows with
nothing on, most of them where features are rare, are left out, since they have nothing to recover; and features may lie
exactly opposite each other (antipodal pairs), so that latents are matched by the sign of the cosine too.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.runtime import one_thread
from interp.superposition.geometry import REPRESENTED
from interp.superposition.toy import Toys, draw_features
from interp.values import as_json, save_json
from saes.baselines import untrained_sae
from saes.config import TopKConfig, TrainConfig
from saes.recovery import Recovery, measure_recovery
from saes.synthetic import Rows, SyntheticData
from saes.synthetic_recording import HOOK_POINT, write_synthetic
from saes.train import train_sae


@dataclass(frozen=True, kw_only=True)
class ToyDataConfig:
    """A toy's represented features and how often they are on; plain numbers, so that a manifest can hold them."""

    W: tuple[tuple[float, ...], ...]
    """`[n_features, d]`"""
    density: float

    @property
    def n_features(self) -> int:
        return len(self.W)

    @property
    def d(self) -> int:
        return len(self.W[0])


class ToyData(SyntheticData):
    """The hidden layer of a toy as data from a known dictionary."""

    signed = True

    def __init__(self, config: ToyDataConfig, *, seed: int = 0):
        self.config, self.seed = config, seed  # pyright: ignore[reportAttributeAccessIssue] (its own settings)
        rows = torch.tensor(config.W)
        self.lengths = rows.norm(dim=1)
        """`[n_features]`: what one unit of a feature adds along its direction"""
        self.directions = torch.nn.functional.normalize(rows, dim=1)
        self.mean = torch.zeros(config.d)
        silent = (1 - config.density) ** config.n_features
        self.rates = torch.full((config.n_features,), config.density / (1 - silent), dtype=torch.float64)
        self.parents = torch.full((config.n_features,), -1)

    def sample(self, n: int, *, generator: torch.Generator) -> Rows:
        """`n` independent rows, each with a feature on."""
        density, parts, found = torch.tensor([self.config.density]), [], 0
        while found < n:
            drawn = draw_features(density, 2 * n, self.config.n_features, generator)[0].T
            parts.append(drawn[(drawn > 0).any(1)])
            found += len(parts[-1])
        strengths = torch.cat(parts)[:n] * self.lengths
        return Rows(strengths @ self.directions, strengths)


def toy_data(toys: Toys, toy: int, *, seed: int = 0) -> ToyData:
    """The hidden layer of one toy; features that it dropped are no part of the truth (`REPRESENTED`).

    Raises `ConfigError` when fewer than two features are represented: there is no dictionary to recover.
    """
    if not 0 <= toy < len(toys.W):
        raise ConfigError(f"toys are 0 to {len(toys.W) - 1}, got {toy}")
    W = toys.W[toy]
    kept = W[W.square().sum(1) >= REPRESENTED]
    if len(kept) < 2:
        raise ConfigError(
            f"toy {toy} represents {len(kept)} of {len(W)} features; recovery needs two, so train it on rarer features"
        )
    rows = tuple(tuple(float(value) for value in row) for row in kept)
    return ToyData(ToyDataConfig(W=rows, density=float(toys.density[toy])), seed=seed)


@dataclass(frozen=True, kw_only=True)
class ToyRecovery:
    """A trained TopK SAE against a toy's features, beside its null."""

    trained: Recovery
    untrained: Recovery
    """of random directions, as many and as sparse: the null of every score"""
    one_at_a_time: float
    """share of rows that have only one feature on: each of them shows a direction by itself"""
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return as_json({**asdict(self)})

    def save(self, path: Path | str) -> None:
        save_json(self, path)


def recover_toy(
    toys: Toys,
    toy: int,
    folder: Path,
    *,
    k: int | None = None,
    d_sae: int | None = None,
    n_rows: int = 40_000,
    tokens: int = 200_000,
    seed: int = 0,
    overwrite: bool = False,
) -> ToyRecovery:
    """Train a TopK SAE on the hidden layer of one toy, in `folder`, and score it on fresh rows.

    `d_sae` None: twice as many latents as the toy represents features (with as many, most seeds end with a latent
    that never fires and another that stands for two features); `k` None: features on in a row, in the mean, at least
    1. Raises as `toy_data`, `write_synthetic` and `train_sae` do.
    """
    data = toy_data(toys, toy, seed=seed)
    size = d_sae or 2 * data.config.n_features
    k = k or max(1, min(round(data.l0), size))
    folder = Path(folder)
    recording = write_synthetic(data, folder / "recording", n_rows=n_rows, overwrite=overwrite)
    how = TrainConfig(tokens=tokens, batch_size=256, lr=1e-2, seed=seed, log_every=10_000)
    with one_thread():
        sae = train_sae(
            recording, HOOK_POINT, TopKConfig(d_sae=size, k=k), how, folder / "sae", overwrite=overwrite, device="cpu"
        )
    null = untrained_sae(recording, HOOK_POINT, d_sae=size, k=k, seed=seed)
    return ToyRecovery(
        trained=measure_recovery(sae, data, seed=seed),
        untrained=measure_recovery(null, data, seed=seed),
        one_at_a_time=_one_at_a_time(data),
        settings={
            "toy": toy,
            "density": data.config.density,
            "n_features": data.config.n_features,
            "d": data.config.d,
            "d_sae": size,
            "k": k,
            "n_rows": n_rows,
            "tokens": tokens,
            "seed": seed,
        },
    )


def _one_at_a_time(data: ToyData, n: int = 20_000) -> float:
    rows: Iterator[Rows] = data.batches(n, seed=-2)
    on: Tensor = (next(rows).strengths > 0).sum(1)
    return float((on == 1).double().mean())
