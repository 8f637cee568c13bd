"""State of a run (parameters and Adam moments, one latent per row), and the contract between the step and a kind.

The step (`step.py`) is the same for every kind. What differs is a `Rule`: it selects the active entries from the
pre-activations (`select`); once they are decoded it turns `dloss/dvalue` of every entry into `dloss/dpre` and adds its
penalty (`backward`). Everything is linear in the number of entries.

A batch may be shared by ranks. Then `pre` and the entries are those of this rank's tokens, and a rule returns sums over
them, which the step adds over ranks: divide by `Pass.n`, the tokens of the whole batch, never by the number of tokens
on this rank. A rule that needs a sum over the whole batch obtains it with `Pass.tokens.total`; `select_batch` selects
among all ranks' values by itself. Latents may be shared where `shares_latents` is true.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from interp.ranks import ALONE, Ranks


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
    """Gradients of the loss with respect to the parameters, one latent per row."""

    W_enc: Tensor
    """`[d_sae, d_in]`"""
    b_enc: Tensor
    W_dec: Tensor
    """`[d_sae, d_out]`"""
    b_dec: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)
    """parameters that only some kinds have"""

    def by_name(self) -> dict[str, Tensor]:
        """Return every gradient, in the order of `TrainState.parameters`."""
        return {**{name: getattr(self, name) for name in NAMES}, **self.extra}


class Decoded(NamedTuple):
    """Result of the decoder pass. `G` is the number of nested prefixes, 1 without nesting."""

    grad: Tensor
    """`[G, n, d_out]`: gradient of the loss with respect to the output of the latents of group `g`: the sum over all
    prefixes that contain the group. `grad[0]` is the gradient of an output bias, `G * grad[-1] / scale` the error"""
    grad_values: Tensor
    """`[nnz]`: gradient with respect to the value of every entry (that of padding is meaningless)"""
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
    """Operations of the sparse step that a backend provides (documented in `plain.py`)."""

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


@dataclass(kw_only=True)
class RunState:
    """The part of a run's state that every kind has: counters of its latents, own tensors by name, Adam's moments."""

    silent: Tensor
    """`[d_sae]` int64: tokens since the latent last fired"""
    density: Tensor
    """`[d_sae]` float32: running share of tokens on which it fires"""
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """parameter name -> Adam's running mean and mean square of its gradient"""
    step: int = 0
    """Steps taken."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """parameters of the kind's own (a threshold, a skip connection), by name"""
    buffers: dict[str, Tensor] = field(default_factory=dict)
    """tensors of the kind's own that have no gradient (a running mean), by name"""

    def parameters(self) -> dict[str, Tensor]:
        """Return every parameter by name."""
        return self.extra

    def zero_moments(self) -> None:
        """Reset Adam's moments of every parameter."""
        self.moments = {n: (torch.zeros_like(w), torch.zeros_like(w)) for n, w in self.parameters().items()}

    def to(self, device: str | torch.device) -> Self:
        """Return the state on a device (sharing memory where it is already there)."""
        return self.from_tensors({name: t.to(device) for name, t in self.tensors().items()}, self.step)

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor by name, for a checkpoint."""
        flat = {**self.parameters(), **self.buffers, "silent": self.silent, "density": self.density}
        for name, (mean, square) in self.moments.items():
            flat[f"{name}.mean"], flat[f"{name}.square"] = mean, square
        return flat

    @classmethod
    def from_tensors(cls, flat: dict[str, Tensor], step: int) -> Self:
        """Build a state from the result of `tensors`: parameters are those with moments."""
        fixed = {field.name for field in fields(cls) if field.name in flat}
        names = sorted(name.removesuffix(".mean") for name in flat if name.endswith(".mean"))
        moments = {name: (flat[f"{name}.mean"], flat[f"{name}.square"]) for name in names}
        rest = {name: t for name, t in flat.items() if name not in fixed and not name.endswith((".mean", ".square"))}
        return cls(
            **{name: flat[name] for name in fixed},
            moments=moments,
            step=step,
            extra={name: t for name, t in rest.items() if name in moments},
            buffers={name: t for name, t in rest.items() if name not in moments},
        )

    def count(self, fired: Tensor, n: int) -> None:
        """Update tokens since last fired and the running density, about the mean of the last 50 steps.

        `fired` are the tokens, of `n`, on which each latent fired in the step just taken.
        """
        self.silent.add_(n).masked_fill_(fired > 0, 0)
        weight = max(1 / self.step, 0.02)
        self.density.mul_(1 - weight).add_(fired.float() / n, alpha=weight)

    def adam_step(self, lr: float, norm: float, clip_norm: float) -> AdamStep:
        """Return the scalars of Adam for the step just counted; gradients of norm `norm` are clipped at `clip_norm`."""
        beta1, beta2 = AdamStep._field_defaults["beta1"], AdamStep._field_defaults["beta2"]
        return AdamStep(
            rate=lr / (1 - beta1**self.step),
            root_scale=1 / math.sqrt(1 - beta2**self.step),
            shrink=min(1.0, clip_norm / max(norm, 1e-30)),
        )


@dataclass
class TrainState(RunState):
    """Everything that a sparse step changes."""

    W_enc: Tensor
    """`[d_sae, d_in]`: the transpose of the saved `W_enc`, so that a latent's weights are contiguous"""
    b_enc: Tensor
    """`[d_sae]`"""
    W_dec: Tensor
    """`[d_sae, d_out]`, rows of norm 1"""
    b_dec: Tensor
    """`[d_out]`, added to the reconstruction; where an SAE reconstructs its own input, subtracted from it too"""

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
        """Draw random unit decoder rows; `b_dec` is given (the mean of the data).

        The encoder is a copy of the decoder, or separate unit rows where `d_in` is given (another hook point is read).
        With `latents` only that slice of the full state is returned.
        """

        def unit_rows(d: int) -> Tensor:
            rows = _random_rows(d_sae, d, latents, generator, b_dec.dtype)
            return (rows / rows.norm(dim=1, keepdim=True)).to(b_dec.device)

        W_dec = unit_rows(len(b_dec))
        W_enc = W_dec.clone() if d_in is None else unit_rows(d_in)
        b_enc = torch.zeros(len(W_dec), dtype=b_dec.dtype, device=b_dec.device)
        silent, density = torch.zeros_like(b_enc, dtype=torch.int64), torch.zeros_like(b_enc, dtype=torch.float32)
        state = cls(W_enc, b_enc, W_dec, b_dec.clone(), silent=silent, density=density)
        state.zero_moments()
        return state

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[0]

    def parameters(self) -> dict[str, Tensor]:
        return {**{name: getattr(self, name) for name in NAMES}, **self.extra}


