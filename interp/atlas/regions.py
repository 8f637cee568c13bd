"""Clusters of a map, a few words for each, and how crowded each point's place is.

Clusters are density clusters of the map (HDBSCAN: Campello, Moulavi & Sander 2013), so they describe the picture; what
belongs together in the full space is in the neighbour lists.
"""

import re
from collections import Counter
from typing import NamedTuple

import numpy as np
import torch

LARGEST_FIT = 10_000
"""Points clustered directly; beyond, a seeded sample is clustered and the others join their nearest sampled point."""
N_WORDS = 3
NOISE = -1
_WORD = re.compile(r"[^\W\d_]+")
_LABEL_GRAMMAR = frozenset(
    {"in", "any", "form", "before", "after", "docs", "promotes", "mixed", "rare", "dense", "often"}
)


class Region(NamedTuple):
    """One cluster."""

    cluster: int
    label: str
    size: int
    x: float
    """median position"""
    y: float
    x_min: float
    x_max: float
    y_min: float
    y_max: float


def find_clusters(
    positions: np.ndarray, *, generator: torch.Generator, min_cluster_size: int | None = None
) -> np.ndarray:
    """`[n]` int32 cluster numbers, the largest first; `NOISE` (-1) for points in no cluster.

    The smallest cluster is half a percent of the points clustered, and at least 5 of them. Clusters are the most
    persistent ones; when one of these holds more than half of the map, which then has no gaps, they are its densest
    parts instead (the leaves of the cluster tree). A map of fewer than 15 points, or of one place, has no clusters.
    """
    n = len(positions)
    if n < 15 or not np.ptp(positions, axis=0).any():
        return np.full(n, NOISE, np.int32)
    chosen = np.arange(n)
    if n > LARGEST_FIT:
        chosen = np.sort(torch.randperm(n, generator=generator)[:LARGEST_FIT].numpy())
    found = _hdbscan(positions[chosen], min_cluster_size or max(5, len(chosen) // 200))
    if n > len(chosen):
        found = found[_nearest(positions[chosen], positions)]
    sizes = Counter(found[found != NOISE].tolist())
    number = {old: new for new, (old, _) in enumerate(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))}
    return np.array([number.get(old, NOISE) for old in found.tolist()], np.int32)


def local_density(positions: np.ndarray, k: int = 15) -> np.ndarray:
    """`[n]` float32 in 0 to 1: rank of the inverse distance to the k-th map neighbour; 1 is the most crowded place."""
    from scipy.stats import rankdata
    from sklearn.neighbors import NearestNeighbors

    n = len(positions)
    k = min(k, n - 1)
    if k < 1:
        return np.ones(n, np.float32)
    distance, _ = NearestNeighbors(n_neighbors=k + 1).fit(positions).kneighbors(positions)
    return ((rankdata(-distance[:, -1], method="average") - 0.5) / n).astype(np.float32)


def describe_regions(positions: np.ndarray, clusters: np.ndarray, labels: list[str]) -> list[Region]:
    """Bounds, size and words of every cluster, by number."""
    words = cluster_words(positions, clusters, labels)
    regions = []
    for cluster in range(int(clusters.max(initial=NOISE)) + 1):
        mine = positions[clusters == cluster]
        middle, low, high = np.median(mine, axis=0), mine.min(0), mine.max(0)
        bounds = (low[0], high[0], low[1], high[1])
        text = ", ".join(words[cluster])
        regions.append(Region(cluster, text, len(mine), float(middle[0]), float(middle[1]), *map(float, bounds)))
    return regions


def cluster_words(positions: np.ndarray, clusters: np.ndarray, labels: list[str]) -> list[list[str]]:
    """The words that set each cluster apart, by class-based TF-IDF (Grootendorst 2022, BERTopic eq. 2).

    `weight = tf(word, cluster) * log(1 + A / f(word))` with `A` the mean number of words per cluster and `f` the count
    over the whole map, noise included. Words of equal weight: the one nearest to the cluster's middle.
    """
    terms = [words_of(label) for label in labels]
    overall = Counter(term for point in terms for term in point)
    n_clusters = int(clusters.max(initial=NOISE)) + 1
    mean_words = sum(overall.values()) / max(n_clusters, 1)
    chosen = []
    for cluster in range(n_clusters):
        mine = np.flatnonzero(clusters == cluster)
        middle = np.median(positions[mine], axis=0)
        by_distance = mine[np.argsort(np.square(positions[mine] - middle).sum(1), kind="stable")]
        counts = Counter(term for point in by_distance.tolist() for term in terms[point])  # nearest first
        weight = {term: n * np.log1p(mean_words / overall[term]) for term, n in counts.items()}
        chosen.append(sorted(weight, key=lambda term: -weight[term])[:N_WORDS])
    return chosen


def words_of(label: str) -> list[str]:
    """The words of a point's label, in lower case; a label without letters counts as one word.

    >>> words_of('" The" (84 %)')
    ['the']
    >>> words_of(" ==")
    ['==']
    """
    words = [word for word in _WORD.findall(label.lower()) if word not in _LABEL_GRAMMAR]
    return words or ([label.strip()] if label.strip() else [])


def _hdbscan(positions: np.ndarray, min_cluster_size: int) -> np.ndarray:
    from sklearn.cluster import HDBSCAN

    settings = {"min_cluster_size": min_cluster_size, "min_samples": 5, "copy": True}
    found = HDBSCAN(**settings).fit_predict(positions)
    sizes = np.bincount(found + 1, minlength=2)[1:]
    if sizes.max() <= len(positions) / 2:
        return found
    return HDBSCAN(**settings, cluster_selection_method="leaf").fit_predict(positions)


def _nearest(reference: np.ndarray, positions: np.ndarray) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=1).fit(reference).kneighbors(positions, return_distance=False)[:, 0]
