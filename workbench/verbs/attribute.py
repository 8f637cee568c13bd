"""`workbench attribute SAE --prompt TEXT`: the features that a prediction rests on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import tyro

from interp.errors import PromptError
from workbench.options import Options
from workbench.terminal import say

if TYPE_CHECKING:
    from saes.attribution import FeatureAttribution
    from saes.prompts import Prompts


@dataclass(frozen=True, kw_only=True)
class Attribute(Options):
    """Show which features of an SAE a prediction rests on, and how much of it the SAE does not explain.

    Example: workbench attribute demo --prompt "The capital of France is" --target " Paris"

    Above 0 a feature helps. Shares of features and error add up to what the prediction loses when all of them are
    switched off at the SAE's place (or, with --corrupt, when they become those of another prompt), up to the remainder.
    The second number is what switching off that feature alone takes, measured: where the model is sure, it can be far
    from the share, since others stand in. --method gradient ranks by an estimate of that.
    """

    saes: tyro.conf.Positional[tuple[str, ...]]
    """Names of SAEs or transcoders in the workspace, all of one model."""
    prompt: str
    """The text before the prediction."""
    target: str | None = None
    """The predicted token, with its leading space. Default: what the model thinks most likely."""
    wrong: str | None = None
    """Explain the difference of two logits, target minus this, instead of a log-probability."""
    corrupt: str | None = None
    """A prompt of as many tokens to compare with. Default: all features and the error off."""
    method: Literal["ig", "gradient"] = "ig"
    """Integrated gradients, whose shares add up, or the gradient on the prompt, which ranks as single ablations do."""
    steps: int = 16
    """Gradients for ig."""
    top: int = 15
    """Features to show for each SAE."""
    include_bos: bool = False
    """Take the BOS position apart too. SAEs do not see it in training."""
    model: str | None = None
    """Default: the one that the SAE belongs to."""
    allow_other_weights: bool = False
    """Apply an SAE to a model whose weights differ from those it was trained on."""

    def run(self) -> None:
        from saes.attribution import AttributionConfig, attribute, exact_effects
        from workbench.sae_model import feature_table, open_saes, unseen_positions

        workspace = self.open_workspace()
        self.use_threads()
        model, saes = open_saes(workspace, self.saes, model=self.model, allow_other_weights=self.allow_other_weights)
        prompts = self._prompts(model)
        first = unseen_positions(model, include_bos=self.include_bos)
        config = AttributionConfig(method=self.method, steps=self.steps, first=first)
        found = attribute(model, saes, prompts, config)
        names = {id(sae): name for sae, name in zip(saes, self.saes, strict=True)}
        for each in found:
            name = names[id(each.site.sae)]
            labels = {feature: row["label"] for feature, row in feature_table(workspace, name).items()}
            features = [feature for feature, _ in each.top(self.top)]
            alone = exact_effects(model, each.site.sae, prompts, features, config).tolist()
            measured = dict(zip(features, alone, strict=True))
            say("\n".join(describe_attribution(each, name, token_texts(model, prompts), labels, measured)))

    def _prompts(self, model: Any) -> "Prompts":
        """The prompt with its answer, said before the long work."""
        from interp.models.adapter import to_tokens, token_text
        from saes.continuations import next_token_logits
        from saes.prompts import Prompts

        target = self.target
        if target is None:
            best = int(next_token_logits(model, to_tokens(model, self.prompt)).argmax())
            target = token_text(model, best)
        try:
            prompts = Prompts.of_text(model, self.prompt, target, self.wrong, corrupt=self.corrupt)
        except PromptError as error:
            if self.target is None:
                raise PromptError(f"the most likely token cannot be typed ({error}); name one with --target") from error
            raise
        against = "" if self.wrong is None else f" against {self.wrong!r}"
        say(f"{prompts.metric.name} of {target!r}{against} after {self.prompt!r}")
        return prompts


def token_texts(model: Any, prompts: "Prompts") -> list[str]:
    """The tokens of the first prompt as text."""
    from interp.models.adapter import token_strings

    return token_strings(model, prompts.tokens[0])


def describe_attribution(
    found: "FeatureAttribution", name: str, tokens: list[str], labels: dict[int, str], alone: dict[int, float]
) -> list[str]:
    """A heading, the features in `alone` (with what ablating each takes), and the sum that they are part of."""
    settings = found.settings
    head = f"{name} at {found.site.writes}: {float(found.metric.mean()):+.3f}, with {settings['baseline']} "
    lines = ["", head + f"{float(found.baseline.mean()):+.3f}; to explain: {found.total:+.3f}"]
    shown = found.top(len(alone))
    for feature, effect in shown:
        mine = found.feature == feature
        place = int(found.position[mine][found.effect[mine].abs().argmax()])
        where = f"at {tokens[place]!r}" if place < len(tokens) else f"at position {place}"
        line = f"  {effect:+8.3f}  (alone {alone[feature]:+7.3f})  feature {feature:<6}  {where:<18} "
        lines.append((line + labels.get(feature, "")).rstrip())
    rest = found.explained - sum(effect for _, effect in shown)
    n_rest = int((found.by_feature != 0).sum()) - len(shown)
    lines += [
        f"  {rest:+8.3f}  the other {n_rest} active features",
        f"  {found.error_effect:+8.3f}  error: what the SAE does not reconstruct",
        f"  {found.gap:+8.3f}  remainder: what the gradients miss",
    ]
    past = found.total - found.explained - found.error_effect - found.gap
    if abs(past) > 5e-4:
        lines.insert(-1, f"  {past:+8.3f}  what the SAE passes by its features (skip connection, scale of a token)")
    return lines
