"""The story of a stored graph, from the labels and lens words that the workspace has for its latents."""

from dashboard.data.meaning import said_words
from dashboard.graph._labels import KnownLabels, feature_tables, known_labels
from interp.lenses.vocabulary import open_vocabulary
from interp.tracing.graph import AttributionGraph
from interp.tracing.returning import Returning, returning
from interp.tracing.story import NodeWords, Story, tell, words_of
from interp.workspace import Workspace
from saes.features.schema import Features

SAID = 5
"""Lens words of a latent."""


def story_of(workspace: Workspace, graph: AttributionGraph, known: KnownLabels | None = None) -> Story | None:
    """Return the story of a graph; None without targets or nodes. `known` are its labels, read unless given."""
    known = known or known_labels(workspace, graph)
    words = known.words | (_with_said(workspace, graph, known) if known.neurons is None else {})
    vocabulary = open_vocabulary(graph.weight_hash)
    return tell(graph, words, usual=known.usual, vectors=None if vocabulary is None else vocabulary.word_vectors)


def returning_in(workspace: Workspace, graph: AttributionGraph, story: Story | None = None) -> Returning:
    """Compare a graph with those of other wordings in the workspace; boxes are those of its story, or those judged."""
    if story is None:
        boxes = {group.name: [graph.number[name] for name in group.nodes] for group in graph.groups or ()}
    else:
        boxes = {box.name: box.nodes for box in story.boxes}
    return returning(graph, workspace.values(AttributionGraph), boxes)


def _with_said(workspace: Workspace, graph: AttributionGraph, known: KnownLabels) -> dict[int, NodeWords]:
    """Return the words of latents whose features tables have lens words, with these."""
    words: dict[int, NodeWords] = {}
    for layer, table in feature_tables(workspace, graph).items():
        numbers = {
            i: node.index for i, node in enumerate(graph.nodes) if node.kind == "feature" and node.layer == layer
        }
        raised = said_words(workspace, workspace.open(Features, table), sorted(set(numbers.values())), SAID)
        words |= {i: words_of(known.texts[i], raised[latent]) for i, latent in numbers.items() if latent in raised}
    return words
