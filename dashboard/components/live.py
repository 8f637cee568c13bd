"""The results of running a prompt, as plain values: pages and their tests need no torch."""

from dataclasses import dataclass, field
from typing import Any, Protocol

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
    tuned: list[list[list[Guess]]] = field(default_factory=list)
    """the same as `lens` through a tuned lens; empty when the workspace has none of this model"""
    seconds: float = 0.0


@dataclass(frozen=True)
class Pattern:
    """Attention of one head on a prompt: `weights [dest, src]`, rows sum to 1."""

    tokens: list[str]
    layer: int
    head: int
    weights: np.ndarray


@dataclass(frozen=True)
class LogitShares:
    """Direct logit attribution of one answer, or of the difference of two; units of logits, summing to `total`."""

    answer: str
    contrast: str | None
    """None: the answer's logit less the mean over the vocabulary"""
    after: int
    """the position whose continuation it is"""
    token: str
    total: float
    parts: list[tuple[str, float]]
    """every part of the model with its share"""
    heads: list[list[float]]
    """`[n_layers][n_heads]`"""
    mlps: list[float]
    """`[n_layers]`; empty in a model without MLPs"""


@dataclass(frozen=True)
class FeatureShare:
    """One feature behind an answer."""

    feature: int
    effect: float
    """logits; above 0 it raises the answer"""
    position: int
    """of the token where its effect is largest"""
    token: str


@dataclass(frozen=True)
class FeatureShares:
    """Effects on a logit difference at one hook point: features, reconstruction error and `gap` add up to `total`."""

    answer: str
    contrast: str | None
    after: int
    token: str
    hook_point: str
    """The hook point whose activation the dictionary reconstructs."""
    total: float
    """the logit difference, minus its value with all features and the error ablated"""
    explained: float
    """by all features together"""
    error: float
    """by the reconstruction error of the dictionary"""
    gap: float
    """the part that the approximation by gradients misses"""
    n_active: int
    features: list[FeatureShare]
    """the strongest, strongest first"""


@dataclass(frozen=True)
class ScoreReasons:
    """One attention score as a sum over pairs of parts, less the mean over the other keys."""

    layer: int
    head: int
    query: int
    key: int
    query_token: str
    key_token: str
    attention: float
    """0 to 1, after the softmax"""
    score: float
    """before the softmax"""
    relative: float
    """how far the score is above the mean of the other keys' (the softmax sees nothing else)"""
    matrix: np.ndarray
    """`[n_query_parts, n_key_parts]`, summing to `relative`"""
    query_parts: list[str]
    key_parts: list[str]


@dataclass(frozen=True)
class PatchEffects:
    """A map of activation patches between two prompts, each next to its null."""

    model: str
    metric: str
    records: list[dict[str, Any]]
    """One per patch, as the rows of `effects.parquet`: `layer`, `head` or `position`, `effect`, `null`, `beyond` ..."""
    clean_tokens: list[str]
    corrupt_tokens: list[str]
    summary: dict[str, Any]
    """That of a patching artefact."""


class Live(Protocol):
    """A model that can be asked. `dashboard.prompt.live.LiveModel` is the real one; tests bring their own."""

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

    def shares(self, text: str, *, model: str, answer: str, contrast: str, after: int | None) -> LogitShares:
        """Attribute the logit of `answer`, minus that of `contrast`, after position `after` (None: the last) to parts.

        An empty answer is the likeliest continuation, and an empty contrast with it the next likeliest. Raises
        `PromptError` when one of them is not a single token, or the position lies outside the prompt.
        """
        ...

    def feature_shares(
        self, text: str, *, model: str, features: str, answer: str, contrast: str, after: int | None
    ) -> FeatureShares:
        """Attribute that logit to the features of a dictionary; answers as in `shares`. Raises what it raises, and
        `ConfigError` for neurons.
        """
        ...

    def reasons(self, text: str, *, model: str, layer: int, head: int, query: int, key: int) -> ScoreReasons:
        """Split an attention score into pairs of parts. Raises `PromptError`, `UnknownNameError` (no such head)."""
        ...

    def patch(
        self, clean: str, corrupt: str, *, model: str, answer: str, wrong: str, what: str, direction: str
    ) -> PatchEffects:
        """Return the effects of activation patches between two prompts of one length; answers are one token each, with
        or without their leading space. Raises `PromptError`, and `ConfigError` where the metric shows no gap."""
        ...
