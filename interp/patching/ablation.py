"""Ablation: the effect of removing components, singly or in groups, on the model's loss.

    with ablated(model, ["L1H0", "L1H3"], kind="mean", reference=tokens):
        logits = model(tokens)

    found = ablate(model, tokens, {"pair": ["L1H0", "L1H3"], "L1H0": ["L1H0"]}, kind="mean", lags=lags, start=1)
    found.second.mean(1)          # nats of loss added to the tokens after the repeat began

A component is a head `L5H1`, all heads of a layer `L5ATTN` (their output bias remains), an MLP `L5MLP`, or a neuron
`L5N123`. The *kind* of ablation is the value that replaces its output, and results depend on it:

    zero      zero. Out of distribution; overstates components with a large mean
    mean      the mean over reference prompts, per position with `by_position`
    resample  the component's value on another prompt: the reference prompt of the same index

Redundant components each look unimportant alone: ablate them as a group, too.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int
from torch import Tensor

from interp.errors import ConfigError, PromptError, UnknownNameError
from interp.interventions.apply import ComponentAt, component_at
from interp.interventions.edits import inserting
from interp.models.adapter import Hook
from interp.models.hooked import HookedModel
from interp.models.passes import capture, repeat_losses, run_from, token_losses
from interp.patching.patching_map import AblationEffect
from interp.progress import Progress
from interp.results import Record, Result, columns_of
from interp.statistics import t_interval
from interp.view import Rows, View

AblationKind = Literal["zero", "mean", "resample"]


class Ablator:
    """Hooks that ablate a set of components.

    Reference values are computed once, batch by batch. Means take one vector per hook point (and position) of memory;
    `resample` takes the values of all reference prompts at those hook points.
    """

    def __init__(
        self,
        model: HookedModel,
        components: Sequence[str],
        *,
        kind: AblationKind = "mean",
        reference: Int[Tensor, "batch pos"] | None = None,
        by_position: bool = False,
        batch_size: int = 16,
    ):
        if kind not in get_args(AblationKind):
            raise UnknownNameError("kind of ablation", kind, get_args(AblationKind))
        if kind != "zero" and reference is None:
            raise ConfigError(f"{kind} ablation needs reference prompts; pass reference=tokens [batch, pos]")
        self.model, self.kind, self.by_position = model, kind, by_position
        self.parts = [component_at(model, name) for name in components]
        self.points = sorted({part.point for part in self.parts}, key=_layer)
        self.values: dict[str, Tensor] = {}
        if kind == "mean" and reference is not None:
            self.values = mean_values(model, reference, self.points, by_position=by_position, batch_size=batch_size)
        elif kind == "resample" and reference is not None and self.points:
            batches = [capture(model, rows, self.points) for rows in reference.split(batch_size)]
            self.values = {point: torch.cat([batch[point] for batch in batches]) for point in self.points}

    def hooks(self, components: Sequence[str] | None = None, rows: slice | None = None) -> list[tuple[str, Hook]]:
        """Return hooks that ablate all components, or some; `rows` are this batch's reference prompts in `resample`."""
        parts = self.parts
        if components is not None:
            parts = [component_at(self.model, name) for name in components]
        by_point: dict[str, list[ComponentAt]] = {}
        for part in sorted(parts, key=lambda part: part.layer):
            by_point.setdefault(part.point, []).append(part)
        return [(point, self._hook(point, chosen, rows)) for point, chosen in by_point.items()]

    def _hook(self, point: str, chosen: list[ComponentAt], rows: slice | None) -> Hook:
        slots = [(slice(None), part.slot) for part in chosen]
        return inserting(0.0 if self.kind == "zero" else lambda value: self._reference(point, value, rows), slots)

    def _reference(self, point: str, value: Tensor, rows: slice | None) -> Tensor:
        known = self.values[point]
        if self.kind == "resample":
            known = known if rows is None else known[rows]
            if len(known) != len(value):
                raise PromptError(f"{len(value)} prompts need {len(value)} reference prompts, got {len(known)}")
        if known.shape[1] not in (1, value.shape[1]):
            raise PromptError(
                f"the reference prompts have {known.shape[1]} tokens, these {value.shape[1]}; "
                "use prompts of one length, or the mean over all positions"
            )
        return known.to(value.device)


