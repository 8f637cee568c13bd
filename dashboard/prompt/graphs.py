"""Interventions on attribution graphs in the live model: effects, texts, groups of latents, edges by heads."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from dashboard.prompt.loaded import Loaded
from dashboard.turns import Turns
from interp.errors import ConfigError
from interp.tracing.graph import AttributionGraph
from interp.workspace import Workspace

if TYPE_CHECKING:
    from interp.interventions.intervention import Intervention
    from interp.tracing.attention import EdgeSplit
    from interp.tracing.interventions import Continuations, GraphIntervention
    from interp.tracing.supernodes import JudgedGroups

MAX_FACTOR = 100
"""Largest factor by which an activation can be multiplied."""
GRAPH_NEW = 12
"""Tokens generated after the prompt of a graph."""


class GraphModel:
    """Answers questions about the graphs of a workspace with the models that traced them."""

    def __init__(self, workspace: Workspace, turns: Turns, loaded: Loaded):
        """Take turns on the models in memory."""
        self._workspace, self._turns, self._loaded = workspace, turns, loaded

    def intervene(self, graph: str, *, factors: dict[str, float], mode: str) -> "GraphIntervention":
        """Multiply activations of latents of a graph. Raises `MismatchError` (other weights), `UsageError`."""
        from interp.tracing.effects import MODES, Mode
        from interp.tracing.interventions import intervene

        known: dict[str, Mode] = {each: each for each in MODES if each != "range"}
        if mode not in known:
            raise ConfigError(f"the mode should be one of {', '.join(known)}, got {mode!r}")
        found, changes = self._changes(graph, factors)
        with self._turns.take("intervene") as turn:
            turn.check("reading the prompt of the graph")
            system = self._loaded.traced(found)
            turn.check("changing the latents, and random ones")
            return intervene(system, changes, found, mode=known[mode])

    def graph_text(self, graph: str, *, factors: dict[str, float]) -> "Continuations":
        """Continue the prompt of a graph with activations multiplied. Raises `MismatchError`, `UsageError`."""
        from interp.tracing.interventions import continuations

        found, changes = self._changes(graph, factors)
        with self._turns.take("graph text") as turn:
            turn.check("writing text")
            return continuations(self._loaded.traced(found), changes, n_tokens=GRAPH_NEW, n_random=1)

    def graph_groups(self, graph: str, *, labels: dict[str, str]) -> "JudgedGroups":
        """Group latents that change the model alike. Raises `MismatchError` (other weights), `UsageError`."""
        from interp.tracing.effects import effect_profiles
        from interp.tracing.supernodes import alike_groups

        found = self._workspace.open(AttributionGraph, graph)
        chosen = [replace(found.node(each), label=label) for each, label in labels.items()]
        with self._turns.take("graph groups") as turn:
            turn.check("reading the prompt of the graph")
            system = self._loaded.traced(found)

            def told(done: int, total: int, _: object) -> None:
                turn.check(f"ablating latents: {done} of {total}")

            return alike_groups(found, chosen, partial(effect_profiles, system, progress=told))

    def _changes(self, graph: str, factors: dict[str, float]) -> tuple[AttributionGraph, "list[Intervention]"]:
        from interp.tracing.interventions import changes_of

        if not all(abs(factor) <= MAX_FACTOR for factor in factors.values()):
            raise ConfigError(f"factors should be numbers from -{MAX_FACTOR} to {MAX_FACTOR}, got {factors}")
        found = self._workspace.open(AttributionGraph, graph)
        return found, [step for node, factor in factors.items() for step in changes_of(found, [node], factor=factor)]

    def split(self, graph: str, *, source: str, target: str) -> "EdgeSplit":
        """Split an edge of a graph by heads. Raises `MismatchError` (other weights), `UsageError`."""
        from interp.tracing.attention import split_edge

        found = self._workspace.open(AttributionGraph, graph)
        with self._turns.take("split") as turn:
            turn.check("reading the prompt of the graph")
            return split_edge(self._loaded.traced(found), found, source, target)
