"""Attribution of a metric to features: the effect of every active feature, and of every edge between features.

    effect = (activation on the prompt - activation in the baseline) * d metric / d activation

The baseline is the corrupted prompt, or without one the SAE with all features and its error set to zero. There are two
methods. `gradient` takes the gradient on the prompt itself (attribution patching). `ig` takes the mean gradient on the
straight line from the baseline's value to the prompt's: the integrated gradients of sparse feature circuits (Marks et
al. 2024, arXiv 2403.19647).

A positive effect helps the metric. It estimates `m(prompt) - m(prompt with that feature as in the baseline)`, signed
like edge scores here; the paper's indirect effect has the opposite sign. The reconstruction error of the SAE is a node
like any feature, the *error node*. Features, error and rest add up to `m(prompt) - m(baseline)`: exactly where the
metric is linear in the value, and with `ig` up to the discretisation by `steps`. `gap` is the difference.

The two methods answer different questions. Where a model is certain of its answer, ablating a single feature changes
little, and `gradient` ranks such ablations well. `ig` divides the metric's whole fall from prompt to baseline among the
features, and ranks them differently.

One forward and one backward pass serve all positions and, with `gradient`, all SAEs; `ig` takes `steps` passes for each
SAE. Only active features are held in memory.

An **edge** between features is the direct effect of an earlier node on a later one, times its effect on the metric.

**Scores from gradients** (`edge_scores`). For an earlier node `u` and a later node `d`:

    score(u -> d) = sum over positions of (change of u) * d d/d u * d metric/d d

The values that sites in between write are frozen, so that every path is counted once (Marks et al. 2024, arXiv
2403.19647, section 3). Terms of a site outside its nodes, a skip connection or a token's own scale, are not frozen. An
edge to `logits` is the part of a feature's effect that passes through no later site.

With gradients taken on the prompts themselves, the chain rule is exact: the effect of a node is the sum of its edges to
all nodes of later sites, errors included, and to the logits. The cost is one forward pass for each earlier site and one
backward pass for each later node, for any number of earlier nodes and positions.

One kind of edge is missing. A feature that is inactive on the prompts and active on the corrupted prompts has an
effect, but its gradient on the prompts is zero, so no edge leads to it.

**Exact effects by patching** (`exact_edges`), which the scores estimate:

1. The earlier node is set to its baseline, and sites in between are frozen at their values on the prompt. The later
   node takes the activation (or error) that it then has: the direct effect, thresholds included.
2. The model runs on the prompt with only that activation patched, which gives the change of the metric.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.models.passes import read_hook
from interp.names import feature_node
from interp.patching.task import Task
from interp.progress import Progress
from interp.results import ROWS, Record, Result
from saes.circuits.feature_circuit import AttributionConfig
from saes.circuits.sites import (
    MeasuredPrompts,
    NonzeroActivations,
    Replace,
    SAESite,
    SiteTrace,
    activation_of,
    metric_with,
    open_sites,
    put,
    run_sites,
    sum_by,
    trace_sites,
)
from saes.kinds.base import SAE, one_layer


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureAttribution(Result):
    """Effects of the features of one SAE, in units of the metric.

    The tensors of length `m` have one entry per prompt, position and active feature.
    """

    site: SAESite
    prompt: Int64[Tensor, " m"]
    """`[m]` int64: index of the prompt"""
    position: Int64[Tensor, " m"]
    """`[m]` int64"""
    feature: Int64[Tensor, " m"]
    """`[m]` int64: latent of the SAE"""
    activation: Float[Tensor, " m"]
    """`[m]`: activation on the prompt; 0 for a feature that is active on the corrupted prompt only"""
    effect: Float[Tensor, " m"]
    """`[m]`: above 0, the feature helps the metric"""
    error: Float[Tensor, "n_prompts pos"]
    """`[n_prompts, pos]`: effect of the error node"""
    rest: Float[Tensor, "n_prompts pos"]
    """`[n_prompts, pos]`: effect of a skip connection or a token's own scale, if the corrupted prompt changes them"""
    metric: Float[Tensor, " n_prompts"]
    """`[n_prompts]`: metric on the prompts"""
    baseline: Float[Tensor, " n_prompts"]
    """`[n_prompts]`: metric with the value at the site as in the baseline, and all later layers recomputed"""
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def by_feature(self) -> Float64[Tensor, " d_sae"]:
        """Effects summed over positions, mean over prompts: `[d_sae]` float64."""
        return sum_by(self.feature, self.effect, self.site.sae.d_sae) / len(self.metric)

    @property
    def explained(self) -> float:
        """Summed effect of all features, mean over prompts."""
        return float(self.effect.double().sum()) / len(self.metric)

    @property
    def error_effect(self) -> float:
        """Summed effect of the error, mean over prompts."""
        return float(self.error.double().sum()) / len(self.metric)

    @property
    def total(self) -> float:
        """Change of the metric to be explained, `m(prompt) - m(baseline)`, mean over prompts."""
        return float((self.metric - self.baseline).mean())

    @property
    def gap(self) -> float:
        """`total` minus all effects: 0 where the metric is linear in the value at the site."""
        return self.total - self.explained - self.error_effect - float(self.rest.double().sum()) / len(self.metric)

    def top(self, n: int) -> list[tuple[int, float]]:
        """Return the `n` features with the largest absolute effects, and these effects; effects of 0 are left out."""
        effects = self.by_feature
        order = effects.abs().argsort(descending=True, stable=True)[:n].tolist()
        return [(feature, float(effects[feature])) for feature in order if effects[feature] != 0]

    def to_records(self) -> list[Record]:
        """Return one row per prompt, position and active feature: `prompt, position, feature, activation, effect`."""
        names = ("prompt", "position", "feature", "activation", "effect")
        columns = [getattr(self, name).tolist() for name in names]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def headline(self) -> str:
        """Report the shares of features, reconstruction error and rest in the change of the metric."""
        return (
            f"Attribution to features at {self.site.reads}: of {self.total:+.3f}, features {self.explained:+.3f}, "
            f"reconstruction error {self.error_effect:+.3f}, rest {self.gap:+.3f} (mean of {len(self.metric)} prompts)"
        )

    def shown(self) -> list[Record]:
        """Return the features with the largest effects, summed over positions, mean over prompts."""
        return [{"feature": feature, "effect": effect} for feature, effect in self.top(ROWS)]


