"""Forward passes through a part of the model, with values captured, and the loss per token of a pass.

A pass starts at a residual and goes no further than needed.

`run_from` and `capture` run any part of the model with hooks. `Capture` is for many passes over the same hook points,
as recording needs. `run_with_cache` gives the same numbers (bit for bit; tested); `Capture` skips everything that
recording does not need: layers and logits after the last hook point, the key-value cache, and values inside norms and
attention that the bridge computes a second time for hook points without hooks.

Measures of in-context learning are derived from losses. A low loss is behaviour, not mechanism: models copy by other
means than induction heads too.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor, nn

from interp.errors import ConfigError, PromptError
from interp.models.adapter import DelegatingForward, hook_points_by_name, key_value_cache, watched_inside, without_cache
from interp.models.hooked import Hook, HookedModel, PassOptions
from interp.names import parse_hook_point

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint, LensHandle

K = TypeVar("K")
LOGIT_VALUES = 1 << 26
"""Largest number of logits of a pass whose losses are read (256 MB in float32)."""
_EXTRAS: "WeakKeyDictionary[HookedModel, tuple[int | None]]" = WeakKeyDictionary()


class _Seen(Exception):
    """Raised inside a pass once all wanted values are captured."""


def block_after(model: HookedModel, hook_point: str) -> int | None:
    """Return the block that reads a hook point between two blocks; None for any other hook point.

    What is added there needs no hook: `run_from` takes the changed values.
    """
    point = parse_hook_point(hook_point)
    following = -1 if point.layer is None else point.layer + 1
    return following if point.suffix == "hook_resid_post" and 0 < following < model.cfg.n_layers else None


def run_from(
    model: HookedModel,
    value: Tensor,
    hooks: Sequence[tuple[str, Hook]] = (),
    *,
    layer: int = 0,
    until: str | None = None,
    past: object = None,
    gradients: bool = False,
) -> Tensor | None:
    """Run the model with hooks from block `layer` on, and return the logits; earlier blocks do not run.

    `value` is either integer tokens `[batch, pos]`, with `layer` 0, or the residual before that block,
    `[batch, pos, d_model]`. With `until`, the name of a hook point, the pass ends there and the result is None. `past`
    has keys and values of the positions before the first of `value` (`past_of`), and takes up those of `value`.
    Hooks run in the order given, also those on one hook point. With `gradients` autograd follows the pass.
    """
    hooks = list(hooks)
    if until is not None:
        hooks.append((until, _stop))
    options: PassOptions = without_cache(model) if past is None else {"past_key_values": past, "use_cache": True}
    if value.is_floating_point():
        options["start_at_layer"] = layer
    skipping = _skipping(model, layer) if value.is_floating_point() else contextlib.nullcontext()
    with skipping, torch.set_grad_enabled(gradients):
        try:
            return model.run_with_hooks(value, fwd_hooks=hooks, **options)
        except _Seen:
            return None


def past_of(model: HookedModel, value: Float[Tensor, "1 pos d"], layer: int) -> Any:
    """Return the keys and values of residuals before block `layer` in the blocks from there on, for `run_from`.

    None for a model that keeps none.
    """
    past = key_value_cache(model)
    if past is not None:
        run_from(model, value, layer=layer, until="unembed.hook_in", past=past)
        for skipped in range(layer):  # the length of the past is read there
            nothing = value.new_zeros(1, 1, value.shape[1], 1)
            past.update(nothing, nothing, skipped)
    return past


@contextlib.contextmanager
def _skipping(model: HookedModel, layer: int) -> Iterator[None]:
    """Replace blocks before `layer` by the identity; TransformerLens would run them on a dummy input."""
    extras = _block_extras(model) if layer else 0
    skipped = list(model.blocks)[:layer]

    def identity(*args: Tensor, **kwargs: Tensor) -> Tensor | tuple[Tensor | None, ...]:
        hidden = args[0] if args else kwargs["hidden_states"]
        return hidden if extras is None else (hidden, *[None] * extras)

    for block in skipped:
        object.__setattr__(block, "forward", identity)
    try:
        yield
    finally:
        for block in skipped:
            object.__delattr__(block, "forward")


def _block_extras(model: HookedModel) -> int | None:
    """Return the number of values that a block returns besides its output; None when it returns a plain tensor.

    A pass over two tokens finds it.
    """
    known = _EXTRAS.get(model)
    if known is None:
        block, seen = model.blocks[0], []
        plain = block.forward

        def watch(*args: object, **kwargs: object) -> None:
            out = plain(*args, **kwargs)
            seen.append(len(out) - 1 if isinstance(out, tuple) else None)
            raise _Seen

        object.__setattr__(block, "forward", watch)
        try:
            with contextlib.suppress(_Seen):
                model(torch.zeros(1, 2, dtype=torch.long, device=model.cfg.device))
        finally:
            object.__delattr__(block, "forward")
        known = _EXTRAS[model] = (seen[0],)
    return known[0]


def capture(
    model: HookedModel, value: Tensor, names: Sequence[str], *, layer: int = 0, hooks: Sequence[tuple[str, Hook]] = ()
) -> dict[str, Tensor]:
    """Return the values at hook points, from a pass that ends once all of them have fired."""
    seen: dict[str, Tensor] = {}

    def save(value: Tensor, hook: object, name: str) -> None:
        seen[name] = value.detach()
        if len(seen) == len(set(names)):
            raise _Seen

    run_from(model, value, [*hooks, *((name, _named(save, name)) for name in names)], layer=layer)
    return {name: seen[name] for name in names}


def gather_positions(
    values: Float[Tensor, "batch pos d"], at: Int[Tensor, "batch n_read"]
) -> Float[Tensor, "batch n_read d"]:
    """Return `values [batch, pos, d]` at positions `at [batch, n_read]`, `[batch, n_read, d]`."""
    return values[torch.arange(len(values), device=values.device)[:, None], at.to(values.device)]


def read_hook(at: Int[Tensor, "batch n_read"]) -> tuple[str, Hook]:
    """Return a hook that passes only positions `at [batch, n_read]` to the unembedding; other logits are not computed.

    It is after the final norm, since models reshape the residual stream before that.
    """
    return "unembed.hook_in", lambda value, hook: gather_positions(value, at)


def storing_hook(store: dict[K, Tensor], name: K) -> Hook:
    """Return a hook that stores the value it sees as `store[name]`."""

    def save(value: Tensor, hook: object) -> None:
        store[name] = value.detach()

    return save


def _named(save: Callable[[Tensor, object, str], None], name: str) -> Hook:
    return lambda value, hook: save(value, hook, name)


def _stop(value: Tensor, hook: object) -> None:
    raise _Seen


class Capture:
    """Hooks installed for the length of a `with` block.

        with Capture(model, ["blocks.9.hook_resid_post"]) as capture:
            values = capture(tokens)["blocks.9.hook_resid_post"]     # [batch, pos, d_model]

    `hook_points` are canonical names that the model has (`interp.names.check_hook_points`). With `gradients` every
    value depends on the first one, in the order of the pass, so that it can be differentiated in it.
    """

    def __init__(self, model: HookedModel, hook_points: Sequence[str], *, gradients: bool = False):
        self.model, self.names, self._gradients = model, list(hook_points), gradients
        self._values: dict[str, Tensor] = {}
        self._handles: list[tuple[HookPoint, LensHandle]] = []
        self._shortened: list[tuple[nn.Module, str]] = []
        self._options: PassOptions = {**without_cache(model), "return_type": None}

    def __enter__(self) -> "Capture":
        points = hook_points_by_name(self.model)
        for name in self.names:
            point = points[name]
            self._handles.append((point, point.add_hook(self._keep(name))))
        for norm in unwatched_native_norms(self.model):
            self._shorten(norm, "_hf_autograd_forward_with_hooks", partial(_plain_norm, norm.original_component))
        for attention in unwatched_attention(self.model):
            self._shorten(attention, "forward", DelegatingForward(attention))
        return self

    def __exit__(self, *_: object) -> None:
        for module, method in self._shortened:
            object.__delattr__(module, method)
        for point, handle in self._handles:
            handle.hook.remove()
            point.fwd_hooks.remove(handle)
        self._shortened.clear()
        self._handles.clear()

    def __call__(self, tokens: Tensor) -> dict[str, Tensor]:
        """Return values `[batch, pos, ...]` by hook point for `tokens [batch, pos]`, in the model's dtype.

        Raises `ConfigError` when a hook point did not fire.
        """
        self._values = {}
        try:
            # not inference_mode: a model may cache rotary tables while it runs, and be trained later
            with torch.set_grad_enabled(self._gradients):
                self.model(tokens.to(self.model.cfg.device), **self._options)
        except _Seen:
            pass
        missing = [name for name in self.names if name not in self._values]
        if missing:
            raise ConfigError(
                f"the model has {', '.join(missing)} but did not pass through it; choose another hook point"
            )
        values, self._values = self._values, {}
        return values

    def _shorten(self, module: nn.Module, method: str, replacement: Callable[..., object]) -> None:
        """Override a method on the instance within the block."""
        object.__setattr__(module, method, replacement)
        self._shortened.append((module, method))

    def _keep(self, name: str) -> Hook:
        def hook(value: Tensor, hook: object) -> Tensor | None:
            first = self._gradients and not self._values
            if first:
                value = value.detach().requires_grad_()
            self._values[name] = value
            if len(self._values) == len(self.names):
                raise _Seen
            return value if first else None

        return hook


def _plain_norm(norm: nn.Module, x: Tensor) -> Tensor:
    return norm(x).to(x.dtype)


def unwatched_native_norms(model: HookedModel) -> list[Any]:
    """Return norms whose output equals the wrapped module's, and whose inner hook points have no hooks."""
    from transformer_lens.model_bridge.generalized_components import NormalizationBridge

    norms = {}
    for module in model.modules():
        if not isinstance(module, NormalizationBridge) or module.original_component is None:
            continue
        native = module.use_native_layernorm_autograd or getattr(module.config, "layer_norm_folding", False)
        if native and not (module.hook_scale.has_hooks() or module.hook_normalized.has_hooks()):
            norms[id(module)] = module
    return list(norms.values())


