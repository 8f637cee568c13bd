"""Search of many circuits that do one task equally well: what they share, and what can replace what.

    found = find_core(model, draw, task, held_out, circuit)
    found.core_edges, found.chance.most, found.pair

1. Each search scores edges on prompts of its own, by one of the methods, and takes the smallest circuit of its
   highest-ranked edges that reaches a threshold on `task`, the same prompts for all (doubling, then bisection).
2. Exchange, with exact evaluation: the edges of one node after another, in random order, are taken out. Where the rest
   reaches the threshold, they stay out. Where it does not, as many (then twice as many) of the next edges of the
   ranking come in; where that reaches it, the circuit goes on with them. They are substitutes where the edges were
   missed by at least `MISSED`.
3. Those at most `within` below the lowest threshold on the first half of `held_out` are equally good. Every number that
   is stated of them is measured on the other half, which admitted none of them.
4. Against the core so far: its nodes are taken out of the smallest circuit in the same way, and circuits are searched
   outside the smallest circuit, outside the core, each half of it, and what else the smallest has (`OUTSIDE`). Those
   that are found are judged and join the others.
5. The core is what all equally good circuits share. Null: for each of them a random circuit of as many edges into each
   input, whose sources are drawn in proportion to the edges that the circuit has out of them: the same nodes, wired at
   random. More searches can only make a core smaller.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from interp.artifacts import Measured, Table, as_json, read_json, write_json
from interp.circuits._edge_runs import Bench
from interp.circuits._edge_scores import prune_edges
from interp.circuits.attribution import attribute
from interp.circuits.circuit import Circuit
from interp.circuits.config import Ablation, By, Method
from interp.circuits.core import (
    OWN,
    ChanceCore,
    CircuitOfCore,
    Core,
    CoreConfig,
    CoreSettings,
    Pair,
    ReturningEdge,
    Substitute,
    names_of,
)
from interp.circuits.found_circuit import UntrainedGap
from interp.circuits.graph import Graph
from interp.circuits.judging import check_ends, faithfulness, faithfulness_interval, untrained_gap
from interp.errors import MismatchError
from interp.forms import from_json
from interp.models.hooked import HookedModel
from interp.nulls import p_from_null
from interp.patching.task import Task
from interp.progress import Progress
from interp.seeds import make_generator
from interp.statistics import Interval, percentile_interval, proportion_interval

Edges = Bool[Tensor, " n_edges"]
Order = Int64[Tensor, " n_ranked"]
OUTSIDE: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "the smallest circuit": lambda smallest, core, half: smallest,
    "the core": lambda smallest, core, half: core,
    "half of the core": lambda smallest, core, half: core & half,
    "the other half of the core": lambda smallest, core, half: core & ~half,
    "what else the smallest has": lambda smallest, core, half: smallest & ~core,
}
"""Edges that a circuit is searched without, from the smallest circuit, the core so far and a random half of all."""
CORE_EXCHANGES = 5
"""Times as many nodes of the core are tried as of each circuit."""
MISSED = 0.05
"""Fall of faithfulness from which edges count as missed, and others as their substitutes."""
NULL = "the nodes of each circuit wired at random, as many edges into each input"
HALVINGS = 3
"""Bisection steps between the last size that is too small and the first that suffices."""


def find_core(
    model: HookedModel,
    draw: Callable[[int], Task],
    task: Task,
    held_out: Task,
    circuit: Circuit,
    config: CoreConfig | None = None,
    *,
    ablation: Ablation = "resample",
    by: By = "abs",
    model_name: str = "",
    name: str = "circuit",
    resume: Callable[[CoreSettings], Path] | None = None,
    say: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Core:
    """Search circuits that do a task as well as one that was found, and compare them.

    Args:
        model: the model of the circuit.
        draw: returns the prompts of a search by its number, from 1; none of them in `task` or `held_out`.
        task: prompts on which sizes are chosen.
        held_out: other prompts, at least two: the first half admits circuits, the other half states their numbers.
        circuit: the one that was found; it is compared with the others.
        config: settings (default: `CoreConfig()`).
        ablation, by: values on edges outside a circuit, and how edges are ranked.
        model_name, name: names in the result.
        resume: returns a folder for the searches that are done, from which an interrupted run continues.
        say: is told the price before the search.
        progress: called after each search.
    Returns: the core, the share of circuits in which each edge returns, substitutes, and two circuits that differ most.
    Raises:
        ConfigError: the model does not do the task, or fewer than two held-out prompts.
        MismatchError: a circuit of other weights, or another one than that of the interrupted search.

    >>> model = load_model("planted:induction")
    >>> task, held_out = make_task("induction", model, n_prompts=12).split(4)
    >>> circuit = find_circuit(model, task, FindConfig(verify=0, evaluation=EvaluationConfig(n_random=1))).circuit
    >>> prompts = lambda number: make_task("induction", model, n_prompts=4, seed=number)
    >>> find_core(model, prompts, task, held_out, circuit, CoreConfig(circuits=3)).headline()
    ', induction: 4 edges are in all 4 circuits of 4 to 4 edges; by chance at most ...'
    """
    from interp.models.adapter import weight_hash

    config, graph = config or CoreConfig(), Graph.from_model(model)
    task.check_gap()
    if circuit.weight_hash:
        circuit.check_model(weight_hash(model))
    settings = CoreSettings(
        **vars(config), model=model_name, weight_hash=weight_hash(model), circuit=name, task=task.settings,
        n_edges_of_graph=graph.n_edges, ablation=ablation, by=by,
    )  # fmt: skip
    started = perf_counter()
    chooser = _Runs(model, graph, task, settings)
    if say is not None:
        say(_price(config, (perf_counter() - started) / 2))
    admit, judge = (_Runs(model, graph, half, settings) for half in held_out.split(held_out.n_prompts // 2))
    search = _Search(model, graph, draw, chooser, settings, None if resume is None else resume(settings))
    own = _Found(origin=OWN, threshold=float("nan"), edges=_numbers(graph.members(circuit)))
    if search.once("own", lambda: own).edges != own.edges:
        raise MismatchError(f"{name} is another circuit than when the search was interrupted; start it anew")
    found, total = [own], config.circuits + len(OUTSIDE) + 2
    for number in range(1, config.circuits + 1):
        found.append(search.varied(number, len(own.edges)))
        if progress is not None:
            progress(number, total, {"edges": len(found[-1].edges), "found by": found[-1].origin})
    for done, part in enumerate(search.avoiding(found, admit), start=config.circuits + 1):
        if progress is not None:
            progress(done, total, {"outside": part})
    good = [i for i, each in enumerate(found) if admit.admits(each)]
    core = _compare(settings, graph, judge, found, good, untrained_gap(model, task, config.seed))
    if progress is not None:
        progress(total, total, {"core": core.core_edges})
    return core


def _price(config: CoreConfig, seconds: float) -> str:
    """Return about how long the search takes, from the seconds of one run; scores of edges cost as much as three."""
    runs = 13 + 3 * config.exchanges
    against = 13 * len(OUTSIDE) + 3 * CORE_EXCHANGES * config.exchanges
    minutes = max(1, round((config.circuits * runs + against) * seconds / 60))
    searches = f"{config.circuits} searches of about {runs} runs, and {against} against the core"
    return f"{searches}, {seconds:.1f} s each: about {minutes} min, often less"


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A circuit as numbers of edges."""

    origin: str
    threshold: Measured
    edges: tuple[int, ...]
    substitutes: tuple[Substitute, ...] = ()


