"""Matryoshka BatchTopK: nested dictionaries in one (Bussmann et al. 2025, arXiv 2503.17547).

Latents are selected as in BatchTopK, over the whole dictionary. Then each prefix of it (the first `m_1`, the first
`m_2`, ... all of them) has to reconstruct the input with its own active latents, so that early latents keep the general
features that later ones would otherwise absorb. The loss is the MEAN over prefixes of their FVU (dictionary_learning
takes the mean as well, SAELens and the paper the sum: the same up to a factor, and the mean leaves the weight of AuxK
and the clipping as they are for other kinds). AuxK works on the error of the whole.

The step pays for one pass over the active latents whatever the number of prefixes: a row's entries lie by rising
latent, so each prefix's reconstruction goes on from the one before. Narrow inner prefixes make latents mix features
that would be apart in a wider one ("feature hedging", 2505.11756): keep the first prefix above the L0.
Used afterwards as one JumpReLU over all latents.
"""

from saes.kinds.batchtopk import BatchTopKRecipe
from saes.training.config import MatryoshkaConfig


def matryoshka_recipe(config: MatryoshkaConfig) -> BatchTopKRecipe:
    """BatchTopK with nested prefixes."""
    return BatchTopKRecipe(config, ends=prefix_ends(config))


def prefix_ends(config: MatryoshkaConfig) -> tuple[int, ...]:
    """Ends of the prefixes, rising; the last is `d_sae`."""
    ends = {max(1, round(share * config.d_sae)) for share in config.prefixes}
    return tuple(sorted({*ends, config.d_sae}))
