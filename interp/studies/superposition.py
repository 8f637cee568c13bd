"""Toy models of superposition, and the phase diagram of one feature (Elhage et al. 2022).

**The toy** (`train_toys`) compresses sparse features into fewer dimensions and reconstructs them through a ReLU:

    hidden = x @ W            x [n_features] sparse, hidden [d_hidden]
    x_hat  = relu(hidden @ W.T + b)
    loss   = sum_i importance_i (x_i - x_hat_i)^2, mean over the batch

Row `W[i]` is the direction of feature `i` (the paper's column `W_i`). A feature is active with probability `density`
(the paper's 1 - S), and then uniform in [0, 1]. All toys of a study (densities x importances x seeds) are trained in
one batched product with an explicit gradient: 3,000 steps of 100 toys take seconds on one core. Each toy has its own
initial weights and its own data.

**Phases** (`map_phases`) of the last feature: not represented, dedicated, or in superposition. The axes are density
(how often features are active) and the importance of the last feature; the other features have importance 1. At each
point, toys are trained from several seeds and the one of lowest loss is classified:

    not represented   the feature's squared length is below one half
    superposition     its direction has at least half a unit of interference: sum_j (u_i . w_j)^2
    dedicated         otherwise: a dimension of its own

For two features in one dimension the losses of the three ideal solutions have a closed form (`ideal_losses`), which
gives a phase diagram without training (`ideal_phase`). Superposition is ideal below a density of `4 I / (2 + 5 I)` for
`I <= 1`, and of `4 / (2 I + 5)` above. Trained toys may shrink their directions and shift their biases, unlike the
ideal solutions, so the two diagrams agree only away from the borders.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from torch import Tensor

from interp.artifacts import as_json
from interp.errors import ConfigError, NonFiniteError, UnknownNameError
from interp.results import Record, Result
from interp.seeds import make_generator
from interp.studies.superposition_geometry import REPRESENTED, Geometry, measure_geometry
from interp.threads import one_thread

Activation = Literal["relu", "linear"]
BETAS = (0.9, 0.999)
HELD_OUT, HELD_OUT_BATCH = 32_768, 2048
"""number of held-out rows that measure the final loss, and rows per batch"""


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """Sizes and training of a toy; with the defaults, rare features form a pentagon."""

    n_features: int = 5
    d_hidden: int = 2
    activation: Activation = "relu"
    """`linear` is the control: it represents only the most important directions, as principal components do"""
    steps: int = 3000
    batch_size: int = 512
    """rows per step and toy"""
    lr: float = 1e-2
    """learning rate of Adam; falls to 0 along a cosine"""

    def __post_init__(self) -> None:
        for name in ("n_features", "d_hidden", "steps", "batch_size"):
            if not getattr(self, name) >= 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"lr must be above 0 and finite, got {self.lr}; 1e-2 is the default")
        if self.activation not in ("relu", "linear"):
            raise UnknownNameError("activation", self.activation, ["relu", "linear"])


@dataclass(frozen=True, kw_only=True, eq=False)
class Toys(Result):
    """Trained toys, one per entry of the first axis; seeds vary fastest."""

    W: Float[Tensor, "n_toys n_features d_hidden"]
    """`[n_toys, n_features, d_hidden]`"""
    b: Float[Tensor, "n_toys n_features"]
    """`[n_toys, n_features]`"""
    density: Float[Tensor, " n_toys"]
    """`[n_toys]`: probability that a feature is active"""
    importance: Float[Tensor, "n_toys n_features"]
    """`[n_toys, n_features]`: weight of each feature in the loss"""
    seed: tuple[int, ...]
    """`[n_toys]`: index of the toy among those that differ in their random numbers only"""
    loss: Float[Tensor, " n_toys"]
    """`[n_toys]`: loss on held-out rows, in units of importance times squared feature"""
    null_loss: Float[Tensor, " n_toys"]
    """`[n_toys]`: loss of the best constant, which represents nothing"""
    settings: dict[str, Any]

    def __len__(self) -> int:
        return len(self.W)

    @property
    def unexplained(self) -> Float[Tensor, " n_toys"]:
        """Loss over null loss, `[n_toys]`. 0: perfect reconstruction; 1: no better than a constant."""
        return self.loss / self.null_loss

    def at(self, density: float) -> "Toys":
        """Return the toys of one density. Raises `ConfigError` when there are none."""
        chosen = (self.density - density).abs() < 1e-9
        if not chosen.any():
            have = ", ".join(f"{d:g}" for d in self.density.unique().tolist())
            raise ConfigError(f"no toy was trained at density {density:g}; there are {have}")
        return self.select(chosen)

    def select(self, chosen: Bool[Tensor, " n_toys"]) -> "Toys":
        """Return the toys of a mask `[n_toys]` bool."""
        fields = {n: getattr(self, n)[chosen] for n in ("W", "b", "density", "importance", "loss", "null_loss")}
        seed = tuple(s for s, keep in zip(self.seed, chosen.tolist(), strict=True) if keep)
        return Toys(**fields, seed=seed, settings=self.settings)

    def best(self) -> int:
        """Return the toy with the lowest loss (only toys of one density and importance are comparable)."""
        return int(self.loss.argmin())

    def geometry(self, toy: int) -> Geometry:
        """Measure the geometry of one toy's directions."""
        return measure_geometry(self.W[toy])

    def to_records(self) -> list[Record]:
        """Return one row per toy: `toy, density, seed, loss, null_loss, unexplained`."""
        columns = (self.density, self.loss, self.null_loss, self.unexplained)
        rows = zip(self.seed, *(column.tolist() for column in columns), strict=True)
        return [
            {"toy": i, "density": d, "seed": s, "loss": loss, "null_loss": null, "unexplained": share}
            for i, (s, d, loss, null, share) in enumerate(rows)
        ]

    def headline(self) -> str:
        """Return one line: the sizes."""
        n, features, hidden = self.W.shape
        return f"{n} toys of {features} features in {hidden} dimensions; unexplained: 0 is perfect, 1 a constant"

    def shown(self) -> list[Record]:
        """Return the toy of lowest loss for each density."""
        rows = sorted(self.to_records(), key=lambda row: row["unexplained"])
        first = {row["density"]: row for row in reversed(rows)}
        return [first[density] for density in sorted(first)]


