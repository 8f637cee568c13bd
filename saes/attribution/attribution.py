"""Attribution of a metric to features: the effect of every active feature.

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
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.models.passes import read_hook
from interp.patching.task import Task
from interp.progress import Progress
from interp.results import ROWS, Record, Result
from interp.view import Rows, View
from saes.attribution.config import AttributionConfig
from saes.attribution.sites import (
    MeasuredPrompts,
    SAESite,
    SiteTrace,
    metric_with,
    open_sites,
    put,
    run_sites,
    sum_by,
    trace_sites,
)
from saes.kinds.base import SAE


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

    def view(self) -> View:
        yield (
            f"Attribution to features at {self.site.reads}: of {self.total:+.3f}, features {self.explained:+.3f}, "
            f"reconstruction error {self.error_effect:+.3f}, rest {self.gap:+.3f} (mean of {len(self.metric)} prompts)"
        )
        yield Rows(lambda: [{"feature": feature, "effect": effect} for feature, effect in self.top(ROWS)])


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
