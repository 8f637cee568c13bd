"""Do the words of a list lie closer to each other than to those of other lists?

The silhouette of a word (Rousseeuw 1987) is `(b - a) / max(a, b)`, with `a` its mean distance to the rest of its list
and `b` the smallest mean distance to another list: 1 far from all others, 0 between two lists, below 0 in another one.
Its null is the same number with all words dealt to lists of the same sizes at random, the largest over the layers
looked at, so that the choice of a layer is paid for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from interp.errors import ConfigError
from interp.geometry.values import Finding, as_points, check_count, p_of
from interp.runtime import derive_seed


@dataclass(frozen=True, kw_only=True)
class ClusterTest(Finding):
    """One list among others."""

    name: str
    silhouette: float
    """mean over its words, -1 to 1"""
    null: float
    null_high: float
    p: float
    layer: int
    """the number of the layer with the largest silhouette"""
    by_layer: tuple[float, ...]
    n: int
    n_deals: int
    seed: int

    def sentence(self) -> str:
        return (
            f"silhouette of {self.name} {self.silhouette:.3f} among other lists; words dealt at random "
            f"{self.null:.3f}, at most {self.null_high:.3f}, p {self.p:.3g} of {self.n_deals}"
        )


def cluster_tests(
    lists: Mapping[str, Sequence[np.ndarray]], *, n_deals: int = 499, seed: int = 0
) -> dict[str, ClusterTest]:
    """For every list: `name -> [n_words, d]` for each layer, the same layers for all. Two lists or more.

    Raises `ConfigError` for fewer lists or words, or other layers; `NonFiniteError` for NaN.
    """
    if len(lists) < 2 or min((len(layer) for layers in lists.values() for layer in layers), default=0) < 2:
        raise ConfigError("clusters are told apart from each other: give two lists or more, of two words or more")
    check_count("n_deals", n_deals, 1, "a silhouette is held against words dealt at random")
    n_layers = len(next(iter(lists.values())))
    for name, layers in lists.items():
        if len(layers) != n_layers or len({len(layer) for layer in layers}) != 1:
            raise ConfigError(f"{name!r} must have the same words at the same {n_layers} layers as the other lists")
        for layer, first in zip(layers, next(iter(lists.values())), strict=True):
            as_points(layer, what=f"the words of {name!r}", d=np.shape(first)[1])
    labels = np.repeat(np.arange(len(lists)), [len(layers[0]) for layers in lists.values()])
    distances = np.stack(
        [_distances(np.concatenate([layers[i] for layers in lists.values()])) for i in range(n_layers)]
    )
    observed = silhouettes(distances, labels)
    rng = np.random.default_rng(derive_seed(seed, "words dealt at random"))
    dealt = np.stack([silhouettes(distances, rng.permutation(labels)).max(0) for _ in range(n_deals)])
    found = {}
    for number, name in enumerate(lists):
        layer = int(observed[:, number].argmax())
        found[name] = ClusterTest(
            name=name,
            silhouette=float(observed[layer, number]),
            null=float(dealt[:, number].mean()),
            null_high=float(dealt[:, number].max()),
            p=p_of(observed[layer, number], dealt[:, number]),
            layer=layer,
            by_layer=tuple(map(float, observed[:, number])),
            n=int((labels == number).sum()),
            n_deals=n_deals,
            seed=seed,
        )
    return found


def silhouettes(distances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`[n_layers, n_lists]`: mean silhouette of each list, from `distances [n_layers, n, n]`."""
    member = (labels[:, None] == np.unique(labels)[None]).astype(np.float64)
    sizes = member.sum(0)
    own = member.astype(bool)
    sums = distances @ member  # [n_layers, n, n_lists]
    a = sums[:, own] / (sizes[labels] - 1).clip(min=1)
    b = np.where(own, np.inf, sums / sizes).min(2)
    each = (b - a) / np.maximum(np.maximum(a, b), 1e-300)
    return each @ member / sizes


def _distances(points: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    return cdist(points, points)
