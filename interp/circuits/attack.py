"""An adversary against a circuit: it chooses which of the other edges are replaced.

    found = attack_circuit(model, task, held_out, circuit)
    found.mean.left, found.worst.left

Faithfulness replaces all edges outside a circuit. Some of them help the behaviour and some hurt it, so a circuit can be
faithful because they cancel. The adversary replaces the helpers alone:

1. Edges are scored on `task` (EAP-IG); outside the circuit those with a score above 0 are helpers, below 0 hurters.
2. The strongest helpers are replaced, from 1 in 32 to all of them; and all outside edges into one input alone, for the
   inputs with the largest outside scores: a head that attends where it did and copies something else does more harm
   than one that is replaced whole. What leaves least is taken.
3. Gradient: from there, each edge outside is replaced in part, and the parts follow the gradient of the metric; after
   each step the edges with a part above 1/2 are replaced as a whole, and that is kept where less is left.
4. Exchange: for the nodes with the largest outside scores, one after another, all outside edges of the node are put
   back, or all are replaced, whichever was not so; a change stays where less is left. This checks the scores: every
   step is measured.
5. What was chosen is measured on `held_out`, with each ablation. Nulls: as many random edges outside the circuit, and
   random circuits of the same size attacked through their own helpers. With the first ablation all of this is also
   measured on paraphrases; scores and choice stay those of `task`.

An attack gives an upper bound: a stronger adversary may leave less. So "stands" means that this one failed.

Sizes: circuits of the highest-ranked edges, each with all other edges replaced and with its helpers replaced, an attack
by scores alone (step 1, all helpers or a quarter). Hurters inside the circuit count as part of the mechanism.

Search (`grow`): the adversary attacks the circuit; of the edges that it replaces, those are added whose
return raises the metric most, by the gradient on the way to the attacked run; and again, until it leaves enough on
`task`. Each circuit is judged on `held_out`, beside as many highest-ranked edges that are attacked in the same way.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from interp.artifacts import Table
from interp.circuits._edge_runs import Bench, metric_and_gradient
from interp.circuits._edge_scores import EdgeScores
from interp.circuits.attribution import attribute
from interp.circuits.circuit import Circuit
from interp.circuits.config import Ablation
from interp.circuits.find import random_circuit
from interp.circuits.graph import Graph
from interp.circuits.judging import check_ends, faithfulness, faithfulness_interval
from interp.circuits.worst_case import (
    CHOSEN,
    EVERYTHING,
    HALF,
    HELPERS,
    HURTERS,
    RANDOM_CIRCUITS,
    RANDOM_EDGES,
    Attack,
    AttackConfig,
    AttackSettings,
    Grown,
    StandingSize,
    Strength,
    WorstCase,
)
from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.patching.task import Task
from interp.progress import Progress
from interp.seeds import make_generator

Edges = Bool[Tensor, " n_edges"]
PATH = (1 / 3, 2 / 3, 1.0)
"""Parts of the replacement at which the gradient says which edges the circuit lacks."""


def attack_circuit(
    model: HookedModel,
    task: Task,
    held_out: Task,
    circuit: Circuit,
    config: AttackConfig | None = None,
    graph: Graph | None = None,
    *,
    name: str = "circuit",
    wordings: Mapping[str, Task] | None = None,
    say: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> WorstCase:
    """Attack a circuit, and find the smallest one of the same scores that stands.

    Args:
        model, circuit: a model, and its circuit, whose edges are never replaced.
        task, held_out: prompts on which the attack is chosen, and others of the task, on which it is judged.
        config: settings (default: `AttackConfig()`).
        graph: all edges (default: those of the model).
        name: name of the circuit in the result.
        wordings: paraphrases by name, on which the attack is judged too; one that the model does not do is left out.
        say, progress: are called with the price before the attack, and after each part.
    Returns: every attack with what it leaves, and faithfulness over size in the mean and in the worst case.
    Raises:
        ConfigError: fewer than two prompts; with an ablation, the model does no better than with every edge replaced.
        MismatchError: a circuit of other weights.
        UnknownNameError: an edge that the graph lacks.

    >>> model = load_model("planted:induction")
    >>> task, held_out = make_task("induction", model, n_prompts=8).split(4)
    >>> circuit = find_circuit(model, task, FindConfig(verify=0, evaluation=EvaluationConfig(n_random=1))).circuit
    >>> attack_circuit(model, task, held_out, circuit, AttackConfig(ablations=("resample",))).stands
    True
    """
    from interp.models.adapter import weight_hash
    from interp.models.identity import model_spec

    config, graph = config or AttackConfig(), graph or Graph.from_model(model)
    if circuit.weight_hash:
        circuit.check_model(weight_hash(model))
    included = graph.members(circuit)
    done, total = 0, 2 * len(config.ablations) + 1 + config.grow

    def told(part: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total, {"part": part})

    rows, strength, tried, complete, first = [], [], 0, True, None
    for ablation in config.ablations:
        chooser = _Adversary.of(model, task, graph, ablation, config)
        if say is not None and first is None:
            say(_price(config, chooser, included, len(wordings or {})))
        removed = chooser.choose(included, config, config.budget)
        tried, complete = tried + chooser.tried, complete and chooser.complete
        told(f"{ablation}: chosen")
        judge = _Adversary.of(model, held_out, graph, ablation, config, chooser.scores)
        rows += _judged(judge, included, removed, config)
        if first is None:
            rows += _on_wordings(wordings or {}, model, chooser, included, removed, config, say)
        strength += _strengths(judge, included, config)
        told(f"{ablation}: judged")
        first = first or (chooser, judge)
    assert first is not None
    sizes = _sizes(first[1], config)
    told("sizes")
    grown, standing = _grow(*first, included, config, told)
    settings = AttackSettings(
        **vars(config), model=model_spec(model), weight_hash=weight_hash(model), circuit=name,
        n_edges=int(included.sum()), n_edges_of_graph=graph.n_edges, task=task.settings,
    )  # fmt: skip
    return WorstCase(
        settings=settings, tried=tried, complete=complete, attacks=Table.of(Attack, rows),
        strength=Table.of(Strength, strength), sizes=Table.of(StandingSize, sizes), grown=grown,
        standing=None if standing is None else first[0].scores.circuit(standing),
    )  # fmt: skip


def _on_wordings(
    wordings: Mapping[str, Task],
    model: HookedModel,
    chooser: "_Adversary",
    included: Edges,
    removed: Edges,
    config: AttackConfig,
    say: Callable[[str], None] | None,
) -> list[Attack]:
    """Judge what was chosen on paraphrases; one that cannot judge is left out, and said."""
    rows, bench = [], chooser.bench
    for wording, prompts in wordings.items():
        try:
            judge = _Adversary.of(model, prompts, bench.graph, bench.ablation, config, chooser.scores)
        except ConfigError as error:
            if say is not None:
                say(f"{wording} is left out: {error}")
            continue
        rows += [replace(row, wording=wording) for row in _judged(judge, included, removed, config)]
    return rows


def _price(config: AttackConfig, chooser: "_Adversary", included: Edges, n_wordings: int) -> str:
    """Return how long the attack takes, from the seconds of one run; a step down the gradient takes about three."""
    started = perf_counter()
    chooser.values([~included])
    seconds = perf_counter() - started
    chosen = min(config.budget or 10**9, len(config.strengths) + 3 * config.gradient_steps + 2 * config.exchanges)
    judged = 5 + 2 * config.n_random
    runs = (
        len(config.ablations) * (chosen + len(config.strengths) + judged)
        + n_wordings * judged
        + 3 * len(config.fractions)
    )
    runs += config.grow * (2 * chosen + 3 * len(PATH) + 5)
    return f"about {runs} runs, {seconds:.1f} s each: about {max(1, round(runs * seconds / 60))} min"


@dataclass
class _Adversary:
    """One ablation on the prompts of a task, with scores of all edges."""

    bench: Bench
    scores: EdgeScores
    full: np.ndarray
    empty: np.ndarray
    """metric per prompt of the model, and with every edge replaced"""
    tried: int = 0
    complete: bool = True

    @classmethod
    def of(
        cls,
        model: HookedModel,
        task: Task,
        graph: Graph,
        ablation: Ablation,
        config: AttackConfig,
        scores: EdgeScores | None = None,
    ) -> "_Adversary":
        if task.n_prompts < 2:
            raise ConfigError(f"an attack needs at least 2 prompts for its intervals, got {task.n_prompts}; give more")
        bench = Bench(model, graph, task, ablation=ablation, batch_size=config.batch_size)
        scores = scores or attribute(model, task, graph, ablation=ablation, batch_size=config.batch_size)
        full, empty = bench.values([bench.everything(True), bench.everything(False)]).numpy()
        check_ends(full, empty, ablation)
        return cls(bench, scores, full, empty)

    def values(self, removed: Sequence[Edges]) -> np.ndarray:
        """Return the metric with these edges replaced, `[n, n_prompts]`."""
        return self.bench.values([~edges for edges in removed]).numpy()

    def left(self, removed: Sequence[Edges]) -> np.ndarray:
        """Return the faithfulness that is left with these edges replaced, `[n]`."""
        self.tried += len(removed)
        return faithfulness(self.values(removed), self.empty, self.full)

    def helpers(self, included: Edges, share: float = 1.0) -> Edges:
        """Return a share of the helpers outside a circuit, strongest first."""
        values = self.scores.values.masked_fill(included, 0)
        strongest = values.argsort(descending=True, stable=True)[: round(share * int((values > 0).sum()))]
        chosen = torch.zeros(len(values), dtype=torch.bool)
        chosen[strongest] = True
        return chosen

    def choose(self, included: Edges, config: AttackConfig, budget: int | None = None) -> Edges:
        """Return the edges outside a circuit whose replacement leaves least, of at most `budget` sets."""
        exchanges, gradient_steps = config.exchanges, config.gradient_steps
        source, reader = (torch.as_tensor(self.bench.graph.edge_table)[:, at] for at in (2, 1))
        options = [self.helpers(included, share) for share in reversed(config.strengths)]
        options += [(reader == end) & ~included for end in self._heaviest(reader, included)[:exchanges]]
        nodes = self._heaviest(source, included)[:exchanges]
        whole = exchanges > 0 and gradient_steps > 0
        self.complete = whole and (budget is None or budget >= len(options) + gradient_steps + len(nodes))
        options = options[:budget]
        values = self.left(options)
        best = int(values.argmin())
        removed, least = options[best], float(values[best])
        for candidate in self.descend(included, removed, self._within(budget, gradient_steps)):
            value = float(self.left([candidate])[0])
            if value < least:
                removed, least = candidate, value
        for node in nodes[: self._within(budget, len(nodes))]:
            of_node = (source == node) & ~included
            mostly = bool(removed[of_node].double().mean() > 0.5) if of_node.any() else False
            candidate = removed & ~of_node if mostly else removed | of_node
            value = float(self.left([candidate])[0])
            if value < least:
                removed, least = candidate, value
        return removed

    def _heaviest(self, end: Int64[Tensor, " n_edges"], included: Edges) -> list[int]:
        """Return one end of the edges, sources or readers, by the sum of their outside scores, the largest first."""
        weight = torch.zeros(int(end.max()) + 1, dtype=torch.float64)
        weight.index_add_(0, end, self.scores.values.abs().masked_fill(included, 0))
        return weight.argsort(descending=True).tolist()

    def _within(self, budget: int | None, n: int) -> int:
        """Return how many of `n` tries are left in the budget."""
        return n if budget is None else min(n, budget - self.tried)

    def descend(self, included: Edges, start: Edges, steps: int) -> Iterator[Edges]:
        """Yield edges outside a circuit that steps down the gradient replace by more than half.

        Parts start at 0.8 of `start` and 0.2 of the other edges; a step moves each by 0.4 against its gradient.
        """
        parts = 0.2 + 0.6 * start.double()
        for _ in range(steps):
            gradient = torch.zeros_like(parts)
            for batch in self.bench.batches():
                replacement = self.bench.replacement(batch)
                gradient += metric_and_gradient(batch, self.bench.graph, parts.masked_fill(included, 0), replacement)[1]
            parts = (parts - 0.4 * gradient.sign()).clamp(0, 1)
            yield (parts > 0.5) & ~included

    def lacked(self, removed: Edges, n: int) -> Edges:
        """Return the `n` of the replaced edges whose return raises the metric most, by the gradient along `PATH`."""
        slope = torch.zeros(len(removed), dtype=torch.float64)
        for batch in self.bench.batches():
            replacement = self.bench.replacement(batch)
            for part in PATH:
                slope += metric_and_gradient(batch, self.bench.graph, part * removed.double(), replacement)[1]
        chosen = torch.zeros_like(removed)
        chosen[slope.masked_fill(~removed, torch.inf).argsort(stable=True)[: min(n, int(removed.sum()))]] = True
        return chosen


def _judged(judge: _Adversary, included: Edges, removed: Edges, config: AttackConfig) -> list[Attack]:
    """Measure the chosen edges beside other sets and the nulls, on prompts that did not choose."""
    outside, scores = ~included, judge.scores.values
    generator = make_generator(config.seed, "attack of a circuit")

    def some(n: int) -> Edges:
        members = outside.nonzero()[:, 0]
        chosen = torch.zeros_like(outside)
        chosen[members[torch.randperm(len(members), generator=generator)[:n]]] = True
        return chosen

    sets = {
        EVERYTHING: outside,
        HALF: some(int(outside.sum()) // 2),
        HURTERS: outside & (scores < 0),
        HELPERS: judge.helpers(included),
        CHOSEN: removed,
    }
    values = judge.values(list(sets.values()))
    ends = faithfulness_interval(values, judge.empty, judge.full, seed=config.seed)
    rows = [
        Attack(
            ablation=judge.bench.ablation,
            wording="",
            what=what,
            n_removed=int(edges.sum()),
            left=float(ends.estimate[i]),
            low=float(ends.low[i]),
            high=float(ends.high[i]),
            lost=float((values[i] < (judge.empty + judge.full) / 2)[judge.full > judge.empty].mean()),
        )
        for i, (what, edges) in enumerate(sets.items())
    ]
    circuits = [random_circuit(judge.bench.graph, int(included.sum()), generator) for _ in range(config.n_random)]
    nulls = {
        RANDOM_EDGES: [some(int(removed.sum())) for _ in range(config.n_random)],
        RANDOM_CIRCUITS: [judge.helpers(circuit) for circuit in circuits],
    }
    for what, draws in nulls.items():
        left = judge.left(draws)
        size = round(float(np.mean([int(edges.sum()) for edges in draws])))
        rows.append(
            Attack(
                ablation=judge.bench.ablation,
                wording="",
                what=what,
                n_removed=size,
                left=float(left.mean()),
                low=float(left.min()),
                high=float(left.max()),
                lost=float("nan"),
            )
        )
    return rows


def _strengths(judge: _Adversary, included: Edges, config: AttackConfig) -> list[Strength]:
    """Return what is left when the strongest helpers are replaced, from few to all."""
    parts = [judge.helpers(included, share) for share in config.strengths]
    return [
        Strength(ablation=judge.bench.ablation, n_removed=int(part.sum()), left=left)
        for part, left in zip(parts, judge.left(parts).tolist(), strict=True)
    ]


def _sizes(judge: _Adversary, config: AttackConfig) -> list[StandingSize]:
    """Return mean and worst case of the circuits of the highest-ranked edges."""
    circuits = [judge.scores.mask(round(fraction * len(judge.scores))) for fraction in config.fractions]
    sets = [[~kept, judge.helpers(kept), judge.helpers(kept, 0.25)] for kept in circuits]
    left = judge.left([edges for group in sets for edges in group]).reshape(-1, 3)
    return [
        StandingSize(n_edges=int(kept.sum()), mean=float(row[0]), worst=float(row.min()))
        for kept, row in zip(circuits, left, strict=True)
    ]


def _grow(
    chooser: _Adversary, judge: _Adversary, included: Edges, config: AttackConfig, report: Callable[[str], None]
) -> tuple[tuple[Grown, ...], Edges | None]:
    """Add edges that the adversary replaces until it leaves enough; return every circuit, and the one that stands."""
    rows, kept = [], included
    for _ in range(config.grow):
        removed = chooser.choose(kept, config)
        stands = chooser.left([removed, ~kept]).min() >= config.faithfulness
        rows.append(_grown(chooser, judge, kept, removed, config))
        report(f"search: {rows[-1].n_edges:,} edges")
        if stands:
            return tuple(rows), kept
        kept = kept | chooser.lacked(removed, max(1, int(kept.sum()) // 2))
    return tuple(rows), None


def _grown(chooser: _Adversary, judge: _Adversary, kept: Edges, removed: Edges, config: AttackConfig) -> Grown:
    """Judge a circuit of the search, and as many highest-ranked edges, on prompts that did not choose them."""
    ranked = chooser.scores.mask(int(kept.sum()))
    baseline = chooser.choose(ranked, config)
    values = judge.values([removed, ~kept, baseline])
    ends = faithfulness_interval(values, judge.empty, judge.full, seed=config.seed)
    return Grown(
        n_edges=int(kept.sum()), mean=float(ends.estimate[1]), worst=float(ends.estimate[0]), low=float(ends.low[0]),
        high=float(ends.high[0]), ranked=float(ends.estimate[2]),
    )  # fmt: skip