class _Runs:
    """Exact runs on the prompts of a task, whose replacements are kept between them."""

    def __init__(self, model: HookedModel, graph: Graph, task: Task, settings: CoreSettings):
        self.bench = Bench(model, graph, task, ablation=settings.ablation, batch_size=settings.batch_size)
        self.length, self.settings = task.clean.shape[1], settings
        self._admitted: dict[tuple[int, ...], bool] = {}
        self._parts = [(batch, self.bench.replacement(batch)) for batch in self.bench.batches()]
        self.full, self.empty = (self.values(self.bench.everything(whole)) for whole in (True, False))
        check_ends(self.full, self.empty, settings.ablation)

    def values(self, included: Edges) -> Float64[np.ndarray, " n_prompts"]:
        """Return the metric of a circuit."""
        return torch.cat([self.bench.metric_with(batch, included, other) for batch, other in self._parts]).numpy()

    def faithful(self, included: Edges) -> float:
        """Return the faithfulness of a circuit."""
        return float(faithfulness(self.values(included), self.empty, self.full))

    def admits(self, found: "_Found") -> bool:
        """Return whether a circuit is equally good on these prompts."""
        if found.edges not in self._admitted:
            kept, s = self.faithful(_mask(self.bench.graph, found.edges)), self.settings
            self._admitted[found.edges] = kept >= min(s.thresholds) - s.within
        return self._admitted[found.edges]