def attribute(
    model: HookedModel,
    saes: SAE | Sequence[SAE],
    prompts: MeasuredPrompts | Task,
    config: AttributionConfig | None = None,
    *,
    progress: Progress | None = None,
) -> list[FeatureAttribution]:
    """Measure the effects of each SAE's features on the metric, in the order in which the model computes them.

    Each SAE is measured in the unchanged model, so effects at several sites count the same path more than once.

    Args:
        saes: one SAE or several.
        prompts: a task, or prompts with a metric.
        config: number of steps between the prompt and its baseline (default: `AttributionConfig()`).
    Returns: for each SAE the effect of every active feature and of the reconstruction error, in units of the metric.
    Raises:
        MismatchError, ConfigError: an SAE that does not fit the model, as `open_sites` does.
        ConfigError: a metric whose gradient is zero on the prompts themselves.

    >>> roses = MeasuredPrompts.of_text(model, "Roses are red, violets are", "b")
    >>> [shares] = attribute_features(model, sae, roses, AttributionConfig(steps=2))
    >>> shares.site.reads, shares.effect.shape == shares.feature.shape
    ('blocks.0.hook_resid_post', True)
    """
    config = config or AttributionConfig()
    prompts = MeasuredPrompts.of_task(prompts) if isinstance(prompts, Task) else prompts
    check_metric(prompts, config)
    sites = open_sites(model, [saes] if isinstance(saes, SAE) else saes)
    site_batches: list[list[_Batch]] = [[] for _ in sites]
    for number, batch in enumerate(parts := prompts.batches(config.batch_size), 1):
        traces = trace_sites(model, sites, batch, first=config.first)
        gradients = metric_gradients(model, traces, batch, config)
        for i, (trace, gradient) in enumerate(zip(traces, gradients, strict=True)):
            baseline = metric_with(model, [trace.site], batch, [put(trace.start)])
            site_batches[i].append(_Batch(trace, gradient, baseline))
        if progress:
            progress(number, len(parts), {})
    settings = {**config.describe(prompts), "n_prompts": len(prompts)}
    return [_collect(batches, settings) for batches in site_batches]


def check_metric(prompts: MeasuredPrompts, config: AttributionConfig) -> None:
    """Raise `ConfigError` when the method needs a gradient that is zero on every prompt."""
    if config.method == "gradient" and prompts.metric.flat_at_clean:
        raise ConfigError(
            f"the gradient of {prompts.metric.name} is zero on the prompts themselves; use method='ig', or a metric of "
            "the answer"
        )


