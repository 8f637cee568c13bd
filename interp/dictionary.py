"""Protocol of a sparse dictionary, all that `interp` knows of one. SAEs and the neurons of an MLP layer satisfy it."""

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class SparseActs(NamedTuple):
    """Active features per row: `values[i, j]` is the activation of feature `indices[i, j]` on row `i`.

    Padding is a value of exactly 0 (its index is then meaningless). Activations are >= 0.
    """

    values: Tensor
    """`[n_rows, k_max]`, float."""
    indices: Tensor
    """`[n_rows, k_max]`, int32 or int64."""


@runtime_checkable
class Dictionary(Protocol):
    """`d_sae` features of the activations at one hook point."""

    d_in: int
    d_sae: int
    hook_point: str

    @property
    def decoder_directions(self) -> Tensor:
        """`[d_sae, d_out]`: the vector that one unit of each latent adds to the reconstruction (not normalised)."""
        ...

    def encode(self, x: Tensor) -> Tensor:
        """Return feature activations, `[..., d_in] -> [..., d_sae]`: >= 0, mostly exactly 0."""
        ...

    def encode_sparse(self, x: Tensor) -> SparseActs:
        """Return the same activations of `[n_rows, d_in]` as (values, indices)."""
        ...

    def decode(self, feature_acts: Tensor) -> Tensor:
        """Return the reconstruction, bias included: `[..., d_sae] -> [..., d_out]`."""
        ...
