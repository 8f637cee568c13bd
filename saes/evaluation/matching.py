"""Which features of two dictionaries are the same: a one-to-one match of their directions, and what chance would give.

Two SAEs trained with different seeds share only part of their features (Paulo and Belrose 2025, arXiv 2501.16615);
how large a share of matches above a cosine means anything depends on the space, so a null stands beside it.

How close the decoder rows of a dictionary lie: near copies are one feature counted twice, crowding has a null.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.dictionary import Dictionary
from interp.errors import ConfigError, MismatchError
from interp.results import Record, Result
from interp.runtime import make_generator

SHARED = 0.7
"""Cosine above which two features count as the same."""

MAX_PAIRS = 1 << 28
"""Pairs of features matched at most: 16,384 by 16,384, which takes 1 GB and minutes."""


class Match(NamedTuple):
    """Pairs of features, at most one for each, in the order of `rows`."""

    rows: Tensor
    """`[n]` int64: features of the first dictionary"""
    columns: Tensor
    """`[n]` int64: their partners in the second"""
    cosines: Tensor
    """`[n]`: between the two"""


@dataclass(frozen=True, kw_only=True)
class SharedFeatures(Result):
    """What two dictionaries have in common. Shares are of the smaller dictionary's features."""

    match: Match
    shared: float
    """Share of pairs whose cosine is above `SHARED`: 1 for two dictionaries that are the same up to order."""
    shared_random: float
    """The same with random directions of the second one's covariance in its place: what a match finds by chance."""
    mean_cosine: float
    mean_cosine_random: float

    def __str__(self) -> str:
        return (
            f"{self.shared:.1%} of features have a partner above {SHARED} (mean cosine {self.mean_cosine:.2f}); "
            f"by chance {self.shared_random:.1%} ({self.mean_cosine_random:.2f})"
        )

    def to_records(self) -> list[Record]:
        """Return one row per matched pair: `first, second` (latents), `cosine`."""
        columns = (self.match.rows.tolist(), self.match.columns.tolist(), self.match.cosines.tolist())
        return [{"first": i, "second": j, "cosine": value} for i, j, value in zip(*columns, strict=True)]


def best_match(first: Tensor, second: Tensor, *, absolute: bool = False) -> Match:
    """The one-to-one match of rows with the largest sum of cosines (the Hungarian method; of `|cos|` when `absolute`).

    `first [n, d]`, `second [m, d]`: the match has `min(n, m)` pairs. Cost grows with the cube of the smaller number.
    Raises `MismatchError` (other widths), `ConfigError` (more than `MAX_PAIRS` pairs).
    """
    from scipy.optimize import linear_sum_assignment

    if first.shape[1] != second.shape[1]:
        raise MismatchError(f"directions of width {first.shape[1]} and {second.shape[1]} cannot be compared")
    if len(first) * len(second) > MAX_PAIRS:
        raise ConfigError(
            f"{len(first):,} by {len(second):,} features are too many for a one-to-one match; "
            f"choose features so that there are at most {MAX_PAIRS:,} pairs"
        )
    cosines = unit(first.detach().float()) @ unit(second.detach().float()).T
    cosines = cosines.abs() if absolute else cosines
    rows, columns = map(torch.from_numpy, linear_sum_assignment(cosines.cpu().numpy(), maximize=True))
    return Match(rows, columns, cosines[rows, columns])


def match_features(first: Dictionary, second: Dictionary, *, seed: int = 0) -> SharedFeatures:
    """Match the decoder directions of two dictionaries of the same space, and of the first with a null.

    Dictionaries trained from one seed start at the same weights and share more for that alone: compare over seeds.
    Raises as `best_match` does.
    """
    one, two = first.decoder_directions.detach().float(), second.decoder_directions.detach().float()
    match = best_match(one, two)
    random = best_match(one, random_like(two, generator=make_generator(seed, "matching", "random directions")))
    return SharedFeatures(
        match=match,
        shared=float((match.cosines > SHARED).float().mean()),
        shared_random=float((random.cosines > SHARED).float().mean()),
        mean_cosine=float(match.cosines.mean()),
        mean_cosine_random=float(random.cosines.mean()),
    )


def random_like(directions: Tensor, *, generator: torch.Generator) -> Tensor:
    """Gaussian directions `[n, d]` with the second moments of the unit rows given: a null that shares their mean and
    their crowded subspace, and none of the features."""
    rows = unit(directions).double()
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    drawn = torch.randn(directions.shape, generator=generator, dtype=torch.float64)
    return (drawn @ root.to(drawn)).to(directions)


def unit(rows: Tensor) -> Tensor:
    """Rows of length 1 (a row of zeros stays)."""
    return torch.nn.functional.normalize(rows, dim=-1)


NEAR_COPY = 0.9
"""Cosine above which a decoder row has a near copy."""

EDGES = tuple(round(float(edge), 2) for edge in np.linspace(-1, 1, 41))


@dataclass(frozen=True, kw_only=True)
class DecoderCosines(Result):
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
