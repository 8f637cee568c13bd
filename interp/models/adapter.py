"""The TransformerLens functions that we call, under our names.

Everything outside `interp.models` accesses a model through these functions, so a change of TransformerLens is handled
here. Tensors follow the model's device; nothing here folds or centres weights.

The bridge recomputes attention step by step so that scores and patterns can be hooked. `use_fused_attention` runs the
wrapped module's own forward instead, with its fused kernel. The block's other hook points (`hook_q`, `hook_k`,
`hook_v`, `hook_z`, `hook_attn_out`) still fire; attention scores, patterns and rotated queries do not exist then.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack
from weakref import WeakKeyDictionary

from interp.errors import ConfigError, PromptError
from interp.models.hooked import Hook, HookedModel, PassOptions, wrap_in_memory, wrap_native, wrap_transformers
from interp.models.identity import attention_kernel, tokenizer_hash, tokenizer_of, weight_hash
from interp.names import canonical_hook_point, check_hook_points
from interp.seeds import derive_seed

if TYPE_CHECKING:  # torch is loaded by the first run of a model, so shapes are strings, which no test checks
    import torch
    from jaxtyping import Float, Int, Int64, Shaped
    from torch import Tensor, nn
    from transformer_lens.hook_points import HookPoint, LensHandle

# hook points of the step-by-step computation
LOST_HOOKS = ("hook_attn_scores", "hook_pattern", "hook_rot_q", "hook_rot_k", "hook_cos", "hook_sin", "hook_result")


def use_fused_attention(model: HookedModel) -> None:
    """Switch every attention layer to the fused kernel. Raises `ConfigError` when the architecture has none."""
    plain: Any = model.original_model
    if not hasattr(plain, "set_attn_implementation"):
        raise ConfigError(f"{type(plain).__name__} has no fused attention; use attention='eager'")
    try:
        plain.set_attn_implementation("sdpa")
    except (ValueError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{type(plain).__name__} has no fused attention ({reason}); use attention='eager'") from None
    for block in model.blocks:
        object.__setattr__(block.attn, "forward", DelegatingForward(block.attn))


def watched_inside(attention: object) -> bool:
    """Return whether any hook is attached to the step-by-step computation."""
    points = (getattr(attention, name, None) for name in LOST_HOOKS)
    return any(point is not None and point.has_hooks() for point in points)


class DelegatingForward:
    """Forward pass of the wrapped module, between the hook points of its input and output."""

    def __init__(self, attention: Any):
        self.attention = attention

    def __call__(self, *args: object, **kwargs: object) -> object:
        attention = self.attention
        if "hidden_states" in kwargs:
            kwargs["hidden_states"] = attention.hook_in(kwargs["hidden_states"])
        else:
            args = (attention.hook_in(args[0]), *args[1:])
        out = attention.original_component.forward(*args, **kwargs)
        if isinstance(out, tuple):
            return (attention.hook_out(out[0]), *out[1:])
        return attention.hook_out(out)


def show_float32(model: HookedModel) -> HookedModel:
    """Let hooks and callers of a model in a narrower dtype see float32, and return it; a float32 model is unchanged.

    Weights, products and the values between layers keep the model's dtype. A hook is given the value as float32, and
    what it returns is rounded to the model's dtype; so are residuals that a pass starts from. Logits are float32.
    """
    import torch
    from transformer_lens.hook_points import HookPoint

    if model.cfg.dtype in (torch.bfloat16, torch.float16):
        for point in model.modules():
            if isinstance(point, HookPoint):
                object.__setattr__(point, "add_hook", _Float32Hooks(point))
        object.__setattr__(model, "forward", _Float32Forward(model))
    return model


class _Float32Forward:
    """Forward pass of a model that takes and returns float32."""

    def __init__(self, model: HookedModel):
        self.model = model

    def __call__(self, value: object, *args: object, **kwargs: object) -> object:
        import torch

        out = type(self.model).forward(self.model, _cast(value, self.model.cfg.dtype), *args, **kwargs)
        if isinstance(out, tuple):
            return tuple(_cast(part, torch.float32) for part in out)
        return _cast(out, torch.float32)


class _Float32Hooks:
    """`add_hook` of a hook point, for hooks that see and return float32."""

    def __init__(self, point: "HookPoint"):
        self.point = point

    def __call__(self, hook: Hook, *args: Any, **kwargs: Any) -> "LensHandle":
        shown: Any = partial(_call_in_float32, hook)
        return type(self.point).add_hook(self.point, shown, *args, **kwargs)


def _call_in_float32(function: Hook, tensor: "Float[Tensor, '...']", *, hook: object) -> Any:
    """Call a hook with a value as float32. The value it saw is passed on in any case, so that gradients reach it."""
    import torch

    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        return function(tensor, hook=hook)
    seen = tensor.float()
    out = function(seen, hook=hook)
    return _cast(seen if out is None else out, tensor.dtype)


def widened(weight: "Float[Tensor, '...']") -> "Float[Tensor, '...']":
    """Return a tensor of a narrow dtype as float32, others unchanged: analyses compute with weights in 32 bits."""
    return weight.float() if weight.dtype.itemsize < 4 else weight


def applied(module: "nn.Module", value: "Float[Tensor, '...']") -> "Float[Tensor, '...']":
    """Return the output of a model's module for a value, computed in the model's dtype, in the dtype of the value."""
    dtype = next((parameter.dtype for parameter in module.parameters()), value.dtype)
    return module(value.to(dtype)).to(value.dtype) if dtype.itemsize < 4 else module(value)


def _cast(value: object, dtype: "torch.dtype") -> object:
    import torch

    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


__all__ = [
    "available_hook_points", "bos_token_id", "final_norm_and_unembed", "head_shape", "hook_points_by_name",
    "logit_cap", "mlp_hook_points", "ordinary_tokens", "run_with_cache", "run_with_hooks", "to_tokens",
    "token_strings", "token_text", "tokenizer_hash", "untrained_model", "weight_hash",
]  # fmt: skip

# These fire only while a flag of the config is on (`model.set_use_attn_result(True)` and so on).
_NEEDS_FLAG = {
    "hook_result": "use_attn_result",
    "hook_q_input": "use_split_qkv_input",
    "hook_k_input": "use_split_qkv_input",
    "hook_v_input": "use_split_qkv_input",
    "hook_attn_in": "use_attn_in",
    "hook_mlp_in": "use_hook_mlp_in",
}


class HeadShape(NamedTuple):
    """The sizes of a model."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    """key-value heads; query head h reads key-value head `h // (n_heads // n_kv_heads)`"""
    d_head: int
    d_model: int
    d_mlp: int | None
    """None in attention-only models"""
    d_vocab: int
    n_ctx: int


def head_shape(model: HookedModel) -> HeadShape:
    """Return numbers of layers and heads, and widths."""
    cfg = model.cfg
    has_mlp = any(name.startswith("blocks.0.mlp.") for name in available_hook_points(model))
    return HeadShape(
        n_layers=cfg.n_layers,
        n_heads=cfg.n_heads,
        n_kv_heads=cfg.n_key_value_heads or cfg.n_heads,
        d_head=cfg.d_head,
        d_model=cfg.d_model,
        d_mlp=cfg.d_mlp if has_mlp else None,
        d_vocab=cfg.d_vocab,
        n_ctx=cfg.n_ctx,
    )


def available_hook_points(model: HookedModel) -> set[str]:
    """Return every hook point that exists under the model's current flags, by canonical name."""
    return set(hook_points_by_name(model))


