"""Entropy of every head's attention over a recorded text, as a fraction of the largest possible. Torch-free to read.

    entropy of position t = -sum_s a[t, s] log a[t, s] / log(t + 1)        # nats over nats; a[t] is the row of token t

0 is attention to one token, 1 the same attention to all tokens up to and including its own. Tokens of documents count,
the first position of a context does not: it has one token to attend to. A head's entropy is the mean over the tokens of
each document, then over documents, with their interval.

The null is an untrained model on the same tokens. Its sample is the heads: a head is sharp when the upper end of its
interval lies below the bound that one of that many untrained heads passes in 5 % of models. Attention to BOS is sharp
too; `interp.circuits.head_kinds` tells what a head attends to.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float64, Int

from interp.artifacts import Artefact, Finding, Table
from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.models.short_name import short_name
from interp.nulls import prediction_bound
from interp.progress import Progress
from interp.results import Record
from interp.statistics import t_interval

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class EntropySettings:
    """Settings that determine the entropies of a model's heads."""

    model: str
    weight_hash: str
    recording: str
    contexts: int
    documents: int
    seed: int
    """Draws the weights of the untrained model."""


@dataclass(frozen=True, kw_only=True)
class HeadEntropy:
    """Entropy of one head, 0 on one token to 1 on all alike."""

    layer: int
    head: int
    entropy: float
    """Mean over documents."""
    low: float
    high: float
    """Ends of its 95 % interval."""
    sharp: bool
    """The interval lies below that of untrained heads."""

    @property
    def name(self) -> str:
        """Name of the head, such as `L5H1`."""
        return f"L{self.layer}H{self.head}"


@dataclass(frozen=True, kw_only=True)
class AttentionEntropy(Artefact, kind="attention_entropy", made_by="entropy"):
    """Entropy of every head's attention over a recorded text: 0 on one token, 1 on all tokens alike."""

    settings: EntropySettings
    null: float
    """Mean over the heads of an untrained model."""
    null_low: float
    """Lower bound of an untrained head, corrected for all heads."""
    heads: Table[HeadEntropy]
    """Rows by layer and head."""

    def headline(self) -> str:
        """Return one line: the number of sharp heads, and the sharpest."""
        rows = self.heads.rows()
        least = min(rows, key=lambda row: row.entropy)
        return (
            f"{sum(row.sharp for row in rows)} of {len(rows)} heads of {short_name(self.settings.model)} attend more "
            f"sharply than untrained heads, {least.name} most"
        )

    def details(self) -> list[str]:
        """Return the entropy of the sharpest head and of untrained ones."""
        least = min(self.heads.rows(), key=lambda row: row.entropy)
        return [f"{least.name} has {least.entropy:.2f} of the largest entropy, untrained heads {self.null:.2f}"]

    def facts(self) -> list[tuple[str, str]]:
        """Return the size of the text."""
        return [("contexts", f"{self.settings.contexts:,}"), ("documents", f"{self.settings.documents:,}")]

    def findings(self) -> list[Finding]:
        """Return the sharpest head, where it is sharper than untrained heads."""
        least = min(self.heads.rows(), key=lambda row: row.entropy)
        if not least.sharp:
            return []
        sentence = f"{least.name} concentrates its attention: {least.entropy:.2f} of the largest entropy"
        return [
            Finding(
                kind="attention",
                title="A head that attends sharply",
                sentence=sentence,
                value=1 - least.entropy,
                null=1 - self.null_low,
                about="1 less the fraction of the largest entropy; null: the sharpest that an untrained head gets",
                proof="See all heads",
                href=self.href,
            )
        ]

    def to_records(self) -> list[Record]:
        """Return one row per head: `head, layer, entropy, low, high, sharp`."""
        names = ("layer", "entropy", "low", "high", "sharp")
        return [{"head": row.name} | {name: getattr(row, name) for name in names} for row in self.heads.rows()]


