"""Toy models of superposition (Elhage et al. 2022): what the notebook `07_superposition.py` trains and measures.

- **The toy** (`train_toys`) compresses sparse features into fewer dimensions and reads them back through a ReLU:
  `hidden = x @ W`, `x_hat = relu(hidden @ W.T + b)`. Its loss is `sum_i importance_i (x_i - x_hat_i)^2`. Row `W[i]` is
  the direction of feature `i`, which is on with probability `density`, and then uniform in [0, 1]. All toys of a study
  are trained in one batched product with an explicit gradient: autograd takes 1.3 to 1.8 times as long.
- **Geometry** (`measure_geometry`; Scherlis et al. 2022): with `u_i` the unit vectors of the rows `w_i`,
  `D_i = |w_i|^2 / sum_j (u_i . w_j)^2` is the fraction of a dimension that feature `i` has to itself. It is at most the
  leverage of the row, so the sum is at most the rank: equal where groups of features are tight frames of their span.
- **Phases** (`map_phases`) of the last feature over density and importance, against three losses in closed form
  (`ideal_losses`). Superposition is ideal below a density of `4 I / (2 + 5 I)` for `I <= 1`, of `4 / (2 I + 5)` above.
- **Recovery** (`recover_toy`) of the features from the hidden layer by a TopK SAE, with random directions as the null.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import normalize

from interp.nulls import NUMERIC_DRAWS
from interp.seeds import make_generator
from interp.statistics import Interval, percentile_interval
from interp.threads import one_thread
from saes.evaluation.baselines import untrained_sae
from saes.evaluation.synthetic import (
    HOOK_POINT,
    Recovery,
    SyntheticRows,
    SyntheticData,
    measure_recovery,
    write_synthetic,
)
from saes.kinds.config import TopKConfig
from saes.training.config import TrainConfig
from saes.training.train import train_sae

REPRESENTED = 0.5
"""squared length from which a feature counts as represented; in trained toys it is about 1 or about 0"""
SHARED = 0.5
"""interference from which a feature is in superposition; an antipodal partner of unit length gives 1"""
TOUCH = 0.02
"""interference between unit vectors from which two features are in one group (|cos| of 0.14)"""
REGULAR = 0.05
"""largest difference from the regular polytope's cosines, and largest relative difference of lengths"""
POLYTOPES = {(1, 1): "dedicated", (2, 1): "antipodal pair", (4, 3): "tetrahedron", (8, 3): "square antiprism"}
POLYGONS = {3: "triangle", 4: "square", 5: "pentagon", 6: "hexagon", 7: "heptagon", 8: "octagon"}
PHASES = ("not represented", "dedicated", "superposition")


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """Sizes and training of a toy; with the defaults, rare features form a pentagon."""

    n_features: int = 5
    d_hidden: int = 2
    activation: Literal["relu", "linear"] = "relu"
    """`linear` is the control: it represents only the most important directions, as principal components do"""
    steps: int = 3000
    batch_size: int = 512
    """rows per step and toy"""
    lr: float = 1e-2
    """learning rate of Adam; falls to 0 along a cosine"""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Geometry of one set of directions."""

    interference: Float64[Tensor, "n n"]
    """`(u_i . w_j)^2`, 0 on the diagonal; 0 elsewhere: feature j does not affect the reading of i"""
    norm: Float64[Tensor, " n"]
    dimensionality: Float64[Tensor, " n"]
    """0 (not represented) to 1 (a dimension of its own)"""
    leverage: Float64[Tensor, " n"]
    rank: int
    groups: tuple[tuple[tuple[int, ...], str], ...]
    """represented features that interfere with each other and with no others, and their polytope"""

    @property
    def total(self) -> float:
        """Sum of dimensionalities; at most `rank`."""
        return float(self.dimensionality.sum())

    @property
    def represented(self) -> int:
        """Number of features whose squared length is at least `REPRESENTED`."""
        return sum(len(features) for features, _ in self.groups)

    def polytopes(self) -> dict[str, int]:
        """Return the number of groups of each kind."""
        names = [name for _, name in self.groups]
        return {name: names.count(name) for name in sorted(set(names))}


@dataclass(frozen=True, eq=False)
class Toys:
    """Trained toys, one per entry of the first axis; seeds vary fastest."""

    W: Float[Tensor, "n_toys n_features d_hidden"]
    density: Float[Tensor, " n_toys"]
    loss: Float[Tensor, " n_toys"]
    """on held-out rows, in units of importance times squared feature"""
    null_loss: Float[Tensor, " n_toys"]
    """of the best constant, which represents nothing"""

    @property
    def unexplained(self) -> Float[Tensor, " n_toys"]:
        """Loss over null loss. 0: perfect reconstruction; 1: no better than a constant."""
        return self.loss / self.null_loss

    def at(self, density: float) -> "Toys":
        """Return the toys of one density."""
        chosen = (self.density - density).abs() < 1e-9
        return Toys(self.W[chosen], self.density[chosen], self.loss[chosen], self.null_loss[chosen])

    def geometry(self, toy: int | None = None) -> Geometry:
        """Measure the geometry of one toy's directions, by default of the toy with the lowest loss."""
        return measure_geometry(self.W[int(self.loss.argmin()) if toy is None else toy])


