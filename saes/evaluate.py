"""How good an SAE is: on recorded activations, and inside the model.

All sums are streamed in float64, so the numbers do not depend on the batch size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.errors import ConfigError, MismatchError
from interp.names import canonical_hook_point, parse_hook_point
from interp.recording.store import Recording, Split
from saes.intervene import Hook, keep_positions, replace_with, splice
from saes.kinds.base import SAE
from saes.schema import DENSE
from saes.source import Source


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Reconstruction and sparsity over `n_tokens` tokens."""

    n_tokens: int
    l0: float
    """Active features per token."""
    fvu: float
    """`E|x - x_hat|^2 / (E|x|^2 - |E x|^2)`: 0 is perfect, 1 no better than the mean."""
    dead_fraction: float
    """Share of features that never fired on these tokens."""
    dense_fraction: float
    """Share of features active on more than a tenth of them."""
    l2_ratio: float
    """`mean |x_hat| / |x|`: below 1 is shrinkage."""
    relative_bias: float
    """`E|x_hat|^2 / E[x . x_hat]`: 1 is unbiased, below 1 is shrinkage (2404.16014, equation 10)."""
    cosine: float
    """Mean cosine between `x` and `x_hat`."""


@dataclass(frozen=True, kw_only=True)
class ModelEvaluation:
    """What the model loses when the reconstruction takes the place of the activation. CE and KL in nats per token."""

    n_tokens: int
    """Predicted tokens; what the first position of a sequence predicts is left out."""
    ce_clean: float
    ce_spliced: float
    ce_zero: float
    ce_mean: float
    ce_recovered: float
    """`(ce_zero - ce_spliced) / (ce_zero - ce_clean)`: 1 loses nothing, 0 is as bad as zeros."""
    ce_recovered_from_mean: float
    """The same against the mean activation instead of zeros, which is the harder baseline."""
    kl_spliced: float
    """`KL(clean || spliced)`."""


@torch.no_grad()
def evaluate_on_recording(
    sae: SAE,
    recording: Recording | Sequence[Recording],
    split: Split = "heldout",
    *,
    heldout_fraction: float = 0.1,
    batch_size: int = 4096,
    progress: Callable[[int, int, dict], None] | None = None,
) -> Evaluation:
    """Measure on recorded rows at the places that the SAE reads and reconstructs; a crosscoder of several models takes
    as many recordings. Raises `ConfigError` when the split is empty."""
    source = Source(recording, sae.hook_points, target=sae.hook_point_out)
    first = source.recording
    if source.d_in != sae.d_in:
        places = ", ".join(sae.hook_points)
        raise MismatchError(f"{first.folder} has width {source.d_in} at {places}, the SAE expects {sae.d_in}")
    sums = _Sums(sae)
    for batch in source.sequential(batch_size=batch_size, split=split, heldout_fraction=heldout_fraction):
        if not len(batch.rows):  # a shard without documents of this split
            continue
        sums.add(batch.x, batch.x if batch.target is None else batch.target)
        if progress:
            progress(int(batch.rows[-1]) + 1, first.n_rows, {})
    if not sums.n:
        raise ConfigError(f"{first.folder} has no tokens in its {split!r} split; record more documents")
    return sums.result()


class _Sums:
    """Running sums over tokens."""

    def __init__(self, sae: SAE):
        self.sae, self.n, self.active = sae, 0, 0
        self.fired = torch.zeros(sae.d_sae, dtype=torch.int64)
        self.mean = torch.zeros(sae.d_out, dtype=torch.float64)
        self.totals = torch.zeros(6, dtype=torch.float64)

    def add(self, x: Tensor, target: Tensor) -> None:
        acts = self.sae.encode_sparse(x)
        recons = self.sae.complete(self.sae.decode_sparse(acts), x).double()
        x, on = target.double(), acts.values > 0
        self.n += len(x)
        self.active += int(on.sum())
        self.fired += torch.bincount(acts.indices[on].long(), minlength=self.sae.d_sae)
        self.mean += x.sum(0)
        length, made = x.norm(dim=1), recons.norm(dim=1)
        dot = (x * recons).sum(1)
        per_token = [(x - recons).square().sum(1), length**2, made**2, dot]
        ratios = [made / length.clamp_min(1e-30), dot / (length * made).clamp_min(1e-30)]
        self.totals += torch.stack([part.sum() for part in (*per_token, *ratios)])

    def result(self) -> Evaluation:
        error, square, made_square, dot, ratio, cosine = (self.totals / self.n).tolist()
        variance = square - float((self.mean / self.n).square().sum())
        return Evaluation(
            n_tokens=self.n,
            l0=self.active / self.n,
            fvu=error / max(variance, 1e-30),
            dead_fraction=float((self.fired == 0).float().mean()),
            dense_fraction=float((self.fired > DENSE * self.n).float().mean()),
            l2_ratio=ratio,
            relative_bias=made_square / dot if dot else float("nan"),
            cosine=cosine,
        )


