"""The sites of several SAEs on a task: what they read and write, taken apart, and the metric's gradients there.

Edges: how much of a later node's effect on the metric an earlier node causes directly.

    score(u -> d) = sum over positions of (change of u) * d d/d u * d metric/d d

with no way through the sites in between: what they write is held fixed, so that every path is counted once (Marks et
al. 2024, 2403.19647, section 3). What a site adds past its nodes, a skip connection or a token's own scale, stays open.
An edge to `logits` is the part of a feature's effect that passes no later site.

With gradients taken on the prompts themselves the chain rule closes exactly: a node's effect is the sum of its edges to
all nodes of later sites, errors included, and to the logits. One pass forward for each earlier site, one backward for
each later node, whatever the number of earlier nodes and positions.

Left out: a feature that is silent on the prompts and active on the corrupted ones has an effect, but no slope on the
prompts, so nothing leads to it.

An edge by itself: the earlier node is set to the baseline, and only the later node sees it.

1. the earlier node is changed, the sites in between keep what they wrote on the prompt, and the later node takes the
   activation (or error) that it then has: the direct effect of one on the other, thresholds included;
2. the model runs on the prompt with that one activation in place: what it does to the metric.

This is what `edges.edge_scores` estimates with gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from interp.circuits.task import read_hook
from interp.names import feature_node
from interp.progress import Progress
from saes.circuits.attribution import AttributionConfig, check_metric, metric_gradients
from saes.circuits.sites import Entries, Prompts, Replace, Site, open_sites, run_sites
from saes.circuits.traces import Trace, metric_with, put, strength, sum_by, trace_sites
from saes.kinds.base import SAE


class FeatureNode(NamedTuple):
    """A feature of the SAE at a site, or with None that site's error."""

    site: int
    feature: int | None


class Measured(NamedTuple):
    """One batch of prompts."""

    prompts: Prompts
    traces: list[Trace]
    """one per site"""
    gradients: list[Tensor]
    """`[batch, pos, d_out]` per site: of the metric, mean over the steps"""


@dataclass(frozen=True, eq=False)
class Network:
    """Sites in the order of computation, measured on all prompts. Held in memory: six values of each site."""

    model: Any
    sites: list[Site]
    batches: list[Measured]

    @property
    def n_prompts(self) -> int:
        return sum(len(batch.prompts) for batch in self.batches)

    @cached_property
    def effects(self) -> list[Tensor]:
        """Per site `[d_sae]` float64: each feature's effect, summed over positions, mean over prompts."""
        found = [torch.zeros(site.sae.d_sae, dtype=torch.float64) for site in self.sites]
        for batch in self.batches:
            for i, (each, gradient) in enumerate(zip(batch.traces, batch.gradients, strict=True)):
                found[i] += sum_by(each.feature, each.effects(gradient), len(found[i])).cpu()
        return [each / self.n_prompts for each in found]

    @cached_property
    def error_effects(self) -> list[float]:
        """Per site the effect of the error."""
        totals = [0.0] * len(self.sites)
        for batch in self.batches:
            for i, (each, gradient) in enumerate(zip(batch.traces, batch.gradients, strict=True)):
                totals[i] += float((each.error_change * gradient).double().sum())
        return [total / self.n_prompts for total in totals]

    @cached_property
    def active(self) -> list[Tensor]:
        """Per site the features that are active anywhere, on the prompts or in the baseline, sorted."""
        columns = ([batch.traces[i].feature for batch in self.batches] for i in range(len(self.sites)))
        return [torch.cat(column).unique().cpu() for column in columns]

    def effect(self, node: FeatureNode) -> float:
        if node.feature is None:
            return self.error_effects[node.site]
        return float(self.effects[node.site][node.feature])

    def strongest(self, n: int) -> list[FeatureNode]:
        """The `n` strongest features of each site by size, and every site's error."""
        nodes = []
        for i, effects in enumerate(self.effects):
            order = effects.abs().argsort(descending=True, stable=True)[:n].tolist()
            nodes += [FeatureNode(i, feature) for feature in order if effects[feature] != 0]
            nodes.append(FeatureNode(i, None))
        return nodes

    def name(self, node: FeatureNode | None) -> str:
        """`L9resid.123`, `L9resid.error`; None: `logits`."""
        return "logits" if node is None else str(feature_node(self.sites[node.site].writes, node.feature))


