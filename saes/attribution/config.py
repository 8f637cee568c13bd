"""Settings of attribution to features. Torch-free: the command line inherits them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from interp.errors import UnknownNameError
from interp.options import BASIC, check_least

if TYPE_CHECKING:
    from saes.attribution.sites import MeasuredPrompts

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
        check_least(self, {"steps": 1, "batch_size": 1, "first": 0})

    def describe(self, prompts: "MeasuredPrompts") -> dict[str, str | int]:
        """Return the settings that are stored with results."""
        steps = {"steps": self.steps} if self.method == "ig" else {}
        baseline = "features and error off" if prompts.corrupt is None else "corrupted prompts"
        return {"task": prompts.name, "metric": prompts.metric.name, "method": self.method, **steps,
                "baseline": baseline, "first": self.first}  # fmt: skip
