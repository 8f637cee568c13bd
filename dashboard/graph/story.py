"""The story of a stored graph, from the labels and lens words that the workspace has for its latents."""

from collections.abc import Mapping, Sequence

from dashboard.data.meaning import said_words
from interp.lenses.vocabulary import open_vocabulary
from interp.tracing.background import usual_parts
from interp.tracing.graph import AttributionGraph
from interp.tracing.story import Story, tell, words_of
from interp.workspace import Workspace
from saes.features.neurons import NeuronLabels
from saes.features.schema import Features

SAID = 5
"""Lens words of a latent."""


def story_of(
    workspace: Workspace,
    graph: AttributionGraph,
    neurons: NeuronLabels | None,
    labels: Mapping[int, str],
    tables: Mapping[int, str],
) -> Story | None:
    """Return the story of a graph; None without targets or nodes.

    `labels` are those of nodes by number, `tables` the features artefacts of layers; a graph of neurons takes its words
    from their own table.
    """
    if neurons is not None:
        words, usual = neurons.words(graph), usual_parts(graph, neurons.background())
    else:
        said = _said(workspace, graph, tables)
        latents = (i for i, node in enumerate(graph.nodes) if node.kind == "feature")
        words, usual = {i: words_of(labels.get(i, ""), said.get(i, ())) for i in latents}, {}
    vocabulary = open_vocabulary(graph.weight_hash)
    return tell(graph, words, usual=usual, vectors=None if vocabulary is None else vocabulary.word_vectors)


def _said(workspace: Workspace, graph: AttributionGraph, tables: Mapping[int, str]) -> dict[int, Sequence[str]]:
    """Return the lens words of latents by the number of their node, where they are known."""
    said: dict[int, Sequence[str]] = {}
    for layer, table in tables.items():
        numbers = {
            i: node.index for i, node in enumerate(graph.nodes) if node.kind == "feature" and node.layer == layer
        }
        known = said_words(workspace, workspace.open(Features, table), sorted(set(numbers.values())), SAID)
        said |= {i: known[latent] for i, latent in numbers.items() if latent in known}
    return said
