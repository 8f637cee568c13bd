"""What a model loses when a reconstruction takes the place of the activation.

1. the model runs clean, with zeros, with the mean, and with each SAE spliced in, a few contexts at a time: as many as
   keep one pass's logits within `LOGIT_VALUES`;
2. losses and KL are taken from the logits some rows at a time, so that no second array of that size exists;
3. sums are kept by document, for intervals (`bootstrap.py`).

Positions that are no text (BOS, whose residual is like no other) are neither replaced nor scored. Several SAEs of one
place share the passes without them. A transcoder reads one place and its prediction replaces another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from interp.errors import ConfigError, MismatchError
from interp.names import canonical_hook_point, parse_hook_point
from interp.progress import Progress
from interp.results import Result
from interp.statistics import DocumentBootstrap, Ends
from saes.kinds.base import SAE

LOGIT_VALUES = 1 << 25
"""Logits that one pass may give (128 MB in float32); two such arrays exist at once, the clean one and another."""
CHUNK_VALUES = 1 << 22
"""Logits that are worked on at once."""

Hooks = list[tuple[str, Callable[..., Any]]]


@dataclass(frozen=True, kw_only=True)
class ModelEvaluation(Result):
    """The model's loss with and without the SAE in place. CE and KL in nats per token."""

    n_tokens: int
    """Predicted tokens of text; the one after BOS, which nothing here can change, is left out."""
    ce_clean: float
    ce_spliced: float
    ce_zero: float
    ce_mean: float
    ce_recovered: float | None
    """`(ce_zero - ce_spliced) / (ce_zero - ce_clean)`: 1 loses nothing, 0 is as bad as zeros. None where zeros do not
    hurt, so that there is nothing to recover."""
    ce_recovered_from_mean: float | None
    """The same against the mean activation instead of zeros, which is the harder baseline."""
    kl_spliced: float
    """`KL(clean || spliced)`."""
    kl_zero: float = float("nan")
    kl_recovered: float | None = None
    """`1 - kl_spliced / kl_zero`: 1 changes no prediction, 0 changes them as much as zeros do."""
    n_documents: int = 0
    intervals: dict[str, Ends] = field(default_factory=dict)
    """`score -> (low, high)`, 95 %, over documents (contexts, where documents are not known)."""

    def headline(self) -> str:
        """Say how much text was measured."""
        return f"The model with the dictionary in place, {self.n_tokens:,} tokens (nats per token)"


def can_splice(sae: SAE) -> bool:
    """Whether its output has one place in one model; a crosscoder's has several."""
    return len(sae.hook_points) == 1 and sae.architecture != "crosscoder"


def evaluate_in_model(sae: SAE, model: Any, tokens: Tensor, **options: Any) -> ModelEvaluation:
    """`evaluate_all_in_model` for one SAE."""
    return evaluate_all_in_model({"sae": sae}, model, tokens, **options)["sae"]


