"""Scores of every head for five kinds of attention pattern, with nulls, intervals and verdicts.

The kinds are previous-token, duplicate-token, induction, first-token and current-token. A kind is a set of *targets*:
for each query (dest), the keys (src) that a head of that kind attends to. Targets are computed from the tokens, not
from diagonals, so they are correct for any text: every earlier copy counts. BOS is not text, so it is neither a query
nor the source of a match, except that the first-token kind measures attention to position 0, which is usually BOS. To
add a kind, add a function here, its name to `KINDS` and a sentence about it to `interp.names.HEAD_KINDS`.

1. Draw random prompts that repeat a block, each with its own lag, and compute their targets.
2. Run one pass per batch. Each layer's patterns are reduced to scores inside the hook and not stored.
3. Measure nulls. For induction and duplicate tokens: the same targets on prompts without repeats. For previous, first
   and current token: a head with uniform attention, and the heads of an untrained model.
4. A kind is *found* in a head when the low end of its 95 % interval is above the null's upper bound, corrected for all
   heads, and above 0.1.

One prompt is one observation: the intervals are Student t over all prompts of all seeds. `head_patterns` returns the
attention of a few heads on one prompt, which circuits store so that a page can show it without the model.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Float32, Int, Int64
from torch import Tensor

from interp.artifacts import Table
from interp.circuits.config import HeadScoresConfig
from interp.circuits.head_scores import HeadScore, HeadScores, HeadSettings
from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.names import HeadName
from interp.progress import Progress
from interp.runtime import make_generator
from interp.statistics import Interval, prediction_bound, t_interval


def previous_token(
    tokens: Int[Tensor, "batch pos"], is_bos: Bool[Tensor, "batch pos"]
) -> Bool[Tensor, "batch pos pos"]:
    """Return the targets of a previous-token head: the key one position back; none for a query right after BOS."""
    return _shift(torch.eye(tokens.shape[1], dtype=torch.bool)[None].expand(len(tokens), -1, -1), -1) & ~is_bos[:, None]


def duplicate_token(
    tokens: Int[Tensor, "batch pos"], is_bos: Bool[Tensor, "batch pos"]
) -> Bool[Tensor, "batch pos pos"]:
    """Return the targets of a duplicate-token head: every earlier copy of the query's token."""
    same = tokens[:, :, None] == tokens[:, None, :]
    return same & _before(tokens, 1) & ~is_bos[:, None]


