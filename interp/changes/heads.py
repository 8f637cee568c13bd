"""Changes of attention heads, separated into effects of a head's own weights and of its input.

There are five measures of every head, each compared with the same measure of null models (`components`):

- `pattern`: total variation `1/2 sum |a - b|` of the attention of both models on the same text, mean over queries. 0:
  the same; 1: disjoint. It also changes in heads downstream of the edit, since their input changed.
- `own_pattern`: the same with both models' heads on the *base's* residual stream: the effect of the head's own weights.
- `own_output`: norm of the difference of the head's outputs to the residual stream, over the larger of their norms,
  again with both on the base's stream. 0: the same; 1: the difference is as large as the output; at most 2. It also
  responds to edits of W_V and W_O.
- `previous_token`, `induction`: scores of `interp.circuits.head_kinds` on random repeated prompts, tuned minus base,
  paired by prompt; -1 to 1.

One context (or prompt) is one observation. A head is found if the end of the interval nearer to 0, corrected for all
heads, lies beyond the bound of the nulls.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.changes.components import FAMILY_WISE, SMALLEST, check_comparable, describe_null, null_models, upper_bound
from interp.changes.measured import ON_TEXT, SCORES, HeadChanges, HeadMeasure, Measure
from interp.changes.representations import check_tokens
from interp.circuits.head_kinds import draw_prompts, pattern_scores, target_masks, target_weights
from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.models.residual import ResidualStream
from interp.progress import Progress
from interp.statistics import t_interval


@torch.no_grad()
def head_changes(
    base: HookedModel,
    tuned: HookedModel,
    tokens: Tensor,
    *,
    continuations: Sequence[HookedModel] = (),
    n_prompts: int = 16,
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> HeadChanges:
    """Compare the heads of two models on `tokens [n_contexts, pos]`, and their scores on `n_prompts` random prompts.

    The scores are omitted when the model's context is too short for repeated prompts. Raises `ConfigError` when the
    models have no patterns (load them with `attention="eager"`) or no separate weights per head, and what
    `check_comparable` raises.
    """
    check_comparable(base, tuned)
    check_tokens(tokens, base)
    if n_prompts < 2:
        raise ConfigError(f"an interval needs at least two prompts, got {n_prompts}")
    nulls = null_models(base, continuations)
    prompts = _Prompts.draw(base, n_prompts, seed)
    reference = list(_references(base, tokens, batch_size))
    scores = prompts.scores(base)
    measured: dict[Measure, np.ndarray] = {**_on_text(tuned, reference), **_differences(prompts.scores(tuned), scores)}
    chance: list[dict[Measure, np.ndarray]] = []
    for done, null in enumerate(nulls):
        if progress:
            progress(done + 1, len(nulls) + 1, {})
        with null as model:
            chance.append({**_on_text(model, reference), **_differences(prompts.scores(model), scores)})
    before: dict[Measure, np.ndarray] = {kind: values.mean(-1) for kind, values in scores.items()}
    return _judge(measured, chance, before, describe_null(len(continuations)), len(tokens))


def _judge(
    measured: dict[Measure, np.ndarray],
    chance: list[dict[Measure, np.ndarray]],
    before: dict[Measure, np.ndarray],
    words: str,
    n: int,
) -> HeadChanges:
    judged: dict[Measure, HeadMeasure] = {}
    for measure, values in measured.items():
        heads = values.shape[0] * values.shape[1]
        sizes = np.stack([np.abs(each[measure].mean(-1)) for each in chance])
        _, near, far = t_interval(values, 1 - 2 * FAMILY_WISE / heads)
        bound = upper_bound(sizes, n_tests=heads)
        beyond = np.maximum(near, -far)  # the end nearer to 0; the interval may lie on either side of 0
        found = beyond > np.maximum(bound, SMALLEST)
        judged[measure] = HeadMeasure(value=t_interval(values), null=sizes.mean(0), null_high=bound, found=found)
    return HeadChanges(measures=judged, before=before, null_words=words, n_contexts=n)


@dataclass(frozen=True)
class _Reference:
    """Values of the base on one batch, per layer: the residual stream, attention patterns, and head outputs as z."""

    tokens: Tensor
    resid: list[Tensor]
    pattern: list[Tensor]
    z: list[Tensor]
    residual: ResidualStream


def _references(base: HookedModel, tokens: Tensor, batch_size: int) -> Any:
    from interp.models.passes import capture

    residual = ResidualStream(base)
    layers = range(base.cfg.n_layers)
    for rows in tokens.to(base.cfg.device).split(batch_size):
        names = {kind: [f"blocks.{layer}.{kind}" for layer in layers] for kind in (*_INSIDE, "hook_resid_pre")}
        seen = capture(base, rows, [name for each in names.values() for name in each])
        values = {kind: [seen[name] for name in each] for kind, each in names.items()}
        written = [_written(residual, layer, z) for layer, z in enumerate(values["attn.hook_z"])]
        yield _Reference(rows, values["hook_resid_pre"], values["attn.hook_pattern"], written, residual)


_INSIDE = ("attn.hook_pattern", "attn.hook_z")


def _written(residual: ResidualStream, layer: int, z: Tensor) -> Tensor:
    """Return each head's output to the residual stream, `[n_heads, batch, pos, d_model]`, without the shared bias."""
    return torch.stack([residual.head_output(layer, z, head) for head in range(residual.shape.n_heads)])


