"""Features of a dictionary: described, attributed to, steered with.

- `workbench features DICTIONARY`: statistics, examples, effects and labels of every feature.
- `workbench attribute SAE --prompt TEXT`: effects of features on one prediction.
- `workbench search TEXT`: features that fire on a word or a text.
- `workbench prove FEATURES --feature N`: effects of a feature, compared with random directions and other features.
- `workbench steer SAE --feature N --amount X --prompt TEXT`: continuations with and without a feature changed.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from interp.errors import ConfigError, PromptError
from saes.circuits.config import AttributionConfig
from saes.features.proof import ProofConfig
from workbench.terminal import (
    Derived,
    InWorkspace,
    RunsModel,
    Seeded,
    Threaded,
    Writes,
    bar,
    say,
    settings_of,
    slug,
    wrote,
)

if TYPE_CHECKING:
    from torch import Tensor

    from saes.circuits.attribution import FeatureAttribution
    from saes.circuits.sites import Prompts
    from saes.kinds.base import SAE


@dataclass(frozen=True, kw_only=True)
class Features(Writes, Seeded, Threaded, RunsModel):
    """Describe every feature: statistics, examples, effects and labels.

    Example: workbench features my-sae

    Neurons: workbench features neurons:blocks.9.mlp.hook_post --recording my-recording

    One pass over a recording. Labels are rules about where a feature fires; `workbench explain` asks a language model.
    """

    dictionary: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="DICTIONARY")] = None
    """The name of an SAE in the workspace, or neurons:HOOK_POINT."""
    set: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """A set of transcoders instead: tables NAME-0, NAME-1 and so on for all its layers, in one pass."""
    recording: str | None = None
    """Recording whose activations are encoded. Default: the one that the SAE was trained on."""
    window: int = 16
    """Tokens of context on each side of an example's peak."""
    index: bool = True
    """Index the text, so that features are found by the words on which they fire."""
    allow_other_weights: bool = False
    """Apply an SAE to a model whose weights differ from those it was trained on."""

    def run(self) -> None:
        from saes.features.build import build_features
        from workbench.opening import open_dictionary, open_recording_model

        if (self.dictionary is None) == (self.set is None):
            raise ConfigError("features need a dictionary: the name of an SAE, neurons:HOOK_POINT, or --set NAME")
        if self.dictionary is None:
            return self._run_set(str(self.set))
        workspace = self.open_workspace()
        self.use_threads()
        device = self.use_device()
        chosen = open_dictionary(workspace, self.dictionary, self.recording, device=device)
        model = open_recording_model(chosen.recording, device=device)
        dictionary = chosen.load(model, allow_other_weights=self.allow_other_weights)
        folder = workspace.path("features", self.name or slug(chosen.name))
        self.check_free(folder)
        with bar("features", "tokens") as progress:
            manifest = build_features(
                dictionary,
                chosen.recording,
                model,
                folder,
                dictionary_name=chosen.full_name,
                window=self.window,
                index=self.index,
                seed=self.seed,
                overwrite=self.overwrite,
                parents=chosen.parents,
                progress=progress,
            )
        found = manifest.summary
        wrote(
            folder,
            f"{found['n_features']:,} features over {found['n_tokens']:,} tokens: "
            f"{found['n_dead']:,} never fire, {found['n_dense']:,} fire on more than a tenth of all tokens",
        )

    def _run_set(self, name: str) -> None:
        from saes.features.build import Described, build_together
        from saes.sets.set import KIND, open_set
        from workbench.opening import open_recording, open_recording_model

        workspace = self.open_workspace()
        self.use_threads()
        device = self.use_device()
        found, manifest = open_set(workspace, name), workspace.manifest(KIND, name)
        recording = self.recording or manifest.config.get("recording")
        if recording is None:
            raise ConfigError(f"the set {name} was imported and has no recording of its own; add --recording NAME")
        opened = open_recording(workspace, recording, device=device)
        model = open_recording_model(opened, device=device)
        found.check_model(model, all_layers=False, allow_other_weights=self.allow_other_weights)
        wanted = [
            Described(
                dictionary=found.dictionary(layer),
                name=f"{KIND}:{name}:{layer}",
                folder=workspace.path("features", f"{self.name or name}-{layer}"),
                parents={f"{KIND}/{name}": manifest.content_hash},
            )
            for layer in found.layers
        ]
        for each in wanted:
            self.check_free(each.folder)
        how: dict[str, Any] = {"window": self.window, "index": self.index, "seed": self.seed}
        how |= {"overwrite": self.overwrite}
        with bar(f"features of {len(wanted)} layers", "tokens") as progress:
            made = build_together(wanted, opened, model, relations=False, progress=progress, **how)
        n, dead = (sum(each.summary[key] for each in made) for key in ("n_features", "n_dead"))
        wrote(
            wanted[0].folder.parent,
            f"{made[0].name} to {made[-1].name}: {n:,} features over {made[0].summary['n_tokens']:,} tokens, "
            f"{dead:,} never fire",
        )


