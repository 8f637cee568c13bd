"""Changes of the residual stream, layer by layer, on the same tokens.

    change = sum |x_tuned - x_base|^2 / sum |x_base - mean|^2

0: the same; 1: as large as the base's variance (the definition of FVU). It is measured on target text and on control
text. What differences say as words: `_reading`.

One context is one observation, and intervals come from a bootstrap over contexts. The first position is omitted: in
most models its norm is many times that of all others, and does not depend on the text.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from interp.changes._components import check_comparable, null_models, upper_bound
from interp.changes.comparison import SMALLEST, Change
from interp.errors import ConfigError, NonFiniteError
from interp.models.adapter import check_token_ids
from interp.models.hooked import HookedModel
from interp.models.passes import capture
from interp.nulls import ALPHA
from interp.progress import Progress
from interp.seeds import derive_seed
from interp.statistics import bootstrap_counts, expanded, percentile_interval

MIN_CONTEXTS, SKIP = 8, 1
BATCH = 8
"""contexts per forward pass"""
N_BOOTSTRAP = 2000


@torch.no_grad()
def stream_changes(
    base: HookedModel,
    tuned: HookedModel,
    tokens: Tensor,
    *,
    text: str = "text",
    continuations: Sequence[HookedModel] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Change]:
    """Compare the residual streams of two models on `tokens [n_contexts, pos]`, a row per layer.

    Memory: the activations of two models at once. Raises `ConfigError` for fewer than eight contexts or contexts that
    are too short, `NonFiniteError`, and what `check_comparable` raises.
    """
    check_comparable(base, tuned)
    check_tokens(tokens, base)
    nulls = null_models(base, continuations)
    before = stream(base, tokens)
    away = before.double() - before.double().mean((1, 2), keepdim=True)
    spread = away.square().sum((2, 3)).numpy()
    moved = _moved(before, stream(tuned, tokens))
    chance = []
    for done, null in enumerate(nulls):
        if progress:
            progress(done + 1, 1 + len(nulls), {"model": "null"})
        with null as model:
            chance.append(_moved(before, stream(model, tokens)))
    return _judge(text, moved, chance, spread, seed)


def check_tokens(tokens: Tensor, model: HookedModel) -> None:
    """Raise `ConfigError` for too few, too short or too long contexts, `PromptError` for other than the model's ids."""
    if tokens.ndim != 2 or len(tokens) < MIN_CONTEXTS:
        raise ConfigError(
            f"tokens must be [n_contexts, pos] with at least {MIN_CONTEXTS} contexts, got {list(tokens.shape)}: one "
            "context is one observation, and an interval needs several"
        )
    if not SKIP + 4 <= tokens.shape[1] <= model.cfg.n_ctx:
        raise ConfigError(f"contexts must have {SKIP + 4} to {model.cfg.n_ctx} tokens, got {tokens.shape[1]}")
    check_token_ids(model, tokens)


def stream(model: HookedModel, tokens: Tensor) -> Tensor:
    """Return the residual stream before the first and after each layer, in float32 on the CPU.

    The shape is `[n_layers + 1, n_contexts, pos - SKIP, d_model]`.
    """
    names = ["blocks.0.hook_resid_pre", *(f"blocks.{i}.hook_resid_post" for i in range(model.cfg.n_layers))]
    parts = []
    for rows in tokens.split(BATCH):
        seen = capture(model, rows.to(model.cfg.device), names)
        parts.append(torch.stack([seen[name][:, SKIP:].float().cpu() for name in names]))
    values = torch.cat(parts, 1)
    if not bool(values.isfinite().all()):
        raise NonFiniteError("the residual stream holds NaN or infinity on these tokens")
    return values


def _moved(before: Tensor, after: Tensor) -> np.ndarray:
    """Return the squared differences of two streams, summed over tokens, `[n_layers + 1, n_contexts]`."""
    return (after - before).double().square().sum((2, 3)).numpy()


def drawn_changes(moved: np.ndarray, spread: np.ndarray, seed: int) -> np.ndarray:
    """Return the change on contexts drawn with replacement, `[N_BOOTSTRAP, n_layers + 1]`.

    `moved` and `spread`, `[n_layers + 1, n_contexts]`, are the sums above and below the line.
    """
    weights = bootstrap_counts(moved.shape[1], N_BOOTSTRAP, np.random.default_rng(derive_seed(seed, "contexts")))
    return (weights @ moved.T) / np.maximum(weights @ spread.T, SMALLEST)


def _judge(text: str, moved: np.ndarray, nulls: list[np.ndarray], spread: np.ndarray, seed: int) -> list[Change]:
    change, *chance = (distances.sum(1) / np.maximum(spread.sum(1), SMALLEST) for distances in (moved, *nulls))
    n, n_contexts = moved.shape
    high = upper_bound(np.stack(chance), n_tests=n)
    drawn = drawn_changes(moved, spread, seed)
    shown, corrected = (
        percentile_interval(change, drawn, expanded(confidence, n_contexts)) for confidence in (0.95, 1 - 2 * ALPHA / n)
    )
    places = ["embed", *(f"L{i}" for i in range(n - 1))]
    return [
        Change(
            question="stream", text=text, name=place, place=place,
            value=float(change[i]), low=float(shown.low[i]), high=float(shown.high[i]),
            null=float(np.mean([null[i] for null in chance])), bound=float(high[i]),
            found=bool(corrected.low[i] > max(high[i], SMALLEST)), words=[],
        )
        for i, place in enumerate(places)
    ]  # fmt: skip