def induction(tokens: Int[Tensor, "batch pos"], is_bos: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos pos"]:
    """Return the targets of an induction head: every key whose previous token is the query's token.

    Keys up to the query itself count (`k <= q`), as in the prefix matching score of Olsson et al. (2022).
    """
    followed = _shift(tokens[:, :, None] == tokens[:, None, :], 1)
    follows_bos = _shift(is_bos[:, None], 1)
    return followed & _before(tokens, 0) & ~follows_bos


def first_token(tokens: Int[Tensor, "batch pos"], is_bos: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos pos"]:
    """Return the targets of a first-token head: position 0, BOS or not; the query at position 0 does not count."""
    target = torch.zeros(*tokens.shape, tokens.shape[1], dtype=torch.bool)
    target[:, 1:, 0] = True
    return target


def current_token(tokens: Int[Tensor, "batch pos"], is_bos: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos pos"]:
    """Return the targets of a current-token head: the query's own position; position 0 does not count."""
    target = torch.eye(tokens.shape[1], dtype=torch.bool)[None].repeat(len(tokens), 1, 1)
    target[:, 0] = False
    return target


KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "previous_token": previous_token,
    "duplicate_token": duplicate_token,
    "induction": induction,
    "first_token": first_token,
    "current_token": current_token,
}


def target_masks(tokens: Int[Tensor, "batch pos"], bos: int | None) -> dict[str, Bool[Tensor, "batch pos pos"]]:
    """Return the targets of each kind, `[batch, dest, src]` bool, for `tokens [batch, pos]`."""
    tokens = tokens.cpu()
    is_bos = tokens == bos if bos is not None else torch.zeros_like(tokens, dtype=torch.bool)
    return {kind: targets(tokens, is_bos) & ~is_bos[:, :, None] for kind, targets in KINDS.items()}


def target_weights(masks: dict[str, Bool[Tensor, "batch dest src"]]) -> Float32[Tensor, "batch dest*src n_kinds"]:
    """Return weights `[batch, dest * src, n_kinds]` float32, for which `pattern.flatten() @ weights` is the score.

    A prompt's score is the mean, over queries with at least one target, of the attention summed over the targets: 0 is
    no attention on targets, 1 all attention. A prompt without such a query has the score NaN.
    """
    columns = []
    for mask in masks.values():
        n_queries = mask.any(2).sum(1)
        weight = torch.full((len(mask),), torch.nan).where(n_queries == 0, 1 / n_queries)
        columns.append(
            torch.where(mask.flatten(1), weight[:, None], torch.where(n_queries == 0, torch.nan, 0)[:, None])
        )
    return torch.stack(columns, dim=2)


def score_pattern(
    pattern: Float[Tensor, "batch n_heads dest src"], weights: Float[Tensor, "batch dest*src n_kinds"]
) -> Float[Tensor, "batch n_heads n_kinds"]:
    """Return scores `[batch, n_heads, n_kinds]` of `pattern [batch, n_heads, dest, src]`."""
    return torch.bmm(
        rearrange(pattern, "batch head dest src -> batch head (dest src)"), weights.to(pattern.device, pattern.dtype)
    )


def uniform_scores(
    weights: Float[Tensor, "batch dest_src n_kinds"], context_length: int
) -> Float[Tensor, "batch n_kinds"]:
    """Return the scores of a head with uniform attention over all keys up to the query, `[batch, n_kinds]`."""
    ones = torch.ones(context_length, context_length).tril()
    uniform = ones / ones.sum(1, keepdim=True)
    return score_pattern(uniform.expand(len(weights), 1, -1, -1), weights)[:, 0]


def _before(tokens: Tensor, at_least: int) -> Tensor:
    """Return true where src is at least `at_least` positions before dest, `[1, dest, src]`."""
    n = tokens.shape[1]
    return torch.ones(n, n, dtype=torch.bool).tril(-at_least)[None]


def _shift(mask: Tensor, by: int) -> Tensor:
    """Return a mask shifted along src by `by` positions; new entries are False."""
    out = torch.zeros_like(mask)
    if by > 0:
        out[..., by:] = mask[..., :-by]
    else:
        out[..., :by] = mask[..., -by:]
    return out


def head_patterns(
    model: HookedModel, tokens: Int[Tensor, "1 pos"], heads: Iterable[HeadName]
) -> tuple[tuple[str, ...], Float32[np.ndarray, "n_heads dest src"] | None]:
    """Return the names of heads and their attention patterns on `tokens [1, pos]`.

    Nothing when the model's attention kernel computes no patterns.
    """
    from interp.models.adapter import available_hook_points, run_with_cache

    points = {head: f"blocks.{head.layer}.attn.hook_pattern" for head in heads}
    if not points or not set(points.values()) <= available_hook_points(model):
        return (), None
    last = max(head.layer for head in points)
    _, cache = run_with_cache(model, tokens.to(model.cfg.device), sorted(set(points.values())), stop_at_layer=last + 1)
    patterns = [cache[point][0, head.head].float().cpu().numpy() for head, point in points.items()]
    return tuple(map(str, points)), np.stack(patterns)


REPEAT_KINDS = ("duplicate_token", "induction")
"""Kinds whose null is prompts without repeats; the null of the others is an untrained model and uniform attention."""
CONFIDENCE = 0.95
SMALLEST_FOUND = 0.1


def score_heads(
    model: HookedModel,
    config: HeadScoresConfig | None = None,
    *,
    model_name: str = "",
    progress: Progress | None = None,
    **settings: Any,
) -> HeadScores:
    """Score every head of a model on `n_prompts` random prompts per seed.

    `model_name` is how the result calls the model. `settings` are fields of `HeadScoresConfig`, which replace those of
    `config` (by default its defaults). Each seed takes a pass over repeated and one over unrepeated prompts; the first
    seed also one of an untrained model. Raises `ConfigError` for fewer than two prompts, a prompt beyond the context,
    or lags that leave no repeat.
    """
    from interp.models.adapter import bos_token_id, ordinary_tokens, untrained_model, weight_hash

    config = replace(config or HeadScoresConfig(), **settings)
    length, batch_size = config.context_length, config.batch_size
    if length > model.cfg.n_ctx:
        raise ConfigError(f"context_length {length} exceeds the model's context of {model.cfg.n_ctx}")
    ids, bos = ordinary_tokens(model), bos_token_id(model)
    steps = _Steps(progress, 2 * len(config.seeds) + 1)
    scores, repeat_null, uniform, untrained_scores = [], [], [], None
    for seed in config.seeds:
        repeated, unrepeated = draw_prompts(ids, bos, config.n_prompts, length, config.min_lag, config.max_lag, seed)
        weights = target_weights(target_masks(repeated, bos))
        uniform.append(uniform_scores(weights, length))
        scores.append(steps.done(pattern_scores(model, repeated, weights, batch_size)))
        repeat_null.append(steps.done(pattern_scores(model, unrepeated, weights, batch_size)))
        if untrained_scores is None:
            untrained_scores = steps.done(pattern_scores(untrained_model(model, seed), repeated, weights, batch_size))
    assert untrained_scores is not None
    stored = HeadSettings(
        model=model_name or "the model",
        weight_hash=weight_hash(model),
        prompts=config.n_prompts,
        seeds=config.seeds,
        lags=(config.min_lag, config.max_lag),
        context_length=length,
        bos=bos,
    )
    return summarise_scores(
        torch.cat(scores, 3), torch.cat(repeat_null, 3), torch.cat(uniform), untrained_scores, stored
    )


def draw_prompts(
    ids: Int[Tensor, " n"], bos: int | None, n_prompts: int, context_length: int, min_lag: int, max_lag: int, seed: int
) -> tuple[Int64[Tensor, "{n_prompts} {context_length}"], Int64[Tensor, "{n_prompts} {context_length}"]]:
    """Draw repeated and unrepeated prompts of one seed, `[n_prompts, context_length]` each, with the same lags."""
    from interp.text.tokens import repeated_random_tokens, unrepeated_random_tokens

    drawn = [
        draw(
            n_prompts=n_prompts,
            context_length=context_length,
            d_vocab_ids=ids,
            min_lag=min_lag,
            max_lag=max_lag,
            bos=bos,
            generator=make_generator(seed, "head prompts"),
        ).tokens
        for draw in (repeated_random_tokens, unrepeated_random_tokens)
    ]
    return drawn[0], drawn[1]


@torch.no_grad()
def pattern_scores(
    model: HookedModel,
    tokens: Int[Tensor, "n_prompts pos"],
    weights: Float[Tensor, "n_prompts pos*pos n_kinds"],
    batch_size: int,
) -> Float32[Tensor, "n_layers n_heads n_kinds n_prompts"]:
    """Return scores of every head, `[n_layers, n_heads, n_kinds, n_prompts]` float32.

    A layer's patterns are in memory only inside its hook. The pass ends with the last layer's patterns.
    """
    parts = []
    for batch, batch_weights in zip(tokens.split(batch_size), weights.split(batch_size), strict=True):
        layers = list(_layer_scores(model, batch, batch_weights))
        parts.append(rearrange(layers, "layer batch head kind -> layer head kind batch"))
    return torch.cat(parts, 3)


def _layer_scores(model: HookedModel, tokens: Tensor, weights: Tensor) -> Iterator[Tensor]:
    """Yield scores of each layer, `[batch, n_heads, n_kinds]`, on the CPU."""
    from interp.models.passes import run_from

    n_layers = model.cfg.n_layers
    reduced: list[Tensor] = []
    weights = weights.to(model.cfg.device)

    def reduce(pattern: Tensor, hook: Any) -> None:
        reduced.append(score_pattern(pattern.float(), weights).cpu())

    points = [f"blocks.{layer}.attn.hook_pattern" for layer in range(n_layers)]
    run_from(model, tokens.to(model.cfg.device), [(point, reduce) for point in points], until=points[-1])
    if len(reduced) != n_layers:
        raise ConfigError(
            f"{len(reduced)} of {n_layers} layers gave attention patterns; load the model with attention='eager'"
        )
    yield from reduced


def summarise_scores(
    scores: Float[Tensor, "n_layers n_heads n_kinds n_prompts"],
    repeat_null: Float[Tensor, "n_layers n_heads n_kinds n_null"],
    uniform: Float[Tensor, "n_prompts n_kinds"],
    untrained_scores: Float[Tensor, "n_layers n_heads n_kinds n_untrained"],
    settings: HeadSettings,
) -> HeadScores:
    """Compute means, intervals, nulls and verdicts.

    `scores, repeat_null, untrained_scores [n_layers, n_heads, n_kinds, n_prompts]`; `uniform [n_prompts, n_kinds]`.
    """
    values = scores.double().numpy()
    n_all_heads = values.shape[0] * values.shape[1]
    whole = interval(values, CONFIDENCE)
    columns: dict[str, list[np.ndarray]] = {each.name: [] for each in fields(HeadScore)}
    layer, head = np.indices(values.shape[:2])
    for i, kind in enumerate(KINDS):
        if kind in REPEAT_KINDS:
            null, null_high = repeat_bounds(repeat_null[:, :, i].double().numpy(), n_all_heads)
        else:
            bounds = untrained_bounds(
                untrained_scores[:, :, i].double().numpy(), float(uniform[:, i].mean()), n_all_heads
            )
            null, null_high = (np.full(values.shape[:2], bound) for bound in bounds)
        score, low, high = (each[:, :, i] for each in whole)
        found = low > np.maximum(null_high, SMALLEST_FOUND)
        of_kind = {"layer": layer, "head": head, "kind": np.full(layer.shape, kind, object), "score": score}
        of_kind |= {"low": low, "high": high, "null": null, "null_high": null_high, "found": found}
        for name, column in of_kind.items():
            columns[name].append(column.ravel())
    rows = {name: np.concatenate(parts) for name, parts in columns.items()}
    return HeadScores(settings=settings, scores=Table.of_columns(HeadScore, rows), per_prompt=values)


def interval(values: np.ndarray, confidence: float) -> Interval[np.ndarray]:
    """Return mean and Student t interval over the last axis, clipped to 0 and 1; NaN prompts do not count."""
    return t_interval(values, confidence).clip(0, 1)


def repeat_bounds(null_values: np.ndarray, n_all_heads: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each head's mean on unrepeated prompts, and its upper bound at 5 % over all heads (Bonferroni)."""
    mean, _, high = interval(null_values, 1 - 2 * (1 - CONFIDENCE) / n_all_heads)
    return mean, high


def untrained_bounds(values: np.ndarray, uniform: float, n_all_heads: int) -> tuple[float, float]:
    """Return mean and upper bound of untrained heads' scores; both are at least the score of uniform attention.

    The sample is the heads, not the prompts: by its initial weights a head can have a peaked pattern on every prompt.
    The bound is the mean plus the Bonferroni t quantile times the spread of heads, and at least their maximum. It is
    for normal scores: of 32 heads of another untrained model with scores of skewness .8, one passes in a fifth of
    models.
    """
    heads = np.nanmean(values, axis=-1).ravel()
    mean, bound = float(heads.mean()), float(heads.max())
    if len(heads) > 1:
        bound = max(bound, prediction_bound(mean, heads.std(ddof=1), len(heads), n_tests=n_all_heads))
    return max(uniform, mean), float(min(max(uniform, bound), 1.0))


class _Steps:
    """Counts passes for a progress callback."""

    def __init__(self, progress: Progress | None, total: int):
        self.progress, self.total, self.n = progress, total, 0

    def done(self, value: Tensor) -> Tensor:
        self.n += 1
        if self.progress is not None:
            self.progress(self.n, self.total, {})
        return value
