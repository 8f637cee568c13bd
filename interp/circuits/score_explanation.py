"""Exact decomposition of one attention score over pairs of components, one at the query and one at the key.

A score is `scale * rotate(q) . rotate(k)`, where q and k are linear in the residual once the scales of norms are frozen
at their values on the prompt: those of the block's norm, and of norms on queries and keys where a model has them
(`interp.models.head_score`). The residual is a sum of the outputs of earlier components. So the score is exactly a sum
over pairs of components (the 14 x 14 table of Elhage et al. 2021, with rotary positions and norms):

    found = explain_score(model, tokens, "L1H0", query=20, key=5)
    found.score                  # before the softmax, = found.matrix.sum()
    found.top(3)                 # the pairs that raise the score of this key above those of other keys

Softmax depends on differences only: a pair that raises the scores of all keys equally has no effect. `relative`
therefore subtracts from each pair its mean over the other keys that the query may attend to (in layers with a sliding
window those inside it), and `top` ranks by it.

Components: `embed`, `pos_embed` (learned positions), heads `L0H3`, `L0MLP`, `L0bias` (an attention output bias), and
`bias` (of norms and the projection). A soft cap is linearised at the score: contributions are multiplied by its slope
there, and the pair (`cap`, `cap`) is the constant. With a dictionary on the residual stream, the components before its
hook point are replaced by its active latents `F12`, its reconstruction `error` and `dictionary_bias`.

Queries and keys are split by `parts_of_input`: with the norm's scale frozen, each earlier component has a contribution
in the head's `d_head` dimensions, and these sum to the query. Outputs of width `d_model` are never computed: z of an
earlier head is multiplied by the product of `W_O`, the norm's gain and `W_Q`.

Two nulls: the relative scores of the other keys of this query, and of this key for other queries.

Not included: the effect of components on scales of norms, and indirect effects through earlier components.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from einops import einsum
from jaxtyping import Float, Float64, Int
from torch import Tensor

from interp.dictionary import Dictionary
from interp.errors import ConfigError, PromptError
from interp.models.adapter import available_hook_points, run_with_cache, token_strings
from interp.models.head_score import (
    HeadSide,
    capped,
    check_scores,
    mask_hook_points,
    read_side,
    relative_scores,
    score_cap,
    score_scale,
    visible_keys,
)
from interp.models.hooked import HookedModel
from interp.models.residual import ResidualStream, Side, read_rotation, rotary_hook_points
from interp.names import HeadName, canonical_hook_point, parse_head, parse_hook_point
from interp.results import Record, Result
from interp.view import View


class HeadContributions(NamedTuple):
    """Contributions of named components to a head's queries, keys or values."""

    names: tuple[str, ...]
    values: Float64[Tensor, "n_parts n_positions d_head"]
    """`[n_parts, n_positions, d_head]` float64, after norms and rotation, before the score is scaled"""


def hook_points_of_parts(residual: ResidualStream, layer: int, dictionary: Dictionary | None = None) -> list[str]:
    """Return the hook points that `parts_of_input` needs for the heads of a layer.

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
    cache: dict[str, Float[Tensor, "..."]],
    head: HeadName,
    side: Side,
    positions: Int[Tensor, " n"],
    dictionary: Dictionary | None = None,
) -> HeadContributions:
    """Split the query, key or value of a head over components, at `positions [n]` of the first prompt in `cache`.

    `cache` also holds the `rotary_hook_points` of a layer that has them. Without a dictionary the components are the
    same for every prompt. With one, they include every latent that is active at any of the positions.
    """
    rotation = read_rotation(residual.model, head.layer, cache)
    resid = cache[f"blocks.{head.layer}.hook_resid_pre"][0, positions]
    read = read_side(residual, head, side, resid, rotation, positions)
    values = {name: cache[name][0, positions] for name in hook_points_of_parts(residual, head.layer, dictionary)}
    first = _first_layer(dictionary, head.layer)
    parts = _embeddings(read, values) if dictionary is None else _latents(read, values, dictionary)
    for layer in range(first, head.layer):
        z, weight = values[f"blocks.{layer}.attn.hook_z"], residual.W_write(layer).double() @ read.weight
        scale = residual.write_scale(layer, z)
        per_head = einsum(z.double(), weight, "pos head d_head, head d_head d_read -> head pos d_read")
        per_head = read.finish(per_head if scale is None else per_head / scale.double())
        parts |= {f"L{layer}H{i}": value for i, value in enumerate(per_head)}
        if (bias := residual.write_bias(layer, scale)) is not None:
            parts[f"L{layer}bias"] = read(bias.expand(len(positions), -1))
        if residual.has_mlp:
            parts[f"L{layer}MLP"] = read(values[f"blocks.{layer}.hook_mlp_out"])
    parts["bias"] = read.bias
    return HeadContributions(tuple(parts), torch.stack(list(parts.values())))


def _embeddings(read: HeadSide, values: dict[str, Tensor]) -> dict[str, Tensor]:
    embed = read(values["blocks.0.hook_resid_pre"])
    if "hook_pos_embed" not in values:
        return {"embed": embed}
    positions = read(values["hook_pos_embed"])
    return {"embed": embed - positions, "pos_embed": positions}


def _latents(read: HeadSide, values: dict[str, Tensor], dictionary: Dictionary) -> dict[str, Tensor]:
    """Split the residual at the dictionary's hook point into active latents, bias and reconstruction error."""
    x = values[canonical_hook_point(dictionary.hook_point)]
    acts = dictionary.encode(x.float()).double()
    active = (acts > 0).any(0).nonzero()[:, 0]
    directions = dictionary.decoder_directions[active].double().to(x.device)
    bias = dictionary.decode(torch.zeros_like(acts[:1]).float())[0].double()
    projected = directions @ read.weight
    parts = {f"F{f}": read.finish(acts[:, f, None] * projected[i]) for i, f in enumerate(active.tolist())}
    parts["dictionary_bias"] = read(bias.expand_as(x))
    parts["error"] = read(x.double() - acts[:, active] @ directions - bias)
    return parts


