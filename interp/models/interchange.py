"""TransformerLens' interchange interventions on linear subspaces, for `interp.circuits.aligning`."""

from transformer_lens.tools.analysis.interchange import (
    Intervention,
    NormMatchedPlacebo,
    SubspaceInterchange,
    arbitrary_targets,
    fit_das,
    intervened_logits,
    mean_difference_basis,
    orthonormal_subspace,
    probe_basis,
    random_basis,
)

__all__ = [
    "Intervention",
    "NormMatchedPlacebo",
    "SubspaceInterchange",
    "arbitrary_targets",
    "fit_das",
    "intervened_logits",
    "mean_difference_basis",
    "orthonormal_subspace",
    "probe_basis",
    "random_basis",
]
