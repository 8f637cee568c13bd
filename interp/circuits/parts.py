"""What a head's query or key was made of: every earlier part's share of it, by name.

With the scale of the head's norm frozen, a query is linear in the residual: each part that wrote to the residual has a
share, in the `d_head` dimensions of the head, and the shares sum to the query. Head outputs of width `d_model`
are never made; a head's `z` goes straight through `W_O`, the norm's gain and `W_Q`.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from interp.dictionary import Dictionary
from interp.errors import ConfigError
from interp.models.adapter import available_hook_points
from interp.models.frozen_norm import freeze
from interp.models.residual import ResidualStream, Side
from interp.names import HeadName, canonical_hook_point, parse_hook_point


class Parts(NamedTuple):
    """Named shares of a head's queries, keys or values."""

    names: tuple[str, ...]
    values: Tensor
    """`[n_parts, n_positions, d_head]` float64, before rotation"""


def hook_points_of_parts(residual: ResidualStream, layer: int, dictionary: Dictionary | None = None) -> list[str]:
    """What `parts_of_input` needs of the model for the heads of a layer.

    Raises `ConfigError` for a dictionary that is not on the residual stream at or before the layer.
    """
    first = _first_layer(dictionary, layer)
    names = ["blocks.0.hook_resid_pre", f"blocks.{layer}.hook_resid_pre"]
    names += [] if dictionary is None else [canonical_hook_point(dictionary.hook_point)]
    names += ["hook_pos_embed"] if "hook_pos_embed" in available_hook_points(residual.model) else []
    names += [f"blocks.{i}.attn.hook_z" for i in range(first, layer)]
    return names + [f"blocks.{i}.hook_mlp_out" for i in range(first, layer) if residual.has_mlp]


def parts_of_input(
    residual: ResidualStream,
    cache: dict[str, Tensor],
    head: HeadName,
    side: Side,
    positions: Tensor,
    dictionary: Dictionary | None = None,
) -> Parts:
    """Shares of the query, key or value of a head at `positions [n]` of the first prompt in `cache`.

    Without a dictionary the parts are the same for every prompt; with one, its features active at any of the positions.
    """
    read = _Reader(residual, cache[f"blocks.{head.layer}.hook_resid_pre"][0, positions], head, side)
    here = {name: cache[name][0, positions] for name in hook_points_of_parts(residual, head.layer, dictionary)}
    first = _first_layer(dictionary, head.layer)
    parts = _embeddings(read, here) if dictionary is None else _features(read, here, dictionary)
    for layer in range(first, head.layer):
        z, W_O = here[f"blocks.{layer}.attn.hook_z"], residual.W(layer, "o")
        per_head = torch.einsum("phd,hde->hpe", z.double(), W_O.double() @ read.weight) / read.scale
        parts |= {f"L{layer}H{i}": value for i, value in enumerate(per_head)}
        if (bias := residual.b(layer, "o")) is not None:
            parts[f"L{layer}bias"] = read(bias.expand(len(positions), -1))
        if residual.has_mlp:
            parts[f"L{layer}MLP"] = read(here[f"blocks.{layer}.hook_mlp_out"])
    parts["bias"] = read.bias
    return Parts(tuple(parts), torch.stack(list(parts.values())))


class _Reader:
    """How one head reads the residual on one side, at fixed positions."""

    def __init__(self, residual: ResidualStream, resid: Tensor, head: HeadName, side: Side):
        index = head.head if side == "q" else residual.kv_head(head.head)
        weight = residual.W(head.layer, side)[index].double()  # [d_model, d_head]
        norm = freeze(residual.model.blocks[head.layer], "ln1", resid)
        self.weight = norm.fold(weight.T).T
        """`[d_model, d_head]`, the norm's gain and centring folded in"""
        self.scale = norm.scale.double()
        """`[n_positions, 1]`, frozen"""
        own = residual.b(head.layer, side)
        constant = norm.bias.double() @ weight + (0 if own is None else own[index].double())
        self.bias = constant.expand(len(resid), -1)
        """`[n_positions, d_head]`: what no part wrote"""

    def __call__(self, part: Tensor) -> Tensor:
        """`[n_positions, d_head]` share of `part [n_positions, d_model]`."""
        return part.double() @ self.weight / self.scale


def _embeddings(read: _Reader, here: dict[str, Tensor]) -> dict[str, Tensor]:
    embed = read(here["blocks.0.hook_resid_pre"])
    if "hook_pos_embed" not in here:
        return {"embed": embed}
    positions = read(here["hook_pos_embed"])
    return {"embed": embed - positions, "pos_embed": positions}


def _features(read: _Reader, here: dict[str, Tensor], dictionary: Dictionary) -> dict[str, Tensor]:
    """The residual at the dictionary's hook point: active features, its bias, and what it does not reconstruct."""
    x = here[canonical_hook_point(dictionary.hook_point)]
    acts = dictionary.encode(x.float()).double()
    active = (acts > 0).any(0).nonzero()[:, 0]
    directions = dictionary.decoder_directions[active].double().to(x.device)
    bias = dictionary.decode(torch.zeros_like(acts[:1]).float())[0].double()
    seen = directions @ read.weight
    parts = {f"F{f}": acts[:, f, None] * seen[i] / read.scale for i, f in enumerate(active.tolist())}
    parts["dictionary_bias"] = read(bias.expand_as(x))
    parts["error"] = read(x.double() - acts[:, active] @ directions - bias)
    return parts


def _first_layer(dictionary: Dictionary | None, layer: int) -> int:
    """The first layer whose parts are not inside the dictionary's hook point; 0 without a dictionary."""
    if dictionary is None:
        return 0
    place: Any = parse_hook_point(dictionary.hook_point)
    first = {"hook_resid_pre": 0, "hook_resid_post": 1}.get(place.suffix)
    if place.layer is None or first is None or place.layer + first > layer:
        raise ConfigError(
            f"a dictionary on the residual stream before layer {layer} was expected (blocks.N.hook_resid_pre or "
            f"hook_resid_post), this one is at {dictionary.hook_point}"
        )
    return place.layer + first
