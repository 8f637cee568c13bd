"""torch's own attention kernel inside a bridge, where no pattern is wanted.

The bridge recomputes attention step by step so that scores and patterns can be hooked. Here the wrapped module's own
forward runs instead, with its fused kernel; the block's other hook points (`hook_q`, `hook_k`, `hook_v`, `hook_z`,
`hook_attn_out`) still fire. Attention scores, patterns and rotated queries do not exist then.
"""

from typing import TYPE_CHECKING, Any

from interp.errors import ConfigError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# hook points of the step-by-step computation
LOST_HOOKS = ("hook_attn_scores", "hook_pattern", "hook_rot_q", "hook_rot_k", "hook_cos", "hook_sin", "hook_result")


def use_fused_attention(model: "TransformerBridge") -> None:
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


def watched_inside(attention: Any) -> bool:
    """Whether some hook listens to the step-by-step computation."""
    points = (getattr(attention, name, None) for name in LOST_HOOKS)
    return any(point is not None and point.has_hooks() for point in points)


class DelegatingForward:
    """The wrapped module's own forward, between the hook points of its input and output."""

    def __init__(self, attention: Any):
        self.attention = attention

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        attention = self.attention
        if "hidden_states" in kwargs:
            kwargs["hidden_states"] = attention.hook_in(kwargs["hidden_states"])
        else:
            args = (attention.hook_in(args[0]), *args[1:])
        out = attention.original_component.forward(*args, **kwargs)
        if isinstance(out, tuple):
            return (attention.hook_out(out[0]), *out[1:])
        return attention.hook_out(out)
