"""A graph as the browser takes it: columns of nodes and edges, labels, and the features tables of its latents."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dashboard.answers import is_object
from dashboard.components.pages import feature_href, open_artefact
from dashboard.data import features as features
from dashboard.data.meaning import said_words
from interp.artifacts import open_artefact as open_stored
from interp.errors import ConfigError, CorruptError, UnknownNameError, WorkbenchError
from interp.notes import Notes
from interp.tracing.background import background_nodes, direction
from interp.tracing.graph import KIND, NODE_KINDS, AttributionGraph, GraphNode
from interp.tracing.interchange import export_graph
from interp.tracing.part import effects_on, part_of
from interp.tracing.supernodes import GraphEdits
from interp.workspace import Workspace
from saes.features.neurons import NeuronLabels, newest_labels
from saes.features.schema import Features

MAX_EXAMPLES = 5
"""Examples of a latent in the side panel."""
SAID = 5
"""Tokens that a latent makes the model say, in the side panel."""
MAX_GROUPED = 200
"""Most latents among which groups are searched for; each is ablated in the model."""
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


def content(workspace: Workspace, found: AttributionGraph) -> dict[str, Any]:
    """Return the graph as columns: nodes and edges by number, tokens, and the share of edges at which it was traced.

    `input` is the sum of the absolute weights of the edges into a node.
    """
    neurons = neurons_of(workspace, found)
    labels = _labels(workspace, found, neurons)
    nodes = found.nodes
    columns: dict[str, list[Any]] = {
        name: _rounded(np.array([getattr(node, name) for node in nodes], np.float64))
        for name in ("activation", "influence", "probability")
    }
    edges = found.edges
    columns["input"] = _rounded(np.bincount(edges.target, np.abs(edges.weight.astype(np.float64)), len(nodes)))
    for name in ("layer", "position", "index"):
        columns[name] = [int(getattr(node, name)) for node in nodes]
    columns |= {
        "kind": [NODE_KINDS.index(node.kind) for node in nodes],
        "id": [node.id for node in nodes],
        "label": [labels.get(i, "") for i in range(len(nodes))],
    }
    return {
        "unit": "neuron" if found.dictionary == "neurons" else "latent",
        "n_layers": found.n_layers,
        "background": [] if neurons is None else _background(found, neurons),
        "prompts": 0 if neurons is None else neurons.settings.prompts,
        "tokens": list(found.token_texts),
        "edge_share": found.thresholds[1],
        "nodes": columns,
        "edges": {
            "source": edges.source.tolist(),
            "target": edges.target.tolist(),
            "weight": _rounded(edges.weight),
        },
    }


def _background(found: AttributionGraph, neurons: NeuronLabels) -> list[int]:
    """Return the neurons that lead every prompt, and the errors: all neurons too small to be nodes of their own."""
    errors = [number for number, node in enumerate(found.nodes) if node.kind == "error"]
    return [*background_nodes(found, neurons.background()), *errors]


def _rounded(values: np.ndarray) -> list[float]:
    """Return numbers with few digits, so that 30,000 edges are a megabyte. Raises `CorruptError` for NaN."""
    if not np.isfinite(values).all():
        raise CorruptError("the graph has numbers that are not finite; trace it again")
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]


def neurons_of(workspace: Workspace, found: AttributionGraph) -> NeuronLabels | None:
    """Return the newest features table of the neurons of a graph; None without one, or for a dictionary."""
    return newest_labels(workspace, found.settings.weight_hash) if found.dictionary == "neurons" else None


def _labels(workspace: Workspace, found: AttributionGraph, neurons: NeuronLabels | None) -> dict[int, str]:
    """Return labels by node number: of a token its text, of a target its name, of a latent its own or its table's."""
    labels = {}
    if neurons is not None:
        found = neurons.named(found)
    wanted: dict[int, list[int]] = {}
    for i, node in enumerate(found.nodes):
        if node.kind == "token" and 0 <= node.position < len(found.token_texts):
            labels[i] = found.token_texts[node.position]
        elif node.kind == "logit" and not node.label and 0 <= node.index < len(found.targets):
            labels[i] = found.targets[node.index].label
        else:
            labels[i] = node.label
        if node.kind == "feature" and not node.label:
            wanted.setdefault(node.layer, []).append(i)
    tables = feature_tables(workspace, found) if wanted else {}
    for layer, numbers in wanted.items():
        if layer in tables:
            known = _table_labels(workspace, tables[layer], sorted({found.nodes[i].index for i in numbers}))
            labels |= {i: known.get(found.nodes[i].index) or "" for i in numbers}
    return labels


def _table_labels(workspace: Workspace, table: str, latents: list[int]) -> dict[int, str]:
    known: dict[int, str] = {}
    try:
        for start in range(0, len(latents), features.MAX_ROWS):
            known |= features.labels(workspace, table, latents[start : start + features.MAX_ROWS])
    except WorkbenchError:  # a damaged table: the graph is shown without its labels
        return known
    return known


def feature_tables(workspace: Workspace, found: AttributionGraph) -> dict[int, str]:
    """Return the features artefact that describes the latents of each layer, the newest where there are several.

    For a set of transcoders it is a child of the set; for neurons, one of the neurons of the same model.
    """
    tables: dict[int, str] = {}
    for described in reversed(workspace.values(Features)):
        layer = features.traced_layer(described, found.dictionary, found.model)
        if layer is not None:
            tables[layer] = described.name
    return tables


