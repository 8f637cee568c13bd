"""Which heads look elsewhere or write something else, and whether by their own weights or by what reaches them.

Five measures of every head, each against the same measure of models that differ in nothing:

- `pattern`: total variation `1/2 sum |a - b|` of the attention of both models on the same text, mean over queries: 0
  the same, 1 nothing in common. A head behind the change moves too, since its input did
- `own_pattern`: the same while both read the *base's* stream: what the head's own weights changed
- `own_output`: the length of the difference of what the head writes into the stream, over the length of what it wrote,
  again both on the base's stream: 0 the same, 1 as large as what it wrote. It sees an edit of W_V and W_O as well
- `previous_token`, `induction`: scores of `interp.circuits.head_kinds` on random prompts that repeat, tuned less base,
  paired by prompt: -1 to 1

One context (or prompt) is one observation; a head is found when the interval's near end, corrected for all heads, lies
beyond the bound of the nulls.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from interp.changes.components import FAMILY_WISE, SMALLEST, check_comparable, describe_null, null_models, upper_bound
from interp.changes.representations import check_tokens
from interp.circuits.head_kinds import KINDS, draw_prompts, pattern_scores, target_masks, target_weights
from interp.errors import ConfigError
from interp.models.residual import ResidualStream
from interp.progress import Progress
from interp.results import Result
from interp.statistics import Interval, t_interval

Measure = Literal["pattern", "own_pattern", "own_output", "previous_token", "induction"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
ON_TEXT: tuple[Measure, ...] = MEASURES[:3]
SCORES: tuple[Measure, ...] = MEASURES[3:]


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadChanges(Result):
    """Every measure of every head: dicts by measure of arrays `[n_layers, n_heads]`."""

    value: dict[str, Interval[np.ndarray]]
    """over contexts or prompts; 0: nothing changed"""
    null: dict[str, np.ndarray]
    """mean size under the nulls"""
    null_high: dict[str, np.ndarray]
    found: dict[str, np.ndarray]
    """bool"""
    before: dict[str, np.ndarray]
    """the base's own `previous_token` and `induction` scores"""
    null_words: str
    n_contexts: int

    def names(self, measure: Measure) -> list[str]:
        """The heads found by a measure, the largest change first."""
        places = np.argwhere(self.found[measure])
        order = sorted(places.tolist(), key=lambda at: -abs(float(self.value[measure].estimate[tuple(at)])))
        return [f"L{layer}H{head}" for layer, head in order]

    def to_records(self) -> list[dict[str, Any]]:
        """One row per head and measure: `head, layer, measure, value, low, high, null, null_high, found`."""
        return [
            {"head": f"L{layer}H{head}", "layer": layer, "measure": measure}
            | value.at((layer, head)).columns("value", "low", "high")
            | {key: getattr(self, key)[measure][layer, head].item() for key in ("null", "null_high", "found")}
            for measure, value in self.value.items()
            for layer, head in np.ndindex(value.estimate.shape)
        ]

    def headline(self) -> str:
        """Count the heads found by each measure."""
        found = [f"{len(self.names(measure))} by {measure.replace('_', ' ')}" for measure in self.found]
        return f"Heads that changed by more than the null ({self.null_words}): {', '.join(found)}"

    def shown(self) -> list[dict[str, Any]]:
        """Return the heads found, the largest change first."""
        return sorted((row for row in self.to_records() if row["found"]), key=lambda row: -abs(row["value"]))


