"""Separation of word lists along one direction, and the direction's share in each list's plane.

Words are read as for shapes (`words`): the mean over sentences of the activation at the last token. Here it is
projected on the unit direction, relative to the mean of all words. Two measures per list:

- *separation*: from the median of the other lists' means to its own mean, in standard deviations within lists; 0: none;
- *AUC*: the probability that a word of the list lies higher than a word of the others; 1: always, 0: never, 0.5:
  chance.

The null is random directions. They separate lists too: the words of a list are close together, so any direction that
correlates with their mean does. The p-value is the fraction of random directions with as large a separation, up or
down. (Their AUC reaches 1 as soon as a list is tight, so it cannot discriminate.) Each list with enough words has one
p-value, compared with `0.05` over their number. Words that the direction was derived from do not count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from interp.errors import ConfigError
from interp.geometry.dimension import Spectrum, spectrum
from interp.geometry.points import GeometryResult, as_points, centred, check_count, unit_vector
from interp.geometry.shapes import fit_plane
from interp.geometry.words import WordActivations
from interp.names import canonical_hook_point
from interp.nulls import ALPHA, NUMERIC_DRAWS, p_from_null, smallest_p
from interp.results import Record, ends
from interp.seeds import derive_seed
from interp.statistics import Interval, auroc, t_interval

LEAST = 3
"""fewest words on either side of an AUC"""
RARE = 0.99
"""quantile over random directions that is reported with a share"""


@dataclass(frozen=True, kw_only=True)
class ListAlong(GeometryResult):
    """One list along the direction, with its null over random directions."""

    name: str
    words: tuple[str, ...]
    places: Interval[np.ndarray] = field(metadata=ends("low", "high"))
    """`[n_words]` positions along the unit direction from the mean of all words, in units of the activations, with
    intervals over sentences"""
    counted: tuple[bool, ...]
    """False for words that the direction was derived from"""
    separation: float | None
    """mean of the list minus the median of the others' means, in standard deviations within lists; above 0: it lies
    higher. None with too few words on either side"""
    auc: float | None
    p: float | None
    """p-value of the separation"""
    plane_share: float
    """squared length of the unit direction in the plane of the list's two largest components: 1 within, 0 orthogonal"""
    random_plane_share: float
    """the same for random directions: mean, about `2 / d`"""
    random_plane_high: float
    """the same for random directions: 99th percentile"""

    def sentence(self) -> str:
        lies = f"{self.plane_share:.3f} of the direction in its plane (random at most {self.random_plane_high:.3f})"
        if self.separation is None or self.p is None:
            return f"{self.name}: too few words besides those that the direction was derived from; {lies}"
        return f"{self.name}: separation {self.separation:+.2f} (p {self.p:.2g}), AUC {self.auc:.3f}; {lies}"

    def to_records(self) -> list[Record]:
        """Return one row per word: `word, place, low, high, counted`; `place` is its position along the direction."""
        places = [self.places.at(i).columns("place", "low", "high") for i in range(len(self.words))]
        rows = zip(self.words, places, self.counted, strict=True)
        return [{"word": word, **place, "counted": counted} for word, place, counted in rows]


@dataclass(frozen=True, kw_only=True)
class WordsAlong(GeometryResult):
    """All lists along one direction, with the null over random directions."""

    hook_point: str
    lists: tuple[ListAlong, ...]
    alpha: float
    """significance level of each p-value"""
    smallest_p: float
    share: float
    """fraction of the variance of all words along the direction: 0 to 1"""
    random_share: float
    random_share_high: float
    """the same for random directions: mean and 99th percentile"""
    spectrum: Spectrum
    """spectrum of all words; its first component is the largest possible share"""
    typical: float
    """mean distance of a word from the mean of all words: the unit of steering strength"""
    n_random: int
    seed: int

    @property
    def set_apart(self) -> tuple[str, ...]:
        """Lists that lie higher or lower than the others, more than along random directions."""
        return tuple(row.name for row in self.lists if row.p is not None and row.p <= self.alpha)

    def sentence(self) -> str:
        names = ", ".join(self.set_apart) or "no list"
        return (
            f"along the direction at {self.hook_point} {names} set apart (each p against {self.alpha:.2g}); it has "
            f"{self.share:.4f} of the words' variance (random {self.random_share:.4f}, at most "
            f"{self.random_share_high:.4f})"
        )

    def to_records(self) -> list[Record]:
        """Return one row per list: its separation with p-value, and its plane's share with random directions'."""
        names = ("name", "separation", "auc", "p", "plane_share", "random_plane_share", "random_plane_high")
        return [{name: getattr(row, name) for name in names} for row in self.lists]


