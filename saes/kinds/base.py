"""What every sparse autoencoder is: `recons = act((x - b_dec) @ W_enc + b_enc) @ W_dec + b_dec`.

`b_dec` is subtracted from the input (SAELens: `apply_b_dec_to_input = true`), so that latents see the distance from the
mean. The methods satisfy `interp.dictionary.Dictionary`. A transcoder does the same from one hook point to another:
it subtracts nothing, and its decoder has the width `d_out` of what it predicts.

This is the side that is used; how a kind is trained is its recipe (`recipe.py`).

Activation functions as values, for kinds that come with any of them (transcoders, SAEs of normalised tokens).

SAEs of activations that are normalised token by token, and whose reconstruction is scaled back.

`layer_norm`: `(x - mean) / (std + 1e-5)` over the coordinates of the token, std with `d_in - 1` in the denominator (Gao
et al. 2024; OpenAI's and SAELens' formula). `constant_norm_rescale`: `x * sqrt(d_in) / |x|`.

Feature activations and `decode` are in normalised units; `complete` puts the token's own scale and mean back.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from interp.dictionary import SparseActs
from interp.errors import ConfigError
from saes.kernels.state import Active, Ops
from saes.kernels.step import choose_ops

CHUNK_VALUES = 1 << 22
"""Pre-activations held at once by `encode_sparse` (16 MB in float32): the memory stays in cache and does not grow."""


@dataclass(frozen=True, kw_only=True)
class SAEMetadata:
    """Where an SAE belongs. Empty strings: not known (a folder from elsewhere)."""

    model: str = ""
    weight_hash: str = ""
    """of the model whose activations it was trained on"""
    hook_point: str = ""
    hook_point_out: str = ""
    """what it reconstructs, where that is another place than the one it reads"""
    context_size: int | None = None
    bos: str = ""
    """BOS policy of the training text"""


class Weights(NamedTuple):
    """The four arrays that every kind has."""

    W_enc: Tensor
    """`[d_in, d_sae]`"""
    b_enc: Tensor
    """`[d_sae]`"""
    W_dec: Tensor
    """`[d_sae, d_out]`: one feature per row; `d_out` is `d_in` unless it reconstructs another place"""
    b_dec: Tensor
    """`[d_out]`"""


class SAE(nn.Module, ABC):
    """A trained sparse autoencoder, ready for use (no gradients for its weights)."""

    architecture: str
    """its name on disk"""

    subtracts_b_dec: ClassVar[bool] = True
    """Whether latents see `x - b_dec` (an autoencoder) or `x` (a transcoder)."""

    def __init__(self, weights: Weights, *, metadata: SAEMetadata | None = None):
        super().__init__()
        self.W_enc, self.b_enc, self.W_dec, self.b_dec = (nn.Parameter(w, requires_grad=False) for w in weights)
        self.metadata = metadata or SAEMetadata()
        self.hook_point = self.metadata.hook_point
        self.d_in, self.d_sae = self.W_enc.shape
        self.d_out = self.W_dec.shape[1]

    def __repr__(self) -> str:
        place = f"{self.metadata.model} {self.hook_point}".strip() or "an unnamed place"
        return f"{type(self).__name__}({self.d_sae} features of {place}, d_in={self.d_in})"

    @abstractmethod
    def activate(self, pre: Tensor) -> Tensor:
        """Feature activations from pre-activations, `[..., d_sae]` both."""

    @abstractmethod
    def select(self, ops: Ops, pre: Tensor) -> Active:
        """The same for `pre [n, d_sae]`, active latents only."""

    def saved_tensors(self) -> dict[str, Tensor]:
        """What is written to disk, by SAELens' names: the four of every kind and `extra_tensors`."""
        return {**self.weights._asdict(), **self.extra_tensors()}

    def extra_tensors(self) -> dict[str, Tensor]:
        """Tensors saved besides the four of every kind."""
        return {}

    def extra_config(self) -> dict[str, Any]:
        """Keys of `cfg.json` that only this kind has."""
        return {}

    @property
    def hook_points(self) -> tuple[str, ...]:
        """The places it reads, in the order in which their activations lie side by side in the input."""
        return (self.hook_point,)

    @property
    def hook_point_out(self) -> str:
        """The place that it reconstructs; empty: what it reads."""
        return self.metadata.hook_point_out

    @property
    def weights(self) -> Weights:
        return Weights(self.W_enc, self.b_enc, self.W_dec, self.b_dec)

    @property
    def decoder_directions(self) -> Tensor:
        """`[d_sae, d_out]`: what one unit of each feature adds to the reconstruction."""
        return self.W_dec

    def pre_activations(self, x: Tensor) -> Tensor:
        """`[..., d_in] -> [..., d_sae]`, before the activation function."""
        return self.encoder_input(x) @ self.W_enc + self.b_enc

    def encoder_input(self, x: Tensor) -> Tensor:
        """`[..., d_in]`: what the encoder multiplies, `x - b_dec`, or `x` where nothing is subtracted."""
        x = x.to(self.W_enc.dtype)
        return x - self.b_dec if self.subtracts_b_dec else x

    def encode(self, x: Tensor) -> Tensor:
        """`[..., d_in] -> [..., d_sae]`: feature activations, >= 0, mostly exactly 0."""
        return self.activate(self.pre_activations(x))

    @torch.no_grad()
    def encode_sparse(self, x: Tensor) -> SparseActs:
        """`[n, d_in] -> ([n, k_max], [n, k_max])`: the same activations, active ones only, padded with 0."""
        ops, seen = choose_ops(x), self.encoder_input(x)
        rows = max(1, min(len(x), CHUNK_VALUES // self.d_sae))
        room = torch.empty(rows, self.d_sae, dtype=seen.dtype, device=x.device)
        parts = [
            self.select(ops, torch.addmm(self.b_enc, part, self.W_enc, out=room[: len(part)]))
            for part in seen.split(rows)
        ]
        return _padded(parts)

    def decode(self, feature_acts: Tensor) -> Tensor:
        """`[..., d_sae] -> [..., d_out]`: the reconstruction, bias included."""
        return feature_acts.to(self.W_dec.dtype) @ self.W_dec + self.b_dec

    def decode_sparse(self, acts: SparseActs) -> Tensor:
        """`decode` of `encode_sparse`'s result, `[n, d_out]`, going through active features only."""
        if not acts.values.numel():
            return self.b_dec.expand(len(acts.values), -1).clone()
        weights = acts.values.to(self.W_dec.dtype)
        return (
            nn.functional.embedding_bag(acts.indices, self.W_dec, per_sample_weights=weights, mode="sum") + self.b_dec
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[..., d_in] -> [..., d_out]`: the reconstruction."""
        return self.complete(self.decode(self.encode(x)), x)

    def complete(self, recons: Tensor, x: Tensor) -> Tensor:
        """The reconstruction from what `decode` gave: some kinds add what they take from the input past the features
        (a skip connection, the token's own mean and scale). Whoever decodes and means the whole output calls it."""
        return recons


def _padded(parts: list[Active]) -> SparseActs:
    """Ragged rows as one rectangle."""
    counts = torch.cat([part.starts.diff() for part in parts])
    latents, values = (torch.cat([getattr(part, name) for part in parts]) for name in ("latents", "values"))
    width = int(counts.max()) if len(counts) else 0
    if len(counts) * width == len(values):  # every row is full already
        return SparseActs(values.view(len(counts), width), latents.view(len(counts), width))
    inside = torch.arange(width, device=counts.device) < counts[:, None]
    out = SparseActs(values.new_zeros(inside.shape), latents.new_zeros(inside.shape))
    out.values[inside], out.indices[inside] = values, latents
    return out


class Activation(nn.Module, ABC):
    """Pre-activations `[..., d_sae]` to feature activations `>= 0` of the same shape."""

    architecture: ClassVar[str]
    """what SAELens calls an autoencoder with it"""

    @abstractmethod
    def forward(self, pre: Tensor) -> Tensor:
        """`[..., d_sae]` to the same shape."""

    @abstractmethod
    def select(self, ops: Ops, pre: Tensor) -> Active:
        """The same for `pre [n, d_sae]`, active latents only."""

    def tensors(self) -> dict[str, Tensor]:
        """What it needs on disk as tensors."""
        return {}

    def settings(self) -> dict[str, Any]:
        """What it needs in `cfg.json`."""
        return {}


@final
class ReLU(Activation):
    """`f = max(pre, 0)`."""

    architecture: ClassVar[str] = "standard"

    def forward(self, pre: Tensor) -> Tensor:
        return pre.relu()

    def select(self, ops: Ops, pre: Tensor) -> Active:
        return ops.select_above(pre, pre.new_zeros(pre.shape[-1]))


@final
class TopK(Activation):
    """The `k` largest of each token, where positive."""

    architecture: ClassVar[str] = "topk"

    def __init__(self, k: int):
        super().__init__()
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}")
        self.k = k

    def forward(self, pre: Tensor) -> Tensor:
        values, latents = pre.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter(-1, latents, values.relu())

    def select(self, ops: Ops, pre: Tensor) -> Active:
        return ops.select_topk(pre, self.k)

    def settings(self) -> dict[str, Any]:
        return {"k": self.k, "rescale_acts_by_decoder_norm": False}


@final
class JumpReLU(Activation):
    """`f = pre * 1[pre > threshold]`, thresholds `[d_sae] >= 0`."""

    architecture: ClassVar[str] = "jumprelu"

    def __init__(self, threshold: Tensor):
        super().__init__()
        if bool((threshold < 0).any()):
            raise ConfigError(f"thresholds must be >= 0, got {float(threshold.min()):g}; activations would be negative")
        self.threshold = nn.Parameter(threshold, requires_grad=False)

    def forward(self, pre: Tensor) -> Tensor:
        return pre.relu() * (pre > self.threshold)

    def select(self, ops: Ops, pre: Tensor) -> Active:
        return ops.select_above(pre, self.threshold)

    def tensors(self) -> dict[str, Tensor]:
        return {"threshold": self.threshold}


TokenNorm = Literal["layer_norm", "constant_norm_rescale"]
TOKEN_NORMS: tuple[TokenNorm, ...] = ("layer_norm", "constant_norm_rescale")
EPSILON = 1e-5


class Scale(NamedTuple):
    """`x = normalised * size + centre`, both `[..., 1]`."""

    size: Tensor
    centre: Tensor


@final
class TokenNormSAE(SAE):
    """An SAE between a token's normalisation and its inverse."""

    subtracts_b_dec: ClassVar[bool] = True

    def __init__(
        self, weights: Weights, *, activation: Activation, norm: TokenNorm, metadata: SAEMetadata | None = None
    ):
        super().__init__(weights, metadata=metadata)
        self.activation, self.norm = activation, norm
        self.architecture = activation.architecture

    def scale(self, x: Tensor) -> Scale:
        """What the normalisation divides by and subtracts, `[..., d_in] -> [..., 1]` each."""
        if self.norm == "layer_norm":
            return Scale(x.std(-1, keepdim=True) + EPSILON, x.mean(-1, keepdim=True))
        size = x.norm(dim=-1, keepdim=True) / self.d_in**0.5
        return Scale(size, size.new_zeros(()).expand_as(size))

    def encoder_input(self, x: Tensor) -> Tensor:
        x = x.to(self.W_enc.dtype)
        scale = self.scale(x)
        return (x - scale.centre) / scale.size - self.b_dec

    def complete(self, recons: Tensor, x: Tensor) -> Tensor:
        size, centre = self.scale(x.to(self.W_dec.dtype))
        if self.norm == "layer_norm":  # as both tools do: the way back leaves epsilon out
            size = size - EPSILON
        return recons * size + centre

    def activate(self, pre: Tensor) -> Tensor:
        return self.activation(pre)

    def select(self, ops: Ops, pre: Tensor) -> Active:
        return self.activation.select(ops, pre)

    def extra_tensors(self) -> dict[str, Tensor]:
        return self.activation.tensors()

    def extra_config(self) -> dict[str, Any]:
        return {"normalize_activations": self.norm, **self.activation.settings()}
