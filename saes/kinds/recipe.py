"""Training side of a kind: its rule inside the step (`saes.kernels.state`), and how the result becomes an SAE."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

from interp.recording.store import Recording, Stats
from saes.kernels.state import Rule
from saes.kinds.base import SAE, SAEMetadata, Weights


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
class Site:
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
    sites: tuple[Site, ...] = ()
    """the hook point that is read"""


@dataclass(frozen=True, kw_only=True)
class Trained(Finished):
    """Result of sparse steps, in the units of the model's activations."""

    weights: Weights
    own: dict[str, Tensor]
    """the kind's own parameters, in training units"""


class Recipe(Rule):
    """Training recipe of one kind. Concrete recipes take their config and are made by `registry.recipe_of`."""

    @abstractmethod
    def finish(self, trained: Trained) -> SAE:
        """Return the SAE, ready for use."""