def _random_rows(n: int, d: int, kept: slice, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Return rows `kept` of `randn(n, d)`, drawn block by block so that the other rows are never all in memory."""
    start, stop, _ = kept.indices(n)
    if stop - start == n:
        return torch.randn(n, d, generator=generator, dtype=dtype)
    blocks = [_BLOCK] * (n // _BLOCK) or [0]
    blocks[-1] += n - sum(blocks)  # torch draws 16 numbers at a time: a short last block would change the numbers
    out, first = torch.empty(stop - start, d, dtype=dtype), 0
    for rows in blocks:
        drawn = torch.randn(rows, d, generator=generator, dtype=dtype)
        low, high = max(first, start), min(first + rows, stop)
        if low < high:
            out[low - start : high - start] = drawn[low - first : high - first]
        first += rows
    return out


_BLOCK = 4096


class Selected(NamedTuple):
    """Active entries of a step."""

    active: Active
    """`values` are the activations; an entry with value 0 does not fire"""
    raw: Tensor
    """`[nnz]`: the pre-activation of every entry"""


class Pass(NamedTuple):
    """Inputs of `Rule.backward`."""

    state: TrainState
    target: Tensor
    """`[n, d_out]`: target of the sum of active latents (biases already subtracted)"""
    selected: Selected
    decoded: Decoded
    scale: float
    """`dloss/drecons = scale * (recons - target)`"""
    variance: float
    """of the target, summed over its coordinates"""
    warmth: float
    """current weight of a sparsity penalty, as a fraction of its full weight, 0 to 1"""
    tokens: Ranks = ALONE
    """ranks that share the batch"""

    @property
    def n(self) -> int:
        """Tokens of the whole batch, on all ranks."""
        return len(self.target) * self.tokens.world


class Backward(NamedTuple):
    """Result of `Rule.backward`."""

    slopes: Tensor
    """`[nnz]`: gradient of the whole loss with respect to the pre-activation of every entry"""
    penalty: float = 0.0
    """the rule's contribution to the loss, of this rank's tokens"""
    extra: dict[str, Tensor] | None = None
    """gradients of the rule's own parameters, by this rank's tokens (a `b_enc` among them replaces the sum of the
    slopes)"""


class Rule(ABC):
    """The part of a kind that runs inside the step. Stateless: everything learned is in the `TrainState`."""

    revives = True
    """True where dead latents learn by AuxK."""

    starts_from_data = False
    """True where `start` is to be called before the first step."""

    quicker: Mapping[str, float] = MappingProxyType({})
    """Factor on the learning rate, for each of the rule's own parameters that has one."""

    shares_latents = False
    """True where latents may be divided over ranks: selection is by `select_topk` or `select_batch`, and the rule has
    no parameters of its own."""

    blocks: tuple[int, ...] = ()
    """Widths of the sites whose decoders are concatenated in a row; the sum of their norms is held at 1. Empty: one
    site, and the row has norm 1."""

    ends: tuple[int, ...] = ()
    """Ends of nested prefixes of the dictionary, each of which must reconstruct; empty: only the whole does."""

    @abstractmethod
    def select(self, ops: Ops, state: TrainState, pre: Tensor) -> Selected:
        """Return the active entries of `pre [n, d_sae]`, sorted by latent in every row."""

    def backward(self, ops: Ops, step: Pass) -> Backward:
        """Return gradients and penalty. Default: no penalty, and a nonzero value equals its pre-activation."""
        return Backward(step.decoded.grad_values * (step.selected.active.values > 0))

    def start(self, ops: Ops, state: TrainState, x: Tensor, target: Tensor | None) -> None:
        """Initialise from a first batch `x [n, d_in]` (and `target`), and add the kind's own parameters."""
        return

    def constrain(self, state: TrainState) -> None:
        """Project the rule's own parameters back to their constraints, in place, after an update."""
        return

    def threshold(self, state: TrainState, active: Active) -> float | None:
        """Return the value that separates active from silent latents in this step; None where the kind has none."""
        return None


def whole(active: Active) -> Selected:
    """Return entries whose activation is their pre-activation."""
    return Selected(active, active.values)


def entry_rows(active: Active) -> Tensor:
    """`[nnz]`: the token of each entry."""
    return torch.repeat_interleave(active.starts.diff(), output_size=len(active.latents))


def sum_by_latent(active: Active, values: Tensor, like: Tensor) -> Tensor:
    """Sum `values [nnz]` over the entries of every latent; `[d_sae]`."""
    return torch.zeros_like(like).index_add_(0, active.latents, values.to(like.dtype))
