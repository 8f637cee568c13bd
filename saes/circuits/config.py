"""Settings of attribution to features and of feature circuits. Torch-free: the command line inherits them."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from interp.circuits.config import Ablation
from interp.errors import ConfigError, UnknownNameError
from interp.nulls import DRAWS
from interp.options import BASIC, Seed

if TYPE_CHECKING:
    from saes.circuits.sites import Prompts

Method = Literal["ig", "gradient"]
METHODS = ("ig", "gradient")


@dataclass(frozen=True, kw_only=True)
class AttributionConfig:
    """Settings of attribution to features."""

    method: Annotated[Method, BASIC] = "ig"
    """ig: integrated gradients, whose attributions add up to the total; gradient: the gradient on the prompt, which
    ranks features as single ablations do."""
    steps: int = 10
    """Gradients between the baseline and the prompt, for ig."""
    first: int = 0
    """Positions at the start that are left out: 1 for SAEs trained without the BOS position, whose residual is an
    outlier."""
    batch_size: int = 8
    """Prompts per forward pass."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UnknownNameError("attribution method", self.method, METHODS)
        if self.steps < 1 or self.batch_size < 1 or self.first < 0:
            raise ConfigError(
                f"steps and batch_size must be at least 1 and first at least 0, got {self.steps}, {self.batch_size}, "
                f"{self.first}"
            )

    def describe(self, prompts: "Prompts") -> dict[str, Any]:
        """Return the settings that are stored with results."""
        steps = {"steps": self.steps} if self.method == "ig" else {}
        baseline = "features and error off" if prompts.corrupt is None else "corrupted prompts"
        return {"task": prompts.name, "metric": prompts.metric.name, "method": self.method, **steps,
                "baseline": baseline, "first": self.first}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FeatureCircuitConfig:
    """Settings of the search for a feature circuit, and of its evaluation."""

    attribution: AttributionConfig = field(default_factory=AttributionConfig)
    n_features: int = 20
    """Features of each SAE that become nodes."""
    n_edges: Annotated[int, BASIC] = 60
    """Edges of the circuit."""
    ablation: Ablation = "resample"
    """Activation of features outside the circuit: that of the corrupted prompt, its mean over prompts, or zero."""
    verify: int = 20
    """Number of strongest edges that are patched one by one, and of random edges."""
    n_random: int = DRAWS["standard"]
    """Random circuits with the same number of features of each SAE, for the null distribution."""
    nulls: bool = True
    """Also evaluate untrained SAEs and an untrained model."""
    seed: Seed = 0
    """Determines every random number."""

    def __post_init__(self) -> None:
        if min(self.n_features, self.n_edges) < 1 or self.n_random < 1:
            raise ConfigError(
                f"n_features, n_edges and n_random must be at least 1, got {self.n_features}, {self.n_edges}, "
                f"{self.n_random}"
            )
        if self.verify < 0:
            raise ConfigError(f"verify must be at least 0, got {self.verify}")
