"""Comparison of two checkpoints as one result: weights, representations on each text, heads, transplants, words.

    found = what_changed(base, tuned, {"facts": tokens, "prose": others}, continuations=models, behaviour=log_prob)
    print(found)            # a table
    found.sentences()       # what was found

The effect of fine-tuning is expected on the first text; the others are controls, and words are read on the last.

Changes of attention heads, separated into effects of a head's own weights and of its input.

There are five measures of every head, each compared with the same measure of null models (`_components`):

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

Changes of weight matrices: their size, and their effective rank.

    change = |W_tuned - W_base| / max(|W_base|, |W_tuned|)        (Frobenius norm, bias included as a row)

0: the same; 1: one of the two is negligible, or the difference is as large as the larger; at most 2. The singular
values `s` of the difference give its effective rank: the participation ratio `(sum s^2)^2 / sum s^4`, 1 for a single
direction. It is reported with two references: a random difference of an `m x n` matrix, which has about
`m n / (m + n + 1)` (the ratio of the two expectations), and the null models. Fine-tuning often has a low intrinsic rank
(Hu et al. 2021).

A change of weights need not affect behaviour: see `transplant`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp.changes._components import (
    SMALLEST,
    WeightComponent,
    check_comparable,
    check_count,
    describe_null,
    null_models,
    same,
    upper_bound,
)
from interp.changes._reading import changed_words
from interp.changes._representations import check_tokens, representation_changes
from interp.changes.comparison import CheckpointComparisonSettings, ModelComparison
from interp.changes.measured import ON_TEXT, SCORES, HeadChanges, HeadMeasure, Measure, WeightChange, WeightChanges
from interp.changes.transplant import Behaviour, log_prob_of, transplants
from interp.circuits.head_kinds import draw_prompts, pattern_scores, target_masks, target_weights
from interp.dictionary import Dictionary
from interp.errors import ConfigError
from interp.lenses.jacobian_lens import JacobianLens
from interp.models.adapter import bos_token_id, ordinary_tokens, weight_hash
from interp.models.hooked import HookedModel
from interp.models.passes import capture
from interp.models.residual import ResidualStream
from interp.nulls import ALPHA, DRAWS
from interp.progress import Progress
from interp.statistics import t_interval

N_SPECTRUM = 8
"""number of squared singular values reported, as fractions of their sum"""


@torch.no_grad()
def weight_changes(
    base: HookedModel,
    tuned: HookedModel,
    *,
    continuations: Sequence[HookedModel] = (),
    progress: Progress | None = None,
) -> WeightChanges:
    """Compare the weights of two models of one architecture.

    Cost: the eigenvalues of one matrix per differing component, of the tuned model and of each null. Raises what
    `check_comparable` raises, and `ConfigError` for one or two continuations.
    """
    ones, twos = check_comparable(base, tuned)
    nulls = _nulls(base, ones, continuations)
    null_changes = np.array([[change for change, _ in null] for null in nulls])
    high = upper_bound(null_changes, n_tests=len(ones))
    changes = []
    for i, (before, after) in enumerate(zip(ones, twos, strict=True)):
        if progress:
            progress(i, len(ones), {"component": before.name})
        change, spectrum = (0.0, np.zeros(0)) if same(before, after) else _measure(before.matrix(), after.matrix())
        rows, columns = before.matrix().shape
        changes.append(
            WeightChange(
                name=before.name,
                kind=before.kind,
                layer=before.layer,
                heads=before.heads,
                change=change,
                null=float(null_changes[:, i].mean()),
                null_high=float(high[i]),
                above_null=bool(change > max(high[i], SMALLEST)),
                rank=participation(spectrum),
                random_rank=rows * columns / (rows + columns + 1),
                null_rank=float(np.mean([participation(null[i][1]) for null in nulls])),
                rank_90=directions_for(spectrum, 0.9),
                spectrum=spectrum[:N_SPECTRUM],
            )
        )
    return WeightChanges(changes=tuple(changes), null=describe_null(len(continuations)))


def participation(shares: np.ndarray) -> float:
    """Return the participation ratio `1 / sum p^2` of fractions `p`: effective number of directions, NaN if empty."""
    return float(1 / (shares**2).sum()) if len(shares) else float("nan")


def directions_for(shares: np.ndarray, of: float) -> int:
    """Count the largest fractions that sum to at least `of`; 0 if `shares` is empty."""
    return int(np.searchsorted(np.cumsum(shares), of - 1e-12) + 1) if len(shares) else 0


def relative_change(before: Tensor, after: Tensor) -> float:
    """Return `|after - before|` over the larger of their Frobenius norms; 0 when both are zero."""
    scale = max(float(before.norm()), float(after.norm()))
    return float((after - before).norm()) / scale if scale else 0.0


def _nulls(
    base: HookedModel, parts: list[WeightComponent], continuations: Sequence[HookedModel]
) -> list[list[tuple[float, np.ndarray]]]:
    """Measure every component of each null; without continuations, each matrix against itself rounded."""
    check_count(continuations)
    if not continuations:
        matrices = (part.matrix() for part in parts)
        return [[_measure(matrix, matrix.to(torch.bfloat16).double()) for matrix in matrices]]
    others = [check_comparable(base, model)[1] for model in continuations]
    return [[_measure(a.matrix(), b.matrix()) for a, b in zip(parts, tuned, strict=True)] for tuned in others]


def _measure(before: Tensor, after: Tensor) -> tuple[float, np.ndarray]:
    """Return the change, and the squared singular values of the difference as fractions, largest first.

    They are the eigenvalues of the smaller product of the difference with itself, which takes a fraction of the time of
    a decomposition and is as exact for values above 1e-15 of the largest, all that the measures of rank see.
    """
    after = after.to(before.device)
    change = after - before
    product = change.T @ change if change.shape[0] > change.shape[1] else change @ change.T
    power = torch.linalg.eigvalsh(product).flip(0).clamp_min(0)
    total = float(power.sum())
    return relative_change(before, after), (power / total).cpu().numpy() if total else np.zeros(0)


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
        sizes = np.stack([np.abs(null[measure].mean(-1)) for null in chance])
        _, near, far = t_interval(values, 1 - 2 * ALPHA / heads)
        bound = upper_bound(sizes, n_tests=heads)
        beyond = np.maximum(near, -far)  # the end nearer to 0; the interval may lie on either side of 0
        verdicts = beyond > np.maximum(bound, SMALLEST)
        judged[measure] = HeadMeasure(
            value=t_interval(values), null=sizes.mean(0), null_high=bound, above_null=verdicts
        )
    return HeadChanges(measures=judged, before=before, null_words=words, n_contexts=n)


@dataclass(frozen=True)
class _Reference:
    """Values of the base on one batch, per layer: the residual stream, attention patterns, and head outputs as z."""

    tokens: Tensor
    resid: list[Tensor]
    pattern: list[Tensor]
    z: list[Tensor]
    residual: ResidualStream


def _references(base: HookedModel, tokens: Tensor, batch_size: int) -> Iterator[_Reference]:
    residual = ResidualStream(base)
    layers = range(base.cfg.n_layers)
    for rows in tokens.to(base.cfg.device).split(batch_size):
        names = {kind: [f"blocks.{layer}.{kind}" for layer in layers] for kind in (*_INSIDE, "hook_resid_pre")}
        seen = capture(base, rows, [name for points in names.values() for name in points])
        values = {kind: [seen[name] for name in points] for kind, points in names.items()}
        written = [_written(residual, layer, z) for layer, z in enumerate(values["attn.hook_z"])]
        yield _Reference(rows, values["hook_resid_pre"], values["attn.hook_pattern"], written, residual)


_INSIDE = ("attn.hook_pattern", "attn.hook_z")


def _written(residual: ResidualStream, layer: int, z: Tensor) -> Tensor:
    """Return each head's output to the residual stream, `[n_heads, batch, pos, d_model]`, without the shared bias."""
    return torch.stack([residual.head_output(layer, z, head) for head in range(residual.shape.n_heads)])