_POINTS: "WeakKeyDictionary[HookedModel, tuple[tuple[object, ...], dict[str, HookPoint]]]" = WeakKeyDictionary()

# Declared, but never passed through; an edit of the last two changes nothing, as only their shape is used.
_IDLE = re.compile(
    r"\.hook_hidden_states$|^rotary_emb\.hook_out$|\.qkv\.hook_(in|out)$|^(rotary|pos)_emb(ed)?\.hook_in$"
)
# Where the bridge does not compute attention step by step, the scores are the pattern after the softmax, and rotated
# queries never appear.
_BY_STEPS = ("hook_attn_scores", "hook_rot_q", "hook_rot_k", "hook_cos", "hook_sin")


def _attends_in_steps(model: HookedModel) -> bool:
    """Return False for a model whose attention is computed by the wrapped module: TransformerLens' own, and OPT."""
    from transformer_lens.model_bridge.generalized_components import AttentionBridge

    return type(getattr(model.blocks[0], "attn", None)) is not AttentionBridge


MASKED_SCORE = -1e30
"""Scores below it are masked: some models write the least number instead of minus infinity."""


def pattern_is_editable(model: HookedModel) -> bool:
    """Return whether an edit of `hook_pattern` reaches the logits: in OPT the hook sees a copy."""
    return _attends_in_steps(model) or not hasattr(model.original_model, "config")


