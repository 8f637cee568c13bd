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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from interp.errors import ConfigError, MismatchError
from interp.progress import Progress
from interp.recording.store import Recording, Split
from interp.results import Record, Result
from saes.kinds.crosscoder import CrosscoderSAE
from saes.training.data import Rows, Source

if TYPE_CHECKING:
    import pyarrow as pa

ONLY, SHARED = 0.1, (0.3, 0.7)
"""Bounds of the relative norm: up to `ONLY` first model only, from `1 - ONLY` second only, within `SHARED` shared."""
MAX_ERROR_RATIO, MAX_RECONS_RATIO = 0.2, 0.5
"""Ratios from which a latent counts as shrunk, and as decoupled."""
MIN_FIRED = 10
"""Smallest number of tokens with an active latent for which it is classified; below, it is `rare`."""

Kind = Literal["first only", "second only", "shared", "between", "rare"]
KINDS: tuple[Kind, ...] = ("first only", "second only", "shared", "between", "rare")


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelDifference(Result):
    """Measures of every latent of a crosscoder of two models, `[d_sae]` each."""

    first: str
    """name of the first model"""
    second: str
    """name of the second model"""
    n_tokens: int
    relative_norm: Float[Tensor, " d_sae"]
    """0: it writes to the first model only, 1: to the second only"""
    cosine: Float[Tensor, " d_sae"]
    """cosine of its two decoder rows; meaningful for shared latents only"""
    n_fired: Int64[Tensor, " d_sae"]
    """tokens on which it is active, int64"""
    error_ratio: Float[Tensor, " d_sae"]
    """shrinkage, for latents of one model only: 0 none, 1 an artefact; NaN for others"""
    recons_ratio: Float[Tensor, " d_sae"]
    """decoupling, for latents of one model only: 0 none, 1 an artefact; NaN for others"""

    @property
    def kinds(self) -> list[Kind]:
        """Class of each latent by its norms alone; `rare` where it fired on fewer than `MIN_FIRED` tokens."""
        return [_kind(r, n) for r, n in zip(self.relative_norm.tolist(), self.n_fired.tolist(), strict=True)]

    @property
    def shrunk(self) -> Bool[Tensor, " d_sae"]:
        """Mask `[d_sae]` of latents of one model by norm that the other model's reconstruction error contains."""
        return self.error_ratio.abs() >= MAX_ERROR_RATIO

    @property
    def decoupled(self) -> Bool[Tensor, " d_sae"]:
        """Mask `[d_sae]` of latents of one model by norm that other latents write into the other model."""
        return self.recons_ratio.abs() >= MAX_RECONS_RATIO

    @property
    def confirmed(self) -> Bool[Tensor, " d_sae"]:
        """Mask `[d_sae]` of latents of one model by norm that are neither shrunk nor decoupled."""
        return self.error_ratio.isfinite() & ~self.shrunk & ~self.decoupled

    def latents(self, kind: Kind, *, confirmed: bool = False) -> list[int]:
        """Return the latents of a kind, the most often active first.

        With `confirmed`, only those confirmed by latent scaling.
        """
        known = self.confirmed.tolist()
        chosen = [i for i, each in enumerate(self.kinds) if each == kind and (known[i] or not confirmed)]
        return sorted(chosen, key=lambda i: -int(self.n_fired[i]))

    def summary(self) -> dict[str, Any]:
        """Return the names of the models and counts of latents by kind."""
        kinds = self.kinds
        own = [i for i, kind in enumerate(kinds) if kind in ("first only", "second only")]
        return {
            "first": self.first,
            "second": self.second,
            "n_tokens": self.n_tokens,
            "n_latents": len(kinds),
            **{kind.replace(" ", "_"): kinds.count(kind) for kind in KINDS},
            "first_only_confirmed": len(self.latents("first only", confirmed=True)),
            "second_only_confirmed": len(self.latents("second only", confirmed=True)),
            "shrunk": int(self.shrunk[own].sum()),
            "decoupled": int(self.decoupled[own].sum()),
        }

    def __str__(self) -> str:
        s = self.summary()
        return (
            f"{s['first_only_confirmed']} latents of {self.first} only (of {s['first_only']} by norm), "
            f"{s['second_only_confirmed']} of {self.second} only (of {s['second_only']}), {s['shared']} shared, "
            f"{s['between']} between, {s['rare']} that hardly fire; {s['shrunk']} shrunk, {s['decoupled']} decoupled"
        )

    def to_records(self) -> list[Record]:
        """Return one row per latent: `feature`, `kind`, the measures of this class, and `confirmed`."""
        names = ("relative_norm", "cosine", "n_fired", "error_ratio", "recons_ratio", "confirmed")
        columns = [getattr(self, name).tolist() for name in names]
        return [
            {"feature": i, "kind": kind} | dict(zip(names, row, strict=True))
            for i, (kind, *row) in enumerate(zip(self.kinds, *columns, strict=True))
        ]