def _on_text(model: HookedModel, reference: list[_Reference]) -> dict[Measure, np.ndarray]:
    """Return `pattern`, `own_pattern`, `own_output` of a model against the base, `[n_layers, n_heads, n_contexts]`."""
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
            cache = capture(model, value, inside, layer=layer, hooks=hooks)
            own_pattern.append(_variation(cache[inside[0]], batch.pattern[layer]))
            own_output.append(_relative_difference(_written(residual, layer, cache[inside[1]]), batch.z[layer]))
        pattern = [_variation(seen[name], batch.pattern[layer]) for layer, name in enumerate(names)]
        for measure, values in zip(ON_TEXT, (pattern, own_pattern, own_output), strict=True):
            parts[measure].append(torch.stack(values))
    return {measure: torch.cat(values, -1).double().cpu().numpy() for measure, values in parts.items()}


def _replacement(value: Tensor) -> Callable[..., Tensor]:
    def replace(_: Tensor, hook: object) -> Tensor:
        return value

    return replace


def _variation(pattern: Tensor, reference: Tensor) -> Tensor:
    """Return the total variation of two patterns `[batch, n_heads, dest, src]`, `[n_heads, batch]`.

    The first query is omitted.
    """
    return (pattern.float() - reference.float()).abs().sum(-1)[..., 1:].mean(-1).T / 2


