"""Model comparison by a crosscoder: latents that only one of two models has.

The measures are those of Lindsey et al. 2024 and Minder et al. 2025 (arXiv 2504.02922). A latent of a crosscoder has
one decoder row per model. Its *relative norm* is the second row's share of the sum of their norms: 0 for a latent of
the first model only, 0.5 for a shared latent, 1 for a latent of the second model only.
Training can drive the relative norm of a shared latent to 0 or 1 in two ways, and *latent scaling* detects both. Take a
latent of one model only, with activations `f` and decoder row `d` there. The least-squares scale of `f d` for a target
`y` is `beta(y) = sum f <d, y> / sum f^2 |d|^2`.

- *Shrinkage.* The other model has the feature too, but its decoder row was shrunk to zero, so the feature remains in
  the other model's reconstruction error.
  `error_ratio = beta(error of the other) / beta(error of its own + f d)`: 0 for a latent of one model, 1 an artefact.
- *Decoupling.* The other model has the feature through another latent that fires on the same tokens.
  `recons_ratio = beta(reconstruction of the other) / beta(reconstruction of its own)`: 0 and 1 mean the same.

Latents below both `MAX_ERROR_RATIO` and `MAX_RECONS_RATIO` are `confirmed`. Everything is measured in training units,
in which both models have the same mean norm, and without `b_dec`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from interp.artifacts import Table
from interp.errors import ConfigError, MismatchError
from interp.progress import Progress
from interp.recording.store import Recording, Split
from saes.evaluation.latent_comparison import (
    MIN_FIRED,
    ONLY,
    ComparedLatent,
    LatentComparison,
    LatentSettings,
    is_decoupled,
    is_shrunk,
    kind_of,
)
from saes.kinds.crosscoder import CrosscoderSAE
from saes.training.data import RowSource, SourceRows

if TYPE_CHECKING:
    import pyarrow as pa


@torch.no_grad()
def compare_models(
    crosscoder: CrosscoderSAE,
    recordings: Sequence[Recording],
    *,
    name: str = "",
    split: Split = "heldout",
    heldout_fraction: float = 0.1,
    batch_size: int = 4096,
    progress: Progress | None = None,
) -> LatentComparison:
    """Classify the latents of a crosscoder, on recordings of the same tokens by the two models it was trained on.

    `name` is the artefact of the crosscoder; it is stored with the result.

    Raises `ConfigError` for a crosscoder that does not read two sites, or without tokens in the split. Raises
    `MismatchError` for recordings of other models or widths.
    """
    source = _open(crosscoder, recordings)
    norms = crosscoder.decoder_norms()
    relative = (norms[:, 1] / norms.sum(1).clamp_min(1e-12)).cpu()
    sums = _Scaling(crosscoder, relative)
    for rows in source.sequential(batch_size=batch_size, split=split, heldout_fraction=heldout_fraction):
        if len(rows.rows):
            sums.add(rows)
            if progress:
                progress(int(rows.rows[-1]) + 1, source.recording.n_rows, {})
    if not sums.n_tokens:
        raise ConfigError(f"{source.recording.folder} has no tokens in its {split!r} split; record more documents")
    same_width = crosscoder.widths[0] == crosscoder.widths[1]
    cosine = crosscoder.decoder_cosines()[:, 0, 1] if same_width else torch.full((crosscoder.d_sae,), torch.nan)
    settings = LatentSettings(
        crosscoder=name,
        first=_name(crosscoder, 0),
        second=_name(crosscoder, 1),
        recordings=tuple(recording.folder.name for recording in recordings),
        split=split,
        heldout_fraction=heldout_fraction,
    )
    latents = latent_table(relative, cosine.cpu(), sums.fired, *sums.ratios())
    return LatentComparison(settings=settings, n_tokens=sums.n_tokens, latents=latents)


def latent_table(
    relative_norm: Float[Tensor, " d_sae"],
    cosine: Float[Tensor, " d_sae"],
    n_fired: Int64[Tensor, " d_sae"],
    error_ratio: Float[Tensor, " d_sae"],
    recons_ratio: Float[Tensor, " d_sae"],
) -> Table[ComparedLatent]:
    """Return one row per latent: its measures, and the class and verdict that follow from them."""
    import pyarrow as pa

    def numbers(values: Tensor) -> "pa.Array":
        return pa.array(values.double().numpy(), pa.float64(), from_pandas=True)

    error, recons = error_ratio.numpy(), recons_ratio.numpy()
    columns = {
        "latent": np.arange(len(n_fired)),
        "kind": [kind_of(r, n) for r, n in zip(relative_norm.tolist(), n_fired.tolist(), strict=True)],
        "relative_norm": numbers(relative_norm),
        "cosine": numbers(cosine),
        "n_fired": n_fired.numpy(),
        "error_ratio": numbers(error_ratio),
        "recons_ratio": numbers(recons_ratio),
        "confirmed": np.isfinite(error) & ~is_shrunk(error) & ~is_decoupled(recons),
    }
    return Table.of_columns(ComparedLatent, columns)


class _Scaling:
    """Sums over tokens for the latent scaling of latents of one model only, in float64."""

    def __init__(self, crosscoder: CrosscoderSAE, relative: Tensor):
        self.crosscoder, self.n_tokens = crosscoder, 0
        self.decoders = [
            block.detach() * scale
            for block, scale in zip(crosscoder.W_dec.split(crosscoder.widths, 1), crosscoder.scales, strict=True)
        ]
        self.own = torch.where(relative >= 1 - ONLY, 1, torch.where(relative <= ONLY, 0, -1))
        if crosscoder.widths[0] != crosscoder.widths[1]:
            self.own.fill_(-1)  # directions of one space have no counterpart in a space of another width
        self.fired = torch.zeros(crosscoder.d_sae, dtype=torch.int64)
        # per latent <f d, target> for: the other's error, its own error + f d, the other's and its own reconstruction
        self.sums = torch.zeros(4, crosscoder.d_sae, dtype=torch.float64)

    def add(self, rows: SourceRows) -> None:
        x = rows.x.to(self.crosscoder.device)
        acts = self.crosscoder.encode_sparse(x)
        row, slot = acts.values.nonzero(as_tuple=True)
        latent, value = acts.indices[row, slot].long(), acts.values[row, slot]
        self.n_tokens += len(x)
        self.fired += torch.bincount(latent.cpu(), minlength=len(self.fired))
        values = x.split(self.crosscoder.widths, 1)
        biases = self.crosscoder.b_dec.split(self.crosscoder.widths)
        recons, errors = [], []
        for site, scale in enumerate(self.crosscoder.scales):
            written = torch.zeros_like(values[site], dtype=torch.float32)
            for part in _parts(len(row)):
                written.index_add_(0, row[part], self.decoders[site][latent[part]] * value[part, None])
            recons.append(written)
            errors.append((values[site].float() - biases[site]) * scale - written)
        for owner in (0, 1):
            self._add(owner, row, latent, value, recons, errors)

    def _add(
        self, owner: int, row: Tensor, latent: Tensor, value: Tensor, recons: list[Tensor], errors: list[Tensor]
    ) -> None:
        owned = self.own.to(latent.device)[latent] == owner
        row, latent, value = row[owned], latent[owned], value[owned]
        for part in _parts(len(row)):
            written = self.decoders[owner][latent[part]] * value[part, None]
            targets = (errors[1 - owner], errors[owner], recons[1 - owner], recons[owner])
            for i, target in enumerate(targets):
                at = target[row[part]] + written if i == 1 else target[row[part]]
                along = torch.linalg.vecdot(written, at).cpu().double()
                self.sums[i].index_add_(0, latent[part].cpu(), along)

    def ratios(self) -> tuple[Tensor, Tensor]:
        """Return the error ratios and the reconstruction ratios; the common denominator of the scales cancels."""
        judged = (self.own >= 0) & (self.fired >= MIN_FIRED)
        missing = torch.full_like(self.sums[0], torch.nan)
        return (
            torch.where(judged, self.sums[0] / self.sums[1], missing),
            torch.where(judged, self.sums[2] / self.sums[3], missing),
        )


def _open(crosscoder: CrosscoderSAE, recordings: Sequence[Recording]) -> RowSource:
    if len(crosscoder.sites) != 2 or len(recordings) != 2:
        raise ConfigError(
            f"a model comparison needs a crosscoder of two sites and two recordings; this one has "
            f"{len(crosscoder.sites)} sites, and {len(recordings)} recordings were given"
        )
    source = RowSource(recordings, crosscoder.hook_points)
    if source.widths != crosscoder.widths:
        raise MismatchError(
            f"the recordings have widths {source.widths}, the crosscoder reads {crosscoder.widths}; give those that it "
            "was trained on"
        )
    for site, recording in zip(crosscoder.sites, recordings, strict=True):
        if site["weight_hash"] and site["weight_hash"] != recording.weight_hash:
            raise MismatchError(
                f"{recording.folder} holds activations of {recording.model}, the crosscoder was trained on "
                f"{site['model']} with other weights; give the recordings in the order of training"
            )
    return source


def _name(crosscoder: CrosscoderSAE, site: int) -> str:
    """Return the name of a site's model, or of its recording where both models have the same name."""
    names = [source["model"] for source in crosscoder.sites]
    return str(names[site] if names[0] != names[1] else crosscoder.sites[site]["recording"])


def _parts(n: int) -> list[slice]:
    return [slice(start, start + (1 << 15)) for start in range(0, n, 1 << 15)]
