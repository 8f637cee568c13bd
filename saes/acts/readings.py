"""Answers about one prompt, as plain values. Torch-free."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

Guess = tuple[str, float]
"""a token's text and its probability, 0 to 1"""


class ActiveFeature(NamedTuple):
    """A feature that fires on a token, and how strongly."""

    feature: int
    activation: float
    below: float | None = None
    """fraction of the feature's recorded activations that are smaller; None where none was recorded"""


@dataclass(frozen=True)
class PromptResult:
    """One reading of a prompt of `n` tokens by a model."""

    model: str
    tokens: list[str]
    losses: list[float | None]
    """nats per token given those before it; None for the first"""
    layers: list[str]
    """names of the rows of a lens: the embedding, then each layer"""
    n_layers: int
    n_heads: int
    patterns: np.ndarray
    """`[n_layers, n_heads, s, s]` uint8: small pictures of every head's attention, 255 for 1"""
    vocabulary: int
    """size of the vocabulary; its logarithm is the loss of a uniform guess"""
    likeliest: str
    """the most probable token after the prompt"""
    features: list[list[ActiveFeature]] = field(default_factory=list)
    """position -> its strongest features; empty without a dictionary"""
    labels: dict[int, str] = field(default_factory=dict)
    """label of each of these features"""
    active: list[int] = field(default_factory=list)
    """position after BOS -> its active latents; empty without an SAE, as are the next two"""
    random_active: list[int] = field(default_factory=list)
    random_strongest: list[float] = field(default_factory=list)
    """the same count, and the largest activation, at a random vector as far from the mean of the prompt"""
    lenses: list[tuple[str, str]] = field(default_factory=lambda: [("logit", "")])
    """kinds of lens that the workspace has for this model, each with its error on held-out text; the best first"""
    seconds: float = 0.0


@dataclass(frozen=True)
class LensCells:
    """Some columns of a lens: predictions of the residual stream after each layer, at some positions."""

    start: int
    """the first position"""
    cells: list[list[list[Guess]]]
    """layer -> position -> strongest tokens"""
    followed: str | None = None
    """the token whose rank and probability are given"""
    rank: list[list[int]] = field(default_factory=list)
    """layer -> position: number of more probable tokens; 0 is the top"""
    probability: list[list[float]] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    """position -> number of other positions of the prompt that its control is measured at"""
    top_elsewhere: list[list[int]] = field(default_factory=list)
    """layer -> position -> number of them at which the token of this cell is also the most probable one"""
    rank_elsewhere: list[list[float]] = field(default_factory=list)
    """layer -> position -> median rank, at them, of the token that is followed"""


@dataclass(frozen=True)
class NextTokenGuesses:
    """The next-token distribution after one position, at a temperature."""

    after: int
    token: str
    temperature: float
    guesses: list[Guess]
    """the likeliest tokens, most probable first"""
    entropy: float
    """nats: 0 for a certain prediction"""
    uniform: float
    """the entropy of a uniform guess, in nats"""
