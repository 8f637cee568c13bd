"""Supernodes: latents of a graph that do one thing together, found, judged against the model, and a user's marks.

    found = find_supernodes(graph)                        # a start that people edit
    judged = judge_groups(graph, found.groups, profiles)  # measured effects, beside random groups

Latents are similar when the same nodes feed them, they feed the same nodes, and they write in the same direction. In a
frozen model every group equals the sum of its edges, so that only effects with nothing frozen can judge a group: those
of its members agree with each other more than those of random latents of the same layers. Torch-free.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from interp.errors import ConfigError
from interp.results import Record, Result
from interp.statistics import holm, p_from_null
from interp.tracing.graph import AttributionGraph, GraphNode

ERROR = 0.05
"""Probability that a graph without any group shows one, and that a group without agreement passes."""
COMMON_WORDS = frozenset(
    ("a", "an", "and", "as", "at", "by", "for", "from", "in", "is", "it", "of", "on", "or", "that", "the", "to", "with")
)
"""Words of labels that name no group."""
SMALL_CELL = 3
"""Nodes of a layer at one position, below which they are permuted with those of other such positions."""


@dataclass(frozen=True)
class Supernode:
    """Nodes of a graph that are shown as one."""

    name: str
    nodes: tuple[str, ...]
    """ids"""


@dataclass(frozen=True)
class GraphEdits:
    """A user's marks on a graph. Nodes are named by their ids."""

    pins: tuple[str, ...] = ()
    supernodes: tuple[Supernode, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    """node -> the user's own label"""
    clicked: str = ""
    layout: str = ""
    """positions in the viewer, in its own notation (`sg_pos`)"""
    link_type: str = "both"

    def named(self) -> list[str]:
        """Return every node that is pinned, grouped or labelled."""
        return list(dict.fromkeys([*self.pins, *(n for each in self.supernodes for n in each.nodes), *self.labels]))


@dataclass(frozen=True, repr=False)
class FoundGroups(Result):
    """Groups of similar latents, and the similarity that latents reach by chance."""

    groups: tuple[Supernode, ...]
    similarity: tuple[float, ...]
    """mean similarity of two members, by group"""
    bound: float
    """similarity of the most similar pair in a permuted graph, exceeded in 5 % of permutations"""
    n_latents: int

    def to_records(self) -> list[Record]:
        """Return one row per group, the largest first."""
        return [
            {"name": group.name, "latents": len(group.nodes), "similarity": near, "chance": self.bound}
            | {"nodes": ", ".join(group.nodes)}
            for group, near in zip(self.groups, self.similarity, strict=True)
        ]

    def headline(self) -> str:
        """Return how many latents are in groups, and the bound."""
        inside = sum(len(group.nodes) for group in self.groups)
        return (
            f"{len(self.groups)} groups hold {inside} of {self.n_latents} latents. Members of a group are more similar "
            f"({self.bound:.2f}) than any two latents of a graph with permuted edges."
        )


def find_supernodes(
    graph: AttributionGraph,
    directions: Float[np.ndarray, "latents d"] | None = None,
    *,
    near_positions: int | None = 0,
    near_layers: int | None = None,
    n_null: int = 59,
    seed: int = 0,
) -> FoundGroups:
    """Group the kept latents of a graph by average linkage of their similarities.

    Similarity is the mean cosine of in-edges, of out-edges (each as shares of its target's input), and of `directions`,
    the decoder rows of `latents(graph)`, where they are given. Errors and a latent's own token are left out: all
    latents of a position share them. Pairs further apart than `near_positions` or `near_layers` are never grouped; None
    is no limit. The bound is from `n_null` graphs in which each latent's edges are permuted among nodes of one layer
    and position, so that position and depth make no group, and directions among latents of one layer.
    Raises `ConfigError` where `directions` do not belong to the latents.
    """
    nodes = latents(graph)
    if directions is not None and len(directions) != len(nodes):
        raise ConfigError(f"directions of {len(nodes)} latents were expected, one row each, got {len(directions)}")
    if len(nodes) < 2:
        return FoundGroups((), (), 1.0, len(nodes))
    rng = np.random.default_rng(seed)
    layer, position = (np.array([getattr(node, name) for node in nodes]) for name in ("layer", "position"))
    allowed = ~np.eye(len(nodes), dtype=bool)
    for where, limit in ((position, near_positions), (layer, near_layers)):
        if limit is not None:
            allowed &= np.abs(where[:, None] - where) <= limit
    profiles = _profiles(graph, nodes)
    strata = _strata(graph, nodes)
    own = _similarity(profiles, directions)
    maxima = np.zeros(n_null)
    for draw in range(n_null if allowed.any() else 0):
        permuted = _permuted(profiles[0], strata[0], rng), _permuted(profiles[1], strata[1], rng)
        rows = _within(layer, rng)
        null = _similarity(permuted, None if directions is None else directions[rows])
        maxima[draw] = null[allowed].max()
    bound = float(np.quantile(maxima, 1 - ERROR, method="higher"))
    clusters = _clusters(own, allowed, bound)
    groups = [Supernode(_name(graph, [nodes[i] for i in each]), tuple(nodes[i].id for i in each)) for each in clusters]
    inside = [float(own[np.ix_(each, each)][~np.eye(len(each), dtype=bool)].mean()) for each in clusters]
    return FoundGroups(tuple(groups), tuple(inside), bound, len(nodes))


def latents(graph: AttributionGraph) -> list[GraphNode]:
    """Return the kept latents of a graph, in the order of its nodes."""
    return [node for node in graph.nodes if node.kind == "feature" and node.kept]


Profiles = tuple[Float[np.ndarray, "latents nodes"], Float[np.ndarray, "latents nodes"]]
"""In-edges and out-edges of each latent, 0 where there is none."""
Strata = tuple[list[list[np.ndarray]], list[list[np.ndarray]]]
"""For each latent, groups of nodes among which its in-edges, and its out-edges, are permuted."""


def _profiles(graph: AttributionGraph, nodes: Sequence[GraphNode]) -> Profiles:
    """Return edges as signed shares of all input of their target."""
    n, edges = len(graph.nodes), graph.edges
    size = np.abs(edges.weight.astype(np.float64))
    share = edges.weight / np.maximum(np.bincount(edges.target, size, n)[edges.target], 1e-30)
    row = np.full(n, -1)
    row[[graph.number[node.id] for node in nodes]] = np.arange(len(nodes))
    into, out = np.zeros((len(nodes), n)), np.zeros((len(nodes), n))
    for profile, own, other in ((into, edges.target, edges.source), (out, edges.source, edges.target)):
        mine = row[own] >= 0
        profile[row[own[mine]], other[mine]] = share[mine]
    kinds, position = np.array([node.kind for node in graph.nodes]), np.array([node.position for node in graph.nodes])
    into[:, kinds == "error"] = 0
    for i, node in enumerate(nodes):
        into[i, (kinds == "token") & (position == node.position)] = 0
    return into, out


def _strata(graph: AttributionGraph, nodes: Sequence[GraphNode]) -> Strata:
    """Return, for each latent, the nodes that feed it, and that it feeds, of each layer and position.

    Positions where a layer has few nodes are taken together, and so are tokens.
    """
    layer, position = (np.array([getattr(node, name) for node in graph.nodes]) for name in ("layer", "position"))
    usable = np.array([node.kind != "error" for node in graph.nodes])
    into, out = [], []
    for node in nodes:
        before = usable & (layer < node.layer) & (position <= node.position - (layer < 0))
        after = usable & (layer > node.layer) & (position >= node.position)
        into.append(_cells(before, layer, position))
        out.append(_cells(after, layer, position))
    return into, out


def _cells(mask: np.ndarray, layer: np.ndarray, position: np.ndarray) -> list[np.ndarray]:
    rows = np.flatnonzero(mask)
    _, cell, size = np.unique(np.stack([layer[rows], position[rows]]), axis=1, return_inverse=True, return_counts=True)
    place = np.where((size[cell] < SMALL_CELL) | (layer[rows] < 0), -1, position[rows])
    _, cell = np.unique(np.stack([layer[rows], place]), axis=1, return_inverse=True)
    order = np.argsort(cell, kind="stable")
    return np.split(rows[order], np.flatnonzero(np.diff(cell[order])) + 1)


def _permuted(profile: np.ndarray, strata: list[list[np.ndarray]], rng: np.random.Generator) -> np.ndarray:
    out = profile.copy()
    for i, groups in enumerate(strata):
        for each in groups:
            if len(each) > 1:
                out[i, each] = profile[i, rng.permutation(each)]
    return out


def _within(layer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random order of rows that exchanges rows of one layer only."""
    order = np.arange(len(layer))
    for at in np.unique(layer):
        rows = np.flatnonzero(layer == at)
        order[rows] = rng.permutation(rows)
    return order


def _similarity(profiles: Profiles, directions: np.ndarray | None) -> Float[np.ndarray, "latents latents"]:
    """Return the mean cosine of in-edges, out-edges and directions; 0 for a latent without any."""
    parts = [*profiles, *([] if directions is None else [directions])]
    return np.mean([_cosines(each) for each in parts], axis=0)


def _cosines(rows: np.ndarray) -> np.ndarray:
    units = rows.astype(np.float32) / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    return (units @ units.T).astype(np.float64)


def _clusters(similarity: np.ndarray, allowed: Bool[np.ndarray, "n n"], bound: float) -> list[np.ndarray]:
    """Return groups of rows whose mean similarity exceeds the bound, the largest first."""
    from sklearn.cluster import AgglomerativeClustering

    distance = np.where(allowed, 1 - similarity, 1e6)  # so far that no average with it is near
    np.fill_diagonal(distance, 0)
    n_clusters: Any = None  # its annotation lacks the None of its documentation
    model = AgglomerativeClustering(
        n_clusters=n_clusters, metric="precomputed", linkage="average", distance_threshold=1 - bound
    )
    found = model.fit_predict(distance)
    groups = [np.flatnonzero(found == at) for at in np.unique(found)]
    return sorted((each for each in groups if len(each) > 1), key=lambda each: (-len(each), each[0]))


def _name(graph: AttributionGraph, members: Sequence[GraphNode]) -> str:
    """Return the words that most labels share; else the token and the layers of the members."""
    words = Counter(word for node in members for word in {*_words(node.label)})
    common = [word for word, n in words.most_common() if n > 1 or len(words) == 1]
    if common:
        return " ".join(common[:3])
    places = sorted({node.position for node in members})
    texts = [graph.token_texts[at].strip() or repr(graph.token_texts[at]) for at in places[:2]]
    low, high = min(node.layer for node in members), max(node.layer for node in members)
    return f"{', '.join(texts)} · layer{'' if low == high else 's'} {low if low == high else f'{low} to {high}'}"


def _words(label: str) -> list[str]:
    return [word for word in re.findall(r"[^\W\d_]{2,}", label.lower()) if word not in COMMON_WORDS]


EffectProfiles = Callable[[Sequence[GraphNode]], np.ndarray]
"""`profiles(nodes)` returns `[n, d]`: the measured effect of ablating each node, on any `d` outcomes of the model."""


@dataclass(frozen=True, repr=False)
class JudgedGroups(Result):
    """Agreement of measured effects within groups, beside random groups of the same layers and sizes."""

    groups: tuple[Supernode, ...]
    agreement: Float[np.ndarray, " groups"]
    """mean cosine of two members' effects: 1 the same, 0 unrelated"""
    null: Float[np.ndarray, "draws groups"]
    p: Float[np.ndarray, " groups"]
    """of each group, adjusted for the number of groups (Holm)"""
    p_all: float
    """of the mean over groups"""

    def to_records(self) -> list[Record]:
        """Return one row per group: its agreement, that of random groups, and p."""
        return [
            {
                "name": group.name,
                "latents": len(group.nodes),
                "agreement": float(self.agreement[i]),
                "random": float(self.null[:, i].mean()),
                "random_high": float(np.quantile(self.null[:, i], 1 - ERROR)),
                "p": float(self.p[i]),
            }
            for i, group in enumerate(self.groups)
        ]

    def headline(self) -> str:
        """Return how many groups hold, with nothing frozen."""
        if not self.groups:
            return "No groups to judge."
        return (
            f"With nothing frozen, effects of members agree at {self.agreement.mean():.2f}, those of random latents of "
            f"the same layers at {self.null.mean():.2f} (p = {self.p_all:.2g}); {int((self.p <= ERROR).sum())} of "
            f"{len(self.groups)} groups hold."
        )


def judge_groups(
    graph: AttributionGraph,
    groups: Sequence[Supernode],
    profiles: EffectProfiles,
    *,
    n_random: int = 999,
    max_per_layer: int = 24,
    seed: int = 0,
) -> JudgedGroups:
    """Compare measured effects within each group with those within random groups of the same layers and sizes.

    `profiles` measures effects in the model; it is called once, for the members and for at most `max_per_layer` other
    kept latents of each of their layers. A random group has, for each member, one latent of its layer, members
    included, none twice. Only latents of a group are judged; groups with fewer than two are refused.
    Raises `ConfigError` and `UnknownNameError`.
    """
    rng = np.random.default_rng(seed)
    members = [[graph.node(name) for name in each.nodes if graph.node(name).kind == "feature"] for each in groups]
    if small := [group.name for group, held in zip(groups, members, strict=True) if len(held) < 2]:
        raise ConfigError(f"group {small[0]!r} has fewer than two latents; agreement needs two")
    if not groups:
        return JudgedGroups((), np.zeros(0), np.zeros((0, 0)), np.zeros(0), 1.0)
    pool = {node.id: node for held in members for node in held}
    for layer in sorted({node.layer for node in pool.values()}):
        others = [node for node in latents(graph) if node.layer == layer and node.id not in pool]
        chosen = rng.permutation(len(others))[:max_per_layer]
        pool |= {others[i].id: others[i] for i in chosen}
    names = list(pool)
    effects = np.asarray(profiles(list(pool.values())), dtype=np.float64)
    if effects.ndim != 2 or len(effects) != len(names) or not np.isfinite(effects).all():
        raise ConfigError(f"profiles should give finite effects [{len(names)}, d], got shape {effects.shape}")
    cosines = _cosines(effects)
    layer = np.array([node.layer for node in pool.values()])
    agreement, null = np.zeros(len(groups)), np.zeros((n_random, len(groups)))
    for i, held in enumerate(members):
        agreement[i] = _agreement(cosines, np.array([names.index(node.id) for node in held]))
        sizes = Counter(node.layer for node in held)
        rows = {at: np.flatnonzero(layer == at) for at in sizes}
        for draw in range(n_random):
            chosen = [rng.choice(rows[at], n, replace=False) for at, n in sizes.items()]
            null[draw, i] = _agreement(cosines, np.concatenate(chosen))
    p = p_from_null(agreement, null)
    return JudgedGroups(tuple(groups), agreement, null, holm(p), p_from_null(agreement.mean(), null.mean(1)))


def _agreement(cosines: np.ndarray, rows: np.ndarray) -> float:
    n = len(rows)
    return float((cosines[np.ix_(rows, rows)].sum() - np.trace(cosines[np.ix_(rows, rows)])) / (n * (n - 1)))
