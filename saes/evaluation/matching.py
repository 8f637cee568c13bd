"""Cosine similarity of decoder directions: between two dictionaries, and within one.

- *Shared latents.* A one-to-one match of the decoder rows of two dictionaries, compared with a null of random
  directions. Two SAEs trained with different seeds share only part of their latents (Paulo and Belrose 2025, arXiv
  2501.16615). The share of chance matches above a cosine depends on the space, hence the null.
- *Near copies.* The largest cosine of every decoder row with another row of the same dictionary. Near copies are one
  feature represented twice; random rows with the same second moments are the null for crowding.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from interp.dictionary import Dictionary
from interp.errors import ConfigError, MismatchError
from interp.results import Record
from interp.seeds import make_generator
from saes.evaluation.scores import NEAR_COPY, SHARED, DecoderCosines, SharedLatents

MAX_PAIRS = 1 << 28
"""Largest number of pairs of latents to match: 16,384 by 16,384, which takes 1 GB and minutes."""


class LatentPairs(NamedTuple):
    """One-to-one pairs of latents, in the order of `rows`."""

    rows: Int64[Tensor, " n"]
    """`[n]` int64: latents of the first dictionary"""
    columns: Int64[Tensor, " n"]
    """`[n]` int64: their partners in the second dictionary"""
    cosines: Float[Tensor, " n"]
    """`[n]`: cosine of each pair"""


@dataclass(frozen=True, kw_only=True)
class SharedFeatures(SharedLatents):
    """Latents that two dictionaries share, with every matched pair."""

    match: LatentPairs
    random_cosines: Float[Tensor, " n"]
    """`[n]`: cosines of the pairs under the null"""

    @property
    def shares(self) -> SharedLatents:
        """The shares alone, without the pairs."""
        return SharedLatents(**{field.name: getattr(self, field.name) for field in fields(SharedLatents)})

    def to_records(self) -> list[Record]:
        """Return one row per matched pair: `first, second` (latents), `cosine`."""
        columns = (self.match.rows.tolist(), self.match.columns.tolist(), self.match.cosines.tolist())
        return [{"first": i, "second": j, "cosine": value} for i, j, value in zip(*columns, strict=True)]


def best_match(
    first: Float[Tensor, "n d"], second: Float[Tensor, "m d_second"], *, absolute: bool = False
) -> LatentPairs:
    """Return the one-to-one match of rows with the largest sum of cosines, or of `|cos|` when `absolute`.

    `first [n, d]` and `second [m, d]` give `min(n, m)` pairs by the Hungarian method, whose cost grows with the cube of
    the smaller number. Raises `MismatchError` (unequal widths), `ConfigError` (more than `MAX_PAIRS` pairs).
    """
    from scipy.optimize import linear_sum_assignment

    if first.shape[1] != second.shape[1]:
        raise MismatchError(
            f"directions of width {first.shape[1]} and {second.shape[1]} cannot be compared; choose two dictionaries "
            "of the same hook point"
        )
    if len(first) * len(second) > MAX_PAIRS:
        raise ConfigError(
            f"{len(first):,} by {len(second):,} features are too many for a one-to-one match; "
            f"choose some of them, at most {MAX_PAIRS:,} pairs"
        )
    cosines = unit(first.detach().float()) @ unit(second.detach().float()).T
    cosines = cosines.abs() if absolute else cosines
    rows, columns = map(torch.from_numpy, linear_sum_assignment(cosines.cpu().numpy(), maximize=True))
    return LatentPairs(rows, columns, cosines[rows, columns])


def match_features(first: Dictionary, second: Dictionary, *, seed: int = 0) -> SharedFeatures:
    """Match the decoder directions of two dictionaries of the same space, and those of the first with a null.

    The `first` may have another number of latents than the `second`; each latent is used once.

    Dictionaries trained from one seed share their initial weights and therefore more latents: compare different seeds.
    Raises as `best_match` does.
    """
    a, b = (sae.decoder_directions.detach().float().cpu() for sae in (first, second))
    match = best_match(a, b)
    random = best_match(a, random_like(b, generator=make_generator(seed, "matching", "random directions")))
    return SharedFeatures(
        match=match,
        shared=float((match.cosines > SHARED).float().mean()),
        shared_random=float((random.cosines > SHARED).float().mean()),
        mean_cosine=float(match.cosines.mean()),
        mean_cosine_random=float(random.cosines.mean()),
        random_cosines=random.cosines,
    )


def random_like(directions: Float[Tensor, "n d"], *, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Draw Gaussian directions `[n, d]` with the second moments of the given rows, scaled to unit norm.

    The null shares the mean and the crowded subspace of the rows, and none of their single directions.
    """
    rows = unit(directions).double()
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    drawn = torch.randn(directions.shape, generator=generator, dtype=torch.float64)
    return (drawn @ root.to(drawn)).to(directions)


def unit(rows: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """Return the rows scaled to norm 1; a row of zeros is unchanged."""
    return torch.nn.functional.normalize(rows, dim=-1)


EDGES = tuple(round(float(edge), 2) for edge in np.linspace(-1, 1, 41))
"""Edges of the bins of the histogram of cosines."""


def decoder_cosines(directions: Float[Tensor, "d_sae d"], *, seed: int = 0) -> DecoderCosines:
    """Measure the nearest cosines of `directions [d_sae, d]` and of a null.

    All pairs are compared: `2 d_sae^2 d` operations, twice.
    """
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


def nearest_cosines(directions: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Return, for every row of `directions [n, d]`, the largest cosine with another row, `[n]`; -1 for a single row."""
    from interp.atlas.neighbours import nearest_neighbours

    if len(directions) < 2:
        return torch.full((len(directions),), -1.0)
    return 1 - nearest_neighbours(directions.detach().cpu(), 1).distances[:, 0]


def near_copies(nearest: Float[Tensor, " n"]) -> float:
    """Return the share of rows whose nearest cosine is above `NEAR_COPY`."""
    return float((nearest > NEAR_COPY).float().mean())