def _on_text(model: HookedModel, reference: list[_Reference]) -> dict[Measure, np.ndarray]:
    """Return `pattern`, `own_pattern`, `own_output` of a model against the base, `[n_layers, n_heads, n_contexts]`."""
    from interp.models.passes import capture

    residual, layers = ResidualStream(model), range(model.cfg.n_layers)
    parts: dict[Measure, list[Tensor]] = {measure: [] for measure in ON_TEXT}
    for batch in reference:
        names = [f"blocks.{layer}.attn.hook_pattern" for layer in layers]
        seen = capture(model, batch.tokens, names)
        own_pattern, own_output = [], []
        for layer in layers:
            inside = [f"blocks.{layer}.{kind}" for kind in _INSIDE]
            value = batch.resid[layer] if layer else batch.tokens
            hooks = [] if layer else [("blocks.0.hook_resid_pre", _replacement(batch.resid[0]))]
            own = capture(model, value, inside, layer=layer, hooks=hooks)
            own_pattern.append(_variation(own[inside[0]], batch.pattern[layer]))
            own_output.append(_relative_difference(_written(residual, layer, own[inside[1]]), batch.z[layer]))
        pattern = [_variation(seen[name], batch.pattern[layer]) for layer, name in enumerate(names)]
        for measure, values in zip(ON_TEXT, (pattern, own_pattern, own_output), strict=True):
            parts[measure].append(torch.stack(values))
    return {measure: torch.cat(values, -1).double().cpu().numpy() for measure, values in parts.items()}


def _replacement(value: Tensor) -> Callable[..., Tensor]:
    def replace(_: Tensor, hook: Any) -> Tensor:
        return value

    return replace


def _variation(one: Tensor, two: Tensor) -> Tensor:
    """Return the total variation of two patterns `[batch, n_heads, dest, src]`, `[n_heads, batch]`.

    The first query is omitted.
    """
    return (one.float() - two.float()).abs().sum(-1)[..., 1:].mean(-1).T / 2


def _relative_difference(after: Tensor, before: Tensor) -> Tensor:
    """Return the norm of the difference over the larger norm, `[n_heads, batch]`, 0 to 2.

    `after` and `before` are `[n_heads, batch, pos, d_model]`.
    """
    old, new = (each.float().flatten(2).norm(dim=-1) for each in (before, after))
    return (after - before).float().flatten(2).norm(dim=-1) / torch.maximum(old, new).clamp_min(SMALLEST)


@dataclass(frozen=True)
class _Prompts:
    """Random repeated prompts with the weights of the head scores; None when the context is too short."""

    tokens: Tensor | None
    weights: Tensor | None

    @classmethod
    def draw(cls, model: HookedModel, n_prompts: int, seed: int) -> "_Prompts":
        from interp.models.adapter import bos_token_id, ordinary_tokens

        bos, ids = bos_token_id(model), ordinary_tokens(model)
        length = min(101, model.cfg.n_ctx, len(ids) + (bos is not None))
        longest = min(50, (length - 1) // 2)
        if longest < 4:
            return cls(None, None)
        shortest = max(2, min(20, longest // 2))
        tokens = draw_prompts(ids, bos, n_prompts, length, shortest, longest, seed)[0]
        return cls(tokens, target_weights(target_masks(tokens, bos, SCORES)))

    def scores(self, model: HookedModel) -> dict[Measure, np.ndarray]:
        """Return scores `[n_layers, n_heads, n_prompts]` by kind, without NaN; empty without prompts."""
        if self.tokens is None or self.weights is None:
            return {}
        all_scores = pattern_scores(model, self.tokens, self.weights, 16).double().numpy()
        return {kind: all_scores[:, :, at] for at, kind in enumerate(SCORES)}


def _differences(after: dict[Measure, np.ndarray], before: dict[Measure, np.ndarray]) -> dict[Measure, np.ndarray]:
    return {kind: after[kind] - before[kind] for kind in after}