@contextmanager
def ablated(
    model: HookedModel,
    components: Sequence[str],
    *,
    kind: AblationKind = "mean",
    reference: Int[Tensor, "batch pos"] | None = None,
    by_position: bool = False,
    batch_size: int = 16,
) -> Iterator[Ablator]:
    """Ablate components of the model within the block; the settings are those of `ablate`.

        with ablated(model, ["L1H0"], kind="zero"):
            logits = model(tokens)

    Raises `ConfigError` for a `mean` or `resample` without `reference` prompts `[batch, pos]`, which are read
    `batch_size` at a time, `by_position` or together.
    """
    ablator = Ablator(model, components, kind=kind, reference=reference, by_position=by_position, batch_size=batch_size)
    with model.hooks(fwd_hooks=ablator.hooks()):
        yield ablator


@dataclass(frozen=True)
class Ablations(Result):
    """Effect of ablating each group on the loss, in nats; above 0 the model got worse."""

    groups: dict[str, tuple[str, ...]]
    first: Float64[np.ndarray, "n_groups n_prompts"]
    """`[n_groups, n_prompts]` change of the mean loss over the first half (or up to the start of the repeat)"""
    second: Float64[np.ndarray, "n_groups n_prompts"]
    """the same over the second half (or the repeat)"""
    per_position: Float64[np.ndarray, "n_groups targets"]
    """`[n_groups, pos - 1]` change of the loss of token `t + 1`, mean over prompts"""
    base_first: Float64[np.ndarray, " n_prompts"]
    """`[n_prompts]` loss of the unablated model; `base_second` likewise"""
    base_second: Float64[np.ndarray, " n_prompts"]
    settings: Record = field(default_factory=dict)
    """kind, by_position, n_prompts, reference prompts"""

    def rows(self, confidence: float = 0.95) -> list[AblationEffect]:
        """Return the effect of ablating each group."""
        mean, low, high = t_interval(self.second, confidence)
        return [
            AblationEffect(
                group=name,
                kind=self.settings["kind"],
                loss_first_half=float(self.first[i].mean()),
                loss_second_half=float(mean[i]),
                low=float(low[i]),
                high=float(high[i]),
                n_heads=len(parts),
            )
            for i, (name, parts) in enumerate(self.groups.items())
        ]

    def to_records(self, confidence: float = 0.95) -> list[Record]:
        """Return one row per group: `group, kind, loss_first_half, loss_second_half, low, high, n_heads`."""
        return [columns_of(row) for row in self.rows(confidence)]

    def view(self) -> View:
        kind, loss = self.settings.get("kind", ""), float(self.base_second.mean())
        yield f"Change of the loss by {kind} ablation, in nats; the whole model's is {loss:.3f} in the second half"
        yield Rows(lambda: sorted(self.to_records(), key=lambda row: -row["loss_second_half"]))


