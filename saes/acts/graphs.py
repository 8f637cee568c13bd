"""Acts on a graph: latents changed, text that follows, an edge by heads, and reasons for these.

Torch-free until an act is measured.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Interval, Len

from interp.acts import Act, Compared, Price
from interp.nulls import DRAWS, Level
from interp.options import ArtefactName, ChoiceWords, Count, Slider
from interp.tracing.graph import AttributionGraph
from saes.acts.run import Run

if TYPE_CHECKING:
    from interp.interventions.intervention import Intervention
    from interp.tracing.effects import EdgeSplit
    from interp.tracing.interventions import GraphIntervention, LatentContinuations
    from interp.tracing.loadings import HeadLoadings
    from interp.tracing.reasons import AttentionReasons

Factor = Annotated[float, Interval(ge=-100, le=100), Slider(-2, 2, 0.1)]
Factors = Annotated[dict[str, Factor], Len(1, 300)]
NEW_TOKENS = 12
"""Tokens generated after the prompt of a graph."""


@dataclass(frozen=True, kw_only=True)
class OnGraph:
    """Fields of every act on a graph."""

    graph: ArtefactName
    """An attribution graph of the workspace."""

    def opened(self, run: Run) -> AttributionGraph:
        """Return the graph."""
        return run.workspace.open(AttributionGraph, self.graph)


@dataclass(frozen=True, kw_only=True)
class OnLatents(OnGraph):
    """Fields of the acts that change latents."""

    factors: Factors
    """Factor of the activation of each latent, by node id: 0 ablates it, 1 changes nothing."""

    def changes(self, graph: AttributionGraph) -> "list[Intervention]":
        """Return the changes as interventions. Raises `UsageError` for a node that is no latent of the graph."""
        from interp.tracing.interventions import changes_of

        return [step for node, factor in self.factors.items() for step in changes_of(graph, [node], factor=factor)]


@dataclass(frozen=True, kw_only=True)
class ChangeLatents(OnLatents, Compared[Run, "GraphIntervention"]):
    """Multiply activations of latents of a graph, and measure its first target: the graph's prediction, and the null.

    The null are random latents of the same layers, set by the same amounts. Raises `UsageError` (no such latent),
    `MismatchError` where the graph was traced in other weights.
    """

    verb: ClassVar[str] = "change_latents"
    mode: Annotated[
        Literal["direct", "attention", "free"],
        ChoiceWords(free="nothing frozen", attention="attention frozen", direct="all frozen: direct effect alone"),
    ] = "free"
    """Recomputed values: `direct` only direct effects, `attention` all but attention patterns, `free` everything."""
    nulls: Level = "standard"

    def arms(self, run: Run) -> "list[list[Intervention]]":
        """Return the changes, then those of random latents of the same layers by the same amounts."""
        from interp.tracing.interventions import changes_and_nulls

        graph = self.opened(run)
        return changes_and_nulls(run.traced(graph), self.changes(graph), DRAWS[self.nulls])

    def price(self, run: Run) -> Price:
        graph, arms = self.opened(run), {"the latents": 1, "random latents": DRAWS[self.nulls]}
        return Price(arms, len(graph.tokens), graph.model, f"{self.verb} {self.mode}")

    def measure(self, run: Run) -> "GraphIntervention":
        from interp.tracing.interventions import intervene

        graph = self.opened(run)
        changes = self.changes(graph)
        run.check("reading the prompt of the graph")
        system = run.traced(graph)
        done = run.counted(self.price(run))
        return intervene(system, changes, graph, mode=self.mode, n_random=DRAWS[self.nulls], done=done)


@dataclass(frozen=True, kw_only=True)
class ContinueGraph(OnLatents, Act[Run, "LatentContinuations"]):
    """Continue the prompt of a graph: unchanged, with activations multiplied, and with random latents changed.

    Raises the errors of `ChangeLatents`.
    """

    verb: ClassVar[str] = "continue_graph"

    def measure(self, run: Run) -> "LatentContinuations":
        from interp.tracing.interventions import continuations

        graph = self.opened(run)
        changes = self.changes(graph)
        run.check("writing text")
        return continuations(run.traced(graph), changes, n_tokens=NEW_TOKENS, n_random=1)


@dataclass(frozen=True, kw_only=True)
class SplitEdge(OnGraph, Act[Run, "EdgeSplit"]):
    """Split an edge of a graph by the heads that move it between positions.

    Raises `MismatchError` (other weights), `UsageError` (no such edge).
    """

    verb: ClassVar[str] = "split_edge"
    source: str
    """Node id where the edge begins."""
    target: str
    """Node id where it ends."""

    def measure(self, run: Run) -> "EdgeSplit":
        from interp.tracing.effects import split_edge

        graph = self.opened(run)
        run.check("reading the prompt of the graph")
        return split_edge(run.traced(graph), graph, self.source, self.target)


@dataclass(frozen=True, kw_only=True)
class ExplainHead(OnGraph, Act[Run, "AttentionReasons"]):
    """Explain why a head attended to a position of a graph's prompt, by pairs of the graph's nodes.

    Raises `MismatchError` (other weights), `UnknownNameError` (no such head), `PromptError` (no such key).
    """

    verb: ClassVar[str] = "explain_head"
    layer: Count
    """Number of the layer, from 0."""
    head: Count
    """Number of the head in it, from 0."""
    query: Count
    """Position that attends."""
    key: Count
    """Position that it attends to."""

    def measure(self, run: Run) -> "AttentionReasons":
        from interp.names import HeadName
        from interp.tracing.reasons import attention_reasons

        graph = self.opened(run)
        run.check("reading the prompt of the graph")
        head = HeadName(self.layer, self.head)
        return attention_reasons(run.traced(graph), graph, head, query=self.query, key=self.key)


@dataclass(frozen=True, kw_only=True)
class LoadHeads(OnGraph, Act[Run, "HeadLoadings"]):
    """Measure the share of a graph's influence that passes through each attention head.

    Raises `MismatchError` (other weights).
    """

    verb: ClassVar[str] = "head_loadings"

    def measure(self, run: Run) -> "HeadLoadings":
        from interp.tracing.loadings import head_loadings

        graph = self.opened(run)
        run.check("reading the prompt of the graph")

        def progress(done: int, total: int, _: object) -> None:
            run.check(f"splitting edges by heads: {done} of {total} nodes")

        return head_loadings(run.traced(graph), graph, progress=progress)