@torch.no_grad()
def head_changes(
    base: Any,
    tuned: Any,
    tokens: Tensor,
    *,
    continuations: Sequence[Any] = (),
    n_prompts: int = 16,
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> HeadChanges:
    """Compare the heads of two models on `tokens [n_contexts, pos]`, and their scores on `n_prompts` random prompts.

    Without scores when the model's context is too short for prompts that repeat. Raises `ConfigError` when the models
    have no patterns (load them with `attention="eager"`) or no heads of their own, and what `check_comparable` raises.
    """
    check_comparable(base, tuned)
    check_tokens(tokens, base)
    if n_prompts < 2:
        raise ConfigError(f"an interval needs at least two prompts, got {n_prompts}")
    nulls = null_models(base, continuations)
    prompts = _Prompts.draw(base, n_prompts, seed)
    reference = list(_references(base, tokens, batch_size))
    scores = prompts.scores(base)
    measured = {**_on_text(tuned, reference), **_differences(prompts.scores(tuned), scores)}
    chance = []
    for done, null in enumerate(nulls):
        if progress:
            progress(done + 1, len(nulls) + 1, {})
        with null as model:
            chance.append({**_on_text(model, reference), **_differences(prompts.scores(model), scores)})
    before = {kind: values.mean(-1) for kind, values in scores.items()}
    return _judge(measured, chance, before, describe_null(len(continuations)), len(tokens))


def _judge(
    measured: dict[str, np.ndarray], chance: list[dict[str, np.ndarray]], before: dict, words: str, n: int
) -> HeadChanges:
    changes: dict[str, Interval[np.ndarray]] = {}
    out: dict[str, dict[str, np.ndarray]] = {k: {} for k in ("null", "null_high", "found")}
    for measure, values in measured.items():
        heads = values.shape[0] * values.shape[1]
        sizes = np.stack([np.abs(each[measure].mean(-1)) for each in chance])
        changes[measure] = t_interval(values)
        _, near, far = t_interval(values, 1 - 2 * FAMILY_WISE / heads)
        bound = upper_bound(sizes, n_tests=heads)
        out["null"][measure], out["null_high"][measure] = sizes.mean(0), bound
        beyond = np.maximum(near, -far)  # the end nearer to 0 of an interval that may lie on either side
        out["found"][measure] = beyond > np.maximum(bound, SMALLEST)
    return HeadChanges(value=changes, **out, before=before, null_words=words, n_contexts=n)


@dataclass(frozen=True)
class _Reference:
    """What the base does on one batch: per layer the stream, the patterns, and what heads wrote (as z)."""

    tokens: Tensor
    resid: list[Tensor]
    pattern: list[Tensor]
    z: list[Tensor]
    residual: ResidualStream


def _references(base: Any, tokens: Tensor, batch_size: int) -> Any:
    from interp.patching.partial import capture

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
    """`[n_heads, batch, pos, d_model]`: what each head writes, without the bias that all share."""
    return torch.stack([residual.head_output(layer, z, head) for head in range(residual.shape.n_heads)])


def _on_text(model: Any, reference: list[_Reference]) -> dict[str, np.ndarray]:
    """`pattern`, `own_pattern`, `own_output` of a model against the base: `[n_layers, n_heads, n_contexts]`."""
    from interp.patching.partial import capture

    residual, layers = ResidualStream(model), range(model.cfg.n_layers)
    parts: dict[str, list[Tensor]] = {measure: [] for measure in ON_TEXT}
    for batch in reference:
        names = [f"blocks.{layer}.attn.hook_pattern" for layer in layers]
        seen = capture(model, batch.tokens, names)
        own_pattern, own_output = [], []
        for layer in layers:
            inside = [f"blocks.{layer}.{kind}" for kind in _INSIDE]
            value = batch.resid[layer] if layer else batch.tokens
            hooks = [] if layer else [("blocks.0.hook_resid_pre", _put(batch.resid[0]))]
            own = capture(model, value, inside, layer=layer, hooks=hooks)
            own_pattern.append(_variation(own[inside[0]], batch.pattern[layer]))
            own_output.append(_moved(_written(residual, layer, own[inside[1]]), batch.z[layer]))
        moved = [_variation(seen[name], batch.pattern[layer]) for layer, name in enumerate(names)]
        for measure, values in zip(ON_TEXT, (moved, own_pattern, own_output), strict=True):
            parts[measure].append(torch.stack(values))
    return {measure: torch.cat(values, -1).double().cpu().numpy() for measure, values in parts.items()}


def _put(value: Tensor) -> Callable[..., Tensor]:
    def put(_: Tensor, hook: Any) -> Tensor:
        return value

    return put


def _variation(one: Tensor, two: Tensor) -> Tensor:
    """`[n_heads, batch]`: total variation of `[batch, n_heads, dest, src]`, first query left out."""
    return (one.float() - two.float()).abs().sum(-1)[..., 1:].mean(-1).T / 2


def _moved(after: Tensor, before: Tensor) -> Tensor:
    """`[n_heads, batch]`: the length of the difference over that of what was, of `[n_heads, batch, pos, d_model]`."""
    old, new = (each.float().flatten(2).norm(dim=-1) for each in (before, after))
    return (after - before).float().flatten(2).norm(dim=-1) / torch.maximum(old, new).clamp_min(SMALLEST)


@dataclass(frozen=True)
class _Prompts:
    """Random prompts that repeat, and what their heads are scored for; None when the context is too short."""

    tokens: Tensor | None
    weights: Tensor | None

    @classmethod
    def draw(cls, model: Any, n_prompts: int, seed: int) -> "_Prompts":
        from interp.models.adapter import bos_token_id, ordinary_tokens

        bos, ids = bos_token_id(model), ordinary_tokens(model)
        length = min(101, model.cfg.n_ctx, len(ids) + (bos is not None))
        longest = min(50, (length - 1) // 2)
        if longest < 4:
            return cls(None, None)
        shortest = max(2, min(20, longest // 2))
        tokens = draw_prompts(ids, bos, n_prompts, length, shortest, longest, seed)[0]
        return cls(tokens, target_weights(target_masks(tokens, bos)))

    def scores(self, model: Any) -> dict[str, np.ndarray]:
        """`[n_layers, n_heads, n_prompts]` by kind; NaN-free, empty without prompts."""
        if self.tokens is None or self.weights is None:
            return {}
        every = pattern_scores(model, self.tokens, self.weights, 16).double().numpy()
        return {kind: every[:, :, list(KINDS).index(kind)] for kind in SCORES}


def _differences(after: dict[str, np.ndarray], before: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {kind: after[kind] - before[kind] for kind in after}
