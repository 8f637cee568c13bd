"""Transcoder: features of the value at one hook point that predict the value at another, usually an MLP's input and
output (Dunefsky et al. 2024, 2406.11944); with `W_skip` a linear part goes beside them (Paulo et al. 2025, 2501.18823).

`recons = act(x @ W_enc + b_enc) @ W_dec + b_dec [+ x @ W_skip.T]`. Nothing is subtracted from the input, since `b_dec`
is a value at the target. `metadata.hook_point` is the source, `metadata.hook_point_out` the target.
"""

from typing import Any, ClassVar, final

from torch import Tensor, nn

from saes.kernels.state import Active, Ops
from saes.kinds.activations import Activation, ReLU
from saes.kinds.base import SAE, SAEMetadata, Weights


@final
class Transcoder(SAE):
    """Features that read one place and write another. SAELens knows those with ReLU and JumpReLU."""

    subtracts_b_dec: ClassVar[bool] = False

    def __init__(
        self,
        weights: Weights,
        *,
        activation: Activation | None = None,
        W_skip: Tensor | None = None,
        metadata: SAEMetadata | None = None,
    ):
        """`weights.W_dec [d_sae, d_out]`, `weights.b_dec [d_out]`, `W_skip [d_out, d_in]`; ReLU unless told."""
        super().__init__(weights, metadata=metadata)
        self.activation = activation or ReLU()
        self.W_skip = None if W_skip is None else nn.Parameter(W_skip, requires_grad=False)
        self.architecture = transcoder_architecture(self.activation, skip=W_skip is not None)

    def activate(self, pre: Tensor) -> Tensor:
        return self.activation(pre)

    def select(self, ops: Ops, pre: Tensor) -> Active:
        return self.activation.select(ops, pre)

    def complete(self, recons: Tensor, x: Tensor) -> Tensor:
        return recons if self.W_skip is None else recons + x.to(self.W_skip.dtype) @ self.W_skip.T

    def extra_tensors(self) -> dict[str, Tensor]:
        skip = {} if self.W_skip is None else {"W_skip": self.W_skip}
        return {**self.activation.tensors(), **skip}

    def extra_config(self) -> dict[str, Any]:
        return {"d_out": self.d_out, **self.activation.settings()}


def transcoder_architecture(activation: Activation, *, skip: bool) -> str:
    """Its name on disk: `transcoder`, `skip_transcoder`, `jumprelu_transcoder`, `topk_skip_transcoder` ..."""
    before = {"standard": ""}.get(activation.architecture, activation.architecture + "_")
    return before + ("skip_transcoder" if skip else "transcoder")
