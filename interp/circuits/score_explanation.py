"""Exact decomposition of one attention score over pairs of components, one at the query and one at the key.

A score is `scale * rotate(q) . rotate(k)`, where q and k are linear in the residual once the norm's scale is frozen at
its value on the prompt. The residual is a sum of the outputs of earlier components. So the score is exactly a sum over
pairs of components (the 14 x 14 table of Elhage et al. 2021, with rotary positions and norms):

    found = explain_score(model, tokens, "L1H0", query=20, key=5)
    found.score                  # before the softmax, = found.matrix.sum()
    found.top(3)                 # the pairs that raise the score of this key above those of other keys

Softmax depends on differences only: a pair that raises the scores of all keys equally has no effect. `relative`
therefore subtracts from each pair its mean over the other keys that the query may attend to (in layers with a sliding
window those inside it), and `top` ranks by it.

Components: `embed`, `pos_embed` (learned positions), heads `L0H3`, `L0MLP`, `L0bias` (an attention output bias), and
`bias` (of the norm and the projection). With a dictionary on the residual stream, the components before its hook point
are replaced by its active latents `F12`, its reconstruction `error` and `dictionary_bias`.

Queries and keys are split by `parts_of_input`: with the norm's scale frozen, each earlier component has a contribution
in the head's `d_head` dimensions, and these sum to the query. Outputs of width `d_model` are never computed: z of an
earlier head is multiplied by the product of `W_O`, the norm's gain and `W_Q`.

Not included: the effect of components on the norm's scale, and indirect effects through earlier components.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from einops import einsum
from jaxtyping import Float, Float64, Int
from torch import Tensor

from interp.dictionary import Dictionary
from interp.errors import ConfigError, PromptError
from interp.models.adapter import MASKED_SCORE, available_hook_points, run_with_cache, token_strings
from interp.models.hooked import HookedModel
from interp.models.residual import ResidualStream, Rotation, Side, freeze, read_rotation, rotary_hook_points
from interp.names import HeadName, canonical_hook_point, parse_head, parse_hook_point
from interp.results import Record, Result


class HeadContributions(NamedTuple):
    """Contributions of named components to a head's queries, keys or values."""

    names: tuple[str, ...]
    values: Float64[Tensor, "n_parts n_positions d_head"]
    """`[n_parts, n_positions, d_head]` float64, before rotation"""


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

    Without a dictionary the components are the same for every prompt. With one, they include every latent that is
    active at any of the positions.
    """
    read = _Projection(residual, cache[f"blocks.{head.layer}.hook_resid_pre"][0, positions], head, side)
    values = {name: cache[name][0, positions] for name in hook_points_of_parts(residual, head.layer, dictionary)}
    first = _first_layer(dictionary, head.layer)
    parts = _embeddings(read, values) if dictionary is None else _latents(read, values, dictionary)
    for layer in range(first, head.layer):
        z, weight = values[f"blocks.{layer}.attn.hook_z"], residual.W_write(layer).double() @ read.weight
        scale = residual.write_scale(layer, z)
        per_head = einsum(z.double(), weight, "pos head d_head, head d_head d_read -> head pos d_read") / read.scale
        per_head = per_head if scale is None else per_head / scale.double()
        parts |= {f"L{layer}H{i}": value for i, value in enumerate(per_head)}
        if (bias := residual.write_bias(layer, scale)) is not None:
            parts[f"L{layer}bias"] = read(bias.expand(len(positions), -1))
        if residual.has_mlp:
            parts[f"L{layer}MLP"] = read(values[f"blocks.{layer}.hook_mlp_out"])
    parts["bias"] = read.bias
    return HeadContributions(tuple(parts), torch.stack(list(parts.values())))


class _Projection:
    """Projection of the residual to the query, key or value of one head, at fixed positions, with frozen norm."""

    def __init__(self, residual: ResidualStream, resid: Tensor, head: HeadName, side: Side):
        index = head.head if side == "q" else residual.kv_head(head.head)
        weight = residual.W(head.layer, side)[index].double()  # [d_model, d_head]
        norm = freeze(residual.model.blocks[head.layer], "ln1", resid)
        self.weight = norm.fold(weight.T).T
        """`[d_model, d_head]`, the norm's gain and centring folded in"""
        self.scale = norm.scale.double()
        """`[n_positions, 1]`, frozen"""
        bias = residual.b(head.layer, side)
        constant = norm.bias.double() @ weight + (0 if bias is None else bias[index].double())
        self.bias = constant.expand(len(resid), -1)
        """`[n_positions, d_head]`: constant, from the biases of norm and projection"""

    def __call__(self, part: Tensor) -> Tensor:
        """Return the contribution `[n_positions, d_head]` of `part [n_positions, d_model]`."""
        return part.double() @ self.weight / self.scale


def _embeddings(read: _Projection, values: dict[str, Tensor]) -> dict[str, Tensor]:
    embed = read(values["blocks.0.hook_resid_pre"])
    if "hook_pos_embed" not in values:
        return {"embed": embed}
    positions = read(values["hook_pos_embed"])
    return {"embed": embed - positions, "pos_embed": positions}


