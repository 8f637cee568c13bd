"""A graph as the browser takes it: columns of nodes and edges, labels, and the features tables of its latents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dashboard.components.pages import feature_href
from dashboard.data import features
from dashboard.data.meaning import said_words
from dashboard.graph._labels import feature_tables, known_labels, neurons_of
from dashboard.sources import open_artefact
from interp.artifacts import open_artefact as open_stored
from interp.errors import ConfigError, CorruptError, UnknownNameError
from interp.tracing.background import direction
from interp.tracing.graph import KIND, NODE_KINDS, AttributionGraph, GraphNode
from interp.tracing.interchange import export_graph
from interp.tracing.part import effects_on, part_of
from interp.tracing.supernodes import GraphEdits
from interp.workspace import Workspace
from saes.features.neurons import NeuronLabels
from saes.features.schema import Features

MAX_EXAMPLES = 5
"""Examples of a latent in the side panel."""
SAID = 5
"""Tokens that a latent makes the model say, in the side panel."""
OPENING = 60
"""Latents and errors that a graph shows when it is opened; the slider shows more."""
DIGITS = 5
"""Significant digits of numbers that are sent."""


def choose(workspace: Workspace, name: str | None) -> AttributionGraph:
    """Return a graph; without a name, the one that the page opens on. Recent ones stay in memory."""
    manifest = open_artefact(workspace, (KIND,), name)
    return _opened(workspace.path(KIND, manifest.name), manifest.content_hash)


@lru_cache(maxsize=4)
def _opened(folder: Path, version: str) -> AttributionGraph:
    del version  # the content hash: a graph made again under its name is another
    return open_stored(AttributionGraph, folder)


def content(workspace: Workspace, graph: AttributionGraph) -> dict[str, Any]:
    """Return the graph as columns: nodes and edges by number, tokens, and the share of edges at which it was traced.

    `input` is the sum of the absolute weights of the edges into a node.
    """
    known = known_labels(workspace, graph)
    neurons, nodes = known.neurons, graph.nodes
    columns: dict[str, list[float] | list[int] | list[str]] = {
        name: _rounded(np.array([getattr(node, name) for node in nodes], np.float64))
        for name in ("activation", "influence", "probability")
    }
    edges = graph.edges
    columns["input"] = _rounded(np.bincount(edges.target, np.abs(edges.weight.astype(np.float64)), len(nodes)))
    for name in ("layer", "position", "index"):
        columns[name] = [int(getattr(node, name)) for node in nodes]
    columns |= {
        "kind": [NODE_KINDS.index(node.kind) for node in nodes],
        "id": [node.id for node in nodes],
        "label": [known.texts.get(i, "") for i in range(len(nodes))],
    }
    errors = [number for number, node in enumerate(nodes) if node.kind == "error"]  # all neurons that are no nodes
    return {
        "unit": "neuron" if graph.dictionary == "neurons" else "latent",
        "n_layers": graph.n_layers,
        "background": [] if neurons is None else [*known.background, *errors],
        "prompts": 0 if neurons is None else neurons.settings.prompts,
        "tokens": list(graph.token_texts),
        "candidates": candidates(graph),
        "opening": OPENING,
        "edge_share": graph.thresholds[1],
        "nodes": columns,
        "edges": {
            "source": edges.source.tolist(),
            "target": edges.target.tolist(),
            "weight": _rounded(edges.weight),
        },
    }


def candidates(graph: AttributionGraph) -> list[dict[str, Any]]:
    """Return the likeliest next tokens with their probabilities, and the number of the node of those explained."""
    at = {node.index: number for number, node in enumerate(graph.nodes) if node.kind == "logit"}
    explained = {target.token: at.get(number) for number, target in enumerate(graph.targets)}
    return [
        {
            "text": token.text,
            "probability": _rounded(np.array([token.probability]))[0],
            "node": explained.get(token.token),
        }
        for token in (graph.run.candidates if graph.run is not None else ())
    ]


def _rounded(values: np.ndarray) -> list[float]:
    """Return numbers with few digits, so that 30,000 edges are a megabyte. Raises `CorruptError` for NaN."""
    if not np.isfinite(values).all():
        raise CorruptError("the graph has numbers that are not finite; trace it again")
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]


def node(graph: AttributionGraph, number: int) -> GraphNode:
    """Return a node by its number. Raises `UnknownNameError`."""
    if not 0 <= number < len(graph.nodes):
        raise UnknownNameError("node", str(number), [], f"(the graph has {len(graph.nodes):,} nodes)")
    return graph.nodes[number]


@dataclass(frozen=True, kw_only=True)
class ShownPart:
    """The part of a graph that a visitor looks at; nodes are named by their ids."""

    nodes: int
    """Latents and errors, those of largest effect."""
    edges: float
    """Share of the scores of edges."""
    target: str | None
    pins: tuple[str, ...]
    hidden: tuple[str, ...]


def opening(
    graph: AttributionGraph, address: Mapping[str, str], edits: Mapping[str, Any], background: Sequence[int]
) -> ShownPart:
    """Return the part that an address shows; pins in it go before the stored ones."""
    pins = edits.get("pins", [])
    if "pins" in address:
        pins = [node for node in address["pins"].split(",") if node in graph.number]
    usual = () if address.get("background") == "1" else (graph.nodes[i].id for i in background)
    targets = {str(node.index): node.id for node in graph.nodes if node.kind == "logit"}
    return ShownPart(
        nodes=round(_within(address.get("nodes"), 1e6, OPENING)),
        edges=_within(address.get("edges"), 1, graph.thresholds[1]),
        target=targets.get(address.get("target", "")),
        pins=tuple(pins),
        hidden=tuple(node for node in usual if node not in pins),
    )


def _within(text: str | None, most: float, usual: float) -> float:
    """Return the number in an address, or the usual one where it is none from 0 to `most`."""
    try:
        value = float(text or "")
    except ValueError:
        return usual
    return value if 0 <= value <= most else usual


def part(graph: AttributionGraph, shown: ShownPart) -> dict[str, list[int] | list[float] | None]:
    """Return the numbers of the nodes and edges that are shown, and the effect of every node on the target.

    Raises `ConfigError`, `UnknownNameError`.
    """
    target = shown.target
    if target is not None and graph.node(target).kind != "logit":
        raise ConfigError(f"`target` should be the id of a target, which starts with logit; got {target!r}")
    aim = None if target is None else graph.number[target]
    effects = effects_on(graph, aim)
    part = part_of(
        graph,
        most=shown.nodes,
        edges=shown.edges,
        target=aim,
        pins={graph.number[name] for name in shown.pins if name in graph.number},
        hidden={graph.number[name] for name in shown.hidden if name in graph.number},
    )
    return {
        "nodes": np.flatnonzero(part.nodes).tolist(),
        "edges": np.flatnonzero(part.edges).tolist(),
        "effects": None if effects is None else _rounded(effects),
    }


def exported(workspace: Workspace, graph: AttributionGraph, edits: dict[str, Any]) -> dict[str, Any]:
    """Return the graph as graph JSON with the visitor's edits; those of nodes that it lacks are left out."""

    def known(nodes: Sequence[str]) -> list[str]:
        return [node for node in nodes if node in graph.number]

    groups = [(name, known(nodes)) for name, nodes in edits.get("groups", [])]
    names = edits.get("names", {})
    marks = GraphEdits.of_notes(
        {
            "pins": known(edits.get("pins", [])),
            "names": {node: names[node] for node in known(names)},
            "groups": [group for group in groups if group[1]],
        }
    )
    labels = known_labels(workspace, graph).texts
    latents = {node.id: labels[i] for i, node in enumerate(graph.nodes) if node.kind == "feature" and labels.get(i)}
    return export_graph(graph, marks, labels=latents)


