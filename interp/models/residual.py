"""The residual stream as a sum: the components that write to it and read from it, with their weights; and norms.

Circuit analyses need three things that hooks alone do not give: the input that a component would get from another
residual (`project`), the output of a single head (`head_output`), and a check that the residual is the plain sum of
component outputs (`check_additive`). With grouped-query attention a head's keys and values are those of its group,
`kv_head(head)`; query-side tensors have `n_heads`, key-value-side ones `n_kv_heads`.

    residual = ResidualStream(model)          # refuses a model whose residual is not such a sum
    k = residual.project(layer, "k", resid)   # [batch, pos, n_kv_heads, d_head], the value of hook_k
    out = residual.head_output(layer, z)      # [batch, pos, n_heads, d_model], summing (plus bias) to hook_attn_out

Weights are raw, with the layout of the field: `x @ W_Q`. Nothing is folded or copied unless said.

**Norms.** LayerNorm and RMSNorm both compute `y = gain * unit(x) + bias`, with `unit(x) = (x - mean) / scale` (RMSNorm
subtracts no mean) and `scale = sqrt(mean of squares + eps)`. A change dx of the input changes the output by

    dy = gain * (dx_c - unit(x) * <unit(x), dx_c> / d) / scale       dx_c: centred for LayerNorm, dx itself for RMSNorm

so gradients pass in closed form (`Norm`). `norm(x)` is nonlinear in `x` only because `scale` depends on it. With the
scale of the full input held fixed (`FrozenNorm`), every component of the input has its own share of the output, and the
shares plus the bias equal the output exactly. The effect of a component on the scale is left out.

**Post-norms.** Gemma 2 and 3 norm what attention and MLP write before they add it. The MLP's write after its norm is
one component (`hook_mlp_out`). The heads of a layer share one norm, `norm(sum of z_h W_O + b_O)`, so a single head's
share is linear in its z only at a given scale: `z_h W_write / scale`, with `W_write` the product of `W_O` and the
norm's gain. `head_output` takes the scale of the z that it is given. `frozen_at(tokens)` holds the scales at their
values on these tokens: the model with `freezing_hooks` is then a plain sum for every input, and equals the model itself
on these tokens. `frozen` is the sentence that results record.

**Rotary positions** (Su et al. 2021) are one fixed rotation of queries and keys per position (`Rotation`). A rotation
is linear: the rotated components of a query sum to the rotated query. `adjacent` pairs dimensions (0, 1), (2, 3), ...;
otherwise dimension `i` is paired with `i + rotary_dim / 2`, as in Llama and GPT-NeoX. Dimensions beyond the width of
the table are not rotated.
"""

from copy import copy, deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Literal
from weakref import WeakSet

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import ConfigError, UnknownNameError
from interp.models.adapter import applied, available_hook_points, final_norm_and_unembed, head_shape, widened
from interp.models.hooked import Hook, HookedModel
from interp.names import HeadName


