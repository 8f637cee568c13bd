"""Quality of an SAE on recorded activations: reconstruction, sparsity, and the density of its latents.

All sums are streamed in float64, so the scores do not depend on the batch size. Intervals are over documents
(`interp.statistics`), since tokens of one document are correlated. The loss of the model with the SAE spliced in is
measured in `in_model.py`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from interp.errors import ConfigError, MismatchError
from interp.progress import Progress
from interp.recording.store import Recording, Split
from interp.statistics import DocumentBootstrap
from saes.kinds.base import SAE
from saes.training.config import DENSE
from saes.training.data import RowSource
from saes.training.stored import DENSITY_EDGES, Reconstruction


@torch.no_grad()
def evaluate_on_recording(
    sae: SAE,
    recording: Recording | Sequence[Recording],
    split: Split = "heldout",
    *,
    heldout_fraction: float = 0.1,
    batch_size: int = 4096,
    seed: int = 0,
    progress: Progress | None = None,
) -> Reconstruction:
    """Measure reconstruction and sparsity of an SAE on recorded rows, at the hook points that it reads and writes.

    `sae` is evaluated on the rows of `recording` in the part `split`.

    A crosscoder of several models takes as many recordings. `seed` draws the bootstrap. Raises `ConfigError` when the
    split is empty, `MismatchError` when the widths differ.
    """
    source = RowSource(recording, sae.hook_points, target=sae.hook_point_out)
    first = source.recording
    if source.d_in != sae.d_in:
        names = ", ".join(sae.hook_points)
        raise MismatchError(
            f"{first.folder} has width {source.d_in} at {names}, the SAE expects {sae.d_in}; choose a recording of "
            "its model"
        )
    sums, documents = ReconstructionSums(sae.d_sae, seed), DocumentsOfRows(first)
    for batch in source.sequential(batch_size=batch_size, split=split, heldout_fraction=heldout_fraction):
        if not len(batch.rows):  # the shard has no documents of this split
            continue
        x = batch.x.to(sae.device)
        acts = sae.encode_sparse(x)
        recons = sae.complete(sae.decode_sparse(acts), x)
        on = acts.values > 0
        sums.add(
            on.sum(1),
            acts.indices[on],
            recons,
            batch.x if batch.target is None else batch.target,
            documents(batch.rows),
        )
        if progress:
            progress(int(batch.rows[-1]) + 1, first.n_rows, {})
    if not sums.n:
        raise ConfigError(f"{first.folder} has no tokens in its {split!r} split; record more documents")
    return sums.result()


class DocumentsOfRows:
    """Lookup of the document of each row; it caches the last shard that was read."""

    def __init__(self, recording: Recording):
        self.recording, self.shard = recording, -1
        self.document = torch.empty(0, dtype=torch.int32)

    def __call__(self, rows: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """Return the documents `[n]` of global `rows [n]`, all of one shard (as from `Recording.sequential`)."""
        starts = self.recording.shard_starts
        shard = int(np.searchsorted(starts, int(rows[0]), side="right") - 1)
        if shard != self.shard:
            self.shard, self.document = shard, self.recording.token_shard(shard).document
        return self.document[rows - int(starts[shard])].long()


class ReconstructionSums:
    """Running sums over tokens: the columns are `TERMS`, then the target itself, for its mean."""

    TERMS = ("n", "active", "error", "square", "recons", "dot", "ratio", "cosine")

    def __init__(self, d_sae: int, seed: int):
        self.n = 0
        self.fired = torch.zeros(d_sae, dtype=torch.int64)
        self.bootstrap = DocumentBootstrap(seed=seed)

    def add(self, active: Tensor, fired: Tensor, recons: Tensor, target: Tensor, document: Tensor) -> None:
        """Add tokens: the number of their active latents `[n]`, these latents `[m]`, reconstruction and target."""
        x, recons = target.double(), recons.cpu().double()  # float64 is not on every device
        self.n += len(x)
        self.fired += torch.bincount(fired.cpu().long(), minlength=len(self.fired))
        norm, recons_norm = x.norm(dim=1), recons.norm(dim=1)
        dot = (x * recons).sum(1)
        terms = [
            torch.ones_like(norm),
            active.cpu().double(),
            (x - recons).square().sum(1),
            norm**2,
            recons_norm**2,
            dot,
            recons_norm / norm.clamp_min(1e-30),
            dot / (norm * recons_norm).clamp_min(1e-30),
        ]
        self.bootstrap.add(torch.cat([torch.stack(terms, 1), x], dim=1), document)

    def result(self) -> Reconstruction:
        """Return the scores of all tokens so far."""
        scores = {
            "l0": lambda s: _mean(s, "active"),
            "fvu": self._fvu,
            "l2_ratio": lambda s: _mean(s, "ratio"),
            "relative_bias": lambda s: _mean(s, "recons") / _mean(s, "dot"),
            "cosine": lambda s: _mean(s, "cosine"),
        }
        whole = {name: float(score(self.bootstrap.sums[:1])) for name, score in scores.items()}
        share = self.fired[self.fired > 0].double() / self.n
        logs = share.log10().clamp(DENSITY_EDGES[0], DENSITY_EDGES[-1])
        return Reconstruction(
            n_tokens=self.n,
            l0=whole["l0"],
            fvu=whole["fvu"],
            l2_ratio=whole["l2_ratio"],
            relative_bias=whole["relative_bias"],
            cosine=whole["cosine"],
            dead_fraction=float((self.fired == 0).float().mean()),
            dense_fraction=float((self.fired > DENSE * self.n).float().mean()),
            n_documents=self.bootstrap.n_documents,
            intervals=self.bootstrap.intervals(scores),
            density_counts=tuple(map(int, np.histogram(logs.numpy(), bins=DENSITY_EDGES)[0])),
        )

    def _fvu(self, sums: Tensor) -> Tensor:
        """Return the FVU of every replicate, with the variance about the mean of all tokens.

        A mean fitted to the few documents of one replicate would absorb part of their variance, which biases the
        interval upwards.
        """
        whole = self.bootstrap.sums[0, len(self.TERMS) :] / self.n
        return fraction_unexplained(
            _mean(sums, "error"), _mean(sums, "square"), sums[:, len(self.TERMS) :] / sums[:, :1], centre=whole
        )


def _mean(sums: Tensor, term: str) -> Tensor:
    return sums[:, ReconstructionSums.TERMS.index(term)] / sums[:, 0]


def fraction_unexplained(
    error: Float64[Tensor, "*batch"],
    square: Float64[Tensor, "*batch"],
    mean: Float64[Tensor, "*batch d"],
    *,
    centre: Float64[Tensor, " d"],
) -> Float64[Tensor, "*batch"]:
    """Return the FVU: squared error over variance, 0 for a perfect reconstruction and 1 for the mean of the data.

    All arguments are means over tokens: of the squared error, of the squared norm, and of the target. The variance is
    taken about `centre`. The training step (`saes.kernels.step`) divides by the variance of the recording instead, so
    that the scale of its loss does not depend on the batch.
    """
    variance = square - 2 * mean @ centre + centre.square().sum()
    return error / variance.clamp_min(1e-30)