@dataclass(frozen=True, kw_only=True)
class Attribute(AttributionConfig, InWorkspace, Threaded, RunsModel):
    """Attribute a prediction to the features of one or more SAEs.

    Example: workbench attribute demo --prompt "The capital of France is" --target " Paris"

    An attribution above 0 raises the prediction. Attributions of the features and of the reconstruction error add up,
    but for a remainder, to what the prediction loses when all of them are ablated at the SAE's hook point (with
    --corrupt: replaced by those of another prompt). The number in brackets is the measured effect of ablating that
    feature alone. It can be far smaller than the attribution, because other features compensate; --method gradient
    ranks by an estimate of it.
    """

    saes: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="SAE [SAE ...]")]
    """Names of SAEs or transcoders in the workspace, all of one model."""
    prompt: str
    """The text before the prediction."""
    target: str | None = None
    """Predicted token, with its leading space. Default: the model's most likely one."""
    wrong: str | None = None
    """Explain the difference of two logits, target minus this, instead of a log-probability."""
    corrupt: str | None = None
    """Corrupted prompt with as many tokens, as the baseline. Default: all features and the error ablated."""
    chat: bool = False
    """Put the prompts into the model's chat template, as the message of a user."""
    steps: int = 16
    """Gradients for ig."""
    first: Derived[int] = 0
    batch_size: Derived[int] = 8
    top: int = 15
    """Features to show for each SAE."""
    include_bos: bool = False
    """Attribute to features at the BOS position too. SAEs do not see it in training."""
    model: str | None = None
    """Model to run. Default: the one that the SAE belongs to."""
    allow_other_weights: bool = False
    """Apply an SAE to a model whose weights differ from those it was trained on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top < 1:
            raise ConfigError(f"top must be at least 1, got {self.top}")

    def run(self) -> None:
        from saes.circuits.attribution import attribute, exact_effects
        from workbench.opening import feature_table, open_saes, unseen_positions

        workspace = self.open_workspace()
        self.use_threads()
        model, saes = open_saes(
            workspace,
            self.saes,
            model=self.model,
            allow_other_weights=self.allow_other_weights,
            device=self.use_device(),
        )
        prompts = self._prompts(model)
        first = unseen_positions(model, include_bos=self.include_bos)
        config = settings_of(self, AttributionConfig, first=first)
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
        """Return the prompt with its answer, and print both before the long work."""
        from interp.models.adapter import token_text
        from interp.models.generation import prompt_tokens
        from saes.circuits.sites import Prompts
        from saes.features.intervene import next_token_logits

        target = self.target
        if target is None:
            best = int(next_token_logits(model, prompt_tokens(model, self.prompt, chat=self.chat)).argmax())
            target = token_text(model, best)
        try:
            prompts = Prompts.of_text(model, self.prompt, target, self.wrong, corrupt=self.corrupt, chat=self.chat)
        except PromptError as error:
            if self.target is None:
                raise PromptError(f"the most likely token cannot be typed ({error}); name one with --target") from error
            raise
        against = "" if self.wrong is None else f" against {self.wrong!r}"
        say(f"{prompts.metric.name} of {target!r}{against} after {self.prompt!r}")
        return prompts


def token_texts(model: Any, prompts: "Prompts") -> list[str]:
    """Return the tokens of the first prompt as text."""
    from interp.models.adapter import token_strings

    return token_strings(model, prompts.tokens[0])


def describe_attribution(
    found: "FeatureAttribution", name: str, tokens: list[str], labels: dict[int, str], alone: dict[int, float]
) -> list[str]:
    """Return a heading, a line per feature in `alone` (its measured effect when ablated), and the terms of the sum."""
    settings = found.settings
    head = f"{name} at {found.site.writes}: {float(found.metric.mean()):+.3f}, with {settings['baseline']} "
    lines = ["", head + f"{float(found.baseline.mean()):+.3f}; to explain: {found.total:+.3f}"]
    shown = found.top(len(alone))
    for feature, effect in shown:
        mine = found.feature == feature
        position = int(found.position[mine][found.effect[mine].abs().argmax()])
        where = f"at {tokens[position]!r}" if position < len(tokens) else f"at position {position}"
        line = f"  {effect:+8.3f}  (alone {alone[feature]:+7.3f})  feature {feature:<6}  {where:<18} "
        lines.append((line + labels.get(feature, "")).rstrip())
    rest = found.explained - sum(effect for _, effect in shown)
    n_rest = int((found.by_feature != 0).sum()) - len(shown)
    lines += [
        f"  {rest:+8.3f}  the other {n_rest} active features",
        f"  {found.error_effect:+8.3f}  reconstruction error of the SAE",
        f"  {found.gap:+8.3f}  remainder: the error of the gradient estimate",
    ]
    bypass = found.total - found.explained - found.error_effect - found.gap
    if abs(bypass) > 5e-4:
        lines.insert(-1, f"  {bypass:+8.3f}  paths past the features (skip connection, scale of a token)")
    return lines


SHOWN = 5
"""Tokens shown whose probability rises most, and as many whose probability falls most."""


@dataclass(frozen=True, kw_only=True)
class Steer(InWorkspace, Seeded, Threaded, RunsModel):
    """Continue a prompt with and without a feature steered.

    Example: workbench steer demo --feature 12 --amount 8 --prompt "I went to"

    `add` adds the feature's direction (activation addition), `clamp` fixes its activation, `ablate` sets it to 0.
    Amounts are in units of the feature's activation.
    """

    sae: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SAE")]
    """Name of an SAE or transcoder in the workspace."""
    feature: int
    """Index of the feature."""
    prompt: str
    """Text to continue."""
    chat: bool = False
    """Put the prompt into the model's chat template, as the message of a user."""
    amount: float | None = None
    """Activation to add, or to clamp to. Default: the feature's largest activation, as measured by `workbench
    features`."""
    action: Literal["add", "clamp", "ablate"] = "add"
    """Intervention on the feature, at every token but the BOS."""
    keep_error: bool = True
    """For clamp and ablate: add the SAE's reconstruction error, so that nothing else changes."""
    new_tokens: int = 30
    """Tokens to write."""
    samples: int = 2
    """Continuations sampled in addition to the most likely one; with and without steering they share a seed."""
    temperature: float = 0.8
    """Temperature of the samples."""
    model: str | None = None
    """Model to run. Default: the one that the SAE belongs to."""
    allow_other_weights: bool = False
    """Apply an SAE to a model whose weights differ from those it was trained on."""

    def __post_init__(self) -> None:
        if self.new_tokens < 1 or self.samples < 0 or (self.samples and self.temperature <= 0):
            raise ConfigError("new_tokens must be at least 1, samples at least 0, and temperature above 0")
        if self.amount is not None and not math.isfinite(self.amount):
            raise ConfigError(f"amount must be a finite number, got {self.amount}")

    def run(self) -> None:
        from interp.models.generation import prompt_tokens
        from workbench.opening import feature_table, open_saes

        workspace = self.open_workspace()
        self.use_threads()
        model, [sae] = open_saes(
            workspace,
            [self.sae],
            model=self.model,
            allow_other_weights=self.allow_other_weights,
            device=self.use_device(),
        )
        known = feature_table(workspace, self.sae).get(self.feature, {})
        hooks, done = self._hooks(model, sae, known)
        tokens = prompt_tokens(model, self.prompt, chat=self.chat)
        say(f"feature {self.feature} of {self.sae}: {done}" + (f"; {known['label']}" if "label" in known else ""))
        for line in next_tokens(model, tokens, hooks):
            say(line)
        for line in self._continuations(model, tokens, hooks):
            say(line)

    def _hooks(self, model: Any, sae: "SAE", known: dict[str, Any]) -> tuple[list[tuple[str, Any]], str]:
        """Return the hooks, and a description of what they do."""
        from saes.features.intervene import ablate, clamp, splice_hooks, steer_hooks
        from workbench.opening import unseen_positions

        first = unseen_positions(model, include_bos=False)
        if self.action == "ablate":
            return splice_hooks(sae, keep_error=self.keep_error, edit=ablate(sae, self.feature), first=first), "ablated"
        amount = known.get("max_activation") if self.amount is None else self.amount
        if amount is None:
            raise ConfigError(
                f"the largest activation of feature {self.feature} is not known; add --amount, or run "
                f"`workbench features {self.sae}` to measure it"
            )
        if self.action == "clamp":
            edit = clamp(sae, self.feature, amount)
            return splice_hooks(sae, keep_error=self.keep_error, edit=edit, first=first), f"clamped to {amount:.3g}"
        return steer_hooks(sae, self.feature, amount, first=first), f"{amount:+.3g} on every token"

    def _continuations(self, model: Any, tokens: "Tensor", hooks: list[tuple[str, Any]]) -> list[str]:
        from interp.models.adapter import token_strings
        from interp.runtime import make_generator
        from saes.features.intervene import continue_tokens

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
    """Return the KL divergence between next-token distributions, and the tokens that rise and fall most."""
    from interp.models.adapter import token_text
    from saes.features.intervene import next_token_logits

    before, after = (next_token_logits(model, tokens, used).log_softmax(-1) for used in ([], hooks))
    kl = float((before.exp() * (before - after)).sum())
    change = after.exp() - before.exp()
    lines = [f"next token: KL of the distributions {kl:.3f} nats"]
    for word, order in (("up", change.topk(SHOWN).indices), ("down", (-change).topk(SHOWN).indices)):
        moved = ", ".join(f"{token_text(model, int(t))!r} {before[t].exp():.3f} to {after[t].exp():.3f}" for t in order)
        lines.append(f"  {word:<5} {moved}")
    return lines