def measure_entropy(
    model: HookedModel,
    tokens: "Int[Tensor, 'n_contexts pos']",
    documents: "Int[Tensor, 'n_contexts pos']",
    *,
    model_name: str = "the model",
    recording: str = "",
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> AttentionEntropy:
    """Measure the entropy of every head on a text, and that of an untrained model's heads.

    `documents` has the document of each token, -1 for BOS and padding. Raises `ConfigError` for fewer than two.
    """
    from interp.models.adapter import untrained_model, weight_hash

    n_documents = len(documents[:, 1:][documents[:, 1:] >= 0].unique())
    if n_documents < 2:
        raise ConfigError(f"an interval needs tokens of at least two documents, got {n_documents}; take more contexts")
    trained, untrained = (
        entropy_by_document(measured, tokens, documents, batch_size=batch_size, progress=_half(progress, half, name))
        for half, (name, measured) in enumerate({"trained": model, "untrained": untrained_model(model, seed)}.items())
    )
    mean, low, high = t_interval(trained).clip(0, 1)
    null, null_low = untrained_bound(untrained)
    layer, head = np.indices(mean.shape)
    columns = {"layer": layer, "head": head, "entropy": mean, "low": low, "high": high, "sharp": high < null_low}
    settings = EntropySettings(
        model=model_name,
        weight_hash=weight_hash(model),
        recording=recording,
        contexts=len(tokens),
        documents=n_documents,
        seed=seed,
    )
    rows = Table.of_columns(HeadEntropy, {name: column.ravel() for name, column in columns.items()})
    return AttentionEntropy(settings=settings, null=null, null_low=null_low, heads=rows)


def _half(progress: Progress | None, half: int, name: str) -> Progress | None:
    """Return the progress of one of two passes over the text."""
    if progress is None:
        return None
    return lambda done, total, _: progress(half * total + done, 2 * total, {"model": name})


def entropy_by_document(
    model: HookedModel,
    tokens: "Int[Tensor, 'n_contexts pos']",
    documents: "Int[Tensor, 'n_contexts pos']",
    batch_size: int,
    progress: Progress | None = None,
) -> Float64[np.ndarray, "n_layers n_heads n_documents"]:
    """Return the mean entropy of each head over the tokens of each document, a layer's patterns at a time in memory."""
    import torch

    from interp.circuits.head_kinds import pattern_point
    from interp.models.passes import run_from

    counted = documents[:, 1:] >= 0
    names, number = documents[:, 1:][counted].unique(return_inverse=True)
    document = torch.zeros(counted.shape, dtype=torch.int64).masked_scatter(counted, number)
    sums = torch.zeros(model.cfg.n_layers, model.cfg.n_heads, len(names), dtype=torch.float64)
    points = [pattern_point(layer) for layer in range(model.cfg.n_layers)]
    entropies: dict[int, Tensor] = {}

    def store(pattern: "Tensor", hook: object, layer: int) -> None:
        entropies[layer] = row_entropy(pattern.float())[..., 1:].transpose(0, 1).flatten(1).double().cpu()

    hooks = [(point, partial(store, layer=layer)) for layer, point in enumerate(points)]
    for start in range(0, len(tokens), batch_size):
        stop = min(start + batch_size, len(tokens))
        run_from(model, tokens[start:stop].to(model.cfg.device), hooks, until=points[-1])
        if len(entropies) != len(points):
            raise ConfigError(
                f"{len(entropies)} of {len(points)} layers gave attention patterns; load the model with "
                "attention='eager'"
            )
        inside = counted[start:stop].flatten()
        for layer, values in entropies.items():
            sums[layer].index_add_(1, document[start:stop].flatten()[inside], values[:, inside])
        if progress is not None:
            progress(stop, len(tokens), {})
    return (sums / number.bincount()).numpy()


def row_entropy(pattern: "Float[Tensor, 'batch n_heads dest src']") -> "Float[Tensor, 'batch n_heads dest']":
    """Return the entropy of each row of attention as a fraction of the largest; NaN at the first position."""
    import torch

    largest = torch.arange(1, pattern.shape[-2] + 1, device=pattern.device).log()
    return torch.special.entr(pattern).sum(-1) / largest


def untrained_bound(entropy: Float64[np.ndarray, "n_layers n_heads n_documents"]) -> tuple[float, float]:
    """Return the mean of untrained heads, and the lower bound of one, corrected for all; at most their smallest."""
    heads = entropy.mean(-1).ravel()
    mean, low = float(heads.mean()), float(heads.min())
    if len(heads) > 1:
        low = min(low, prediction_bound(mean, -heads.std(ddof=1), len(heads), n_tests=len(heads)))
    return mean, max(float(low), 0.0)
