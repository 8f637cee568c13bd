"""The local replacement model: one clean pass, with everything that is not linear in the residual stream frozen.

Attention patterns and the scales of all norms (before blocks, after attention or MLP in Gemma 2 and 3, the final norm)
are held at their clean values. MLPs are replaced by what a dictionary writes, and caps on logits are left out. What
remains is a linear map: the value of any reader splits exactly into shares of what was written (Ameisen et al. 2025).

    frozen = FrozenModel(model, tokens)                 # tokens [1, pos]
    frozen.pull_back(starts, visit)                     # from readers back to the embedding, layer by layer

Gradients have the layout `[pos, reader, d_model]`, so that the values of one position lie together.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import ConfigError, NonFiniteError
from interp.models.adapter import available_hook_points, head_shape, logit_cap, run_with_cache
from interp.models.hooked import HookedModel
from interp.models.residual import FrozenNorm, Rotation, freeze, read_rotation, rotary_hook_points

MLP_INPUT, NORMALISED, RESIDUAL = "mlp.hook_in", "ln2.hook_normalized", "hook_resid_mid"
READS = {MLP_INPUT: MLP_INPUT, "ln2.hook_out": MLP_INPUT, NORMALISED: NORMALISED, RESIDUAL: RESIDUAL}
"""Hook points that dictionaries may read: the MLP's input, that before the norm's gain and bias, or before the norm."""
MLP_OUTPUT, ADDED = "mlp.hook_out", "hook_mlp_out"
WRITES = dict.fromkeys((MLP_OUTPUT, "mlp.out.hook_out", "ln2_post.hook_in"), MLP_OUTPUT) | {ADDED: ADDED}
"""Hook points that dictionaries may predict: the MLP's own output, or what is added to the residual stream. They differ
by the norm after the MLP, where there is one."""
TOLERANCE = 2e-3
"""Largest relative error of a frozen layer against the model's own output, in float32."""


@dataclass(frozen=True)
class FrozenBlock:
    """One block at its clean values. Attention and skip connections are linear maps of the residual stream."""

    W_V: Float[Tensor, "d_model kv_width"]
    """with the gain of the first norm folded in"""
    W_O: Float[Tensor, "heads_width d_model"]
    pattern: Float[Tensor, "n_heads query key"]
    norm1: FrozenNorm
    norm2: FrozenNorm
    """norm between the residual stream and what dictionaries read"""
    post1: FrozenNorm | None
    """norm of what attention writes, in post-norm models"""
    post2: FrozenNorm | None
    """norm between what dictionaries predict and the residual stream"""
    attn_constant: Float[Tensor, "pos d_model"]
    """what attention writes whatever the residual stream is: its biases"""
    before: Float[Tensor, "pos d_model"]
    """input of the block"""
    resid_mid: Float[Tensor, "pos d_model"]
    """residual that the MLP reads, before its norm"""
    mlp_in: Float[Tensor, "pos d_model"]
    """what dictionaries read: by default the input of the MLP, after its norm"""
    mlp_out: Float[Tensor, "pos d_model"]
    """what dictionaries predict: by default the output of the MLP, before a post-norm"""
    rotation: Rotation | None
    """of queries and keys"""
    n_kv_heads: int

    def pull_heads(self, gradient: Float[Tensor, "pos rows d_model"]) -> Float[Tensor, "pos rows heads_width"]:
        """Return the gradient with respect to z, the output of every head, given that of what attention writes."""
        n_pos, n_rows, _ = gradient.shape
        if self.post1 is not None:
            gradient = fold_rows(self.post1, gradient)
        return (gradient.reshape(n_pos * n_rows, -1) @ self.W_O.T).view(n_pos, n_rows, -1)

    def pull_values(self, out: Float[Tensor, "pos rows heads_width"]) -> Float[Tensor, "pos rows d_model"]:
        """Return the gradient with respect to the block's input, given that of z."""
        n_pos, n_rows, _ = out.shape
        heads = rearrange(out, "q b (kv g e) -> kv (g q) (b e)", kv=self.n_kv_heads, g=self._group)
        keys = torch.bmm(self._back(n_pos), heads)
        values = rearrange(keys, "kv k (b e) -> (k b) (kv e)", b=n_rows)
        return (values @ self.W_V.T).view(n_pos, n_rows, -1) / self.norm1.scale[:n_pos, None]

    def push_attention(self, resid: Float[Tensor, "*rows pos d_model"]) -> Float[Tensor, "*rows pos d_model"]:
        """Return the linear part of what attention writes for a residual stream: the adjoint of both pulls above."""
        out = self.push_values(resid) @ self.W_O
        return out if self.post1 is None else apply_linear(self.post1, out)

    def push_values(self, resid: Float[Tensor, "*rows pos d_model"]) -> Float[Tensor, "*rows pos heads_width"]:
        """Return the linear part of z, the output of every head, for a residual stream."""
        values = rearrange(resid / self.norm1.scale @ self.W_V, "... k (kv e) -> ... kv k e", kv=self.n_kv_heads)
        values = values.repeat_interleave(self._group, -3)
        return rearrange(self.pattern @ values, "... h q e -> ... q (h e)")

    def pull_mlp_out(self, gradient: Float[Tensor, "pos rows d_model"]) -> Float[Tensor, "pos rows d_model"]:
        """Return the gradient with respect to the MLP's output before its post-norm."""
        return gradient if self.post2 is None else fold_rows(self.post2, gradient)

    def pull_mlp_in(self, gradient: Float[Tensor, "pos rows d_model"]) -> Float[Tensor, "pos rows d_model"]:
        """Return the gradient with respect to the residual stream, given that with respect to the MLP's input."""
        return fold_rows(self.norm2, gradient)

    @property
    def _group(self) -> int:
        return len(self.pattern) // self.n_kv_heads

    def _back(self, n_pos: int) -> Float[Tensor, "kv key group_query"]:
        return rearrange(self.pattern[:, :n_pos, :n_pos], "(kv g) q k -> kv k (g q)", kv=self.n_kv_heads)