@torch.no_grad()
def ablate(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    groups: Mapping[str, Sequence[str]] | Sequence[str],
    *,
    kind: AblationKind = "mean",
    reference: Int[Tensor, "n_reference reference_pos"] | None = None,
    by_position: bool = False,
    lags: Int[Tensor, " batch"] | int | None = None,
    start: int = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Ablations:
    """Measure the effect of ablating each group of components on prompts `tokens [batch, pos]`.

        effects = ablate(model, tokens, ["L0H0", "L1H0"], kind="mean")

    `groups` maps a name to components; a plain list ablates each component by itself. `kind` replaces their values by
    `zero`, by the `mean` over the `reference` prompts (of each position alone with `by_position`), or by those of
    another reference prompt (`resample`). `reference` defaults to the
    prompts themselves for `mean`, and for `resample` to the prompts rolled by one, so that each gets another prompt.
    `lags` and `start` give the start of each prompt's repeat (`interp.models.passes.repeat_losses`); without lags the
    prompt is split in the middle. A pass begins at the first ablated layer, with at most `batch_size` prompts.

    Raises `ConfigError` for an empty group or a single prompt to resample, `UnknownNameError` for unknown components.
    """
    parts = {name: tuple(names) for name, names in groups.items()} if isinstance(groups, Mapping) else {
        name: (name,) for name in groups
    }  # fmt: skip
    if not parts or not all(parts.values()):
        raise ConfigError("name at least one component in every group")
    if kind == "resample" and reference is None:
        if len(tokens) < 2:
            raise ConfigError("resampling needs a second prompt; pass reference=tokens")
        reference = tokens.roll(1, 0)
    reference = tokens if reference is None else reference
    components = sorted({name for names in parts.values() for name in names})
    ablator = Ablator(model, components, kind=kind, reference=reference, by_position=by_position, batch_size=batch_size)
    starts = {name: min(component_at(model, component).layer for component in names) for name, names in parts.items()}
    base, ablated, done = [], {name: [] for name in parts}, 0
    total = len(parts) * -(-len(tokens) // batch_size)
    for first in range(0, len(tokens), batch_size):
        rows = slice(first, first + batch_size)
        resids = _resids(model, tokens[rows], set(starts.values()))
        base.append(_losses(model, resids, tokens[rows], max(starts.values()), []))
        for name, names in parts.items():
            ablated[name].append(_losses(model, resids, tokens[rows], starts[name], ablator.hooks(names, rows)))
            done += 1
            if progress is not None:
                progress(done, total, {})
    lags = tokens.shape[1] // 2 if lags is None else lags
    unablated = torch.cat(base)
    base_first, base_second = (half.double().numpy() for half in repeat_losses(unablated, lags, start=start))
    halves = [repeat_losses(torch.cat(losses), lags, start=start) for losses in ablated.values()]
    return Ablations(
        groups=parts,
        first=np.stack([first.double().numpy() for first, _ in halves]) - base_first,
        second=np.stack([second.double().numpy() for _, second in halves]) - base_second,
        per_position=np.stack(
            [(torch.cat(losses) - unablated).mean(0).double().numpy() for losses in ablated.values()]
        ),
        base_first=base_first,
        base_second=base_second,
        settings={"kind": kind, "by_position": by_position, "n_prompts": len(tokens), "n_reference": len(reference)},
    )


@torch.no_grad()
def mean_values(
    model: HookedModel,
    reference: Int[Tensor, "batch pos"],
    points: Sequence[str],
    *,
    by_position: bool,
    batch_size: int = 16,
) -> dict[str, Float32[Tensor, "1 ..."]]:
    """Return the mean at each hook point over prompts, `[1, pos, ...]`, or over positions too, `[1, 1, ...]`."""
    sums: dict[str, Tensor] = {}
    for rows in reference.split(batch_size) if points else ():
        for point, value in capture(model, rows, points).items():
            part = value.double().sum(0, keepdim=True)
            part = part if by_position else part.mean(1, keepdim=True)
            sums[point] = sums[point] + part if point in sums else part
    return {point: (total / len(reference)).float() for point, total in sums.items()}


def _resids(model: HookedModel, tokens: Tensor, layers: set[int]) -> dict[int, Tensor]:
    """Return the residual before each of the layers; for layer 0, the tokens themselves."""
    names = {layer: f"blocks.{layer}.hook_resid_pre" for layer in layers if layer > 0}
    values = capture(model, tokens, list(names.values())) if names else {}
    return {0: tokens} | {layer: values[name] for layer, name in names.items()}


def _losses(
    model: HookedModel, resids: dict[int, Tensor], tokens: Tensor, layer: int, hooks: list[tuple[str, Hook]]
) -> Tensor:
    logits = run_from(model, resids[layer], hooks, layer=layer)
    assert logits is not None
    return token_losses(logits, tokens).cpu()


def _layer(point: str) -> int:
    return int(point.split(".")[1])
