"""The base classes of dictionaries. `SAE`: any encoder, and a decoder of one direction per latent. `OneLayerSAE`:

    recons = act((x - b_dec) @ W_enc + b_enc) @ W_dec + b_dec

`b_dec` is subtracted from the input (SAELens: `apply_b_dec_to_input = true`), so that the encoder sees the difference
from the mean. The methods satisfy `interp.dictionary.Dictionary`. A transcoder maps one hook point to another: it
subtracts nothing, and its decoder has the width `d_out` of its target.

A `TrainingRecipe` trains a dictionary: the rule of a kind inside the step (`saes.kernels.state`), and how the result
becomes an `SAE`. Two families are completed here because several kinds and formats share them:

- `Activation`: activation functions as values, which a dictionary of one layer has;
- `TokenNormSAE`: an SAE of activations normalised token by token, whose reconstruction is scaled back. `layer_norm` is
  `(x - mean) / (std + 1e-5)` over the coordinates of the token, std with `d_in - 1` in the denominator (Gao et al.
  2024; OpenAI's and SAELens' formula). `constant_norm_rescale` is `x * sqrt(d_in) / |x|`. Feature activations and
  `decode` are in normalised units; `complete` restores the token's own scale and mean.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.dictionary import SparseActs
from interp.errors import ConfigError
from interp.recording.store import Recording, Stats
from saes.kernels.state import Active, Ops, Rule
from saes.kernels.step import choose_ops

CHUNK_VALUES = 1 << 22
"""Pre-activations held at once by `encode_sparse` (16 MB in float32): the memory stays in cache and does not grow."""


@dataclass(frozen=True, kw_only=True)
class SAEMetadata:
    """Model and hook points of an SAE. An empty string means unknown (a folder written by another tool)."""

    model: str = ""
    weight_hash: str = ""
    """of the model whose activations it was trained on"""
    hook_point: str = ""
    hook_point_out: str = ""
    """the hook point that it reconstructs, where that differs from the one it reads"""
    context_size: int | None = None
    bos: str = ""
    """BOS policy of the training text"""

    @classmethod
    def of(cls, recording: Recording, hook_point: str = "", hook_point_out: str = "") -> "SAEMetadata":
        """Return the metadata of a dictionary that is made from a recording."""
        return cls(
            model=recording.model,
            weight_hash=recording.weight_hash,
            hook_point=hook_point,
            hook_point_out=hook_point_out,
            context_size=recording.context_length,
            bos=recording.bos,
        )


class Weights(NamedTuple):
    """The four arrays that every kind has."""

    W_enc: Float[Tensor, "d_in d_sae"]
    """`[d_in, d_sae]`"""
    b_enc: Float[Tensor, " d_sae"]
    """`[d_sae]`"""
    W_dec: Float[Tensor, "d_sae d_out"]
    """`[d_sae, d_out]`: one latent per row; `d_out` is `d_in` unless another hook point is reconstructed"""
    b_dec: Float[Tensor, " d_out"]
    """`[d_out]`"""


class SAE(nn.Module, ABC):
    """A trained dictionary, ready for use (no gradients for its weights), whatever its encoder.

    A latent adds `decoder_directions[i]`, a row of `W_dec`, for every unit of its activation.
    """

    W_dec: Tensor
    b_dec: Tensor

    architecture: str
    """Name on disk, the value of `architecture` in `cfg.json`."""

    subtracts_b_dec: ClassVar[bool] = True
    """True where the encoder sees `x - b_dec`."""

    def describe(self, d_in: int, metadata: SAEMetadata | None) -> None:
        """Set sizes and metadata; `W_dec` must exist."""
        self.metadata = metadata or SAEMetadata()
        self.hook_point = self.metadata.hook_point
        self.d_in, (self.d_sae, self.d_out) = d_in, self.W_dec.shape

    def __repr__(self) -> str:
        source = f"{self.metadata.model} {self.hook_point}".strip() or "an unnamed hook point"
        return f"{type(self).__name__}({self.d_sae} latents of {source}, d_in={self.d_in})"

    @abstractmethod
    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """`[..., d_in] -> [..., d_sae]`: feature activations, >= 0, mostly exactly 0."""

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "n d_in"]) -> SparseActs:
        """`[n, d_in] -> ([n, k_max], [n, k_max])`: the same activations, active ones only, padded with 0."""
        rows = max(1, min(len(x), CHUNK_VALUES // self.d_sae))
        return padded([_active(self.encode(part)) for part in x.split(rows)])

    @property
    def device(self) -> torch.device:
        """Device of the weights, where its input belongs."""
        return self.W_dec.device

    @abstractmethod
    def saved_tensors(self) -> dict[str, Tensor]:
        """Return the tensors to write, by SAELens' names where it has one."""

    def extra_config(self) -> dict[str, object]:
        """Return keys of `cfg.json` that only this kind has."""
        return {}

    @property
    def hook_points(self) -> tuple[str, ...]:
        """Hook points that are read, in the order in which their activations are concatenated in the input."""
        return (self.hook_point,)

    @property
    def hook_point_out(self) -> str:
        """Hook point that is reconstructed; empty where it is the one that is read."""
        return self.metadata.hook_point_out

    @property
    def decoder_directions(self) -> Float[Tensor, "d_sae d_out"]:
        """`[d_sae, d_out]`: the vector that one unit of each latent adds to the reconstruction."""
        return self.W_dec

    def decode(self, feature_acts: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_out"]:
        """`[..., d_sae] -> [..., d_out]`: the reconstruction, bias included."""
        return feature_acts.to(self.W_dec.dtype) @ self.W_dec + self.b_dec

    def decode_sparse(self, acts: SparseActs) -> Float[Tensor, "n d_out"]:
        """`decode` of `encode_sparse`'s result, `[n, d_out]`, going through active features only."""
        if not acts.values.numel():
            return self.b_dec.expand(len(acts.values), -1).clone()
        weights = acts.values.to(self.W_dec.dtype)
        return (
            nn.functional.embedding_bag(acts.indices, self.W_dec, per_sample_weights=weights, mode="sum") + self.b_dec
        )

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """`[..., d_in] -> [..., d_out]`: the reconstruction."""
        return self.complete(self.decode(self.encode(x)), x)

    def complete(
        self, recons: Float[Tensor, "*#batch d_out"], x: Float[Tensor, "*#batch d_in"]
    ) -> Float[Tensor, "*#batch d_out"]:
        """Return the full output, given the result of `decode`.

        Some kinds add terms that bypass the latents: a skip connection, or the token's own mean and scale. Call it
        after `decode` wherever the whole output is meant.
        """
        return recons


class Activation(nn.Module, ABC):
    """Pre-activations `[..., d_sae]` to feature activations `>= 0` of the same shape."""

    architecture: ClassVar[str]
    """SAELens' name of an autoencoder with this activation"""

    @abstractmethod
    def forward(self, pre: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """Apply to `pre [..., d_sae]`; the result has the same shape."""

    @abstractmethod
    def select(self, ops: Ops, pre: Float[Tensor, "n d_sae"]) -> Active:
        """The same for `pre [n, d_sae]`, active latents only."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that it saves."""
        return {}

    def settings(self) -> dict[str, object]:
        """Return the keys that it saves in `cfg.json`."""
        return {}


@final
class ReLU(Activation):
    """`f = max(pre, 0)`."""

    architecture: ClassVar[str] = "standard"

    def forward(self, pre: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        return pre.relu()

    def select(self, ops: Ops, pre: Float[Tensor, "n d_sae"]) -> Active:
        return ops.select_above(pre, pre.new_zeros(pre.shape[-1]))


@final
class TopK(Activation):
    """The `k` largest pre-activations of each token, where positive."""

    architecture: ClassVar[str] = "topk"

    def __init__(self, k: int):
        super().__init__()
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}")
        self.k = k

    def forward(self, pre: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        values, latents = pre.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter(-1, latents, values.relu())

    def select(self, ops: Ops, pre: Float[Tensor, "n d_sae"]) -> Active:
        return ops.select_topk(pre, self.k)

    def settings(self) -> dict[str, object]:
        return {"k": self.k, "rescale_acts_by_decoder_norm": False}


@final
class JumpReLU(Activation):
    """`f = pre * 1[pre > threshold]`, thresholds `[d_sae] >= 0`."""

    architecture: ClassVar[str] = "jumprelu"

    def __init__(self, threshold: Float[Tensor, " d_sae"]):
        super().__init__()
        if bool((threshold < 0).any()):
            raise ConfigError(f"thresholds must be >= 0, got {float(threshold.min()):g}; activations would be negative")
        self.threshold = nn.Parameter(threshold, requires_grad=False)

    def forward(self, pre: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        return pre.relu() * (pre > self.threshold)

    def select(self, ops: Ops, pre: Float[Tensor, "n d_sae"]) -> Active:
        return ops.select_above(pre, self.threshold)

    def tensors(self) -> dict[str, Tensor]:
        return {"threshold": self.threshold}


class OneLayerSAE(SAE):
    """A dictionary whose encoder is one layer: an activation function of `x @ W_enc + b_enc`."""

    activation: Activation

    def __init__(self, weights: Weights, *, activation: Activation | None = None, metadata: SAEMetadata | None = None):
        """Take an activation, or leave it out where a subclass has an `activate` and `select` of its own."""
        super().__init__()
        self.W_enc, self.b_enc, self.W_dec, self.b_dec = (nn.Parameter(w, requires_grad=False) for w in weights)
        self.describe(len(self.W_enc), metadata)
        if activation is not None:
            self.activation = activation

    def activate(self, pre: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """Return feature activations for pre-activations, both `[..., d_sae]`."""
        return self.activation(pre)

    def select(self, ops: Ops, pre: Float[Tensor, "n d_sae"]) -> Active:
        """The same for `pre [n, d_sae]`, active latents only."""
        return self.activation.select(ops, pre)

    def saved_tensors(self) -> dict[str, Tensor]:
        """Return the tensors to write, by SAELens' names: the four of every kind and `extra_tensors`."""
        return {**self.weights._asdict(), **self.extra_tensors()}

    def extra_tensors(self) -> dict[str, Tensor]:
        """Return tensors saved besides the four of every kind."""
        return self.activation.tensors()

    def extra_config(self) -> dict[str, object]:
        return self.activation.settings()

    @property
    def weights(self) -> Weights:
        return Weights(self.W_enc, self.b_enc, self.W_dec, self.b_dec)

    def pre_activations(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """`[..., d_in] -> [..., d_sae]`, before the activation function."""
        return self.encoder_input(x) @ self.W_enc + self.b_enc

    def encoder_input(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """Return the encoder's input `[..., d_in]`: `x - b_dec`, or `x` where nothing is subtracted."""
        x = x.to(self.W_enc.dtype)
        return x - self.b_dec if self.subtracts_b_dec else x

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        return self.activate(self.pre_activations(x))

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "n d_in"]) -> SparseActs:
        ops, seen = choose_ops(x), self.encoder_input(x)
        rows = max(1, min(len(x), CHUNK_VALUES // self.d_sae))
        room = torch.empty(rows, self.d_sae, dtype=seen.dtype, device=x.device)
        parts = [
            self.select(ops, torch.addmm(self.b_enc, part, self.W_enc, out=room[: len(part)]))
            for part in seen.split(rows)
        ]
        return padded(parts)


def one_layer(sae: SAE) -> OneLayerSAE:
    """Return `sae` where its encoder is one layer. Raises `ConfigError` where it is not."""
    if not isinstance(sae, OneLayerSAE):
        raise ConfigError(
            f"a {sae.architecture} dictionary is not encoded by one layer, and this needs the weights of one; choose a "
            "dictionary of another kind"
        )
    return sae


def _active(acts: Float[Tensor, "n d_sae"]) -> Active:
    """Return the positive entries."""
    rows, latents = (acts > 0).nonzero(as_tuple=True)
    starts = torch.zeros(len(acts) + 1, dtype=torch.int64, device=acts.device)
    starts[1:] = torch.bincount(rows, minlength=len(acts)).cumsum(0)
    return Active(starts, latents, acts[rows, latents])


def padded(parts: list[Active]) -> SparseActs:
    """Pad ragged rows to one rectangle."""
    counts = torch.cat([part.starts.diff() for part in parts])
    latents, values = (torch.cat([getattr(part, name) for part in parts]) for name in ("latents", "values"))
    width = int(counts.max()) if len(counts) else 0
    if len(counts) * width == len(values):  # all rows are full
        return SparseActs(values.view(len(counts), width), latents.view(len(counts), width))
    inside = torch.arange(width, device=counts.device) < counts[:, None]
    out = SparseActs(values.new_zeros(inside.shape), latents.new_zeros(inside.shape))
    out.values[inside], out.indices[inside] = values, latents
    return out


TokenNorm = Literal["layer_norm", "constant_norm_rescale"]
TOKEN_NORMS: tuple[TokenNorm, ...] = ("layer_norm", "constant_norm_rescale")
EPSILON = 1e-5


class RowScale(NamedTuple):
    """`x = normalised * size + centre`, both `[..., 1]`."""

    size: Float[Tensor, "*batch 1"]
    centre: Float[Tensor, "*batch 1"]


@final
class TokenNormSAE(OneLayerSAE):
    """An SAE between a token's normalisation and its inverse."""

    subtracts_b_dec: ClassVar[bool] = True

    def __init__(
        self, weights: Weights, *, activation: Activation, norm: TokenNorm, metadata: SAEMetadata | None = None
    ):
        super().__init__(weights, activation=activation, metadata=metadata)
        self.norm, self.architecture = norm, activation.architecture

    def scale(self, x: Float[Tensor, "*batch d_in"]) -> RowScale:
        """Return divisor and offset of the normalisation, `[..., d_in] -> [..., 1]` each."""
        if self.norm == "layer_norm":
            return RowScale(x.std(-1, keepdim=True) + EPSILON, x.mean(-1, keepdim=True))
        size = x.norm(dim=-1, keepdim=True) / self.d_in**0.5
        return RowScale(size, size.new_zeros(()).expand_as(size))

    def encoder_input(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        x = x.to(self.W_enc.dtype)
        scale = self.scale(x)
        return (x - scale.centre) / scale.size - self.b_dec

    def complete(
        self, recons: Float[Tensor, "*#batch d_out"], x: Float[Tensor, "*#batch d_in"]
    ) -> Float[Tensor, "*#batch d_out"]:
        size, centre = self.scale(x.to(self.W_dec.dtype))
        if self.norm == "layer_norm":  # both tools leave epsilon out when they scale back
            size = size - EPSILON
        return recons * size + centre

    def extra_config(self) -> dict[str, object]:
        return {"normalize_activations": self.norm, **super().extra_config()}


class Scales(NamedTuple):
    """Factors between raw activations and training units."""

    input: Tensor
    """`[d_in]` float64"""
    output: Tensor
    """`[d_out]` float64"""
    unit: float
    """one unit of a saved activation in training units"""
    shift: Tensor | None = None
    """`[d_in]` float64, taken from the scaled input; None where `b_dec` is subtracted from it anyway"""

    def scaled(self, x: Tensor) -> Tensor:
        """Return `x [n, d_in]` in training units."""
        x = x * self.input.to(x)
        return x if self.shift is None else x - self.shift.to(x)


@dataclass(frozen=True)
class RecordedSite:
    """One hook point of one recording."""

    recording: Recording
    hook_point: str

    @cached_property
    def stats(self) -> Stats:
        return self.recording.stats(self.hook_point)

    @property
    def d(self) -> int:
        return self.recording.d(self.hook_point)

    def __str__(self) -> str:
        return f"{self.recording.folder.name}:{self.hook_point}"


@dataclass(frozen=True, kw_only=True)
class Finished:
    """Result of training, whatever the kind, as far as it is not in the parameters."""

    scales: Scales
    metadata: SAEMetadata
    batches: Iterable[Tensor]
    """a few batches of training input `[n, d_in]`, to estimate thresholds with"""
    sites: tuple[RecordedSite, ...] = ()
    """the hook point that is read"""


@dataclass(frozen=True, kw_only=True)
class Trained(Finished):
    """Result of sparse steps, in the units of the model's activations."""

    weights: Weights
    own: dict[str, Tensor]
    """the kind's own parameters, in training units"""


class TrainingRecipe(Rule):
    """Training recipe of one kind. Concrete recipes take their config and are made by `registry.recipe_of`."""

    @abstractmethod
    def finish(self, trained: Trained) -> SAE:
        """Return the SAE, ready for use."""
