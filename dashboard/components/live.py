"""The results of running a prompt, as plain values: pages and their tests need no torch."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from interp.errors import UsageError
from interp.interventions.conversation import Conversation, MovedToken, Reply
from interp.statistics import p_from_null
from saes.features.proof import ALPHA, AblatedExample, ListsApart, SteeredRow, TextFirings

if TYPE_CHECKING:
    from interp.patching.patching_map import PatchingMap
    from interp.tracing.attention import EdgeSplit
    from interp.tracing.interventions import Continuations, GraphIntervention
    from interp.tracing.supernodes import JudgedGroups


MAX_NEW = 60
"""Most tokens of a continuation."""


class SupersededError(UsageError):
    """A newer request of the same page replaced this one, or the visitor cancelled it."""


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
    """Some columns of a lens: what the residual stream after each layer predicts at some positions."""

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
class NextTokens:
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


@dataclass(frozen=True)
class Exchange:
    """Two words whose coordinates are exchanged through the Jacobian lens, after a block."""

    word: str
    other: str
    layer: int


@dataclass(frozen=True)
class Generation:
    """One more token of three continuations: unchanged, changed, and moved as far in a random direction."""

    number: int
    """counted from 0"""
    tokens: list[Guess]
    """one for each continuation, with its probability there; empty in the last message"""
    unchanged: list[list[float]] = field(default_factory=list)
    """in the last message: for each continuation, the probability of its tokens under the unchanged model"""


@dataclass(frozen=True)
class ChatStep:
    """One more token of every chat of a conversation; in the last message, the replies."""

    said: list[MovedToken | None]
    """None for a chat that has ended"""
    replies: dict[str, Reply] = field(default_factory=dict)


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
    note: str = ""
    """whole sentences: a soft cap of the logits, and scales held fixed beyond that of the final norm"""


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
    """Effects on a logit difference at one hook point: `metric = baseline + explained + error + gap`."""

    answer: str
    contrast: str | None
    after: int
    token: str
    hook_point: str
    """The hook point whose activation the dictionary reconstructs."""
    metric: float
    """the logit difference itself, the number that `LogitShares.total` gives"""
    baseline: float
    """its value with all features and the error ablated"""
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
    """score minus the mean of the other keys'; the softmax depends on nothing else"""
    matrix: np.ndarray
    """`[n_query_parts, n_key_parts]`, summing to `relative`"""
    query_parts: list[str]
    key_parts: list[str]


@dataclass(frozen=True)
class PatchPair:
    """A suggestion for the panel of patching."""

    clean: str
    corrupt: str
    """the same with one word replaced; empty where no word could be"""
    answer: str
    wrong: str
    """the most probable next token of each; empty where the corrupt one is unknown or the same"""


@dataclass(frozen=True)
class Compared:
    """An effect of steering along a feature, and along the directions of two nulls."""

    value: float
    random: list[float]
    """of random directions of the same norm"""
    alike: list[float]
    """of features of like density, scaled to the same norm"""

    @property
    def nulls(self) -> list[tuple[str, list[float]]]:
        """Names and values of both nulls; without features of like density, one."""
        both = [("random directions", self.random), ("features of like density", self.alike)]
        return [(name, null) for name, null in both if null]

    def p(self, null: list[float]) -> float:
        """Return the p-value by one null."""
        return p_from_null(self.value, np.array(null))

    def exceeds(self, *doing: str) -> str:
        """Return how many directions of each null it exceeds; `doing` is the verb of each null."""
        below = [f"{(np.array(null) < self.value - 1e-12).sum()} of {len(null)} {name}" for name, null in self.nulls]
        return "more than " + " and ".join(count + does for count, does in zip(below, doing, strict=False))