@torch.no_grad()
def evaluate_all_in_model(
    saes: Mapping[str, SAE],
    model: Any,
    tokens: Tensor,
    *,
    documents: Tensor | None = None,
    mean: Tensor | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, ModelEvaluation]:
    """Cross-entropy of `model` on `tokens [n, n_ctx]` with the activation clean, zeroed, set to its mean, and spliced.

    `documents [n, n_ctx]` says which document a token belongs to, below 0 for tokens that are no text; without it every
    context is a document whose first token is no text. `mean [d]` of the replaced place is measured when not given.
    `model` needs `run_with_hooks(tokens, return_type=, fwd_hooks=, stop_at_layer=)` and `cfg.d_vocab`, as
    TransformerBridge has them. Cost: `3 + len(saes)` passes. Raises `ConfigError` (too short, or nothing to splice),
    `MismatchError` (SAEs of several places).
    """
    documents = _documents(tokens, documents)
    place = _place(saes)
    size = batch_size or max(1, LOGIT_VALUES // (tokens.shape[1] * model.cfg.d_vocab))
    if mean is None:
        mean = _mean_activation(place, model, tokens, documents, size)
    losses = _Losses(["clean", "zero", "mean", *(f"sae {name}" for name in saes)], seed)
    done = 0
    for batch, document in zip(tokens.split(size), documents.split(size), strict=True):
        text = document >= 0
        variants = {
            "clean": [],
            "zero": [(place, _replace(torch.zeros_like(mean), text))],
            "mean": [(place, _replace(mean, text))],
            **{f"sae {name}": _splice(sae, text) for name, sae in saes.items()},
        }
        passes = ((name, _logits(model, batch, hooks)) for name, hooks in variants.items())
        losses.add(passes, batch, document)
        done += len(batch)
        if progress:
            progress(done, len(tokens), {})
    return {name: losses.result(f"sae {name}") for name in saes}


class _Losses:
    """Sums of CE and KL by variant: columns `n`, CE of every variant, KL of every variant."""

    def __init__(self, variants: list[str], seed: int):
        self.variants, self.bootstrap = variants, DocumentBootstrap(seed=seed)

    def add(self, passes: Any, tokens: Tensor, document: Tensor) -> None:
        """`passes` yields `(variant, logits)`, the clean one first; only two logits are held at a time."""
        row, pos = ((document[:, :-1] >= 0) & (document[:, 1:] >= 0)).nonzero(as_tuple=True)
        targets, clean = tokens[row, pos + 1], None
        ce, kl = [], []
        for _, logits in passes:
            clean = logits if clean is None else clean
            losses = token_losses(logits, clean, row.to(logits.device), pos.to(logits.device), targets)
            ce.append(losses[0])
            kl.append(losses[1])
        values = torch.stack([torch.ones_like(ce[0]), *ce, *kl], dim=1)
        self.bootstrap.add(values, document[row, pos + 1])

    def ce(self, sums: Tensor, variant: str) -> Tensor:
        return sums[:, 1 + self.variants.index(variant)] / sums[:, 0]

    def kl(self, sums: Tensor, variant: str) -> Tensor:
        return sums[:, 1 + len(self.variants) + self.variants.index(variant)] / sums[:, 0]

    def recovered(self, sums: Tensor, spliced: str, worst: str) -> Tensor:
        """NaN where the baseline is not worse than the clean model."""
        whole = self.ce(sums, worst) - self.ce(sums, "clean")
        return torch.where(whole > 1e-6, (self.ce(sums, worst) - self.ce(sums, spliced)) / whole, torch.nan)

    def result(self, spliced: str) -> ModelEvaluation:
        scores: dict[str, Callable[[Tensor], Tensor]] = {
            "ce_clean": lambda s: self.ce(s, "clean"),
            "ce_spliced": lambda s: self.ce(s, spliced),
            "ce_zero": lambda s: self.ce(s, "zero"),
            "ce_mean": lambda s: self.ce(s, "mean"),
            "ce_recovered": lambda s: self.recovered(s, spliced, "zero"),
            "ce_recovered_from_mean": lambda s: self.recovered(s, spliced, "mean"),
            "kl_spliced": lambda s: self.kl(s, spliced),
            "kl_zero": lambda s: self.kl(s, "zero"),
            "kl_recovered": lambda s: 1 - self.kl(s, spliced) / self.kl(s, "zero"),
        }
        whole = self.bootstrap.sums[:1]
        found = {name: float(score(whole)) for name, score in scores.items()}
        known = {name: value if abs(value) < float("inf") else None for name, value in found.items()}
        return ModelEvaluation(
            n_tokens=int(whole[0, 0]),
            n_documents=self.bootstrap.n_documents,
            intervals=self.bootstrap.intervals({name: s for name, s in scores.items() if known[name] is not None}),
            **known,  # pyright: ignore[reportArgumentType] (only the recovered shares can be None)
        )


def token_losses(logits: Tensor, clean: Tensor, row: Tensor, pos: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """`([n], [n])` float64: CE at `targets [n]` of the predictions made at `(row, pos)`, and KL from the clean ones.

    A few rows of `logits [batch, pos, d_vocab]` are in float32 at a time. The KL of `clean` from itself is 0.
    """
    step, found = max(1, CHUNK_VALUES // logits.shape[-1]), []
    for part in torch.arange(len(row), device=row.device).split(step):
        new = logits[row[part], pos[part]].float()
        total = new.logsumexp(-1)
        ce = total - new.gather(-1, targets[part.cpu(), None].to(new.device))[:, 0]
        kl = torch.zeros_like(ce)
        if clean is not logits:
            old = clean[row[part], pos[part]].float()
            before = old.logsumexp(-1)
            p = (old - before[:, None]).exp_()
            kl = (p * old.sub_(new)).sum(-1) - before + total
        found.append(torch.stack([ce, kl]).double().cpu())
    both = torch.cat(found, dim=1) if found else torch.zeros(2, 0, dtype=torch.float64)
    return both[0], both[1]


def _documents(tokens: Tensor, documents: Tensor | None) -> Tensor:
    if tokens.ndim != 2 or tokens.shape[1] < 3:
        raise ConfigError(f"tokens must be [n, n_ctx] with n_ctx >= 3, got {list(tokens.shape)}")
    if documents is None:
        documents = torch.arange(len(tokens))[:, None].repeat(1, tokens.shape[1])
        documents[:, 0] = -1
    if documents.shape != tokens.shape:
        raise ConfigError(f"documents must be {list(tokens.shape)} like the tokens, got {list(documents.shape)}")
    if not ((documents[:, :-1] >= 0) & (documents[:, 1:] >= 0)).any():
        raise ConfigError("no token can be scored: no two tokens of text lie side by side")
    return documents.cpu()


def _place(saes: Mapping[str, SAE]) -> str:
    """The one place that is replaced."""
    several = [name for name, sae in saes.items() if not can_splice(sae)]
    if several:
        raise ConfigError(f"{', '.join(several)} reconstructs several places and cannot be put into one model")
    places = {sae.hook_point_out or sae.hook_point for sae in saes.values()}
    if len(places) != 1:
        raise MismatchError(f"SAEs that share passes replace one place, these replace {', '.join(sorted(places))}")
    return places.pop()


def _logits(model: Any, tokens: Tensor, hooks: Hooks) -> Tensor:
    return model.run_with_hooks(tokens, return_type="logits", fwd_hooks=hooks)


def _replace(vector: Tensor, text: Tensor) -> Callable[..., Tensor]:
    """A hook that puts one vector at every position of `text [batch, pos]`."""

    def hook(value: Tensor, hook: Any = None) -> Tensor:
        return _at_text(value, vector.to(value.device, value.dtype).expand(*text.shape, -1), text)

    return hook


def _splice(sae: SAE, text: Tensor) -> Hooks:
    """Hooks that replace the activation by the reconstruction; a transcoder's input is kept from the place it reads."""
    seen: dict[str, Tensor] = {}

    def recons(value: Tensor) -> Tensor:
        return sae(value.flatten(2).to(sae.W_enc.dtype))

    def read(value: Tensor, hook: Any = None) -> None:
        seen["x"] = value

    def put(value: Tensor, hook: Any = None) -> Tensor:
        return _at_text(value, recons(seen.pop("x") if seen else value), text)

    target = sae.hook_point_out or sae.hook_point
    return [(target, put)] if target == sae.hook_point else [(sae.hook_point, read), (target, put)]


def _at_text(value: Tensor, new: Tensor, text: Tensor) -> Tensor:
    """`value` with `new [batch, pos, d]` where there is text; `value` may have an axis of heads."""
    return torch.where(text.to(value.device)[..., None], new.to(value.dtype), value.flatten(2)).view_as(value)


def _mean_activation(place: str, model: Any, tokens: Tensor, documents: Tensor, batch_size: int) -> Tensor:
    """`[d]`: mean over the positions of text."""
    sums: list[Tensor] = []
    layer = parse_hook_point(canonical_hook_point(place)).layer
    stop = {} if layer is None else {"stop_at_layer": layer + 1}
    for batch, document in zip(tokens.split(batch_size), documents.split(batch_size), strict=True):

        def add(value: Tensor, hook: Any = None, document: Tensor = document) -> None:
            sums.append(value.flatten(2)[(document >= 0).to(value.device)].double().sum(0).cpu())

        model.run_with_hooks(batch, return_type=None, fwd_hooks=[(place, add)], **stop)
    return (torch.stack(sums).sum(0) / int((documents >= 0).sum())).float()
