"""The nodes of a graph that lead on its prompt and have a name, with their effects on the answer."""

from dataclasses import dataclass

from dashboard.graph._labels import known_labels
from interp.tracing.graph import AttributionGraph
from interp.tracing.part import effects_on
from interp.workspace import Workspace

MOST = 8
"""Nodes that are listed."""
_PLAIN = ("no label", "fires on ", "rare", "dense", "dead")
"""Beginnings of labels that claim no meaning (`saes.features.schema.NO_LABEL`)."""


@dataclass(frozen=True, kw_only=True)
class NamedNode:
    """A latent with a label that held on held-out text, or words that it raises more than random directions do."""

    node: str
    """id"""
    name: str
    layer: int
    token: str
    """text of the token that it is on"""
    effect: float
    """on the first target in logits; in graphs without effects the influence"""

    def __str__(self) -> str:
        return f"{self.effect:+.2f}  {self.name} on {self.token!r} ({self.node})"


def named_nodes(workspace: Workspace, graph: AttributionGraph, most: int = MOST) -> list[NamedNode]:
    """Return the named latents of largest effect on the first target, without those that lead every prompt."""
    known = known_labels(workspace, graph)
    effects = effects_on(graph)
    sizes = [node.influence for node in graph.nodes] if effects is None else effects.tolist()
    usual = {*known.background}
    named = [
        i
        for i, node in enumerate(graph.nodes)
        if node.kind == "feature" and i not in usual and known.texts[i] and not known.texts[i].startswith(_PLAIN)
    ]
    leading = sorted(named, key=lambda i: -abs(sizes[i]))[:most]
    return [
        NamedNode(
            node=node.id, name=known.texts[i], layer=node.layer, token=graph.token_texts[node.position], effect=sizes[i]
        )
        for i in leading
        if (node := graph.nodes[i])
    ]


def named_lines(workspace: Workspace, graph: AttributionGraph) -> list[str]:
    """Return a line for each of the largest named nodes, under a line that says so; or that none has a name."""
    named = named_nodes(workspace, graph)
    aim = " rather than ".join(repr(side.strip()) for target in graph.targets[:1] for side in target.sides if side)
    head = f"Largest effects of named nodes on {aim or 'the target'}:" if named else "No node has a label that holds."
    return [head, *(f"  {node}" for node in named)]
