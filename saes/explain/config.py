"""Settings of `explain`: the explanation of features, and the scoring of explanations. Torch-free."""

from dataclasses import dataclass
from typing import Literal

from interp.errors import ConfigError, UnknownNameError

LabelFrom = Literal["provider", "token-statistics"]


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """Everything that determines a prompt. Two runs with the same settings ask the same questions."""

    label_from: LabelFrom = "provider"
    """`provider`: a language model reads contexts and writes the label. `token-statistics`: the label in the features
    folder is scored. It was made from all strong firings, so the held-out contexts are among its evidence."""
    shown: int = 10
    """Contexts shown to the explainer: half of them the strongest, the rest from all quarters of activation."""
    heldout: int = 12
    """Held-out contexts on which the feature fires; the scores are measured on them."""
    per_request: int = 5
    """Contexts judged in one request; 1 is the easiest for a small model."""
    null: bool = True
    """Also score every feature with another feature's label: the null, a score with a wrong label."""
    temperature: float = 0.0
    """Sampling temperature; 0 takes the most likely token each time."""
    max_tokens: int = 300
    """Largest number of tokens in one reply. A model that reasons aloud needs thousands."""

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
