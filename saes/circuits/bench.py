"""The model with only some features left: everything else carries what it has in the baseline.

At every site, as the run reaches it, the SAE reads what has become of the stream: features of the circuit take the
activation that they then have, all others the replacement, and the error what the run makes of it or its replacement.
With everything left the run is the model's own.

Replacements (`ablation`): `resample` the corrupted prompt's, `mean` the mean over those prompts at the same position
(over the prompts themselves where none are corrupted), `zero` none.
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
from saes.circuits.sites import Entries, Replace, Site
from saes.circuits.traces import Trace, metric_with, sum_by


@dataclass(frozen=True, eq=False)
class Left:
    """What is left in the model: features per site `[d_sae]` bool, and whether each site's error is."""

    features: tuple[Tensor, ...]
    errors: tuple[bool, ...]


class _Replacement(NamedTuple):
    """What a site carries in place of what is taken out; rows are `[batch * pos]`, or `[pos]` for a mean."""

    entries: Entries
    error: Tensor
    """`[n_rows, d_out]`"""


class FeatureBench:
    """Runs a network's prompts with sets of features left."""

    def __init__(self, network: Network, ablation: Ablation = "resample"):
        """Raises `ConfigError` for `resample` without corrupted prompts."""
        check_ablation(ablation)
        if ablation == "resample" and network.batches[0].prompts.corrupt is None:
            raise ConfigError("resampling needs corrupted prompts; use ablation='mean' or 'zero'")
        self.network = network
        self.ablation: Ablation = ablation
        sites = range(len(network.sites))
        self._means = [_mean(network, i) for i in sites] if ablation == "mean" else None

    def nodes(self, nodes: Sequence[FeatureNode]) -> Left:
        """Some features and errors left."""
        features = [torch.zeros(site.sae.d_sae, dtype=torch.bool) for site in self.network.sites]
        errors = [False] * len(features)
        for site, feature in nodes:
            if feature is None:
                errors[site] = True
            else:
                features[site][feature] = True
        return Left(tuple(features), tuple(errors))

    def all_features(self, *, errors: bool) -> Left:
        """Every feature left, and the errors or not."""
        n = len(self.network.sites)
        return Left(tuple(torch.ones(s.sae.d_sae, dtype=torch.bool) for s in self.network.sites), (errors,) * n)

    def without(self, left: Left) -> Left:
        """Everything but what is left there."""
        return Left(tuple(~features for features in left.features), tuple(not error for error in left.errors))

    @torch.no_grad()
    def values(self, left: Left) -> Tensor:
        """`[n_prompts]` float64: the metric."""
        return torch.cat([self._run(batch, left) for batch in self.network.batches])

    def _run(self, batch: Measured, left: Left) -> Tensor:
        replace = []
        for i, trace in enumerate(batch.traces):
            replacement = self._means[i] if self._means else _replacement(trace, self.ablation)
            replace.append(_leave(trace, left.features[i].to(trace.x.device), left.errors[i], replacement))
        return metric_with(self.network.model, self.network.sites, batch.prompts, replace)


def _leave(trace: Trace, features: Tensor, error: bool, replacement: _Replacement) -> Replace:
    """What a site passes on."""
    site, pos = trace.site, trace.kept.shape[1]
    outside = replacement.entries.take(~features[replacement.entries.feature])
    others = _decode(site, outside, len(replacement.error)).view(-1, pos, site.sae.d_out)
    replaced_error = replacement.error.view(-1, pos, site.sae.d_out)

    def replace(x: Tensor, value: Tensor) -> Tensor:
        acts = site.sae.encode_sparse(x.flatten(0, 1))
        inside = SparseActs(acts.values * features[acts.indices.long()], acts.indices)
        recons = site.sae.decode_sparse(inside).view(value.shape) + others
        left_out = replaced_error
        if error:
            left_out = value - site.sae.complete(site.sae.decode_sparse(acts).view(value.shape), x)
        return torch.where(trace.kept[..., None], site.sae.complete(recons, x) + left_out, value)

    return replace


def _replacement(trace: Trace, ablation: Ablation) -> _Replacement:
    if ablation == "zero" or trace.base is None or trace.base_entries is None:
        nothing = torch.zeros(0, dtype=torch.long, device=trace.x.device)
        return _Replacement(Entries(nothing, nothing, nothing.float()), torch.zeros_like(trace.parts.error))
    return _Replacement(trace.base_entries, trace.base[1].error)


def _mean(network: Network, i: int) -> _Replacement:
    """Mean activations and error at each position, over prompts that have that position."""
    traces = [batch.traces[i] for batch in network.batches]
    site, pos = network.sites[i], traces[0].kept.shape[1]
    count = torch.stack([trace.kept.sum(0) for trace in traces]).sum(0).clamp_min(1)
    sources = [(t.entries, t.parts) if t.base is None else (t.base_entries, t.base[1]) for t in traces]
    d_sae = site.sae.d_sae
    keys = torch.cat([entries.row % pos * d_sae + entries.feature for entries, _ in sources if entries is not None])
    values = torch.cat([entries.value for entries, _ in sources if entries is not None])
    found, where = keys.unique(return_inverse=True)
    row, feature = found // d_sae, found % d_sae
    mean = (sum_by(where, values, len(found)) / count[row]).to(values)
    error = torch.stack([parts.error.view(-1, pos, site.sae.d_out).sum(0) for _, parts in sources]).sum(0)
    return _Replacement(Entries(row, feature, mean), error / count[:, None])


def _decode(site: Site, entries: Entries, n_rows: int) -> Tensor:
    """`[n_rows, d_out]`: sums of decoder directions."""
    W_dec = site.sae.W_dec
    total = torch.zeros(n_rows, site.sae.d_out, dtype=W_dec.dtype, device=W_dec.device)
    for part in torch.arange(len(entries.row), device=total.device).split(1 << 14):
        total.index_add_(0, entries.row[part], W_dec[entries.feature[part]] * entries.value[part, None])
    return total
