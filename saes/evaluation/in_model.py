"""Loss of a model when a dictionary's reconstruction replaces an activation.

1. The model runs unchanged, with zero ablation, with mean ablation, and with each SAE spliced in. It runs a few
   contexts at a time, so that the logits of one pass stay within `LOGIT_VALUES`.
2. Cross-entropy and KL are computed from a few rows of the logits at a time, so that no second array of that size
   exists.
3. Of a context with more than `CONTEXT_VALUES` logits a random sample of positions is scored, and only their logits
   are computed: with 49,152 tokens in the vocabulary 341 positions, with 262,144 64.
4. Sums are stored per document, for bootstrap intervals (`interp.statistics`).

Positions without text (BOS, whose residual is an outlier) are neither replaced nor scored. Several SAEs of one hook
point share the three passes without an SAE. A transcoder reads one hook point, and its prediction replaces another.

**Splicing** alone: a model runs on the reconstruction of an SAE or transcoder instead of the value itself.

    model.run_with_hooks(tokens, fwd_hooks=splice_hooks(sae))

Ablating, clamping and steering latents are interventions (`interp.interventions`), which leave the reconstruction error
as it is; `hooks_of(..., between=splice_hooks(sae))` does both.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

from interp.errors import ConfigError, MismatchError
from interp.interventions.edits import at_mask, from_position, inserting
from interp.models.adapter import Hook
from interp.models.hooked import HookedModel
from interp.models.passes import read_hook
from interp.names import canonical_hook_point, parse_hook_point
from interp.progress import Progress
from interp.seeds import make_generator
from interp.statistics import DocumentBootstrap
from saes.evaluation.scores import InModel
from saes.kinds.base import SAE
from saes.kinds.crosscoder import CrosscoderSAE

LOGIT_VALUES = 1 << 25
"""Largest number of logits of one pass (128 MB in float32); two such arrays exist at once, the clean and another."""
CONTEXT_VALUES = 1 << 24
"""Largest number of logits of one context that are scored."""
CHUNK_VALUES = 1 << 22
"""Number of logits converted to float32 at once."""

Hooks = list[tuple[str, Hook]]


def can_splice(sae: SAE) -> bool:
    """Return True for an SAE whose output replaces one hook point of one model; a crosscoder's replaces several."""
    return len(sae.hook_points) == 1 and sae.architecture != "crosscoder"


