"""How close the decoder rows of a dictionary lie: near copies are one feature counted twice, crowding has a null."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp.runtime import make_generator
from saes.matching import random_like

NEAR_COPY = 0.9
"""Cosine above which a decoder row has a near copy."""

EDGES = tuple(round(float(edge), 2) for edge in np.linspace(-1, 1, 41))


@dataclass(frozen=True, kw_only=True)
class DecoderCosines:
    """Of every decoder row with the nearest other one."""

    nearest: float
    """Mean over features of the largest cosine with another row."""
    nearest_random: float
    """The same of random rows with the dictionary's second moments: crowding without features."""
    near_copies: float
    """Share of features with another row above `NEAR_COPY`."""
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    """Features per bin of that cosine, `len(edges) - 1`."""


def decoder_cosines(directions: Tensor, *, seed: int = 0) -> DecoderCosines:
    """Measure `directions [d_sae, d]`. All pairs are compared: `2 d_sae^2 d` operations, twice."""
    directions = directions.detach().float().cpu()
    nearest = nearest_cosines(directions)
    null = random_like(directions, generator=make_generator(seed, "decoder cosines"))
    counts, _ = np.histogram(nearest.clamp(-1, 1).numpy(), bins=EDGES)
    return DecoderCosines(
        nearest=float(nearest.mean()),
        nearest_random=float(nearest_cosines(null).mean()),
        near_copies=near_copies(nearest),
        edges=EDGES,
        counts=tuple(map(int, counts)),
    )


def nearest_cosines(directions: Tensor) -> Tensor:
    """`[n]`: the largest cosine of every row of `directions [n, d]` with another row; of one row alone it is -1."""
    from interp.atlas.neighbours import nearest_neighbours

    if len(directions) < 2:
        return torch.full((len(directions),), -1.0)
    return 1 - nearest_neighbours(directions.detach().cpu(), 1).distances[:, 0]


def near_copies(nearest: Tensor) -> float:
    """Share of rows whose nearest cosine is above `NEAR_COPY`."""
    return float((nearest > NEAR_COPY).float().mean())
