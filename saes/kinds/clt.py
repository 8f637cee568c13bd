"""Cross-layer transcoder (Ameisen et al. 2025, Circuit Tracing): each latent reads from one layer's residual stream and
writes to the MLP outputs of that layer and of all later ones. `saes.sets.cross_layer` trains one, and
`saes.weights.circuit_tracer` reads those of others; here one is applied.

    acts_i = act(x_i @ W_enc_i + b_enc_i)                       for layer i = 0 .. L - 1
    y_j = b_dec_j + sum over i <= j of acts_i @ W_dec_i[:, j - i]  [+ x_j @ W_skip_j]

`W_dec_i` is `[d_sae, L - i, d_model]`: the last layer writes to itself only. `W_skip_j` is `[d_in, d_out]`, the
transpose of a transcoder's.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saes.kinds.base import SAEMetadata


@final
class CrossLayerTranscoder(nn.Module):
    """All layers of one cross-layer transcoder; its weights have no gradients."""

    def __init__(
        self,
        W_enc: list[Float[Tensor, "d_in d_sae"]],
        b_enc: list[Float[Tensor, " d_sae"]],
        W_dec: list[Float[Tensor, "d_sae _ d_out"]],
        b_dec: list[Float[Tensor, " d_out"]],
        *,
        threshold: list[Float[Tensor, " d_sae"]] | None = None,
        W_skip: list[Float[Tensor, "d_in d_out"]] | None = None,
        metadata: SAEMetadata | None = None,
    ):
        """One entry per layer: `W_enc [d_in, d_sae]`, `W_dec [d_sae, L - i, d_out]`; ReLU without thresholds."""
        super().__init__()
        self.W_enc, self.b_enc, self.W_dec, self.b_dec = (_fixed(group) for group in (W_enc, b_enc, W_dec, b_dec))
        self.threshold = _fixed(threshold or [])
        self.W_skip = _fixed(W_skip or [])
        self.metadata = metadata or SAEMetadata()
        self.n_layers = len(W_enc)
        self.d_in, self.d_sae = W_enc[0].shape
        self.d_out = W_dec[0].shape[2]

    def __repr__(self) -> str:
        return f"CrossLayerTranscoder({self.n_layers} layers of {self.d_sae} latents, d_in={self.d_in})"

    def encode_layer(self, layer: int, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Return activations of the latents that read from `layer`: `[..., d_in] -> [..., d_sae]`."""
        pre = x @ self.W_enc[layer] + self.b_enc[layer]
        return pre.relu() * (pre > self.threshold[layer]) if len(self.threshold) else pre.relu()

    def encode(self, x: Float[Tensor, "n_layers *batch d_in"]) -> Float[Tensor, "n_layers *batch d_sae"]:
        """`[n_layers, ..., d_in] -> [n_layers, ..., d_sae]`."""
        return torch.stack([self.encode_layer(layer, x[layer]) for layer in range(self.n_layers)])

    def directions(self, source: int, target: int) -> Float[Tensor, "d_sae d_out"]:
        """`[d_sae, d_out]`: vectors that one unit of each latent of layer `source` adds at `target >= source`."""
        return self.W_dec[source][:, target - source]

    def decode(self, feature_acts: Float[Tensor, "n_layers *batch d_sae"]) -> Float[Tensor, "n_layers *batch d_out"]:
        """`[n_layers, ..., d_sae] -> [n_layers, ..., d_out]`, biases included, skip connections not."""
        out = []
        for target in range(self.n_layers):
            total = sum(feature_acts[source] @ self.directions(source, target) for source in range(target + 1))
            out.append(total + self.b_dec[target])
        return torch.stack(out)

    def forward(self, x: Float[Tensor, "n_layers *batch d_in"]) -> Float[Tensor, "n_layers *batch d_out"]:
        """Predict all MLP outputs from all MLP inputs: `[n_layers, ..., d_in] -> [n_layers, ..., d_out]`."""
        recons = self.decode(self.encode(x))
        if not len(self.W_skip):
            return recons
        return recons + torch.stack([x[layer] @ self.W_skip[layer] for layer in range(self.n_layers)])


def _fixed(tensors: list[Tensor]) -> nn.ParameterList:
    return nn.ParameterList([nn.Parameter(t, requires_grad=False) for t in tensors])
