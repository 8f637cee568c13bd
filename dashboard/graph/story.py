"""The story of a stored graph, from the labels and lens words that the workspace has for its latents."""

from collections.abc import Mapping, Sequence

import numpy as np

from dashboard.data.meaning import said_words
from interp.lenses.vocabulary import Vocabulary, open_vocabulary
from interp.tracing.background import background_nodes
from interp.tracing.function_words import FUNCTION_WORDS
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
        words, general = neurons.words(graph), background_nodes(graph, neurons.background())
    else:
        said = _said(workspace, graph, tables)
        latents = (i for i, node in enumerate(graph.nodes) if node.kind == "feature")
        words, general = {i: words_of(labels.get(i, ""), said.get(i, ())) for i in latents}, []
    vocabulary = open_vocabulary(graph.weight_hash)
    return tell(graph, words, general=general, vectors=None if vocabulary is None else _Spelled(vocabulary))


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


class _Spelled:
    """Vectors of words: the mean of the read directions of their spellings."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def __call__(self, words: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(words), self.vocabulary.directions.shape[1]), np.float32)
        for row, word in zip(rows, words, strict=True):
            parts = [part for part in word.split() if part.lower() not in FUNCTION_WORDS]
            if tokens := [token for part in parts for token in self.vocabulary.spelled(part)]:
                row[:] = self.vocabulary.directions[tokens].astype(np.float32).mean(0)
        return rows
