"""Settings of a map. Torch-free: the command line inherits them."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from interp.errors import ConfigError, UnknownNameError
from interp.options import BASIC

Metric = Literal["cosine", "euclidean"]
Method = Literal["umap", "umap-learn", "tsne", "pca"]
Search = Literal["exact", "approximate"]
"""How nearest neighbours are found."""
METRICS: tuple[Metric, ...] = get_args(Metric)
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, kw_only=True)
class MapSettings:
    """Settings of a map of vectors."""

    metric: Metric = "cosine"
    """Similarity of two vectors."""
    method: Annotated[Method, BASIC] = "umap"
    """umap: our own implementation, on all cores, the same result on any number of them; umap-learn: the reference, on
    one core; tsne: preserves more near neighbours and takes far longer; pca: two principal components."""
    n_neighbors: Annotated[int, BASIC] = 15
    """Nearest neighbours in the graph that is laid out: fewer show local detail, more show the large structure."""
    min_dist: float = 0.1
    """Smallest distance between points, in map units."""
    max_points: int | None = None
    """Map a random sample of at most this many points. Default: all (of a recording: 20,000)."""

    def __post_init__(self) -> None:
        for what, known in (("method", METHODS), ("metric", METRICS)):
            if getattr(self, what) not in known:
                raise UnknownNameError(what, getattr(self, what), known)
        if self.n_neighbors < 2:
            raise ConfigError(f"n_neighbors must be at least 2, got {self.n_neighbors}")
        if self.max_points is not None and self.max_points < 1:
            raise ConfigError(f"max_points must be at least 1, got {self.max_points}; leave it out to map all")
