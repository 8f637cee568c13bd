"""A yes-or-no concept as one direction, found in three ways that need not agree.

- difference in means: from the mean of no to the mean of yes;
- probe: the weights of a logistic regression;
- PCA: the first principal component of all rows, turned towards yes; it sees no labels but that sign.

The difference in means is moved by whatever else the two sides differ in; the probe looks past it, and can be far more
accurate along a direction that the model does not use. So all three are given with their held-out accuracy (threshold
half-way between the two training means), their cosines, and what the same recipe reaches with shuffled labels.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from interp.errors import ConfigError
from interp.geometry.probes import fit_linear
from interp.geometry.values import Finding, as_points, two_groups
from interp.runtime import derive_seed

Method = Literal["difference in means", "probe", "PCA"]
METHODS: tuple[Method, ...] = ("difference in means", "probe", "PCA")
N_SHUFFLES = 20


@dataclass(frozen=True, kw_only=True)
class ConceptDirection(Finding):
    """One direction."""

    method: Method
    direction: np.ndarray
    """`[d]`, unit length, from no to yes"""
    distance: float
    """between the two means along it, in units of the activations: what a strength of 1 adds when steering"""
    accuracy: float
    """balanced, on held-out rows: .5 says nothing"""
    shuffled: float
    """mean held-out accuracy of the same recipe on shuffled training labels"""
    shuffled_high: float
    """the largest of them"""
    n_train: int
    n_heldout: int
    seed: int

    def sentence(self) -> str:
        return (
            f"{self.method}: held-out accuracy {self.accuracy:.3f} (shuffled labels {self.shuffled:.3f}, at most "
            f"{self.shuffled_high:.3f}); the means lie {self.distance:.3g} apart along it"
        )


@dataclass(frozen=True, kw_only=True)
class Directions(Finding):
    """All three, and how far they agree."""

    found: tuple[ConceptDirection, ...]
    cosines: dict[str, float]
    """of every two; of random directions about `1 / sqrt(d)`"""
    random_cosine: float

    def __getitem__(self, method: str) -> ConceptDirection:
        return next(each for each in self.found if each.method == method)

    def sentence(self) -> str:
        cosines = ", ".join(f"{names} {value:.2f}" for names, value in self.cosines.items())
        return "; ".join(map(str, self.found)) + f". Cosines: {cosines} (random {self.random_cosine:.2f})"


def concept_directions(x: Any, labels: Any, heldout: Any, *, seed: int = 0) -> Directions:
    """Directions from the rows of `x [n, d]` where `heldout [n]` is false, judged on the others.

    Hold out whole documents or words, not rows that repeat. Raises `ConfigError` on one class only, or fewer than two
    rows of a class on a side.
    """
    points, heldout = as_points(x), np.asarray(heldout, bool)
    yes = two_groups(labels, len(points), each=4)
    if heldout.shape != yes.shape:
        raise ConfigError(f"heldout must say yes or no for each of the {len(points)} rows")
    train, test = ~heldout, heldout
    two_groups(yes[train], int(train.sum()))
    two_groups(yes[test], int(test.sum()))
    rng = np.random.default_rng(derive_seed(seed, "shuffled labels"))
    shuffled = [rng.permutation(yes[train]) for _ in range(N_SHUFFLES)]
    found = []
    for method in METHODS:
        direction = find_direction(points[train], yes[train], method)
        null = [_null_accuracy(points, yes, train, method, other) for other in shuffled]
        along = points[train] @ direction
        found.append(
            ConceptDirection(
                method=method,
                direction=direction,
                distance=float(along[yes[train]].mean() - along[~yes[train]].mean()),
                accuracy=_balanced_accuracy(points, yes, train, direction, yes[train]),
                shuffled=float(np.mean(null)),
                shuffled_high=float(np.max(null)),
                n_train=int(train.sum()),
                n_heldout=int(test.sum()),
                seed=seed,
            )
        )
    pairs = [(a, b) for i, a in enumerate(found) for b in found[i + 1 :]]
    cosines = {f"{a.method}, {b.method}": float(a.direction @ b.direction) for a, b in pairs}
    return Directions(found=tuple(found), cosines=cosines, random_cosine=points.shape[1] ** -0.5)


def find_direction(points: np.ndarray, yes: np.ndarray, method: Method) -> np.ndarray:
    """`[d]` unit direction from no to yes."""
    gap = points[yes].mean(0) - points[~yes].mean(0)
    if method == "difference in means":
        direction = gap
    elif method == "probe":
        direction = fit_linear(points, yes).weights[0]
    else:
        direction = np.linalg.svd(points - points.mean(0), full_matrices=False)[2][0]
        direction = direction * (1.0 if direction @ gap >= 0 else -1.0)
    length = np.linalg.norm(direction)
    if length == 0:
        raise ConfigError("both classes have the same mean; there is no direction between them")
    return direction / length


def _null_accuracy(points: np.ndarray, yes: np.ndarray, train: np.ndarray, method: Method, labels: np.ndarray) -> float:
    """Of shuffled labels; where they leave the classes with one mean there is no direction, which tells nothing."""
    try:
        return _balanced_accuracy(points, yes, train, find_direction(points[train], labels, method), labels)
    except ConfigError:
        return 0.5


def _balanced_accuracy(
    points: np.ndarray, yes: np.ndarray, train: np.ndarray, direction: np.ndarray, labels: np.ndarray
) -> float:
    """Balanced accuracy on held-out rows; the threshold is half-way between the training means."""
    along = points @ direction
    seen = along[train]
    threshold = (seen[labels].mean() + seen[~labels].mean()) / 2
    said, truth = along[~train] > threshold, yes[~train]
    return float((said[truth].mean() + (~said[~truth]).mean()) / 2)
