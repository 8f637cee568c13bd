"""Which features a prediction rests on: the effect of every active feature at every position, from gradients.

    effect = (activation on the prompt - activation in the baseline) * d metric / d activation

The baseline is the corrupted prompt, or without one the SAE with all features and its error switched off. Two methods:
`gradient` takes the slope on the prompt itself (attribution patching); `ig` its mean on the straight line from the
baseline's value to the prompt's, the integrated gradients of sparse feature circuits (Marks et al. 2024, 2403.19647).

A positive effect helps the metric: it estimates `m(prompt) - m(prompt with that feature as in the baseline)`, the sign
that edge scores have here (the paper's indirect effect is minus that). What the SAE leaves out is a node like any
feature, the *error*. Features, error and rest add up to `m(prompt) - m(baseline)`: exactly where the metric is linear
in the value, with `ig` up to the number of steps; `gap` says by how much not.

The two answer different questions. Where a model is sure of its answer, switching one feature off changes little and
`gradient` ranks such ablations well; `ig` shares out the whole fall to the baseline, and its ranking is another.

One pass forward and back serves all positions and, with `gradient`, all SAEs; `ig` takes `steps` for each SAE. Only
active features are held.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from interp.circuits.task import Task, read_hook
from interp.errors import ConfigError
from interp.progress import Progress
from interp.results import ROWS, Record, Result
from saes.circuits.config import AttributionConfig
from saes.circuits.sites import Prompts, Site, open_sites, run_sites
from saes.circuits.traces import Trace, metric_with, put, sum_by, trace_sites
from saes.kinds.base import SAE


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureAttribution(Result):
    """Effects of the features of one SAE. Units are the metric's; one entry per prompt, position and active feature."""

    site: Site
    prompt: Tensor
    """`[m]` int64"""
    position: Tensor
    """`[m]` int64"""
    feature: Tensor
    """`[m]` int64"""
    activation: Tensor
    """`[m]` on the prompt; 0 for a feature that only the corrupted prompt has"""
    effect: Tensor
    """`[m]`"""
    error: Tensor
    """`[n_prompts, pos]` effect of what the SAE does not reconstruct"""
    rest: Tensor
    """`[n_prompts, pos]` effect of a skip connection or a token's own scale, where corrupted prompts change those"""
    metric: Tensor
    """`[n_prompts]` on the prompts"""
    baseline: Tensor
    """`[n_prompts]` with the site's value as in the baseline, all else following"""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def by_feature(self) -> Tensor:
        """`[d_sae]` float64: effects summed over positions, mean over prompts."""
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
        """`m(prompt) - m(baseline)`, mean over prompts: what there is to explain."""
        return float((self.metric - self.baseline).mean())

    @property
    def gap(self) -> float:
        """`total` less all effects: what the gradients miss. 0 where the metric is linear in the site's value."""
        return self.total - self.explained - self.error_effect - float(self.rest.double().sum()) / len(self.metric)

    def top(self, n: int) -> list[tuple[int, float]]:
        """The `n` features with the largest effects by size, strongest first, and their effects; silent ones never."""
        effects = self.by_feature
        order = effects.abs().argsort(descending=True, stable=True)[:n].tolist()
        return [(feature, float(effects[feature])) for feature in order if effects[feature] != 0]

    def to_records(self) -> list[Record]:
        """Return one row per prompt, position and active feature: `prompt, position, feature, activation, effect`."""
        names = ("prompt", "position", "feature", "activation", "effect")
        columns = [getattr(self, name).tolist() for name in names]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def headline(self) -> str:
        """Split the change of the metric over features, error and what the gradients miss."""
        return (
            f"Attribution to features at {self.site.reads}: of {self.total:+.3f}, features {self.explained:+.3f}, "
            f"reconstruction error {self.error_effect:+.3f}, rest {self.gap:+.3f} (mean of {len(self.metric)} prompts)"
        )

    def shown(self) -> list[Record]:
        """Return the features with the largest effects, summed over positions, mean over prompts."""
        return [{"feature": feature, "effect": effect} for feature, effect in self.top(ROWS)]


def attribute(
    model: Any,
    saes: SAE | Sequence[SAE],
    prompts: Prompts | Task,
    config: AttributionConfig | None = None,
    *,
    progress: Progress | None = None,
) -> list[FeatureAttribution]:
    """Effects of the features of each SAE on the metric, in the order in which the model computes their places.

    Each SAE is judged in the unchanged model, so effects at several places count the same path again.

    Raises as `open_sites` does, and `ConfigError` for a metric whose gradient is zero on the prompts themselves.
    """
    config = config or AttributionConfig()
    prompts = Prompts.of_task(prompts) if isinstance(prompts, Task) else prompts
    check_metric(prompts, config)
    sites = open_sites(model, [saes] if isinstance(saes, SAE) else saes)
    found: list[list[_Batch]] = [[] for _ in sites]
    for number, batch in enumerate(parts := prompts.batches(config.batch_size), 1):
        traces = trace_sites(model, sites, batch, first=config.first)
        gradients = metric_gradients(model, traces, batch, config)
        for i, (each, gradient) in enumerate(zip(traces, gradients, strict=True)):
            baseline = metric_with(model, [each.site], batch, [put(each.start)])
            found[i].append(_Batch(each, gradient, baseline))
        if progress:
            progress(number, len(parts), {})
    settings = {**config.describe(prompts), "n_prompts": len(prompts)}
    return [_collect(batches, settings) for batches in found]


