"""What a kind decides inside the training step: which latents are active, what it is charged, what else it learns.

The step itself (`step.py`) is the same for every kind. A rule sees pre-activations and gives the entries that take
part (`select`); once they are decoded it turns `dloss/dvalue` of every entry into `dloss/dpre` and adds its penalty
(`backward`). All of it is linear in the number of entries.

A batch may be shared by ranks. Then `pre` and the entries are those of this rank's tokens, and what a rule returns must
be sums over them, which the step adds up: divide by `Pass.n`, the tokens of the whole batch, and never by their number
here. A rule that needs a sum over the whole batch on its way takes it with `Pass.tokens.total`; `select_batch` chooses
among all ranks' values by itself. Latents may be shared where `shares_latents` says so.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from interp.ranks import ALONE, Ranks
from saes.kernels.state import Active, Decoded, Ops, TrainState


class Selected(NamedTuple):
    """The entries of a step."""

    active: Active
    """`values` are the activations; an entry with value 0 does not fire"""
    raw: Tensor
    """`[nnz]`: the pre-activation of every entry"""


class Pass(NamedTuple):
    """What `backward` may look at."""

    state: TrainState
    target: Tensor
    """`[n, d_out]`: what the active latents are to sum to (biases subtracted already)"""
    selected: Selected
    decoded: Decoded
    scale: float
    """`dloss/drecons = scale * (recons - target)`"""
    variance: float
    """of the target, summed over its coordinates"""
    warmth: float
    """share of its full weight that a sparsity penalty has now, 0 to 1"""
    tokens: Ranks = ALONE
    """who shares the batch"""

    @property
    def n(self) -> int:
        """Tokens of the whole batch, on all ranks."""
        return len(self.target) * self.tokens.world


class Backward(NamedTuple):
    """What comes back from a rule."""

    slopes: Tensor
    """`[nnz]`: gradient of the whole loss with respect to the pre-activation of every entry"""
    penalty: float = 0.0
    """what this rank's tokens add to the loss by the rule"""
    extra: dict[str, Tensor] | None = None
    """gradients of the rule's own parameters, by this rank's tokens (a `b_enc` among them replaces the sum of the
    slopes)"""


class Rule(ABC):
    """The part of a kind that lives inside the step. Stateless: everything that is learned is in the `TrainState`."""

    revives = True
    """Whether dead latents are taught by AuxK."""

    starts_from_data = False
    """Whether `start` is to be called before the first step."""

    quicker: Mapping[str, float] = MappingProxyType({})
    """How many times the learning rate one of the rule's own parameters moves at."""

    shares_latents = False
    """Whether its latents may lie on different ranks: selection is by `select_topk` or `select_batch`, and there are no
    parameters of its own."""

    blocks: tuple[int, ...] = ()
    """Widths of the places whose decoders lie side by side in a row; the sum of their lengths is held at 1. Empty: one
    place, and the row has length 1."""

    ends: tuple[int, ...] = ()
    """Ends of nested prefixes of the dictionary, each of which must reconstruct; empty: only the whole does."""

    @abstractmethod
    def select(self, ops: Ops, state: TrainState, pre: Tensor) -> Selected:
        """The entries of `pre [n, d_sae]` that take part, by rising latent in every row."""

    def backward(self, ops: Ops, step: Pass) -> Backward:
        """Default: no penalty; a value that is not 0 follows its pre-activation one to one."""
        return Backward(step.decoded.grad_values * (step.selected.active.values > 0))

    def start(self, ops: Ops, state: TrainState, x: Tensor, target: Tensor | None) -> None:
        """Set what this kind takes from a first batch `x [n, d_in]` (and `target`), and add its own parameters."""
        return

    def constrain(self, state: TrainState) -> None:
        """Put the rule's own parameters back where they may be, in place, after an update."""
        return

    def threshold(self, state: TrainState, active: Active) -> float | None:
        """The value that separates active from silent latents in this step; None where the kind has none."""
        return None


def whole(active: Active) -> Selected:
    """Entries whose activation is their pre-activation."""
    return Selected(active, active.values)


def entry_rows(active: Active) -> Tensor:
    """`[nnz]`: the token of each entry."""
    return torch.repeat_interleave(active.starts.diff())


def sum_by_latent(active: Active, values: Tensor, like: Tensor) -> Tensor:
    """`[d_sae]`: `values [nnz]` added up over the entries of every latent."""
    return torch.zeros_like(like).index_add_(0, active.latents, values.to(like.dtype))