def train_toys(
    config: ToyConfig | None = None,
    *,
    densities: tuple[float, ...] = (0.05,),
    importance: Shaped[Tensor, "..."] | None = None,
    n_seeds: int = 8,
    seed: int = 0,
) -> Toys:
    """Train `n_seeds` toys at every density, all at once.

    `importance [n_features]` weighs the features (default: all 1). Raises `ConfigError` on a density outside (0, 1], a
    negative or missing importance; `NonFiniteError` when training diverges.
    """
    config = config or ToyConfig()
    weights = torch.ones(config.n_features) if importance is None else importance.float()
    if n_seeds < 1 or not densities:
        raise ConfigError(f"at least one density and one seed are needed, got {len(densities)} and {n_seeds}")
    if weights.shape != (config.n_features,):
        raise ConfigError(
            f"importance must hold one weight for each of {config.n_features} features, got {list(weights.shape)}; "
            "`train_grid` takes a row for each toy"
        )
    density = torch.tensor(densities, dtype=torch.float64).repeat_interleave(n_seeds)
    return train_grid(config, density, weights.expand(len(density), -1), n_seeds=n_seeds, seed=seed)


def train_grid(
    config: ToyConfig, density: Shaped[Tensor, "..."], importance: Shaped[Tensor, "..."], *, n_seeds: int, seed: int = 0
) -> Toys:
    """Train one toy per entry of `density [n_toys]` and row of `importance [n_toys, n_features]`, all at once.

    Entries come in runs of `n_seeds` that differ in their random numbers only.
    """
    _check_grid(config, density, importance, n_seeds)
    generator = make_generator(seed, "superposition toy")
    with one_thread(), torch.no_grad():
        W, b = _train(config, density.float(), importance.float(), generator)
        loss = _held_out_loss(config, W, b, density.float(), importance.float(), generator)
    if not (torch.isfinite(W).all() and torch.isfinite(loss).all()):
        raise NonFiniteError(f"a toy diverged; use a lower lr (it is {config.lr})")
    settings = {**as_json(config), "n_seeds": n_seeds, "seed": seed, "held_out": HELD_OUT}
    return Toys(
        W=W,
        b=b,
        density=density.double(),
        importance=importance.double(),
        seed=tuple(i % n_seeds for i in range(len(density))),
        loss=loss,
        null_loss=(importance * constant_loss(density)[:, None]).sum(1).double(),
        settings=settings,
    )


