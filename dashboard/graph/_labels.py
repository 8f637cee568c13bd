"""Labels of the nodes of a graph that a workspace has, and the nodes that lead every prompt."""

from dataclasses import dataclass

from dashboard.data import features
from interp.errors import WorkbenchError
from interp.tracing.background import background_nodes
from interp.tracing.graph import AttributionGraph
from interp.workspace import Workspace
from saes.features.neurons import NeuronLabels, newest_labels
from saes.features.schema import Features


@dataclass(frozen=True)
class KnownLabels:
    """Labels of the nodes of a graph by number, and what they come from."""

    texts: dict[int, str]
    """of a token its text, of a target its name, of a latent its own or its table's"""
    neurons: NeuronLabels | None
    """for a graph of neurons"""
    background: list[int]
    """numbers of the neurons that lead every prompt"""


def known_labels(workspace: Workspace, graph: AttributionGraph) -> KnownLabels:
    """Return the labels that a workspace has for the nodes of a graph."""
    neurons = neurons_of(workspace, graph)
    rows = {} if neurons is None else neurons.rows_of(graph)
    texts, wanted = dict[int, str](), dict[int, list[int]]()
    for i, node in enumerate(graph.nodes):
        label = rows[i].name if i in rows else node.label
        if node.kind == "token" and 0 <= node.position < len(graph.token_texts):
            label = graph.token_texts[node.position]
        elif node.kind == "logit" and not label and 0 <= node.index < len(graph.targets):
            label = graph.targets[node.index].label
        elif node.kind == "feature" and not label:
            wanted.setdefault(node.layer, []).append(i)
        texts[i] = label
    tables = feature_tables(workspace, graph) if wanted else {}
    for layer in wanted.keys() & tables.keys():
        known = _table_labels(workspace, tables[layer], sorted({graph.nodes[i].index for i in wanted[layer]}))
        texts |= {i: known.get(graph.nodes[i].index) or "" for i in wanted[layer]}
    return KnownLabels(texts, neurons, [] if neurons is None else background_nodes(graph, neurons.background()))


def neurons_of(workspace: Workspace, graph: AttributionGraph) -> NeuronLabels | None:
    """Return the newest features table of the neurons of a graph; None without one, or for a dictionary."""
    return newest_labels(workspace, graph.settings.weight_hash) if graph.dictionary == "neurons" else None


def _table_labels(workspace: Workspace, table: str, latents: list[int]) -> dict[int, str]:
    known: dict[int, str] = {}
    try:
        for start in range(0, len(latents), features.MAX_ROWS):
            known |= features.labels(workspace, table, latents[start : start + features.MAX_ROWS])
    except WorkbenchError:  # a damaged table: the graph is shown without its labels
        return known
    return known


def feature_tables(workspace: Workspace, graph: AttributionGraph) -> dict[int, str]:
    """Return the features artefact that describes the latents of each layer, the newest where there are several.

    For a set of transcoders it is a child of the set; for neurons, one of the neurons of the same model.
    """
    tables: dict[int, str] = {}
    for described in reversed(workspace.values(Features)):
        layer = features.traced_layer(described, graph.dictionary, graph.model)
        if layer is not None:
            tables[layer] = described.name
    return tables