def measure(
    model: Any,
    saes: Sequence[SAE],
    prompts: Prompts,
    config: AttributionConfig,
    *,
    progress: Progress | None = None,
) -> Network:
    """Run the model on all prompts. Raises as `open_sites` does, and `UnknownNameError` for a place without a name."""
    check_metric(prompts, config)
    sites = open_sites(model, saes)
    for site in sites:
        feature_node(site.writes, None)
    batches = []
    for number, batch in enumerate(parts := prompts.batches(config.batch_size), 1):
        traces = trace_sites(model, sites, batch, first=config.first)
        batches.append(Measured(batch, traces, metric_gradients(model, traces, batch, config)))
        if progress:
            progress(number, len(parts), {})
    return Network(model, sites, batches)


Edges = dict[tuple[FeatureNode, FeatureNode | None], float]
"""(earlier node, later node or None for the logits) -> score, in the metric's unit, mean over prompts"""


def edge_scores(network: Network, nodes: Sequence[FeatureNode], *, progress: Progress | None = None) -> Edges:
    """The scores of all edges among `nodes`, and from each of them to the logits."""
    scores: Edges = {}
    steps = [(batch, source) for batch in network.batches for source in range(len(network.sites))]
    for done, (batch, source) in enumerate(steps, 1):
        mine = [node for node in nodes if node.site == source]
        if mine:
            _add_edges(network, batch, source, mine, nodes, scores)
        if progress:
            progress(done, len(steps), {})
    return {edge: score / network.n_prompts for edge, score in scores.items()}


def _add_edges(
    network: Network,
    batch: Measured,
    source: int,
    mine: list[FeatureNode],
    nodes: Sequence[FeatureNode],
    scores: Edges,
) -> None:
    """Edges out of one site on one batch, summed over its prompts."""
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
            for node, score in zip(mine, _effects(trace, mine, _gradient(value, leaf)), strict=True):
                scores[node, target] = scores.get((node, target), 0.0) + score


def _run(model: Any, batch: Measured, sites: list[Site], leaf: Tensor, later: "list[_Later]") -> Tensor:
    replace: list[Replace] = [lambda x, value: leaf, *(each.cut for each in later)]
    return run_sites(model, batch.prompts.tokens, sites, replace, [read_hook(batch.prompts.at)])


def _gradient(value: Tensor, leaf: Tensor) -> Tensor:
    """Zero where the later place does not read the earlier one."""
    if not value.requires_grad:
        return torch.zeros_like(leaf)
    found = torch.autograd.grad(value, leaf, retain_graph=True, allow_unused=True)[0]
    return torch.zeros_like(leaf) if found is None else found


@torch.no_grad()
def _effects(trace: Trace, nodes: list[FeatureNode], gradient: Tensor) -> list[float]:
    by_feature = sum_by(trace.feature, trace.effects(gradient), trace.site.sae.d_sae)
    error = float((trace.error_change * gradient).double().sum())
    return [error if node.feature is None else float(by_feature[node.feature]) for node in nodes]


class _Weighted(NamedTuple):
    """A later site's active features, with what one unit of each pre-activation is worth to the metric."""

    entries: Entries
    worth: Tensor


