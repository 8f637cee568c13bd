"""Changes of the residual stream, layer by layer, on the same tokens.

    change = sum |x_tuned - x_base|^2 / sum |x_base - mean|^2

0: the same; 1: as large as the base's variance (the definition of FVU). It is measured on target text and on control
text. Two further measures per layer:

- Unbiased CKA (`interp.geometry.similarity`): 1 for representations equal up to rotation, translation and scale, about
  0 for unrelated ones. It is nearly blind to a shift common to all tokens; `change` is not.
- The main direction of the differences `x_tuned - x_base`: estimated on half of the contexts, and scored by the
  fraction of the squared difference along it on the other half. 1: all tokens moved along one line. With it goes the
  fraction of the base's variance along that direction. What differences say as words: `_reading`.

One context is one observation. Intervals come from a bootstrap over contexts for `change`, and from a jackknife for CKA
(in a bootstrap a context drawn twice would be its own neighbour). The first positions are omitted: in most models their
norms are many times those of all others, and do not depend on the text.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from interp.changes._components import SMALLEST, check_comparable, describe_null, null_models, upper_bound
from interp.changes.measured import LayerChange, RepresentationChanges
from interp.errors import ConfigError, NonFiniteError
from interp.geometry.similarity import hsic
from interp.models.adapter import check_token_ids
from interp.models.hooked import HookedModel
from interp.models.passes import capture
from interp.nulls import ALPHA
from interp.progress import Progress
from interp.seeds import derive_seed
from interp.statistics import Interval, bootstrap_counts, expanded, percentile_interval

MIN_CONTEXTS = 8
N_BOOTSTRAP = 2000
CKA_ROWS = 256
"""number of tokens that CKA compares, spread evenly over the contexts"""


@torch.no_grad()
def representation_changes(
    base: HookedModel,
    tuned: HookedModel,
    tokens: Tensor,
    *,
    continuations: Sequence[HookedModel] = (),
    skip: int = 1,
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> RepresentationChanges:
    """Compare the residual streams of two models on `tokens [n_contexts, pos]`, without the first `skip` positions.

    Memory: the activations of two models at once. Raises `ConfigError` for fewer than eight contexts or contexts that
    are too short, `NonFiniteError`, and what `check_comparable` raises.
    """
    check_comparable(base, tuned)
    check_tokens(tokens, base, skip)
    nulls = null_models(base, continuations)
    before = stream(base, tokens, skip, batch_size)
    done = 1

    def step(name: str) -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, 2 + len(nulls), {"model": name})

    measured = _Measured(before, stream(tuned, tokens, skip, batch_size), seed)
    step("tuned")
    chance = []
    for null in nulls:
        with null as model:
            chance.append(_Measured(before, stream(model, tokens, skip, batch_size), seed))
        step("null")
    return RepresentationChanges(
        layers=tuple(_judge(measured, chance)),
        n_contexts=len(tokens),
        n_tokens=len(tokens) * (tokens.shape[1] - skip),
        null=describe_null(len(continuations)),
    )


def check_tokens(tokens: Tensor, model: HookedModel, skip: int = 1) -> None:
    """Raise `ConfigError` for too few, too short or too long contexts, `PromptError` for other than the model's ids."""
    if skip < 0:
        raise ConfigError(f"the number of positions to omit at the start must be 0 or more, got skip {skip}")
    if tokens.ndim != 2 or len(tokens) < MIN_CONTEXTS:
        raise ConfigError(
            f"tokens must be [n_contexts, pos] with at least {MIN_CONTEXTS} contexts, got {list(tokens.shape)}: one "
            "context is one observation, and an interval needs several"
        )
    if not skip + 4 <= tokens.shape[1] <= model.cfg.n_ctx:
        raise ConfigError(f"contexts must have {skip + 4} to {model.cfg.n_ctx} tokens, got {tokens.shape[1]}")
    check_token_ids(model, tokens)


def stream(model: HookedModel, tokens: Tensor, skip: int, batch_size: int) -> Tensor:
    """Return the residual stream before the first and after each layer, in float32 on the CPU.

    The shape is `[n_layers + 1, n_contexts, pos - skip, d_model]`.
    """
    if batch_size < 1:
        raise ConfigError(f"a batch needs at least one context, got batch_size {batch_size}; 8 is the default")
    names = ["blocks.0.hook_resid_pre", *(f"blocks.{i}.hook_resid_post" for i in range(model.cfg.n_layers))]
    parts = []
    for rows in tokens.split(batch_size):
        seen = capture(model, rows.to(model.cfg.device), names)
        parts.append(torch.stack([seen[name][:, skip:].float().cpu() for name in names]))
    values = torch.cat(parts, 1)
    if not bool(values.isfinite().all()):
        raise NonFiniteError("the residual stream holds NaN or infinity on these tokens")
    return values


class _Measured:
    """Sums of one model against the base, per layer and context, from which all measures are computed."""

    def __init__(self, before: Tensor, after: Tensor, seed: int):
        self.seed = seed
        self.names = ["embed", *(f"L{i}" for i in range(len(before) - 1))]
        difference = after - before
        self.moved = difference.double().square().sum((2, 3)).numpy()  # [n_layers + 1, n_contexts]
        away = before.double() - before.double().mean((1, 2), keepdim=True)
        self.spread = away.square().sum((2, 3)).numpy()
        self.cka = [_cka(b, a) for b, a in zip(_rows(before), _rows(after), strict=True)]
        self.main = [_main_direction(d.double(), a) for d, a in zip(difference, away, strict=True)]

    @property
    def change(self) -> np.ndarray:
        return self.moved.sum(1) / np.maximum(self.spread.sum(1), SMALLEST)

    def bootstrap(self) -> np.ndarray:
        """Return the change on contexts drawn with replacement, `[N_BOOTSTRAP, n_layers + 1]`."""
        n = self.moved.shape[1]
        rng = np.random.default_rng(derive_seed(self.seed, "contexts"))
        weights = bootstrap_counts(n, N_BOOTSTRAP, rng)
        return (weights @ self.moved.T) / np.maximum(weights @ self.spread.T, SMALLEST)