def hook_points_by_name(model: HookedModel) -> "Mapping[str, HookPoint]":
    """Map canonical names to TransformerLens' `HookPoint` objects: those that see what their names say.

    Their edits reach the logits, but for patterns where `pattern_is_editable` says no; `interp.doctor` tries them all.
    Found once for the model's current flags: every pass with hooks asks for them.
    """
    flags = (attention_kernel(model), *(bool(getattr(model.cfg, flag, False)) for flag in _NEEDS_FLAG.values()))
    known = _POINTS.get(model)
    if known is None or known[0] != flags:
        known = _POINTS[model] = flags, _find_hook_points(model)
    return known[1]


def _find_hook_points(model: HookedModel) -> "dict[str, HookPoint]":
    fused, in_steps = attention_kernel(model) == "sdpa", _attends_in_steps(model)
    joint = "JointQKV" in type(getattr(model.blocks[0], "attn", None)).__name__  # rotates what no hook point sees
    points = {}
    for name, point in model.hook_dict.items():
        last = name.rsplit(".", 1)[-1]
        if last in _NEEDS_FLAG and not getattr(model.cfg, _NEEDS_FLAG[last], False):
            continue
        if _IDLE.search(str(point.name)) or (last in _BY_STEPS and not in_steps):
            continue
        if last in ("hook_rot_q", "hook_rot_k") and joint:
            continue
        if canonical_hook_point(name).endswith("hook_resid_mid") and canonical_hook_point(name) not in model.hook_dict:
            continue  # attention and MLP are parallel: there is no residual between them
        if fused and ".attn." in name and last in LOST_HOOKS:
            continue
        points[canonical_hook_point(name)] = point
    return points


MLP_IN, MLP_OUT, MLP_OUT_BEFORE_NORM = "mlp.hook_in", "hook_mlp_out", "ln2_post.hook_in"
"""Hook points inside a block: the MLP's input after its norm, what it adds to the residual stream, and its own output
where a norm follows (Gemma 2 and 3; `hook_mlp_out` lies after that norm)."""


def default_hook_point(model: HookedModel) -> str:
    """Return the hook point that is recorded where none is named: the residual stream after a third of the blocks."""
    return after_a_third(model.cfg.n_layers)


def after_a_third(n_layers: int) -> str:
    """Return the residual stream after a third of the blocks."""
    return f"blocks.{max(n_layers // 3 - 1, 0)}.hook_resid_post"


def mlp_hook_points(model: HookedModel) -> list[str]:
    """Return the input of every MLP, after its norm, and its output, before any norm that follows."""
    return mlps_among(available_hook_points(model), model.cfg.n_layers)


def mlps_among(offered: set[str], n_layers: int) -> list[str]:
    """Return `mlp_hook_points` of a model that offers these hook points."""
    out = MLP_OUT_BEFORE_NORM if f"blocks.0.{MLP_OUT_BEFORE_NORM}" in offered else MLP_OUT
    return [f"blocks.{layer}.{name}" for layer in range(n_layers) for name in (MLP_IN, out)]


def run_with_cache(
    model: HookedModel,
    tokens: "Int[Tensor, 'batch pos']",
    hook_points: list[str],
    *,
    stop_at_layer: int | None = None,
) -> "tuple[Float[Tensor, 'batch ...'], dict[str, Shaped[Tensor, 'batch ...']]]":
    """Return logits, and values by hook point, for `tokens [batch, pos]`; without gradients.

    With `stop_at_layer` below the number of layers the first value is the residual before that layer.
    Raises `UnknownNameError` for a hook point that the model does not have.
    """
    import torch

    names = check_hook_points(hook_points, available_hook_points(model), model.cfg.n_layers)
    with torch.no_grad():
        out, cache = model.run_with_cache(
            tokens, names_filter=names, stop_at_layer=stop_at_layer, return_cache_object=False
        )
    return out, {name: cache[name] for name in names}


