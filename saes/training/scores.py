"""Scores of a dictionary on held-out rows (`saes.training.reconstruction` measures them). Torch-free."""

from dataclasses import dataclass, field

import numpy as np

from interp.forms import Measured
from interp.results import Result
from interp.statistics import Ends

DENSITY_EDGES = tuple(float(edge) for edge in np.linspace(-6, 0, 25))
"""Edges of the bins of the density histogram: `log10` of the share of tokens on which a latent fires."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction(Result):
    """Reconstruction and sparsity over `n_tokens` tokens."""

    n_tokens: int
    l0: float
    """Mean number of active latents per token."""
    fvu: float
    """Variance unexplained, `E|x - x_hat|^2 / (E|x|^2 - |E x|^2)`: 0 is perfect, 1 no better than the mean."""
    dead_fraction: float
    """Share of latents that never fire on these tokens."""
    dense_fraction: float
    """Share of latents that fire on more than a tenth of these tokens."""
    l2_ratio: float
    """`mean |x_hat| / |x|`: 1 is unbiased, below 1 is shrinkage."""
    relative_bias: Measured
    """`E|x_hat|^2 / E[x . x_hat]`: 1 is unbiased, below 1 is shrinkage (2404.16014, equation 10); NaN where `x_hat` is
    always 0."""
    cosine: float
    """Mean cosine between `x` and `x_hat`: 1 is perfect."""
    n_documents: int = 0
    """Documents that these tokens come from: the observations that the intervals resample."""
    intervals: dict[str, Ends] = field(default_factory=dict)
    """`score -> (low, high)`, 95 %, over documents; empty with fewer than `statistics.MIN_DOCUMENTS`. Dead and dense
    fractions have no interval, since a resample always lacks documents on which rare latents fire."""
    density_edges: tuple[float, ...] = DENSITY_EDGES
    """Edges of the bins of `density_counts`."""
    density_counts: tuple[int, ...] = ()
    """Latents per bin of `log10(share of tokens)`; those rarer than the first edge are in the first bin. Dead latents
    are in no bin, so the counts add up to `d_sae * (1 - dead_fraction)`."""

    def headline(self) -> str:
        """Report the amount of text."""
        return f"Reconstruction on {self.n_tokens:,} tokens of {self.n_documents:,} documents"


@dataclass(frozen=True, kw_only=True)
class ProseScores:
    """L0 and FVU on the doctor's own prose, as measured when a dictionary was trained or imported."""

    l0: float
    fvu: float
    tokens_hash: str
    """Hash of the tokens: scores on another text are not compared."""
