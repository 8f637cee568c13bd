"""Direct logit attribution: the contribution of every component to a logit (Elhage et al. 2021, Wang et al. 2022).

The final residual is a sum: embedding, every head, every MLP, biases. With the final norm's scale frozen at its value
on the prompt, a logit is linear in that sum. So each component has a contribution, and they sum to the logit exactly:

    found = direct_logit_attribution(model, tokens, answer=" Mary", wrong=" John")     # tokens [batch, pos]
    found.values.sum(0)          # == the logit difference, per prompt
    found.heads                  # [n_layers, n_heads, batch]
    found.top(5)                 # records, strongest first

In post-norm models (Gemma 2 and 3) the scales of the norms on what attention writes are frozen at their values on the
prompt as well, which gives every head its share. Where the model caps its logits (Gemma 2: `cap * tanh(logit / cap)`),
the logit before the cap is split. `settings` and the headline name both.

Only direct effects count: the effect of a component through later layers is attributed to those layers. Components are
named as in circuits, except that the learned position embedding is separate: `embed` is the token embedding,
`pos_embed` the position embedding; then `L5H1`, `L5MLP` (with its output bias), `L5bias` (the attention's output bias),
`norm_bias` and `unembed_bias`.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Float64, Int, Int64
from torch import Tensor

from interp.errors import ConfigError, PromptError
from interp.models.adapter import (
    available_hook_points,
    final_norm_and_unembed,
    logit_cap,
    run_with_cache,
    to_tokens,
    widened,
)
from interp.models.hooked import HookedModel
from interp.models.residual import FrozenNorm, ResidualStream, freeze
from interp.results import Record, Result
from interp.view import View

Target = Literal["logit", "centred_logit", "logit_difference"]
Answer = int | str | list[int] | Tensor


@dataclass(frozen=True)
class LogitAttribution(Result):
    """Contributions to one logit, or to a difference of logits, per prompt; in logits."""

    parts: tuple[str, ...]
    """`[n_parts]` names of the components"""
    values: Float64[Tensor, "n_parts batch"]
    """`[n_parts, batch]` float64; summing over parts to `total`"""
    total: Float64[Tensor, " batch"]
    """`[batch]` float64: the value of the model's own forward pass, before a soft cap"""
    n_layers: int
    n_heads: int
    settings: dict[str, object] = field(default_factory=dict)
    """target, answers, positions; `norm_scale` is always frozen; `frozen` and `logits` where a post-norm is frozen and
    where logits are capped"""

    def __getitem__(self, part: str) -> Float64[Tensor, " batch"]:
        """Return the contribution of one component, `[batch]`. Raises `KeyError`."""
        if part not in self.parts:
            raise KeyError(part)
        return self.values[self.parts.index(part)]

    @property
    def heads(self) -> Float64[Tensor, "n_layers n_heads batch"]:
        """Contributions of the heads, `[n_layers, n_heads, batch]`."""
        rows = [[self[f"L{i}H{h}"] for h in range(self.n_heads)] for i in range(self.n_layers)]
        return torch.stack([torch.stack(row) for row in rows])

    @property
    def mlps(self) -> Float64[Tensor, "n_layers batch"]:
        """Contributions of the MLPs, `[n_layers, batch]`; zeros in an attention-only model."""
        return torch.stack([self._or_zero(f"L{i}MLP") for i in range(self.n_layers)])

    def by_layer(self) -> list[Record]:
        """Return one row per layer, mean over prompts: `layer, attention, mlp, accumulated`.

        `accumulated` is the sum up to and including this layer. It starts from the embedding and the biases of norm and
        unembedding, and ends at the mean of `total`.
        """
        start = [name for name in self.parts if not name.startswith("L")]
        accumulated, rows = float(sum(self[name].mean() for name in start)), []
        for layer in range(self.n_layers):
            attention = float(self.heads[layer].sum(0).mean() + self._or_zero(f"L{layer}bias").mean())
            mlp = float(self._or_zero(f"L{layer}MLP").mean())
            accumulated += attention + mlp
            rows.append({"layer": layer, "attention": attention, "mlp": mlp, "accumulated": accumulated})
        return rows

    def top(self, n: int = 10) -> list[Record]:
        """Return the components with the largest mean contribution by size: `part, value, low, high, share`.

        `value` is the mean over prompts, `low` and `high` the extremes; `share` is the fraction of the total.
        """
        mean, total = self.values.mean(1), float(self.total.mean())
        return [
            {
                "part": self.parts[i],
                "value": float(mean[i]),
                "low": float(self.values[i].min()),
                "high": float(self.values[i].max()),
                "share": float(mean[i]) / total if total else None,
            }
            for i in mean.abs().argsort(descending=True, stable=True)[:n].tolist()
        ]

    def to_records(self) -> list[Record]:
        """Return one row per component, strongest first: `part, value, low, high, share`, as in `top`."""
        return self.top(len(self.parts))

    def view(self) -> View:
        n, mean = len(self.total), float(self.total.mean())
        cap = f" {self.settings['logits']}" if "logits" in self.settings else ""
        yield f"Direct logit attribution: {mean:.2f} logits{cap} over {len(self.parts)} parts, {n} prompts"

    def _or_zero(self, part: str) -> Tensor:
        return self[part] if part in self.parts else torch.zeros_like(self.total)


