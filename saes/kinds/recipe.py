"""Training side of a kind: its rule inside the step (`saes.kernels.state`), and how the result becomes an SAE."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from saes.kernels.state import Rule
from saes.kinds.base import SAE, SAEMetadata, Weights
from saes.training.data import Scales, Site


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Result of training, in the units of the model's activations."""

    weights: Weights
    own: dict[str, Tensor]
    """the kind's own parameters, in training units"""
    scales: Scales
    metadata: SAEMetadata
    batches: Iterable[Tensor]
    """a few batches of training input `[n, d_in]`, to estimate thresholds with"""
    sites: tuple[Site, ...] = ()
    """the hook point that is read"""


class Recipe(Rule):
    """Training recipe of one kind. Concrete recipes take their config and are made by `registry.recipe_of`."""

    @abstractmethod
    def finish(self, trained: Trained) -> SAE:
        """Return the SAE, ready for use."""