def evaluate_in_model(
    sae: SAE,
    model: HookedModel,
    tokens: Int[Tensor, "..."],
    *,
    documents: Int[Tensor, "..."] | None = None,
    mean: Float[Tensor, " d"] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> InModel:
    """Evaluate one SAE in the model.

    Args:
        sae: is spliced into the model.
        model: the model that it was trained on.
        tokens: contexts, `[n, n_ctx]`.
        documents: the document of each token.
        mean: the mean activation, `[d]`, for which the loss with everything removed is measured.
        batch_size: contexts in memory at a time.
        seed: of the intervals, which resample documents.
    Returns: the loss with the SAE in it, and the share of the loss that it recovers (1: all), with intervals.
    Raises:
        ConfigError: a crosscoder, contexts of fewer than three tokens, or `documents` of another shape.

    >>> evaluate_in_model(sae, model, tokens).headline()
    'Loss of the model with the dictionary spliced in, 18 tokens (nats per token)'
    """
    losses = evaluate_all_in_model(
        {"sae": sae}, model, tokens, documents=documents, mean=mean, batch_size=batch_size, seed=seed, progress=progress
    )
    return losses["sae"]


@torch.no_grad()
def evaluate_all_in_model(
    saes: Mapping[str, SAE],
    model: HookedModel,
    tokens: Int[Tensor, "..."],
    *,
    documents: Int[Tensor, "..."] | None = None,
    mean: Float[Tensor, " d"] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, InModel]:
    """Measure the loss of `model` on `tokens [n, n_ctx]` with each SAE spliced in, and with zero and mean ablation.

    `documents [n, n_ctx]` is the document of each token, below 0 for tokens that are not text. Without it every context
    is a document whose first token is not text. `mean [d]` is the mean activation of the replaced hook point; None
    measures it. `model` needs `run_with_hooks(tokens, return_type=, fwd_hooks=, stop_at_layer=)` and `cfg.d_vocab`, as
    in TransformerBridge. Cost: `3 + len(saes)` passes. Raises `ConfigError` (contexts too short, or an SAE that cannot
    be spliced), `MismatchError` (SAEs of several hook points).
    """
    documents = check_documents(tokens, documents)
    hook_point = _replaced_hook_point(saes)
    scored = scored_positions(documents, model.cfg.d_vocab, seed)
    size = batch_size or max(1, LOGIT_VALUES // (scored.shape[1] * model.cfg.d_vocab))
    if mean is None:
        mean = _mean_activation(hook_point, model, tokens, documents, size)
    losses = Losses(["clean", "zero", "mean", *(f"sae {name}" for name in saes)], seed)
    done = 0
    for batch, document, at in zip(tokens.split(size), documents.split(size), scored.split(size), strict=True):
        text, reading = document >= 0, [read_hook(at)] if at.shape[1] < tokens.shape[1] - 1 else []
        variants = {
            "clean": [],
            "zero": [(hook_point, replace_by(torch.zeros_like(mean), text))],
            "mean": [(hook_point, replace_by(mean, text))],
            **{f"sae {name}": splice_hooks(sae, mask=text) for name, sae in saes.items()},
        }
        passes = ((name, logits_of(model, batch, [*hooks, *reading])) for name, hooks in variants.items())
        losses.add(passes, batch, document, at)
        done += len(batch)
        if progress:
            progress(done, len(tokens), {})
    return {name: losses.result(f"sae {name}") for name in saes}


class Losses:
    """Sums of CE and KL per variant; the columns are `n`, CE of every variant, KL of every variant."""

    def __init__(self, variants: list[str], seed: int):
        self.variants, self.bootstrap = variants, DocumentBootstrap(seed=seed)

    def add(
        self,
        passes: Iterable[tuple[str, Tensor]],
        tokens: Tensor,
        document: Tensor,
        at: Int64[Tensor, "batch k"] | None = None,
    ) -> None:
        """Add one batch. `passes` yields `(variant, logits)`, the clean one first; two logits exist at a time.

        The logits are those of the positions `at`, by default of all.
        """
        at = torch.arange(tokens.shape[1] - 1).expand(len(tokens), -1) if at is None else at
        row, column = followed(document).gather(1, at).nonzero(as_tuple=True)
        pos = at[row, column]
        targets, clean = tokens[row, pos + 1], None
        ce, kl = [], []
        for _, logits in passes:
            clean = logits if clean is None else clean
            losses = token_losses(logits, clean, row.to(logits.device), column.to(logits.device), targets)
            ce.append(losses[0])
            kl.append(losses[1])
        values = torch.stack([torch.ones_like(ce[0]), *ce, *kl], dim=1)
        self.bootstrap.add(values, document[row, pos + 1])

    def ce(self, sums: Tensor, variant: str) -> Tensor:
        return sums[:, 1 + self.variants.index(variant)] / sums[:, 0]

    def kl(self, sums: Tensor, variant: str) -> Tensor:
        return sums[:, 1 + len(self.variants) + self.variants.index(variant)] / sums[:, 0]

    def recovered(self, sums: Tensor, spliced: str, worst: str) -> Tensor:
        """Return the share of the loss that is recovered; NaN where ablation does not raise the loss."""
        whole = self.ce(sums, worst) - self.ce(sums, "clean")
        return torch.where(whole > 1e-6, (self.ce(sums, worst) - self.ce(sums, spliced)) / whole, torch.nan)

    def result(self, spliced: str) -> InModel:
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
        estimates = {name: float(score(whole)) for name, score in scores.items()}
        known = {name: value if abs(value) < float("inf") else None for name, value in estimates.items()}
        return InModel(
            n_tokens=int(whole[0, 0]),
            n_documents=self.bootstrap.n_documents,
            intervals=self.bootstrap.intervals({name: s for name, s in scores.items() if known[name] is not None}),
            ce_clean=estimates["ce_clean"],
            ce_spliced=estimates["ce_spliced"],
            ce_zero=estimates["ce_zero"],
            ce_mean=estimates["ce_mean"],
            ce_recovered=known["ce_recovered"],
            ce_recovered_from_mean=known["ce_recovered_from_mean"],
            kl_spliced=estimates["kl_spliced"],
            kl_zero=estimates["kl_zero"],
            kl_recovered=known["kl_recovered"],
        )


def token_losses(
    logits: Float[Tensor, "batch pos d_vocab"],
    clean: Float[Tensor, "batch pos d_vocab"],
    row: Int64[Tensor, " n"],
    pos: Int64[Tensor, " n"],
    targets: Int64[Tensor, " n"],
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """Return the CE and the KL of predictions as `([n], [n])` float64.

    CE is that of `logits [batch, pos, d_vocab]` at `(row, pos)`, for `targets [n]`. KL is `KL(clean || logits)` there,
    0 where `logits` is `clean`. A few rows are converted to float32 at a time.
    """
    step, losses = max(1, CHUNK_VALUES // logits.shape[-1]), []
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
        losses.append(torch.stack([ce, kl]).double().cpu())
    both = torch.cat(losses, dim=1) if losses else torch.zeros(2, 0, dtype=torch.float64)
    return both[0], both[1]


def followed(documents: Int[Tensor, "n pos"]) -> Bool[Tensor, "n pos-1"]:
    """Return where a token and the one that follows it are text."""
    return (documents[:, :-1] >= 0) & (documents[:, 1:] >= 0)


def scored_positions(documents: Int[Tensor, "n pos"], d_vocab: int, seed: int) -> Int64[Tensor, "n k"]:
    """Return the positions that are scored in each context: all, or a random sample where the vocabulary is large."""
    text = followed(documents)
    n = min(text.shape[1], max(1, CONTEXT_VALUES // d_vocab))
    drawn = torch.rand(text.shape, generator=make_generator(seed, "scored positions")) + ~text
    return drawn.argsort(1)[:, :n].sort(1).values


def check_documents(tokens: Tensor, documents: Tensor | None) -> Tensor:
    """Return the document of every token, below 0 where it is not text. Raises `ConfigError`; see above."""
    if tokens.ndim != 2 or tokens.shape[1] < 3:
        raise ConfigError(f"tokens must be [n, n_ctx] with n_ctx >= 3, got {list(tokens.shape)}")
    if documents is None:
        documents = torch.arange(len(tokens))[:, None].repeat(1, tokens.shape[1])
        documents[:, 0] = -1
    if documents.shape != tokens.shape:
        raise ConfigError(f"documents must be {list(tokens.shape)} like the tokens, got {list(documents.shape)}")
    if not followed(documents).any():
        raise ConfigError("no token can be scored: no two consecutive tokens are text; record longer documents")
    return documents.cpu()


def _replaced_hook_point(saes: Mapping[str, SAE]) -> str:
    """Return the one hook point that all SAEs replace."""
    several = [name for name, sae in saes.items() if not can_splice(sae)]
    if several:
        raise ConfigError(
            f"{', '.join(several)} reconstructs several hook points and cannot be spliced into one model; "
            "choose dictionaries of one hook point"
        )
    hook_points = {sae.hook_point_out or sae.hook_point for sae in saes.values()}
    if len(hook_points) != 1:
        raise MismatchError(
            f"SAEs that share passes replace one hook point, these replace {', '.join(sorted(hook_points))}; "
            "evaluate those of one hook point at a time"
        )
    return hook_points.pop()


def logits_of(model: HookedModel, tokens: Tensor, hooks: Hooks) -> Tensor:
    """Return the logits `[batch, pos, d_vocab]` of a run with hooks."""
    return model.run_with_hooks(tokens, return_type="logits", fwd_hooks=hooks)


def replace_by(vector: Tensor, text: Tensor) -> Callable[..., Tensor]:
    """Return a hook that writes one vector at every position that is True in `text [batch, pos]`."""

    def whole(value: Tensor) -> Tensor:
        return vector.to(value.device, value.dtype).view(1, 1, *value.shape[2:])

    return at_mask(inserting(whole), text)


def _mean_activation(hook_point: str, model: HookedModel, tokens: Tensor, documents: Tensor, batch_size: int) -> Tensor:
    """Return the mean activation `[d]` over positions of text."""
    sums: list[Tensor] = []
    layer = parse_hook_point(canonical_hook_point(hook_point)).layer
    stop = None if layer is None else layer + 1
    for batch, document in zip(tokens.split(batch_size), documents.split(batch_size), strict=True):

        def add(value: Tensor, hook: object = None, document: Tensor = document) -> None:
            sums.append(value.flatten(2)[(document >= 0).to(value.device)].double().sum(0).cpu())

        model.run_with_hooks(batch, return_type=None, fwd_hooks=[(hook_point, add)], stop_at_layer=stop)
    return (torch.stack(sums).sum(0) / int((documents >= 0).sum())).float()


def splice(sae: SAE) -> Hook:
    """Return a hook that replaces the activation by the SAE's reconstruction.

    `sae` reads and writes one hook point, at which the hook belongs.

    Raises `ConfigError` for a transcoder, whose output belongs at another hook point (`splice_hooks` returns both
    hooks), and for a crosscoder.
    """
    [(_, hook), *more] = splice_hooks(sae)
    if more:
        raise ConfigError(
            f"expected an SAE that reconstructs {sae.hook_point}, {sae} predicts {sae.hook_point_out}; "
            "take `splice_hooks`"
        )
    return hook


def splice_hooks(sae: SAE, *, first: int = 0, mask: Tensor | None = None) -> list[tuple[str, Hook]]:
    """Return the hooks that splice an SAE or a transcoder into a model, each with its hook point.

    Args:
        sae: its reconstruction replaces the value.
        first: the number of positions that keep their values.
        mask: positions that are replaced, `[batch, pos]`; others keep their values.
    Returns: pairs of a hook point and a function, for `run_with_hooks`.
    Raises:
        ConfigError: a crosscoder.

    >>> run_with_hooks(model, tokens, splice_hooks(sae)).shape
    torch.Size([1, 20, 257])
    """
    if isinstance(sae, CrosscoderSAE):
        raise ConfigError(f"{sae} reads several hook points at once; splice an SAE or a transcoder of one of them")
    stored: dict[str, Tensor] = {}

    def read(value: Tensor, hook: object = None) -> None:
        stored["x"] = value

    def write(value: Tensor, hook: object = None) -> Tensor:
        x = stored.pop("x", value)
        return sae(x.flatten(2).to(sae.W_dec.dtype)).to(value.dtype).view_as(value)

    target = sae.hook_point_out or sae.hook_point
    written = from_position(write, first) if mask is None else at_mask(write, mask)
    return [(target, written)] if target == sae.hook_point else [(sae.hook_point, read), (target, written)]
