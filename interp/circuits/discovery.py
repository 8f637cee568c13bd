"""ACDC: remove edges one by one, from the logits backwards, as long as the metric does not mind (Conmy et al. 2023).

1. all edges are kept
2. for each reader, last first, and each of its sources, last first: replace that edge too; when the metric falls by
less than
   tau, it stays replaced
3. a reader of a part that nothing kept reads any more loses all its edges without a run

Greedy, so the result depends on the order, and redundant parts can hide each other. One run on all prompts per edge
tried.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from interp.circuits.bench import Bench
from interp.circuits.graph import Graph
from interp.errors import ConfigError
from interp.names import parse_node

DEFAULT_TAUS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""thresholds as shares of the gap between clean and corrupted prompts"""


def acdc(bench: Bench, tau: float, progress: Any = None) -> tuple[Tensor, int]:
    """The edges kept, `[n_edges]` bool, and the number of runs it took.

    `tau` is in the metric's unit. Raises `ConfigError` when it is negative.
    """
    if tau < 0:
        raise ConfigError(f"tau must be at least 0, got {tau}")
    graph = bench.graph
    prepared = [(batch, bench.replacement(batch)) for batch in bench.batches()]

    def value(kept: Tensor) -> float:
        return float(torch.cat([bench.metric_with(batch, kept, other) for batch, other in prepared]).mean())

    return _greedy(graph, value, tau, progress)


def _greedy(graph: Graph, value: Callable[[Tensor], float], tau: float, progress: Any) -> tuple[Tensor, int]:
    kept = torch.ones(graph.n_edges, dtype=torch.bool)
    current, runs = value(kept), 1
    order = _backwards(graph)
    for done, edge in enumerate(order):
        if not _is_read(graph, kept, edge):
            kept[edge] = False
            continue
        kept[edge] = False
        without, runs = value(kept), runs + 1
        if current - without < tau:
            current = without
        else:
            kept[edge] = True
        if progress is not None:
            progress(done + 1, len(order), {"kept": int(kept.sum())})
    return kept, runs


def acdc_scores(bench: Bench, taus: Sequence[float] | None, progress: Any = None) -> tuple[Tensor, dict[str, Any]]:
    """`[n_edges]` the largest tau at which ACDC keeps each edge (0: at none), and the settings to note."""
    taus = sorted(taus) if taus is not None else [share * bench.task.gap for share in DEFAULT_TAUS]
    if not taus:
        raise ConfigError("acdc needs at least one tau")
    scores = torch.zeros(bench.graph.n_edges, dtype=torch.float64)
    total = 0
    for tau in taus:
        kept, runs = acdc(bench, tau, progress)
        scores = torch.where(kept, torch.tensor(tau, dtype=torch.float64).clamp_min(1e-12), scores)
        total += runs
    return scores, {"taus": list(taus), "n_runs": total}


def _backwards(graph: Graph) -> list[int]:
    """Edges by reader, the last computed first, then by source, the last first."""
    table = graph.edge_table.tolist()
    via_order = {None: 0, "v": 1, "k": 2, "q": 3}

    def key(edge: int) -> tuple[Any, ...]:
        position, reader, source = table[edge]
        node, via = graph.readers[reader]
        layer, is_mlp, head = parse_node(node).order
        return (-layer, -is_mlp, head, via_order[via], -source, -position)

    return sorted(range(len(table)), key=key)


def _is_read(graph: Graph, kept: Tensor, edge: int) -> bool:
    """Whether anything kept still reads the node that an edge goes into."""
    node, via = graph.readers[int(graph.edge_table[edge, 1])]
    if node == "logits":
        return True
    name = parse_node(node)
    group = graph.n_heads // graph.n_kv_heads
    heads = range(name.head or 0, (name.head or 0) + (group if via in ("k", "v") else 1))
    names = [node] if name.kind == "mlp" else [f"L{name.layer}H{head}" for head in heads]
    sources = torch.tensor([graph.sources.index(each) for each in names])
    return bool((kept & torch.isin(graph.edge_table[:, 2], sources)).any())