def _judge(measured: _Measured, nulls: list[_Measured]) -> list[LayerChange]:
    n = len(measured.names)
    chance = np.stack([null.change for null in nulls])
    high = upper_bound(chance, n_tests=n)
    distance = upper_bound(np.stack([[max(1 - c[0], 0.0) for c in null.cka] for null in nulls]), n_tests=n)
    drawn = measured.bootstrap()
    change, corrected = (
        percentile_interval(measured.change, drawn, expanded(confidence, measured.moved.shape[1]))
        for confidence in (0.95, 1 - 2 * ALPHA / n)
    )
    layers = []
    for i, name in enumerate(measured.names):
        cka, error, quantile = measured.cka[i]
        share, base_share, direction = measured.main[i]
        layers.append(
            LayerChange(
                name=name,
                change=change.at(i),
                null=float(chance[:, i].mean()),
                null_high=float(high[i]),
                above_null=bool(corrected.low[i] > max(high[i], SMALLEST)),
                cka=Interval(cka, cka - quantile * error, cka + quantile * error),
                cka_null=float(np.mean([null.cka[i][0] for null in nulls])),
                cka_above_null=bool(1 - cka - quantile * error > max(distance[i], 1e-6)),
                main_share=share,
                main_share_null=_mean([null.main[i][0] for null in nulls]),
                main_share_base=base_share,
                direction=direction,
            )
        )
    return layers


def _mean(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _rows(values: Tensor) -> Tensor:
    """Return values at evenly spread positions, about `CKA_ROWS` in all: `[n_layers + 1, n_contexts, k, d_model]`."""
    n, length = values.shape[1:3]
    k = min(length, max(4, CKA_ROWS // n))
    return values[:, :, torch.linspace(0, length - 1, k).round().long()]


def _cka(x: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Return unbiased CKA of `[n_contexts, k, d]`, its jackknife error over contexts, and the t quantile."""
    from scipy.special import stdtrit

    n, k = x.shape[:2]
    flat = [values.double().reshape(n * k, -1) for values in (x, y)]
    gram_x, gram_y = ((f - f.mean(0)) @ (f - f.mean(0)).T for f in flat)
    gram_x, gram_y = gram_x.numpy(), gram_y.numpy()

    def ratio(both: np.ndarray, norm: np.ndarray) -> np.ndarray:
        return np.divide(both, np.sqrt(np.maximum(norm, 0)), out=np.full_like(both, np.nan), where=norm > 0)

    estimates = ratio(
        hsic_left_out(gram_x, gram_y, n), hsic_left_out(gram_x, gram_x, n) * hsic_left_out(gram_y, gram_y, n)
    )
    error = float(np.sqrt((n - 1) / n * ((estimates - estimates.mean()) ** 2).sum()))
    whole = ratio(np.array(hsic(gram_x, gram_y)), np.array(hsic(gram_x, gram_x) * hsic(gram_y, gram_y)))
    return float(whole), error, float(stdtrit(n - 1, 0.975))


def hsic_left_out(gram_x: np.ndarray, gram_y: np.ndarray, n: int) -> np.ndarray:
    """Return `hsic` of all items but those of each of `n` equal blocks, `[n]`: one pass over the matrices for all."""
    size = len(gram_x) // n
    m = len(gram_x) - size
    block_mask = np.repeat(np.eye(n, dtype=bool), size, axis=0)  # [items, blocks]

    def rows(matrix: np.ndarray) -> np.ndarray:
        """Return the row sums without the diagonal and each block, `[items, blocks]`; 0 for the rows of the block."""
        by_block = (matrix - np.diag(np.diag(matrix))).reshape(len(gram_x), n, size).sum(2)
        return np.where(block_mask, 0.0, by_block.sum(1, keepdims=True) - by_block)

    rows_x, rows_y = rows(gram_x), rows(gram_y)
    both = rows_x.sum(0) * rows_y.sum(0) / ((m - 1) * (m - 2))
    crossed = (rows_x * rows_y).sum(0)
    return (rows(gram_x * gram_y).sum(0) + both - 2 / (m - 2) * crossed) / (m * (m - 3))


def _main_direction(difference: Tensor, away: Tensor) -> tuple[float, float, np.ndarray]:
    """Return (held-out share, share of the base's variance, direction) of differences `[n_contexts, pos, d]`."""
    flat = difference.flatten(0, 1)
    total = float(flat.square().sum())
    if total <= SMALLEST:
        return float("nan"), float("nan"), np.zeros(difference.shape[-1])
    halves = difference[0::2].flatten(0, 1), difference[1::2].flatten(0, 1)
    along = sum(float((b @ _top(a)).square().sum()) for a, b in (halves, halves[::-1]))
    direction = _top(flat)
    if float((flat @ direction).sum()) < 0:
        direction = -direction
    spread = away.flatten(0, 1)
    base_share = float((spread @ direction).square().sum() / spread.square().sum().clamp_min(SMALLEST))
    return along / total, base_share, direction.numpy()


def _top(rows: Tensor) -> Tensor:
    """Return the unit direction `[d]` with the largest sum of squared projections of `rows`."""
    return torch.linalg.eigh(rows.T @ rows).eigenvectors[:, -1]
