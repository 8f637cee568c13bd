"""Runs of the model with all features outside a given set ablated.

At every site the SAE reads the stream of this run. Features in the set have the activation that the SAE then gives
them; all others have a replacement. The error node has its value in this run, or its replacement. With every feature
and error in the set, the run equals the unchanged model.

Replacements, by `ablation`:

- `resample`: the value on the corrupted prompt;
- `mean`: the mean over corrupted prompts at the same position (over the prompts themselves if none are corrupted);
- `zero`: zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from interp.circuits.config import Ablation
from interp.circuits.judging import check_ablation
from interp.dictionary import SparseActs
from interp.errors import ConfigError
from saes.circuits.edges import FeatureNode, Measured, Network
from saes.circuits.sites import Entries, Replace, Site, Trace, metric_with, sum_by


@dataclass(frozen=True, eq=False)
class NodeSet:
    """Features and errors that are not ablated."""

    features: tuple[Tensor, ...]
    """one mask per site, `[d_sae]` bool"""
    errors: tuple[bool, ...]
    """one flag per site"""


class _Replacement(NamedTuple):
    """Replacement of ablated features and of the error at a site; rows are `[batch * pos]`, or `[pos]` for a mean."""

    entries: Entries
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

    def _run(self, batch: Measured, nodes: NodeSet) -> Tensor:
        replace = []
        for i, trace in enumerate(batch.traces):
            replacement = self._means[i] if self._means else _replacement(trace, self.ablation)
            replace.append(_ablate(trace, nodes.features[i].to(trace.x.device), nodes.errors[i], replacement))
        return metric_with(self.network.model, self.network.sites, batch.prompts, replace)


def _ablate(trace: Trace, features: Tensor, error: bool, replacement: _Replacement) -> Replace:
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


def _replacement(trace: Trace, ablation: Ablation) -> _Replacement:
    if ablation == "zero" or trace.base is None or trace.base_entries is None:
        empty = torch.zeros(0, dtype=torch.long, device=trace.x.device)
        return _Replacement(Entries(empty, empty, empty.float()), torch.zeros_like(trace.parts.error))
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
    found, index = keys.unique(return_inverse=True)
    row, feature = found // d_sae, found % d_sae
    mean = (sum_by(index, values, len(found)) / count[row]).to(values)
    error = torch.stack([parts.error.view(-1, pos, site.sae.d_out).sum(0) for _, parts in sources]).sum(0)
    return _Replacement(Entries(row, feature, mean), error / count[:, None])


def _decode(site: Site, entries: Entries, n_rows: int) -> Tensor:
    """Return the sum of decoder rows times activations for each row, without `b_dec`: `[n_rows, d_out]`."""
    W_dec = site.sae.W_dec
    total = torch.zeros(n_rows, site.sae.d_out, dtype=W_dec.dtype, device=W_dec.device)
    for part in torch.arange(len(entries.row), device=total.device).split(1 << 14):
        total.index_add_(0, entries.row[part], W_dec[entries.feature[part]] * entries.value[part, None])
    return total