@dataclass(frozen=True)
class Starts:
    """Readers whose value is traced, the highest layer first."""

    layer: Int[Tensor, " rows"]
    """layer of the MLP input that is read; `n_layers` for the logits"""
    position: Int[Tensor, " rows"]
    read: Float[Tensor, "rows d_model"]
    """direction in the MLP's input, or in the input of the unembedding"""

    def take(self, rows: Tensor) -> "Starts":
        return Starts(self.layer[rows], self.position[rows], self.read[rows])


Visit = Callable[[int, Tensor], None]
"""`visit(layer, gradient [pos, active rows, d_model])`: with respect to what MLP `layer` writes, before a post-norm;
layer -1 is the embedding. Active rows are the first ones."""


@dataclass
class FrozenModel:
    """The frozen model of one prompt. Raises `ConfigError` when a frozen layer is not what the model computes."""

    model: HookedModel
    tokens: Int[Tensor, "1 pos"]
    blocks: list[FrozenBlock] = field(init=False)
    skips: list[Tensor | None] = field(init=False)
    """skip connection of each layer's dictionary, `[d_in, d_out]`; set by `interp.tracing.edges`"""
    skip_from: int = 1
    """first position at which dictionaries replace MLPs"""
    reads: str = MLP_INPUT
    """hook point inside a block that dictionaries read"""
    writes: str = MLP_OUTPUT
    """hook point inside a block that dictionaries predict"""

    def __post_init__(self) -> None:
        if self.reads not in READS or self.writes not in WRITES:
            known = f"{', '.join(READS)}, and of those predicted: {', '.join(WRITES)}"
            raise ConfigError(
                f"a graph cannot use a dictionary from {self.reads} to {self.writes}; hook points read may be {known}"
            )
        self.shape = head_shape(self.model)
        self.parallel = bool(getattr(self.model.cfg, "parallel_attn_mlp", False))
        self._capture()
        self.skips = [None] * self.shape.n_layers
        self._check()

    @property
    def n_pos(self) -> int:
        return self.tokens.shape[1]

    def again(self, tokens: Int[Tensor, "1 pos"]) -> "FrozenModel":
        """Return the frozen model of other tokens, for the same kind of dictionary."""
        return FrozenModel(self.model, tokens, self.skip_from, self.reads, self.writes)

    def mlp_point(self, layer: int) -> str:
        """Return the hook point of an MLP's output, before a post-norm."""
        return f"blocks.{layer}." + ("ln2_post.hook_in" if self.blocks[layer].post2 is not None else "hook_mlp_out")

    @cached_property
    def frozen_parts(self) -> list[str]:
        """Name what is held at its clean value."""
        post = any(block.post1 is not None or block.post2 is not None for block in self.blocks)
        return [
            "attention patterns",
            "scales of norms",
            *(["scales of norms after attention and MLPs"] if post else []),
            *(["logits before their cap"] if logit_cap(self.model) is not None else []),
        ]

    @torch.no_grad()
    def pull_back(self, starts: Starts, visit: Visit, heads: Visit | None = None) -> Float[Tensor, " rows"]:
        """Trace readers back to the embedding, and return the part of each value that does not depend on the prompt.

        Rows are ordered from high layers to low. That part comes from biases of attention and of norms; `visit` decides
        what of the MLP outputs belongs to it. `heads` gets the gradient with respect to z of a block.
        """
        n_rows, width = starts.read.shape
        order = starts.layer.tolist()
        if any(first < second for first, second in pairwise(order)):
            raise ConfigError("readers must be ordered from high layers to low")
        n_pos = int(starts.position.max()) + 1
        constant = starts.read.new_zeros(n_rows)
        gradient = starts.read.new_zeros(n_pos, 0, width)
        gradient = self._join(gradient, starts, self.shape.n_layers, constant)
        for layer in reversed(range(self.shape.n_layers)):
            after = self._through_mlp(layer, gradient, visit, constant)
            if not self.parallel:
                after = self._join(after, starts, layer, constant)
            after = self._through_attention(layer, after, gradient if self.parallel else after, constant, heads)
            gradient = self._join(after, starts, layer, constant) if self.parallel else after
        visit(-1, gradient)
        return constant

    @torch.no_grad()
    def pull_stream(self, layer: int, gradient: Float[Tensor, "pos rows d_model"], visit: Visit) -> Tensor:
        """Trace directions in the residual stream before a block back to the embedding, as `pull_back` does."""
        constant = gradient.new_zeros(gradient.shape[1])
        for below in reversed(range(layer)):
            after = self._through_mlp(below, gradient, visit, constant)
            gradient = self._through_attention(below, after, gradient if self.parallel else after, constant)
        visit(-1, gradient)
        return constant

    def _through_mlp(self, layer: int, gradient: Tensor, visit: Visit, constant: Tensor) -> Tensor:
        """Visit what an MLP writes, and return the gradient before it."""
        block = self.blocks[layer]
        out = block.pull_mlp_out(gradient)
        if gradient.shape[1]:
            visit(layer, out)
            self._add_post_bias(block.post2, gradient, constant)
        return self._through_skip(layer, gradient, out, constant)

    def _through_attention(
        self, layer: int, after: Tensor, source: Tensor, constant: Tensor, heads: Visit | None = None
    ) -> Tensor:
        """Add to `after` the gradient through attention, of the rows of `source`."""
        if not source.shape[1]:
            return after
        block = self.blocks[layer]
        constant[: source.shape[1]] += dots(source, block.attn_constant[: len(source)]).sum(0)
        out = block.pull_heads(source)
        if heads is not None:
            heads(layer, out)
        return after + block.pull_values(out)

    def _through_skip(self, layer: int, gradient: Tensor, out: Tensor, constant: Tensor) -> Tensor:
        """Return the gradient before the MLP of a layer, whose only linear path is its skip connection."""
        skip, block = self.skips[layer], self.blocks[layer]
        if skip is None or not gradient.shape[1] or self.skip_from >= len(out):
            return gradient
        inside = out.clone()
        inside[: self.skip_from] = 0
        inside = inside @ skip.T
        constant[: inside.shape[1]] += torch.einsum("pbd,d->b", inside, block.norm2.bias)
        return gradient + block.pull_mlp_in(inside)

    def _join(self, gradient: Tensor, starts: Starts, layer: int, constant: Tensor) -> Tensor:
        """Append the rows that start at a layer."""
        rows = (starts.layer == layer).nonzero().flatten()
        if not len(rows):
            return gradient
        norm = self.final if layer == self.shape.n_layers else self.blocks[layer].norm2
        read, position = starts.read[rows], starts.position[rows]
        constant[rows] += read @ norm.bias
        new = gradient.new_zeros(len(gradient), len(rows), gradient.shape[2])
        new[position, torch.arange(len(rows), device=new.device)] = norm.fold(read) / norm.scale[position]
        return torch.cat([gradient, new], 1) if gradient.shape[1] else new

    def _add_post_bias(self, norm: FrozenNorm | None, gradient: Tensor, constant: Tensor) -> None:
        if norm is not None:
            constant[: gradient.shape[1]] += torch.einsum("pbd,d->b", gradient, norm.bias)

    @torch.no_grad()
    def _capture(self) -> None:
        n, points = self.shape.n_layers, available_hook_points(self.model)
        if "blocks.0.attn.hook_pattern" not in points:
            raise ConfigError("an attribution graph reads attention patterns; load the model with attention='eager'")
        parts = ["hook_resid_pre", "attn.hook_pattern", "hook_attn_out"]
        parts += ["hook_mlp_out"] if self.shape.d_mlp is not None else []
        parts += [part for part in ("ln1_post.hook_in", "ln2_post.hook_in") if f"blocks.0.{part}" in points]
        names = [f"blocks.{layer}.{part}" for layer in range(n) for part in parts]
        names += [name for layer in range(n) for name in rotary_hook_points(self.model, layer)]
        names += [f"blocks.{n - 1}.hook_resid_post", *(["hook_pos_embed"] if "hook_pos_embed" in points else [])]
        logits, cache = run_with_cache(self.model, self.tokens, names)
        if not logits.isfinite().all():
            raise NonFiniteError("the model's logits on this prompt are not finite; check its weights and dtype")
        self.logits: Float[Tensor, " d_vocab"] = logits[0, -1].float()
        value = {name: tensor[0].float() for name, tensor in cache.items()}
        self.resid_post = value[f"blocks.{n - 1}.hook_resid_post"]
        first = value["blocks.0.hook_resid_pre"]
        self.positions = value.get("hook_pos_embed", torch.zeros_like(first)).expand_as(first)
        self.embedding: Float[Tensor, "pos d_model"] = first - self.positions
        self.final = freeze(self.model, "ln_final", self.resid_post)
        self.blocks = [self._block(layer, value) for layer in range(n)]

    def _block(self, layer: int, value: dict[str, Tensor]) -> FrozenBlock:
        block, at = self.model.blocks[layer], f"blocks.{layer}."
        before, attn_out = value[at + "hook_resid_pre"], value[at + "hook_attn_out"]
        mid = before if self.parallel else before + attn_out
        written = value.get(at + "hook_mlp_out", torch.zeros_like(before))
        writes_output = WRITES[self.writes] == MLP_OUTPUT
        mlp_out = value.get(at + "ln2_post.hook_in", written) if writes_output else written
        W_V, W_O = (getattr(block.attn, name).float() for name in ("W_V", "W_O"))
        b_V, b_O = (getattr(block.attn, name, None) for name in ("b_V", "b_O"))
        norm1, post2 = freeze(block, "ln1", before), None
        if writes_output and hasattr(block, "ln2_post"):
            post2 = freeze(block, "ln2_post", mlp_out)
        pattern = value[at + "attn.hook_pattern"]
        bias = norm1.bias @ W_V + (0 if b_V is None else b_V.float())  # [kv, d_head]
        heads = bias.repeat_interleave(self.shape.n_heads // self.shape.n_kv_heads, 0)
        constant = torch.einsum("hq,he,hed->qd", pattern.sum(-1), heads, W_O)
        constant = constant if b_O is None else constant + b_O.float()
        raw = value.get(at + "ln1_post.hook_in")
        post1 = None if raw is None else freeze(block, "ln1_post", raw)
        norm2, mlp_in = self._reader(block, mid)
        folded = W_V if norm1.norm is None else norm1.norm.fold(W_V)
        return FrozenBlock(
            W_V=rearrange(folded, "kv d e -> d (kv e)").contiguous(),
            W_O=rearrange(W_O, "h e d -> (h e) d").contiguous(),
            pattern=pattern,
            norm1=norm1,
            norm2=norm2,
            post1=post1,
            post2=post2,
            attn_constant=constant if post1 is None else apply_linear(post1, constant) + post1.bias,
            before=before,
            resid_mid=mid,
            mlp_in=mlp_in,
            mlp_out=mlp_out,
            rotation=read_rotation(self.model, layer, value),
            n_kv_heads=self.shape.n_kv_heads,
        )

    def _reader(self, block: nn.Module, mid: Tensor) -> tuple[FrozenNorm, Tensor]:
        """Return the norm before what dictionaries read, and its output."""
        norm = freeze(block, "ln2", mid)
        if READS[self.reads] == MLP_INPUT:
            return norm, _normed(block, "ln2", mid)
        plain = None if norm.norm is None or READS[self.reads] == RESIDUAL else replace(norm.norm, gain=None, bias=None)
        zeros = torch.zeros_like(norm.bias)
        if plain is None:
            return FrozenNorm(None, torch.ones_like(norm.scale), zeros), mid
        return FrozenNorm(plain, norm.scale, zeros), plain.unit_and_scale(mid)[0]

    @torch.no_grad()
    def _check(self) -> None:
        """Raise `ConfigError` unless every frozen layer gives what the model computes."""
        stream = self.embedding + self.positions
        for layer, block in enumerate(self.blocks):
            before = stream
            stream = stream + block.push_attention(before) + block.attn_constant
            middle = before if self.parallel else stream
            stream = stream + self.written(layer, block.mlp_out)
            expected = self.blocks[layer + 1] if layer + 1 < len(self.blocks) else None
            error = float((middle - block.resid_mid).norm() / block.resid_mid.norm().clamp_min(1e-12))
            if expected is None:
                error = max(error, float((stream - self.resid_post).norm() / self.resid_post.norm().clamp_min(1e-12)))
            if error > (TOLERANCE if self.model.cfg.dtype == torch.float32 else 0.05):
                raise ConfigError(
                    f"with attention and norms frozen, block {layer} is not what the model computes (relative error "
                    f"{error:.2g}); attribution graphs do not support {getattr(self.model.cfg, 'architecture', 'it')}"
                )

    def written(self, layer: int, out: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos d_model"]:
        """Return what MLP `layer` adds to the residual stream, given its output before a post-norm."""
        norm = self.blocks[layer].post2
        return out if norm is None else apply_linear(norm, out) + norm.bias


def dots(
    gradient: Float[Tensor, "pos rows d_model"], vectors: Float[Tensor, "pos d_model"]
) -> Float[Tensor, "pos rows"]:
    """Return the products of readers' gradients with one vector at each position, in a fifth of the time of einsum."""
    return (gradient * vectors[:, None]).sum(-1)


def fold_rows(norm: FrozenNorm, gradient: Float[Tensor, "pos rows d_model"]) -> Float[Tensor, "pos rows d_model"]:
    """Return the gradient with respect to a frozen norm's input, given that with respect to its output."""
    return norm.fold(gradient) / norm.scale[: len(gradient), None]


def apply_linear(norm: FrozenNorm, value: Float[Tensor, "*rows pos d_model"]) -> Float[Tensor, "*rows pos d_model"]:
    """Return a frozen norm's output without its bias: its linear part, the adjoint of `fold_rows`."""
    if norm.norm is None:
        return value
    centred = value - value.mean(-1, keepdim=True) if norm.norm.centred else value
    scaled = centred / norm.scale
    return scaled if norm.norm.gain is None else scaled * norm.norm.gain


def _normed(owner: nn.Module, name: str, resid: Tensor) -> Tensor:
    """Return the norm's own output, in float32; the residual where there is no norm."""
    module = getattr(owner, name, None)
    return resid if module is None else module.original_component(resid.to(next(owner.parameters()).dtype)).float()
