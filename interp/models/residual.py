"""The residual stream as a sum: the components that write to it and read from it, with their weights.

Circuit analyses need three things that hooks alone do not give: the input that a component would get from another
residual (`project`), the output of a single head (`head_output`), and a check that the residual is the plain sum of
component outputs (`check_additive`). With grouped-query attention a head's keys and values are those of its group,
`kv_head(head)`; query-side tensors have `n_heads`, key-value-side ones `n_kv_heads`.

    residual = ResidualStream(model)          # refuses a model whose residual is not a plain sum
    k = residual.project(layer, "k", resid)   # [batch, pos, n_kv_heads, d_head], the value of hook_k
    out = residual.head_output(layer, z)      # [batch, pos, n_heads, d_model], summing (plus bias) to hook_attn_out

Weights are raw, with the layout of the field: `x @ W_Q`. Nothing is folded or copied unless said.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakSet

from einops import einsum, rearrange

from interp.errors import ConfigError, UnknownNameError
from interp.names import HeadName

if TYPE_CHECKING:
    from torch import Tensor

Side = Literal["q", "k", "v"]
SIDES: tuple[Side, ...] = ("q", "k", "v")
_ADDITIVE: "WeakSet[Any]" = WeakSet()


class ResidualStream:
    """Components of one model around its residual stream. Cheap to make; holds no activations.

    Raises `ConfigError` when the residual is not a plain sum, so that contributions of heads are undefined: blocks that
    norm their outputs before adding them (Gemma 2 and 3), residual multipliers (Granite).
    """

    def __init__(self, model: Any):
        from interp.models.adapter import head_shape

        self.model = model
        self.shape = head_shape(model)
        _refuse_post_norm(model)
        self.parallel = bool(getattr(model.cfg, "parallel_attn_mlp", False))
        """True when the MLP reads the block's input (GPT-NeoX), False when it reads the stream after attention."""
        _check_once(self)

    @property
    def has_mlp(self) -> bool:
        return self.shape.d_mlp is not None

    @cached_property
    def device(self) -> Any:
        return next(self.model.parameters()).device

    def kv_head(self, head: int) -> int:
        """Return the key-value head that query head `head` reads."""
        return head // (self.shape.n_heads // self.shape.n_kv_heads)

    def heads_of_group(self, kv_head: int) -> range:
        """Return the query heads that read key-value head `kv_head`."""
        size = self.shape.n_heads // self.shape.n_kv_heads
        return range(kv_head * size, (kv_head + 1) * size)

    def n_side_heads(self, side: Side) -> int:
        """Return `n_heads` for queries, `n_kv_heads` for keys and values."""
        return self.shape.n_heads if side == "q" else self.shape.n_kv_heads

    def check_head(self, head: HeadName) -> HeadName:
        """Return the head if the model has it. Raises `UnknownNameError`."""
        if not (0 <= head.layer < self.shape.n_layers and 0 <= head.head < self.shape.n_heads):
            raise UnknownNameError(
                "head",
                str(head),
                [],
                f"The model has {self.shape.n_layers} layers of {self.shape.n_heads} heads, both counted from 0.",
            )
        return head

    def all_heads(self) -> list[HeadName]:
        """Return every head, layer by layer."""
        return [HeadName(layer, head) for layer in range(self.shape.n_layers) for head in range(self.shape.n_heads)]

    def W(self, layer: int, side: Literal["q", "k", "v", "o"]) -> "Tensor":
        """Return weights of a layer: q `[n_heads, d_model, d_head]`, k, v `[n_kv_heads, ..]`, o `[n_heads, d_head,
        d_model]`.
        """
        return getattr(self.model.blocks[layer].attn, f"W_{side.upper()}")

    def b(self, layer: int, side: Literal["q", "k", "v", "o"]) -> "Tensor | None":
        """Return the bias, `[heads, d_head]` or `[d_model]` for o; None when the model has none."""
        return getattr(self.model.blocks[layer].attn, f"b_{side.upper()}", None)

    def norm1(self, layer: int, resid: "Tensor") -> "Tensor":
        """Return the input of attention: the block's first norm of `resid [..., d_model]`, or `resid` without norms."""
        return _norm(self.model.blocks[layer], "ln1", resid)

    def norm2(self, layer: int, resid: "Tensor") -> "Tensor":
        """Return the input of the MLP: the block's second norm of `resid [..., d_model]`."""
        return _norm(self.model.blocks[layer], "ln2", resid)

    def norm_final(self, resid: "Tensor") -> "Tensor":
        """Return the input of the unembedding: the final norm of `resid [..., d_model]`."""
        return _norm(self.model, "ln_final", resid)

    def project(self, layer: int, side: Side, resid: "Tensor") -> "Tensor":
        """Return the value of `attn.hook_q` (k, v), `[batch, pos, heads, d_head]`, for block input `resid`.

        `resid [batch, pos, d_model]` is before the norm, whose scale is recomputed. The result is before rotation.
        """
        linear = getattr(self.model.blocks[layer].attn, side).original_component
        heads = linear(self.norm1(layer, resid))
        return rearrange(heads, "... (heads d_head) -> ... heads d_head", d_head=self.shape.d_head)

    def head_output(self, layer: int, z: "Tensor", head: int | None = None) -> "Tensor":
        """Return head outputs `[..., n_heads, d_model]` of `z [..., n_heads, d_head]`, or `[..., d_model]` of one head.

        All heads take `n_heads` times the memory of the residual: ask for one head, or work layer by layer.
        """

        W_O = self.W(layer, "o")
        if head is not None:
            return z[..., head, :] @ W_O[head]
        return einsum(z, W_O, "... heads d_head, heads d_head d_model -> ... heads d_model")

    def mlp(self, layer: int, resid: "Tensor") -> "Tensor":
        """Return the output of the MLP for the stream `resid [batch, pos, d_model]`."""
        return self.model.blocks[layer].mlp(self.norm2(layer, resid))

    def logits(self, resid: "Tensor") -> "Tensor":
        """Return logits of a final residual, through the final norm: `[..., d_vocab]`."""
        from interp.models.adapter import final_norm_and_unembed

        return final_norm_and_unembed(self.model, resid)

    def mlp_reads(self, layer: int) -> str:
        """Return the hook point of the stream that the MLP of a layer reads."""
        return f"blocks.{layer}.hook_resid_pre" if self.parallel else f"blocks.{layer}.hook_resid_mid"

    def check_additive(self, tolerance: float | None = None) -> float:
        """Return the largest relative error of `resid_post = resid_pre + sum of heads + bias + MLP` on four tokens.

        Raises `ConfigError` when it exceeds `tolerance` (by default 0.001, 0.05 in 16-bit models): then a head's output
        is not its contribution (a residual multiplier, a norm on outputs), and patching by addition would be wrong.
        """
        import torch

        from interp.models.adapter import run_with_cache

        tokens = torch.arange(4, device=self.device)[None] % self.shape.d_vocab
        suffixes = ["hook_resid_pre", "attn.hook_z", "hook_resid_post", *(["hook_mlp_out"] if self.has_mlp else [])]
        points = [[f"blocks.{layer}.{suffix}" for suffix in suffixes] for layer in range(self.shape.n_layers)]
        _, cache = run_with_cache(self.model, tokens, [name for names in points for name in names])
        worst = 0.0
        with torch.no_grad():
            for layer, names in enumerate(points):
                before, z, after, *mlp = (cache[name] for name in names)
                total = sum([self.head_output(layer, z).sum(-2), *mlp], start=before)
                bias = self.b(layer, "o")
                total = total if bias is None else total + bias
                worst = max(worst, float((total - after).float().norm() / after.float().norm().clamp_min(1e-12)))
        if worst > (tolerance or (1e-3 if next(self.model.parameters()).dtype == torch.float32 else 0.05)):
            raise ConfigError(
                f"the residual of this model is not the plain sum of its heads and MLPs (relative error {worst:.2g}); "
                "contributions of single heads are not defined in it"
            )
        return worst


def _check_once(residual: ResidualStream) -> None:
    """Check additivity, a property of the architecture, once per model and process."""
    if residual.model not in _ADDITIVE:
        residual.check_additive()
        _ADDITIVE.add(residual.model)


def _refuse_post_norm(model: Any) -> None:
    block = model.blocks[0]
    if hasattr(block, "ln1_post") or hasattr(block, "ln2_post"):
        raise ConfigError(
            f"{getattr(model.cfg, 'architecture', 'this model')} norms what attention and MLP write before adding it, "
            "so its residual is not a plain sum of heads; patch whole blocks (hook_resid_pre) instead"
        )


def _norm(owner: Any, name: str, resid: "Tensor") -> "Tensor":
    """Apply the norm without its hooks, which may be ours; the identity where the model has none."""
    module = getattr(owner, name, None)
    return resid if module is None else module.original_component(resid)
