"""Feature circuits: found from SAEs and a task, and judged against nulls.

    found = find_feature_circuit(model, [sae_9, sae_15], task)
    found.evaluation.faithfulness, found.agreement.spearman

1. Effects: every active feature and every error node is attributed an effect. The strongest features of each site
   become nodes.
2. Edges: the edges among nodes are scored with gradients. The circuit retains the strongest.
3. Patching: the strongest edges and the same number of random ones are patched one by one, which tests the scores.
4. Ablation: faithfulness of the nodes is measured with everything else ablated, with and without error nodes. The nulls
   are random active features, untrained SAEs of the same size, and an untrained model.
5. Worst case: features outside may help and hurt, and cancel. An adversary replaces only those with an effect above 0,
   the strongest of them or all; the error nodes and the hurters stay. Random circuits are attacked in the same way.

**Ablation of all but a set** (`FeatureBench`). At every site the SAE reads the residual stream of this run. Features in
the set have the activation that the SAE then gives them; all others have a replacement. The error node has its value in
this run, or its replacement. With every feature and error in the set, the run equals the unchanged model. Replacements:

- `resample`: the value on the corrupted prompt;
- `mean`: the mean over corrupted prompts at the same position (over the prompts themselves if none are corrupted);
- `zero`: zero.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.artifacts import Table
from interp.circuits.circuit import Circuit, Edge, Node, NodeEffect
from interp.circuits.config import Ablation
from interp.circuits.found_circuit import ScoredEdge, ScoredNode, UntrainedGap, Verdict
from interp.circuits.judging import (
    EMPTY,
    FULL,
    RANDOM,
    check_ablation,
    faithfulness,
    faithfulness_interval,
    judge,
    pick,
    prompt_texts,
    untrained_gap,
    verdict,
)
from interp.dictionary import SparseActs
from interp.errors import ConfigError
from interp.models.adapter import weight_hash
from interp.models.hooked import HookedModel
from interp.models.identity import model_spec
from interp.nulls import DRAWS
from interp.patching.task import Task
from interp.progress import Progress
from interp.seeds import derive_seed, make_generator
from interp.statistics import Interval, rank_correlation, rank_correlation_interval
from saes.circuits.attribution import BatchTraces, Edges, Ends, FeatureNode, Network, edge_scores, exact_edges, measure
from saes.circuits.feature_circuit import (
    EdgeAgreement,
    FeatureCircuit,
    FeatureCircuitConfig,
    FeatureCircuitSettings,
    FeaturesAttacked,
    HelpersReplaced,
    NodesEvaluation,
    UntrainedDictionaries,
)
from saes.circuits.sites import MeasuredPrompts, NonzeroActivations, Replace, SAESite, SiteTrace, metric_with, sum_by
from saes.evaluation.baselines import random_dictionary_like
from saes.kinds.base import SAE


@dataclass(frozen=True, eq=False)
class NodeSet:
    """Features and errors that are not ablated."""

    features: tuple[Tensor, ...]
    """one mask per site, `[d_sae]` bool"""
    errors: tuple[bool, ...]
    """one flag per site"""


class _Replacement(NamedTuple):
    """Replacement of ablated features and of the error at a site; rows are `[batch * pos]`, or `[pos]` for a mean."""

    entries: NonzeroActivations
    error: Tensor
    """`[n_rows, d_out]`"""


class FeatureBench:
    """Runs of a network's prompts with all features outside a set ablated.

    Raises `ConfigError` for `resample` without corrupted prompts.
    """

    def __init__(self, network: Network, ablation: Ablation = "resample"):
        check_ablation(ablation)
        if ablation == "resample" and network.batches[0].prompts.corrupt is None:
            raise ConfigError("resample ablation needs corrupted prompts, got none; use ablation='mean' or 'zero'")
        self.network = network
        self.ablation: Ablation = ablation
        sites = range(len(network.sites))
        self._means = [_mean(network, i) for i in sites] if ablation == "mean" else None

    def nodes(self, nodes: Sequence[FeatureNode]) -> NodeSet:
        """Return the set of some features and errors."""
        features = [torch.zeros(site.sae.d_sae, dtype=torch.bool) for site in self.network.sites]
        errors = [False] * len(features)
        for site, feature in nodes:
            if feature is None:
                errors[site] = True
            else:
                features[site][feature] = True
        return NodeSet(tuple(features), tuple(errors))

    def all_features(self, *, errors: bool) -> NodeSet:
        """Return the set of every feature, with or without every error."""
        n = len(self.network.sites)
        return NodeSet(tuple(torch.ones(s.sae.d_sae, dtype=torch.bool) for s in self.network.sites), (errors,) * n)

    def complement(self, nodes: NodeSet) -> NodeSet:
        """Return the set of all features and errors that are not in `nodes`."""
        return NodeSet(tuple(~features for features in nodes.features), tuple(not error for error in nodes.errors))

    @torch.no_grad()
    def values(self, nodes: NodeSet) -> Tensor:
        """Return the metric of a run in which everything outside `nodes` is ablated: `[n_prompts]` float64."""
        return torch.cat([self._run(batch, nodes) for batch in self.network.batches])

    def _run(self, batch: BatchTraces, nodes: NodeSet) -> Tensor:
        replace = []
        for i, trace in enumerate(batch.traces):
            replacement = self._means[i] if self._means else _replacement(trace, self.ablation)
            replace.append(_ablate(trace, nodes.features[i].to(trace.x.device), nodes.errors[i], replacement))
        return metric_with(self.network.model, self.network.sites, batch.prompts, replace)


def _ablate(trace: SiteTrace, features: Tensor, error: bool, replacement: _Replacement) -> Replace:
    """Return the replacement at a site that ablates everything outside `features`, and the error unless `error`."""
    site, pos = trace.site, trace.mask.shape[1]
    outside = replacement.entries.take(~features[replacement.entries.feature])
    ablated = _decode(site, outside, len(replacement.error)).view(-1, pos, site.sae.d_out)
    replaced_error = replacement.error.view(-1, pos, site.sae.d_out)

    def replace(x: Tensor, value: Tensor) -> Tensor:
        acts = site.sae.encode_sparse(x.flatten(0, 1))
        inside = SparseActs(acts.values * features[acts.indices.long()], acts.indices)
        recons = site.sae.decode_sparse(inside).view(value.shape) + ablated
        error_node = replaced_error
        if error:
            error_node = value - site.sae.complete(site.sae.decode_sparse(acts).view(value.shape), x)
        return torch.where(trace.mask[..., None], site.sae.complete(recons, x) + error_node, value)

    return replace


def _replacement(trace: SiteTrace, ablation: Ablation) -> _Replacement:
    if ablation == "zero" or trace.base is None or trace.base_entries is None:
        empty = torch.zeros(0, dtype=torch.long, device=trace.x.device)
        return _Replacement(NonzeroActivations(empty, empty, empty.float()), torch.zeros_like(trace.parts.error))
    return _Replacement(trace.base_entries, trace.base[1].error)


def _mean(network: Network, i: int) -> _Replacement:
    """Return the mean activations and error at each position of site `i`, over prompts that have that position."""
    traces = [batch.traces[i] for batch in network.batches]
    site, pos = network.sites[i], traces[0].mask.shape[1]
    count = torch.stack([trace.mask.sum(0) for trace in traces]).sum(0).clamp_min(1)
    sources = [(t.entries, t.parts) if t.base is None else (t.base_entries, t.base[1]) for t in traces]
    d_sae = site.sae.d_sae
    keys = torch.cat([entries.row % pos * d_sae + entries.feature for entries, _ in sources if entries is not None])
    values = torch.cat([entries.value for entries, _ in sources if entries is not None])
    unique_keys, index = keys.unique(return_inverse=True)
    row, feature = unique_keys // d_sae, unique_keys % d_sae
    mean = (sum_by(index, values, len(unique_keys)) / count[row]).to(values)
    error = torch.stack([parts.error.view(-1, pos, site.sae.d_out).sum(0) for _, parts in sources]).sum(0)
    return _Replacement(NonzeroActivations(row, feature, mean), error / count[:, None])


def _decode(site: SAESite, entries: NonzeroActivations, n_rows: int) -> Tensor:
    """Return the sum of decoder rows times activations for each row, without `b_dec`: `[n_rows, d_out]`."""
    W_dec = site.sae.W_dec
    total = torch.zeros(n_rows, site.sae.d_out, dtype=W_dec.dtype, device=W_dec.device)
    for part in torch.arange(len(entries.row), device=total.device).split(1 << 14):
        total.index_add_(0, entries.row[part], W_dec[entries.feature[part]] * entries.value[part, None])
    return total


RULE = (
    "the low end of the 95 % interval of its faithfulness with error nodes lies above the 97.5 % quantile of the same "
    "number of random active features with the same error nodes; by that low end its features add more to the error "
    "nodes than the same number of features of untrained dictionaries add to theirs; and the gap of an untrained model "
    "is below a tenth of this model's"
)
"""Rule of the verdict."""
Step = Callable[[str], Progress | None]
"""Function from the name of a step to its progress callback."""


def find_feature_circuit(
    model: HookedModel,
    saes: Sequence[SAE],
    task: Task,
    config: FeatureCircuitConfig | None = None,
    *,
    labels: Sequence[Sequence[str]] | None = None,
    progress: Step | None = None,
) -> FeatureCircuit:
    """Find and judge the circuit of a task in the features of several SAEs of one model.

    `saes` give the features; `task` gives prompts and metric.

    `labels` are labels of features, one list for each SAE, in the order given. `progress(step name)` returns the
    callback of each step. Raises as `measure` does.
    """
    config = config or FeatureCircuitConfig()
    step = progress or (lambda name: None)
    prompts = MeasuredPrompts.of_task(task)
    network = measure(model, saes, prompts, config.attribution, progress=step("effects of features"))
    nodes = network.strongest(config.n_features)
    scores = edge_scores(network, nodes, progress=step("edges"))
    strongest = sorted(scores, key=lambda edge: -abs(scores[edge]))[: config.n_edges]
    strongest = [edge for edge in strongest if scores[edge] != 0]
    exact, agreement = _check_edges(network, scores, strongest, config, step("patching edges"))
    evaluation = evaluate_nodes(network, nodes, config)
    untrained_saes = _untrained_saes(network, prompts, config) if config.nulls else None
    untrained = untrained_gap(model, task, config.seed) if config.nulls else None
    circuit = Circuit.of(
        model_spec(model),
        weight_hash(model),
        [Edge(network.name(ends[0]), network.name(ends[1]), score=scores[ends]) for ends in strongest],
        _nodes(network, nodes, saes, labels),
    )
    return FeatureCircuit(
        settings=FeatureCircuitSettings(
            **vars(config),
            model=circuit.model,
            weight_hash=circuit.weight_hash,
            frozen=None,
            task=task.settings,
            hook_points=tuple(site.writes for site in network.sites),
        ),
        circuit=circuit,
        verdict=_verdict(evaluation, untrained_saes, untrained),
        evaluation=evaluation,
        agreement=agreement,
        untrained_saes=untrained_saes,
        untrained=untrained,
        attacked=attack_nodes(network, nodes, config),
        prompts=prompt_texts(model, task),
        edge_scores=_edge_table(network, scores, exact),
        node_scores=_node_table(network),
    )


def evaluate_nodes(network: Network, nodes: Sequence[FeatureNode], config: FeatureCircuitConfig) -> NodesEvaluation:
    """Measure the faithfulness of some features, `(m(C) - m(0)) / (m(M) - m(0))`.

    `m(C)` is the metric with everything but the features ablated, `m(0)` with everything ablated, `m(M)` that of the
    model: 1 is as good as the model, 0 as everything ablated. `faithfulness` includes the error nodes of every site;
    `without_errors` includes none. `errors_alone` is the faithfulness of the error nodes alone, `all_features` that of
    all features without error nodes. `completeness` is the faithfulness of the complement of the circuit: 0 when
    nothing outside it contributes to the task.
    """
    bench = FeatureBench(network, config.ablation)
    features = [node for node in nodes if node.feature is not None]
    errors = [FeatureNode(i, None) for i in range(len(network.sites))]
    generator = make_generator(config.seed, "random features")
    random = [_random_like(network, features, generator) for _ in range(config.n_random)]
    with_errors = bench.nodes([*features, *errors])
    runs: dict[str, list[NodeSet]] = {
        FULL: [bench.all_features(errors=True)],
        EMPTY: [bench.nodes([])],
        "circuit": [with_errors],
        "without_errors": [bench.nodes(features)],
        "errors_alone": [bench.nodes(errors)],
        "all_features": [bench.all_features(errors=False)],
        "complement": [bench.complement(with_errors)],
        RANDOM: [bench.nodes([*chosen, *errors]) for chosen in random],
    }
    values = {name: np.stack([bench.values(nodes).numpy() for nodes in sets]) for name, sets in runs.items()}
    judged = judge(values, complement="complement", also=["without_errors"], seed=config.seed)
    return NodesEvaluation(
        full=judged.judgement.full,
        empty=judged.judgement.empty,
        faithfulness=judged.judgement.faithfulness,
        completeness=judged.judgement.completeness,
        random_circuits=judged.judgement.random_circuits,
        n_features=len(features),
        n_active=sum(map(len, network.active)),
        without_errors=judged.intervals.at(1),
        errors_alone=float(judged.f["errors_alone"][0]),
        all_features=float(judged.f["all_features"][0]),
    )


STRENGTHS = (1 / 16, 1 / 4, 1.0)
"""Shares of the helpers that are replaced, strongest first."""


def attack_nodes(
    network: Network, nodes: Sequence[FeatureNode], config: FeatureCircuitConfig
) -> FeaturesAttacked | None:
    """Measure the faithfulness that is left when only helpers outside a set of features are replaced.

    The numbers mean what they mean in `evaluate_nodes`. None where the whole model does no better than with everything
    ablated. Cost: a run for each strength, of the circuit and of five random ones, and seven others.
    """
    bench = FeatureBench(network, config.ablation)
    full, empty = (bench.values(ends).numpy() for ends in (bench.all_features(errors=True), bench.nodes([])))
    if not full.mean() > empty.mean():
        return None
    features = [node for node in nodes if node.feature is not None]
    generator = make_generator(config.seed, "attack of features")

    def values(replaced: Sequence[Sequence[FeatureNode]]) -> np.ndarray:
        kept = [bench.complement(bench.nodes(some)) for some in replaced]
        return np.stack([bench.values(nodes).numpy() for nodes in kept])

    helpers, strengths = _helpers(network, features), ()
    drawn, circuits, outsiders = min(config.n_random, DRAWS["quick"]), [], []
    if helpers:
        attacks = _strongest(helpers)
        ends = faithfulness_interval(values(attacks), empty, full, seed=config.seed)
        strengths = tuple(HelpersReplaced(n=len(some), left=ends.at(i)) for i, some in enumerate(attacks))
        for _ in range(drawn):
            others = _strongest(_helpers(network, _random_like(network, features, generator)))
            circuits.append(float(faithfulness(values(others or [[]]), empty, full).min()))
        removed = attacks[int(np.argmin(ends.estimate))]
        random = [_random_like(network, removed, generator, but=features) for _ in range(drawn)]
        outsiders = faithfulness(values(random), empty, full).tolist()
    return FeaturesAttacked(
        n_outside=sum(map(len, network.active)) - len(features),
        n_helpers=len(helpers),
        strengths=strengths,
        random_circuits=tuple(circuits),
        random_outsiders=tuple(outsiders),
    )


def _helpers(network: Network, features: Collection[FeatureNode]) -> list[FeatureNode]:
    """Return features outside a set that help the metric, the strongest first."""
    inside = set(features)
    every = [
        FeatureNode(i, at) for i, effects in enumerate(network.effects) for at in (effects > 0).nonzero()[:, 0].tolist()
    ]
    return sorted((node for node in every if node not in inside), key=lambda node: -network.effect(node))


def _strongest(helpers: list[FeatureNode]) -> list[list[FeatureNode]]:
    """Return the strongest helpers, for each of the shares that names a different number of them."""
    sizes = {math.ceil(share * len(helpers)) for share in STRENGTHS} - {0}
    return [helpers[:n] for n in sorted(sizes)]


def _check_edges(
    network: Network, scores: Edges, strongest: list[Ends], config: FeatureCircuitConfig, progress: Progress | None
) -> tuple[dict[Ends, float], EdgeAgreement | None]:
    """Patch the strongest edges one by one, and the same number of random edges between active features."""
    n = min(config.verify, len(strongest))
    if not n:
        return {}, None
    best = strongest[:n]
    generator = make_generator(config.seed, "random edges")
    random = [_random_edge(network, generator) for _ in range(n)]
    effects = exact_edges(network, [*best, *random], progress=progress)
    spearman, spearman_abs = Interval(math.nan, math.nan, math.nan), None
    if n >= 3:
        scored, exact = np.array([scores[edge] for edge in best]), effects[:n].double().cpu().numpy()
        rng = np.random.default_rng(derive_seed(config.seed, "rank agreement"))
        spearman = rank_correlation_interval(scored, exact, rng=rng)
        sizes = rank_correlation(np.abs(scored), np.abs(exact))
        spearman_abs = sizes if math.isfinite(sizes) else None
    return dict(zip(best, effects[:n].tolist(), strict=True)), EdgeAgreement(
        n=n,
        spearman=spearman,
        spearman_abs=spearman_abs,
        mean_abs_exact=float(effects[:n].abs().mean()),
        random_mean_abs_exact=float(effects[n:].abs().mean()),
        random_as_strong=float((effects[n:].abs() >= effects[:n].abs().median()).double().mean()),
    )


def _random_edge(network: Network, generator: torch.Generator) -> Ends:
    """Draw an edge between active features, or from one to the logits, uniformly over pairs of earlier and later."""
    n = len(network.sites)
    pairs = [(s, t) for s in range(n) for t in range(s + 1, n + 1)]
    source, target = pairs[pick(len(pairs), generator)]
    ends = [None if i == n else _random_feature(network, i, generator) for i in (source, target)]
    assert ends[0] is not None
    return ends[0], ends[1]


def _random_feature(network: Network, site: int, generator: torch.Generator) -> FeatureNode:
    active = network.active[site]
    return FeatureNode(site, int(active[pick(len(active), generator)]))


def _random_like(
    network: Network, nodes: list[FeatureNode], generator: torch.Generator, but: Collection[FeatureNode] = ()
) -> list[FeatureNode]:
    """Draw active features at random, the same number at each site as in `nodes`, none of `but`."""
    chosen = []
    for i, active in enumerate(network.active):
        n = sum(node.site == i for node in nodes)
        others = [node.feature for node in but if node.site == i and node.feature is not None]
        active = active[~torch.isin(active, torch.tensor(others, dtype=active.dtype))]
        order = torch.randperm(len(active), generator=generator)[:n]
        chosen += [FeatureNode(i, int(feature)) for feature in active[order]]
    return chosen


def _untrained_saes(network: Network, prompts: MeasuredPrompts, config: FeatureCircuitConfig) -> UntrainedDictionaries:
    """Evaluate untrained dictionaries of random directions: the null for features and error nodes."""
    saes = [
        random_dictionary_like(site.sae, k=_l0(network, i), seed=config.seed) for i, site in enumerate(network.sites)
    ]
    untrained = measure(network.model, saes, prompts, config.attribution)
    evaluation = evaluate_nodes(untrained, untrained.strongest(config.n_features), replace(config, n_random=1))
    return UntrainedDictionaries(
        faithfulness=evaluation.faithfulness.estimate,
        without_errors=evaluation.without_errors.estimate,
        errors_alone=evaluation.errors_alone,
        all_features=evaluation.all_features,
    )


def _l0(network: Network, site: int) -> int:
    rows = sum(int(batch.traces[site].mask.sum()) for batch in network.batches)
    active = sum(len(batch.traces[site].entries.row) for batch in network.batches)
    return max(1, round(active / max(1, rows)))


def _nodes(
    network: Network, nodes: list[FeatureNode], saes: Sequence[SAE], labels: Sequence[Sequence[str]] | None
) -> list[Node]:
    graph_nodes = []
    for node in nodes:
        label = None
        if labels is not None and node.feature is not None:
            names = labels[[id(sae) for sae in saes].index(id(network.sites[node.site].sae))]
            label = names[node.feature] if node.feature < len(names) else None
        evidence = NodeEffect(effect=network.effect(node), label=label)
        graph_nodes.append(Node(network.name(node), "error" if node.feature is None else None, evidence=evidence))
    return graph_nodes


def _verdict(e: NodesEvaluation, untrained: UntrainedDictionaries | None, gap: UntrainedGap | None) -> Verdict:
    null = e.random_circuits
    assert null is not None, "at least one random circuit is drawn"
    reason = (
        f"{e.n_features} of {e.n_active} active features: faithfulness {e.faithfulness:.2f} with error nodes, "
        f"{e.without_errors.estimate:.2f} without; error nodes alone {e.errors_alone:.2f}, random features with error "
        f"nodes {null.mean:.2f} ({null.low:.2f} to {null.high:.2f})"
    )
    if gap is None or untrained is None:
        return verdict(RULE, f"{reason}; untrained dictionaries and model were not run", None, None)
    low = e.faithfulness.low
    added, others = low - e.errors_alone, untrained.faithfulness - untrained.errors_alone
    reason += (
        f"; untrained dictionaries {untrained.faithfulness:.2f}, their error nodes alone {untrained.errors_alone:.2f}; "
        f"gap of an untrained model {gap.gap:.3g}, of this one {gap.gap_of_model:.3g}"
    )
    return verdict(RULE, reason, low > null.high and added > others, gap)


MAX_FEATURES = 5000
"""Largest number of features of each site whose scores are stored, strongest first."""


def _edge_table(network: Network, scores: Edges, exact: dict[Ends, float]) -> Table[ScoredEdge]:
    """Return every scored edge, strongest first."""
    rows = [
        ScoredEdge(
            source=network.name(source),
            target=network.name(target),
            score=scores[source, target],
            exact=exact.get((source, target)),
            via=None,
            position=None,
            low=None,
            high=None,
        )
        for source, target in sorted(scores, key=lambda edge: -abs(scores[edge]))
    ]
    return Table.of(ScoredEdge, rows)


def _node_table(network: Network) -> Table[ScoredNode]:
    """Return every error node and the strongest active features of each site, strongest first."""
    nodes = sorted(network.strongest(MAX_FEATURES), key=lambda node: -abs(network.effect(node)))
    rows = [
        ScoredNode(node=network.name(node), score=network.effect(node), position=None, exact=None, low=None, high=None)
        for node in nodes
    ]
    return Table.of(ScoredNode, rows)
