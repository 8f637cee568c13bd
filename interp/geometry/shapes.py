"""Shapes of word lists in a model: circle, line, cluster or nothing.

**The rule**, fixed in advance:

1. Every list is read in the same sentences at the embedding and after every block (`words`).
2. Even-numbered sentences choose the layer: the one with the clearest order, as a circle or as a line.
3. Odd-numbered sentences test the order at that layer (`circles`), by distances in the whole space; no plane is chosen.
   Both halves contain the same words, so the choice of the layer leaks. Each p-value therefore counts the orderings
   whose *largest* correlation over all layers reaches the observed one. There are two p-values, circle and line, and
   each is compared with `0.05 / (2 * number of lists)`. An untrained model then shows an order in one run of twenty.
4. The cluster test is corrected in the same way, against the other lists (`cluster_tests`).
5. The verdict is the order, if there is one; else cluster; else nothing. A list too short for a significant order
   stays undecided, cluster or not.

**The plane** (`Plane`) for plots and rotations is that of the first two principal components of the even-numbered
sentences at the chosen layer; it does not use the order. Each word also has an idiosyncratic direction of its own.
These add a constant to all pairwise distances, which leaves rank correlations unchanged.

**The cluster test** uses the silhouette of a word (Rousseeuw 1987), `(b - a) / max(a, b)`. `a` is its mean distance to
the rest of its list and `b` the smallest mean distance to another list. It is 1 far from all others, 0 between two
lists, below 0 within another list. The null is the largest silhouette over layers with all words assigned at random to
lists of the same sizes, so the choice of a layer is corrected for.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from interp.errors import ConfigError, NonFiniteError
from interp.geometry.circles import CircleTest, judge_layer, order_correlations, order_models
from interp.geometry.dimension import Spectrum, covariance_spectrum, isotropic_like, spectrum
from interp.geometry.points import GeometryResult, as_points, centred, check_count
from interp.geometry.similarity import ranked_distances
from interp.geometry.words import WordActivations, WordList, read_words
from interp.models.hooked import HookedModel
from interp.nulls import ALPHA, NUMERIC_DRAWS, null_range, p_from_null
from interp.results import Record
from interp.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class ClusterTest(GeometryResult):
    """Silhouette of one list among the others, with its null."""

    name: str
    silhouette: float
    """mean over its words, -1 to 1: above 0 closer to its own list than to any other"""
    null: float
    null_high: float
    p: float
    layer: int
    """index of the layer with the largest silhouette"""
    by_layer: tuple[float, ...]
    n: int
    n_deals: int
    seed: int

    def sentence(self) -> str:
        null = null_range("words dealt to lists at random", f"{self.null:.3f}", f"{self.null_high:.3f}")
        return (
            f"silhouette of {self.name} {self.silhouette:.3f} among other lists; {null}, p {self.p:.3g} of "
            f"{self.n_deals}"
        )


def cluster_tests(
    lists: Mapping[str, Sequence[np.ndarray]], *, n_deals: int = NUMERIC_DRAWS["quick"], seed: int = 0
) -> dict[str, ClusterTest]:
    """Test every list for a cluster; `name -> [n_words, d]` for each layer, the same layers for all lists.

    `n_deals`: random assignments of words to lists. Raises `ConfigError` for fewer than two lists or words, or
    different layers; `NonFiniteError` for NaN.
    """
    if len(lists) < 2 or min((len(layer) for layers in lists.values() for layer in layers), default=0) < 2:
        raise ConfigError("a cluster is tested against other lists: give two lists or more, of two words or more")
    check_count("n_deals", n_deals, 1, "words assigned at random are the null of a silhouette")
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
    tests = {}
    for number, name in enumerate(lists):
        layer = int(observed[:, number].argmax())
        tests[name] = ClusterTest(
            name=name,
            silhouette=float(observed[layer, number]),
            null=float(dealt[:, number].mean()),
            null_high=float(dealt[:, number].max()),
            p=p_from_null(observed[layer, number], dealt[:, number]),
            layer=layer,
            by_layer=tuple(map(float, observed[:, number])),
            n=int((labels == number).sum()),
            n_deals=n_deals,
            seed=seed,
        )
    return tests


def silhouettes(
    distances: Float[np.ndarray, "n_layers n n"], labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n_layers n_lists"]:
    """Return the mean silhouette of each list, `[n_layers, n_lists]`, from `distances [n_layers, n, n]`."""
    member = (labels[:, None] == np.unique(labels)[None]).astype(np.float64)
    sizes = member.sum(0)
    mask = member.astype(bool)
    sums = distances @ member  # [n_layers, n, n_lists]
    a = sums[:, mask] / (sizes[labels] - 1).clip(min=1)
    b = np.where(mask, np.inf, sums / sizes).min(2)
    silhouette = (b - a) / np.maximum(np.maximum(a, b), 1e-300)
    return silhouette @ member / sizes


def _distances(points: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    return cdist(points, points)


@dataclass(frozen=True, kw_only=True)
class Plane(GeometryResult):
    """A plane in activation space: two orthonormal directions through a centre."""

    centre: Float[np.ndarray, " d"]
    """`[d]`"""
    basis: Float[np.ndarray, "2 d"]
    """`[2, d]`"""
    share: float
    """fraction of the variance of the fitted points in the plane; 1 when they lie on it"""
    isotropic_share: float
    """the same for the best plane of the same number of isotropic points: the null of `share`"""

    def sentence(self) -> str:
        return f"a plane with {self.share:.3f} of the variance (isotropic points: {self.isotropic_share:.3f})"

    def coordinates(self, x: ArrayLike) -> Float[np.ndarray, "n 2"]:
        """Return coordinates on the plane, `[n, 2]`, of `x [n, d]`. Raises `MismatchError` on another `d`."""
        return (as_points(x, at_least=1, d=len(self.centre)) - self.centre) @ self.basis.T

    def turn(self, degrees: float) -> Float[np.ndarray, "d d"]:
        """Return a matrix `R [d, d]`: `x + (x - centre) @ R` rotates `x` around the centre within the plane."""
        if not np.isfinite(degrees):
            raise NonFiniteError(f"expected an angle in degrees, got {degrees}; give a finite one")
        angle = np.deg2rad(degrees)
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        return self.basis.T @ (rotation - np.eye(2)) @ self.basis

    def rotate(self, x: ArrayLike, degrees: float) -> Float[np.ndarray, "n d"]:
        """Rotate `x [n, d]` within the plane; the orthogonal component does not change."""
        points = as_points(x, at_least=1, d=len(self.centre))
        return points + (points - self.centre) @ self.turn(degrees)

    def radii(self, x: ArrayLike) -> Float[np.ndarray, " n"]:
        """Return distances from the centre within the plane, `[n]`."""
        return np.linalg.norm(self.coordinates(x), axis=1)

    def angles(self, x: ArrayLike) -> Float[np.ndarray, " n"]:
        """Return angles in degrees, `[n]`, 0 to 360, from the first basis direction towards the second."""
        first, second = self.coordinates(x).T
        return np.degrees(np.arctan2(second, first)) % 360


def fit_plane(x: ArrayLike, *, components: tuple[int, int] = (0, 1), seed: int = 0) -> Plane:
    """Fit the plane of two principal components of `x [n, d]`, by default the first two; ignores any order of items.

    Raises `ConfigError` when there are not that many components.
    """
    points = as_points(x, at_least=3)
    away = centred(points)
    _, singular, directions = np.linalg.svd(away, full_matrices=False)
    rank = int((singular > singular[0] * 1e-9).sum())
    if len(components) != 2 or not 0 <= min(components) < max(components) < rank:
        raise ConfigError(
            f"expected two different components, got {components}; the points have {rank} (0 to {rank - 1})"
        )
    variances = singular**2 / (singular**2).sum()
    null = covariance_spectrum(isotropic_like(len(points), points.shape[1], seed))
    basis = directions[list(components)]
    signs = np.sign(basis[np.arange(2), np.abs(basis).argmax(1)])
    return Plane(
        centre=points.mean(0),
        basis=basis * signs[:, None],
        share=float(variances[list(components)].sum()),
        isotropic_share=float(null[list(components)].sum() / null.sum()),
    )


Verdict = Literal["circle", "line", "ordered", "cluster", "nothing", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Shape(GeometryResult):
    """Verdict on one list, with its tests."""

    name: str
    verdict: Verdict
    reason: str
    words: tuple[str, ...]
    layer: int
    """index of the chosen layer in `hook_points`"""
    hook_points: tuple[str, ...]
    order: CircleTest
    cluster: ClusterTest | None
    """None without other lists"""
    circular: tuple[float, ...]
    linear: tuple[float, ...]
    """per hook point, on the sentences of the test"""
    plane: Plane
    coordinates: Float[np.ndarray, "2 n_words 2"]
    """`[2, n_words, 2]` on the plane: of the sentences that fitted it, and of the others"""
    spectrum: Spectrum
    """spectrum of the words at the chosen hook point"""
    n_tokens: tuple[int, ...]
    note: str

    @property
    def hook_point(self) -> str:
        """Name of the chosen hook point."""
        return self.hook_points[self.layer]

    def sentence(self) -> str:
        text = f"{self.name}: {self.verdict} at {self.hook_point}. {self.order}"
        if self.cluster is not None:
            text += f". {self.cluster}"
        return f"{text}. {self.note}" if self.note else text

    def to_records(self) -> list[Record]:
        """Return one row per hook point: `layer, hook_point, chosen`, RSA with circle and line, and the silhouette."""
        silhouettes = [None] * len(self.hook_points) if self.cluster is None else self.cluster.by_layer
        columns = zip(self.hook_points, self.circular, self.linear, silhouettes, strict=True)
        return [
            {"layer": layer, "hook_point": name, "chosen": layer == self.layer}
            | {"circular": circular, "linear": linear, "silhouette": silhouette}
            for layer, (name, circular, linear, silhouette) in enumerate(columns)
        ]


def find_shapes(
    lists: Mapping[str, WordActivations],
    *,
    alpha: float = ALPHA,
    n_draws: int = NUMERIC_DRAWS["thorough"],
    n_deals: int = NUMERIC_DRAWS["quick"],
    seed: int = 0,
) -> dict[str, Shape]:
    """Judge the shape of every list by the rule in the module's docstring; a single list has no cluster test.

    `lists` are the activations of each word list by its name. `alpha` is the level of significance; `n_deals` counts
    random assignments of words to lists.

    Words are reassigned at least often enough for a significant p-value at this number of lists. Raises `ConfigError`
    for no lists, or one whose words are all the same point; `NonFiniteError` for NaN at any hook point.
    """
    if not lists:
        raise ConfigError("no lists of words were given")
    check_count("n_draws", n_draws, 1, "orderings are drawn where there are too many to count")
    for name, acts in lists.items():
        for hook_point in acts.hook_points:
            for half in (0, 1):
                as_points(acts.points(hook_point, half=half), what=f"the words of {name!r} at {hook_point}")
    corrected = alpha / (2 * len(lists))
    n_deals = max(n_deals, math.ceil(2 / corrected))  # fewer could not be significant
    clusters: dict[str, ClusterTest] = {}
    if len(lists) > 1:
        layers = {name: [acts.points(at, half=1) for at in acts.hook_points] for name, acts in lists.items()}
        clusters = cluster_tests(layers, n_deals=n_deals, seed=seed)
    return {name: _shape(name, acts, clusters.get(name), corrected, n_draws, seed) for name, acts in lists.items()}


def choose_layer(acts: WordActivations, half: int | None) -> int:
    """Return the layer with the clearest order, as a circle or as a line."""
    return int(_correlations(acts, half).max(0).argmax())


def _shape(
    name: str, acts: WordActivations, cluster: ClusterTest | None, alpha: float, n_draws: int, seed: int
) -> Shape:
    layer, cyclic = choose_layer(acts, 0), acts.concept.cyclic
    hook_point = acts.hook_points[layer]
    if np.ptp(acts.points(hook_point), axis=0).max() == 0:
        raise ConfigError(f"all words of {name!r} have the same activation in this model; leave the list out")
    ranks = np.stack([ranked_distances(acts.points(point, half=1)) for point in acts.hook_points])
    order = judge_layer(ranks, acts.points(hook_point, half=1), cyclic=cyclic, alpha=alpha, n_draws=n_draws, seed=seed)
    circular, linear = _correlations(acts, 1)
    plane = fit_plane(acts.points(hook_point, half=0), seed=seed)
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
        coordinates=np.stack([plane.coordinates(acts.points(hook_point, half=half)) for half in (0, 1)]),
        spectrum=spectrum(acts.points(hook_point), seed=seed),
        n_tokens=acts.n_tokens,
        note=acts.note,
    )


def _correlations(acts: WordActivations, half: int | None) -> np.ndarray:
    """Return circular and linear RSA at every hook point, `[2, n_hook_points]`."""
    n, models = len(acts.concept.words), order_models(len(acts.concept.words), acts.concept.cyclic)
    ranks = np.stack([ranked_distances(acts.points(at, half=half)) for at in acts.hook_points])
    return order_correlations(ranks, models, np.arange(n)[None])[:, 0]


def _verdict(order: CircleTest, cluster: ClusterTest | None, alpha: float) -> tuple[Verdict, str]:
    close = cluster is not None and cluster.p <= alpha
    words = "its words lie together" if close else "its words are not shown to lie together" if cluster else ""
    if order.shape == "unordered":
        return ("cluster" if close else "nothing"), "; ".join(filter(None, (order.reason, words)))
    return order.shape, "; ".join(filter(None, (order.reason, words)))


def shapes_of(model: HookedModel, concepts: Sequence[WordList], *, seed: int = 0) -> dict[str, Shape]:
    """Read the lists of `concepts` with a model, and judge their shapes."""
    return find_shapes({concept.name: read_words(model, concept) for concept in concepts}, seed=seed)
