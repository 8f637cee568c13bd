"""Which features of two dictionaries are the same: a one-to-one match of their directions, and what chance would give.

Two SAEs trained with different seeds share only part of their features (Paulo and Belrose 2025, arXiv 2501.16615);
how large a share of matches above a cosine means anything depends on the space, so a null stands beside it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from interp.dictionary import Dictionary
from interp.errors import ConfigError, MismatchError
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
class SharedFeatures:
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
