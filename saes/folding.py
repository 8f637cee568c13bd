"""Taking the training scale back out of the weights, so that a saved SAE eats activations as the model gives them.

Training sees `scale * x`. With `f' = f / scale` the same reconstruction of `x` comes from
`W_enc' = W_enc`, `b_enc' = b_enc / scale`, `W_dec' = W_dec`, `b_dec' = b_dec / scale`: decoder rows keep length 1 and
activations are in the units of the model's activations. A threshold on `f` is divided by `scale` as well.
"""

from math import sqrt

from interp.recording.store import Stats
from saes.kernels.state import TrainState
from saes.kinds.base import Weights


def input_scale(stats: Stats) -> float:
    """Brings the mean norm of a row to `sqrt(d)`."""
    return sqrt(len(stats.mean)) / stats.mean_norm


def fold(state: TrainState, scale: float) -> Weights:
    """The weights for unscaled input, `W_enc` as `[d_in, d_sae]`."""
    return Weights(
        W_enc=state.W_enc.T.contiguous(),
        b_enc=state.b_enc / scale,
        W_dec=state.W_dec.clone(),
        b_dec=state.b_dec / scale,
    )