def _latents(read: _Projection, values: dict[str, Tensor], dictionary: Dictionary) -> dict[str, Tensor]:
    """Split the residual at the dictionary's hook point into active latents, bias and reconstruction error."""
    x = values[canonical_hook_point(dictionary.hook_point)]
    acts = dictionary.encode(x.float()).double()
    active = (acts > 0).any(0).nonzero()[:, 0]
    directions = dictionary.decoder_directions[active].double().to(x.device)
    bias = dictionary.decode(torch.zeros_like(acts[:1]).float())[0].double()
    projected = directions @ read.weight
    parts = {f"F{f}": acts[:, f, None] * projected[i] / read.scale for i, f in enumerate(active.tolist())}
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
    """before the softmax, scaled by `1/sqrt(d_head)`; the log of the attention up to a constant, in nats"""
    relative_score: float
    """the score minus the mean score of the other keys"""
    attention: float
    """attention of the query to this key after the softmax, 0 to 1"""
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

    def headline(self) -> str:
        """Return one line: the score and the attention."""
        return (
            f"Attention score of {self.head}: {self.score:.2f}, {self.relative_score:+.2f} against the mean of other "
            f"keys; attention {self.attention:.0%}"
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

    Raises `PromptError` when the key is after the query or outside the prompt. Raises `ConfigError` when the model's
    scores are not a plain product of projected residuals (norms on queries and keys, soft caps), when attention
    patterns are not computed, or for a dictionary at another hook point.
    """
    residual = ResidualStream(model)
    head = residual.check_head(parse_head(head) if isinstance(head, str) else head)
    _check_request(model, tokens, query, key)
    pattern = f"blocks.{head.layer}.attn.hook_pattern"
    masked = f"blocks.{head.layer}.attn.hook_attn_scores"
    points = [*hook_points_of_parts(residual, head.layer, dictionary), *rotary_hook_points(model, head.layer), pattern]
    points += [masked] if masked in available_hook_points(model) else []
    _, cache = run_with_cache(model, tokens, points, stop_at_layer=head.layer + 1)
    rotation = read_rotation(model, head.layer, cache)
    keys = torch.arange(query + 1, device=tokens.device)
    q = _rotated(parts_of_input(residual, cache, head, "q", keys[-1:], dictionary), rotation, keys[-1:])
    k = _rotated(parts_of_input(residual, cache, head, "k", keys, dictionary), rotation, keys)
    q_parts, k_parts = q.values[:, 0] * _scale(model, head.layer), k.values  # [n, d_head], [n, keys, d_head]
    scores = k_parts.sum(0) @ q_parts.sum(0)
    attention = cache[pattern][0, head.head, query, : query + 1]
    _check_scores(scores, attention, model, head.layer)
    compared = keys != key
    if masked in cache:  # models without it have no sliding window
        compared &= cache[masked][0, head.head, query, : query + 1] > MASKED_SCORE
    matrix = q_parts @ k_parts[:, key].T
    mean_key = k_parts[:, compared].mean(1) if compared.any() else torch.zeros_like(k_parts[:, 0])
    relative = q_parts @ (k_parts[:, key] - mean_key).T
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
        **residual.frozen_settings("on the prompt"),
    }
    totals = float(matrix.sum()), float(relative.sum()), float(attention[key])
    return ScoreExplanation(head, q.names, k.names, matrix.cpu(), relative.cpu(), *totals, settings)


def _rotated(parts: HeadContributions, rotation: Rotation | None, positions: Tensor) -> HeadContributions:
    return parts if rotation is None else HeadContributions(parts.names, rotation(parts.values, positions))


def _scale(model: HookedModel, layer: int) -> float:
    """Return the factor of the product of query and key: the layer's own scaling, else `1/sqrt(d_head)`."""
    scaling = getattr(model.blocks[layer].attn.original_component, "scaling", None)
    return model.cfg.d_head**-0.5 if scaling is None else float(scaling)


def _check_request(model: HookedModel, tokens: Tensor, query: int, key: int) -> None:
    if tokens.ndim != 2 or len(tokens) != 1:
        raise PromptError(f"expected one prompt as [1, pos], got {list(tokens.shape)}")
    if not 0 <= key <= query < tokens.shape[1]:
        raise PromptError(
            f"expected 0 <= key <= query < {tokens.shape[1]}, since no head looks ahead; got key {key}, query {query}"
        )
    if "blocks.0.attn.hook_pattern" not in available_hook_points(model):
        raise ConfigError('attention patterns are not computed by this kernel; load the model with attention="eager"')


def _check_scores(scores: Tensor, attention: Tensor, model: HookedModel, layer: int) -> None:
    """Raise `ConfigError` unless the softmax of the scores is the model's own attention.

    Only keys with attention above 0 are compared.
    """
    visible = attention > 0
    ours = scores[visible].softmax(0)
    tolerance = 1e-3 if attention.dtype == torch.float32 else 3e-2
    error = float((ours - attention[visible]).abs().max())
    if error > tolerance:
        raise ConfigError(
            f"the scores of {getattr(model.cfg, 'architecture', None) or 'this model'} are not the scaled product of "
            f"projected residuals (attention differs by {error:.2g}): {_departure(model, layer)}, which this analysis "
            "cannot decompose; use a model without it"
        )


def _departure(model: HookedModel, layer: int) -> str:
    """Return how attention of a layer departs from a product of projections, as far as its module shows it."""
    attention = model.blocks[layer].attn.original_component
    ways = ["it norms queries and keys"] if getattr(attention, "q_norm", None) is not None else []
    ways += ["it caps scores"] if getattr(attention, "attn_logit_softcapping", None) else []
    return " and ".join(ways) or "it changes queries, keys or scores in another way, such as by a bias"
