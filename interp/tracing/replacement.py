"""Dictionaries that replace the MLPs of a model in an attribution graph, and MLP neurons as one of them.

A `Replacement` says which latents are active on the clean run, what each reads from the MLP's input, and what it
writes. `NoReplacement` has no latents: every MLP output is an error node, which is the floor of a prompt's scores.

Neurons need no training, so that every model has a graph. With its slope frozen a neuron is linear in its input:

    ungated  a = act(pre) = (act(pre) / pre) * (x @ W_in + b_in)
    gated    a = act(gate) * (x @ W_up + b_up)                      act(gate) frozen
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ConfigError
from interp.models.adapter import available_hook_points, run_with_cache
from interp.tracing.frozen import MLP_INPUT, MLP_OUTPUT, FrozenModel


class LayerLatents(NamedTuple):
    """Active latents of one layer, in order of position."""

    position: Int[Tensor, " n"]
    latent: Int[Tensor, " n"]
    activation: Float[Tensor, " n"]


class Replacement(Protocol):
    """Latents of every layer that replace the MLPs."""

    name: str
    cross_layer: bool
    """True when latents of a layer write to later layers too"""
    reads_point: str
    """hook point inside a block that encoders read, one of `frozen.READS`"""
    writes_point: str
    """hook point inside a block that is predicted, one of `frozen.WRITES`"""

    def prepare(self, frozen: FrozenModel) -> None:
        """Read the clean run. Raises `MismatchError` when the dictionary belongs to other weights."""
        ...

    def active(self, layer: int) -> LayerLatents:
        """Return the latents that are active on the clean run."""
        ...

    def reads(self, layer: int, active: LayerLatents) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, " n"]]:
        """Return each latent's direction in the MLP's input, and its bias: `activation = x . read + bias`."""
        ...

    def writes(self, layer: int, active: LayerLatents, target: int) -> Float[Tensor, "n d_model"]:
        """Return what one unit of each latent adds to the output of MLP `target`, before a post-norm."""
        ...

    def watch(self, layer: int) -> tuple[str, Callable[[Tensor], Float[Tensor, " n"]]]:
        """Return a hook point of a block, and what gives the activations of `active` for its value in another run."""
        ...

    def output_bias(self, layer: int) -> Float[Tensor, " d_model"] | None:
        """Return what is added to the output of MLP `layer` whatever is active; None for nothing."""
        ...

    def skip(self, layer: int) -> Float[Tensor, "d_model d_model"] | None:
        """Return the linear path from the MLP's input to its output, `x @ skip`; None for none."""
        ...

    def n_latents(self, layer: int) -> int:
        """Return the number of latents of a layer, active or not."""
        ...


@dataclass
class NoReplacement:
    """No latents at all: each MLP output is one error node."""

    name: str = "no latents"
    cross_layer: bool = False
    reads_point: str = MLP_INPUT
    writes_point: str = MLP_OUTPUT

    def prepare(self, frozen: FrozenModel) -> None:
        self._width, self._like = frozen.shape.d_model, frozen.embedding

    def active(self, layer: int) -> LayerLatents:
        none = torch.zeros(0, dtype=torch.long, device=self._like.device)
        return LayerLatents(none, none, self._like.new_zeros(0))

    def reads(self, layer: int, active: LayerLatents) -> tuple[Tensor, Tensor]:
        return self._like.new_zeros(0, self._width), self._like.new_zeros(0)

    def writes(self, layer: int, active: LayerLatents, target: int) -> Tensor:
        return self._like.new_zeros(0, self._width)

    def watch(self, layer: int) -> tuple[str, Callable[[Tensor], Tensor]]:
        return self.reads_point, lambda value: value.new_zeros(0)

    def output_bias(self, layer: int) -> Tensor | None:
        return None

    def skip(self, layer: int) -> Tensor | None:
        return None

    def n_latents(self, layer: int) -> int:
        return 0


