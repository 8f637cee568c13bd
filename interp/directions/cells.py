"""Cells of a steering grid: changes along unit vectors at one hook point, several in a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from interp.interventions.edits import adding
from interp.interventions.intervention import Action, stream_points
from interp.models.adapter import Hook, bos_token_id
from interp.models.generation import Offset
from interp.models.hooked import HookedModel
from interp.seeds import make_generator


@dataclass(frozen=True)
class Candidate:
    """A direction at one hook point."""

    hook_point: str
    vector: Float64[np.ndarray, " d"]
    """unit length"""
    unit: float
    """length of strength 1"""
    start: float = 0.0
    """`set`: coordinate of strength 0"""


@dataclass(frozen=True)
class Cells:
    """Changes along unit vectors, one for each part of a batch. `ablate` makes them after every block."""

    hook_point: str
    action: Action
    vectors: Float[Tensor, "cells d"]
    amounts: Float[Tensor, " cells"]

    def change(self, value: Tensor, first: int) -> Tensor:
        """Return what is added to values `[cells * n, pos, d]`, at positions from `first` on."""
        n = len(value) // len(self.vectors)
        vectors = self.vectors.to(value).repeat_interleave(n, 0)[:, None]
        amounts = self.amounts.to(value).repeat_interleave(n)[:, None, None]
        if self.action != "add":
            amounts = (amounts if self.action == "set" else 0.0) - (value * vectors).sum(-1, keepdim=True)
        added = (amounts * vectors).expand_as(value).clone()
        added[:, :first] = 0
        return added

    def hooks(self, model: HookedModel, offset: Offset | None = None) -> list[tuple[str, Hook]]:
        """Return hooks that make the changes in every pass, from the token after BOS on."""
        bos = int(bos_token_id(model) is not None)

        def added(value: Tensor) -> Tensor:
            return self.change(value, max(0, bos - (offset.tokens if offset else 0)))

        points = [self.hook_point] if self.action != "ablate" else stream_points(model.cfg.n_layers)
        return [(name, adding(added)) for name in points]

    def part(self, at: slice | np.ndarray) -> "Cells":
        """Return some of the cells."""
        return replace(self, vectors=self.vectors[at], amounts=self.amounts[at])

    def __len__(self) -> int:
        return len(self.vectors)


def cells_along(along: Candidate, action: Action, strengths: Sequence[float]) -> Cells:
    """Return the strengths of one direction."""
    amounts = torch.tensor(strengths, dtype=torch.float32) * along.unit + (along.start if action == "set" else 0.0)
    vectors = torch.from_numpy(along.vector).float().expand(len(strengths), -1)
    return Cells(along.hook_point, action, vectors, amounts)


def random_cells(along: Candidate, action: Action, strengths: Sequence[float], drawn: np.ndarray) -> Cells:
    """Return random directions `drawn [n_random, d]`, each at the strengths and unit of a direction."""
    each = [cells_along(Candidate(along.hook_point, vector, along.unit), action, strengths) for vector in drawn]
    vectors, amounts = torch.cat([one.vectors for one in each]), torch.cat([one.amounts for one in each])
    return Cells(along.hook_point, action, vectors, amounts)


def random_directions(d: int, n: int, seed: int, *purpose: str) -> Float64[np.ndarray, "n d"]:
    """Return directions of unit length, drawn uniformly."""
    drawn = torch.randn(n, d, generator=make_generator(seed, "random directions", *purpose), dtype=torch.float64)
    return (drawn / drawn.norm(dim=1, keepdim=True)).numpy()
