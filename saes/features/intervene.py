"""Hooks that put an SAE into a model: splice its reconstruction in, ablate, clamp or steer a feature.

    model.run_with_hooks(tokens, fwd_hooks=splice_hooks(sae, keep_error=True, edit=ablate(sae, 12)))
    model.run_with_hooks(tokens, fwd_hooks=steer_hooks(sae, 12, 8.0))

A transcoder takes two hooks: one notes what it reads, one replaces what it predicts. A single hook is
`fn(value, hook) -> value`, values are `[batch, pos, d]`. An edit is a function of feature activations,
`[batch, pos, d_sae] -> [batch, pos, d_sae]`.

What a model writes next, with hooks in place: greedily, or sampled from a seed.

The whole text is run again for every token: hooks then see what they would see on a text given at once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from interp.errors import ConfigError
from interp.models.adapter import Hook, run_with_hooks
from saes.kinds.base import SAE
from saes.kinds.crosscoder import CrosscoderSAE

Edit = Callable[[Tensor], Tensor]


def splice(sae: SAE, *, keep_error: bool = False, edit: Edit | None = None) -> Hook:
    """A hook that replaces the activation by the SAE's reconstruction, after an optional `edit` of its features.

    With `keep_error` the part that the SAE cannot reconstruct is added back, so that only the edit changes anything:
    without an edit the value then passes through unchanged. Raises `ConfigError` for a transcoder, whose output belongs
    at another hook point (`splice_hooks` has both hooks), and for a crosscoder.
    """
    if _writes_elsewhere(sae):
        raise ConfigError(f"{sae} predicts {sae.hook_point_out}; it cannot take the place of what it reads")
    _check_place(sae)

    def hook(value: Tensor, hook: Any = None) -> Tensor:
        return _spliced(sae, value, value, keep_error, edit)

    return hook


def splice_hooks(
    sae: SAE, *, keep_error: bool = False, edit: Edit | None = None, first: int = 0
) -> list[tuple[str, Hook]]:
    """The hooks that put an SAE or a transcoder into a model, with the places where they belong.

    The `first` positions keep their values. `keep_error` as in `splice`: the error of a transcoder is what its
    prediction lacks of the value at the place that it writes.
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
    """The value that takes the place of `value`, where `x` was read."""
    if keep_error and edit is None:
        return value
    x = x.to(sae.W_enc.dtype)
    acts = sae.encode(x)
    recons = sae.complete(sae.decode(edit(acts) if edit else acts), x)
    if keep_error:
        recons = value.to(recons.dtype) + (recons - sae.complete(sae.decode(acts), x))
    return recons.to(value.dtype)


def ablate(sae: SAE, *features: int) -> Edit:
    """An edit that switches features off. Raises `ConfigError` on a number that is not a feature."""
    _check(sae, features)

    def edit(acts: Tensor) -> Tensor:
        edited = acts.clone()
        edited[..., list(features)] = 0
        return edited

    return edit


def clamp(sae: SAE, feature: int, value: float) -> Edit:
    """An edit that holds a feature at `value` on every token."""
    _check(sae, (feature,))

    def edit(acts: Tensor) -> Tensor:
        edited = acts.clone()
        edited[..., feature] = value
        return edited

    return edit


def steer(sae: SAE, feature: int, amount: float) -> Hook:
    """A hook for the place that the SAE writes: `amount` units of a feature are added on every token.

    That is its decoder direction times `amount`, and nothing is encoded; where tokens are normalised, times the token's
    own scale too.
    """
    _check(sae, (feature,))
    _check_place(sae)
    direction = sae.decoder_directions[feature] * amount

    def hook(value: Tensor, hook: Any = None) -> Tensor:
        added = direction.to(value.device)
        if not _writes_elsewhere(sae):
            x = value.to(added.dtype)
            added = sae.complete(sae.b_dec + added, x) - sae.complete(sae.b_dec.expand_as(added), x)
        return value + added.to(value.dtype)

    return hook


def steer_hooks(sae: SAE, feature: int, amount: float, *, first: int = 0) -> list[tuple[str, Hook]]:
    """The same with its place; the `first` positions keep their values."""
    return [(sae.hook_point_out or sae.hook_point, keep_positions(steer(sae, feature, amount), first))]


def keep_positions(inner: Hook, n: int) -> Hook:
    """The hook applied to all but the first `n` positions (BOS was not in the training data)."""

    def hook(value: Tensor, hook: Any = None) -> Tensor:
        return torch.cat([value[:, :n], inner(value, hook=hook)[:, n:]], dim=1)

    return hook


def _writes_elsewhere(sae: SAE) -> bool:
    return sae.hook_point_out not in ("", sae.hook_point)


def _check_place(sae: SAE) -> None:
    if isinstance(sae, CrosscoderSAE):
        raise ConfigError(f"{sae} reads several places at once; splice an SAE or a transcoder of one of them")


def _check(sae: SAE, features: tuple[int, ...]) -> None:
    for feature in features:
        if not 0 <= feature < sae.d_sae:
            raise ConfigError(f"feature {feature} is not there; the SAE has features 0 to {sae.d_sae - 1}")


@torch.no_grad()
def continue_tokens(
    model: Any,
    tokens: Tensor,
    n_new: int,
    *,
    hooks: Sequence[tuple[str, Hook]] = (),
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`[n_new]` token ids after `tokens [1, pos]`: the most likely ones, or above temperature 0 drawn by `generator`.

    Raises `ConfigError` for a negative temperature, sampling without a generator, or a text longer than the context.
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
def next_token_logits(model: Any, tokens: Tensor, hooks: Sequence[tuple[str, Hook]] = ()) -> Tensor:
    """`[d_vocab]` float32 after `tokens [1, pos]`."""
    return run_with_hooks(model, tokens, [*hooks])[0, -1].float()


def _next(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if not temperature:
        return logits.argmax()
    return torch.multinomial((logits / temperature).softmax(-1).cpu(), 1, generator=generator)[0]
