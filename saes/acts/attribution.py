"""Acts on an answer: the parts of the model and the features behind its logit, and the reasons for one attention score.

Torch-free until an act is measured.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.acts import Act
from interp.models.hooked import HookedModel
from interp.options import Count, FeaturesName
from saes.acts.prompt import OnPrompt
from saes.acts.run import Run

if TYPE_CHECKING:
    from saes.acts._reading import PromptReading

TOP_SHARES, SHARE_STEPS = 16, 8
"""Features shown for an answer, and steps of the integrated gradients behind their effects."""


@dataclass(frozen=True, kw_only=True)
class OnAnswer(OnPrompt):
    """Fields of the acts on an answer."""

    answer: str = ""
    """The word whose logit is attributed; empty for the likeliest next token."""
    contrast: str = ""
    """The word whose logit is subtracted; empty for the mean over the vocabulary, or with an empty answer for the
    next likeliest token."""
    after: Count | None = None
    """Position whose continuation it is; by default the last."""

    def tokens_at(self, run: Run) -> "tuple[HookedModel, PromptReading, int, int, int | None]":
        """Return the model, the reading, the position, and the tokens of the answer and the contrast."""
        from saes.acts._reading import answers, position

        reading = run.reading(self.text, self.model, self.chat)
        model, at = run.model(self.model), position(reading.tokens, self.after)
        return model, reading, at, *answers(model, reading, at, self.answer, self.contrast)


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


@dataclass(frozen=True, kw_only=True)
class AttributeAnswer(OnAnswer, Act[Run, LogitShares]):
    """Attribute an answer's logit to every head and MLP: direct effects in logits, which sum to `total`.

    Raises `PromptError` where a word is not a single token, or the position lies outside the prompt.
    """

    verb: ClassVar[str] = "attribute"

    def measure(self, run: Run) -> LogitShares:
        from interp.lenses.direct_attribution import direct_logit_attribution
        from interp.models.adapter import token_strings

        model, reading, at, right, wrong = self.tokens_at(run)
        run.check("attributing the answer")
        effects = direct_logit_attribution(
            model, reading.tokens, right, wrong, position=at, earlier=reading.parts or None
        )
        names = token_strings(model, [right] if wrong is None else [right, wrong])
        cap = [f"The logits are those {effects.settings['logits']}."] if "logits" in effects.settings else []
        return LogitShares(
            answer=names[0],
            contrast=None if wrong is None else names[1],
            after=at,
            token=reading.result.tokens[at],
            total=float(effects.total[0]),
            parts=list(zip(effects.parts, effects.values[:, 0].tolist(), strict=True)),
            heads=effects.heads[:, :, 0].tolist(),
            mlps=effects.mlps[:, 0].tolist() if "L0MLP" in effects.parts else [],
            note=" ".join([*cap, *effects.held_fixed]),
        )


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
    features: list[FeatureShare] = field(default_factory=list)
    """the strongest, strongest first"""


@dataclass(frozen=True, kw_only=True)
class AttributeToFeatures(OnAnswer, Act[Run, FeatureShares]):
    """Attribute an answer's logit to the features of an SAE, by integrated gradients; the error of the SAE is a part.

    Raises the errors of `AttributeAnswer`, and `ConfigError` for neurons.
    """

    verb: ClassVar[str] = "attribute_to_features"
    later: ClassVar[bool] = True
    features: FeaturesName
    """Described features of an SAE."""

    def measure(self, run: Run) -> FeatureShares:
        from interp.models.adapter import bos_token_id, token_strings
        from interp.patching.metrics import LogitDiff
        from saes.attribution.attribution import AttributionConfig, attribute
        from saes.attribution.sites import MeasuredPrompts

        model, reading, at, right, wrong = self.tokens_at(run)
        sae = run.described_sae(self.features, self.model)
        run.check("attributing the answer to features")
        tokens = reading.tokens[:, : at + 1].cpu()
        lengths = tokens.new_tensor([at + 1])
        metric = LogitDiff([right], None if wrong is None else [wrong])
        prompts = MeasuredPrompts(name="", tokens=tokens, lengths=lengths, at=lengths[:, None] - 1, metric=metric)
        config = AttributionConfig(steps=SHARE_STEPS, first=int(bos_token_id(model) is not None))
        [effects] = attribute(model, sae, prompts, config)
        shares = []
        for feature, effect in effects.top(TOP_SHARES):
            mask = effects.feature == feature
            position = int(effects.position[mask][effects.effect[mask].abs().argmax()])
            shares.append(FeatureShare(feature, effect, position, reading.result.tokens[position]))
        names = token_strings(model, [right] if wrong is None else [right, wrong])
        return FeatureShares(
            answer=names[0],
            contrast=None if wrong is None else names[1],
            after=at,
            token=reading.result.tokens[at],
            hook_point=effects.site.writes,
            metric=float(effects.metric.mean()),
            baseline=float(effects.baseline.mean()),
            explained=effects.explained,
            error=effects.error_effect,
            gap=effects.total - effects.explained - effects.error_effect,
            n_active=int((effects.by_feature != 0).sum()),
            features=shares,
        )


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
    other_keys: list[float]
    """null: the same for every other key of this query"""
    other_queries: list[float]
    """null: the same for this key and every other query"""


@dataclass(frozen=True, kw_only=True)
class ExplainAttention(OnPrompt, Act[Run, ScoreReasons]):
    """Split one attention score into pairs of parts of the model, one at the query and one at the key.

    Raises `UnknownNameError` (no such head), `PromptError` (a key after the query).
    """

    verb: ClassVar[str] = "explain_attention"
    layer: Count
    """Number of the layer, from 0."""
    head: Count
    """Number of the head in it, from 0."""
    query: Count
    """Position that attends."""
    key: Count
    """Position that it attends to."""

    def measure(self, run: Run) -> ScoreReasons:
        from interp.circuits.score_explanation import explain_score
        from saes.acts._reading import check_head

        model, tokens = run.prompt(self.text, self.model, self.chat)
        check_head(model, self.layer, self.head)
        score = explain_score(model, tokens, f"L{self.layer}H{self.head}", query=self.query, key=self.key)
        return ScoreReasons(
            layer=self.layer,
            head=self.head,
            query=self.query,
            key=self.key,
            query_token=str(score.settings["query_token"]),
            key_token=str(score.settings["key_token"]),
            attention=score.attention,
            score=score.score,
            relative=score.relative_score,
            matrix=score.relative.numpy(),
            query_parts=list(score.query_parts),
            key_parts=list(score.key_parts),
            other_keys=score.other_keys.tolist(),
            other_queries=score.other_queries.tolist(),
        )
