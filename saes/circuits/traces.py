"""Values at every site of a model, decomposed into features, error and rest, on prompts and in the baseline.

The baseline is the corrupted prompt, or without one the SAE with all features and its error set to zero. Attribution,
feature circuits and their ablations all start from these traces.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.circuits.task import read_hook
from interp.dictionary import SparseActs
from saes.circuits.sites import Entries, Parts, Prompts, Replace, Site, note_values, run_sites


@dataclass(eq=False)
class Trace:
    """Value at one site on one batch of prompts and in the baseline, decomposed."""

    site: Site
    x: Tensor
    """`[batch, pos, d_in]`: value that the site reads"""
    value: Tensor
    """`[batch, pos, d_out]`: value that the site writes"""
    parts: Parts
    """decomposition of `value`"""
    start: Tensor
    """`[batch, pos, d_out]`: the value in the baseline"""
    base: tuple[Tensor, Parts] | None
    """value that the site reads on the corrupted prompts, and the decomposition of the value that it writes there"""
    mask: Tensor
    """`[batch, pos]` bool: positions that are decomposed"""
    metric: Tensor
    """`[batch]`: metric on the prompts"""

    def __post_init__(self) -> None:
        self.entries = Entries.of(self.parts.acts)
        self.base_entries = None if self.base is None else Entries.of(self.base[1].acts)
        found = self._keys(self.entries)
        if self.base_entries is not None:
            found = torch.cat([found, self._keys(self.base_entries)])
        keys, self._index = found.unique(return_inverse=True)
        d_sae = self.site.sae.d_sae
        self.row, self.feature = keys // d_sae, keys % d_sae

    @property
    def error_change(self) -> Tensor:
        """Error on the prompt minus the error in the baseline: `[batch, pos, d_out]`."""
        error = self.parts.error if self.base is None else self.parts.error - self.base[1].error
        return error.view(self.value.shape)

    @property
    def rest_change(self) -> Tensor:
        """Rest on the prompt minus the rest in the baseline: `[batch, pos, d_out]`, zero without corrupted prompts."""
        change = torch.zeros_like(self.parts.rest) if self.base is None else self.parts.rest - self.base[1].rest
        return change.view(self.value.shape)

    def effects(self, gradient: Tensor) -> Tensor:
        """Return change of activation times gradient, `[m]`, for features active on the prompt or in the baseline.

        Entry `i` is `feature[i]` on token `row[i]`. `gradient [batch, pos, d_out]` is that of the metric at the value.
        """
        parts = [self._effects(self.entries, gradient, self.x)]
        if self.base is not None and self.base_entries is not None:
            parts.append(-self._effects(self.base_entries, gradient, self.base[0]))
        return sum_by(self._index, torch.cat(parts), len(self.row))

    def activation(self) -> Tensor:
        """Return the activations on the prompt, `[m]`, for the entries of `effects`."""
        n = len(self.entries.row)
        return sum_by(self._index[:n], self.entries.value, len(self.row))

    def change(self, feature: int) -> Tensor:
        """Return the change of the value, `[batch, pos, d_out]`, when one feature is set to the baseline."""
        change = -self._written(self.parts, feature, self.x)
        return change if self.base is None else change + self._written(self.base[1], feature, self.base[0])

    def _written(self, parts: Parts, feature: int, x: Tensor) -> Tensor:
        direction = activation_of(parts.acts, feature)[:, None] * self.site.sae.W_dec[feature]
        return self.site.add(direction.view(*x.shape[:2], -1), x)

    def _effects(self, entries: Entries, gradient: Tensor, x: Tensor) -> Tensor:
        pulled = self.site.pull_back(gradient, x).flatten(0, 1)
        return entries.value * self.site.along(entries, pulled)

    def _keys(self, entries: Entries) -> Tensor:
        return entries.row * self.site.sae.d_sae + entries.feature


@torch.no_grad()
def trace_sites(model: Any, sites: Sequence[Site], prompts: Prompts, *, first: int = 0) -> list[Trace]:
    """Trace every site on some prompts, in one pass, or in two with corrupted prompts.

    The `first` positions and padding are not decomposed.
    """
    clean, metric = _values(model, sites, prompts, prompts.tokens)
    corrupt = {} if prompts.corrupt is None else _values(model, sites, prompts, prompts.corrupt)[0]
    mask = prompts.mask(first).to(model.cfg.device)
    traces = []
    for site in sites:
        x, value = clean[site.writes]
        parts, base = site.decompose(x, value, mask), None
        start = parts.rest.view(value.shape)
        if corrupt:
            x_base, value_base = corrupt[site.writes]
            base = (x_base, site.decompose(x_base, value_base, mask))
            start = torch.where(mask[..., None], value_base, value)
        traces.append(Trace(site=site, x=x, value=value, parts=parts, start=start, base=base, mask=mask, metric=metric))
    return traces


@torch.no_grad()
def metric_with(model: Any, sites: Sequence[Site], prompts: Prompts, change: Sequence[Replace | None]) -> Tensor:
    """Return the metric, `[batch]` float64, of a run in which the values at some sites are replaced."""
    return prompts.metric(run_sites(model, prompts.tokens, sites, change, [read_hook(prompts.at)])).cpu().double()


def put(value: Tensor) -> Replace:
    """Return a replacement by a fixed value."""
    return lambda x, given: value


def activation_of(acts: SparseActs, feature: int) -> Tensor:
    """Return the activation of one feature on each token, `[n]`."""
    return (acts.values * (acts.indices == feature)).sum(1)


def sum_by(index: Tensor, values: Tensor, n: int) -> Tensor:
    """Return the sums of `values [m]` that share an `index [m]`: `[n]` float64."""
    return torch.zeros(n, dtype=torch.float64, device=values.device).index_add_(0, index, values.double())


def _values(
    model: Any, sites: Sequence[Site], prompts: Prompts, tokens: Tensor
) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
    """Return the values that each site reads and writes, by the hook point that it writes, and the metric."""
    store: dict[str, tuple[Tensor, Tensor]] = {}
    notes = [note_values(store, site.writes) for site in sites]
    logits = run_sites(model, tokens, sites, notes, [read_hook(prompts.at)])
    return store, prompts.metric(logits).cpu().double()
