"""Core of a circuit: the edges that all circuits share which do one task equally well, beside chance.

    python -m benchmarks.circuit_core smollm2-135m --task ioi --circuits 20 --exchanges 3

1. Each search scores edges on prompts of its own. Methods, thresholds and wordings of the task take turns. It takes the
   smallest circuit of highest-ranked edges that reaches the threshold on prompts that are the same for all.
2. Nodes are taken out of the circuit, one after another. They stay out where the rest reaches the threshold. Else the
   next edges of the ranking come in; where these reach it, the circuit goes on with them.
3. Circuits are searched outside the smallest one, outside the core so far and each half of it.
4. Circuits that keep enough on further prompts are equally good; the last prompts state the numbers.
5. Null: the nodes of each circuit wired at random, with as many edges into each input.

More searches can only make a core smaller. Every circuit takes four runs of the model, as its evaluation has both ends.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from interp import EvaluationConfig, Graph, attribute_edges, evaluate_circuit, load_model, make_task
from interp.circuits.circuit import Circuit
from interp.circuits.config import Method
from interp.circuits.tasks import N_TEMPLATES
from interp.errors import NoGapError
from interp.models.hooked import HookedModel
from interp.nulls import p_from_null
from interp.patching.task import Task
from interp.seeds import make_generator

Edges = Bool[Tensor, " n_edges"]
Order = Int64[Tensor, " n_ranked"]
METHODS: tuple[Method, ...] = ("eap-ig", "eap")
THRESHOLDS = (0.8, 0.85, 0.9)
"""Faithfulness that decides the size of a circuit, in turn."""
WITHIN = 0.1
"""A circuit is equally good where it keeps at most this much less than the lowest threshold."""
HALVINGS = 3
"""Bisection steps between the last size that is too small and the first that suffices."""
BARE = EvaluationConfig(n_random=0, n_knockouts=0, n_minimality=0, untrained=False)


@dataclass(frozen=True)
class Found:
    """A circuit, and the method and prompts that found it or the edges that it avoids."""

    origin: str
    edges: Edges


class Search:
    """Searches of circuits of one task in one model."""

    def __init__(self, model: HookedModel, task: str, n_prompts: int, exchanges: int, seed: int):
        self.model, self.task, self.n_prompts, self.exchanges, self.seed = model, task, n_prompts, exchanges, seed
        self.graph = Graph.from_model(model)
        self.choose, held_out = make_task(task, model, n_prompts=3 * n_prompts + 8, seed=seed).split(n_prompts)
        self.admit, self.judge = held_out.take(range(2 * n_prompts)).split(n_prompts)
        self.choose.check_gap()

    def kept(self, edges: Edges, task: Task | None = None) -> float:
        """Return the faithfulness of a circuit, on the prompts that choose sizes or on others."""
        circuit = Circuit.of("", "", [self.graph.edge(i) for i in edges.nonzero()[:, 0].tolist()])
        task = self.choose if task is None else task
        return evaluate_circuit(self.model, task, circuit, self.graph, BARE).faithfulness.estimate

    def prompts(self, number: int) -> Task:
        """Return the prompts of a search by its number, from 1; the wordings of the task take turns."""
        turn = (number - 1) % (1 + N_TEMPLATES.get(self.task, 0))
        seed, count = 1000 * self.seed + number, self.n_prompts + self.n_prompts // 4 + 4  # some may coincide
        try:
            drawn = make_task(self.task, self.model, n_prompts=count, seed=seed, template=turn - 1 if turn else None)
        except NoGapError:  # the model does not do the task in this wording
            drawn = make_task(self.task, self.model, n_prompts=count, seed=seed)
        drawn = drawn.other_than(self.choose, self.admit, self.judge)
        return drawn.take(range(min(self.n_prompts, drawn.n_prompts)))

    def varied(self, number: int, start: int) -> Found:
        """Return the circuit of a search; the first size tried is `start` edges."""
        turn, which = divmod(number - 1, len(METHODS))
        threshold = THRESHOLDS[(turn + which) % len(THRESHOLDS)]
        order = self.ranking(self.prompts(number), METHODS[which])
        edges = self.smallest(order, threshold, start)
        assert edges is not None  # all edges reach any threshold up to 1
        return Found(f"{METHODS[which]}, prompts {number}", self.exchanged(number, threshold, order, edges))

    def ranking(self, prompts: Task, method: Method) -> Order:
        """Return all edges, highest score first."""
        self.scores = attribute_edges(self.model, prompts, self.graph, method=method)
        return self.scores.order()

    def pruned(self, edges: Edges) -> Edges:
        """Return a circuit without edges on no path from the embedding to the logits."""
        return replace(self.scores, values=edges.double()).mask(int(edges.sum()))

    def chosen(self, numbers: Tensor) -> Edges:
        """Return edges by their numbers as a mask."""
        return torch.zeros(self.graph.n_edges, dtype=torch.bool).index_fill(0, numbers, True)

    def smallest(self, order: Order, threshold: float, start: int) -> Edges | None:
        """Return the smallest circuit of highest-ranked edges that reaches the threshold; None where none does.

        As faithfulness need not rise with size, a smaller one may exist.
        """

        def reaches(n: int) -> bool:
            return self.kept(self.pruned(self.chosen(order[:n]))) >= threshold

        too_few, enough = 0, max(1, min(start, len(order)))
        while not reaches(enough):
            if enough == len(order):
                return None
            too_few, enough = enough, min(2 * enough, len(order))
        while not too_few and enough > 1:
            too_few, enough = (0, enough // 2) if reaches(enough // 2) else (enough // 2, enough)
        for _ in range(HALVINGS):
            middle = (too_few + enough) // 2
            if middle == too_few:
                break
            too_few, enough = (too_few, middle) if reaches(middle) else (middle, enough)
        return self.pruned(self.chosen(order[:enough]))

    def exchanged(self, number: int, threshold: float, order: Order, edges: Edges) -> Edges:
        """Return a circuit whose nodes were taken out one after another: left out, replaced, or put back."""
        _, reader, source = self.graph.edge_table.unbind(1)
        readers = [name for name, _ in self.graph.readers]
        nodes = source[edges].unique()
        nodes = nodes[nodes > 0]  # without the embedding nothing is left
        generator = make_generator(self.seed, f"exchanges of circuit {number}")
        for node in nodes[torch.randperm(len(nodes), generator=generator)][: self.exchanges].tolist():
            name = self.graph.sources[node]
            own = torch.tensor([reads == name for reads in readers])
            touching = (source == node) | own[reader]
            rest = self.pruned(edges & ~touching)
            if self.kept(rest) >= threshold:
                edges = rest
                continue
            n, others = int((edges & ~rest).sum()), order[~(edges | touching)[order]]
            for new in (others[:n], others[: 2 * n]):
                tried = self.pruned(rest | self.chosen(new))
                if self.kept(tried) >= threshold:
                    print(f"  circuit {number}: {int((tried & ~rest).sum())} other edges instead of {name}'s {n}")
                    edges = tried
                    break
        return edges

    def outside(self, part: str, left_out: Edges) -> Found | None:
        """Return the smallest circuit of all other edges; None where they do not reach the lowest threshold."""
        if not bool(left_out.any()) or self.kept(~left_out) < THRESHOLDS[0]:
            return None
        order = self.ranking(self.choose, METHODS[0])
        edges = self.smallest(order[~left_out[order]], THRESHOLDS[0], int(left_out.sum()))
        return None if edges is None else Found(f"outside {part}", edges)

    def good(self, found: list[Found]) -> list[Found]:
        """Return the circuits that are equally good on the prompts that admit."""
        return [each for each in found if self.kept(each.edges, self.admit) >= THRESHOLDS[0] - WITHIN]


def search_core(search: Search, n_circuits: int) -> list[Found]:
    """Return the equally good circuits of all searches."""
    found: list[Found] = []
    for number in range(1, n_circuits + 1):
        start = int(found[-1].edges.sum()) if found else search.graph.n_edges // 30
        found.append(search.varied(number, start))
        print(f"{number}: {int(found[-1].edges.sum()):,} edges, {found[-1].origin}")
    half = torch.rand(search.graph.n_edges, generator=make_generator(search.seed, "halves of a core")) < 0.5
    parts: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "the smallest circuit": lambda smallest, core: smallest,
        "the core": lambda smallest, core: core,
        "half of the core": lambda smallest, core: core & half,
        "the other half of the core": lambda smallest, core: core & ~half,
    }
    for part, edges_of in parts.items():
        masks = torch.stack([each.edges for each in search.good(found) or found])
        other = search.outside(part, edges_of(masks[masks.sum(1).argmin()], masks.all(0)))
        print(f"outside {part}: " + (f"{int(other.edges.sum()):,} edges" if other else "no circuit"))
        found += [other] if other else []
    return search.good(found)


def by_chance(graph: Graph, masks: Bool[Tensor, "n_good n_edges"], draws: int, seed: int) -> list[int]:
    """Return the number of edges that random circuits share, over draws.

    Each has as many edges into each input as its circuit. Sources are drawn in proportion to its edges out of them.
    """
    position, reader, source = graph.edge_table.unbind(1)
    into = (position * len(graph.readers) + reader).numpy()  # edges are in this order
    out_of = (position * len(graph.sources) + source).numpy()
    first, rng, shared_by_draw = np.searchsorted(into, into), np.random.default_rng(seed), []
    for _ in range(draws):
        shared = np.ones(len(into), bool)
        for mask in masks.numpy():
            wanted, used = (np.bincount(ends[mask], minlength=ends.max() + 1)[ends] for ends in (into, out_of))
            # the first of exponential clocks whose rates are the weights: a draw without replacement
            with np.errstate(divide="ignore"):
                clock = rng.exponential(size=len(into)) / used
            rank = np.empty(len(into), int)
            rank[np.lexsort((clock, into))] = np.arange(len(into))
            shared &= rank - first < wanted
        shared_by_draw.append(int(shared.sum()))
    return shared_by_draw


def main() -> None:
    """Search the core of a task's circuit, and print it beside chance."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model", nargs="?", default="toy:induction-2l")
    parser.add_argument("--task", default="induction")
    for name, default in (("circuits", 6), ("prompts", 8), ("exchanges", 2), ("draws", 199), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    search = Search(load_model(args.model), args.task, args.prompts, args.exchanges, args.seed)
    good = search_core(search, args.circuits)
    if len(good) < 2:
        return print(f"{len(good)} circuits are equally good, so no core")
    masks = torch.stack([each.edges for each in good])
    core, sizes = masks.all(0), masks.sum(1).tolist()
    print(f"faithfulness on the prompts that judge: {', '.join(f'{search.kept(e, search.judge):.2f}' for e in masks)}")
    null = by_chance(search.graph, masks, args.draws, args.seed)
    p = float(p_from_null(int(core.sum()), null))
    print(
        f"{int(core.sum()):,} edges are in all {len(good)} circuits of {min(sizes):,} to {max(sizes):,}; by chance at "
        f"most {max(null):,} (p {p:.3f})\nalone they keep {search.kept(search.pruned(core), search.judge):.2f}, all "
        f"other edges {search.kept(~core, search.judge):.2f}"
    )
    return None


if __name__ == "__main__":
    main()
