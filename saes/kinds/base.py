"""What every sparse autoencoder is: `recons = act((x - b_dec) @ W_enc + b_enc) @ W_dec + b_dec`.

`b_dec` is subtracted from the input (SAELens: `apply_b_dec_to_input = true`), so that latents see the distance from the
mean. The methods satisfy `interp.dictionary.Dictionary`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from interp.dictionary import SparseActs
from saes.config import SAEConfig
from saes.kernels.state import Active, Ops
from saes.kernels.step import Select, choose_ops

CHUNK_VALUES = 1 << 22
"""Pre-activations held at once by `encode_sparse` (16 MB in float32): the memory stays in cache and does not grow."""


@dataclass(frozen=True, kw_only=True)
class SAEMetadata:
    """Where an SAE belongs. Empty strings: not known (a folder from elsewhere)."""

    model: str = ""
    weight_hash: str = ""
    """of the model whose activations it was trained on"""
    hook_point: str = ""
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
    """`[d_sae, d_in]`: one feature per row"""
    b_dec: Tensor
    """`[d_in]`"""


class SAE(nn.Module, ABC):
    """A trained sparse autoencoder, ready for use (no gradients for its weights)."""

    architecture: ClassVar[str]
    """its name on disk"""

    def __init__(self, weights: Weights, *, metadata: SAEMetadata | None = None):
        super().__init__()
        self.W_enc, self.b_enc, self.W_dec, self.b_dec = (nn.Parameter(w, requires_grad=False) for w in weights)
        self.metadata = metadata or SAEMetadata()
        self.hook_point = self.metadata.hook_point
        self.d_in, self.d_sae = self.W_enc.shape

    def __repr__(self) -> str:
        place = f"{self.metadata.model} {self.hook_point}".strip() or "an unnamed place"
        return f"{type(self).__name__}({self.d_sae} features of {place}, d_in={self.d_in})"

    @abstractmethod
    def activate(self, pre: Tensor) -> Tensor:
        """Feature activations from pre-activations, `[..., d_sae]` both."""

    @abstractmethod
    def select(self, ops: Ops, pre: Tensor) -> Active:
        """The same for `pre [n, d_sae]`, active latents only."""

    @staticmethod
    @abstractmethod
    def training_select(config: SAEConfig) -> Select:
        """How the training step selects latents: `(ops, pre [n, d_sae]) -> Active`."""

    @classmethod
    @abstractmethod
    def from_training(
        cls, config: SAEConfig, weights: Weights, *, metadata: SAEMetadata, batches: Iterable[Tensor]
    ) -> Self:
        """The finished SAE. `batches` of training activations `[n, d_in]` are there for what must be estimated."""

    def extra_tensors(self) -> dict[str, Tensor]:
        """Tensors saved besides the four of every kind."""
        return {}

    def extra_config(self) -> dict[str, Any]:
        """Keys of `cfg.json` that only this kind has."""
        return {}

    @property
    def weights(self) -> Weights:
        return Weights(self.W_enc, self.b_enc, self.W_dec, self.b_dec)

    @property
    def decoder_directions(self) -> Tensor:
        """`[d_sae, d_in]`: what one unit of each feature adds to the reconstruction."""
        return self.W_dec

    def pre_activations(self, x: Tensor) -> Tensor:
        """`[..., d_in] -> [..., d_sae]`, before the activation function."""
        return (x.to(self.W_enc.dtype) - self.b_dec) @ self.W_enc + self.b_enc

    def encode(self, x: Tensor) -> Tensor:
        """`[..., d_in] -> [..., d_sae]`: feature activations, >= 0, mostly exactly 0."""
        return self.activate(self.pre_activations(x))

    @torch.no_grad()
    def encode_sparse(self, x: Tensor) -> SparseActs:
        """`[n, d_in] -> ([n, k_max], [n, k_max])`: the same activations, active ones only, padded with 0."""
        ops, centred = choose_ops(x), x.to(self.W_enc.dtype) - self.b_dec
        rows = max(1, min(len(x), CHUNK_VALUES // self.d_sae))
        room = torch.empty(rows, self.d_sae, dtype=centred.dtype, device=x.device)
        parts = [
            self.select(ops, torch.addmm(self.b_enc, part, self.W_enc, out=room[: len(part)]))
            for part in centred.split(rows)
        ]
        return _padded(parts)

    def decode(self, feature_acts: Tensor) -> Tensor:
        """`[..., d_sae] -> [..., d_in]`: the reconstruction, bias included."""
        return feature_acts.to(self.W_dec.dtype) @ self.W_dec + self.b_dec

    def decode_sparse(self, acts: SparseActs) -> Tensor:
        """`decode` of `encode_sparse`'s result, `[n, d_in]`, going through active features only."""
        if not acts.values.numel():
            return self.b_dec.expand(len(acts.values), -1).clone()
        weights = acts.values.to(self.W_dec.dtype)
        return (
            nn.functional.embedding_bag(acts.indices, self.W_dec, per_sample_weights=weights, mode="sum") + self.b_dec
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[..., d_in] -> [..., d_in]`: the reconstruction."""
        return self.decode(self.encode(x))


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
