"""Directions between two sides by several methods, each with its held-out accuracy and its nulls.

- *difference in means*;
- *PCA of differences*: the first component of the pairs' differences (Zou et al. 2023, representation engineering);
- *PCA*: the first component of all rows, for sides that are not paired;
- *probe*: logistic regression;
- *LDA*: the difference in means through the inverse of the Ledoit-Wolf covariance within the sides;
- *mass-mean*: the same through the pseudo-inverse of the covariance itself (Marks and Tegmark 2023, eq. 2);
- *through latents*: the difference in means of a dictionary's activations, decoded;
- *without the nuisance*: the difference in means, without its part along another direction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float64

from interp.directions.sides import Sides
from interp.errors import ConfigError
from interp.geometry.points import GeometryResult, unit_vector
from interp.geometry.probes import DirectionAccuracy, find_direction, scored_direction
from interp.results import Record

if TYPE_CHECKING:
    from interp.dictionary import Dictionary

Find = Callable[[Float64[np.ndarray, "n d"], Bool[np.ndarray, " n"]], Float64[np.ndarray, " d"]]
"""A unit direction from rows and the side of each."""
DEFAULT = "difference in means"


@dataclass(frozen=True, kw_only=True)
class Variant(GeometryResult):
    """A direction by one method, with the same method in an untrained model as a null."""

    accuracy: DirectionAccuracy
    untrained: float
    """held-out accuracy in the model with its weights drawn anew: 0 to 1, 0.5 is chance"""
    cosine: float
    """with the difference in means"""

    def sentence(self) -> str:
        return f"{self.accuracy}; untrained model {self.untrained:.3f}"

    def to_records(self) -> list[Record]:
        """Return one row: the accuracy with its nulls, and the cosine with the difference in means."""
        return [self.accuracy.to_records()[0] | {"untrained": self.untrained, "cosine": self.cosine}]


def methods(
    sides: Sides, *, dictionary: "Dictionary | None" = None, nuisance: Float64[np.ndarray, " d"] | None = None
) -> dict[str, Find]:
    """Return the methods that apply to two sides, by name.

    `dictionary` reads the same hook point; `nuisance [d]` is a direction that shall not count.
    """
    finders: dict[str, Find] = {DEFAULT: lambda x, yes: find_direction(x, yes, "difference in means")}
    if sides.paired:
        finders["PCA of differences"] = _pca_of_differences
    else:
        finders["PCA"] = lambda x, yes: find_direction(x, yes, "PCA")
    finders |= {"probe": lambda x, yes: find_direction(x, yes, "probe"), "LDA": _lda, "mass-mean": _mass_mean}
    if dictionary is not None:
        finders["through latents"] = lambda x, yes: _through_latents(x, yes, dictionary)
    if nuisance is not None:
        nuisance_unit = unit_vector(nuisance)

        def without(x: np.ndarray, yes: np.ndarray) -> np.ndarray:
            gap = _gap(x, yes)
            return unit_vector(gap - (gap @ nuisance_unit) * nuisance_unit)

        finders["without the nuisance"] = without
    return finders


def variants(
    sides: Sides, untrained: Sides, hook_point: str, finders: dict[str, Find], *, seed: int = 0
) -> tuple[dict[str, Variant], Float64[np.ndarray, "variants d"]]:
    """Return every method's direction at a hook point: its scores by name, and the unit vectors.

    `untrained` are the same texts in a model with its weights drawn anew.
    """
    scores: dict[str, Variant] = {}
    vectors = []
    for name, find in finders.items():
        score = partial(scored_direction, name, find, yes=sides.yes, heldout=sides.heldout, seed=seed)
        vector, accuracy = score(sides.points[hook_point])
        _, chance = score(untrained.points[hook_point])
        vectors.append(vector)
        cosine = float(vector @ vectors[0])
        scores[name] = Variant(accuracy=accuracy, untrained=chance.accuracy, cosine=cosine)
    return scores, np.stack(vectors)


def _gap(x: np.ndarray, yes: np.ndarray) -> np.ndarray:
    return x[yes].mean(0) - x[~yes].mean(0)


def _pca_of_differences(x: np.ndarray, yes: np.ndarray) -> np.ndarray:
    """Rows i and i + n / 2 are pairs; a pair of one side (under shuffled labels) has no difference."""
    half = len(x) // 2
    signs = yes[:half].astype(float) - yes[half:].astype(float)
    differences = (x[:half] - x[half:]) * signs[:, None]
    if not differences.any():
        raise ConfigError("no pair has two sides")
    component = np.linalg.svd(differences, full_matrices=False)[2][0]
    return component * (1.0 if component @ differences.sum(0) >= 0 else -1.0)


def _within(x: np.ndarray, yes: np.ndarray) -> np.ndarray:
    return np.where(yes[:, None], x - x[yes].mean(0), x - x[~yes].mean(0))


def _lda(x: np.ndarray, yes: np.ndarray) -> np.ndarray:
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(_within(x, yes), assume_centered=True)
    ridge = max(1e-8 * float(np.trace(covariance)) / len(covariance), 1e-12)  # rows may all be the same
    return unit_vector(np.linalg.solve(covariance + ridge * np.eye(len(covariance)), _gap(x, yes)))


def _mass_mean(x: np.ndarray, yes: np.ndarray) -> np.ndarray:
    within = _within(x, yes)
    if not within.any():
        return unit_vector(_gap(x, yes))
    return unit_vector(np.linalg.pinv(within, rcond=1e-6) @ np.linalg.pinv(within.T, rcond=1e-6) @ _gap(x, yes))


def _through_latents(x: np.ndarray, yes: np.ndarray, dictionary: "Dictionary") -> np.ndarray:
    import torch

    acts = dictionary.encode(torch.from_numpy(x).float()).detach().double().numpy()
    written = dictionary.decoder_directions.detach().double().cpu().numpy()
    return unit_vector(_gap(acts, yes) @ written)
