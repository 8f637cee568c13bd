"""Supernodes: latents of a graph that do one thing together, found, judged against the model, and a user's marks.

    found = find_supernodes(graph)                        # a start that people edit
    measured = partial(effect_profiles, system)           # interp.tracing.effects
    judged = judge_groups(graph, found.groups, measured)  # against random groups
    judged = alike_groups(graph, chosen, measured)        # found by measured effects
    graph = with_groups(graph, measured)                  # and stored with the graph

Latents are similar when the same nodes feed them, they feed the same nodes, and they write in the same direction. In a
frozen model every group equals the sum of its edges, so that only effects with nothing frozen can judge a group: those
of its members agree with each other more than those of random latents of the same layers. Torch-free.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from interp.errors import ConfigError
from interp.nulls import ALPHA, DRAWS, NUMERIC_DRAWS, holm, p_from_null
from interp.results import Record, Result
from interp.tracing.graph import AttributionGraph, GraphNode, Supernode
from interp.tracing.part import part_of

COMMON_WORDS = frozenset(
    ("a", "an", "and", "as", "at", "by", "for", "from", "in", "is", "it", "of", "on", "or", "that", "the", "to", "with")
)
"""Words of labels that name no group."""
OF_RULES = frozenset(
    ("after", "before", "docs", "fires", "like", "mixed", "near", "no", "often", "reading", "sampled", "word", "words")
)
"""The same, of the rules that make labels."""
MOST_GROUPS = 12
"""Largest number of groups proposed."""
MOST_GROUPED = 60
"""Latents among which groups are looked for: each is ablated in the model."""
ALIKE = 0.4
"""Cosine of measured effects from which latents are put into a group, whose test is on other outcomes."""
SMALL_CELL = 3
"""Fewest nodes of a layer at one position that are permuted by themselves; fewer are pooled with other positions."""


@dataclass(frozen=True)
class GraphEdits:
    """A user's marks on a graph. Nodes are named by their ids."""

    pins: tuple[str, ...] = ()
    supernodes: tuple[Supernode, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    """node -> the user's own label"""
    hidden: tuple[str, ...] = ()
    moves: dict[str, list[float]] = field(default_factory=dict)
    """node -> x and y, pixels from its automatic position on our page"""
    sets: dict[str, dict[str, float]] = field(default_factory=dict)
    """name of an intervention -> latent -> factor of its activation"""
    clicked: str = ""
    layout: str = ""
    """positions in the viewer, in its own notation (`sg_pos`)"""
    link_type: str = "both"

    def named(self) -> list[str]:
        """Return every node that a mark names."""
        changed = [node for factors in self.sets.values() for node in factors]
        return list(dict.fromkeys([*self.pins, *self.grouped(), *self.labels, *self.hidden, *self.moves, *changed]))

    def grouped(self) -> list[str]:
        """Return the members of all supernodes."""
        return [name for group in self.supernodes for name in group.nodes]

    @classmethod
    def of_notes(cls, marks: Mapping[str, Any]) -> "GraphEdits":
        """Return the marks that `interp.notes.Notes.graph_edits` holds."""
        return cls(
            pins=tuple(marks.get("pins", ())),
            supernodes=tuple(Supernode(name, tuple(nodes)) for name, nodes in marks.get("groups", ())),
            labels=dict(marks.get("names", {})),
            hidden=tuple(marks.get("hidden", ())),
            moves={node: list(move) for node, move in marks.get("moves", {}).items()},
            sets={name: dict(factors) for name, factors in marks.get("sets", {}).items()},
        )

    def to_notes(self) -> dict[str, Any]:
        """Return the marks as `interp.notes.Notes.save_graph_edits` takes them."""
        marks = {
            "pins": list(self.pins),
            "groups": [[group.name, list(group.nodes)] for group in self.supernodes],
            "names": self.labels,
            "hidden": list(self.hidden),
            "moves": self.moves,
            "sets": self.sets,
        }
        return {name: value for name, value in marks.items() if value}


@dataclass(frozen=True, repr=False)
class FoundGroups(Result):
    """Groups of similar latents, and the similarity that latents reach by chance."""

    groups: tuple[Supernode, ...]
    similarity: tuple[float, ...]
    """mean similarity of two members, by group"""
    bound: float
    """similarity from which permuted graphs have at most 5 % as many pairs; infinite where there is none"""
    pairs: int
    """pairs of latents at least that similar"""
    chance: float
    """mean number of such pairs in a permuted graph"""
    n_latents: int

    def to_records(self) -> list[Record]:
        """Return one row per group, the largest first."""
        return [
            {"name": group.name, "latents": len(group.nodes), "similarity": near, "nodes": ", ".join(group.nodes)}
            for group, near in zip(self.groups, self.similarity, strict=True)
        ]

    def headline(self) -> str:
        """Return how many latents are in groups, and what chance explains."""
        if not self.groups:
            return f"No groups: none of {self.n_latents} latents are more similar than in permuted graphs."
        inside = sum(len(group.nodes) for group in self.groups)
        return (
            f"{len(self.groups)} groups hold {inside} of {self.n_latents} latents. {self.pairs} pairs have a "
            f"similarity of {self.bound:.2f} or more; permuted graphs have {self.chance:.1f}."
        )


def find_supernodes(
    graph: AttributionGraph,
    directions: Float[np.ndarray, "latents d"] | None = None,
    *,
    near_positions: int | None = 0,
    near_layers: int | None = None,
    most: int = MOST_GROUPS,
    n_null: int = DRAWS["standard"],
    seed: int = 0,
) -> FoundGroups:
    """Group the kept latents of a graph by average linkage of their similarities: the `most` groups of most influence.

    Similarity is the smallest of the cosines of in-edges, of out-edges (each as shares of its target's input), and of
    `directions`, the decoder rows of `latents(graph)`, where they are given. Errors and a latent's own token are left
    out: all latents of a position share them. Pairs further apart than `near_positions` or `near_layers` are never
    grouped; None is no limit. The bound of similarity comes from `n_null` graphs in which each latent's edges are
    permuted among nodes of one layer and position, so that position and depth make no group, and directions among
    latents of one layer.
    Raises `ConfigError` where `directions` do not belong to the latents.
    """
    nodes = latents(graph)
    if directions is not None and len(directions) != len(nodes):
        raise ConfigError(f"expected directions of {len(nodes)} latents, one row each, got {len(directions)}")
    rng = np.random.default_rng(seed)
    layer, position = (np.array([getattr(node, name) for node in nodes], int) for name in ("layer", "position"))
    allowed = ~np.eye(len(nodes), dtype=bool)
    for where, limit in ((position, near_positions), (layer, near_layers)):
        if limit is not None:
            allowed &= np.abs(where[:, None] - where) <= limit
    pairs = np.triu(allowed)
    if not pairs.any():
        return FoundGroups((), (), np.inf, 0, 0.0, len(nodes))
    profiles, cells = _profiles(graph, nodes), _cells(graph, nodes)
    cosines = _similarity(profiles, directions)
    null = []
    for _ in range(n_null):
        into, out = (_permuted(*pair, rng) for pair in zip(profiles, cells, strict=True))
        rows = _within(layer, rng)
        null.append(_similarity((into, out), None if directions is None else directions[rows])[pairs])
    bound, above, chance = _bound(cosines[pairs], np.stack(null))
    clusters = _clusters(cosines, allowed, bound) if above else []
    influence = np.array([node.influence for node in nodes])
    chosen = sorted(range(len(clusters)), key=lambda at: -float(influence[clusters[at]].sum()))[:most]
    clusters = [clusters[at] for at in sorted(chosen)]
    names = _distinct([_name(graph, [nodes[i] for i in rows]) for rows in clusters])
    groups = [Supernode(name, tuple(nodes[i].id for i in rows)) for name, rows in zip(names, clusters, strict=True)]
    inside = [float(cosines[np.ix_(rows, rows)][~np.eye(len(rows), dtype=bool)].mean()) for rows in clusters]
    return FoundGroups(tuple(groups), tuple(inside), bound, above, chance, len(nodes))


def _bound(scores: Float[np.ndarray, " pairs"], null: Float[np.ndarray, "draws pairs"]) -> tuple[float, int, float]:
    """Return the least similarity from which chance explains few pairs, the pairs there, and those by chance.

    Chance counts one pair more than the permuted graphs have together, so that a single pair is never enough.
    """
    ordered, chance = np.sort(scores)[::-1], np.sort(null, axis=None)
    above = np.arange(1, len(ordered) + 1)
    expected = (1 + len(chance) - np.searchsorted(chance, ordered - 1e-9)) / len(null)
    few = np.flatnonzero((expected <= ALPHA * above) & (ordered > 0))
    if not len(few):
        return np.inf, 0, 0.0
    return float(ordered[few[-1]]), int(above[few[-1]]), float(expected[few[-1]] - 1 / len(null))


def latents(graph: AttributionGraph) -> list[GraphNode]:
    """Return the kept latents of a graph, in the order of its nodes."""
    return [node for node in graph.nodes if node.kind == "feature" and node.kept]


Profiles = tuple[Float[np.ndarray, "latents nodes"], Float[np.ndarray, "latents nodes"]]
"""In-edges and out-edges of each latent, 0 where there is none."""


def _profiles(graph: AttributionGraph, nodes: Sequence[GraphNode]) -> Profiles:
    """Return edges as signed shares of all input of their target."""
    n, edges = len(graph.nodes), graph.edges
    size = np.abs(edges.weight.astype(np.float64))
    share = edges.weight / np.maximum(np.bincount(edges.target, size, n)[edges.target], 1e-30)
    row = np.full(n, -1)
    row[[graph.number[node.id] for node in nodes]] = np.arange(len(nodes))
    into, out = np.zeros((len(nodes), n)), np.zeros((len(nodes), n))
    for profile, near_ends, far_ends in ((into, edges.target, edges.source), (out, edges.source, edges.target)):
        mine = row[near_ends] >= 0
        profile[row[near_ends[mine]], far_ends[mine]] = share[mine]
    kinds, position = np.array([node.kind for node in graph.nodes]), np.array([node.position for node in graph.nodes])
    into[:, kinds == "error"] = 0
    for i, node in enumerate(nodes):
        into[i, (kinds == "token") & (position == node.position)] = 0
    return into, out


_PLACE = ("layer", "position")
Cells = Int[np.ndarray, "latents nodes"]
"""For each latent, the number of the cell of each node; edges are permuted within cells."""


def _cells(graph: AttributionGraph, nodes: Sequence[GraphNode]) -> tuple[Cells, Cells]:
    """Return cells of the nodes that can feed each latent, and of those that it can feed.

    A cell is a layer at a position. Positions where a layer has few nodes are taken together, and so are tokens. Nodes
    out of reach are cells of their own.
    """
    layer, position = (np.array([getattr(node, name) for node in graph.nodes]) for name in _PLACE)
    _, at, size = np.unique(np.stack([layer, position]), axis=1, return_inverse=True, return_counts=True)
    place = np.where((size[at] < SMALL_CELL) | (layer < 0), -1, position)
    usable = np.array([node.kind != "error" for node in graph.nodes])
    _, at = np.unique(np.stack([layer, place]), axis=1, return_inverse=True)
    alone = len(layer) + np.arange(len(layer))
    own_layer, own_position = (np.array([getattr(node, name) for node in nodes])[:, None] for name in _PLACE)
    before = usable & (layer < own_layer) & (position <= own_position - (layer < 0))
    after = usable & (layer > own_layer) & (position >= own_position)
    return np.where(before, at, alone), np.where(after, at, alone)


def _permuted(profile: np.ndarray, cells: Cells, rng: np.random.Generator) -> np.ndarray:
    """Permute each row within cells."""
    order, mixed = np.argsort(cells, axis=1, kind="stable"), np.argsort(cells + rng.random(cells.shape), axis=1)
    out = np.empty_like(profile)
    np.put_along_axis(out, order, np.take_along_axis(profile, mixed, axis=1), axis=1)
    return out


def _within(layer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random order of rows that exchanges rows of one layer only."""
    order = np.arange(len(layer))
    for at in np.unique(layer):
        rows = np.flatnonzero(layer == at)
        order[rows] = rng.permutation(rows)
    return order


def _similarity(profiles: Profiles, directions: np.ndarray | None) -> Float[np.ndarray, "latents latents"]:
    """Return the smallest of the cosines of in-edges, out-edges and directions; 0 for a latent without any."""
    parts = [*profiles, *([] if directions is None else [directions])]
    return np.min([_cosines(part) for part in parts], axis=0)


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
    labels = model.fit_predict(distance)
    groups = [np.flatnonzero(labels == at) for at in np.unique(labels)]
    return sorted((group for group in groups if len(group) > 1), key=lambda group: (-len(group), group[0]))


def _name(graph: AttributionGraph, members: Sequence[GraphNode]) -> str:
    """Return the words that two labels and a third of them share; else the token and the layers of the members."""
    words = Counter(word for node in members for word in {*_words(node.label)})
    common = [word for word, n in words.most_common() if n >= max(2, len(members) / 3) or len(words) == 1]
    if common:
        return " ".join(common[:3])
    places = sorted({node.position for node in members})
    texts = [graph.token_texts[at].strip() or repr(graph.token_texts[at]) for at in places[:2]]
    low, high = min(node.layer for node in members), max(node.layer for node in members)
    return f"{', '.join(texts)} · layer{'' if low == high else 's'} {low if low == high else f'{low} to {high}'}"


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names with a number for each that was there before."""
    unique_names: list[str] = []
    for name in names:
        unique_names.append(name if name not in unique_names else f"{name} ({len(unique_names) + 1})")
    return unique_names


def _words(label: str) -> list[str]:
    """Return the words that a label quotes; else its own, without those of the rule that made it."""
    if quoted := [text.strip().lower() for text in re.findall(r'"([^"]+)"', label)]:
        return [word for word in quoted if len(word) > 1]
    return [word for word in re.findall(r"[^\W\d_]{2,}", label.lower()) if word not in COMMON_WORDS | OF_RULES]


EffectProfiles = Callable[[Sequence[GraphNode]], np.ndarray]
"""`profiles(nodes)` returns `[n, d]`: the measured effect of ablating each node, on any `d` outcomes of the model."""


@dataclass(frozen=True, repr=False)
class JudgedGroups(Result):
    """Agreement of measured effects within groups, against random groups of the same layers and sizes."""

    groups: tuple[Supernode, ...]
    agreement: Float[np.ndarray, " groups"]
    """mean cosine of two members' effects: 1 the same, 0 unrelated"""
    null: Float[np.ndarray, "draws groups"]
    p: Float[np.ndarray, " groups"]
    """of each group, adjusted for the number of groups (Holm)"""
    p_all: float
    """of the mean over groups"""

    @property
    def held(self) -> tuple[Supernode, ...]:
        """Groups whose members agree more than random latents do."""
        return tuple(group for group, p in zip(self.groups, self.p, strict=True) if p <= ALPHA)

    def to_records(self) -> list[Record]:
        """Return one row per group: its agreement, that of random groups, and p."""
        return [
            {
                "name": group.name,
                "latents": len(group.nodes),
                "agreement": float(self.agreement[i]),
                "random": float(self.null[:, i].mean()),
                "random_high": float(np.quantile(self.null[:, i], 1 - ALPHA)),
                "p": float(self.p[i]),
            }
            for i, group in enumerate(self.groups)
        ]

    def headline(self) -> str:
        """Return how many groups hold, with nothing frozen."""
        if not self.groups:
            return "No groups to judge."
        return (
            f"{int((self.p <= ALPHA).sum())} of {len(self.groups)} proposed groups act together (agreement "
            f"{self.agreement.mean():.2f}; random groups {self.null.mean():.2f})."
        )


def alike_groups(
    graph: AttributionGraph,
    chosen: Sequence[GraphNode],
    profiles: EffectProfiles,
    *,
    most: int = MOST_GROUPS,
    max_per_layer: int = 6,
    seed: int = 0,
) -> JudgedGroups:
    """Group latents whose ablation changes the model alike, at most `most` groups, and judge them (`judge_groups`).

    A random half of the outcomes makes the groups, by average linkage of cosines of at least `ALIKE`; the other half
    judges them, so that a group cannot pass by the choice of its members.
    """
    effects = dict(zip((node.id for node in chosen), profiles(chosen), strict=True)) if chosen else {}
    if len(effects) < 2:
        return judge_groups(graph, [], profiles)
    width = next(iter(effects.values())).shape[-1]
    order = np.random.default_rng(seed).permutation(width)
    first, second = order[: width // 2], order[width // 2 :]
    cosines = _cosines(np.stack(list(effects.values())).astype(np.float64)[:, first])
    clusters = _clusters(cosines, ~np.eye(len(chosen), dtype=bool), ALIKE)[:most]
    members = [[chosen[i] for i in cluster] for cluster in clusters]

    def other_half(nodes: Sequence[GraphNode]) -> np.ndarray:
        if new := [node for node in nodes if node.id not in effects]:
            effects.update(zip((node.id for node in new), profiles(new), strict=True))
        return np.stack([effects[node.id] for node in nodes])[:, second]

    groups = [
        Supernode(name, tuple(node.id for node in nodes))
        for name, nodes in zip(_distinct([_name(graph, nodes) for nodes in members]), members, strict=True)
    ]
    return judge_groups(graph, groups, other_half, max_per_layer=max_per_layer, seed=seed)


def with_groups(graph: AttributionGraph, profiles: EffectProfiles, *, hidden: Collection[int] = ()) -> AttributionGraph:
    """Return a graph with those groups of its `MOST_GROUPED` leading latents that pass their test (`alike_groups`).

    `hidden` are numbers of nodes that are left out, such as the background of all prompts.
    """
    errors = {number for number, node in enumerate(graph.nodes) if node.kind == "error"}
    leading = part_of(graph, most=MOST_GROUPED, edges=0, hidden={*hidden, *errors}).nodes
    chosen = [graph.nodes[i] for i in np.flatnonzero(leading) if graph.nodes[i].kind == "feature"]
    return replace(graph, groups=alike_groups(graph, chosen, profiles).held)


def judge_groups(
    graph: AttributionGraph,
    groups: Sequence[Supernode],
    profiles: EffectProfiles,
    *,
    n_random: int = NUMERIC_DRAWS["standard"],
    max_per_layer: int = 12,
    seed: int = 0,
) -> JudgedGroups:
    """Compare measured effects within each group with those within random groups of the same layers and sizes.

    `profiles` measures effects in the model; it is called once, for the members and for at most `max_per_layer` other
    kept latents of each of their layers. A random group has, for each member, one latent of its layer, members
    included, none twice. Only latents of a group are judged; groups with fewer than two are refused.
    Raises `ConfigError` and `UnknownNameError`.
    """
    rng = np.random.default_rng(seed)
    members = [[graph.node(name) for name in group.nodes if graph.node(name).kind == "feature"] for group in groups]
    if small := [group.name for group, nodes in zip(groups, members, strict=True) if len(nodes) < 2]:
        raise ConfigError(f"group {small[0]!r} has fewer than two latents; agreement needs two")
    if not groups:
        return JudgedGroups((), np.zeros(0), np.zeros((0, 0)), np.zeros(0), 1.0)
    pool = {node.id: node for nodes in members for node in nodes}
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
    for i, nodes in enumerate(members):
        agreement[i] = _agreement(cosines, np.array([names.index(node.id) for node in nodes]))
        sizes = Counter(node.layer for node in nodes)
        rows = {at: np.flatnonzero(layer == at) for at in sizes}
        for draw in range(n_random):
            chosen = [rng.choice(rows[at], n, replace=False) for at, n in sizes.items()]
            null[draw, i] = _agreement(cosines, np.concatenate(chosen))
    p = p_from_null(agreement, null)
    return JudgedGroups(tuple(groups), agreement, null, holm(p), p_from_null(agreement.mean(), null.mean(1)))


def _agreement(cosines: np.ndarray, rows: np.ndarray) -> float:
    n = len(rows)
    return float((cosines[np.ix_(rows, rows)].sum() - np.trace(cosines[np.ix_(rows, rows)])) / (n * (n - 1)))