def constant_loss(density: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return the variance of a feature that is uniform in [0, 1] with probability `density`, else 0."""
    return density / 3 - density**2 / 4


def draw_features(
    density: Float[Tensor, " n_toys"], n: int, n_features: int, generator: torch.Generator
) -> Float[Tensor, "n_toys {n_features} {n}"]:
    """Draw columns `[n_toys, n_features, n]` for every toy; one number gives both activity and value of a feature."""
    drawn = torch.rand(len(density), n_features, n, generator=generator).div_(density[:, None, None])
    return drawn.mul_(drawn < 1)


def loss_and_gradients(
    x: Float[Tensor, "n_toys n_features n"],
    W: Float[Tensor, "n_toys n_features d_hidden"],
    b: Float[Tensor, "n_toys n_features"],
    importance: Float[Tensor, "n_toys n_features"],
    activation: Activation,
) -> tuple[Float[Tensor, " n_toys"], Float[Tensor, "n_toys n_features d_hidden"], Float[Tensor, "n_toys n_features"]]:
    """Return the loss `[n_toys]` and its gradients by `W` and by `b`, for columns `x [n_toys, n_features, n]`.

    The gradient is explicit instead of by autograd, with the batch as the last axis, where such thin products are
    fastest.
    """
    hidden = W.mT @ x
    pre = torch.baddbmm(b[..., None], W, hidden)
    error = (pre.relu() if activation == "relu" else pre) - x
    weighted = error * importance[..., None]
    loss = (weighted * error).sum(1).mean(1)
    upstream = weighted.mul_(2 / x.shape[-1])
    if activation == "relu":
        upstream.mul_(pre > 0)
    return loss, x @ (W.mT @ upstream).mT + upstream @ hidden.mT, upstream.sum(2)


def _train(
    config: ToyConfig,
    density: Float[Tensor, " n_toys"],
    importance: Float[Tensor, "n_toys n_features"],
    generator: torch.Generator,
) -> tuple[Float[Tensor, "n_toys n_features d_hidden"], Float[Tensor, "n_toys n_features"]]:
    n, d = config.n_features, config.d_hidden
    W = torch.randn(len(density), n, d, generator=generator) * (2 / (n + d)) ** 0.5  # Xavier
    b = torch.zeros(len(density), n)
    optimizer = torch.optim.Adam([W, b], lr=config.lr, betas=BETAS)
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        x = draw_features(density, config.batch_size, n, generator)
        _, W.grad, b.grad = loss_and_gradients(x, W, b, importance, config.activation)
        optimizer.step()
    return W, b


def _held_out_loss(
    config: ToyConfig,
    W: Float[Tensor, "n_toys n_features d_hidden"],
    b: Float[Tensor, "n_toys n_features"],
    density: Float[Tensor, " n_toys"],
    importance: Float[Tensor, "n_toys n_features"],
    generator: torch.Generator,
) -> Float64[Tensor, " n_toys"]:
    """Return the loss on held-out rows, shared by all toys of one density so that sampling adds no differences."""
    levels, which = density.unique(return_inverse=True)
    total = torch.zeros(len(density), dtype=torch.float64)
    for _ in range(HELD_OUT // HELD_OUT_BATCH):
        x = draw_features(levels, HELD_OUT_BATCH, config.n_features, generator)
        for level in range(len(levels)):
            mine = which == level
            same = x[level].expand(int(mine.sum()), -1, -1)
            total[mine] += loss_and_gradients(same, W[mine], b[mine], importance[mine], config.activation)[0].double()
    return total / (HELD_OUT // HELD_OUT_BATCH)


def _check_grid(
    config: ToyConfig, density: Shaped[Tensor, "..."], importance: Shaped[Tensor, "..."], n_seeds: int
) -> None:
    if density.ndim != 1 or not len(density) or n_seeds < 1:
        raise ConfigError(
            f"expected density [n_toys] of at least one toy and one seed, got {list(density.shape)} and {n_seeds}"
        )
    if not bool(((density > 0) & (density <= 1)).all()):
        raise ConfigError(f"a density is the probability that a feature is on, in (0, 1]; got {density.tolist()}")
    if importance.shape != (len(density), config.n_features):
        raise ConfigError(
            f"importance must hold one weight for each of {config.n_features} features, got {list(importance.shape)}"
        )
    total = importance.sum(1)
    if not bool((importance >= 0).all()) or not bool(((total > 0) & total.isfinite()).all()):
        raise ConfigError("importances must be at least 0 and finite, and one of them above 0")
    if len(density) % n_seeds:
        raise ConfigError(f"{len(density)} toys do not come in runs of {n_seeds} seeds")


PHASES = ("not represented", "dedicated", "superposition")
SHARED = 0.5
"""interference from which a feature is in superposition; an antipodal partner of unit length gives 1"""


@dataclass(frozen=True, kw_only=True, eq=False)
class PhaseDiagram(Result):
    """Phases of the last feature, `[n_densities, n_importances]` throughout."""

    densities: tuple[float, ...]
    importances: tuple[float, ...]
    """importance of the last feature; the others have 1"""
    phase: tuple[tuple[str, ...], ...]
    """phase of the toy of lowest loss"""
    agreement: Float[Tensor, "n_densities n_importances"]
    """fraction of seeds in that phase"""
    norm: Float[Tensor, "n_densities n_importances"]
    """squared length of the last feature, in the toy of lowest loss"""
    shared: Float[Tensor, "n_densities n_importances"]
    """interference of the last feature with the others, in the toy of lowest loss"""
    unexplained: Float[Tensor, "n_densities n_importances"]
    """loss over that of the best constant, in the toy of lowest loss"""
    settings: dict[str, Any]

    def to_records(self) -> list[dict[str, Any]]:
        """Return one row per cell: `density, importance, phase, agreement, norm, shared, unexplained`."""
        measures = {name: getattr(self, name) for name in ("agreement", "norm", "shared", "unexplained")}
        return [
            {"density": d, "importance": w, "phase": self.phase[i][j]}
            | {name: float(values[i, j]) for name, values in measures.items()}
            for i, d in enumerate(self.densities)
            for j, w in enumerate(self.importances)
        ]

    def headline(self) -> str:
        """Return one line: the number of cells of each phase."""
        cells = [phase for row in self.phase for phase in row]
        return f"Phases of {len(cells)} cells: " + ", ".join(f"{cells.count(p)} {p}" for p in sorted(set(cells)))


def map_phases(
    densities: tuple[float, ...],
    importances: tuple[float, ...],
    config: ToyConfig | None = None,
    *,
    n_seeds: int = 16,
    seed: int = 0,
) -> PhaseDiagram:
    """Train toys over density, importance of the last feature and seed; default: two features in one dimension.

    In one dimension half of the toys start with both features on the same side, and neither can cross zero past the
    other. With few seeds all toys of a cell may be stuck (with 16, one cell in 65,536). Raises `ConfigError` as
    `train_toys` does, and on an empty axis.
    """
    config = config or ToyConfig(n_features=2, d_hidden=1, steps=1500)
    if not densities or not importances or n_seeds < 1:
        raise ConfigError("a phase diagram needs at least one density, one importance and one seed")
    shape = (len(densities), len(importances), n_seeds)
    density = torch.tensor(densities, dtype=torch.float64)[:, None, None].expand(shape)
    importance = torch.ones(*shape, config.n_features, dtype=torch.float64)
    importance[..., -1] = torch.tensor(importances, dtype=torch.float64)[:, None]
    toys = train_grid(config, density.flatten(), importance.flatten(0, 2), n_seeds=n_seeds, seed=seed)
    return read_phases(toys, densities, importances)


def read_phases(toys: Toys, densities: tuple[float, ...], importances: tuple[float, ...]) -> PhaseDiagram:
    """Classify toys that were trained on the grid of `densities` and `importances`, in that order."""
    n_seeds = toys.settings["n_seeds"]
    shape = (len(densities), len(importances), n_seeds)
    norm, shared = last_feature(toys)
    numbers = phase_numbers(norm, shared).view(shape)
    best = toys.loss.view(shape).argmin(-1, keepdim=True)
    chosen = numbers.gather(-1, best)

    def of_best(values: Tensor) -> Tensor:
        return values.view(shape).gather(-1, best)[..., 0]

    return PhaseDiagram(
        densities=tuple(densities),
        importances=tuple(importances),
        phase=tuple(tuple(PHASES[n] for n in row) for row in chosen[..., 0].tolist()),
        agreement=(numbers == chosen).double().mean(-1),
        norm=of_best(norm),
        shared=of_best(shared),
        unexplained=of_best(toys.unexplained),
        settings={**toys.settings, "represented": REPRESENTED, "shared": SHARED},
    )


def last_feature(toys: Toys) -> tuple[Float64[Tensor, " n_toys"], Float64[Tensor, " n_toys"]]:
    """Return the squared length and summed interference of every toy's last feature, `[n_toys]` each."""
    W = toys.W.double()
    last = W[:, -1:]
    norm = last.square().sum(-1)
    overlap = (W[:, :-1] @ last.mT)[..., 0].square() / norm.clamp_min(1e-12)
    return norm[:, 0], overlap.sum(1)


def phase_numbers(norm: Float[Tensor, "*batch"], shared: Float[Tensor, "*batch"]) -> Int64[Tensor, "*batch"]:
    """Return indices into `PHASES` for squared lengths and summed interferences, elementwise."""
    return torch.where(norm < REPRESENTED, 0, torch.where(shared >= SHARED, 2, 1))


def ideal_losses(density: float, importance: float) -> dict[str, float]:
    """Return the losses of the ideal solutions of two features in one dimension, by phase of the second feature.

    A feature without a direction is reconstructed by its mean, so its loss is its variance. An antipodal pair of unit
    length errs only when both features are active, by the smaller value on each: `E[min^2] = 1/6` for two uniform
    numbers in [0, 1].
    """
    if not 0 < density <= 1 or importance < 0:
        raise ConfigError(f"expected a density in (0, 1] and an importance from 0 up, got {density}, {importance}")
    variance = float(constant_loss(torch.tensor(density, dtype=torch.float64)))
    return {
        "not represented": importance * variance,
        "dedicated": variance,
        "superposition": (1 + importance) * density**2 / 6,
    }


def ideal_phase(density: float, importance: float) -> str:
    """Return the phase whose ideal solution has the lowest loss (two features in one dimension)."""
    losses = ideal_losses(density, importance)
    return min(losses, key=losses.__getitem__)


def border_distance(density: float, importance: float) -> float:
    """Return the second lowest ideal loss over the lowest, minus 1: 0 on a border, large for a clear phase."""
    low, second, *_ = sorted(ideal_losses(density, importance).values())
    return second / low - 1 if low > 0 else float("inf")
