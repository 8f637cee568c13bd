"""Supernodes: latents of a graph that do one thing together, judged against the model, and a user's marks.

    graph, marks = import_graph(read_graph_json(path))               # interp.tracing.interchange
    measured = partial(effect_profiles, system)                      # interp.tracing.effects
    print(judge_groups(graph, marks.supernodes, measured))           # against random groups

In a frozen model every group equals the sum of its edges, so that only effects with nothing frozen can judge a group:
those of its members agree with each other more than those of random latents of the same layers. Torch-free.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.errors import ConfigError
from interp.nulls import ALPHA, NUMERIC_DRAWS, holm, p_from_null
from interp.results import Record, Result
from interp.tracing.graph import AttributionGraph, GraphNode, Supernode
from interp.view import View


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

    def view(self) -> View:
        if not self.groups:
            yield "No groups to judge."
            return
        yield (
            f"{int((self.p <= ALPHA).sum())} of {len(self.groups)} groups act together (agreement "
            f"{self.agreement.mean():.2f}; random groups {self.null.mean():.2f})."
        )


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