def without_cache(model: HookedModel) -> PassOptions:
    """Return options of a pass that fills no key-value cache: a plain forward of a model of transformers fills one."""
    return {"use_cache": False} if hasattr(getattr(model.original_model, "config", None), "use_cache") else {}


def key_value_cache(model: HookedModel) -> Any:
    """Return an empty key-value cache for a model of transformers, None for one that has none."""
    config = getattr(model.original_model, "config", None)
    if not hasattr(config, "use_cache"):
        return None
    from transformers.cache_utils import DynamicCache

    return DynamicCache(config=config)


def run_with_hooks(
    model: HookedModel,
    tokens: "Int[Tensor, 'batch pos']",
    hooks: list[tuple[str, Hook]],
    **options: Unpack[PassOptions],
) -> "Float[Tensor, 'batch pos d_vocab']":
    """Return logits of a run in which hooks read or replace values.

    Args:
        model: runs once; it is unchanged afterwards.
        tokens: ids, `[batch, pos]`.
        hooks: pairs of a hook point and a function of the value there, which returns a new value or None. Hooks of one
            hook point run in the order given.
        options: of the pass, such as an attention mask or a cache of keys and values.
    Returns: logits `[batch, pos, d_vocab]`.

    >>> def halve(value, hook):
    ...     return value / 2
    >>> run_with_hooks(model, tokens, [("blocks.1.hook_attn_out", halve)]).shape
    torch.Size([1, 20, 257])
    """
    check_hook_points([name for name, _ in hooks], available_hook_points(model), model.cfg.n_layers)
    named = [(canonical_hook_point(name), hook) for name, hook in hooks]
    return model.run_with_hooks(tokens, fwd_hooks=named, **options)


def final_norm_and_unembed(
    model: HookedModel, resid: "Float[Tensor, '*batch d_model']"
) -> "Float[Tensor, '*batch d_vocab']":
    """Return logits `[..., d_vocab]` of residual values `[..., d_model]`: the final norm, unembedding and soft cap."""
    flat = resid.reshape(1, -1, resid.shape[-1])
    narrow = model.cfg.dtype.itemsize < 4
    flat = flat.to(model.cfg.dtype) if narrow else flat
    logits = model.unembed(model.ln_final(flat)) if hasattr(model, "ln_final") else model.unembed(flat)
    logits = logits.float() if narrow else logits
    cap = logit_cap(model)
    logits = logits if cap is None else cap * (logits / cap).tanh()
    return logits.reshape(*resid.shape[:-1], -1)


def logit_cap(model: HookedModel) -> float | None:
    """Return the soft cap of the logits, `cap * tanh(logit / cap)` (Gemma 2), or None without one."""
    cap = getattr(model.cfg, "output_logits_soft_cap", None)
    return float(cap) if cap is not None and cap > 0 else None


def to_tokens(model: HookedModel, text: str, prepend_bos: bool = True) -> "Int64[Tensor, '1 pos']":
    """Return the token ids of a prompt, with BOS first when the model has one.

    Args:
        model: has the tokenizer; small models of the workbench read bytes.
        text: the prompt.
        prepend_bos: False leaves the BOS out, as for the ids of a single word.
    Returns: int64 ids, `[1, pos]`.
    Raises:
        PromptError: the prompt is empty or longer than the model's context.

    >>> to_tokens(model, "hello").shape  # BOS and five bytes
    torch.Size([1, 6])
    """
    import torch

    if not text:
        raise PromptError("the prompt is empty; type some text")
    tokenizer = tokenizer_of(model)
    ids = list(tokenizer.encode_batch([text])[0])
    if not ids:
        raise PromptError(f"the prompt {text!r} has no tokens; type some text")
    if prepend_bos and tokenizer.bos_token_id is not None:
        ids = [tokenizer.bos_token_id, *ids]
    if len(ids) > model.cfg.n_ctx:
        raise PromptError(
            f"the prompt has {len(ids)} tokens, the model's context holds {model.cfg.n_ctx}; shorten the prompt"
        )
    return torch.tensor([ids], device=model.cfg.device)


def token_text(model: HookedModel, token: int) -> str:
    """Return the text of one token, with plain spaces and newlines; without a tokenizer, its number."""
    tokenizer = tokenizer_of(model, required=False)
    return str(token) if tokenizer is None else tokenizer.token_text(int(token))


