"""Composition: how much of what one head writes another head's weights read (Elhage et al. 2021).

With `A = W_OV` of the earlier head and `B` what the later one reads (row vectors, norms folded in),

    q   B = W_QK        k   B = W_QK^T        v   B = W_OV        score = ||A B|| / (||A|| ||B||)    (Frobenius)

0: nothing written is read; factors of random directions reach about `1 / sqrt(d_model)`; the largest value is 1.

The null. Trained matrices put much of their norm into few directions, so scores scatter far more than random matrices
would. The null keeps both matrices and turns one against the other by a random rotation (Haar): `||S_A R S_B||` with
S the singular values and R a `d_head` square block of the rotation. Only the spectra enter, so one sample of blocks
serves all pairs. A pair beats chance when its score lies above `null_high`, an upper bound at 5 % over all pairs of its
reader. Even so, real edges are best read off the *arg-max* sender of each reader: trained models share directions.

Weights are not behaviour: a norm's scale, positions and what is really in the stream are missing. Rotary heads:
`offset` says how far the key lies behind the query, for q and k; at 0 they are the weights alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.head_weights import Factored, HeadWeights
from interp.errors import ConfigError
from interp.models.residual import SIDES, Side
from interp.names import HeadName
from interp.runtime import make_generator

FAMILY_WISE = 0.05


@dataclass(frozen=True)
class Composition:
    """Scores of one side, all `[n_senders, n_readers]` float64; NaN where the sender is not in an earlier layer."""

    via: Side
    senders: tuple[HeadName, ...]
    readers: tuple[HeadName, ...]
    score: np.ndarray
    null_mean: np.ndarray
    null_high: np.ndarray
    """upper bound of the null at 5 % over all senders of a reader"""
    settings: dict[str, Any] = field(default_factory=dict)
    """baseline `1 / sqrt(d_model)`, n_null, seed, offset, rotary, folded norms"""

    def argmax(self) -> dict[HeadName, HeadName]:
        """Per reader the sender with the highest score."""
        return {
            reader: self.senders[int(np.nanargmax(self.score[:, i]))]
            for i, reader in enumerate(self.readers)
            if np.isfinite(self.score[:, i]).any()
        }

    def to_records(self) -> list[dict[str, Any]]:
        """`source, target, via, score, null_mean, null_high, is_argmax` of every pair."""
        best = self.argmax()
        return [
            {
                "source": str(sender),
                "target": str(reader),
                "via": self.via,
                "score": float(self.score[i, j]),
                "null_mean": float(self.null_mean[i, j]),
                "null_high": float(self.null_high[i, j]),
                "is_argmax": best[reader] == sender,
            }
            for j, reader in enumerate(self.readers)
            for i, sender in enumerate(self.senders)
            if np.isfinite(self.score[i, j])
        ]


@torch.no_grad()
def composition(
    model: Any,
    *,
    senders: Sequence[HeadName] | None = None,
    readers: Sequence[HeadName] | None = None,
    sides: Sequence[Side] = SIDES,
    offset: int = 0,
    n_null: int = 200,
    seed: int = 0,
    weights: HeadWeights | None = None,
) -> dict[Side, Composition]:
    """Composition of senders with readers in later layers, by default of all heads.

    `n_null` rotations are drawn for the null. Cost: products `d_head` wide for each pair; nothing `d_model` square.
    Raises `UnknownNameError` for heads that are not there, `ConfigError` when no sender comes before any reader.
    """
    weights = weights or HeadWeights(model)
    senders = tuple(senders if senders is not None else weights.residual.all_heads())
    readers = tuple(readers if readers is not None else weights.residual.all_heads())
    for head in (*senders, *readers):
        weights.residual.check_head(head)
    before = np.array([[sender.layer < reader.layer for reader in readers] for sender in senders]).reshape(
        len(senders), len(readers)
    )
    if not before.any():
        raise ConfigError("composition needs a sender in an earlier layer than a reader")
    blocks = haar_blocks(weights.shape.d_model, weights.shape.d_head, n_null, seed)
    written = [weights.ov(head) for head in senders]
    settings = {
        "baseline": weights.shape.d_model**-0.5,
        "n_null": n_null,
        "seed": seed,
        "offset": offset,
        "rotary": weights.is_rotary,
        "norms": "folded into what reads",
    }
    found: dict[Side, Composition] = {}
    for side in sides:
        read = [_reads(weights, head, side, offset) for head in readers]
        score, mean, high = _scores(written, read, before, blocks)
        found[side] = Composition(side, senders, readers, score, mean, high, settings)
    return found


def haar_blocks(d_model: int, d_head: int, n: int, seed: int) -> Tensor:
    """`[n, d_head, d_head]` float64: the overlap of two independent random `d_head`-dimensional frames.

    A corner of a Haar-random rotation of `d_model` dimensions.
    """
    if n < 2:
        raise ConfigError(f"a null needs at least 2 draws, got {n}")
    generator = make_generator(seed, "Haar rotations")
    blocks = []
    for _ in range(n):
        gaussian = torch.randn(d_model, d_head, generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(gaussian)
        blocks.append((q * r.diagonal().sign())[:d_head])
    return torch.stack(blocks)


def _reads(weights: HeadWeights, head: HeadName, side: Side, offset: int) -> Factored:
    if side == "v":
        return weights.ov(head)
    qk = weights.qk(head, offset=offset)
    return qk if side == "q" else qk.T


def _scores(
    written: list[Factored], read: list[Factored], before: np.ndarray, blocks: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, null means and null bounds `[n_senders, n_readers]`."""
    from scipy.stats import t

    score = np.full(before.shape, np.nan)
    for i, j in zip(*np.nonzero(before), strict=True):
        denominator = written[i].norm * read[j].norm
        score[i, j] = written[i].composed_norm(read[j]) / denominator if denominator else 0.0
    spectra_a, spectra_b = (torch.stack([f.singular_values.square() for f in side]) for side in (written, read))
    spectra_a, spectra_b = (s / s.sum(1, keepdim=True).clamp_min(1e-300) for s in (spectra_a, spectra_b))
    draws = torch.stack([(spectra_a @ block.square() @ spectra_b.T).sqrt() for block in blocks]).numpy()
    n_senders = np.maximum(before.sum(0), 1)
    quantile = t.ppf(1 - FAMILY_WISE / n_senders, len(blocks) - 1) * np.sqrt(1 + 1 / len(blocks))
    mean, high = draws.mean(0), draws.mean(0) + quantile[None] * draws.std(0, ddof=1)
    mean, high = (np.where(before, values, np.nan) for values in (mean, high))
    return score, mean, high
