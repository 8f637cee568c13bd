"""Two-dimensional features, found in the decoder of a dictionary (Engels et al. 2024, arXiv 2405.14860).

A circle in the activations is represented by several latents whose decoder rows lie around it, each near the next.

1. Decoder rows are linked to their nearest neighbours by cosine similarity, where it is at least `threshold`. Connected
   groups are clusters, so a chain around a circle is one cluster although its opposite rows are not similar.
2. Each cluster reconstructs the activations with its latents alone, `sum acts * decoder row`, on the rows where any of
   them is active.
3. The planes of consecutive principal components of these reconstructions are measured, each by its separability and
   its mixture index (`interp.geometry.circles`).
4. The null is groups of the same number of latents, drawn at random.

An irreducible plane is a candidate only. Its meaning, and its use by the model, are tested by the circle test and by
rotating it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp.dictionary import Dictionary
from interp.errors import ConfigError
from interp.geometry.circles import MIN_POINTS, Reducibility, reducibility
from interp.geometry.points import GeometryResult
from interp.geometry.shapes import Plane, fit_plane
from interp.nulls import DRAWS
from interp.seeds import make_generator


@dataclass(frozen=True, kw_only=True)
class FeaturePlane(GeometryResult):
    """One plane of one cluster."""

    latents: tuple[int, ...]
    components: tuple[int, int]
    plane: Plane
    reducibility: Reducibility
    score: float
    """`(1 - mixture) * separability`, by which Engels et al. rank planes; 0 for a reducible one."""
    n_rows: int
    """Number of rows on which any of the latents is active."""

    def sentence(self) -> str:
        first = ", ".join(map(str, self.latents[:6])) + (" ..." if len(self.latents) > 6 else "")
        return f"latents {first}, components {self.components}: score {self.score:.3f}, {self.reducibility}"


@dataclass(frozen=True, kw_only=True)
class FeaturePlanes(GeometryResult):
    """Planes of all clusters, the highest score first."""

    planes: tuple[FeaturePlane, ...]
    random: tuple[float, ...]
    """Null distribution: the score of the best plane of each random group of latents."""
    n_clusters: int
    skipped: dict[str, int]
    """Number of clusters without a plane, for each reason."""
    threshold: float
    seed: int

    @property
    def above_random(self) -> tuple[FeaturePlane, ...]:
        """Irreducible planes with a higher score than any random group."""
        bound = max(self.random, default=np.inf)
        return tuple(plane for plane in self.planes if plane.reducibility.irreducible and plane.score > bound)

    def sentence(self) -> str:
        best = f"; best: {self.planes[0]}" if self.planes else ""
        high = f"{max(self.random):.3f}" if self.random else "none could be drawn"
        return (
            f"{len(self.above_random)} of {len(self.planes)} planes of {self.n_clusters} clusters are irreducible and "
            f"above random groups of latents (their best score {high}){best}"
        )


def cluster_decoder(
    directions: Tensor, *, threshold: float = 0.5, n_neighbours: int = 2, largest: int = 200
) -> list[list[int]]:
    """Return clusters of two or more rows of `directions [d_sae, d]`, linked by cosine similarity, largest first.

    Two rows are linked when their cosine is at least `threshold`. Every row is linked to at most its `n_neighbours`
    nearest, which stops dense regions from merging. Clusters with more than `largest` rows are left out. The cost is
    that of all pairs, `2 d_sae^2 d` operations.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    from interp.atlas.neighbours import nearest_neighbours

    if not 0 < threshold < 1:
        raise ConfigError(f"expected a cosine between 0 and 1 as threshold, got {threshold}")
    if directions.ndim != 2 or not len(directions) or n_neighbours < 1 or largest < 2:
        raise ConfigError(
            "expected directions [d_sae, d], one neighbour and groups of two at least, got "
            f"{list(directions.shape)}, n_neighbours {n_neighbours} and largest {largest}"
        )
    n = len(directions)
    near = nearest_neighbours(directions.detach().float().cpu(), n_neighbours)
    linked = ((1 - near.distances) >= threshold).numpy()
    rows = np.repeat(np.arange(n), linked.sum(1))
    graph = coo_matrix((np.ones(len(rows)), (rows, near.indices.numpy()[linked])), (n, n))
    labels = connected_components(graph, directed=False)[1]
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    clusters = [sorted(map(int, group)) for group in groups if 2 <= len(group) <= largest]
    return sorted(clusters, key=lambda group: (-len(group), group))


