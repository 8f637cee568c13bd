"""Recovery of a known dictionary: scores of an SAE against the true features, which reconstruction error cannot give.

Latents and true features are matched one to one so that the sum of `|cos|` between decoder rows and true directions is
largest (the Hungarian method). Each latent is then scored as a detector of its matched feature: it predicts "on" where
it is active. Features without a latent count as 0, so that a small dictionary cannot score well on a few. Where two
features may have opposite directions (`SyntheticData.signed`), the cosine replaces `|cos|` throughout.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from interp.dictionary import Dictionary
from interp.errors import MismatchError
from interp.results import Result
from interp.runtime import make_generator
from interp.statistics import Interval, t_interval
from saes.evaluation.matching import Match, best_match, unit
from saes.evaluation.synthetic import SyntheticData
from saes.kinds.base import SAE

FOUND = 0.5
"""Smallest F1 with which a true feature counts as found."""


@dataclass(frozen=True, kw_only=True)
class Recovery(Result):
    """Scores of an SAE against the true features, over `n_rows` fresh rows.

    The two L0 are per row; all other scores are shares or ratios.
    """

    n_rows: int
    mcc: float
    """Mean `|cos|` over matched pairs: 1 is full recovery. A random dictionary scores `mcc_random`, not 0."""
    mcc_random: float
    """The same for as many random unit rows: the null."""
    mmcs: float
    """Mean over true features of the largest `|cos|` to any latent (Sharkey et al. 2022): latents may be reused."""
    uniqueness: float
    """Distinct nearest features (by `|cos|`) over latents, or over features where those are fewer: 1 when every latent
    has a nearest feature of its own."""
    precision: float
    """Mean over true features of the share of the latent's active rows on which the feature is on."""
    recall: float
    """Mean over true features of the share of the feature's rows on which its latent is active."""
    f1: float
    """Mean over true features of the harmonic mean of precision and recall."""
    found: float
    """Share of true features whose F1 is at least `FOUND`."""
    true_l0: float
    """True features per row."""
    l0: float
    """Active latents per row; above `true_l0` features are split or noise is fitted, below it features are missed."""
    shrinkage: float
    """Sum over active latents of their contribution along their features, over the sum of true strengths there: 1 is
    unbiased, below 1 the latents are too weak."""
    dead: float
    """Share of latents that never fire."""
    fvu: float
    """Fraction of variance unexplained, `E|x - x_hat|^2 / E|x - E x|^2`: 0 is perfect, 1 no better than the mean."""

    def headline(self) -> str:
        """Report the match and its null."""
        return f"Recovery of known features: MCC {self.mcc:.2f} (random directions {self.mcc_random:.2f})"


@torch.no_grad()
def measure_recovery(
    dictionary: Dictionary, data: SyntheticData, *, n_rows: int = 16_384, batch_size: int = 4096, seed: int = 0
) -> Recovery:
    """Score `dictionary` against the true features, on fresh rows from a separate stream (by `seed`).

    Raises `MismatchError` when its width is not that of the data.
    """
    directions = dictionary.decoder_directions.detach().float().cpu()
    if dictionary.d_in != data.config.d or directions.shape[1] != data.config.d:
        raise MismatchError(
            f"the data have width {data.config.d}, the dictionary reads {dictionary.d_in} and writes "
            f"{directions.shape[1]}; measure it on the data that it was trained on"
        )
    match = best_match(directions, data.directions, absolute=not data.signed)
    counts = _Counts(dictionary, data, directions, match)
    batches, left = data.batches(batch_size, seed=-1 - seed), n_rows  # recordings use seeds from 0 up
    while left > 0:
        rows = next(batches)
        counts.add(rows.x[:left], rows.strengths[:left])
        left -= batch_size
    cosines = unit(directions) @ data.directions.T
    cosines = cosines if data.signed else cosines.abs()
    random = torch.randn(directions.shape, generator=make_generator(seed, "recovery", "random dictionary"))
    return Recovery(
        n_rows=n_rows,
        mcc=float(match.cosines.mean()),
        mcc_random=float(best_match(random, data.directions, absolute=not data.signed).cosines.mean()),
        mmcs=float(cosines.amax(0).mean()),
        uniqueness=len(cosines.argmax(1).unique()) / min(cosines.shape),
        **counts.result(),
    )


def over_seeds(found: Sequence[Recovery]) -> dict[str, Interval]:
    """Return every score as mean and 95 % interval over runs with different seeds; one run has an infinite interval.

    Differences between two kinds of SAE that lie within these intervals are noise.
    """
    scores = [asdict(each) for each in found]
    names = [name for name in scores[0] if name != "n_rows"]
    found = t_interval(np.array([[score[name] for score in scores] for name in names]))
    return {name: found.at(i) for i, name in enumerate(names)}


class _Counts:
    """Sums over rows of the counts behind `Recovery`, in float64."""

    def __init__(self, dictionary: Dictionary, data: SyntheticData, directions: Tensor, match: Match):
        self.dictionary, self.match = dictionary, match
        self.along = (directions[match.rows] * data.directions[match.columns]).sum(1)
        """contribution of one unit of a matched latent along its feature"""
        n, d_sae = data.config.n_features, dictionary.d_sae
        self.hits, self.active, self.on = (torch.zeros(n, dtype=torch.float64) for _ in range(3))
        self.fired = torch.zeros(d_sae, dtype=torch.float64)
        self.sum = torch.zeros(data.config.d, dtype=torch.float64)
        self.error = self.square = self.contributed = self.true = 0.0
        self.n = 0

    def add(self, x: Tensor, strengths: Tensor) -> None:
        acts = self.dictionary.encode(x)
        recons = self.dictionary.decode(acts)
        if isinstance(self.dictionary, SAE):  # some kinds add terms without latents, for example a skip connection
            recons = self.dictionary.complete(recons, x)
        recons = recons.double()
        self.fired += (acts > 0).sum(0).double()
        latents, features = acts[:, self.match.rows], strengths[:, self.match.columns]
        both = (latents > 0) & (features > 0)
        self.hits[self.match.columns] += both.sum(0).double()
        self.active[self.match.columns] += (latents > 0).sum(0).double()
        self.on += (strengths > 0).sum(0).double()
        self.contributed += float((latents * self.along * both).double().sum())
        self.true += float((features * both).double().sum())
        x = x.double()
        self.error += float((x - recons).square().sum())
        self.square += float(x.square().sum())
        self.sum += x.sum(0)
        self.n += len(x)

    def result(self) -> dict[str, float]:
        variance = self.square - float(self.sum.square().sum()) / self.n
        f1 = 2 * self.hits / (self.active + self.on).clamp_min(1)
        return {
            "precision": float((self.hits / self.active.clamp_min(1)).mean()),
            "recall": float((self.hits / self.on.clamp_min(1)).mean()),
            "f1": float(f1.mean()),
            "found": float((f1 >= FOUND).double().mean()),
            "true_l0": float(self.on.sum() / self.n),
            "l0": float(self.fired.sum() / self.n),
            "shrinkage": self.contributed / self.true if self.true else float("nan"),
            "dead": float((self.fired == 0).double().mean()),
            "fvu": self.error / max(variance, 1e-30),
        }
