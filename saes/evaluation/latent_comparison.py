"""Latents of a crosscoder of two models as an artefact: shared by both, or of one only.

`saes.evaluation.crosscoder_latents` measures them. Torch-free.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

from interp.artifacts import Artefact, Measured, Table
from interp.models.short_name import short_name
from interp.results import Record
from interp.view import Facts, View

ONLY, SHARED = 0.1, (0.3, 0.7)
"""Bounds of the relative norm: up to `ONLY` first model only, from `1 - ONLY` second only, within `SHARED` shared."""
MAX_ERROR_RATIO, MAX_RECONS_RATIO = 0.2, 0.5
"""Ratios from which a latent counts as shrunk, and as decoupled."""
MIN_FIRED = 10
"""Smallest number of tokens with an active latent for which it is classified; below, it is `rare`."""
MOST_USED = 10
"""Latents of one model only that are printed, of each model."""

Kind = Literal["first only", "second only", "shared", "between", "rare"]
KINDS: tuple[Kind, ...] = ("first only", "second only", "shared", "between", "rare")


@dataclass(frozen=True, kw_only=True)
class LatentSettings:
    """Settings that determine a comparison of two models by their crosscoder."""

    crosscoder: str
    """Name of its artefact; empty for one in memory."""
    first: str
    """Name of the first model."""
    second: str
    recordings: tuple[str, ...]
    split: str
    heldout_fraction: float


@dataclass(frozen=True, kw_only=True)
class ComparedLatent:
    """Measures of one latent."""

    latent: int
    kind: Kind
    """Its class by norms alone; `rare` where it fired on fewer than `MIN_FIRED` tokens."""
    relative_norm: float
    """0: it writes to the first model only, 1: to the second only"""
    cosine: Measured
    """cosine of its two decoder rows; meaningful for shared latents only"""
    n_fired: int
    """tokens on which it is active"""
    error_ratio: Measured
    """shrinkage, for latents of one model only: 0 none, 1 an artefact; NaN for others"""
    recons_ratio: Measured
    """decoupling, for latents of one model only: 0 none, 1 an artefact; NaN for others"""
    confirmed: bool
    """of one model by norm, and neither shrunk nor decoupled"""


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentComparison(Artefact, kind="latent_comparison", title="Crosscoder latents", made_by="compare latents"):
    """Measures of every latent of a crosscoder of two models."""

    settings: LatentSettings
    n_tokens: int
    latents: Table[ComparedLatent]
    """By number."""

    @property
    def first(self) -> str:
        """Name of the first model."""
        return self.settings.first

    @property
    def second(self) -> str:
        """Name of the second model."""
        return self.settings.second

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """All measures as arrays `[d_sae]`."""
        return self.latents.columns()

    @property
    def kinds(self) -> Shaped[np.ndarray, " d_sae"]:
        """Class of each latent by its norms alone."""
        return self.columns["kind"]

    @property
    def relative_norm(self) -> Float64[np.ndarray, " d_sae"]:
        """0: the latent writes to the first model only, 1: to the second only."""
        return self.columns["relative_norm"]

    @property
    def cosine(self) -> Float64[np.ndarray, " d_sae"]:
        """Cosine of the two decoder rows."""
        return self.columns["cosine"]

    @property
    def n_fired(self) -> Int64[np.ndarray, " d_sae"]:
        """Tokens on which a latent is active."""
        return self.columns["n_fired"]

    @property
    def error_ratio(self) -> Float64[np.ndarray, " d_sae"]:
        """Shrinkage of latents of one model; NaN for others."""
        return self.columns["error_ratio"]

    @property
    def recons_ratio(self) -> Float64[np.ndarray, " d_sae"]:
        """Decoupling of latents of one model; NaN for others."""
        return self.columns["recons_ratio"]

    @property
    def confirmed(self) -> Bool[np.ndarray, " d_sae"]:
        """True for latents of one model by norm that are neither shrunk nor decoupled."""
        return self.columns["confirmed"].astype(bool)

    @property
    def shrunk(self) -> Bool[np.ndarray, " d_sae"]:
        """True for latents of one model by norm that the other model's reconstruction error contains."""
        return is_shrunk(self.error_ratio)

    @property
    def decoupled(self) -> Bool[np.ndarray, " d_sae"]:
        """True for latents of one model by norm that other latents write into the other model."""
        return is_decoupled(self.recons_ratio)

    def of_kind(self, kind: Kind, *, confirmed: bool = False) -> list[int]:
        """Return the latents of a kind, the most often active first.

        With `confirmed`, only those confirmed by latent scaling.
        """
        chosen = np.flatnonzero((self.kinds == kind) & (self.confirmed | (not confirmed)))
        return chosen[np.argsort(-self.n_fired[chosen], kind="stable")].tolist()

    def own(self, limit: int) -> list[ComparedLatent]:
        """Return latents of one model only, confirmed ones first, then the most used."""
        where = "kind in ('first only', 'second only')"
        return self.latents.rows(where, order="confirmed desc, n_fired desc", limit=limit)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of latents by kind, of confirmed ones by model, of shrunk and of decoupled ones."""
        specific = np.isin(self.kinds, KINDS[:2])
        return {
            **{kind.replace(" ", "_"): int((self.kinds == kind).sum()) for kind in KINDS},
            **{
                f"{kind.replace(' ', '_')}_confirmed": int((self.confirmed & (self.kinds == kind)).sum())
                for kind in KINDS[:2]
            },
            "shrunk": int(self.shrunk[specific].sum()),
            "decoupled": int(self.decoupled[specific].sum()),
        }

    def view(self) -> View:
        s = self.counts
        yield (
            f"{s['first_only_confirmed']} latents of {short_name(self.first)} only, {s['second_only_confirmed']} of "
            f"{short_name(self.second)} only, {s['shared']} shared"
        )
        counts = {"tokens": self.n_tokens} | {kind: self.counts[kind.replace(" ", "_")] for kind in KINDS}
        yield Facts(*[(name, f"{count:,}") for name, count in counts.items()])
        yield (
            f"by norm {s['first_only']} of {self.first} only and {s['second_only']} of {self.second} only; "
            f"{s['between']} between, {s['rare']} that hardly fire; {s['shrunk']} shrunk, {s['decoupled']} decoupled"
        )
        names: dict[Kind, str] = {"second only": self.second, "first only": self.first}
        for kind, whose in names.items():
            for at in self.of_kind(kind, confirmed=True)[:MOST_USED]:
                row = {name: column[at] for name, column in self.columns.items()}
                yield (
                    f"latent {at:<6} of {whose} only: active on {row['n_fired']:,} tokens, relative norm "
                    f"{row['relative_norm']:.2f}, error and reconstruction ratio {row['error_ratio']:.2f} and "
                    f"{row['recons_ratio']:.2f}"
                )

    def __str__(self) -> str:
        return self.headline()

    def to_records(self) -> list[Record]:
        """Return one row per latent: `feature`, `kind`, the measures, and `confirmed`."""
        return [{"feature": row.pop("latent"), **row} for row in self.latents.arrow().to_pylist()]


def is_shrunk(error_ratio: Float64[np.ndarray, " d_sae"]) -> Bool[np.ndarray, " d_sae"]:
    """Return True where the other model's reconstruction error contains a latent; False for NaN."""
    return np.abs(error_ratio) >= MAX_ERROR_RATIO


def is_decoupled(recons_ratio: Float64[np.ndarray, " d_sae"]) -> Bool[np.ndarray, " d_sae"]:
    """Return True where other latents write a latent into the other model; False for NaN."""
    return np.abs(recons_ratio) >= MAX_RECONS_RATIO


def kind_of(relative_norm: float, n_fired: int) -> Kind:
    """Return the class of a latent by its norms."""
    if n_fired < MIN_FIRED:
        return "rare"
    if relative_norm <= ONLY:
        return "first only"
    if relative_norm >= 1 - ONLY:
        return "second only"
    return "shared" if SHARED[0] <= relative_norm <= SHARED[1] else "between"