def check_metric(prompts: Prompts, config: AttributionConfig) -> None:
    """Raises `ConfigError` when the method asks for a gradient that is zero everywhere."""
    if config.method == "gradient" and prompts.metric.flat_at_clean:
        raise ConfigError(
            f"the gradient of {prompts.metric.name} is zero on the prompts themselves; use method='ig', or a metric of "
            "the answer"
        )


def metric_gradients(model: Any, traces: Sequence[Trace], prompts: Prompts, config: AttributionConfig) -> list[Tensor]:
    """`[batch, pos, d_out]` for each site: the metric's gradient at its value, mean over the steps of `ig`."""
    if config.method == "gradient":
        return _joint_gradients(model, [each.site for each in traces], prompts)
    return [_path_gradient(model, each, prompts, config.steps) for each in traces]


def _joint_gradients(model: Any, sites: Sequence[Site], prompts: Prompts) -> list[Tensor]:
    """The metric's gradient at every site, of one pass."""
    values: list[Tensor] = []

    def watch(x: Tensor, value: Tensor) -> Tensor:
        # nothing before the first site is asked for, so its graph need not be kept
        values.append(value.view_as(value) if values else value.detach().requires_grad_())
        return values[-1]

    with torch.enable_grad():
        logits = run_sites(model, prompts.tokens, sites, [watch] * len(sites), [read_hook(prompts.at)])
        return list(torch.autograd.grad(prompts.metric(logits).sum(), values))


def _path_gradient(model: Any, trace: Trace, prompts: Prompts, steps: int) -> Tensor:
    """Mean gradient at the middles of `steps` equal parts of the line from the baseline's value to the prompt's."""
    total = torch.zeros_like(trace.value)
    for step in range(steps):
        at = torch.lerp(trace.start, trace.value, (step + 0.5) / steps).requires_grad_()
        with torch.enable_grad():
            logits = run_sites(model, prompts.tokens, [trace.site], [put(at)], [read_hook(prompts.at)])
            total += torch.autograd.grad(prompts.metric(logits).sum(), at)[0]
    return total / steps


class _Batch(NamedTuple):
    trace: Trace
    gradient: Tensor
    baseline: Tensor


def _collect(batches: list[_Batch], settings: dict[str, Any]) -> FeatureAttribution:
    """One site's batches as one value."""
    columns: dict[str, list[Tensor]] = {name: [] for name in ("prompt", "position", "feature", "activation", "effect")}
    error, rest, done = [], [], 0
    for each, gradient, _ in batches:
        n, pos = each.value.shape[:2]
        columns["prompt"].append(done + each.row // pos)
        columns["position"].append(each.row % pos)
        columns["feature"].append(each.feature)
        columns["activation"].append(each.activation())
        columns["effect"].append(each.effects(gradient))
        error.append(torch.linalg.vecdot(each.error_change, gradient))
        rest.append(torch.linalg.vecdot(each.rest_change, gradient))
        done += n
    return FeatureAttribution(
        site=batches[0].trace.site,
        **{name: torch.cat(parts).cpu() for name, parts in columns.items()},
        error=torch.cat(error).cpu(),
        rest=torch.cat(rest).cpu(),
        metric=torch.cat([each.trace.metric for each in batches]),
        baseline=torch.cat([each.baseline for each in batches]),
        settings=settings,
    )


@torch.no_grad()
def exact_effects(
    model: Any,
    sae: SAE,
    prompts: Prompts | Task,
    features: Sequence[int],
    config: AttributionConfig | None = None,
    *,
    progress: Progress | None = None,
) -> Tensor:
    """`[n_features]` float64: `m(prompt) - m(prompt with that feature as in the baseline)`, mean over prompts.

    One run of the model per feature, all positions at once, the error kept: what `attribute` estimates.
    """
    config = config or AttributionConfig()
    prompts = Prompts.of_task(prompts) if isinstance(prompts, Task) else prompts
    _check_features(sae, features)
    [site] = open_sites(model, [sae])
    total = torch.zeros(len(features), dtype=torch.float64)
    for number, batch in enumerate(parts := prompts.batches(config.batch_size), 1):
        [each] = trace_sites(model, [site], batch, first=config.first)
        for i, feature in enumerate(features):
            changed = metric_with(model, [site], batch, [put(each.value + each.change(feature))])
            total[i] += (each.metric - changed).sum()
        if progress:
            progress(number, len(parts), {})
    return total / len(prompts)


def _check_features(sae: SAE, features: Sequence[int]) -> None:
    wrong = [feature for feature in features if not 0 <= feature < sae.d_sae]
    if wrong:
        raise ConfigError(f"feature {wrong[0]} is not there; the SAE has features 0 to {sae.d_sae - 1}")