@torch.no_grad()
def direct_logit_attribution(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    answer: Answer,
    wrong: Answer | None = None,
    *,
    position: int | Tensor = -1,
    centre: bool = True,
    batch_size: int = 8,
    earlier: Mapping[str, Tensor] | None = None,
) -> LogitAttribution:
    """Split the logit of `answer` over the components of the model.

    Args:
        model: runs once, unless `earlier` is given.
        tokens: the prompts, `[batch, pos]`.
        answer: token ids, one for all prompts or one each, or the text of a single token.
        wrong: of the same form. With it, `logit(answer) - logit(wrong)` is split.
        position: where the logit is read; one for all prompts or one each.
        centre: without `wrong`, split the logit minus its mean over the vocabulary, as probabilities depend on
            differences of logits only; False splits the logit itself.
        earlier: values of a pass over the same tokens at `attribution_points(model)`.
    Returns: the share of each component in logits; they sum to what was split.
    Raises:
        ConfigError: the residual is not a sum of components, or the logits are not linear in its norm.
        PromptError: an answer that is not one token of the vocabulary.

    >>> direct_logit_attribution(model, tokens, "a", "b").headline()
    'Direct logit attribution: ... logits over 16 parts, 1 prompts'
    """
    residual = ResidualStream(model)
    answers = token_ids(model, answer, len(tokens))
    wrongs = None if wrong is None else token_ids(model, wrong, len(tokens))
    at = _positions(position, tokens)
    batches = []
    for rows in torch.arange(len(tokens)).split(batch_size):
        chosen = answers[rows], None if wrongs is None else wrongs[rows]
        known = None if earlier is None else {name: value[rows] for name, value in earlier.items()}
        batches.append(_attribute(residual, tokens[rows], *chosen, at[rows], centre, known))
    parts, values, totals = zip(*batches, strict=True)
    target: Target = "logit_difference" if wrong is not None else "centred_logit" if centre else "logit"
    settings = {
        "target": target,
        "answer": answers.tolist(),
        "wrong": None if wrongs is None else wrongs.tolist(),
        "position": at.tolist(),
        "norm_scale": "frozen",
        **residual.frozen_settings("on the prompt"),
    }
    if (cap := logit_cap(model)) is not None:
        settings["logits"] = f"before the soft cap of {cap:g}"
    return LogitAttribution(
        tuple(parts[0]),
        torch.cat(values, 1),
        torch.cat(totals),
        residual.shape.n_layers,
        residual.shape.n_heads,
        settings,
    )


def attribution_points(model: HookedModel) -> list[str]:
    """Return the hook points whose values give the attribution at any position without another pass.

    The list is empty where the logits are capped, as they are read before the cap. Raises `ConfigError` when the
    residual is not a sum of components.
    """
    names = _hook_points(ResidualStream(model))
    return [] if "hook_unembed" in names else names


def token_ids(model: HookedModel, answer: Answer, n_prompts: int) -> Int64[Tensor, " n_prompts"]:
    """Return one token id per prompt, `[n_prompts]` int64, from one answer for all prompts or one each.

    Raises `PromptError` when a text is not a single token, or ids do not fit the prompts or the vocabulary.
    """
    if isinstance(answer, str):
        ids = to_tokens(model, answer, prepend_bos=False)[0]
        if len(ids) != 1:
            raise PromptError(
                f"the answer {answer!r} is {len(ids)} tokens, not one; most words need a leading space, or "
                "choose another answer"
            )
        answer = int(ids[0])
    ids = torch.as_tensor(answer, dtype=torch.long).cpu()
    if ids.ndim > 1 or (ids.ndim == 1 and len(ids) != n_prompts):
        raise PromptError(f"expected one answer, or one for each of {n_prompts} prompts, got shape {list(ids.shape)}")
    if int(ids.min()) < 0 or int(ids.max()) >= model.cfg.d_vocab:
        raise PromptError(f"answers are token ids below {model.cfg.d_vocab}, got {int(ids.min())} to {int(ids.max())}")
    return ids.expand(n_prompts)


def single_token(model: HookedModel, text: str, logits: Tensor) -> int:
    """Return the id of a word as it is typed or with a leading space, as in a sentence: the likelier by `logits`.

    Raises `PromptError` where both are several tokens.
    """
    ids: list[int] = []
    for form in (text,) if text.startswith(" ") else (text, f" {text}"):
        with contextlib.suppress(PromptError):
            ids.append(int(token_ids(model, form, 1)[0]))
    if not ids:
        raise PromptError(f"{text!r} is several tokens, with and without a leading space; choose a word that is one")
    return max(ids, key=lambda token: float(logits[token]))


def _positions(position: int | Tensor, tokens: Tensor) -> Tensor:
    """Return positions counted from the first token, `[batch]`."""
    at, length = torch.as_tensor(position).expand(len(tokens)), tokens.shape[1]
    if int(at.min()) < -length or int(at.max()) >= length:
        raise PromptError(f"expected positions of a prompt of {length} tokens, got {at.tolist()}")
    return at % length