@torch.no_grad()
def evaluate_in_model(
    sae: SAE,
    model: Any,
    tokens: Tensor,
    *,
    batch_size: int = 8,
    progress: Callable[[int, int, dict], None] | None = None,
) -> ModelEvaluation:
    """Cross-entropy of `model` on `tokens [n, n_ctx]` with the activation clean, spliced, zeroed, set to its mean.

    The first position (BOS in our recordings, whose residual is like no other) is never touched and not scored.
    `model` needs `run_with_hooks(tokens, return_type=, fwd_hooks=, stop_at_layer=)`, as TransformerBridge has it.
    """
    if tokens.ndim != 2 or tokens.shape[1] < 3:
        raise ConfigError(f"tokens must be [n, n_ctx] with n_ctx >= 3, got {list(tokens.shape)}")
    mean = _mean_activation(sae, model, tokens, batch_size)
    hooks: dict[str, Hook | None] = {
        "clean": None,
        "spliced": splice(sae),
        "zero": replace_with(torch.zeros_like(mean)),
        "mean": replace_with(mean),
    }
    ce, kl, done = dict.fromkeys(hooks, 0.0), 0.0, 0
    for batch in tokens.split(batch_size):
        clean = None
        for name, hook in hooks.items():
            logp = _log_probabilities(model, batch, sae.hook_point, hook)
            ce[name] -= float(logp.gather(-1, batch[:, 2:, None].to(logp.device)).double().sum())
            clean = logp if clean is None else clean
            if name == "spliced":
                kl += float((clean.exp() * (clean - logp)).double().sum())
        done += len(batch)
        if progress:
            progress(done, len(tokens), {})
    n = tokens.shape[0] * (tokens.shape[1] - 2)
    return _model_evaluation({name: total / n for name, total in ce.items()}, kl / n, n)


def _model_evaluation(ce: dict[str, float], kl: float, n: int) -> ModelEvaluation:
    return ModelEvaluation(
        n_tokens=n,
        ce_clean=ce["clean"],
        ce_spliced=ce["spliced"],
        ce_zero=ce["zero"],
        ce_mean=ce["mean"],
        ce_recovered=(ce["zero"] - ce["spliced"]) / (ce["zero"] - ce["clean"]),
        ce_recovered_from_mean=(ce["mean"] - ce["spliced"]) / (ce["mean"] - ce["clean"]),
        kl_spliced=kl,
    )


def _log_probabilities(model: Any, tokens: Tensor, hook_point: str, hook: Hook | None) -> Tensor:
    """`[n, n_ctx - 2, d_vocab]`: predictions made at positions 1 to n_ctx - 2."""
    hooks = [(hook_point, keep_positions(hook, 1))] if hook else []
    logits = model.run_with_hooks(tokens, return_type="logits", fwd_hooks=hooks)
    return logits[:, 1:-1].float().log_softmax(-1)


def _mean_activation(sae: SAE, model: Any, tokens: Tensor, batch_size: int) -> Tensor:
    """`[d_in]`: mean over all but the first position."""
    total = torch.zeros(sae.d_in, dtype=torch.float64)

    def add(value: Tensor, hook: object = None) -> None:
        total.add_(value[:, 1:].double().sum((0, 1)).cpu())

    layer = parse_hook_point(canonical_hook_point(sae.hook_point)).layer
    stop = {} if layer is None else {"stop_at_layer": layer + 1}
    for batch in tokens.split(batch_size):
        model.run_with_hooks(batch, return_type=None, fwd_hooks=[(sae.hook_point, add)], **stop)
    return (total / (tokens.shape[0] * (tokens.shape[1] - 1))).float()
