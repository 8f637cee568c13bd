"""Words that latents of a graph make the model say, as labels of those that have none. Needs torch.

A workspace may describe the neurons of a few layers only, or none; the Jacobian lens reads the others where they are
traced, so that nodes of every layer have names.
"""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import torch

from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.lens import lens_point
from interp.lenses.vocabulary import vocabulary_of
from interp.nulls import ALPHA, DRAWS
from interp.tracing.edges import System
from interp.tracing.graph import AttributionGraph
from saes.features.meaning import measure_saying
from saes.features.schema import quoted

MOST = 400
"""Latents that are read, those of largest influence: with 262,144 tokens each costs 0.3 billion products."""
SAYS = 3
"""Words of a label."""


def with_raised_words(graph: AttributionGraph, system: System, lens: JacobianLens) -> AttributionGraph:
    """Return a graph whose leading latents without a label have the words that they raise through a lens.

    Those keep no label of which 5 % of random directions raise a word as much.
    """
    bare = [i for i, node in enumerate(graph.nodes) if node.kind == "feature" and not node.label]
    leading = sorted(bare, key=lambda i: -graph.nodes[i].influence)[:MOST]
    columns = (system.layer.tolist(), system.position.tolist(), system.latent.tolist())
    number = {key: row for row, key in enumerate(zip(*columns, strict=True))}
    layers: dict[int, list[int]] = defaultdict(list)
    for i in leading:
        layers[graph.nodes[i].layer].append(i)
    vocabulary, labels = vocabulary_of(system.frozen.model), {}
    for layer, numbers in layers.items():
        nodes = [graph.nodes[i] for i in numbers]
        rows = torch.tensor([number[node.layer, node.position, node.index] for node in nodes])
        signs = torch.tensor([1.0 if node.activation >= 0 else -1.0 for node in nodes])
        written = system.written_by(rows.to(system.layer.device), layer).cpu() * signs[:, None]
        point = lens_point(f"blocks.{layer}.hook_mlp_out", graph.n_layers)
        saying = measure_saying(written, lens, point, vocabulary, SAYS, DRAWS["standard"])
        beyond = saying["raised_strength"][:, 0] > np.quantile(saying["null_high"], 1 - ALPHA)
        for i, tokens, above in zip(numbers, saying["raised"].tolist(), beyond.tolist(), strict=True):
            if above:
                labels[i] = f"raises {', '.join(quoted(vocabulary.texts[token]) for token in tokens)}"
    return graph.with_parts(
        nodes=[replace(node, label=labels.get(i, node.label)) for i, node in enumerate(graph.nodes)]
    )
