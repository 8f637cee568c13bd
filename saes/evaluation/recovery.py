"""How much of a known dictionary an SAE has found: scores against the truth, which no reconstruction error replaces.

Latents and true features are matched one to one so that the sum of `|cos|` between decoder rows and true directions is
largest (the Hungarian method). A latent is then judged as a detector of the feature it was matched with: it says "on"
where it is active. Features left without a latent count as 0, so that a small dictionary cannot score well on a few.
Where features may lie opposite each other (`SyntheticData.signed`) the cosine itself stands for `|cos|` throughout.
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
"""F1 from which a true feature counts as found."""


@dataclass(frozen=True, kw_only=True)
class Recovery(Result):
    """An SAE against the truth over `n_rows` fresh rows. Counts are per row, everything else is a share or a ratio."""

    n_rows: int
    mcc: float
    """Mean `|cos|` over matched pairs: 1 is full recovery. A random dictionary has `mcc_random`, not 0."""
    mcc_random: float
    """The same of random unit rows, as many: what matching alone gives."""
    mmcs: float
    """Mean over true features of the largest `|cos|` to any latent (Sharkey et al. 2022): one latent may serve many."""
    uniqueness: float
    """Share of latents that are, by `|cos|`, nearest to a feature of their own: distinct nearest features over latents,
    or over features where those are fewer."""
    precision: float
    """Mean over true features: how often its latent is right when it is active."""
    recall: float
    """Mean over true features: how often its latent is active when the feature is on."""
    f1: float
    """Mean over true features of the harmonic mean of the two."""
    found: float
    """Share of true features whose F1 is at least `FOUND`."""
    true_l0: float
    l0: float
    """Active latents per row; above `true_l0` features are split or noise is fitted, below it features are missed."""
    shrinkage: float
    """Sum over active latents of what they add along their features, over the sum of true strengths there: 1 is
    unbiased, below 1 the latents are too weak."""
    dead: float
    """Share of latents that never fired."""
    fvu: float
    """`E|x - x_hat|^2 / E|x - E x|^2`."""

    def headline(self) -> str:
        """Give the match and its null."""
        return f"Recovery of known features: MCC {self.mcc:.2f} (random directions {self.mcc_random:.2f})"


@torch.no_grad()
def measure_recovery(
    dictionary: Dictionary, data: SyntheticData, *, n_rows: int = 16_384, batch_size: int = 4096, seed: int = 0
) -> Recovery:
    """Score `dictionary` on rows that it was not trained on (a stream of their own, by `seed`).

    Raises `MismatchError` when it reads another width than the data have.
    """
    directions = dictionary.decoder_directions.detach().float().cpu()
    if dictionary.d_in != data.config.d or directions.shape[1] != data.config.d:
        raise MismatchError(
            f"the data have width {data.config.d}, the dictionary reads {dictionary.d_in} and writes "
            f"{directions.shape[1]}; measure it on the data that it was trained on"
        )
    match = best_match(directions, data.directions, absolute=not data.signed)
    counts = _Counts(dictionary, data, directions, match)
    batches, left = data.batches(batch_size, seed=-1 - seed), n_rows  # recordings take seeds from 0 up
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
    """Every score as mean and 95 % interval over runs with different seeds; of one run the interval is infinite.

    Differences between two kinds that lie within these are noise.
    """
    scores = [asdict(each) for each in found]
    names = [name for name in scores[0] if name != "n_rows"]
    found = t_interval(np.array([[score[name] for score in scores] for name in names]))
    return {name: found.at(i) for i, name in enumerate(names)}


class _Counts:
    """Sums over rows, in float64."""

    def __init__(self, dictionary: Dictionary, data: SyntheticData, directions: Tensor, match: Match):
        self.dictionary, self.match = dictionary, match
        self.along = (directions[match.rows] * data.directions[match.columns]).sum(1)
        """what one unit of a matched latent adds along its feature"""
        n, d_sae = data.config.n_features, dictionary.d_sae
        self.hits, self.active, self.on = (torch.zeros(n, dtype=torch.float64) for _ in range(3))
        self.fired = torch.zeros(d_sae, dtype=torch.float64)
        self.sum = torch.zeros(data.config.d, dtype=torch.float64)
        self.error = self.square = self.made = self.true = 0.0
        self.n = 0

    def add(self, x: Tensor, strengths: Tensor) -> None:
        acts = self.dictionary.encode(x)
        recons = self.dictionary.decode(acts)
        if isinstance(self.dictionary, SAE):  # what some kinds add past the features
            recons = self.dictionary.complete(recons, x)
        recons = recons.double()
        self.fired += (acts > 0).sum(0).double()
        mine, theirs = acts[:, self.match.rows], strengths[:, self.match.columns]
        both = (mine > 0) & (theirs > 0)
        self.hits[self.match.columns] += both.sum(0).double()
        self.active[self.match.columns] += (mine > 0).sum(0).double()
        self.on += (strengths > 0).sum(0).double()
        self.made += float((mine * self.along * both).double().sum())
        self.true += float((theirs * both).double().sum())
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
            "shrinkage": self.made / self.true if self.true else float("nan"),
            "dead": float((self.fired == 0).double().mean()),
            "fvu": self.error / max(variance, 1e-30),
        }