class Neurons:
    """MLP neurons as latents: the `limit` largest by `|activation| * |output weights|`, over all layers and positions.

    The others of a layer and position are part of its error node. Raises `ConfigError` for models without MLPs whose
    weights TransformerLens shows (mixtures of experts).
    """

    cross_layer = False
    reads_point, writes_point = MLP_INPUT, MLP_OUTPUT

    def __init__(self, limit: int = 30_000):
        self.name, self.limit = "neurons", limit

    @torch.no_grad()
    def prepare(self, frozen: FrozenModel) -> None:
        model, n = frozen.model, frozen.shape.n_layers
        if frozen.shape.d_mlp is None:
            raise ConfigError(
                "this model has no MLPs, so it has no neurons; a graph of it holds tokens and logits only"
            )
        hook_points = available_hook_points(model)
        points = [f"blocks.{layer}.mlp.hook_post" for layer in range(n)]
        if not set(points) <= hook_points or not hasattr(model.blocks[0].mlp, "W_out"):
            raise ConfigError("the neurons of this model cannot be read; use a set of transcoders instead (--set)")
        _, cache = run_with_cache(model, frozen.tokens, points)
        values = {name: value[0].float() for name, value in cache.items()}
        self._weights = [_mlp_weights(block.mlp) for block in model.blocks]
        posts = [values[point] for point in points]
        self._slope = [_slope(posts[layer], self._weights[layer], frozen.blocks[layer].mlp_in) for layer in range(n)]
        sizes = torch.stack([posts[layer].abs() * self._weights[layer].out.norm(dim=1) for layer in range(n)])
        sizes[:, : frozen.skip_from] = 0
        self._chosen = _largest(sizes, self.limit)
        self._active = [_where(self._chosen[layer], posts[layer]) for layer in range(n)]

    def active(self, layer: int) -> LayerLatents:
        return self._active[layer]

    def reads(self, layer: int, active: LayerLatents) -> tuple[Tensor, Tensor]:
        weights = self._weights[layer]
        slope = self._slope[layer][active.position, active.latent]
        bias = slope * weights.bias[active.latent] if weights.bias is not None else torch.zeros_like(slope)
        return slope[:, None] * weights.into[active.latent], bias

    def writes(self, layer: int, active: LayerLatents, target: int) -> Tensor:
        return self._weights[layer].out[active.latent]

    def watch(self, layer: int) -> tuple[str, Callable[[Tensor], Tensor]]:
        position, latent, _ = self._active[layer]
        return "mlp.hook_post", lambda value: value[position, latent]

    def output_bias(self, layer: int) -> Tensor | None:
        return self._weights[layer].out_bias

    def skip(self, layer: int) -> Tensor | None:
        return None

    def n_latents(self, layer: int) -> int:
        return len(self._weights[layer].out)


class _MlpWeights(NamedTuple):
    into: Float[Tensor, "d_mlp d_model"]
    """of the linear branch, for gated MLPs"""
    bias: Float[Tensor, " d_mlp"] | None
    out: Float[Tensor, "d_mlp d_model"]
    out_bias: Float[Tensor, " d_model"] | None


class _Mlp(Protocol):
    W_in: Tensor
    W_out: Tensor


def _mlp_weights(mlp: _Mlp) -> _MlpWeights:
    """Return the weights of the branch that stays linear when slopes (or gates) are frozen."""
    biases = [getattr(mlp, name, None) for name in ("b_in", "b_out")]
    b_in, b_out = (None if bias is None else bias.detach().float() for bias in biases)
    return _MlpWeights(mlp.W_in.detach().float().T, b_in, mlp.W_out.detach().float(), b_out)


def _slope(post: Tensor, weights: _MlpWeights, mlp_in: Tensor) -> Tensor:
    """Return `activation / (x @ W + b)` `[pos, d_mlp]`, 0 where the linear branch is 0."""
    linear = mlp_in @ weights.into.T
    linear = linear if weights.bias is None else linear + weights.bias
    return torch.where(linear == 0, torch.zeros_like(post), post / torch.where(linear == 0, 1.0, linear))


def _largest(sizes: Float[Tensor, "layer pos d_mlp"], limit: int) -> Tensor:
    """Mark the `limit` largest entries that are not 0."""
    if int((sizes > 0).sum()) <= limit:
        return sizes > 0
    flat = sizes.flatten()
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[flat.topk(limit).indices] = True
    return chosen.view_as(sizes) & (sizes > 0)


def _where(chosen: Tensor, post: Tensor) -> LayerLatents:
    position, latent = chosen.nonzero(as_tuple=True)
    return LayerLatents(position, latent, post[position, latent])
