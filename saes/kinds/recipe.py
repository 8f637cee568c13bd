"""The training side of a kind: the rule inside the step (`saes.kernels.state`), and how training ends in an SAE."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from saes.kernels.state import Rule
from saes.kinds.base import SAE, SAEMetadata, Weights
from saes.training.data import Place, Scales


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training leaves behind, in the units of the model's activations."""

    weights: Weights
    own: dict[str, Tensor]
    """the kind's own parameters, still in the units of training"""
    scales: Scales
    metadata: SAEMetadata
    batches: Iterable[Tensor]
    """a few batches of training input `[n, d_in]`, for what must be estimated"""
    places: tuple[Place, ...] = ()
    """what it reads"""


class Recipe(Rule):
    """How one kind is trained. Concrete recipes take their config and are made by `registry.recipe_of`."""

    @abstractmethod
    def finish(self, trained: Trained) -> SAE:
        """The SAE, ready for use."""
