"""SAEs of activations that are normalised token by token, and whose reconstruction is scaled back.

`layer_norm`: `(x - mean) / (std + 1e-5)` over the coordinates of the token, std with `d_in - 1` in the denominator (Gao
et al. 2024; OpenAI's and SAELens' formula). `constant_norm_rescale`: `x * sqrt(d_in) / |x|`.

Feature activations and `decode` are in normalised units; `complete` puts the token's own scale and mean back.
"""

from typing import Any, ClassVar, Literal, NamedTuple, final

from torch import Tensor

from saes.kernels.state import Active, Ops
from saes.kinds.activations import Activation
from saes.kinds.base import SAE, SAEMetadata, Weights

TokenNorm = Literal["layer_norm", "constant_norm_rescale"]
TOKEN_NORMS: tuple[TokenNorm, ...] = ("layer_norm", "constant_norm_rescale")
EPSILON = 1e-5


class Scale(NamedTuple):
    """`x = normalised * size + centre`, both `[..., 1]`."""

    size: Tensor
    centre: Tensor


@final
class TokenNormSAE(SAE):
    """An SAE between a token's normalisation and its inverse."""

    subtracts_b_dec: ClassVar[bool] = True

    def __init__(
        self, weights: Weights, *, activation: Activation, norm: TokenNorm, metadata: SAEMetadata | None = None
    ):
        super().__init__(weights, metadata=metadata)
        self.activation, self.norm = activation, norm
        self.architecture = activation.architecture

    def scale(self, x: Tensor) -> Scale:
        """What the normalisation divides by and subtracts, `[..., d_in] -> [..., 1]` each."""
        if self.norm == "layer_norm":
            return Scale(x.std(-1, keepdim=True) + EPSILON, x.mean(-1, keepdim=True))
        size = x.norm(dim=-1, keepdim=True) / self.d_in**0.5
        return Scale(size, size.new_zeros(()).expand_as(size))

    def encoder_input(self, x: Tensor) -> Tensor:
        x = x.to(self.W_enc.dtype)
        scale = self.scale(x)
        return (x - scale.centre) / scale.size - self.b_dec

    def complete(self, recons: Tensor, x: Tensor) -> Tensor:
        size, centre = self.scale(x.to(self.W_dec.dtype))
        if self.norm == "layer_norm":  # as both tools do: the way back leaves epsilon out
            size = size - EPSILON
        return recons * size + centre

    def activate(self, pre: Tensor) -> Tensor:
        return self.activation(pre)

    def select(self, ops: Ops, pre: Tensor) -> Active:
        return self.activation.select(ops, pre)

    def extra_tensors(self) -> dict[str, Tensor]:
        return self.activation.tensors()

    def extra_config(self) -> dict[str, Any]:
        return {"normalize_activations": self.norm, **self.activation.settings()}