def train_toys(config: ToyConfig, *, densities: tuple[float, ...], n_seeds: int, seed: int = 0) -> Toys:
    """Train `n_seeds` toys at every density, all at once; their features have importance 1."""
    density = torch.tensor(densities, dtype=torch.float64).repeat_interleave(n_seeds)
    return train_grid(config, density, torch.ones(len(density), config.n_features), seed)


def train_grid(
    config: ToyConfig, density: Float[Tensor, " n_toys"], importance: Float[Tensor, "n_toys n_features"], seed: int = 0
) -> Toys:
    """Train one toy per entry of `density` and row of `importance`; each has its own initial weights and data."""
    generator = make_generator(seed, "superposition toy")
    rates, weights, n, d = density.float(), importance.float(), config.n_features, config.d_hidden
    with one_thread(), torch.no_grad():
        W = torch.randn(len(density), n, d, generator=generator) * (2 / (n + d)) ** 0.5  # Xavier
        b = torch.zeros(len(density), n)
        optimizer = torch.optim.Adam([W, b], lr=config.lr)
        for step in range(config.steps):
            optimizer.param_groups[0]["lr"] = config.lr * 0.5 * (1 + math.cos(math.pi * step / config.steps))
            x = draw_features(rates, config.batch_size, n, generator)
            _, W.grad, b.grad = loss_and_gradients(x, W, b, weights, config.activation)
            optimizer.step()
        loss = torch.zeros(len(density), dtype=torch.float64)
        levels, which = rates.unique(return_inverse=True)  # held-out rows are shared by all toys of a density
        for _ in range(16):
            x = draw_features(levels, 2048, n, generator)
            for level in range(len(levels)):
                mine = which == level
                same = x[level].expand(int(mine.sum()), -1, -1)
                loss[mine] += loss_and_gradients(same, W[mine], b[mine], weights[mine], config.activation)[0].double()
    null_loss = (importance * constant_loss(density)[:, None]).sum(1).double()
    return Toys(W, density.double(), loss / 16, null_loss)


