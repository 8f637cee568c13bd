"""Acts on one prompt: its tokens, features and attention, the prediction after each layer, and the next token.

All but the first draw on its reading, which stays in memory. Torch-free until an act is measured.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Interval

from interp.acts import Act
from interp.errors import PromptError, UnknownNameError
from interp.options import Count, FeaturesName, ModelName, PromptText, Slider
from saes.acts.readings import LensCells, NextTokenGuesses, PromptResult
from saes.acts.run import Run
from saes.features.schema import Features, labels, shares_below


@dataclass(frozen=True, kw_only=True)
class OnPrompt:
    """Fields of every act on a prompt."""

    model: ModelName
    """A model of the workspace."""
    text: PromptText
    """The prompt."""
    chat: bool = False
    """Put the prompt into the model's chat template, as the message of a user."""


@dataclass(frozen=True, kw_only=True)
class ReadPrompt(OnPrompt, Act[Run, PromptResult]):
    """Read a prompt: the loss and the strongest features of each token, and the attention of every head.

    `random_active` and `random_strongest` are the null of the activations: random vectors as far from the mean of the
    prompt as its tokens. Raises `PromptError` (empty, or too long), `MismatchError` (a dictionary of other weights).
    """

    verb: ClassVar[str] = "read_prompt"
    replaces_all: ClassVar[bool] = True
    features: FeaturesName = ""
    """Described features of a dictionary or of neurons; empty for none."""

    def measure(self, run: Run) -> PromptResult:
        reading = run.reading(self.text, self.model, self.chat, self.features or None)
        return described(run, reading.result, self.features)

    def known(self, run: Run) -> PromptResult | None:
        """Return the answer where the reading is in memory, without waiting for the model."""
        reading = run.known_reading(self.text, self.model, self.chat, self.features or None)
        return described(run, reading.result, self.features) if reading else None


def described(run: Run, result: PromptResult, features: str) -> PromptResult:
    """Return a reading with the labels of its features, and the share of recorded activations below each."""
    fired = [(active.feature, active.activation) for at in result.features for active in at]
    if not fired:
        return result

    artefact = run.open(Features, features)
    below = iter(shares_below(artefact, fired))
    placed = [[active._replace(below=next(below)) for active in at] for at in result.features]
    return replace(result, features=placed, labels=labels(run.workspace, features, {n for n, _ in fired}))


@dataclass(frozen=True, kw_only=True)
class ReadLayers(OnPrompt, Act[Run, LensCells]):
    """Decode the residual stream after every layer into predictions of the next token, here and at control positions.

    The control of a cell are other positions of the prompt (nostalgebraist 2020 for the logit lens).
    """

    verb: ClassVar[str] = "read_layers"
    later: ClassVar[bool] = True
    start: Count
    """First position."""
    stop: Count
    """Position after the last one."""
    lens: str = "logit"
    """`logit`, `tuned` or `jacobian`; the workspace has to have a lens that is fitted."""
    token: str = ""
    """A word to follow: its rank and probability in each cell."""

    def measure(self, run: Run) -> LensCells:
        from saes.acts._reading import lens_cells, token_at_end

        reading = run.reading(self.text, self.model, self.chat)
        n = reading.tokens.shape[1]
        if not self.start < self.stop <= n:
            raise PromptError(
                f"the prompt has positions 0 to {n - 1}, got {self.start} to {self.stop - 1}; choose among them"
            )
        model, translators = run.model(self.model), run.lens(self.model, self.lens)
        followed = token_at_end(model, reading, self.token) if self.token else None
        return lens_cells(model, reading, self.start, self.stop, translators, followed, run.check)


@dataclass(frozen=True, kw_only=True)
class NextTokens(OnPrompt, Act[Run, NextTokenGuesses]):
    """Return the likeliest next tokens after a position; `uniform` is the entropy of a uniform guess."""

    verb: ClassVar[str] = "next_tokens"
    after: Count | None = None
    """The position; by default the last."""
    temperature: Annotated[float, Interval(ge=0.05, le=5), Slider(0.1, 2, 0.1)] = 1.0
    """Of the softmax; 1 for the model's own probabilities."""

    def measure(self, run: Run) -> NextTokenGuesses:
        from saes.acts._reading import next_tokens, position

        reading = run.reading(self.text, self.model, self.chat)
        return next_tokens(run.model(self.model), reading, position(reading.tokens, self.after), self.temperature)


@dataclass(frozen=True, kw_only=True)
class FeatureActivations(OnPrompt, Act[Run, list[float]]):
    """Return the activation of one feature on every token of a prompt."""

    verb: ClassVar[str] = "activations"
    features: FeaturesName
    """Described features of a dictionary or of neurons."""
    feature: Count
    """Number of the feature."""

    def measure(self, run: Run) -> list[float]:
        from saes.acts._reading import activations_of

        reading = run.reading(self.text, self.model, self.chat, self.features)
        n = run.open(Features, self.features).n_features
        if self.feature >= n:
            raise UnknownNameError("feature", str(self.feature), [], f"of {self.features}; the last one is {n - 1}")
        return activations_of(reading, self.feature)


@dataclass(frozen=True)
class Pattern:
    """Attention of one head on a prompt."""

    tokens: list[str]
    layer: int
    head: int
    cells: np.ndarray
    """`[dest, src]` uint16: 65535 for an attention of 1"""

    @classmethod
    def of(cls, tokens: list[str], layer: int, head: int, weights: np.ndarray) -> "Pattern":
        """Return the pattern of `weights [dest, src]`, whose rows sum to 1."""
        return cls(tokens, layer, head, np.round(weights * 65535).clip(0, 65535).astype(np.uint16))

    @property
    def weights(self) -> np.ndarray:
        """`[dest, src]`: attention, rows sum to 1."""
        return self.cells / 65535


@dataclass(frozen=True, kw_only=True)
class ShowAttention(OnPrompt, Act[Run, Pattern]):
    """Return the attention of one head on a prompt: each row is a destination, and sums to 1 over its sources."""

    verb: ClassVar[str] = "attention"
    layer: Count
    """Number of the layer, from 0."""
    head: Count
    """Number of the head in it, from 0."""

    def measure(self, run: Run) -> Pattern:
        from saes.acts._reading import check_head

        reading = run.reading(self.text, self.model, self.chat)
        check_head(run.model(self.model), self.layer, self.head)
        weights = reading.patterns[self.layer, self.head].float()
        weights = (weights / weights.sum(-1, keepdim=True)).cpu().numpy()  # stored with ten bits each
        return Pattern.of(reading.result.tokens, self.layer, self.head, weights)