def unwatched_attention(model: HookedModel) -> list[nn.Module]:
    """Return attention layers whose wrapped module gives the bridge's numbers, and whose inner hook points have no
    hooks.

    Rotary models only, for which both were found to agree bit for bit; none while a flag of the bridge asks for values
    that the wrapped module does not compute (per-head results, split inputs).
    """
    from transformer_lens.model_bridge.generalized_components import PositionEmbeddingsAttentionBridge

    flags = ("use_attn_result", "use_split_qkv_input", "use_attn_in")
    if any(getattr(model.cfg, flag, False) for flag in flags):
        return []
    layers = [getattr(block, "attn", None) for block in getattr(model, "blocks", [])]
    return [
        layer
        for layer in layers
        if type(layer) is PositionEmbeddingsAttentionBridge
        and "forward" not in layer.__dict__  # permanently delegated, in a model with the fused kernel
        and not watched_inside(layer)
    ]


def token_losses(
    logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"]
) -> Float32[Tensor, "batch pos-1"]:
    """`[batch, pos - 1]` float32 nats: entry `t` is the loss of token `t + 1` given tokens `0 .. t`.

    `logits [batch, pos, d_vocab]`, `tokens [batch, pos]`. 0 is certainty, `log(d_vocab)` a uniform guess.
    """
    targets = tokens[:, 1:, None].to(logits.device)
    pairs = zip(logits[:, :-1], targets, strict=True)  # row by row, so that no second array of that size exists
    return torch.stack([row.float().logsumexp(-1) - row.gather(-1, target)[..., 0].float() for row, target in pairs])