@dataclass(frozen=True)
class SteeringVerdict:
    """Rise of the words that a feature should raise and that did not choose the strength of its proof."""

    feature: int
    strength: float
    """added on every token, in units of its largest activation"""
    amount: float
    """the same as an activation"""
    words: list[str]
    raised: Compared
    """nats of log-probability; each random direction is measured on words of its own"""
    shift: Compared
    """nats, `KL(unchanged || steered)` of the next token"""

    @property
    def p(self) -> float:
        """The larger of the p-values of the words by the two nulls."""
        return max(self.raised.p(null) for _, null in self.raised.nulls)

    @property
    def lines(self) -> list[str]:
        """The finding with both nulls and the smallest p-value that their number allows; then the size of the shift."""
        shown = ", ".join(self.words)
        fails = " or ".join(name for name, null in self.raised.nulls if self.raised.p(null) > ALPHA)
        found = f"Not beyond {fails}" if fails else "Beyond both nulls"
        beside = self.raised.exceeds(" raise theirs", " raise these")
        least = 1 / (1 + min(len(null) for _, null in self.raised.nulls))
        return [
            f"Feature {self.feature} at {self.strength:.3g} × its maximum ({self.amount:.3g}): its held-back words "
            f"({shown}) rise by "
            f"{self.raised.value:.3g} nats, {beside} (p {self.p:.3g}, the smallest possible is {least:.3g}). "
            f"{found}, on this one prompt.",
            f"The next token shifts by {self.shift.value:.3g} nats of KL divergence, {self.shift.exceeds('', '')}.",
        ]

    @property
    def sentence(self) -> str:
        """Both lines as one text."""
        return " ".join(self.lines)


@dataclass(frozen=True)
class DocumentText:
    """A document of the recording, or the part of it around one token, with a feature's activation on each token."""

    tokens: list[str]
    token_ids: list[int]
    activations: list[float]
    first: int
    """position in the document of the first token here"""
    peak: int
    """index in `tokens` of the token that was asked for"""
    cut: bool
    """the document is longer"""


FeatureAnswer = TextFirings | list[SteeredRow] | list[AblatedExample] | ListsApart
"""the answer about one feature: on a text, steered, or ablated"""