@dataclass(frozen=True, kw_only=True)
class Prove(ProofConfig, Writes, Seeded, Threaded, RunsModel):
    """Prove a feature: ablate and steer it, against random directions and other features.

    Example: workbench prove demo --feature 1669

    Takes about 1.5 minutes of one core for a model of 135M parameters; stopped, it resumes. Three tests: ablating the
    feature raises the loss after its peaks; steering along it raises tokens of held-out examples; its direction
    separates a list of words. Each is compared with random directions of the same norm and with features of like
    density. Holm's correction covers the three. The page of the feature in the dashboard shows the result.
    """

    features: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FEATURES")]
    """Name of a features artefact in the workspace."""
    feature: int
    """Index of the feature."""
    allow_other_weights: bool = False
    """Apply an SAE to a model whose weights differ from those it was trained on."""

    def run(self) -> None:
        from interp.models.loading import load_model
        from saes.features.proof_artefact import save_proof
        from saes.features.schema import check_described
        from saes.features.sources import open_described
        from workbench.opening import open_saes, parents_of

        workspace = self.open_workspace()
        self.use_threads()
        manifest = workspace.manifest("features", self.features)
        check_described(workspace, manifest)
        folder = workspace.path("proof", self.name or slug(f"{self.features}-{self.feature}"))
        self.check_free(folder)
        device, spec = self.use_device(), str(manifest.config["model"])
        allow, described = self.allow_other_weights, str(manifest.config["dictionary"])
        if described.startswith("sae:"):
            names = [described.removeprefix("sae:")]
            parents = parents_of(workspace, names)
            model, [dictionary] = open_saes(workspace, names, model=spec, allow_other_weights=allow, device=device)
        else:
            model, sign = load_model(spec, device=device), manifest.config.get("sign", 1)
            how: dict[str, Any] = {"sign": sign, "allow_other_weights": allow}
            dictionary, parents = open_described(workspace, described, model, **how)
        with bar("proof", "tokens") as progress:
            proof, _ = save_proof(
                model,
                dictionary,
                workspace.path("features", self.features),
                self.feature,
                folder,
                settings_of(self, ProofConfig),
                model_name=spec,
                parents=parents,
                seed=self.seed,
                overwrite=self.overwrite,
                progress=progress,
            )
        wrote(folder, f"feature {self.feature} of {self.features}: {proof.label or 'no label'}")
        for line in proof.lines():
            say(f"      {line}")


