"""Settings of `explain`: how features are explained, and how the explanations are scored. Torch-free."""

from dataclasses import dataclass
from typing import Literal

from interp.errors import ConfigError, UnknownNameError

LabelFrom = Literal["provider", "token-statistics"]


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """Everything that decides a prompt. Two runs with the same settings ask the same questions."""

    label_from: LabelFrom = "provider"
    """`provider`: a language model reads contexts and writes the label. `token-statistics`: the label that the features
    folder holds is scored as it stands (it was made from all strong firings, those held out here among them)."""
    shown: int = 10
    """Contexts shown to the explainer: half of them the strongest, the rest from the quarters of its values."""
    heldout: int = 12
    """Contexts on which the feature fires, kept from the explainer, that the scores are measured on."""
    per_request: int = 5
    """Contexts judged in one request; 1 is the easiest for a small model."""
    null: bool = True
    """Score every feature with another feature's label too: what the score is when the label is wrong."""
    temperature: float = 0.0
    """0 takes the likeliest reply."""
    max_tokens: int = 300
    """Most tokens of one reply. A model that reasons aloud needs thousands."""

    def __post_init__(self) -> None:
        if self.label_from not in ("provider", "token-statistics"):
            raise UnknownNameError("source of labels", self.label_from, ["provider", "token-statistics"])
        for name, low, high in (("shown", 2, 100), ("heldout", 4, 200), ("per_request", 1, 50)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must lie between {low} and {high}, got {getattr(self, name)}")
        if not 0 <= self.temperature <= 2:
            raise ConfigError(f"temperature must lie between 0 and 2, got {self.temperature}")
        if self.max_tokens < 16:
            raise ConfigError(f"max_tokens must be at least 16, got {self.max_tokens}: a reply would not fit")