@dataclass(frozen=True)
class Norm:
    """Parameters of one norm."""

    gain: Float[Tensor, " d_model"] | None
    """None for 1"""
    bias: Float[Tensor, " d_model"] | None
    centred: bool
    """True for LayerNorm, which subtracts the mean; False for RMSNorm"""
    eps: float

    def unit_and_scale(
        self, resid: Float[Tensor, "*rows d_model"]
    ) -> tuple[Float[Tensor, "*rows d_model"], Float[Tensor, "*rows 1"]]:
        """Return unit(x) and the scale."""
        x = resid - resid.mean(-1, keepdim=True) if self.centred else resid
        scale = (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()
        return x / scale, scale

    def linear(self, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """Return the norm of `x` less its bias, times its scale: linear in `x`."""
        x = x - x.mean(-1, keepdim=True) if self.centred else x
        return x if self.gain is None else x * self.gain

    def fold(self, weight: Float[Tensor, "*heads d_model k"]) -> Float[Tensor, "*heads d_model k"]:
        """Return `weight` with respect to unit(x): multiplied by the gain, centred for LayerNorm."""
        folded = weight if self.gain is None else self.gain[:, None] * weight
        return folded - folded.mean(-2, keepdim=True) if self.centred else folded

    def fold_vector(self, gradient: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """Fold gradients with respect to y in the same way."""
        folded = gradient if self.gain is None else gradient * self.gain
        return folded - folded.mean(-1, keepdim=True) if self.centred else folded


def norm_of(owner: object, name: str, d_model: int) -> Norm | None:
    """Return the parameters of the bridge's norm `owner.name` (`block.ln1`, `model.ln_final`); None without a norm."""
    return read_norm(getattr(getattr(owner, name, None), "original_component", None), d_model)


def read_norm(module: nn.Module | None, d_model: int) -> Norm | None:
    """Return the parameters of a norm module of torch or transformers; None for the identity.

    They are checked on a random vector. Raises `ConfigError` for a norm of another kind.
    """
    if module is None or isinstance(module, torch.nn.Identity):
        return None
    like = next(iter(module.parameters()), None)
    if like is not None and like.dtype.itemsize < 4:
        module = deepcopy(module).float()  # a norm computes in 32 bits, and its parameters are used there
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    eps = next((float(getattr(module, name)) for name in ("eps", "variance_epsilon") if hasattr(module, name)), 1e-5)
    probe = torch.randn(2, d_model, generator=torch.Generator().manual_seed(0)) + 0.5
    probe = probe if like is None else probe.to(like.device, torch.promote_types(like.dtype, torch.float32))
    with torch.no_grad():
        expected = module(probe)
        gains = [None] if weight is None else [weight.detach(), 1 + weight.detach()]  # Gemma stores gain - 1
        for gain in gains:
            for centred in (True, False):
                norm = Norm(gain, None if bias is None else bias.detach(), centred, eps)
                y = norm.unit_and_scale(probe)[0] * (1 if gain is None else gain) + (0 if bias is None else bias)
                if torch.allclose(y, expected, rtol=1e-4, atol=1e-4):
                    return norm
    raise ConfigError(
        f"{type(module).__name__} is neither LayerNorm nor RMSNorm; gradients through other norms are not implemented, "
        "use method='exact'"
    )


@dataclass(frozen=True)
class FrozenNorm:
    """One norm at fixed inputs, as a linear map; the identity without a norm."""

    norm: Norm | None
    scale: Float[Tensor, "*rows 1"]
    """standard deviation or root mean square of each full input"""
    bias: Float[Tensor, " d_model"]
    """zero for RMS norms"""

    def fold(self, direction: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """Fold gain and centring into the direction `u`: a component's share is `component @ u / scale`."""
        return direction if self.norm is None else self.norm.fold_vector(direction)


@torch.no_grad()
def freeze(owner: object, name: str, x: Float[Tensor, "*rows d_model"]) -> FrozenNorm:
    """Freeze the bridge's norm `owner.name` (`block.ln1`, `model.ln_final`) at inputs `x`.

    Raises `ConfigError` for a norm that is neither LayerNorm nor an RMS norm with a gain.
    """
    norm, zeros = norm_of(owner, name, x.shape[-1]), x.new_zeros(x.shape[-1])
    if norm is None:
        return FrozenNorm(None, torch.ones_like(x[..., :1]), zeros)
    return FrozenNorm(norm, norm.unit_and_scale(x)[1], zeros if norm.bias is None else norm.bias)


@dataclass(frozen=True)
class Rotation:
    """Rotations of all positions of a prompt."""

    cos: Float[Tensor, "pos rotary_dim"]
    sin: Float[Tensor, "pos rotary_dim"]
    adjacent: bool

    def __call__(
        self, x: Float[Tensor, "*rows n d_head"], positions: Int[Tensor, " n"]
    ) -> Float[Tensor, "*rows n d_head"]:
        """Return `x` with row `i` rotated as at `positions[i]`."""
        cos, sin = (table[positions].to(x) for table in (self.cos, self.sin))
        width = cos.shape[-1]
        turned, rest = x[..., :width], x[..., width:]
        if self.adjacent:
            partner = torch.stack([-turned[..., 1::2], turned[..., ::2]], -1)
            partner = rearrange(partner, "... pair two -> ... (pair two)")
        else:
            partner = torch.cat([-turned[..., width // 2 :], turned[..., : width // 2]], -1)
        return torch.cat([turned * cos + partner * sin, rest], -1)


def rotary_hook_points(model: HookedModel, layer: int) -> list[str]:
    """Return the hook points that `read_rotation` needs in its cache; none for other kinds of positions or small
    models.
    """
    names = [f"blocks.{layer}.attn.hook_{table}" for table in ("cos", "sin")]
    return names if set(names) <= available_hook_points(model) else []


def read_rotation(model: HookedModel, layer: int, cache: dict[str, Tensor]) -> Rotation | None:
    """Return the rotation in one layer's attention, or None without rotary positions.

    `cache` holds the model's `rotary_hook_points`. Pairings of dimensions differ between model families, so callers
    compare their scores with the model's own (as `interp.circuits.score_explanation` does).
    """
    names = rotary_hook_points(model, layer)
    if names:
        cos, sin = (cache[name].reshape(-1, cache[name].shape[-1]) for name in names)
        return Rotation(cos, sin, adjacent=bool(getattr(model.cfg, "rotary_adjacent_pairs", False)))
    native = getattr(model.blocks[layer].attn.original_component, "rotary", None)
    if native is None:
        return None
    return Rotation(native.cos_cached, native.sin_cached, adjacent=True)


Side = Literal["q", "k", "v"]
SIDES: tuple[Side, ...] = ("q", "k", "v")
_ADDITIVE: WeakSet[HookedModel] = WeakSet()
FROZEN = "the scale of the norm on what attention writes, at its value"
"""Quantity held fixed in a model with post-norms, so that each head has a share of the residual stream."""


class ResidualStream:
    """Components of one model around its residual stream. Cheap to make; has no activations unless frozen.

    Raises `ConfigError` when the residual is not the sum of the components' writes, so that contributions of heads are
    undefined: residual multipliers (Granite).
    """

    scales: dict[int, Float[Tensor, "batch pos 1"]] | None = None
    """scales of the post-norms of attention by layer, once frozen (`frozen_at`)"""

    def __init__(self, model: HookedModel):
        self.model = model
        self.shape = head_shape(model)
        self.parallel = bool(getattr(model.cfg, "parallel_attn_mlp", False))
        """True when the MLP reads the block's input (GPT-NeoX), False when it reads the sum after attention."""
        _check_once(self)

    @property
    def has_mlp(self) -> bool:
        return self.shape.d_mlp is not None

    @cached_property
    def device(self) -> torch.device:
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

    def W(self, layer: int, side: Literal["q", "k", "v", "o"]) -> Float[Tensor, "heads d_in d_out"]:
        """Return weights of a layer: q `[n_heads, d_model, d_head]`, k, v `[n_kv_heads, ..]`, o `[n_heads, d_head,
        d_model]`.
        """
        return widened(getattr(self.model.blocks[layer].attn, f"W_{side.upper()}"))

    def b(self, layer: int, side: Literal["q", "k", "v", "o"]) -> Float[Tensor, "*heads d_out"] | None:
        """Return the bias, `[heads, d_head]` or `[d_model]` for o; None when the model has none."""
        bias = getattr(self.model.blocks[layer].attn, f"b_{side.upper()}", None)
        return None if bias is None else widened(bias)

    def norm1(self, layer: int, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """Return the input of attention: the block's first norm of `resid`, or `resid` without norms."""
        return _norm(self.model.blocks[layer], "ln1", resid)

    def norm2(self, layer: int, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """Return the input of the MLP: the block's second norm of `resid`."""
        return _norm(self.model.blocks[layer], "ln2", resid)

    def norm_final(self, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """Return the input of the unembedding: the final norm of `resid`."""
        return _norm(self.model, "ln_final", resid)

    def project(
        self, layer: int, side: Side, resid: Float[Tensor, "*rows d_model"]
    ) -> Float[Tensor, "*rows heads d_head"]:
        """Return the value of `attn.hook_q` (k, v) for block input `resid`.

        `resid` is before the norm, whose scale is recomputed. The result is before rotation.
        """
        linear = getattr(self.model.blocks[layer].attn, side).original_component
        heads = applied(linear, self.norm1(layer, resid))
        return rearrange(heads, "... (heads d_head) -> ... heads d_head", d_head=self.shape.d_head)

    def head_output(
        self, layer: int, z: Float[Tensor, "*rows n_heads d_head"], head: int | None = None
    ) -> Float[Tensor, "*rows n_heads d_model"] | Float[Tensor, "*rows d_model"]:
        """Return what all heads, or one head, add to the residual stream; under a post-norm, at the scale of this `z`.

        All heads take `n_heads` times the memory of the residual: ask for one head, or work layer by layer.
        """
        scale = self.write_scale(layer, z)
        if head is not None:
            return self.head_write(layer, head, z[..., head, :], scale)
        out = einsum(z, self.W_write(layer), "... heads d_head, heads d_head d_model -> ... heads d_model")
        return out if scale is None else out / scale[..., None, :]

    def head_write(
        self, layer: int, head: int, z: Float[Tensor, "*rows d_head"], scale: Float[Tensor, "*rows 1"] | None
    ) -> Float[Tensor, "*rows d_model"]:
        """Return what one head adds for its `z`, or for a difference of it, at a scale of the post-norm."""
        out = z @ self.W_write(layer)[head]
        return out if scale is None else out / scale

    @cached_property
    def post_norms(self) -> list[Norm | None]:
        """Norms on what attention writes, by layer; None where the heads' outputs are added as they are."""
        return [norm_of(block, "ln1_post", self.shape.d_model) for block in self.model.blocks]

    @property
    def frozen(self) -> str | None:
        """Name of the quantity held fixed so that heads have shares (`FROZEN`); None in most models."""
        return FROZEN if any(self.post_norms) else None

    def frozen_settings(self, at: str = "on the clean prompts") -> dict[str, str]:
        """Return `{"frozen": ...}` for the settings of a result, empty where nothing is held fixed.

        `at` names the run whose scale is held.
        """
        return {} if self.frozen is None else {"frozen": f"{self.frozen} {at}"}

    def W_write(self, layer: int) -> Float[Tensor, "n_heads d_head d_model"]:
        """Return `W_O` times the gain of the post-norm, whose scale divides what it gives; `W_O` without one."""
        norm, weight = self.post_norms[layer], self.W(layer, "o")
        return weight if norm is None else norm.linear(weight)

    def write_scale(self, layer: int, z: Float[Tensor, "*rows n_heads d_head"]) -> Float[Tensor, "*rows 1"] | None:
        """Return the scale of the post-norm where all heads have values `z`; None without a post-norm."""
        norm = self.post_norms[layer]
        if norm is None:
            return None
        out, bias = einsum(z, self.W(layer, "o"), "... heads d_head, heads d_head d -> ... d"), self.b(layer, "o")
        return _float_scale(norm, out if bias is None else out + bias)

    def write_bias(self, layer: int, scale: Float[Tensor, "*rows 1"] | None) -> Float[Tensor, "*rows d_model"] | None:
        """Return what attention adds besides its heads, at a scale of its post-norm; None where that is nothing."""
        norm, bias = self.post_norms[layer], self.b(layer, "o")
        if norm is None or scale is None:
            return bias
        share = None if bias is None else norm.linear(bias) / scale
        if norm.bias is None:
            return share
        return norm.bias.expand(*scale.shape[:-1], -1) if share is None else share + norm.bias

    def frozen_at(self, tokens: Int[Tensor, "batch pos"]) -> "ResidualStream":
        """Return this stream with the scales of its post-norms held at their values on `tokens`, by one pass.

        Itself, without a pass, in a model without post-norms.
        """
        from interp.models.adapter import run_with_cache

        if self.frozen is None:
            return self
        norms = {layer: norm for layer, norm in enumerate(self.post_norms) if norm is not None}
        names = {layer: f"blocks.{layer}.ln1_post.hook_in" for layer in norms}
        _, cache = run_with_cache(self.model, tokens.to(self.device), list(names.values()))
        stream = copy(self)
        stream.scales = {layer: _float_scale(norm, cache[names[layer]]) for layer, norm in norms.items()}
        return stream

    def held_scale(self, layer: int) -> Float[Tensor, "batch pos 1"] | None:
        """Return the frozen scale of a layer's post-norm, None without a post-norm.

        Raises `ConfigError` for a post-norm that is not frozen: differences of z then have no shares.
        """
        if self.frozen is None:
            return None
        if self.scales is None:
            raise ConfigError(
                "this model norms what attention writes; freeze its scale with residual.frozen_at(tokens)"
            )
        return self.scales.get(layer)

    def freezing_hooks(self) -> list[tuple[str, Hook]]:
        """Return hooks that hold the post-norms at the frozen scales; none unless frozen.

        They come before the other hooks of a run, whose rows are those of `frozen_at`, once or repeated as a whole.
        """
        hooks: list[tuple[str, Hook]] = []
        for layer, scale in (self.scales or {}).items():
            norm, block = self.post_norms[layer], f"blocks.{layer}"
            assert norm is not None
            hold = _Hold(norm, scale)
            hooks += [(f"{block}.ln1_post.hook_in", hold.enter), (f"{block}.hook_attn_out", hold.leave)]
        return hooks

    def mlp(self, layer: int, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """Return what the MLP adds to the residual stream `resid`, the value of `hook_mlp_out`."""
        block = self.model.blocks[layer]
        return _norm(block, "ln2_post", applied(block.mlp, self.norm2(layer, resid)))

    def logits(self, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_vocab"]:
        """Return logits of a final residual, through the final norm."""
        return final_norm_and_unembed(self.model, resid)

    def mlp_reads(self, layer: int) -> str:
        """Return the hook point of the residual stream that the MLP of a layer reads."""
        return f"blocks.{layer}.hook_resid_pre" if self.parallel else f"blocks.{layer}.hook_resid_mid"

    def check_additive(self, tolerance: float | None = None) -> float:
        """Return the largest relative error of `resid_post = resid_pre + sum of heads + bias + MLP` on four tokens.

        Raises `ConfigError` when it exceeds `tolerance` (by default 0.001, 0.05 in 16-bit models): then a head's output
        is not its contribution (a residual multiplier), and patching by addition would be wrong.
        """
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
                bias = self.write_bias(layer, self.write_scale(layer, z))
                total = total if bias is None else total + bias
                worst = max(worst, float((total - after).float().norm() / after.float().norm().clamp_min(1e-12)))
        if worst > (tolerance or (1e-3 if next(self.model.parameters()).dtype == torch.float32 else 0.05)):
            raise ConfigError(
                f"the residual of this model is not the sum of its heads and MLPs (relative error {worst:.2g}); "
                "contributions of single heads are not defined in it"
            )
        return worst


class _Hold:
    """Hooks that compute one norm at a fixed scale."""

    def __init__(self, norm: Norm, scale: Tensor):
        self.norm, self.scale = norm, scale

    def enter(self, value: Tensor, hook: object) -> None:
        self.value = value

    def leave(self, value: Tensor, hook: object) -> Tensor:
        scale = self.scale.repeat(len(value) // len(self.scale), 1, 1)
        out = self.norm.linear(self.value) / scale
        del self.value
        return (out if self.norm.bias is None else out + self.norm.bias).to(value.dtype)


def _float_scale(norm: Norm, x: Tensor) -> Tensor:
    """Return the norm's scale, computed in 32 bits at least, as such models do."""
    return norm.unit_and_scale(x.to(torch.promote_types(x.dtype, torch.float32)))[1].to(x.dtype)


def _check_once(residual: ResidualStream) -> None:
    """Check additivity, a property of the architecture, once per model and process."""
    if residual.model not in _ADDITIVE:
        residual.check_additive()
        _ADDITIVE.add(residual.model)


def _norm(owner: object, name: str, resid: Tensor) -> Tensor:
    """Apply the norm without its hooks, which may be ours; the identity where the model has none."""
    module = getattr(owner, name, None)
    return resid if module is None else applied(module.original_component, resid)
