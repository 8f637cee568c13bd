"""Supernodes: latents of a graph that do one thing together, judged against the model, and a user's marks.

    measured = partial(effect_profiles, system)     # interp.tracing.effects
    judged = judge_groups(graph, groups, measured)  # against random groups
    judged = alike_groups(graph, chosen, measured)  # found by measured effects
    graph = with_groups(graph, story, measured)     # the boxes of a story, judged and stored with the graph

In a frozen model every group equals the sum of its edges, so that only effects with nothing frozen can judge a group:
those of its members agree with each other more than those of random latents of the same layers. Torch-free.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from interp.errors import ConfigError
from interp.nulls import ALPHA, NUMERIC_DRAWS, holm, p_from_null
from interp.results import Record, Result
from interp.tracing.graph import AttributionGraph, GraphNode, JudgedGroup, Supernode
from interp.tracing.story import Story, words_of

MOST_GROUPS = 12
"""Largest number of groups proposed."""
MOST_JUDGED = 8
"""Latents of a box that are ablated to judge it, those of largest influence."""
ALIKE = 0.4
"""Cosine of measured effects from which latents are put into a group, whose test is on other outcomes."""


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
        """Return every node that a mark names."""
        return list(dict.fromkeys([*self.pins, *self.grouped(), *self.labels]))

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
        )

    def to_notes(self) -> dict[str, Any]:
        """Return the marks as `interp.notes.Notes.save_graph_edits` takes them."""
        marks = {
            "pins": list(self.pins),
            "groups": [[group.name, list(group.nodes)] for group in self.supernodes],
            "names": self.labels,
        }
        return {name: value for name, value in marks.items() if value}


def latents(graph: AttributionGraph) -> list[GraphNode]:
    """Return the kept latents of a graph, in the order of its nodes."""
    return [node for node in graph.nodes if node.kind == "feature" and node.kept]


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
    words = Counter(word for node in members for word in words_of(node.label).all)
    common = [word for word, n in words.most_common() if n >= max(2, len(members) / 3) or len(words) == 1]
    if common:
        return ", ".join(common[:2])
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
    def tested(self) -> tuple[JudgedGroup, ...]:
        """All groups, each with its agreement, that of random groups, and p."""
        rows = zip(self.groups, self.agreement.tolist(), self.null.T, self.p.tolist(), strict=True)
        return tuple(
            JudgedGroup(name=group.name, nodes=group.nodes, agreement=agreement, chance=float(null.mean()), p=p)
            for group, agreement, null, p in rows
        )

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


def box_groups(graph: AttributionGraph, story: Story | None) -> list[Supernode]:
    """Return the leading latents of each box of a story that holds several."""
    groups = []
    for box in story.boxes if story else ():
        members = sorted(box.nodes, key=lambda number: -graph.nodes[number].influence)[:MOST_JUDGED]
        if box.kind in ("concept", "output") and len(members) > 1:
            groups.append(Supernode(box.name, tuple(graph.nodes[number].id for number in members)))
    return groups


def with_groups(graph: AttributionGraph, story: Story | None, profiles: EffectProfiles) -> AttributionGraph:
    """Return a graph with the judged boxes of its story, so that the story has its tests."""
    return replace(graph, groups=judge_groups(graph, box_groups(graph, story), profiles, max_per_layer=8).tested)


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
