"""Edges: how much of a later node's effect on the metric an earlier node causes directly.

    score(u -> d) = sum over positions of (change of u) * d d/d u * d metric/d d

with no way through the sites in between: what they write is held fixed, so that every path is counted once (Marks et
al. 2024, 2403.19647, section 3). What a site adds past its nodes, a skip connection or a token's own scale, stays open.
An edge to `logits` is the part of a feature's effect that passes no later site.

With gradients taken on the prompts themselves the chain rule closes exactly: a node's effect is the sum of its edges to
all nodes of later sites, errors included, and to the logits. One pass forward for each earlier site, one backward for
each later node, whatever the number of earlier nodes and positions.

Left out: a feature that is silent on the prompts and active on the corrupted ones has an effect, but no slope on the
prompts, so nothing leads to it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from interp.circuits.task import read_hook
from interp.progress import Progress
from saes.feature_circuits.network import FeatureNode, Measured, Network
from saes.sites import Entries, Replace, Site, run_sites
from saes.traces import Trace, sum_by

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
