"""Phases of one feature beside others: not represented, dedicated, or in superposition (Elhage et al. 2022).

Over density (how often features are on) and the importance of the last feature, the others having importance 1, toys
are trained from several seeds and the one of lowest loss is read:

    not represented   the feature's squared length is below one half
    superposition     its direction carries at least half a unit of interference: sum_j (u_i . w_j)^2
    dedicated         else: a dimension of its own

For two features in one dimension the three ideal solutions have losses in closed form (`ideal_losses`), and so a phase
diagram that no training is needed for (`ideal_phase`): superposition below a density of `4 I / (2 + 5 I)` for
`I <= 1`, of `4 / (2 I + 5)` above. Trained toys may shrink their directions and shift their biases, which the ideal
solutions do not: the two diagrams agree away from the borders.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.superposition.geometry import REPRESENTED
from interp.superposition.toy import ToyConfig, Toys, constant_loss, train_grid
from interp.values import as_json, save_json

PHASES = ("not represented", "dedicated", "superposition")
SHARED = 0.5
"""interference from which a feature is in superposition; an antipodal partner of unit length gives 1"""


@dataclass(frozen=True, kw_only=True, eq=False)
class PhaseDiagram:
    """The phase of the last feature, `[n_densities, n_importances]` throughout."""

    densities: tuple[float, ...]
    importances: tuple[float, ...]
    """of the last feature, where the others have 1"""
    phase: tuple[tuple[str, ...], ...]
    """of the toy of lowest loss"""
    agreement: Tensor
    """share of seeds in that phase"""
    norm: Tensor
    """squared length of the last feature, best toy"""
    shared: Tensor
    """its interference with the others, best toy"""
    unexplained: Tensor
    """loss over that of the best constant, best toy"""
    settings: dict[str, Any]

    def to_records(self) -> list[dict[str, Any]]:
        """One plain dict per cell: `density, importance, phase, agreement, norm, shared, unexplained`."""
        measures = {name: getattr(self, name) for name in ("agreement", "norm", "shared", "unexplained")}
        return [
            {"density": d, "importance": w, "phase": self.phase[i][j]}
            | {name: float(values[i, j]) for name, values in measures.items()}
            for i, d in enumerate(self.densities)
            for j, w in enumerate(self.importances)
        ]

    def to_json(self) -> dict[str, Any]:
        return as_json(self)

    def save(self, path: Path | str) -> None:
        save_json(self, path)


def map_phases(
    densities: tuple[float, ...],
    importances: tuple[float, ...],
    config: ToyConfig | None = None,
    *,
    n_seeds: int = 16,
    seed: int = 0,
) -> PhaseDiagram:
    """Train a toy per density, importance of the last feature and seed; default: two features in one dimension.

    In one dimension half of the toys start with both features on the same side, and neither can pass the other through
    zero: of few seeds all may be stuck in a cell (of 16, one cell in 65,536).

    Raises `ConfigError` as `train_toys` does, and on an empty axis.
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
    """The diagram of toys that were trained on the grid of `densities` and `importances`, in that order."""
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


def last_feature(toys: Toys) -> tuple[Tensor, Tensor]:
    """Squared length and summed interference `[n_toys]` of every toy's last feature."""
    W = toys.W.double()
    last = W[:, -1:]
    norm = last.square().sum(-1)
    overlap = (W[:, :-1] @ last.mT)[..., 0].square() / norm.clamp_min(1e-12)
    return norm[:, 0], overlap.sum(1)


def phase_numbers(norm: Tensor, shared: Tensor) -> Tensor:
    """Indices into `PHASES` of squared lengths and summed interferences, elementwise."""
    return torch.where(norm < REPRESENTED, 0, torch.where(shared >= SHARED, 2, 1))


def ideal_losses(density: float, importance: float) -> dict[str, float]:
    """Losses of the ideal solutions of two features in one dimension, by the phase of the second feature.

    A feature without a direction is answered by its mean: it costs its variance. An antipodal pair of unit length is
    wrong only when both are on, by the smaller of the two in each: `E[min^2] = 1/6` for two numbers even in [0, 1].
    """
    if not 0 < density <= 1 or importance < 0:
        raise ConfigError(f"a density in (0, 1] and an importance from 0 up were expected, got {density}, {importance}")
    variance = float(constant_loss(torch.tensor(density, dtype=torch.float64)))
    return {
        "not represented": importance * variance,
        "dedicated": variance,
        "superposition": (1 + importance) * density**2 / 6,
    }


def ideal_phase(density: float, importance: float) -> str:
    """The phase whose ideal solution has the lowest loss (two features in one dimension)."""
    losses = ideal_losses(density, importance)
    return min(losses, key=losses.__getitem__)


def border_distance(density: float, importance: float) -> float:
    """How clear the ideal phase is: the second lowest ideal loss over the lowest, less 1; 0 on a border."""
    low, second, *_ = sorted(ideal_losses(density, importance).values())
    return second / low - 1 if low > 0 else float("inf")
