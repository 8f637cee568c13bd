"""An edge by itself: the earlier node is set to the baseline, and only the later node sees it.

1. the earlier node is changed, the sites in between keep what they wrote on the prompt, and the later node takes the
   activation (or error) that it then has: the direct effect of one on the other, thresholds included;
2. the model runs on the prompt with that one activation in place: what it does to the metric.

This is what `edges.edge_scores` estimates with gradients.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from interp.circuits.task import read_hook
from interp.progress import Progress
from saes.feature_circuits.network import FeatureNode, Measured, Network
from saes.sites import Replace, run_sites
from saes.traces import metric_with, put, strength

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
