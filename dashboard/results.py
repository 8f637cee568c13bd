"""What running a prompt gives back: plain values, so that pages and their tests need no torch."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

Guess = tuple[str, float]
"""a token's text and its probability, 0 to 1"""


@dataclass(frozen=True)
class ActiveFeature:
    """A feature that fires on a token, and how strongly."""

    feature: int
    activation: float


@dataclass(frozen=True)
class PromptResult:
    """One reading of a prompt of `n` tokens by a model."""

    model: str
    tokens: list[str]
    losses: list[float | None]
    """nats per token given those before it; None for the first"""
    next_tokens: list[Guess]
    """the likeliest continuations"""
    layers: list[str]
    lens: list[list[list[Guess]]]
    """layer -> position -> strongest tokens"""
    n_layers: int
    n_heads: int
    features: list[list[ActiveFeature]] = field(default_factory=list)
    """position -> its strongest features; empty without an SAE"""
    seconds: float = 0.0


@dataclass(frozen=True)
class Pattern:
    """Attention of one head on a prompt: `weights [dest, src]`, rows sum to 1."""

    tokens: list[str]
    layer: int
    head: int
    weights: np.ndarray


class Live(Protocol):
    """A model that can be asked. `dashboard.live.LiveModel` is the real one; tests bring their own."""

    @property
    def state(self) -> str:
        """`cold` (nothing loaded), `loading` or `ready`."""
        ...

    def read(self, text: str, *, model: str, features: str | None) -> PromptResult:
        """Run a prompt. Raises `PromptError` when it is empty or too long."""
        ...

    def pattern(self, text: str, *, model: str, layer: int, head: int) -> Pattern:
        """Attention of one head. Raises `PromptError`, `UnknownNameError` (no such head)."""
        ...