def _first_layer(dictionary: Dictionary | None, layer: int) -> int:
    """Return the first layer after the dictionary's hook point; 0 without a dictionary."""
    if dictionary is None:
        return 0
    point: Any = parse_hook_point(dictionary.hook_point)
    first = {"hook_resid_pre": 0, "hook_resid_post": 1}.get(point.suffix)
    if point.layer is None or first is None or point.layer + first > layer:
        raise ConfigError(
            f"expected a dictionary on the residual stream before layer {layer} (blocks.N.hook_resid_pre or "
            f"hook_resid_post), this one is at {dictionary.hook_point}"
        )
    return point.layer + first


@dataclass(frozen=True)
class ScoreExplanation(Result):
    """One attention score (or the mean of several) as a sum over pairs of components; all float64."""

    head: HeadName
    query_parts: tuple[str, ...]
    key_parts: tuple[str, ...]
    matrix: Float64[Tensor, "n_query_parts n_key_parts"]
    """`[n_query_parts, n_key_parts]`, summing to `score`"""
    relative: Float64[Tensor, "n_query_parts n_key_parts"]
    """the same minus its mean over the other keys, summing to `relative_score`"""
    score: float
    """before the softmax, scaled as the model does; the log of the attention up to a constant, in nats"""
    relative_score: float
    """the score minus the mean score of the other keys"""
    attention: float
    """attention of the query to this key after the softmax, 0 to 1"""
    other_keys: Float64[Tensor, " n_other_keys"]
    """null: relative score of each other key that the query may attend to"""
    other_queries: Float64[Tensor, " n_other_queries"]
    """null: relative score of this key for each other query that may attend to it"""
    settings: dict[str, object] = field(default_factory=dict)
    """query, key, their tokens, dictionary, norm_scale (always frozen), keys compared with, number averaged"""

    def top(self, n: int = 10, *, relative: bool = True) -> list[Record]:
        """Return the pairs with the largest absolute values: `query_part, key_part, value, share`.

        `share` is the fraction of the total, and exceeds 1 where other pairs cancel this one.
        """
        matrix, total = (self.relative, self.relative_score) if relative else (self.matrix, self.score)
        order = matrix.flatten().abs().argsort(descending=True, stable=True)[:n]
        cells = torch.stack(torch.unravel_index(order, matrix.shape), 1).tolist()
        return [
            {
                "query_part": self.query_parts[i],
                "key_part": self.key_parts[j],
                "value": float(matrix[i, j]),
                "share": float(matrix[i, j]) / total if total else None,
            }
            for i, j in cells
        ]

    def pair(self, query_part: str, key_part: str, *, relative: bool = True) -> float:
        """Return the contribution of one pair. Raises `KeyError` for an unknown component."""
        for name, names in ((query_part, self.query_parts), (key_part, self.key_parts)):
            if name not in names:
                raise KeyError(name)
        matrix = self.relative if relative else self.matrix
        return float(matrix[self.query_parts.index(query_part), self.key_parts.index(key_part)])

    def to_records(self) -> list[Record]:
        """Return one row per pair: `query_part, key_part, value, relative`, by absolute `relative`, largest first."""
        rows = [
            {"query_part": q, "key_part": k, "value": value, "relative": relative}
            for q, values, relatives in zip(self.query_parts, self.matrix.tolist(), self.relative.tolist(), strict=True)
            for k, value, relative in zip(self.key_parts, values, relatives, strict=True)
        ]
        return sorted(rows, key=lambda row: -abs(row["relative"]))

    def view(self) -> View:
        null = self.other_keys if len(self.other_keys) else torch.zeros(1)
        yield (
            f"Attention score of {self.head}: {self.score:.2f}, {self.relative_score:+.2f} against the mean of other "
            f"keys ({null.min():+.2f} to {null.max():+.2f} for these); attention {self.attention:.0%}"
        )