@dataclass(frozen=True)
class _Search:
    """Searches of circuits, each kept in a folder when it is done."""

    model: HookedModel
    graph: Graph
    draw: Callable[[int], Task]
    runs: _Runs
    settings: CoreSettings
    folder: Path | None

    def varied(self, number: int, start: int) -> _Found:
        """Return the circuit of a search by its number; the first size tried is `start` edges."""
        s = self.settings
        turn, which = divmod(number - 1, len(s.methods))
        method, threshold = s.methods[which], s.thresholds[(turn + which) % len(s.thresholds)]

        def search() -> _Found:
            prompts = self.draw(number)
            order = self.ranking(prompts, method)
            kept = self.smallest(order, threshold, start)
            assert kept is not None  # all edges reach any threshold up to 1
            origin = ", ".join([method, *(f"{k} {v}" for k, v in prompts.origin.items() if k in ("seed", "template"))])
            return self.exchanged(number, origin, threshold, order, kept)

        return self.once(f"search-{number}", search)

    def avoiding(self, found: list[_Found], admit: _Runs) -> Iterator[str]:
        """Search outside parts of what was found, and add circuits; yield each part when done."""
        half = torch.rand(self.graph.n_edges, generator=make_generator(self.settings.seed, "halves of a core")) < 0.5
        for part, edges_of in {"nodes": None, **OUTSIDE}.items():
            good = [each for each in found if admit.admits(each)]
            masks = torch.stack([_mask(self.graph, each.edges) for each in good or found])
            smallest, core = masks[masks.sum(1).argmin()], masks.all(0)
            if edges_of is None:
                search = partial(self._without_nodes, smallest, core)
            else:
                search = partial(self._outside, part, edges_of(smallest, core, half))
            other = self.once(f"outside-{part.replace(' ', '-')}", search)
            if other.edges:
                rows = tuple(replace(row, circuit=len(found)) for row in other.substitutes)
                found.append(replace(other, substitutes=rows))
            yield part

    def _without_nodes(self, smallest: Edges, core: Edges) -> _Found:
        """Return the smallest circuit with nodes of the core taken out where the rest or other edges do as well."""
        order = self.ranking(self.runs.bench.task, self.settings.methods[0])
        origin = "the smallest, nodes of the core exchanged"
        found = self.exchanged(0, origin, self.settings.thresholds[0], order, smallest, core, CORE_EXCHANGES)
        return found if found.edges != _numbers(smallest) else replace(found, edges=())

    def _outside(self, part: str, left_out: Edges) -> _Found:
        """Return the smallest circuit of all other edges; an empty one where they do not reach the first threshold."""
        threshold, edges = self.settings.thresholds[0], ()
        if bool(left_out.any()) and self.runs.faithful(~left_out) >= threshold:
            order = self.ranking(self.runs.bench.task, self.settings.methods[0])
            kept = self.smallest(order[~left_out[order]], threshold, int(left_out.sum()))
            edges = () if kept is None else _numbers(kept)
        return _Found(origin=f"outside {part}", threshold=threshold, edges=edges)

    def ranking(self, prompts: Task, method: Method) -> Order:
        """Return all edges, highest score first."""
        s = self.settings
        how = {"method": method, "ablation": s.ablation, "batch_size": s.batch_size}
        return attribute(self.model, prompts, self.graph, **how).order(s.by)

    def smallest(self, order: Order, threshold: float, start: int) -> Edges | None:
        """Return the smallest circuit of the highest-ranked edges that reaches the threshold; None where none does.

        As faithfulness need not rise with size, a smaller one may exist.
        """

        def reaches(n: int) -> bool:
            return self.runs.faithful(self.pruned(order[:n])) >= threshold

        total, n = len(order), max(1, min(start, len(order)))
        if reaches(n):
            enough, n = n, n // 2
            while n and reaches(n):
                enough, n = n, n // 2
            too_few = n
        else:
            too_few = n
            while n < total and not reaches(n := min(2 * n, total)):
                too_few = n
            if too_few == total:
                return None
            enough = n
        for _ in range(HALVINGS):
            middle = (too_few + enough) // 2
            if middle == too_few:
                break
            too_few, enough = (too_few, middle) if reaches(middle) else (middle, enough)
        return self.pruned(order[:enough])

    def exchanged(
        self, number: int, origin: str, threshold: float, order: Order, kept: Edges, core: Edges | None = None,
        turns: int = 1,
    ) -> _Found:  # fmt: skip
        """Return a circuit whose nodes were taken out one after another: left out, replaced, or put back.

        With a `core` its nodes are taken out, and none of their edges comes back as a substitute.
        """
        source = self.graph.edge_table[:, 2]
        generator = make_generator(self.settings.seed, f"exchanges of circuit {number}")
        nodes = source[kept if core is None else core].unique()
        nodes = nodes[nodes > 0]  # without the embedding nothing is left
        barred, before = torch.zeros_like(kept), self.runs.faithful(kept)
        substitutes: list[Substitute] = []
        for node in nodes[torch.randperm(len(nodes), generator=generator)][: turns * self.settings.exchanges].tolist():
            touching = self._touching(node)
            if not bool((kept & touching).any()):
                continue
            rest = prune_edges(self.graph, kept & ~touching, self.runs.length)
            left = self.runs.faithful(rest)
            if core is not None:
                barred |= touching
            if left >= threshold:
                kept, before = rest, left
                continue
            out = kept & ~rest
            others = order[~(rest | out | touching | barred)[order]]
            for n in (int(out.sum()), 2 * int(out.sum())):
                tried = prune_edges(self.graph, rest | _mask(self.graph, others[:n]), self.runs.length)
                after = self.runs.faithful(tried)
                if after >= threshold:
                    new = tried & ~rest
                    row = Substitute(
                        circuit=number, out=self._names(out), instead=self._names(new), n_out=int(out.sum()),
                        n_instead=int(new.sum()), before=before, without=left, after=after,
                    )  # fmt: skip
                    substitutes += [row] if before - left >= MISSED else []
                    kept, before = tried, after
                    break
        return _Found(origin=origin, threshold=threshold, edges=_numbers(kept), substitutes=tuple(substitutes))

    def pruned(self, chosen: Order) -> Edges:
        """Return the circuit of some edges without those on no path."""
        return prune_edges(self.graph, _mask(self.graph, chosen), self.runs.length)

    def _touching(self, node: int) -> Edges:
        """Return the edges from a source, and into its own inputs."""
        name = self.graph.sources[node]
        own = torch.tensor([reader == name for reader, _ in self.graph.readers])
        _, reader, source = self.graph.edge_table.unbind(1)
        return (source == node) | own[reader]

    def _names(self, edges: Edges) -> str:
        chosen = [self.graph.edge(i) for i in _numbers(edges)]
        ends = [end for edge in chosen for end in (edge.source, edge.target)]
        return names_of(Counter(end for end in ends if end not in ("embed", "logits")) or Counter(ends))

    def once(self, name: str, search: Callable[[], _Found]) -> _Found:
        """Return what a search found, from its file where an earlier run has done it."""
        path = None if self.folder is None else self.folder / f"{name}.json"
        if path is not None and path.exists():
            return from_json(_Found, read_json(path), path)
        found = search()
        if path is not None:
            write_json(path, as_json(found))
        return found