def feature_planes(
    sae: Dictionary,
    batches: Iterable[Tensor],
    *,
    clusters: Sequence[Sequence[int]] | None = None,
    threshold: float = 0.5,
    max_components: int = 4,
    max_clusters: int = 100,
    n_random: int = DRAWS["standard"],
    seed: int = 0,
) -> FeaturePlanes:
    """Find the planes of the decoder clusters of `sae` on activations `batches`, each `[n, d_in]`.

    Decoder rows whose cosine is at least `threshold` form a cluster; the `max_clusters` largest are examined, each in
    its first `max_components` principal components.

    Memory is that of the sparse activations of all rows. Raises `ConfigError` when no two decoder rows are similar
    enough or when `clusters` name a latent that does not exist, `NonFiniteError` on NaN or infinity.
    """
    if max_components < 2 or max_clusters < 1 or n_random < 0:
        raise ConfigError(
            "expected two components, one cluster and 0 random groups at least, got max_components "
            f"{max_components}, max_clusters {max_clusters} and n_random {n_random}"
        )
    directions = sae.decoder_directions.detach().float().cpu()
    if clusters is None:
        groups = cluster_decoder(directions, threshold=threshold)
    else:
        groups = _checked(clusters, len(directions))
    groups = groups[:max_clusters]
    if not groups:
        raise ConfigError(f"no two decoder rows have a cosine of {threshold}; lower the threshold")
    acts = _activations(sae, batches)
    all_planes, skipped = [], dict[str, int]()
    for group in groups:
        planes = _planes(group, acts, directions, max_components, seed)
        if isinstance(planes, str):
            skipped[planes] = skipped.get(planes, 0) + 1
        else:
            all_planes += planes
    random = []
    generator = make_generator(seed, "random groups of latents")
    for i in range(n_random):
        size = len(groups[i % len(groups)])
        drawn = _planes(
            torch.randperm(sae.d_sae, generator=generator)[:size].tolist(), acts, directions, max_components, seed
        )
        if not isinstance(drawn, str):
            random.append(max(plane.score for plane in drawn))
    return FeaturePlanes(
        planes=tuple(sorted(all_planes, key=lambda plane: -plane.score)),
        random=tuple(random),
        n_clusters=len(groups),
        skipped=skipped,
        threshold=threshold,
        seed=seed,
    )


def _checked(clusters: Sequence[Sequence[int]], d_sae: int) -> list[list[int]]:
    """Return clusters as lists; raise `ConfigError` unless each is a group of different latents."""
    wrong = [i for group in clusters for i in group if i not in range(d_sae)]
    if wrong:
        raise ConfigError(f"clusters are of latents 0 to {d_sae - 1}, got {wrong[0]}; take them of this dictionary")
    groups = [[int(i) for i in group] for group in clusters]
    if not groups or not all(0 < len(set(group)) == len(group) for group in groups):
        raise ConfigError(
            "expected clusters of different latents, got none, an empty one, or a latent twice; leave `clusters` "
            "out to find them in the decoder"
        )
    return groups


@torch.no_grad()
def _activations(sae: Dictionary, batches: Iterable[Tensor]) -> "list[tuple[Tensor, Tensor]]":
    """Return the sparse activations `(values, indices)` of every batch, on the CPU."""
    from interp.atlas.neighbours import check_vectors

    activations = []
    for x in batches:
        if x.ndim != 2:
            raise ConfigError(f"expected batches of activations [n, d_in], got {list(x.shape)}; give [x] for one")
        check_vectors(x, "activations")
        acts = sae.encode_sparse(x.to(sae.decoder_directions.device))
        activations.append((acts.values.float().cpu(), acts.indices.long().cpu()))
    if not activations:
        raise ConfigError("expected at least one batch of activations, got none; a generator runs out after one use")
    return activations


def _planes(
    group: Sequence[int], acts: "list[tuple[Tensor, Tensor]]", directions: Tensor, max_components: int, seed: int
) -> "list[FeaturePlane] | str":
    """Return the planes of a group of latents, or the reason why there are none."""
    column = torch.full((len(directions),), -1)
    column[torch.tensor(group)] = torch.arange(len(group))
    rows = []
    for values, indices in acts:
        at = column[indices]
        active = (at >= 0) & (values > 0)
        any_active = active.any(1)
        local = torch.zeros(int(any_active.sum()), len(group))
        local.scatter_add_(1, at[any_active].clamp_min(0), values[any_active] * active[any_active])
        rows.append(local)
    local = torch.cat(rows).double().numpy()
    if len(local) < MIN_POINTS:
        return f"active in fewer than {MIN_POINTS} rows"
    points = local @ directions[list(group)].double().numpy()
    planes = []
    for first in range(min(max_components, len(group)) - 1):
        try:
            plane = fit_plane(points, components=(first, first + 1), seed=seed)
            indices_of = reducibility(plane.coordinates(points), seed=seed)
        except ConfigError:
            break  # no further components
        score = (1 - indices_of.mixture) * indices_of.separability
        planes.append(
            FeaturePlane(
                latents=tuple(group),
                components=(first, first + 1),
                plane=plane,
                reducibility=indices_of,
                score=score,
                n_rows=len(points),
            )
        )
    return planes or "its rows lie on one line"
