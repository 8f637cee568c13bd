"""Matryoshka BatchTopK: nested dictionaries in one (Bussmann et al. 2025, arXiv 2503.17547).

Latents are selected as in BatchTopK, over the whole dictionary. Each prefix of it (the first `m_1`, the first `m_2`,
... all of them) must then reconstruct the input with its own active latents. Early latents therefore retain the
general features that later ones would otherwise absorb. The loss is the MEAN over prefixes of their FVU, as in
dictionary_learning; SAELens and the paper take the sum. The two agree up to a factor, and with the mean the weight of
AuxK and gradient clipping are those of other kinds. AuxK works on the error of the full dictionary.

A step makes one pass over the active latents whatever the number of prefixes: a row's entries are sorted by latent, so
each prefix's reconstruction continues the one before. Narrow inner prefixes make latents mix features that a wider one
would separate ("feature hedging", 2505.11756): choose the first prefix above the L0. The trained dictionary is one
JumpReLU over all latents.
"""

from saes.kinds.batchtopk import BatchTopKRecipe
from saes.training.config import MatryoshkaConfig


def matryoshka_recipe(config: MatryoshkaConfig) -> BatchTopKRecipe:
    """Return the recipe of BatchTopK with nested prefixes."""
    return BatchTopKRecipe(config, ends=prefix_ends(config))


def prefix_ends(config: MatryoshkaConfig) -> tuple[int, ...]:
    """Return the ends of the prefixes, rising; the last is `d_sae`."""
    ends = {max(1, round(share * config.d_sae)) for share in config.prefixes}
    return tuple(sorted({*ends, config.d_sae}))