def node(found: AttributionGraph, number: int) -> GraphNode:
    """Return a node by its number. Raises `UnknownNameError`."""
    if not 0 <= number < len(found.nodes):
        raise UnknownNameError("node", str(number), [], f"(the graph has {len(found.nodes):,} nodes)")
    return found.nodes[number]


def part(
    found: AttributionGraph,
    most: int,
    share: float,
    *,
    target: str | None = None,
    pins: Sequence[str] = (),
    hidden: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the numbers of the nodes and edges that are shown, and the effect of every node on the target.

    `most` is a number of nodes, `share` that of edges; `pins` and `hidden` are ids of nodes, as is `target`.
    Raises `ConfigError`, `UnknownNameError`.
    """
    if target is not None and found.node(target).kind != "logit":
        raise ConfigError(f"`target` should be the id of a target, which starts with logit; got {target!r}")
    aim = None if target is None else found.number[target]
    effects = effects_on(found, aim)
    shown = part_of(
        found,
        most=most,
        edges=share,
        target=aim,
        pins={found.number[name] for name in pins if name in found.number},
        hidden={found.number[name] for name in hidden if name in found.number},
    )
    return {
        "nodes": np.flatnonzero(shown.nodes).tolist(),
        "edges": np.flatnonzero(shown.edges).tolist(),
        "effects": None if effects is None else _rounded(effects),
    }


def marks(notes: Notes, graph: AttributionGraph) -> dict[str, Any]:
    """Return the marks of the visitor; before there are any, the groups that were found when the graph was traced."""
    found = notes.graph_edits(graph.key)
    if found or not graph.groups:
        return found
    return {"groups": [[each.name.strip()[:80] or "group", list(each.nodes)] for each in graph.groups]}


def labels_of(workspace: Workspace, graph: AttributionGraph, nodes: Sequence[str]) -> dict[str, str]:
    """Return the labels of the latents among some nodes by their id. Raises `ConfigError` for an unknown node."""
    if unknown := [each for each in nodes if each not in graph.number]:
        raise ConfigError(f"`nodes` should be node ids of the graph, got {unknown[0][:80]!r}")
    labels = _labels(workspace, graph, neurons_of(workspace, graph))
    latents = [graph.number[each] for each in nodes if graph.node(each).kind == "feature"]
    return {graph.nodes[i].id: labels.get(i) or "" for i in latents}


def exported(workspace: Workspace, found: AttributionGraph, edits: dict[str, Any]) -> dict[str, Any]:
    """Return the graph as graph JSON with the visitor's edits; those of nodes that it lacks are left out."""

    def known(value: Any) -> Any:
        if is_object(value):
            return {node: each for node, each in value.items() if node in found.number}
        return [node for node in value if node in found.number]

    held = {name: known(value) for name, value in edits.items() if name not in ("groups", "sets")}
    groups = [[name, known(nodes)] for name, nodes in edits.get("groups", [])]
    sets = {name: known(factors) for name, factors in edits.get("sets", {}).items()}
    held |= {
        "groups": [each for each in groups if each[1]],
        "sets": {name: each for name, each in sets.items() if each},
    }
    marks = GraphEdits.of_notes(held)
    labels = _labels(workspace, found, neurons_of(workspace, found))
    latents = {node.id: labels[i] for i, node in enumerate(found.nodes) if node.kind == "feature" and labels.get(i)}
    return export_graph(found, marks, labels=latents)


def describe(workspace: Workspace, found: AttributionGraph, number: int) -> dict[str, Any]:
    """Return the page and the examples of a latent: `href` is null where no features table describes its layer."""
    chosen = node(found, number)
    neurons = neurons_of(workspace, found)
    if neurons is not None and chosen.kind == "feature":
        return _neuron(workspace, found, neurons, chosen)
    table = feature_tables(workspace, found).get(chosen.layer) if chosen.kind == "feature" else None
    if table is None:
        return {"href": None, "table": None, "examples": [], "maximum": 0.0, "says": []}
    rows = features.examples(workspace, table, chosen.index)[:MAX_EXAMPLES]
    examples: list[dict[str, Any]] = [
        {"tokens": row.tokens, "activations": _rounded(np.array(row.activations)), "peak": row.peak} for row in rows
    ]
    maximum = max((max(each["activations"], default=0.0) for each in examples), default=0.0)
    says = said_words(workspace, table, [chosen.index], SAID).get(chosen.index, ())
    href = feature_href(table, chosen.index)
    return {"href": href, "table": table, "examples": examples, "maximum": maximum, "says": says}


def _neuron(workspace: Workspace, found: AttributionGraph, neurons: NeuronLabels, chosen: GraphNode) -> dict[str, Any]:
    """Return what is known of a neuron in the direction in which it is active."""
    key = direction(chosen)
    row = neurons.of([key]).get(key)
    examples: list[dict[str, Any]] = [
        {"tokens": each.tokens, "activations": _rounded(np.array(each.activations)), "peak": each.peak}
        for each in neurons.examples_of(*key)
    ]
    table = feature_tables(workspace, found).get(chosen.layer)
    return {
        "href": None if table is None or key[2] < 0 else feature_href(table, chosen.index),
        "table": neurons.name,
        "examples": examples,
        "maximum": 0.0 if row is None else row.maximum,
        "says": () if row is None else row.says,
    }
