"""Features that need two dimensions, from the decoder of a dictionary (Engels et al. 2024, 2405.14860).

A circle in the activations is covered by several latents whose decoder rows lie around it, each near the next. So:

1. decoder rows are linked to their nearest ones by cosine, where it is above `threshold`; linked groups are clusters
   (a chain around a circle holds together although its ends are opposite);
2. of every cluster the rows that it reconstructs, `sum acts * decoder row` over its latents alone, where any is on;
3. the planes of neighbouring principal components of those rows, each with its separability and mixture index
   (`interp.geometry.reducibility`);
4. as the null, groups of as many latents drawn at random.

A plane that is irreducible is a candidate and no more: what it means, and whether the model uses it, is for the circle
test and for turning it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp.dictionary import Dictionary
from interp.errors import ConfigError
from interp.geometry.points import Finding
from interp.geometry.reducibility import MIN_POINTS, Reducibility, reducibility
from interp.geometry.shapes import Plane, fit_plane
from interp.runtime import make_generator


@dataclass(frozen=True, kw_only=True)
class FeaturePlane(Finding):
    """One plane of one cluster."""

    latents: tuple[int, ...]
    components: tuple[int, int]
    plane: Plane
    reducibility: Reducibility
    score: float
    """`(1 - mixture) * separability`, as Engels et al. rank them: 0 reducible"""
    n_rows: int
    """rows on which any of the latents is on"""

    def sentence(self) -> str:
        first = ", ".join(map(str, self.latents[:6])) + (" ..." if len(self.latents) > 6 else "")
        return f"latents {first}, components {self.components}: score {self.score:.3f}, {self.reducibility}"


@dataclass(frozen=True, kw_only=True)
class FeaturePlanes(Finding):
    """All planes, highest score first."""

    found: tuple[FeaturePlane, ...]
    random: tuple[float, ...]
    """scores of the best planes of random groups: the null"""
    n_clusters: int
    skipped: dict[str, int]
    """why clusters have no plane -> how many"""
    threshold: float
    seed: int

    @property
    def above_random(self) -> tuple[FeaturePlane, ...]:
        """Irreducible ones with a higher score than any random group."""
        bound = max(self.random, default=np.inf)
        return tuple(each for each in self.found if each.reducibility.irreducible and each.score > bound)

    def sentence(self) -> str:
        best = f"; best: {self.found[0]}" if self.found else ""
        high = f"{max(self.random):.3f}" if self.random else "none could be drawn"
        return (
            f"{len(self.above_random)} of {len(self.found)} planes of {self.n_clusters} clusters are irreducible and "
            f"above random groups of latents (their best score {high}){best}"
        )


def cluster_decoder(
    directions: Tensor, *, threshold: float = 0.5, n_neighbours: int = 2, largest: int = 200
) -> list[list[int]]:
    """Groups of two or more rows of `directions [d_sae, d]` linked by a cosine of `threshold`, largest first.

    Every row is linked to at most its `n_neighbours` nearest, which keeps crowds from growing together; groups above
    `largest` are left out. Cost: all pairs, `2 d_sae^2 d` operations.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    from interp.atlas.neighbours import nearest_neighbours

    if not 0 < threshold < 1:
        raise ConfigError(f"a cosine between 0 and 1 was expected as threshold, got {threshold}")
    if directions.ndim != 2 or not len(directions) or n_neighbours < 1 or largest < 2:
        raise ConfigError(
            "directions [d_sae, d], one neighbour and groups of two at least were expected, got "
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
    found = [sorted(map(int, group)) for group in groups if 2 <= len(group) <= largest]
    return sorted(found, key=lambda group: (-len(group), group))


def feature_planes(
    sae: Dictionary,
    batches: Iterable[Tensor],
    *,
    clusters: Sequence[Sequence[int]] | None = None,
    threshold: float = 0.5,
    max_components: int = 4,
    max_clusters: int = 100,
    n_random: int = 20,
    seed: int = 0,
) -> FeaturePlanes:
    """Planes of the decoder clusters of `sae` on activations `batches`, each `[n, d_in]`.

    Memory: the sparse activations of all rows. Raises `ConfigError` when no two decoder rows are near each other, or
    `clusters` hold what is no latent; `NonFiniteError`.
    """
    if max_components < 2 or max_clusters < 1 or n_random < 0:
        raise ConfigError(
            "two components, one cluster and 0 random groups at least were expected, got max_components "
            f"{max_components}, max_clusters {max_clusters} and n_random {n_random}"
        )
    directions = sae.decoder_directions.detach().float().cpu()
    near = cluster_decoder(directions, threshold=threshold) if clusters is None else _given(clusters, len(directions))
    groups = near[:max_clusters]
    if not groups:
        raise ConfigError(f"no two decoder rows have a cosine of {threshold}; lower the threshold")
    acts = _activations(sae, batches)
    found, skipped = [], dict[str, int]()
    for group in groups:
        planes = _planes(group, acts, directions, max_components, seed)
        if isinstance(planes, str):
            skipped[planes] = skipped.get(planes, 0) + 1
        else:
            found += planes
    random = []
    generator = make_generator(seed, "random groups of latents")
    for i in range(n_random):
        size = len(groups[i % len(groups)])
        drawn = _planes(
            torch.randperm(sae.d_sae, generator=generator)[:size].tolist(), acts, directions, max_components, seed
        )
        if not isinstance(drawn, str):
            random.append(max(each.score for each in drawn))
    return FeaturePlanes(
        found=tuple(sorted(found, key=lambda each: -each.score)),
        random=tuple(random),
        n_clusters=len(groups),
        skipped=skipped,
        threshold=threshold,
        seed=seed,
    )


def _given(clusters: Sequence[Sequence[int]], d_sae: int) -> list[list[int]]:
    """Clusters as lists, once they are groups of different latents."""
    wrong = [i for group in clusters for i in group if i not in range(d_sae)]
    if wrong:
        raise ConfigError(f"clusters are of latents 0 to {d_sae - 1}, got {wrong[0]}; take them of this dictionary")
    groups = [[int(i) for i in group] for group in clusters]
    if not groups or not all(0 < len(set(group)) == len(group) for group in groups):
        raise ConfigError(
            "clusters of different latents were expected, got none, an empty one, or a latent twice; leave `clusters` "
            "out to find them in the decoder"
        )
    return groups


@torch.no_grad()
def _activations(sae: Dictionary, batches: Iterable[Tensor]) -> "list[tuple[Tensor, Tensor]]":
    """`(values, indices)` of every batch, on the CPU."""
    from interp.atlas.neighbours import check_vectors

    found = []
    for x in batches:
        if x.ndim != 2:
            raise ConfigError(f"batches of activations [n, d_in] were expected, got {list(x.shape)}; give [x] for one")
        check_vectors(x, "activations")
        acts = sae.encode_sparse(x)
        found.append((acts.values.float().cpu(), acts.indices.long().cpu()))
    if not found:
        raise ConfigError(
            "at least one batch of activations was expected, got none; a generator runs out after one use"
        )
    return found


def _planes(
    group: Sequence[int], acts: "list[tuple[Tensor, Tensor]]", directions: Tensor, max_components: int, seed: int
) -> "list[FeaturePlane] | str":
    """Planes of a group of latents, or why there are none."""
    place = torch.full((len(directions),), -1)
    place[torch.tensor(group)] = torch.arange(len(group))
    rows = []
    for values, indices in acts:
        at = place[indices]
        kept = (at >= 0) & (values > 0)
        on = kept.any(1)
        local = torch.zeros(int(on.sum()), len(group))
        local.scatter_add_(1, at[on].clamp_min(0), values[on] * kept[on])
        rows.append(local)
    local = torch.cat(rows).double().numpy()
    if len(local) < MIN_POINTS:
        return f"on in fewer than {MIN_POINTS} rows"
    points = local @ directions[list(group)].double().numpy()
    found = []
    for first in range(min(max_components, len(group)) - 1):
        try:
            plane = fit_plane(points, components=(first, first + 1), seed=seed)
            indices_of = reducibility(plane.coordinates(points), seed=seed)
        except ConfigError:
            break  # no further components
        score = (1 - indices_of.mixture) * indices_of.separability
        found.append(
            FeaturePlane(
                latents=tuple(group),
                components=(first, first + 1),
                plane=plane,
                reducibility=indices_of,
                score=score,
                n_rows=len(points),
            )
        )
    return found or "its rows lie on one line"
