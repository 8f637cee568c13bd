"""What every sparse autoencoder is: `recons = act((x - b_dec) @ W_enc + b_enc) @ W_dec + b_dec`.

`b_dec` is subtracted from the input (SAELens: `apply_b_dec_to_input = true`), so that latents see the distance from the
mean. The methods satisfy `interp.dictionary.Dictionary`. A transcoder does the same from one hook point to another:
it subtracts nothing, and its decoder has the width `d_out` of what it predicts.

This is the side that is used; how a kind is trained is its recipe (`recipe.py`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from interp.dictionary import SparseActs
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