@torch.no_grad()
def loss_per_token(
    model: HookedModel, tokens: Int[Tensor, "..."], *, batch_size: int = 16
) -> Float32[Tensor, "batch targets"]:
    """Return the loss at each token but the first, `[batch, pos - 1]` float32 nats on the CPU.

    Logits of `batch_size` prompts exist at a time, of fewer where they would be more than `LOGIT_VALUES` numbers.

    Raises `PromptError` on prompts of fewer than two tokens.
    """
    if tokens.ndim != 2 or tokens.shape[1] < 2:
        raise PromptError(f"losses need tokens [batch, pos] with at least 2 positions, got {list(tokens.shape)}")
    size = max(1, min(batch_size, LOGIT_VALUES // (tokens.shape[1] * model.cfg.d_vocab)))
    return torch.cat([token_losses(model(rows), rows).cpu() for rows in tokens.split(size)])


def repeat_losses(
    losses: Float[Tensor, "batch targets"], lags: Int[Tensor, " batch"] | int, *, start: int = 0
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Per prompt, the mean loss `[batch]` of the first block's tokens and of all tokens after it (nats).

    `losses [batch, pos - 1]`; `lags [batch]` are the block lengths (`interp.text.tokens.RandomPrompts`), `start` is the
    index of the first block's first token: 1 after a BOS. The first token of the repeat is among the second, although
    nothing before it says that a repeat begins. Without a BOS the very first token has no loss and is left out.

    Raises `ConfigError` when a prompt has no token in one of the two.
    """
    lags = torch.as_tensor(lags, device=losses.device).expand(len(losses))
    target = torch.arange(1, losses.shape[1] + 1, device=losses.device)[None]
    second = target >= start + lags[:, None]
    first = (target >= start) & ~second
    if not (first.any(1) & second.any(1)).all():
        raise ConfigError(
            f"every prompt needs a token before and after its repeat begins; {losses.shape[1] + 1} tokens that start "
            f"at {start} cannot hold lags up to {int(lags.max())}"
        )
    return _masked_mean(losses, first), _masked_mean(losses, second)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(1) / mask.sum(1)