def metric_gradients(
    model: HookedModel, traces: Sequence[SiteTrace], prompts: MeasuredPrompts, config: AttributionConfig
) -> list[Float[Tensor, "batch pos d_out"]]:
    """Return the gradient of the metric at each site, mean over the steps of `ig`: `[batch, pos, d_out]` each."""
    if config.method == "gradient":
        return _joint_gradients(model, [trace.site for trace in traces], prompts)
    return [_path_gradient(model, trace, prompts, config.steps) for trace in traces]


def _joint_gradients(model: HookedModel, sites: Sequence[SAESite], prompts: MeasuredPrompts) -> list[Tensor]:
    """Return the gradient of the metric at every site, from one pass."""
    values: list[Tensor] = []

    def note(x: Tensor, value: Tensor) -> Tensor:
        # no gradient before the first site is needed, so the graph starts there
        values.append(value.view_as(value) if values else value.detach().requires_grad_())
        return values[-1]

    with torch.enable_grad():
        logits = run_sites(model, prompts.tokens, sites, [note] * len(sites), [read_hook(prompts.at)])
        return list(torch.autograd.grad(prompts.metric(logits).sum(), values))


def _path_gradient(model: HookedModel, trace: SiteTrace, prompts: MeasuredPrompts, steps: int) -> Tensor:
    """Return the mean gradient on the line from the baseline's value to the prompt's, at midpoints of `steps` parts."""
    total = torch.zeros_like(trace.value)
    for step in range(steps):
        at = torch.lerp(trace.start, trace.value, (step + 0.5) / steps).requires_grad_()
        with torch.enable_grad():
            logits = run_sites(model, prompts.tokens, [trace.site], [put(at)], [read_hook(prompts.at)])
            total += torch.autograd.grad(prompts.metric(logits).sum(), at)[0]
    return total / steps


class _Batch(NamedTuple):
    trace: SiteTrace
    gradient: Tensor
    baseline: Tensor


