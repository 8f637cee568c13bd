"""Effect of one edge on a task by exact patching, beside the same edge with random rotations of what it carries.

Replacing an edge changes its reader's input by the difference of the source on the two prompts. Any change of that size
has some effect, so an interval above 0 says little. The null turns the differences of all prompts and positions by one
random rotation: the same norms and the same angles between prompts, in other directions.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64

from interp.circuits._edge_runs import Bench, collect, minus, outputs, run_with_single_edges
from interp.circuits.circuit import Edge, edge_text
from interp.circuits.graph import Graph
from interp.circuits.head_weights import haar_frame
from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.nulls import ALPHA, DRAWS, p_from_null
from interp.patching.task import Task
from interp.results import Record, Result
from interp.seeds import make_generator
from interp.statistics import Interval, t_interval
from interp.view import View

BATCH = 16
"""Prompts per forward pass."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeEffect(Result):
    """Fall of the metric when one edge carries its replacement, as a share of the task's gap."""

    edge: Edge
    share: Interval[float]
    """1: without the edge nothing of the gap is left; 0: it does not matter. With a 95 % interval over prompts."""
    null: Float64[np.ndarray, " n_draws"]
    """The same with randomly rotated differences."""
    n_prompts: int

    @property
    def p(self) -> float:
        """Share of random rotations that do as much, the edge counted among them."""
        return float(p_from_null(self.share.estimate, self.null))

    @property
    def matters(self) -> bool:
        """True where the low end of the interval lies above 0 and above every random rotation."""
        return bool(self.share.low > max(0.0, float(self.null.max())) and self.p <= ALPHA)

    def to_records(self) -> list[Record]:
        """Return one row: `source, target, via, share, low, high, null, p, matters`."""
        row: Record = {"source": self.edge.source, "target": self.edge.target, "via": self.edge.via}
        row |= self.share.columns("share", "low", "high")
        return [row | {"null": float(self.null.max()), "p": self.p, "matters": self.matters}]

    def view(self) -> View:
        share, low, high = self.share
        yield (
            f"{edge_text(self.edge)}: without it {share:.0%} of the gap is lost [{low:.0%}, {high:.0%}]; random "
            f"rotations at most {float(self.null.max()):.0%}"
        )


@torch.no_grad()
def measure_edge(
    model: HookedModel,
    task: Task,
    edge: Edge,
    *,
    draws: int = DRAWS["standard"],
    seed: int = 0,
) -> EdgeEffect:
    """Patch one edge of a model, and the same edge with random changes of the same size.

    Args:
        model: the model of the edge.
        task: its prompts and the metric.
        edge: the edge; others keep their clean values, and all after its reader is recomputed.
        draws: random rotations, one run each.
        seed: draws the rotations.
    Returns: the share of the gap that is lost, beside the null.
    Raises:
        ConfigError: the task has no gap, or no rotation is drawn.
        UnknownNameError: an edge that the model lacks.

    >>> model = load_model("planted:induction")
    >>> measure_edge(model, make_task("induction", model, n_prompts=8), Edge("L0H0", "L1H0", "k")).matters
    True
    """
    if draws < 1:
        raise ConfigError(f"the null of an edge needs a random rotation, got {draws} draws")
    task.check_gap()
    bench = Bench(model, Graph.from_model(model), task, ablation="resample", batch_size=BATCH)
    at = bench.graph.index(edge)
    source = int(bench.graph.edge_table[at, 2])
    generator = make_generator(seed, "rotations of an edge")
    size = int(model.cfg.d_model)
    turns = [haar_frame(size, size, generator) for _ in range(draws)]
    parts = []
    for batch in bench.batches():
        clean, logits = collect(batch.residual, bench.graph, batch.clean, batch.at)
        diff = outputs(batch.residual, bench.graph, minus(clean, bench.replacement(batch)))
        written, before, rows = diff[source].clone(), batch.metric(logits), []
        for turn in (None, *turns):
            diff[source] = written if turn is None else written @ turn.to(written)
            patched = run_with_single_edges(batch.residual, bench.graph, batch.clean, diff, [at], batch.at)[0]
            rows.append((before - batch.metric(patched)).double().cpu())
        parts.append(torch.stack(rows))
    shares = torch.cat(parts, 1).numpy() / task.gap
    return EdgeEffect(
        edge=edge,
        share=Interval(*map(float, t_interval(shares[0]))),
        null=shares[1:].mean(1),
        n_prompts=task.n_prompts,
    )