def words_along(
    lists: Mapping[str, WordActivations],
    hook_point: str,
    direction: np.ndarray,
    *,
    made_of: Sequence[str] = (),
    n_random: int = NUMERIC_DRAWS["standard"],
    seed: int = 0,
) -> WordsAlong:
    """Project the words of `lists` on `direction [d]`, at a hook point at which they were read.

    `made_of`: words that the direction was derived from. Raises `ConfigError` without lists or for a zero direction,
    `MismatchError` on another width, `NonFiniteError`, `UnknownNameError` for a hook point that was not read.
    """
    if not lists:
        raise ConfigError("no lists of words were given; find_concepts([]) gives all")
    check_count("n_random", n_random, 1, "random directions are the null of a separation")
    points = as_points(
        np.concatenate([acts.points(hook_point) for acts in lists.values()]), what="the words", at_least=3
    )
    unit = unit_vector(direction, d=points.shape[1])
    cloud = _Cloud.of(points, unit, n_random, seed)
    words = [(number, word) for number, acts in enumerate(lists.values()) for word in acts.concept.words]
    owner, counted = np.array([number for number, _ in words]), np.array([word not in made_of for _, word in words])
    rows = [_list_along(acts, hook_point, cloud, owner, at, counted) for at, acts in enumerate(lists.values())]
    shares = (cloud.at_random**2).sum(0) / cloud.total
    return WordsAlong(
        hook_point=canonical_hook_point(hook_point),
        lists=tuple(rows),
        alpha=ALPHA / max(1, sum(row.p is not None for row in rows)),
        smallest_p=smallest_p(n_random),
        share=float((cloud.along**2).sum()) / cloud.total,
        random_share=float(shares.mean()),
        random_share_high=float(np.quantile(shares, RARE)),
        spectrum=spectrum(points, seed=seed),
        typical=float(np.linalg.norm(points - cloud.middle, axis=1).mean()),
        n_random=n_random,
        seed=seed,
    )


@dataclass(frozen=True)
class _Cloud:
    """Projections of all words on the direction and on random ones."""

    middle: Float64[np.ndarray, " d"]
    unit: Float64[np.ndarray, " d"]
    along: Float64[np.ndarray, " n"]
    random: Float64[np.ndarray, "n_random d"]
    """unit length"""
    at_random: Float64[np.ndarray, "n n_random"]
    total: float
    """sum of squared distances from the mean"""

    @classmethod
    def of(
        cls, points: Float64[np.ndarray, "n d"], unit: Float64[np.ndarray, " d"], n_random: int, seed: int
    ) -> "_Cloud":
        away = centred(points, what="the words")
        rng = np.random.default_rng(derive_seed(seed, "random directions"))
        random = rng.standard_normal((n_random, points.shape[1]))
        random /= np.linalg.norm(random, axis=1, keepdims=True)
        return cls(points.mean(0), unit, away @ unit, random, away @ random.T, float((away**2).sum()))


def _list_along(
    acts: WordActivations,
    hook_point: str,
    cloud: _Cloud,
    owner: Int[np.ndarray, " n"],
    at: int,
    counted: Bool[np.ndarray, " n"],
) -> ListAlong:
    values = np.asarray(acts.values[canonical_hook_point(hook_point)], np.float64)  # [sentences, words, d]
    separation, auc, p = _judge(cloud, owner, at, counted)
    basis = fit_plane(acts.points(hook_point)).basis
    planes = ((cloud.random @ basis.T) ** 2).sum(1)
    return ListAlong(
        name=acts.concept.name,
        words=acts.concept.words,
        places=t_interval(((values - cloud.middle) @ cloud.unit).T),
        counted=tuple(counted[owner == at].tolist()),
        separation=separation,
        auc=auc,
        p=p,
        plane_share=float(((basis @ cloud.unit) ** 2).sum()),
        random_plane_share=float(planes.mean()),
        random_plane_high=float(np.quantile(planes, RARE)),
    )


def _judge(
    cloud: _Cloud, owner: Int[np.ndarray, " n"], at: int, counted: Bool[np.ndarray, " n"]
) -> tuple[float, float, float] | tuple[None, None, None]:
    """Return the separation of list number `at` from the others, its AUC, and the p-value of the separation."""
    owner = owner[counted]
    yes = owner == at
    if min(yes.sum(), (~yes).sum()) < LEAST:
        return None, None, None
    along = cloud.along[counted]
    [separation] = _separation(along[:, None], owner, at)
    p = p_from_null(separation, _separation(cloud.at_random[counted], owner, at), alternative="two-sided")
    return float(separation), auroc(along, yes), p


def separations(
    lists: Mapping[str, WordActivations], hook_point: str, directions: Float[np.ndarray, "k d"]
) -> Float64[np.ndarray, "n_lists k"]:
    """Return the separation of every list along each direction; their length is free.

    For null directions of one's own; `words_along` draws random ones. Raises as it does.
    """
    if not lists:
        raise ConfigError("no lists of words were given; find_concepts([]) gives all")
    clouds = [acts.points(hook_point) for acts in lists.values()]
    points = as_points(np.concatenate(clouds), what="the words", at_least=3)
    owner = np.repeat(np.arange(len(clouds)), [len(cloud) for cloud in clouds])
    along = points @ as_points(directions, what="the directions", at_least=1, d=points.shape[1]).T
    return np.stack([_separation(along, owner, at) for at in range(len(clouds))])


def _separation(values: Float64[np.ndarray, "n k"], owner: Int[np.ndarray, " n"], at: int) -> Float64[np.ndarray, " k"]:
    """Return the separation of list number `at` for each column of `values`; 0 where no list has any spread.

    The median of the others is used because one distant list would shift their mean away from all lists.
    """
    lists = {number: values[owner == number] for number in np.unique(owner)}
    within = np.sum([((rows - rows.mean(0)) ** 2).sum(0) for rows in lists.values()], axis=0)
    spread = np.sqrt(within / max(1, len(values) - len(lists)))
    others = np.median([rows.mean(0) for number, rows in lists.items() if number != at], axis=0)
    gap = lists[at].mean(0) - others
    return np.divide(gap, spread, out=np.zeros_like(gap), where=spread > 0)
