"""The sites of several SAEs on a task: what they read and write, taken apart, and the metric's gradients there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from interp.names import feature_node
from interp.progress import Progress
from saes.attribution import AttributionConfig, check_metric, metric_gradients
from saes.kinds.base import SAE
from saes.prompts import Prompts
from saes.sites import Site, open_sites
from saes.traces import Trace, sum_by, trace_sites


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