@dataclass(frozen=True)
class LatentExample:
    """Text around a strong activation of a latent."""

    tokens: list[str]
    activations: list[float]
    peak: int


@dataclass(frozen=True)
class DescribedLatent:
    """Side panel of a latent: its page where a features table has one, and its strongest examples."""

    href: str | None = None
    table: str | None = None
    examples: Sequence[LatentExample] = ()
    maximum: float = 0.0
    says: Sequence[str] = ()


def describe(workspace: Workspace, graph: AttributionGraph, number: int) -> DescribedLatent:
    """Return what is known of a node: nothing unless it is a latent of a layer that a table describes."""
    chosen = node(graph, number)
    neurons = neurons_of(workspace, graph)
    if neurons is not None and chosen.kind == "feature":
        return _neuron(workspace, graph, neurons, chosen)
    table = feature_tables(workspace, graph).get(chosen.layer) if chosen.kind == "feature" else None
    if table is None:
        return DescribedLatent()
    described = workspace.open(Features, table)
    rows = features.examples(described, chosen.index)[:MAX_EXAMPLES]
    examples = [LatentExample(row.tokens, _rounded(np.array(row.activations)), row.peak) for row in rows]
    maximum = max((value for example in examples for value in example.activations), default=0.0)
    says = said_words(workspace, described, [chosen.index], SAID).get(chosen.index, ())
    href = feature_href(table, chosen.index)
    return DescribedLatent(href, table, examples, maximum, says)


def _neuron(workspace: Workspace, graph: AttributionGraph, neurons: NeuronLabels, chosen: GraphNode) -> DescribedLatent:
    """Return what is known of a neuron in the direction in which it is active."""
    key = direction(chosen)
    row = neurons.of([key]).get(key)
    examples = [
        LatentExample(example.tokens, _rounded(np.array(example.activations)), example.peak)
        for example in neurons.examples_of(*key)
    ]
    table = feature_tables(workspace, graph).get(chosen.layer)
    return DescribedLatent(
        href=None if table is None or key[2] < 0 else feature_href(table, chosen.index),
        table=neurons.name,
        examples=examples,
        maximum=0.0 if row is None else row.maximum,
        says=() if row is None else row.says,
    )
