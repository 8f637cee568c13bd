"""What every site of a model reads and writes on prompts, taken apart, beside the same in the baseline.

The baseline is the corrupted prompt, or without one the SAE with all features and its error switched off. Attribution,
feature circuits and their ablations all start from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.circuits.task import read_hook
from interp.dictionary import SparseActs
from saes.circuits.sites import Entries, Parts, Prompts, Replace, Site, keep, run_sites


@dataclass(eq=False)
class Trace:
    """One site on one batch of prompts: the value taken apart, there and in the baseline."""

    site: Site
    x: Tensor
    """`[batch, pos, d_in]`"""
    value: Tensor
    """`[batch, pos, d_out]`"""
    parts: Parts
    start: Tensor
    """`[batch, pos, d_out]`: the value in the baseline"""
    base: tuple[Tensor, Parts] | None
    """what the site reads on the corrupted prompts, and the parts of its value there"""
    kept: Tensor
    """`[batch, pos]` bool: where it was taken apart"""
    metric: Tensor
    """`[batch]` on the prompts"""

    def __post_init__(self) -> None:
        self.entries = Entries.of(self.parts.acts)
        self.base_entries = None if self.base is None else Entries.of(self.base[1].acts)
        found = self._keys(self.entries)
        if self.base_entries is not None:
            found = torch.cat([found, self._keys(self.base_entries)])
        keys, self._where = found.unique(return_inverse=True)
        d_sae = self.site.sae.d_sae
        self.row, self.feature = keys // d_sae, keys % d_sae

    @property
    def error_change(self) -> Tensor:
        """`[batch, pos, d_out]`: the error, less that of the baseline."""
        error = self.parts.error if self.base is None else self.parts.error - self.base[1].error
        return error.view(self.value.shape)

    @property
    def rest_change(self) -> Tensor:
        """`[batch, pos, d_out]`; zeros without corrupted prompts, whose baseline keeps the rest."""
        change = torch.zeros_like(self.parts.rest) if self.base is None else self.parts.rest - self.base[1].rest
        return change.view(self.value.shape)

    def effects(self, gradient: Tensor) -> Tensor:
        """`[m]` for the union of features active here and in the baseline (`row`, `feature`): change times gradient.

        `gradient [batch, pos, d_out]` is at the value.
        """
        parts = [self._effects(self.entries, gradient, self.x)]
        if self.base is not None and self.base_entries is not None:
            parts.append(-self._effects(self.base_entries, gradient, self.base[0]))
        return sum_by(self._where, torch.cat(parts), len(self.row))

    def activation(self) -> Tensor:
        """`[m]` on the prompt."""
        n = len(self.entries.row)
        return sum_by(self._where[:n], self.entries.value, len(self.row))

    def change(self, feature: int) -> Tensor:
        """`[batch, pos, d_out]`: what the value gains when a feature goes from the prompt's activation to the
        baseline's."""
        gained = -self._written(self.parts, feature, self.x)
        return gained if self.base is None else gained + self._written(self.base[1], feature, self.base[0])

    def _written(self, parts: Parts, feature: int, x: Tensor) -> Tensor:
        direction = strength(parts.acts, feature)[:, None] * self.site.sae.W_dec[feature]
        return self.site.add(direction.view(*x.shape[:2], -1), x)

    def _effects(self, entries: Entries, gradient: Tensor, x: Tensor) -> Tensor:
        pulled = self.site.pull_back(gradient, x).flatten(0, 1)
        return entries.value * self.site.along(entries, pulled)

    def _keys(self, entries: Entries) -> Tensor:
        return entries.row * self.site.sae.d_sae + entries.feature


@torch.no_grad()
def trace_sites(model: Any, sites: Sequence[Site], prompts: Prompts, *, first: int = 0) -> list[Trace]:
    """Every site on some prompts, in one pass, or two where they have corrupted ones; the `first` positions are left
    alone."""
    clean, metric = _values(model, sites, prompts, prompts.tokens)
    corrupt = {} if prompts.corrupt is None else _values(model, sites, prompts, prompts.corrupt)[0]
    kept = prompts.kept(first).to(model.cfg.device)
    traces = []
    for site in sites:
        x, value = clean[site.writes]
        parts, base = site.take_apart(x, value, kept), None
        start = parts.rest.view(value.shape)
        if corrupt:
            x_base, value_base = corrupt[site.writes]
            base = (x_base, site.take_apart(x_base, value_base, kept))
            start = torch.where(kept[..., None], value_base, value)
        traces.append(Trace(site=site, x=x, value=value, parts=parts, start=start, base=base, kept=kept, metric=metric))
    return traces


@torch.no_grad()
def metric_with(model: Any, sites: Sequence[Site], prompts: Prompts, change: Sequence[Replace | None]) -> Tensor:
    """`[batch]` float64: the metric of a run in which sites pass on something else."""
    return prompts.metric(run_sites(model, prompts.tokens, sites, change, [read_hook(prompts.at)])).cpu().double()


def put(value: Tensor) -> Replace:
    """A replacement by a value known before."""
    return lambda x, given: value


def strength(acts: SparseActs, feature: int) -> Tensor:
    """`[n]`: one feature's activation on each token."""
    return (acts.values * (acts.indices == feature)).sum(1)


def sum_by(index: Tensor, values: Tensor, n: int) -> Tensor:
    """`[n]` float64: sums of `values [m]` that have one `index [m]`."""
    return torch.zeros(n, dtype=torch.float64, device=values.device).index_add_(0, index, values.double())


def _values(
    model: Any, sites: Sequence[Site], prompts: Prompts, tokens: Tensor
) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
    """What each site reads and writes, by the place that it writes, and the metric."""
    store: dict[str, tuple[Tensor, Tensor]] = {}
    logits = run_sites(model, tokens, sites, [keep(store, site.writes) for site in sites], [read_hook(prompts.at)])
    return store, prompts.metric(logits).cpu().double()