def _mask(graph: Graph, numbers: Tensor | tuple[int, ...]) -> Edges:
    chosen = torch.zeros(graph.n_edges, dtype=torch.bool)
    chosen[torch.as_tensor(numbers, dtype=torch.long)] = True
    return chosen


def _numbers(edges: Edges) -> tuple[int, ...]:
    return tuple(edges.nonzero()[:, 0].tolist())


def _compare(
    settings: CoreSettings, graph: Graph, judge: _Runs, found: list[_Found], good: list[int], untrained: UntrainedGap
) -> Core:
    """Return the core and all that is said of it, on prompts that neither chose circuits nor admitted the `good`."""
    values = np.stack([judge.values(_mask(graph, each.edges)) for each in found])
    ends = faithfulness_interval(values, judge.empty, judge.full, seed=settings.seed)
    masks = torch.stack([_mask(graph, each.edges) for each in found])[good]
    several, estimates = len(good) > 1, ends.estimate[good]
    shared = masks.all(0) if several else torch.zeros(graph.n_edges, dtype=torch.bool)
    pair, in_pair = _pair(masks, good, judge) if several else (None, torch.zeros(2, graph.n_edges, dtype=torch.bool))
    circuits = [
        CircuitOfCore(
            number=i, origin=each.origin, threshold=each.threshold, n_edges=len(each.edges), equally_good=i in good,
            faithfulness=float(ends.estimate[i]), low=float(ends.low[i]), high=float(ends.high[i]),
        ) for i, each in enumerate(found)
    ]  # fmt: skip
    over_circuits = over_prompts = None
    if several:
        over_circuits = Interval(*map(float, percentile_interval(estimates.mean(), estimates)))
        mean = values[good].mean(0)[None]
        over_prompts = faithfulness_interval(mean, judge.empty, judge.full, seed=settings.seed).at(0)
    return Core(
        settings=settings,
        circuits=Table.of(CircuitOfCore, circuits),
        edges=Table.of(ReturningEdge, _returning(graph, masks, in_pair)),
        substitutes=Table.of(Substitute, [row for each in found for row in each.substitutes]),
        n_good=len(good),
        core_edges=int(shared.sum()),
        chance=_chance(graph, masks, int(shared.sum()), settings) if several else None,
        core_alone=judge.faithful(prune_edges(graph, shared, judge.length)),
        core_removed=judge.faithful(~shared),
        over_circuits=over_circuits,
        over_prompts=over_prompts,
        pair=pair,
        untrained=untrained,
        null=NULL,
    )