class Live(Protocol):
    """A model that can be asked. `dashboard.prompt.live.LiveModel` is the real one; tests bring their own.

    `chat` puts the text into the model's chat template, as the message of a user. Every method raises `PromptError`
    for a prompt that is empty or too long, or a model without a template.
    """

    @property
    def state(self) -> str:
        """`cold` (nothing loaded), `loading` or `ready`."""
        ...

    def stage(self, visitor: str) -> str:
        """Return the progress of the requests of a page, in words."""
        ...

    def cancel(self, visitor: str) -> None:
        """Drop the requests of a page."""
        ...

    def read(self, text: str, *, model: str, features: str | None, chat: bool = False) -> PromptResult:
        """Run a prompt."""
        ...

    def lens(
        self, text: str, *, model: str, start: int, stop: int, lens: str = "logit", token: str = "", chat: bool = False
    ) -> LensCells:
        """Decode every layer at the positions from `start` up to `stop`, and follow one token through them.

        `lens` is one of the result's `lenses`.
        """
        ...

    def next_tokens(
        self, text: str, *, model: str, after: int | None, temperature: float = 1.0, chat: bool = False
    ) -> NextTokens:
        """Return the likeliest tokens after a position (None: the last)."""
        ...

    def activations(self, text: str, *, model: str, features: str, feature: int, chat: bool = False) -> list[float]:
        """Return the activation of one feature on every token. Raises `UnknownNameError` (no such feature)."""
        ...

    def generate(
        self,
        text: str,
        *,
        model: str,
        n_new: int,
        temperature: float,
        seed: int,
        features: str = "",
        feature: int = 0,
        strength: float = 1.0,
        exchange: Exchange | None = None,
        chat: bool = False,
    ) -> Iterator[Generation]:
        """Continue a prompt with and without a feature steered, token by token; `strength` is in units of the largest
        activation that was measured. Raises `ConfigError` for neurons.
        """
        ...

    def chat(self, talk: Conversation, message: str) -> Iterator[ChatStep]:
        """Answer a message in every chat of a conversation, token by token. Raises `PromptError` for an empty message
        or a full context, `MismatchError` for other weights, `ConfigError` for a model that cannot chat.
        """
        ...

    def check_chat(self, talk: Conversation) -> dict[str, bool | int]:
        """Load the model of a conversation; return whether it has a `template` and its context. Raises as `chat`."""
        ...

    def pattern(self, text: str, *, model: str, layer: int, head: int, chat: bool = False) -> Pattern:
        """Attention of one head. Raises `UnknownNameError` (no such head)."""
        ...

    def shares(
        self, text: str, *, model: str, answer: str, contrast: str, after: int | None, chat: bool = False
    ) -> LogitShares:
        """Attribute the logit of `answer`, minus that of `contrast`, after position `after` (None: the last) to parts.

        An empty answer is the likeliest continuation, and an empty contrast with it the next likeliest. Raises
        `PromptError` when one of them is not a single token, or the position lies outside the prompt.
        """
        ...

    def feature_shares(
        self,
        text: str,
        *,
        model: str,
        features: str,
        answer: str,
        contrast: str,
        after: int | None,
        chat: bool = False,
    ) -> FeatureShares:
        """Attribute that logit to the features of a dictionary; answers as in `shares`. Raises what it raises, and
        `ConfigError` for neurons.
        """
        ...

    def reasons(
        self, text: str, *, model: str, layer: int, head: int, query: int, key: int, chat: bool = False
    ) -> ScoreReasons:
        """Split an attention score into pairs of parts. Raises `UnknownNameError` (no such head)."""
        ...

    def suggest_pair(self, text: str, *, model: str, chat: bool = False) -> PatchPair:
        """Suggest a second prompt of the same length that differs in one word, with both answers."""
        ...

    def steering_verdict(
        self, text: str, *, model: str, features: str, feature: int, strength: float = 1.0, chat: bool = False
    ) -> SteeringVerdict:
        """Compare steering with the directions of both nulls; `strength` is in units of the largest activation. Raises
        `UsageError` (no such feature, or it never fires).
        """
        ...

    def patch(
        self, clean: str, corrupt: str, *, model: str, answer: str, wrong: str, what: str, direction: str,
        chat: bool = False,
    ) -> "PatchingMap":  # fmt: skip
        """Return the effects of activation patches between two prompts of one length; answers are one token each, with
        or without their leading space. Raises `ConfigError` where the metric shows no gap."""
        ...

    def try_feature(
        self, ask: Literal["text", "steer", "ablate", "direction"], *, model: str, features: str, index: int,
        text: str = "", strength: float = 1.0,
    ) -> FeatureAnswer:  # fmt: skip
        """Read a text with one feature, steer it (`strength` in units of the largest activation), ablate the feature on
        its own examples, or compare lists of words along its direction; every answer has its controls. Raises
        `UsageError` (no such feature, or it never fires).
        """
        ...

    def split(self, graph: str, *, source: str, target: str) -> "EdgeSplit":
        """Split an edge of a graph by heads. Raises `MismatchError` for other weights, `UsageError`."""
        ...

    def intervene(self, graph: str, *, factors: dict[str, float], mode: str) -> "GraphIntervention":
        """Multiply activations of latents of a stored graph, `factors` by node id, and measure its first target.

        The answer has the graph's prediction and the effects of random latents. `mode` is one of `direct`, `attention`
        and `free`. Raises `UsageError` (no such latent), `MismatchError` where the graph was traced in other weights.
        """
        ...

    def graph_text(self, graph: str, *, factors: dict[str, float]) -> "Continuations":
        """Write on from a graph's prompt: unchanged, with activations multiplied, and with random latents changed.

        Raises what `intervene` raises.
        """
        ...

    def graph_groups(self, graph: str, *, labels: dict[str, str]) -> "JudgedGroups":
        """Group latents of a stored graph, node id to label, whose ablation changes the model alike, and judge them.

        Raises what `intervene` raises.
        """
        ...

    def documents(self, *, features: str, index: int, rows: list[int]) -> list[DocumentText]:
        """Return the documents that contain some rows of the recording, with one feature's activation on every token.

        Raises `MissingError` or `MismatchError` where the recording, the SAE or the model that made the features is not
        here.
        """
        ...
