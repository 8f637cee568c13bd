"""Interventions on a model through an SAE: splicing, ablation, clamping and steering, and sampled continuations.

    model.run_with_hooks(tokens, fwd_hooks=splice_hooks(sae, keep_error=True, edit=ablate(sae, 12)))
    model.run_with_hooks(tokens, fwd_hooks=steer_hooks(sae, 12, 8.0))

A hook is `fn(value, hook) -> value` on values `[batch, pos, d]`. An edit is a function of latent activations,
`[batch, pos, d_sae] -> [batch, pos, d_sae]`. A transcoder takes two hooks: one records its input, the other replaces
the value that it predicts.

`continue_tokens` continues a text with hooks applied, greedily or sampled from a seed. It runs the whole text again for
every new token, so that hooks see the same values as on a text given at once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float32, Int
from torch import Tensor

from interp.errors import ConfigError
from interp.models.adapter import Hook, run_with_hooks
from saes.kinds.base import SAE
from saes.kinds.crosscoder import CrosscoderSAE

Edit = Callable[[Tensor], Tensor]


def splice(sae: SAE, *, keep_error: bool = False, edit: Edit | None = None) -> Hook:
    """Return a hook that replaces the activation by the SAE's reconstruction, after an optional `edit` of its latents.

    With `keep_error` the reconstruction error is added back, so that only the edit has an effect. Without an edit the
    value then passes through unchanged. Raises `ConfigError` for a transcoder, whose output belongs at another hook
    point (`splice_hooks` returns both hooks), and for a crosscoder.
    """
    if _writes_elsewhere(sae):
        raise ConfigError(
            f"an SAE that reconstructs {sae.hook_point} was expected, {sae} predicts {sae.hook_point_out}; "
            "take `splice_hooks`"
        )
    _check_single_hook_point(sae)

    def hook(value: Tensor, hook: Any = None) -> Tensor:
        return _spliced(sae, value, value, keep_error, edit)

    return hook


def splice_hooks(
    sae: SAE, *, keep_error: bool = False, edit: Edit | None = None, first: int = 0
) -> list[tuple[str, Hook]]:
    """Return the hooks that splice an SAE or a transcoder into a model, each with its hook point.

    The `first` positions keep their values. `keep_error` is as in `splice`; the error of a transcoder is the value at
    its output hook point minus its prediction.
    """
    if not _writes_elsewhere(sae):
        return [(sae.hook_point, keep_positions(splice(sae, keep_error=keep_error, edit=edit), first))]
    read: dict[str, Tensor] = {}

    def reads(value: Tensor, hook: Any = None) -> None:
        read["x"] = value

    def writes(value: Tensor, hook: Any = None) -> Tensor:
        return _spliced(sae, read["x"], value, keep_error, edit)

    return [(sae.hook_point, reads), (sae.hook_point_out, keep_positions(writes, first))]


def _spliced(sae: SAE, x: Tensor, value: Tensor, keep_error: bool, edit: Edit | None) -> Tensor:
    """Return the reconstruction from the input `x` that replaces `value`."""
    if keep_error and edit is None:
        return value
    x = x.to(sae.W_enc.dtype)
    acts = sae.encode(x)
    recons = sae.complete(sae.decode(edit(acts) if edit else acts), x)
    if keep_error:
        recons = value.to(recons.dtype) + (recons - sae.complete(sae.decode(acts), x))
    return recons.to(value.dtype)


def ablate(sae: SAE, *features: int) -> Edit:
    """Return an edit that ablates latents: it sets them to 0. Raises `ConfigError` for a number outside the SAE."""
    _check(sae, features)

    def edit(acts: Tensor) -> Tensor:
        edited = acts.clone()
        edited[..., list(features)] = 0
        return edited

    return edit


def clamp(sae: SAE, feature: int, value: float) -> Edit:
    """Return an edit that clamps a latent to `value` on every token."""
    _check(sae, (feature,))

    def edit(acts: Tensor) -> Tensor:
        edited = acts.clone()
        edited[..., feature] = value
        return edited

    return edit


def steer(sae: SAE, feature: int, amount: float) -> Hook:
    """Return a steering hook for the SAE's output hook point: it adds `amount` times a decoder direction to every
    token.

    Nothing is encoded. For an SAE that normalises tokens, the addition is also multiplied by each token's own scale.
    """
    _check(sae, (feature,))
    _check_single_hook_point(sae)
    direction = sae.decoder_directions[feature] * amount

    def hook(value: Tensor, hook: Any = None) -> Tensor:
        added = direction.to(value.device)
        if not _writes_elsewhere(sae):
            x = value.to(added.dtype)
            added = sae.complete(sae.b_dec + added, x) - sae.complete(sae.b_dec.expand_as(added), x)
        return value + added.to(value.dtype)

    return hook


def steer_hooks(sae: SAE, feature: int, amount: float, *, first: int = 0) -> list[tuple[str, Hook]]:
    """Return the hook of `steer` with its hook point; the `first` positions keep their values."""
    return [(sae.hook_point_out or sae.hook_point, keep_positions(steer(sae, feature, amount), first))]


def keep_positions(inner: Hook, n: int) -> Hook:
    """Return a hook that applies `inner` to all but the first `n` positions (SAEs are trained without BOS)."""

    def hook(value: Tensor, hook: Any = None) -> Tensor:
        return torch.cat([value[:, :n], inner(value, hook=hook)[:, n:]], dim=1)

    return hook


def _writes_elsewhere(sae: SAE) -> bool:
    return sae.hook_point_out not in ("", sae.hook_point)


def _check_single_hook_point(sae: SAE) -> None:
    if isinstance(sae, CrosscoderSAE):
        raise ConfigError(f"{sae} reads several hook points at once; splice an SAE or a transcoder of one of them")


def _check(sae: SAE, features: tuple[int, ...]) -> None:
    for feature in features:
        if not 0 <= feature < sae.d_sae:
            raise ConfigError(f"there is no feature {feature}; choose one of the SAE's features 0 to {sae.d_sae - 1}")


@torch.no_grad()
def continue_tokens(
    model: Any,
    tokens: Int[Tensor, "1 pos"],
    n_new: int,
    *,
    hooks: Sequence[tuple[str, Hook]] = (),
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " {n_new}"]:
    """Return the `[n_new]` token ids that follow `tokens [1, pos]`.

    At temperature 0 these are the most likely ones, above it samples drawn by `generator`. Raises `ConfigError` for a
    negative temperature, sampling without a generator, or a text longer than the context.
    """
    if temperature < 0 or (temperature > 0 and generator is None):
        raise ConfigError(f"temperature must be at least 0, and sampling needs a generator; got {temperature}")
    if tokens.shape[1] + n_new > model.cfg.n_ctx:
        raise ConfigError(
            f"{tokens.shape[1]} tokens and {n_new} new ones exceed the context of {model.cfg.n_ctx}; ask for fewer"
        )
    start = tokens.shape[1]
    for _ in range(n_new):
        logits = run_with_hooks(model, tokens, [*hooks])[0, -1].float()
        tokens = torch.cat([tokens, _next(logits, temperature, generator).view(1, 1).to(tokens)], dim=1)
    return tokens[0, start:]


@torch.no_grad()
def next_token_logits(
    model: Any, tokens: Int[Tensor, "1 pos"], hooks: Sequence[tuple[str, Hook]] = ()
) -> Float32[Tensor, " d_vocab"]:
    """Return the logits `[d_vocab]` float32 of the token that follows `tokens [1, pos]`."""
    return run_with_hooks(model, tokens, [*hooks])[0, -1].float()


def _next(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if not temperature:
        return logits.argmax()
    return torch.multinomial((logits / temperature).softmax(-1).cpu(), 1, generator=generator)[0]