def _pair(masks: Bool[Tensor, "n_good n_edges"], good: list[int], judge: _Runs) -> tuple[Pair | None, Tensor]:
    """Return the two circuits that share least, None where all are the same, and their edges, `[2, n_edges]`."""
    sizes = masks.sum(1).double()
    part = (masks.double() @ masks.double().T) / torch.minimum(sizes[:, None], sizes)
    i, j = sorted(divmod(int(part.fill_diagonal_(2).argmin()), len(good)))
    both = masks[i] & masks[j]
    n_shared, alone = int(both.sum()), judge.faithful(prune_edges(judge.bench.graph, both, judge.length))
    only = (int(sizes[each]) - n_shared for each in (i, j))
    names = ("first", "second", "shared", "only_first", "only_second")
    pair = Pair(**dict(zip(names, (good[i], good[j], n_shared, *only), strict=True)), shared_faithfulness=alone)
    return pair if pair.only_first or pair.only_second else None, masks[[i, j]]


def _returning(graph: Graph, masks: Bool[Tensor, "n_good n_edges"], pair: Tensor) -> list[ReturningEdge]:
    """Return the edges of the circuits, those that return most first."""
    counts, rows = masks.sum(0), []
    for i in counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())].tolist():
        edge, share = graph.edge(i), proportion_interval(int(counts[i]), len(masks))
        rows.append(
            ReturningEdge(
                source=edge.source, target=edge.target, via=edge.via, position=edge.position, n_circuits=int(counts[i]),
                share=share.estimate, low=share.low, high=share.high, first=bool(pair[0, i]), second=bool(pair[1, i]),
            )
        )  # fmt: skip
    return rows


def _chance(graph: Graph, masks: Bool[Tensor, "n_good n_edges"], core: int, settings: CoreSettings) -> ChanceCore:
    """Return the core of random circuits over draws: as many edges into each input as each circuit has.

    The sources of an input are drawn in proportion to the edges that the circuit has out of them at their position.
    """
    position, reader, source = graph.edge_table.unbind(1)
    into = (position * len(graph.readers) + reader).numpy()  # edges are in this order
    out_of = (position * len(graph.sources) + source).numpy()
    first = np.searchsorted(into, into)
    wanted, uses = (
        [np.bincount(ends[mask.numpy()], minlength=int(ends.max()) + 1)[ends] for mask in masks]
        for ends in (into, out_of)
    )
    rng = np.random.default_rng(settings.seed)
    draws = []
    for _ in range(settings.n_random):
        shared = np.ones(len(into), bool)
        for n, used in zip(wanted, uses, strict=True):
            if not shared.any():
                break
            # the first of exponential clocks whose rates are the weights: a draw without replacement
            with np.errstate(divide="ignore"):
                clock = rng.exponential(size=len(into)) / used
            rank = np.empty(len(into), int)
            rank[np.lexsort((clock, into))] = np.arange(len(into))
            shared &= rank - first < n
        draws.append(int(shared.sum()))
    return ChanceCore(n=len(draws), mean=float(np.mean(draws)), most=max(draws), p=float(p_from_null(core, draws)))