def _collect(batches: list[_Batch], settings: dict[str, object]) -> FeatureAttribution:
    """Join the batches of one site."""
    columns: dict[str, list[Tensor]] = {name: [] for name in ("prompt", "position", "feature", "activation", "effect")}
    error, rest, done = [], [], 0
    for trace, gradient, _ in batches:
        n, pos = trace.value.shape[:2]
        columns["prompt"].append(done + trace.row // pos)
        columns["position"].append(trace.row % pos)
        columns["feature"].append(trace.feature)
        columns["activation"].append(trace.activation())
        columns["effect"].append(trace.effects(gradient))
        error.append(torch.linalg.vecdot(trace.error_change, gradient))
        rest.append(torch.linalg.vecdot(trace.rest_change, gradient))
        done += n
    joined = {name: torch.cat(parts).cpu() for name, parts in columns.items()}
    return FeatureAttribution(
        site=batches[0].trace.site,
        prompt=joined["prompt"],
        position=joined["position"],
        feature=joined["feature"],
        activation=joined["activation"],
        effect=joined["effect"],
        error=torch.cat(error).cpu(),
        rest=torch.cat(rest).cpu(),
        metric=torch.cat([batch.trace.metric for batch in batches]),
        baseline=torch.cat([batch.baseline for batch in batches]),
        settings=settings,
    )


@torch.no_grad()
def exact_effects(
    model: HookedModel,
    sae: SAE,
    prompts: MeasuredPrompts | Task,
    features: Sequence[int],
    config: AttributionConfig | None = None,
    *,
    progress: Progress | None = None,
) -> Float64[Tensor, " n_features"]:
    """Measure `m(prompt) - m(prompt with one feature as in the baseline)` for each feature, mean over prompts.

    Returns `[n_features]` float64, the effects that `attribute` estimates. Each feature takes one run of the model,
    with all positions patched at once and the error node unchanged.
    """
    config = config or AttributionConfig()
    prompts = MeasuredPrompts.of_task(prompts) if isinstance(prompts, Task) else prompts
    _check_features(sae, features)
    [site] = open_sites(model, [sae])
    total = torch.zeros(len(features), dtype=torch.float64)
    for number, batch in enumerate(parts := prompts.batches(config.batch_size), 1):
        [trace] = trace_sites(model, [site], batch, first=config.first)
        for i, feature in enumerate(features):
            changed = metric_with(model, [site], batch, [put(trace.value + trace.change(feature))])
            total[i] += (trace.metric - changed).sum()
        if progress:
            progress(number, len(parts), {})
    return total / len(prompts)


def _check_features(sae: SAE, features: Sequence[int]) -> None:
    wrong = [feature for feature in features if not 0 <= feature < sae.d_sae]
    if wrong:
        raise ConfigError(f"feature {wrong[0]} does not exist; the SAE has features 0 to {sae.d_sae - 1}")


class FeatureNode(NamedTuple):
    """Feature of the SAE at a site, or the error node of that site."""

    site: int
    """index of the site"""
    feature: int | None
    """latent of the SAE; None is the error node"""


class BatchTraces(NamedTuple):
    """Traces and gradients of one batch of prompts."""

    prompts: MeasuredPrompts
    traces: list[SiteTrace]
    """one per site"""
    gradients: list[Tensor]
    """gradient of the metric at each site, mean over the steps: `[batch, pos, d_out]` each"""


@dataclass(frozen=True, eq=False)
class Network:
    """Sites in the order of computation, measured on all prompts; memory holds six values of each site."""

    model: HookedModel
    sites: list[SAESite]
    batches: list[BatchTraces]

    @property
    def n_prompts(self) -> int:
        """Number of prompts in all batches."""
        return sum(len(batch.prompts) for batch in self.batches)

    @cached_property
    def effects(self) -> list[Tensor]:
        """Effects of all features, summed over positions, mean over prompts: `[d_sae]` float64 per site."""
        totals = [torch.zeros(site.sae.d_sae, dtype=torch.float64) for site in self.sites]
        for batch in self.batches:
            for i, (trace, gradient) in enumerate(zip(batch.traces, batch.gradients, strict=True)):
                totals[i] += sum_by(trace.feature, trace.effects(gradient), len(totals[i])).cpu()
        return [total / self.n_prompts for total in totals]

    @cached_property
    def error_effects(self) -> list[float]:
        """Effect of the error node of each site, summed over positions, mean over prompts."""
        totals = [0.0] * len(self.sites)
        for batch in self.batches:
            for i, (trace, gradient) in enumerate(zip(batch.traces, batch.gradients, strict=True)):
                totals[i] += float((trace.error_change * gradient).double().sum())
        return [total / self.n_prompts for total in totals]

    @cached_property
    def active(self) -> list[Tensor]:
        """Features of each site that are active on any token of the prompts or the baseline, sorted."""
        columns = ([batch.traces[i].feature for batch in self.batches] for i in range(len(self.sites)))
        return [torch.cat(column).unique().cpu() for column in columns]

    def effect(self, node: FeatureNode) -> float:
        """Return the effect of a node on the metric; above 0, it helps."""
        if node.feature is None:
            return self.error_effects[node.site]
        return float(self.effects[node.site][node.feature])

    def strongest(self, n: int) -> list[FeatureNode]:
        """Return the `n` features of each site with the largest absolute effects, and every error node."""
        nodes = []
        for i, effects in enumerate(self.effects):
            order = effects.abs().argsort(descending=True, stable=True)[:n].tolist()
            nodes += [FeatureNode(i, feature) for feature in order if effects[feature] != 0]
            nodes.append(FeatureNode(i, None))
        return nodes

    def name(self, node: FeatureNode | None) -> str:
        """Return the name of a node, such as `L9resid.123` or `L9resid.error`; `logits` for None."""
        return "logits" if node is None else str(feature_node(self.sites[node.site].writes, node.feature))


def measure(
    model: HookedModel,
    saes: Sequence[SAE],
    prompts: MeasuredPrompts,
    config: AttributionConfig,
    *,
    progress: Progress | None = None,
) -> Network:
    """Trace the model on all prompts, with gradients at all sites.

    Raises as `open_sites` does, `UnknownNameError` for a hook point whose features have no node names, and
    `ConfigError` for a dictionary that is not encoded by one layer.
    """
    check_metric(prompts, config)
    for sae in saes:
        one_layer(sae)
    sites = open_sites(model, saes)
    for site in sites:
        feature_node(site.writes, None)
    batches = []
    for number, batch in enumerate(parts := prompts.batches(config.batch_size), 1):
        traces = trace_sites(model, sites, batch, first=config.first)
        batches.append(BatchTraces(batch, traces, metric_gradients(model, traces, batch, config)))
        if progress:
            progress(number, len(parts), {})
    return Network(model, sites, batches)


Edges = dict[tuple[FeatureNode, FeatureNode | None], float]
"""Scores by (earlier node, later node or None for the logits), in the metric's unit, mean over prompts."""


def edge_scores(network: Network, nodes: Sequence[FeatureNode], *, progress: Progress | None = None) -> Edges:
    """Score all edges among `nodes`, and from each of them to the logits."""
    scores: Edges = {}
    steps = [(batch, source) for batch in network.batches for source in range(len(network.sites))]
    for done, (batch, source) in enumerate(steps, 1):
        sources = [node for node in nodes if node.site == source]
        if sources:
            _add_edges(network, batch, source, sources, nodes, scores)
        if progress:
            progress(done, len(steps), {})
    return {edge: score / network.n_prompts for edge, score in scores.items()}


def _add_edges(
    network: Network,
    batch: BatchTraces,
    source: int,
    sources: list[FeatureNode],
    nodes: Sequence[FeatureNode],
    scores: Edges,
) -> None:
    """Add the scores of edges out of one site on one batch, summed over its prompts."""
    trace = batch.traces[source]
    with torch.enable_grad():
        leaf = trace.value.detach().clone().requires_grad_()
        later = [_Later(t, g) for t, g in zip(batch.traces[source + 1 :], batch.gradients[source + 1 :], strict=True)]
        logits = _run(network.model, batch, network.sites[source:], leaf, later)
        for target in (None, *nodes):
            if target is None:
                value = batch.prompts.metric(logits).sum()
            elif target.site > source:
                value = later[target.site - source - 1].objective(target.feature)
            else:
                continue
            for node, score in zip(sources, _effects(trace, sources, _gradient(value, leaf)), strict=True):
                scores[node, target] = scores.get((node, target), 0.0) + score


def _run(model: HookedModel, batch: BatchTraces, sites: list[SAESite], leaf: Tensor, later: "list[_Later]") -> Tensor:
    replace: list[Replace] = [lambda x, value: leaf, *(stage.freeze for stage in later)]
    return run_sites(model, batch.prompts.tokens, sites, replace, [read_hook(batch.prompts.at)])


def _gradient(value: Tensor, leaf: Tensor) -> Tensor:
    """Return the gradient of `value` at `leaf`: zero where the later site does not depend on the earlier one."""
    if not value.requires_grad:
        return torch.zeros_like(leaf)
    gradient = torch.autograd.grad(value, leaf, retain_graph=True, allow_unused=True)[0]
    return torch.zeros_like(leaf) if gradient is None else gradient


@torch.no_grad()
def _effects(trace: SiteTrace, nodes: list[FeatureNode], gradient: Tensor) -> list[float]:
    by_feature = sum_by(trace.feature, trace.effects(gradient), trace.site.sae.d_sae)
    error = float((trace.error_change * gradient).double().sum())
    return [error if node.feature is None else float(by_feature[node.feature]) for node in nodes]


class _Weighted(NamedTuple):
    """Active features of a later site, with the gradient of the metric at each pre-activation."""

    entries: NonzeroActivations
    weight: Tensor
    """`[m]`"""


class _Later:
    """A later site in the pass: it stores the value that reaches it, and freezes its nodes."""

    def __init__(self, trace: SiteTrace, gradient: Tensor):
        self.trace, self.gradient = trace, gradient
        self.weighted = _weigh(trace, gradient)
        with torch.no_grad():
            self.recons = trace.site.sae.decode_sparse(trace.parts.acts).view(trace.value.shape)

    def freeze(self, x: Tensor, value: Tensor) -> Tensor:
        """Return `value` with a gradient through the terms outside the nodes only."""
        self.x, self.value, self.recons_at_x = x, value, self.trace.site.sae.complete(self.recons, x)
        return value.detach() + (self.recons_at_x - self.recons_at_x.detach()) * self.trace.mask[..., None]

    def objective(self, feature: int | None) -> Tensor:
        """Return a scalar whose gradient is that of the node's effect: activation or error, weighted and summed."""
        entries, weight = self.weighted
        sae = one_layer(self.trace.site.sae)
        encoded, W_enc = sae.encoder_input(self.x).flatten(0, 1), sae.W_enc
        if feature is not None:
            active = entries.feature == feature
            return (encoded[entries.row[active]] @ W_enc[:, feature] * weight[active]).sum()
        at_error = self.gradient * self.trace.mask[..., None]
        return ((self.value - self.recons_at_x) * at_error).sum() - (encoded * self._all_features(len(encoded))).sum()

    def _all_features(self, n_rows: int) -> Tensor:
        """Return the weighted gradient of all activations at the input of the encoder, `[n_rows, d_in]`."""
        sae, (entries, weight) = one_layer(self.trace.site.sae), self.weighted
        total = torch.zeros(n_rows, sae.d_in, dtype=sae.W_enc.dtype, device=sae.W_enc.device)
        for part in torch.arange(len(weight), device=total.device).split(1 << 14):
            rows = sae.W_enc.T[entries.feature[part]] * weight[part, None]
            total.index_add_(0, entries.row[part], rows)
        return total


@torch.no_grad()
def _weigh(trace: SiteTrace, gradient: Tensor) -> _Weighted:
    pulled = trace.site.pull_back(gradient, trace.x).flatten(0, 1)
    weight = trace.site.along(trace.entries, pulled) * trace.site.slopes(trace.x.flatten(0, 1), trace.entries)
    return _Weighted(trace.entries, weight)


Ends = tuple[FeatureNode, FeatureNode | None]
"""Earlier and later node of an edge; None is the logits."""


@torch.no_grad()
def exact_edges(network: Network, edges: Sequence[Ends], *, progress: Progress | None = None) -> Tensor:
    """Measure `m(prompt) - m(prompt with one edge patched)` for each edge, mean over prompts: `[n_edges]` float64.

    The cost is one run for each earlier node, and one for each edge between two nodes.
    """
    total = torch.zeros(len(edges), dtype=torch.float64)
    sources = list(dict.fromkeys(source for source, _ in edges))
    steps = [(batch, source) for batch in network.batches for source in sources]
    for done, (batch, source) in enumerate(steps, 1):
        reached, metric = _change_source(network, batch, source)
        for i, (node, target) in enumerate(edges):
            if node != source:
                continue
            if target is None:
                total[i] += (batch.traces[0].metric - metric).sum()
            else:
                total[i] += _change_target(network, batch, target, *reached[target.site])
        if progress:
            progress(done, len(steps), {})
    return total / network.n_prompts


def _change_source(
    network: Network, batch: BatchTraces, source: FeatureNode
) -> tuple[dict[int, tuple[Tensor, Tensor]], Tensor]:
    """Set one node to its baseline, with all later sites frozen.

    Returns the values that each later site would read and write (its direct effect on them), and the metric (its direct
    effect on the logits).
    """
    trace = batch.traces[source.site]
    changed = trace.value + (-trace.error_change if source.feature is None else trace.change(source.feature))
    reached: dict[int, tuple[Tensor, Tensor]] = {}

    def freeze(site: int) -> Replace:
        trace = batch.traces[site]
        sae = trace.site.sae
        recons = sae.decode_sparse(trace.parts.acts).view(trace.value.shape)

        def replace(x: Tensor, value: Tensor) -> Tensor:
            reached[site] = (x, value)
            outside_nodes = sae.complete(recons, x) - sae.complete(recons, trace.x)
            return trace.value + outside_nodes * trace.mask[..., None]

        return replace

    later = range(source.site + 1, len(network.sites))
    replace = [put(changed), *(freeze(site) for site in later)]
    prompts = batch.prompts
    logits = run_sites(network.model, prompts.tokens, network.sites[source.site :], replace, [read_hook(prompts.at)])
    return reached, prompts.metric(logits).cpu().double()


def _change_target(network: Network, batch: BatchTraces, target: FeatureNode, x: Tensor, value: Tensor) -> float:
    """Return the fall of the metric, summed over prompts, when the later node takes its activation at `x`."""
    trace = batch.traces[target.site]
    patched = trace.site.decompose(x, value, trace.mask)
    if target.feature is None:
        change = (patched.error - trace.parts.error).view(trace.value.shape)
    else:
        difference = activation_of(patched.acts, target.feature) - activation_of(trace.parts.acts, target.feature)
        direction = difference[:, None] * trace.site.sae.W_dec[target.feature]
        change = trace.site.add(direction.view(trace.value.shape), trace.x)
    metric = metric_with(network.model, [trace.site], batch.prompts, [put(trace.value + change)])
    return float((trace.metric - metric).sum())
