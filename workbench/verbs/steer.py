"""`workbench steer SAE --feature N --amount X --prompt TEXT`: what the model writes with a feature changed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import tyro

from interp.errors import ConfigError
from workbench.options import Options
from workbench.terminal import say

if TYPE_CHECKING:
    from torch import Tensor

    from saes.kinds.base import SAE

SHOWN = 5
"""tokens whose probability rises or falls most"""


@dataclass(frozen=True, kw_only=True)
class Steer(Options):
    """Let the model go on from a prompt with a feature changed, beside what it writes without.

    Example: workbench steer demo --feature 12 --amount 8 --prompt "I went to"

    `add` puts the feature's direction on top of what is there, `clamp` holds its activation, `ablate` switches it off.
    Amounts are in units of the feature's activation.
    """

    sae: tyro.conf.Positional[str]
    """Name of an SAE or transcoder in the workspace."""
    feature: int
    """Number of the feature."""
    prompt: str
    """The text to go on from."""
    amount: float | None = None
    """How much to add, or the value to hold. Default: the feature's largest activation, where `workbench features` has
    measured it."""
    action: Literal["add", "clamp", "ablate"] = "add"
    """What to do with the feature, at every token but the BOS."""
    keep_error: bool = True
    """For clamp and ablate: keep what the SAE does not reconstruct, so that nothing else changes."""
    new_tokens: int = 30
    """Tokens to write."""
    samples: int = 2
    """Continuations drawn at random besides the most likely one; each pair has one seed."""
    temperature: float = 0.8
    """Of the samples."""
    model: str | None = None
    """Default: the one that the SAE belongs to."""
    allow_other_weights: bool = False
    """Apply an SAE to a model whose weights differ from those it was trained on."""

    def __post_init__(self) -> None:
        if self.new_tokens < 1 or self.samples < 0 or (self.samples and self.temperature <= 0):
            raise ConfigError("new_tokens must be at least 1, samples at least 0, and temperature above 0")

    def run(self) -> None:
        from interp.models.adapter import to_tokens
        from workbench.sae_model import feature_table, open_saes

        workspace = self.open_workspace()
        self.use_threads()
        model, [sae] = open_saes(workspace, [self.sae], model=self.model, allow_other_weights=self.allow_other_weights)
        known = feature_table(workspace, self.sae).get(self.feature, {})
        hooks, done = self._hooks(model, sae, known)
        tokens = to_tokens(model, self.prompt)
        say(f"feature {self.feature} of {self.sae}: {done}" + (f"; {known['label']}" if "label" in known else ""))
        for line in next_tokens(model, tokens, hooks):
            say(line)
        for line in self._continuations(model, tokens, hooks):
            say(line)

    def _hooks(self, model: Any, sae: "SAE", known: dict[str, Any]) -> tuple[list[tuple[str, Any]], str]:
        """The hooks, and in words what they do."""
        from saes.intervene import ablate, clamp, splice_hooks, steer_hooks
        from workbench.sae_model import unseen_positions

        first = unseen_positions(model, include_bos=False)
        if self.action == "ablate":
            return splice_hooks(
                sae, keep_error=self.keep_error, edit=ablate(sae, self.feature), first=first
            ), "switched off"
        amount = known.get("max_activation") if self.amount is None else self.amount
        if amount is None:
            raise ConfigError(
                f"no features artefact says how strong feature {self.feature} gets; add --amount, or run `workbench "
                f"features {self.sae}`"
            )
        if self.action == "clamp":
            edit = clamp(sae, self.feature, amount)
            return splice_hooks(sae, keep_error=self.keep_error, edit=edit, first=first), f"held at {amount:.3g}"
        return steer_hooks(sae, self.feature, amount, first=first), f"{amount:+.3g} on every token"

    def _continuations(self, model: Any, tokens: "Tensor", hooks: list[tuple[str, Any]]) -> list[str]:
        from interp.models.adapter import token_strings
        from interp.runtime import make_generator
        from saes.continuations import continue_tokens

        lines = []
        for number in range(1 + self.samples):
            lines.append("\nmost likely:" if not number else f"\nsample {number} (temperature {self.temperature}):")
            for name, used in (("without", []), ("with", hooks)):
                new = continue_tokens(
                    model,
                    tokens,
                    self.new_tokens,
                    hooks=used,
                    temperature=self.temperature if number else 0.0,
                    generator=make_generator(self.seed, "continuation", number) if number else None,
                )
                text = "".join(token_strings(model, new)).replace("\n", "\\n")
                lines.append(f"  {name:<7}  {self.prompt}|{text}")
        return lines


def next_tokens(model: Any, tokens: "Tensor", hooks: list[tuple[str, Any]]) -> list[str]:
    """How far the next token's distribution moves, and which tokens rise and fall most."""
    from interp.models.adapter import token_text
    from saes.continuations import next_token_logits

    before, after = (next_token_logits(model, tokens, used).log_softmax(-1) for used in ([], hooks))
    kl = float((before.exp() * (before - after)).sum())
    change = after.exp() - before.exp()
    lines = [f"next token: KL of the distributions {kl:.3f} nats"]
    for word, order in (("up", change.topk(SHOWN).indices), ("down", (-change).topk(SHOWN).indices)):
        moved = ", ".join(f"{token_text(model, int(t))!r} {before[t].exp():.3f} to {after[t].exp():.3f}" for t in order)
        lines.append(f"  {word:<5} {moved}")
    return lines