def constant_loss(density: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return the variance of a feature that is uniform in [0, 1] with probability `density`, else 0."""
    return density / 3 - density**2 / 4


def draw_features(density: Tensor, n: int, n_features: int, generator: torch.Generator) -> Tensor:
    """Draw columns `[n_toys, n_features, n]` for every toy; one number gives both activity and value of a feature."""
    drawn = torch.rand(len(density), n_features, n, generator=generator).div_(density[:, None, None])
    return drawn.mul_(drawn < 1)


def loss_and_gradients(
    x: Tensor, W: Tensor, b: Tensor, importance: Tensor, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss `[n_toys]` and its gradients by `W` and `b`, for columns `x [n_toys, n_features, n]`."""
    hidden = W.mT @ x
    pre = torch.baddbmm(b[..., None], W, hidden)
    error = (pre.relu() if activation == "relu" else pre) - x
    weighted = error * importance[..., None]
    loss = (weighted * error).sum(1).mean(1)
    upstream = weighted.mul_(2 / x.shape[-1])
    if activation == "relu":
        upstream.mul_(pre > 0)
    return loss, x @ (W.mT @ upstream).mT + upstream @ hidden.mT, upstream.sum(2)


def measure_geometry(directions: Float[Tensor, "n d"]) -> Geometry:
    """Measure directions with their lengths; those shorter than 1e-6 of the longest count as zero."""
    W = directions.double()
    norm = W.norm(dim=1)
    mask = norm > 1e-6 * norm.max()
    unit = W / norm.clamp_min(1e-300)[:, None] * mask[:, None]
    overlap = (unit @ W.T).square()
    left, values, _ = torch.linalg.svd(W, full_matrices=False)
    nonzero = values > 1e-6 * values.max().clamp_min(1e-300)
    features = (norm.square() >= REPRESENTED).nonzero()[:, 0]
    touching = (unit[features] @ unit[features].T).square() >= TOUCH
    n, labels = connected_components(touching.numpy()) if len(features) else (0, np.zeros(0))
    members = [features[torch.from_numpy(labels == i)] for i in range(n)]
    return Geometry(
        overlap - torch.diag(overlap.diagonal()),
        norm,
        torch.where(mask, norm.square() / overlap.sum(1).clamp_min(1e-300), 0.0),
        left[:, nonzero].square().sum(1) * mask,
        int(nonzero.sum()),
        tuple((tuple(group.tolist()), _polytope(W[group])) for group in members),
    )


def _polytope(rows: Float64[Tensor, "k d"]) -> str:
    """Return the name of the regular polytope whose corners the rows are, else `irregular`."""
    k, values, norm = len(rows), torch.linalg.svdvals(rows), rows.norm(dim=1)
    rank = int((values > 0.1 * values.max()).sum())
    name = POLYGONS.get(k, f"{k}-gon") if rank == 2 and k > 2 else POLYTOPES.get((k, rank), "irregular")
    if name == "irregular" or float(norm.max() / norm.min()) - 1 > 2 * REGULAR:
        return "irregular"
    if rank == 2:
        cosines = [math.cos(2 * math.pi * i / k) for i in range(k)]
    elif k == 8:  # the square antiprism whose corners are a tight frame: height 1 / sqrt(3), radius sqrt(2 / 3)
        cosines = [(1 + 2 * math.cos(i * math.pi / 2)) / 3 for i in range(4)]
        cosines += [(-1 + 2 * math.cos((i + 0.5) * math.pi / 2)) / 3 for i in range(4)]
    else:  # a simplex: one direction, an antipodal pair, a tetrahedron
        cosines = [1.0] + [-1 / rank] * (k - 1)
    unit = rows / norm[:, None]
    difference = (unit @ unit.T).sort(dim=1).values - torch.tensor(sorted(cosines), dtype=torch.float64)
    return name if float(difference.abs().max()) <= REGULAR else "irregular"


def random_geometry(n: int, d: int, *, n_draws: int = NUMERIC_DRAWS["quick"]) -> tuple[Interval[float], float]:
    """Return the null: sum of dimensionalities over rank of random unit directions, and how often they are regular."""
    generator = make_generator(0, "superposition", "random directions")
    drawn = (torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(n_draws))
    draws = [measure_geometry(normalize(rows, dim=1)) for rows in drawn]
    tight = torch.tensor([geometry.total / geometry.rank for geometry in draws], dtype=torch.float64)
    regular = sum("irregular" not in geometry.polytopes() for geometry in draws) / n_draws
    return percentile_interval(float(tight.mean()), tight.numpy()), regular


class Cell(NamedTuple):
    """Phase of the last feature at one density and importance, in the toy of lowest loss."""

    density: float
    importance: float
    phase: str
    agreement: float
    """fraction of seeds in that phase"""
    norm: float
    """its squared length"""
    shared: float
    """sum of its interference with the others"""


def map_phases(
    densities: tuple[float, ...], importances: tuple[float, ...], config: ToyConfig, *, n_seeds: int
) -> list[Cell]:
    """Train toys over density, importance of the last feature and seed.

    In one dimension half of the toys start with both features on the same side, and neither can cross zero past the
    other. With few seeds all toys of a cell may be stuck (with 16, one cell in 65,536).
    """
    cells = [(density, importance) for density in densities for importance in importances]
    density, last = torch.tensor(cells, dtype=torch.float64).repeat_interleave(n_seeds, 0).T
    importance = torch.ones(len(density), config.n_features, dtype=torch.float64)
    importance[:, -1] = last
    toys = train_grid(config, density, importance)
    geometry = [toys.geometry(toy) for toy in range(len(density))]
    norm = torch.stack([toy.norm[-1].square() for toy in geometry])
    shared = torch.stack([toy.interference[-1].sum() for toy in geometry])
    numbers = torch.where(norm < REPRESENTED, 0, torch.where(shared >= SHARED, 2, 1)).view(-1, n_seeds)
    best = toys.loss.view(-1, n_seeds).argmin(1) + n_seeds * torch.arange(len(cells))
    chosen = numbers.flatten()[best]
    agreement = (numbers == chosen[:, None]).double().mean(1)
    columns = (agreement.tolist(), norm[best].tolist(), shared[best].tolist())
    return [Cell(*cell, PHASES[n], *row) for cell, n, *row in zip(cells, chosen.tolist(), *columns, strict=True)]


def ideal_losses(density: float, importance: float) -> dict[str, float]:
    """Return the losses of the ideal solutions of two features in one dimension, by phase of the second feature.

    A feature without a direction is reconstructed by its mean, so its loss is its variance. An antipodal pair of unit
    length errs only when both features are active, by the smaller value on each: `E[min^2] = 1/6`.
    """
    variance = float(constant_loss(torch.tensor(density, dtype=torch.float64)))
    return {
        "not represented": importance * variance,
        "dedicated": variance,
        "superposition": (1 + importance) * density**2 / 6,
    }


def ideal_phase(density: float, importance: float) -> str:
    """Return the phase whose ideal solution has the lowest loss."""
    losses = ideal_losses(density, importance)
    return min(losses, key=losses.__getitem__)


def border_distance(density: float, importance: float) -> float:
    """Return the second lowest ideal loss over the lowest, minus 1: 0 on a border, large for a clear phase."""
    low, second, *_ = sorted(ideal_losses(density, importance).values())
    return second / low - 1


@dataclass(frozen=True, kw_only=True)
class ToyDataConfig:
    """Represented features of a toy and their density, as plain numbers for the manifest."""

    W: tuple[tuple[float, ...], ...]
    density: float
    n_features: int
    d: int


class ToyData(SyntheticData):
    """Hidden layer of a toy, as data from a known dictionary: no noise, no row without an active feature."""

    signed = True

    def __init__(self, toys: Toys, toy: int, *, seed: int = 0):
        W = toys.W[toy]
        W = W[W.square().sum(1) >= REPRESENTED]
        n, d, density = *W.shape, float(toys.density[toy])
        self.config = ToyDataConfig(W=tuple(map(tuple, W.tolist())), density=density, n_features=n, d=d)
        self.seed = seed
        self.lengths = W.norm(dim=1)
        self.directions = normalize(W, dim=1)
        self.mean = torch.zeros(d)
        self.rates = torch.full((n,), density / (1 - (1 - density) ** n), dtype=torch.float64)
        self.parents = torch.full((n,), -1)

    def sample(self, n: int, *, generator: torch.Generator) -> SyntheticRows:
        """Draw `n` independent rows, each with at least one active feature."""
        density, parts = torch.tensor([self.config.density]), []
        while sum(map(len, parts)) < n:
            drawn = draw_features(density, 2 * n, self.config.n_features, generator)[0].T
            parts.append(drawn[(drawn > 0).any(1)])
        strengths = torch.cat(parts)[:n] * self.lengths
        return SyntheticRows(strengths @ self.directions, strengths)


class ToyRecovery(NamedTuple):
    """Recovery of a toy's features by a trained TopK SAE, and the null: as many random directions with the same `k`."""

    trained: Recovery
    untrained: Recovery
    one_at_a_time: float
    """share of rows with a single active feature, each of which reveals one direction: 0 none, 1 all"""
    k: int


def recover_toy(
    toys: Toys, toy: int, folder: Path, *, n_rows: int = 40_000, tokens: int = 200_000, seed: int = 0
) -> ToyRecovery:
    """Train a TopK SAE on the hidden layer of one toy, in `folder`, and score it on fresh rows.

    It has twice as many latents as the toy represents features: with as many, most seeds end with a dead latent and
    another that represents two features. `k` is the mean number of active features per row, at least 1.
    """
    data = ToyData(toys, toy, seed=seed)
    size = 2 * data.config.n_features
    k = max(1, min(round(data.l0), size))
    recording = write_synthetic(data, folder / "recording", n_rows=n_rows, overwrite=True)
    config = TrainConfig(tokens=tokens, batch_size=256, lr=1e-2, seed=seed, log_every=10_000)
    sizes = TopKConfig(d_sae=size, k=k)
    with one_thread():
        sae = train_sae(recording, HOOK_POINT, sizes, config, folder / "sae", overwrite=True, device="cpu")
    null = untrained_sae(recording, HOOK_POINT, d_sae=size, k=k, seed=seed)
    on = (next(data.batches(20_000, seed=-2)).strengths > 0).sum(1)
    recovery = (measure_recovery(dictionary, data, seed=seed) for dictionary in (sae, null))
    return ToyRecovery(*recovery, float((on == 1).double().mean()), k)
