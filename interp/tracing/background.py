"""Background of attribution graphs: the latents that lead every prompt alike.

Some latents have a large influence on whatever is said: those of the first token, of "The", of a full stop. Their mean
influence over graphs of other prompts is the background; a latent whose influence in a graph is not twice as large says
nothing about that prompt (`LIMIT`). Torch-free until prompts are traced.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from interp.progress import Progress
from interp.tracing.graph import AttributionGraph, GraphNode, TraceConfig

if TYPE_CHECKING:
    from torch import Tensor

    from interp.models.hooked import HookedModel
    from interp.tracing.replacement import Replacement

LIMIT = 0.5
"""A latent is background where its mean influence over other prompts is at least this fraction of its own."""
Latent = tuple[int, int, int]
"""Layer, number, and sign of the activation."""


def direction(node: GraphNode) -> Latent:
    """Return the layer and number of a latent's node, and the sign of its activation."""
    return node.layer, node.index, 1 if node.activation >= 0 else -1


def influences(graph: AttributionGraph) -> dict[Latent, float]:
    """Return the influence of every latent of a graph, summed over its positions (`GraphNode.influence`)."""
    totals: dict[Latent, float] = defaultdict(float)
    for node in graph.nodes:
        if node.kind == "feature":
            totals[direction(node)] += node.influence
    return dict(totals)


def mean_influences(graphs: Iterable[AttributionGraph]) -> dict[Latent, float]:
    """Return the mean influence of every latent over graphs; 0 in those where it is not active."""
    total: dict[Latent, float] = defaultdict(float)
    n = 0
    for graph in graphs:
        n += 1
        for latent, influence in influences(graph).items():
            total[latent] += influence
    return {latent: influence / n for latent, influence in total.items()}


def measure_background(
    model: "HookedModel",
    prompts: "list[Tensor]",
    replacement: "Replacement",
    config: TraceConfig | None = None,
    *,
    progress: Progress | None = None,
) -> dict[Latent, float]:
    """Trace prompts, tokens `[1, pos]` each, to their most likely next tokens, and return the mean influences."""
    from interp.tracing.trace import trace

    # as many rows as other graphs: fewer have less influence
    config = config or TraceConfig(max_logits=10, effects=0, nulls=False)

    def graphs() -> Iterable[AttributionGraph]:
        for done, tokens in enumerate(prompts, 1):
            yield trace(model, tokens, replacement, config)
            if progress is not None:
                progress(done, len(prompts), {})

    return mean_influences(graphs())


def background_nodes(graph: AttributionGraph, usual: dict[Latent, float]) -> list[int]:
    """Return the numbers of the nodes of a graph that are background.

    `usual` is the mean influence of each latent on other prompts.
    """
    totals = influences(graph)
    common = {latent for latent, influence in totals.items() if usual.get(latent, 0.0) >= LIMIT * max(influence, 1e-30)}
    return [n for n, node in enumerate(graph.nodes) if node.kind == "feature" and direction(node) in common]
