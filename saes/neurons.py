"""The neurons of an MLP layer as a dictionary: what people look at first, and the baseline that an SAE must beat."""

import torch
from torch import Tensor

from interp.dictionary import SparseActs
from interp.errors import ConfigError, MismatchError
from interp.names import canonical_hook_point


class NeuronBasis:
    """Feature `i` is neuron `i`: its activation is the neuron's own value where that has the chosen sign, else 0.

    Reads `blocks.N.mlp.hook_post [.., d_mlp]`. Under `sign=-1` activations are the negated negative values and the
    directions are negated too, so that `decode` still adds what the neuron adds.
    """

    writes_to_residual = True
    """Its directions are in residual coordinates although its hook point is not."""

    def __init__(self, d_mlp: int, hook_point: str, W_out: Tensor, *, sign: int = 1):
        """`W_out [d_mlp, d_model]`: what each neuron writes per unit."""
        if sign not in (1, -1):
            raise ConfigError(f"sign must be 1 (positive activations) or -1 (negative ones), got {sign}")
        if W_out.ndim != 2 or len(W_out) != d_mlp:
            raise MismatchError(f"W_out must be [d_mlp={d_mlp}, d_model], got {list(W_out.shape)}")
        self.d_in = self.d_sae = d_mlp
        self.hook_point = canonical_hook_point(hook_point)
        self.sign = sign
        self._directions = W_out.detach().float() * sign

    @property
    def decoder_directions(self) -> Tensor:
        """`[d_mlp, d_model]`: the neuron's row of `W_out`, times the sign."""
        return self._directions

    def encode(self, x: Tensor) -> Tensor:
        """`[..., d_mlp]` -> the same shape: the part with the chosen sign, as values >= 0."""
        return torch.relu(x * self.sign)

    def encode_sparse(self, x: Tensor) -> SparseActs:
        """`[n, d_mlp]` -> every neuron with its own number; the inactive ones are the padding."""
        indices = torch.arange(self.d_sae, dtype=torch.int32).expand(len(x), -1)
        return SparseActs(self.encode(x), indices)

    def decode(self, feature_acts: Tensor) -> Tensor:
        """`[..., d_mlp] -> [..., d_model]`: the part of the MLP's output that these activations write."""
        return feature_acts @ self._directions


def neurons_of(model, hook_point: str, *, sign: int = 1) -> NeuronBasis:
    """The neurons of the MLP at `blocks.N.mlp.hook_post` of a loaded model."""
    from interp.names import parse_hook_point

    place = parse_hook_point(hook_point)
    if place.layer is None or place.suffix != "mlp.hook_post" or place.layer >= model.cfg.n_layers:
        raise ConfigError(
            f"neurons live at blocks.N.mlp.hook_post with N below {model.cfg.n_layers}, got {hook_point!r}"
        )
    W_out = model.blocks[place.layer].mlp.W_out
    return NeuronBasis(len(W_out), str(place), W_out, sign=sign)
