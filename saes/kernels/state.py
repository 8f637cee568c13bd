"""The parameters and Adam moments of a run, one latent per row, and the small values that pass between the steps."""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Active(NamedTuple):
    """Active latents of a batch in CSR form: those of token `r` are `starts[r] : starts[r + 1]`."""

    starts: Tensor
    """`[n + 1]` int64"""
    latents: Tensor
    """`[nnz]` int64"""
    values: Tensor
    """`[nnz]` >= 0; 0 is padding"""


@dataclass
class Gradients:
    """Of the loss with respect to the parameters, one latent per row."""

    W_enc: Tensor
    """`[d_sae, d_in]`"""
    b_enc: Tensor
    W_dec: Tensor
    """`[d_sae, d_out]`"""
    b_dec: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)
    """parameters that only some kinds have"""

    def by_name(self) -> dict[str, Tensor]:
        """Every gradient, in the order of `TrainState.parameters`."""
        return {**{name: getattr(self, name) for name in NAMES}, **self.extra}


class Decoded(NamedTuple):
    """What the decoder pass gives. `G` is the number of nested prefixes: 1 where only the whole dictionary counts."""

    grad: Tensor
    """`[G, n, d_out]`: gradient of the loss with respect to the output of the latents of group `g`: the sum over all
    prefixes that hold the group. `grad[0]` is the gradient of an output bias, `G * grad[-1] / scale` the error"""
    grad_values: Tensor
    """`[nnz]`: gradient with respect to the value of every entry (padding has one too: it means nothing)"""
    squared: Tensor
    """`[G, n]`: squared error of every token, for every prefix"""


class AdamStep(NamedTuple):
    """The scalars of one Adam step: `w -= rate * m / (sqrt(v) * root_scale + eps)`, gradients times `shrink`."""

    rate: float
    root_scale: float
    shrink: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8


class Ops(Protocol):
    """What a backend provides: the sparse step's operations (see `plain.py` for what each computes)."""

    def select_topk(self, pre: Tensor, k: int) -> Active: ...
    def select_batch(self, pre: Tensor, n: int) -> Active: ...
    def select_above(self, pre: Tensor, threshold: Tensor) -> Active: ...
    def decode(
        self, target: Tensor, W_dec: Tensor, active: Active, scale: float, ends: tuple[int, ...] = ()
    ) -> Decoded: ...
    def weight_gradients(
        self, x: Tensor, decoded: Decoded, active: Active, slopes: Tensor, out: Gradients, ends: tuple[int, ...] = ()
    ) -> Tensor: ...
    def project(self, out: Gradients, W_dec: Tensor) -> float: ...
    def adam(
        self, weight: Tensor, grad: Tensor, moments: tuple[Tensor, Tensor], step: AdamStep, unit: bool
    ) -> None: ...


NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")
BY_LATENT = ("W_enc", "b_enc", "W_dec", "silent", "density")
"""Tensors with one row per latent, and their moments with them."""


@dataclass
class TrainState:
    """Everything a step changes."""

    W_enc: Tensor
    """`[d_sae, d_in]`: the transpose of the saved `W_enc`, so that a latent's weights lie together"""
    b_enc: Tensor
    """`[d_sae]`"""
    W_dec: Tensor
    """`[d_sae, d_out]`, rows of length 1"""
    b_dec: Tensor
    """`[d_out]`, added to the reconstruction; where an SAE reconstructs its own input, subtracted from it too"""
    silent: Tensor
    """`[d_sae]` int64: tokens since the latent last fired"""
    density: Tensor
    """`[d_sae]` float32: running share of tokens on which it fires"""
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """parameter name -> Adam's running mean and mean square of its gradient"""
    step: int = 0
    """Steps taken."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """parameters that only some kinds have (a threshold, a skip connection), by name"""

    @classmethod
    def initial(
        cls,
        b_dec: Tensor,
        d_sae: int,
        *,
        generator: torch.Generator,
        d_in: int | None = None,
        latents: slice = slice(None),
    ) -> "TrainState":
        """Random unit decoder rows, `b_dec` as given (the mean of the data); the encoder is a copy of the decoder, or
        unit rows of its own where `d_in` says that it reads another place. With `latents` only those are kept, the same
        as in the whole."""

        def unit_rows(d: int) -> Tensor:
            rows = _random_rows(d_sae, d, latents, generator, b_dec.dtype)
            return (rows / rows.norm(dim=1, keepdim=True)).to(b_dec.device)

        W_dec = unit_rows(len(b_dec))
        W_enc = W_dec.clone() if d_in is None else unit_rows(d_in)
        b_enc = torch.zeros(len(W_dec), dtype=b_dec.dtype, device=b_dec.device)
        silent, density = torch.zeros_like(b_enc, dtype=torch.int64), torch.zeros_like(b_enc, dtype=torch.float32)
        state = cls(W_enc, b_enc, W_dec, b_dec.clone(), silent, density)
        state.zero_moments()
        return state

    def zero_moments(self) -> None:
        """Start Adam anew, for every parameter there is."""
        self.moments = {n: (torch.zeros_like(w), torch.zeros_like(w)) for n, w in self.parameters().items()}

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[0]

    def to(self, device: str | torch.device) -> "TrainState":
        """The state on a device (sharing memory where it is there already)."""
        return TrainState.from_tensors({name: t.to(device) for name, t in self.tensors().items()}, self.step)

    def parameters(self) -> dict[str, Tensor]:
        return {**{name: getattr(self, name) for name in NAMES}, **self.extra}

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name, for a checkpoint."""
        flat = {**self.parameters(), "silent": self.silent, "density": self.density}
        for name, (mean, square) in self.moments.items():
            flat[f"{name}.mean"], flat[f"{name}.square"] = mean, square
        return flat

    @classmethod
    def from_tensors(cls, flat: dict[str, Tensor], step: int) -> "TrainState":
        """The inverse of `tensors`."""
        own = [name.removesuffix(".mean") for name in flat if name.endswith(".mean")]
        extra = {name: flat[name] for name in sorted(own) if name not in NAMES}
        moments = {name: (flat[f"{name}.mean"], flat[f"{name}.square"]) for name in (*NAMES, *extra)}
        return cls(**{n: flat[n] for n in (*NAMES, "silent", "density")}, moments=moments, step=step, extra=extra)


def _random_rows(n: int, d: int, kept: slice, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Rows `kept` of `randn(n, d)`, drawn a block at a time where that is not all of them: the rest is never held."""
    start, stop, _ = kept.indices(n)
    if stop - start == n:
        return torch.randn(n, d, generator=generator, dtype=dtype)
    blocks = [_BLOCK] * (n // _BLOCK) or [0]
    blocks[-1] += n - sum(blocks)  # torch draws 16 numbers at a time: a short last block would come out otherwise
    out, first = torch.empty(stop - start, d, dtype=dtype), 0
    for rows in blocks:
        drawn = torch.randn(rows, d, generator=generator, dtype=dtype)
        low, high = max(first, start), min(first + rows, stop)
        if low < high:
            out[low - start : high - start] = drawn[low - first : high - first]
        first += rows
    return out


_BLOCK = 4096