def _relative_difference(after: Tensor, before: Tensor) -> Tensor:
    """Return the norm of the difference over the larger norm, `[n_heads, batch]`, 0 to 2.

    `after` and `before` are `[n_heads, batch, pos, d_model]`.
    """
    old, new = (output.float().flatten(2).norm(dim=-1) for output in (before, after))
    return (after - before).float().flatten(2).norm(dim=-1) / torch.maximum(old, new).clamp_min(SMALLEST)


@dataclass(frozen=True)
class _Prompts:
    """Random repeated prompts with the weights of the head scores; None when the context is too short."""

    tokens: Tensor | None
    weights: Tensor | None

    @classmethod
    def draw(cls, model: HookedModel, n_prompts: int, seed: int) -> "_Prompts":
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


def what_changed(
    base: HookedModel,
    tuned: HookedModel,
    texts: Mapping[str, Tensor],
    *,
    continuations: Sequence[HookedModel] = (),
    behaviour: Behaviour | None = None,
    behaviour_name: str | None = None,
    names: tuple[str, str] = ("base", "tuned"),
    lens: JacobianLens | None = None,
    dictionaries: Mapping[str, Dictionary] | None = None,
    n_random: int = DRAWS["quick"],
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> ModelComparison:
    """Compare two checkpoints of one architecture; both models are restored when it returns.

    `base` and `tuned` are the models and `names` what the result calls them; `behaviour_name` is what it calls the
    behaviour.

    `texts`: name -> tokens `[n_contexts, pos]`; the effect of fine-tuning is expected on the first. `continuations`:
    three or more models trained further from the base without the fine-tuning, as the null; without them the null is
    rounding to bfloat16. `behaviour(model)` returns a number per prompt; by default it is the mean log-probability of
    the first text's contexts. `lens` and `dictionaries` (by key) are the base's, for words.

    Raises `MismatchError` for different architectures or vocabularies, `NonFiniteError`, `ConfigError`.
    """
    check_comparable(base, tuned)
    if not texts:
        raise ConfigError("a text is needed on which the models can be compared, got none; give one")
    first_text = next(iter(texts))
    steps = _Steps(progress, 4 + len(texts))
    weights = weight_changes(base, tuned, continuations=continuations, progress=steps.within("weights"))
    residuals = {}
    for text, tokens in texts.items():
        residuals[text] = representation_changes(
            base, tuned, tokens, continuations=continuations, batch_size=batch_size, seed=seed,
            progress=steps.within(f"stream on {text}"),
        )  # fmt: skip
    heads = head_changes(
        base, tuned, texts[first_text], continuations=continuations, batch_size=batch_size, seed=seed,
        progress=steps.within("heads"),
    )  # fmt: skip
    effects = transplants(
        base, tuned, behaviour or log_prob_of(texts[first_text]), continuations=continuations, n_random=n_random,
        seed=seed,
        name=behaviour_name or ("behaviour" if behaviour else f"log-probability of {first_text}"),
        progress=steps.within("transplants"),
    )  # fmt: skip
    last_text = [*texts][-1]
    words = changed_words(
        base, tuned, texts[last_text], text=last_text, lens=lens, dictionaries=dictionaries,
        batch_size=batch_size, seed=seed, progress=steps.within("words"),
    )  # fmt: skip
    settings = CheckpointComparisonSettings(
        base=names[0],
        tuned=names[1],
        weight_hashes=tuple(weight_hash(model) for model in (base, tuned, *continuations)),
        texts={text: tuple(tokens.shape) for text, tokens in texts.items()},
        n_random=n_random,
        seed=seed,
    )
    return ModelComparison(
        settings=settings, weights=weights, representations=residuals, heads=heads, transplants=effects, words=words
    )


class _Steps:
    """Progress of several analyses as one bar, with a step of equal size for each."""

    def __init__(self, progress: Progress | None, n: int):
        self.progress, self.n, self.at = progress, n, -1

    def within(self, name: str) -> Progress | None:
        self.at += 1
        at = self.at
        if self.progress is None:
            return None

        def report(done: int, total: int, info: dict) -> None:
            assert self.progress is not None
            self.progress(int(100 * (at + done / max(total, 1))), 100 * self.n, {"step": name, **info})

        return report
