"""Taking the training scale back out of the weights, so that a saved SAE eats activations as the model gives them.

Training sees `input * x - shift` and reconstructs `output * y`. With `f' = f / unit` the same reconstruction of `y`
from `x` comes from `W_enc' = W_enc * input / unit`, `b_enc' = (b_enc - shift @ W_enc) / unit`,
`W_dec' = W_dec * unit / output` and `b_dec' = b_dec / output`. An SAE has one scale for all three and no shift: `W_enc`
and `W_dec` stay as they are, decoder rows keep length 1 and activations are in the units of the model's. A threshold on
`f` is divided by `unit` as well.
"""

from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from interp.recording.store import Stats
from saes.kernels.state import TrainState
from saes.kinds.base import Weights


class Scales(NamedTuple):
    """What training multiplied by."""

    input: Tensor
    """`[d_in]` float64"""
    output: Tensor
    """`[d_out]` float64"""
    unit: float
    """one unit of a saved activation in training units"""
    shift: Tensor | None = None
    """`[d_in]` float64, taken from the scaled input; None where `b_dec` is subtracted from it anyway"""


def input_scale(stats: Stats) -> float:
    """Brings the mean norm of a row to `sqrt(d)`."""
    return sqrt(len(stats.mean)) / stats.mean_norm


def same_scale(scale: float, d: int) -> Scales:
    """The scales of an SAE that reconstructs its own input."""
    each = torch.full((d,), scale, dtype=torch.float64)
    return Scales(each, each, scale)


def fold(state: TrainState, scales: Scales) -> Weights:
    """The weights for unscaled input, `W_enc` as `[d_in, d_sae]`."""
    W_enc, W_dec, b_enc = state.W_enc.T.contiguous(), state.W_dec.clone(), state.b_enc
    if scales.shift is not None:
        b_enc = b_enc - scales.shift.to(W_enc.dtype) @ W_enc
    return Weights(
        W_enc=W_enc * (scales.input / scales.unit).to(W_enc.dtype)[:, None],
        b_enc=b_enc / scales.unit,
        W_dec=W_dec * (scales.unit / scales.output).to(W_dec.dtype),
        b_dec=state.b_dec / scales.output.to(state.b_dec.dtype),
    )