@torch.no_grad()
def explain_score(
    model: HookedModel,
    tokens: Int[Tensor, "..."],
    head: HeadName | str,
    *,
    query: int,
    key: int,
    dictionary: Dictionary | None = None,
) -> ScoreExplanation:
    """Decompose the attention score of `head` from position `query` to position `key` of `tokens [1, pos]`.

    Under grouped-query attention the key is that of the head's group. The hook point of a `dictionary` must be on the
    residual stream at or before the head's layer.

    Raises `PromptError` when the key is after the query or outside the prompt. Raises `ConfigError` when attention
    patterns are not computed, for a dictionary at another hook point, and for a model whose scores are something else.
    """
    residual = ResidualStream(model)
    head = residual.check_head(parse_head(head) if isinstance(head, str) else head)
    _check_request(model, tokens, query, key)
    layer, n_pos = head.layer, tokens.shape[1]
    pattern = f"blocks.{layer}.attn.hook_pattern"
    points = [*hook_points_of_parts(residual, layer, dictionary), *rotary_hook_points(model, layer), pattern]
    _, cache = run_with_cache(model, tokens, points + mask_hook_points(model, layer), stop_at_layer=layer + 1)
    positions = torch.arange(n_pos, device=tokens.device)
    keys = positions[: query + 1]
    q = parts_of_input(residual, cache, head, "q", keys[-1:], dictionary)
    k = parts_of_input(residual, cache, head, "k", keys, dictionary)
    q_parts, k_parts = q.values[:, 0] * score_scale(model, layer), k.values  # [n, d_head], [n, keys, d_head]
    cap, visible = score_cap(model, layer), visible_keys(layer, cache, n_pos, tokens.device)
    scores, slopes, constants = capped(k_parts.sum(0) @ q_parts.sum(0), cap)
    attention = cache[pattern][0, head.head, query, : query + 1]
    check_scores(scores, attention, model)
    compared = visible[query, : query + 1] & (keys != key)

    def table(weights: Tensor) -> Tensor:
        """Return the pairs of all keys, each key with a weight; the constant of a cap is a part of its own."""
        pairs = q_parts @ (k_parts * (weights * slopes)[:, None]).sum(1).T
        return pairs if cap is None else torch.block_diag(pairs, (weights * constants).sum())

    one, others = (keys == key).double(), compared.double() / compared.sum().clamp_min(1)
    matrix, relative = table(one), table(one - others)
    everywhere = _relative_everywhere(residual, head, cache, visible)
    seen_from = visible[:, key] & (positions != query)
    text = token_strings(model, tokens[0])
    settings: dict[str, object] = {
        "query": query,
        "key": key,
        "query_token": text[query],
        "key_token": text[key],
        "relative_to": f"mean of the other {int(compared.sum())} keys that the query may attend to",
        "dictionary": None if dictionary is None else str(dictionary.hook_point),
        "norm_scale": "frozen",
        "n_averaged": 1,
        **({} if cap is None else {"cap": f"{cap:g}, linearised at the score"}),
        **residual.frozen_settings("on the prompt"),
    }
    return ScoreExplanation(
        head=head,
        query_parts=(*q.names, *(["cap"] if cap else [])),
        key_parts=(*k.names, *(["cap"] if cap else [])),
        matrix=matrix.cpu(),
        relative=relative.cpu(),
        score=float(matrix.sum()),
        relative_score=float(relative.sum()),
        attention=float(attention[key]),
        other_keys=everywhere[query, : query + 1][compared].cpu(),
        other_queries=everywhere[seen_from, key].cpu(),
        settings=settings,
    )


def _relative_everywhere(
    residual: ResidualStream, head: HeadName, cache: dict[str, Tensor], visible: Tensor
) -> Float64[Tensor, "query key"]:
    """Return the relative score of every pair of positions, NaN where the query may not attend to the key."""
    model, layer = residual.model, head.layer
    resid, rotation = cache[f"blocks.{layer}.hook_resid_pre"][0], read_rotation(model, layer, cache)
    positions = torch.arange(len(resid), device=resid.device)
    sides = (read_side(residual, head, side, resid, rotation, positions) for side in ("q", "k"))
    queries, keys = (side(resid) + side.bias for side in sides)
    return relative_scores(capped(queries @ keys.T * score_scale(model, layer), score_cap(model, layer))[0], visible)


def _check_request(model: HookedModel, tokens: Tensor, query: int, key: int) -> None:
    if tokens.ndim != 2 or len(tokens) != 1:
        raise PromptError(f"expected one prompt as [1, pos], got {list(tokens.shape)}")
    if not 0 <= key <= query < tokens.shape[1]:
        raise PromptError(
            f"expected 0 <= key <= query < {tokens.shape[1]}, since no head looks ahead; got key {key}, query {query}"
        )
    if "blocks.0.attn.hook_pattern" not in available_hook_points(model):
        raise ConfigError('attention patterns are not computed by this kernel; load the model with attention="eager"')