@dataclass(frozen=True, kw_only=True)
class Search(InWorkspace):
    """Find the features that fire on a word or a text, without running a model.

    Example: workbench search January

    Of a vector: workbench search --vector direction.npy

    The score is F1 of two fractions: the part of the feature's activation that falls on these words, and the part of
    these words on which it fires. The null is a feature that fires as often on random tokens; p is the probability of
    as many firings by chance, corrected for all features searched (Holm). Adjacent words are searched as a phrase, in
    their order, too. Labels and your own names that contain the text are found as well. `like demo:12` finds features
    of similar direction. The page Search of the dashboard shows the same, with examples.
    """

    text: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="TEXT")] = None
    """A word, several words, part of a label, or `like NAME:NUMBER`."""
    vector: Path | None = None
    """Instead of a text: a .npy file with a vector as wide as the decoder directions, to find similar ones."""
    features: str | None = None
    """Name of a features artefact in the workspace. Default: all."""
    hook_point: str | None = None
    """Features of this hook point only."""
    max_density: float = 1.0
    """Largest fraction of tokens on which a feature may fire."""
    min_score: float = 0.0
    """Smallest score to show."""
    top: int = 12
    """Features to show, by text and by label each."""

    def run(self) -> None:
        if (self.text is None) == (self.vector is None):
            given = "neither" if self.text is None else "both"
            raise ConfigError(f"search takes a TEXT or --vector FILE, got {given}; give one of them")
        options: Any = {"features": self.features, "hook_point": self.hook_point, "density": (0.0, self.max_density),
                        "min_score": self.min_score, "limit": self.top}  # fmt: skip
        if self.vector is not None:
            from saes.features.similar import load_vector, search_vector

            vector = load_vector(self.vector)
            found = search_vector(self.open_workspace(), vector, name=self.vector.name, **options)
        else:
            from saes.features.search import search_features

            found = search_features(self.open_workspace(), self.text or "", examples=False, **options)
        say(str(found))