class _Later:
    """A later site in the pass: it notes what reaches it, and lets nothing through its nodes."""

    def __init__(self, trace: Trace, gradient: Tensor):
        self.trace, self.gradient = trace, gradient
        self.weighted = _weigh(trace, gradient)
        with torch.no_grad():
            self.recons = trace.site.sae.decode_sparse(trace.parts.acts).view(trace.value.shape)

    def cut(self, x: Tensor, value: Tensor) -> Tensor:
        self.x, self.value, self.past = x, value, self.trace.site.sae.complete(self.recons, x)
        return value.detach() + (self.past - self.past.detach()) * self.trace.kept[..., None]

    def objective(self, feature: int | None) -> Tensor:
        """A number whose gradient is that of the node's effect: activation or error, times its worth, summed."""
        entries, worth = self.weighted
        seen = self.trace.site.sae.encoder_input(self.x).flatten(0, 1)
        W_enc = self.trace.site.sae.W_enc
        if feature is not None:
            mine = entries.feature == feature
            return (seen[entries.row[mine]] @ W_enc[:, feature] * worth[mine]).sum()
        at_error = self.gradient * self.trace.kept[..., None]
        return ((self.value - self.past) * at_error).sum() - (seen * self._all_features(len(seen))).sum()

    def _all_features(self, n_rows: int) -> Tensor:
        """`[n_rows, d_in]`: the gradient of all activations, times their worth, at what the encoder multiplies."""
        sae, (entries, worth) = self.trace.site.sae, self.weighted
        total = torch.zeros(n_rows, sae.d_in, dtype=sae.W_enc.dtype, device=sae.W_enc.device)
        for part in torch.arange(len(worth), device=total.device).split(1 << 14):
            rows = sae.W_enc.T[entries.feature[part]] * worth[part, None]
            total.index_add_(0, entries.row[part], rows)
        return total


@torch.no_grad()
def _weigh(trace: Trace, gradient: Tensor) -> _Weighted:
    pulled = trace.site.pull_back(gradient, trace.x).flatten(0, 1)
    worth = trace.site.along(trace.entries, pulled) * trace.site.slopes(trace.x.flatten(0, 1), trace.entries)
    return _Weighted(trace.entries, worth)


Ends = tuple[FeatureNode, FeatureNode | None]


@torch.no_grad()
def exact_edges(network: Network, edges: Sequence[Ends], *, progress: Progress | None = None) -> Tensor:
    """`[n_edges]` float64: `m(prompt) - m(prompt with that edge patched)`, mean over prompts.

    One run for each earlier node, and one for each edge between two.
    """
    total = torch.zeros(len(edges), dtype=torch.float64)
    sources = list(dict.fromkeys(source for source, _ in edges))
    steps = [(batch, source) for batch in network.batches for source in sources]
    for done, (batch, source) in enumerate(steps, 1):
        cut, metric = _change_source(network, batch, source)
        for i, (node, target) in enumerate(edges):
            if node != source:
                continue
            if target is None:
                total[i] += (batch.traces[0].metric - metric).sum()
            else:
                total[i] += _change_target(network, batch, target, *cut[target.site])
        if progress:
            progress(done, len(steps), {})
    return total / network.n_prompts


def _change_source(
    network: Network, batch: Measured, source: FeatureNode
) -> tuple[dict[int, tuple[Tensor, Tensor]], Tensor]:
    """What later sites would read and write, each reached directly; and the metric, reached past all of them."""
    trace = batch.traces[source.site]
    changed = trace.value + (-trace.error_change if source.feature is None else trace.change(source.feature))
    seen: dict[int, tuple[Tensor, Tensor]] = {}

    def hold(site: int) -> Replace:
        each = batch.traces[site]
        sae = each.site.sae
        recons = sae.decode_sparse(each.parts.acts).view(each.value.shape)

        def replace(x: Tensor, value: Tensor) -> Tensor:
            seen[site] = (x, value)
            past = sae.complete(recons, x) - sae.complete(recons, each.x)
            return each.value + past * each.kept[..., None]

        return replace

    later = range(source.site + 1, len(network.sites))
    replace = [put(changed), *(hold(site) for site in later)]
    prompts = batch.prompts
    logits = run_sites(network.model, prompts.tokens, network.sites[source.site :], replace, [read_hook(prompts.at)])
    return seen, prompts.metric(logits).cpu().double()


def _change_target(network: Network, batch: Measured, target: FeatureNode, x: Tensor, value: Tensor) -> float:
    """The fall of the metric, summed over prompts, when the later node takes what it has at `x`."""
    trace = batch.traces[target.site]
    there = trace.site.take_apart(x, value, trace.kept)
    if target.feature is None:
        change = (there.error - trace.parts.error).view(trace.value.shape)
    else:
        gained = strength(there.acts, target.feature) - strength(trace.parts.acts, target.feature)
        direction = gained[:, None] * trace.site.sae.W_dec[target.feature]
        change = trace.site.add(direction.view(trace.value.shape), trace.x)
    metric = metric_with(network.model, [trace.site], batch.prompts, [put(trace.value + change)])
    return float((trace.metric - metric).sum())
