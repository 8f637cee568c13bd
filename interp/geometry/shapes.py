"""Which lists of words are circles, lines, clusters or nothing in a model?

The rule, fixed before looking:

1. every list is read in the same sentences at the embedding and after every block (`words`);
2. even-numbered sentences choose the layer: the one where the order is clearest, as a circle or as a line, whichever;
3. odd-numbered ones judge it there (`circles`), by distances in the whole space: no plane is chosen. Both halves hold
   the same words, so the choice leaks; therefore each p-value counts orderings whose *largest* correlation over all
   layers reaches the one found. There are two of them, circle and line, so each is compared with `.05 / (2 * number of
   lists)`: an untrained model has an order in one run of twenty;
4. whether a list is a cluster is judged likewise, among the other lists (`clusters`);
5. the verdict is the order's, if there is one; else cluster; else nothing. A list too short to have a significant order
   stays undecided, cluster or not.

The plane that is shown and turned on is that of the first two principal components of the even-numbered sentences at
the chosen layer; it knows nothing of the order. Distances along idiosyncratic directions of single words (every word
has its own) add a constant to all pairs, to which rank correlations are blind.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from interp.errors import ConfigError
from interp.geometry.circles import ALPHA, CircleTest, judge_layer, order_correlations, order_models
from interp.geometry.clusters import ClusterTest, cluster_tests
from interp.geometry.planes import Plane, fit_plane
from interp.geometry.similarity import ranked_distances
from interp.geometry.spectrum import Spectrum, spectrum
from interp.geometry.values import Finding, as_points, check_count
from interp.geometry.words import WordActivations

Verdict = Literal["circle", "line", "ordered", "cluster", "nothing", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Shape(Finding):
    """What one list is."""

    name: str
    verdict: Verdict
    reason: str
    words: tuple[str, ...]
    layer: int
    """number of the chosen place among `hook_points`"""
    hook_points: tuple[str, ...]
    order: CircleTest
    cluster: ClusterTest | None
    """None where there are no other lists"""
    circular: tuple[float, ...]
    linear: tuple[float, ...]
    """per place, on the sentences that judge"""
    plane: Plane
    coordinates: np.ndarray
    """`[2, n_words, 2]`: on the plane, of the sentences that fitted it and of those that did not"""
    spectrum: Spectrum
    """of the words at the chosen place"""
    n_tokens: tuple[int, ...]
    note: str

    @property
    def hook_point(self) -> str:
        return self.hook_points[self.layer]

    def sentence(self) -> str:
        text = f"{self.name}: {self.verdict} at {self.hook_point}. {self.order}"
        if self.cluster is not None:
            text += f". {self.cluster}"
        return f"{text}. {self.note}" if self.note else text


def find_shapes(
    lists: Mapping[str, WordActivations],
    *,
    alpha: float = ALPHA,
    n_draws: int = 10_000,
    n_deals: int = 499,
    seed: int = 0,
) -> dict[str, Shape]:
    """The verdict of every list, by the rule above. With one list only there is no test for a cluster.

    Words are dealt at least so often that a list could be a cluster among so many. Raises `ConfigError` for no lists,
    or one whose words are all the same point; `NonFiniteError` for NaN at any place.
    """
    if not lists:
        raise ConfigError("no lists of words were given")
    check_count("n_draws", n_draws, 1, "orderings are drawn where there are too many to count")
    for name, acts in lists.items():
        for place in acts.hook_points:
            for half in (0, 1):
                as_points(acts.points(place, half=half), what=f"the words of {name!r} at {place}")
    corrected = alpha / (2 * len(lists))
    n_deals = max(n_deals, math.ceil(2 / corrected))  # p is at least one in as many: with fewer nothing could count
    clusters: dict[str, ClusterTest] = {}
    if len(lists) > 1:
        layers = {name: [acts.points(place, half=1) for place in acts.hook_points] for name, acts in lists.items()}
        clusters = cluster_tests(layers, n_deals=n_deals, seed=seed)
    return {name: _shape(name, acts, clusters.get(name), corrected, n_draws, seed) for name, acts in lists.items()}


def choose_layer(acts: WordActivations, half: int | None) -> int:
    """The place where the order is clearest, as a circle or as a line: it favours neither."""
    return int(_correlations(acts, half).max(0).argmax())


def _shape(
    name: str, acts: WordActivations, cluster: ClusterTest | None, alpha: float, n_draws: int, seed: int
) -> Shape:
    layer, cyclic = choose_layer(acts, 0), acts.concept.cyclic
    place = acts.hook_points[layer]
    if np.ptp(acts.points(place), axis=0).max() == 0:
        raise ConfigError(f"the model does not tell the words of {name!r} apart; leave the list out")
    ranks = np.stack([ranked_distances(acts.points(each, half=1)) for each in acts.hook_points])
    order = judge_layer(ranks, acts.points(place, half=1), cyclic=cyclic, alpha=alpha, n_draws=n_draws, seed=seed)
    circular, linear = _correlations(acts, 1)
    plane = fit_plane(acts.points(place, half=0), seed=seed)
    verdict, reason = _verdict(order, cluster, alpha)
    return Shape(
        name=name,
        verdict=verdict,
        reason=reason,
        words=acts.concept.words,
        layer=layer,
        hook_points=acts.hook_points,
        order=order,
        cluster=cluster,
        circular=tuple(map(float, circular)),
        linear=tuple(map(float, linear)),
        plane=plane,
        coordinates=np.stack([plane.coordinates(acts.points(place, half=half)) for half in (0, 1)]),
        spectrum=spectrum(acts.points(place), seed=seed),
        n_tokens=acts.n_tokens,
        note=acts.note,
    )


def _correlations(acts: WordActivations, half: int | None) -> np.ndarray:
    """`[2, n_places]`: circular and linear RSA."""
    n, models = len(acts.concept.words), order_models(len(acts.concept.words), acts.concept.cyclic)
    ranks = np.stack([ranked_distances(acts.points(place, half=half)) for place in acts.hook_points])
    return order_correlations(ranks, models, np.arange(n)[None])[:, 0]


def _verdict(order: CircleTest, cluster: ClusterTest | None, alpha: float) -> tuple[Verdict, str]:
    close = cluster is not None and cluster.p <= alpha
    words = "its words lie together" if close else "its words are not shown to lie together" if cluster else ""
    if order.shape == "unordered":
        return ("cluster" if close else "nothing"), "; ".join(filter(None, (order.reason, words)))
    return order.shape, "; ".join(filter(None, (order.reason, words)))


def shapes_of(model: Any, concepts: list[Any], *, seed: int = 0, **settings: Any) -> dict[str, Shape]:
    """Read the lists of `concepts` with a model, and judge them."""
    from interp.geometry.words import read_words

    return find_shapes({concept.name: read_words(model, concept) for concept in concepts}, seed=seed, **settings)