@torch.no_grad()
def compare_models(
    crosscoder: CrosscoderSAE,
    recordings: Sequence[Recording],
    *,
    split: Split = "heldout",
    heldout_fraction: float = 0.1,
    batch_size: int = 4096,
    progress: Progress | None = None,
) -> ModelDifference:
    """Classify the latents of a crosscoder, on recordings of the same tokens by the two models it was trained on.

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
    error, recons = sums.ratios()
    return ModelDifference(
        first=_name(crosscoder, 0),
        second=_name(crosscoder, 1),
        n_tokens=sums.n_tokens,
        relative_norm=relative,
        cosine=cosine.cpu(),
        n_fired=sums.fired,
        error_ratio=error,
        recons_ratio=recons,
    )


def latent_table(found: ModelDifference) -> "pa.Table":
    """Return a table with one row per latent: its number as `latent`, else the columns of `to_records`."""
    import pyarrow as pa

    def numbers(values: Tensor) -> "pa.Array":
        return pa.array(values.double().numpy(), pa.float64(), from_pandas=True)

    return pa.table(
        {
            "latent": pa.array(range(len(found.n_fired)), pa.int32()),
            "kind": pa.array(found.kinds, pa.string()),
            "relative_norm": numbers(found.relative_norm),
            "cosine": numbers(found.cosine),
            "n_fired": pa.array(found.n_fired.numpy(), pa.int64()),
            "error_ratio": numbers(found.error_ratio),
            "recons_ratio": numbers(found.recons_ratio),
            "confirmed": pa.array(found.confirmed.tolist(), pa.bool_()),
        }
    )


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

    def add(self, rows: Rows) -> None:
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
        for own in (0, 1):
            self._add(own, row, latent, value, recons, errors)

    def _add(
        self, own: int, row: Tensor, latent: Tensor, value: Tensor, recons: list[Tensor], errors: list[Tensor]
    ) -> None:
        mine = self.own.to(latent.device)[latent] == own
        row, latent, value = row[mine], latent[mine], value[mine]
        for part in _parts(len(row)):
            written = self.decoders[own][latent[part]] * value[part, None]
            targets = (errors[1 - own], errors[own], recons[1 - own], recons[own])
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


def _open(crosscoder: CrosscoderSAE, recordings: Sequence[Recording]) -> Source:
    if len(crosscoder.sites) != 2 or len(recordings) != 2:
        raise ConfigError(
            f"a model comparison needs a crosscoder of two sites and two recordings; this one has "
            f"{len(crosscoder.sites)} sites, and {len(recordings)} recordings were given"
        )
    source = Source(recordings, crosscoder.hook_points)
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
    names = [each["model"] for each in crosscoder.sites]
    return str(names[site] if names[0] != names[1] else crosscoder.sites[site]["recording"])


def _kind(relative: float, fired: int) -> Kind:
    if fired < MIN_FIRED:
        return "rare"
    if relative <= ONLY:
        return "first only"
    if relative >= 1 - ONLY:
        return "second only"
    return "shared" if SHARED[0] <= relative <= SHARED[1] else "between"


def _parts(n: int) -> list[slice]:
    return [slice(start, start + (1 << 15)) for start in range(0, n, 1 << 15)]