def token_strings(model: HookedModel, tokens: "Int[Tensor, '...'] | list[int]") -> list[str]:
    """Return the text of each token, a leading space kept.

    Args:
        model: has the tokenizer.
        tokens: ids, `[n]`, or a list of them.

    >>> token_strings(model, to_tokens(model, "a b", prepend_bos=False)[0])
    ['a', ' ', 'b']
    """
    known: dict[int, str] = {}
    ids = tokens if isinstance(tokens, list) else tokens.flatten().tolist()
    for token in ids:
        if token not in known:
            known[token] = token_text(model, token)
    return [known[token] for token in ids]


def bos_token_id(model: HookedModel) -> int | None:
    """Return the beginning-of-sequence token, or None when the model has none."""
    tokenizer = tokenizer_of(model, required=False)
    return None if tokenizer is None else tokenizer.bos_token_id


def unseen_positions(model: HookedModel) -> int:
    """Return how many positions at the start no dictionary saw in training: 1 where the model has a BOS token.

    The residual stream of a BOS token differs from all others.
    """
    return int(bos_token_id(model) is not None)


def ordinary_tokens(model: HookedModel) -> "Int64[Tensor, ' n']":
    """Return all token ids, `[n]` int64, except special ones (BOS, padding, chat markers, unused embedding rows)."""
    import torch

    d_vocab = int(model.cfg.d_vocab)
    special = {bos_token_id(model)}
    if model.tokenizer is not None:
        special |= set(model.tokenizer.all_special_ids) | set(model.tokenizer.added_tokens_decoder)
        d_vocab = min(d_vocab, len(model.tokenizer))
    return torch.tensor([token for token in range(d_vocab) if token not in special])


def check_token_ids(model: HookedModel, tokens: "Int[Tensor, '...']") -> None:
    """Raise `PromptError` unless all entries are token ids of the model, and its context holds rows `[..., pos]`."""
    import torch

    if not isinstance(tokens, torch.Tensor) or tokens.dtype not in (torch.int64, torch.int32) or not tokens.numel():
        came = getattr(tokens, "dtype", ""), list(getattr(tokens, "shape", []))
        raise PromptError(
            f"expected an int64 tensor of token ids, got {type(tokens).__name__} of {came[0]} {came[1]}; use the "
            "output of `to_tokens`"
        )
    low, high, n = int(tokens.min()), int(tokens.max()), model.cfg.d_vocab
    if low < 0 or high >= n:
        raise PromptError(f"expected token ids from 0 to {n - 1}, got {low} to {high}; use the model's own tokenizer")
    if tokens.ndim > 1 and tokens.shape[-1] > model.cfg.n_ctx:
        raise PromptError(f"the model's context holds {model.cfg.n_ctx} tokens, got rows of {tokens.shape[-1]}")


def untrained_model(model: HookedModel, seed: int) -> HookedModel:
    """Return a randomly initialised model of the same architecture and tokenizer: the untrained null of an analysis.

    Args:
        model: the trained one; its device and dtype are kept.
        seed: the same gives the same weights.
    Returns: a model in evaluation mode.

    >>> weight_hash(untrained_model(model, seed=1)) == weight_hash(model)
    False
    """
    plain, cfg = model.original_model, model.cfg
    seed = derive_seed(seed, "untrained twin") % 2**31  # so that an untrained model gets other weights than its own
    if not hasattr(plain, "config"):
        twin_cfg = type(cfg).from_dict({**cfg.to_dict(), "seed": seed})
        return show_float32(wrap_native(twin_cfg, device=str(cfg.device), dtype=cfg.dtype))
    with _seeded(seed):
        # from the class, not the instance, whose modules are wrapped
        fresh = type(plain)(plain.config).to(device=cfg.device, dtype=cfg.dtype).eval()
    if model.tokenizer is None:  # made in memory, so that there is no folder or hub page to read anything from
        return show_float32(wrap_in_memory(fresh))
    return show_float32(
        wrap_transformers(fresh, str(cfg.model_name), model.tokenizer, device=str(cfg.device), dtype=cfg.dtype)
    )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator within the block, and restore it afterwards: initialisers use no other."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
