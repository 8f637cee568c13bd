"""Attribution graphs that several test files share."""

import numpy as np

from interp.tracing.graph import AttributionGraph, GraphEdges, GraphNode, GraphTarget


def small_graph() -> AttributionGraph:
    """Return two tokens, three latents, one error and two targets. One latent and its edge are pruned."""
    nodes = (
        GraphNode("token", -1, 0, 1, influence=0.25, share=0.9, label="<s>"),
        GraphNode("token", -1, 1, 7, influence=0.5, share=0.6, label=" is"),
        GraphNode("feature", 0, 1, 3, 1.5, 0.375, 0.75, label="capitals"),
        GraphNode("error", 0, 1, -1, influence=0.125, share=0.975),
        GraphNode("feature", 1, 1, 0, 0.25, 0.75, 0.3, label='said "so"'),
        GraphNode("feature", 1, 1, 4, 2.0, 0.0625, 1.0, kept=False),
        GraphNode("logit", 2, 1, 0, probability=0.75, label=" Paris"),
        GraphNode("logit", 2, 1, 1, probability=0.125, label=" London"),
    )
    rows = [
        (1, 2, 0.5), (0, 2, 0.25), (2, 4, 2.0), (3, 4, 1.0), (1, 4, -3.0), (4, 6, 1.0), (4, 7, 0.1), (2, 6, 0.5),
        (5, 6, 0.0625),
    ]  # fmt: skip
    source, target, weight = zip(*rows, strict=True)
    edges = GraphEdges(
        np.array(source, np.int32),
        np.array(target, np.int32),
        np.array(weight, np.float32),
        np.linspace(0.2, 1, len(rows)),
        np.arange(len(rows)) < len(rows) - 1,
    )
    return AttributionGraph(
        model="tiny",
        weight_hash="0" * 64,
        dictionary="tiny-transcoders",
        prompt="<s> is",
        tokens=(1, 7),
        token_texts=("<s>", " is"),
        n_layers=2,
        targets=(GraphTarget(" Paris", 11, weight=0.75), GraphTarget(" London", 12, weight=0.125)),
        nodes=nodes,
        edges=edges,
        scores={"replacement": 0.6, "replacement_floor": 0.2, "completeness": 0.7},
        settings={"node_share": 0.8, "edge_share": 0.98},
    )