def _attribute(
    residual: ResidualStream,
    tokens: Tensor,
    answers: Tensor,
    wrongs: Tensor | None,
    at: Tensor,
    centre: bool,
    known: Mapping[str, Tensor] | None,
) -> tuple[list[str], Tensor, Tensor]:
    """Return names, contributions `[n_parts, batch]` and totals `[batch]` of one batch."""
    model, layers = residual.model, range(residual.shape.n_layers)
    rows, last = torch.arange(len(tokens)), f"blocks.{layers[-1]}.hook_resid_post"
    if known is None:
        whole, cache = run_with_cache(model, tokens, _hook_points(residual))
        logits, known = cache.pop("hook_unembed", whole)[rows, at], cache
    else:
        logits = final_norm_and_unembed(model, known[last][rows, at])
    cache = {name: value[rows, at] for name, value in known.items()}
    final = cache[last]
    norm = freeze(model, "ln_final", final)
    direction, unembed_bias, total = _targets(model, logits, answers, wrongs, centre)
    contribution = _Contribution(norm, direction)
    parts = {"embed": contribution(cache["blocks.0.hook_resid_pre"])}
    if "hook_pos_embed" in cache:
        parts["pos_embed"] = contribution(cache["hook_pos_embed"])
        parts["embed"] = parts["embed"] - parts["pos_embed"]
    for layer in layers:
        z = cache[f"blocks.{layer}.attn.hook_z"]
        per_head, scale = contribution.per_head(z, residual.W_write(layer)), residual.write_scale(layer, z)
        per_head = per_head if scale is None else per_head / scale.double()
        parts |= {f"L{layer}H{head}": per_head[:, head] for head in range(residual.shape.n_heads)}
        if (bias := residual.write_bias(layer, scale)) is not None:
            parts[f"L{layer}bias"] = contribution(bias.expand_as(final))
        if residual.has_mlp:
            parts[f"L{layer}MLP"] = contribution(cache[f"blocks.{layer}.hook_mlp_out"])
    parts["norm_bias"] = (norm.bias.double() * direction).sum(-1)
    parts["unembed_bias"] = unembed_bias
    values = torch.stack(list(parts.values())).cpu()
    _check_sum(values, total.cpu())
    return list(parts), values, total.cpu()


def _hook_points(residual: ResidualStream) -> list[str]:
    last = residual.shape.n_layers - 1
    names = ["blocks.0.hook_resid_pre", f"blocks.{last}.hook_resid_post"]
    names += [f"blocks.{layer}.attn.hook_z" for layer in range(last + 1)]
    names += [f"blocks.{layer}.hook_mlp_out" for layer in range(last + 1) if residual.has_mlp]
    names += ["hook_pos_embed"] if "hook_pos_embed" in available_hook_points(residual.model) else []
    names += ["hook_unembed"] if logit_cap(residual.model) is not None else []
    return names


def _targets(
    model: HookedModel, logits: Tensor, answers: Tensor, wrongs: Tensor | None, centre: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the target's direction after the norm `[batch, d_model]`, its unembedding bias and value `[batch]`."""
    W_U, logits = widened(model.W_U), logits.double()
    b_U = getattr(model, "b_U", None)
    b_U = torch.zeros_like(W_U[0]) if b_U is None else b_U
    rows, ids = torch.arange(len(answers)), answers.to(W_U.device)
    direction, bias, total = W_U.T[ids].double(), b_U[ids].double(), logits[rows, ids]
    if wrongs is not None:
        ids = wrongs.to(W_U.device)
        return direction - W_U.T[ids].double(), bias - b_U[ids].double(), total - logits[rows, ids]
    if centre:
        return direction - W_U.mean(1).double(), bias - b_U.mean().double(), total - logits.mean(-1)
    return direction, bias, total


class _Contribution:
    """Contributions in float64: dot products with the target's direction, with norm gain and centring folded in."""

    def __init__(self, norm: FrozenNorm, direction: Tensor):
        self.u = norm.fold(direction) / norm.scale.double()

    def __call__(self, part: Tensor) -> Tensor:
        """Return the contribution `[batch]` of `part [batch, d_model]`."""
        return (part.double() * self.u).sum(-1)

    def per_head(self, z: Tensor, W_O: Tensor) -> Tensor:
        """Return contributions `[batch, n_heads]` of `z [batch, n_heads, d_head]`, without the heads' outputs."""
        axes = "batch heads d_head, heads d_head d_model, batch d_model -> batch heads"
        return einsum(z.double(), W_O.double(), self.u, axes)


def _check_sum(values: Tensor, total: Tensor) -> None:
    """Raise `ConfigError` unless the components sum to the total, up to the rounding of the model's own pass."""
    error = ((values.sum(0) - total).abs() / values.abs().sum(0).clamp_min(1e-12)).max()
    if error > 1e-2:
        raise ConfigError(
            f"the parts do not sum to the model's logits (relative error {float(error):.2g}): its residual is not a "
            "sum of heads and MLPs, or its logits are not linear; direct attribution is not defined for it"
        )
