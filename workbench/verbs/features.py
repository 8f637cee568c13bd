"""Features of a dictionary: described, searched, steered with, proved."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from interp.artifacts import as_json
from interp.errors import ConfigError, WorkbenchError
from interp.interventions.intervention import Intervention, Latent
from interp.interventions.recipe import FILES, write_recipe
from interp.models.hooked import HookedModel
from interp.options import (
    Argument,
    DictionaryName,
    FeatureNumber,
    FeaturesName,
    HookPoint,
    Means,
    ModelName,
    RecordingName,
    SAEName,
    check_least,
)
from interp.seeds import make_generator
from interp.workspace import Workspace
from saes.acts.run import Run
from saes.features import schema
from saes.features.case import ProofConfig
from saes.features.neurons import NeuronsConfig
from saes.features.proof import Proof, ProofSettings
from saes.features.schema import NEURONS, FeaturesConfig, KnownFeature, known_features
from workbench.analysis import Analysis, AnalysisRun, Resumable
from workbench.engine import OverDevices
from workbench.terminal import (
    AppliesDictionary,
    Heading,
    InWorkspace,
    RunsModel,
    Seeded,
    Threaded,
    say,
    settings_of,
    slug,
)

if TYPE_CHECKING:
    from torch import Tensor

    from interp.interventions.apply import Hooks
    from interp.models.generation import Offset
    from interp.recording.store import Recording
    from saes.features.build import Described
    from saes.features.neurons import NeuronLabels
    from saes.features.recipes import LoadedRecipe

HEADING = Heading.FEATURES


@dataclass(frozen=True, kw_only=True)
class DescribeFeatures(
    FeaturesConfig, OverDevices, Seeded, AppliesDictionary, Threaded, RunsModel, Analysis[schema.Features]
):
    """Describe every feature: statistics, examples, effects and labels.

    Example: workbench features my-sae

    Neurons: workbench features neurons:blocks.9.mlp.hook_post --recording my-recording

    One pass over a recording. Labels are rules about where a feature fires. Where the workspace has a Jacobian lens
    (`workbench lens`), they also use the words that it makes the model say. `workbench explain` asks a language model.
    """

    words: ClassVar[tuple[str, ...]] = ("features",)
    makes: ClassVar[str] = "features"

    dictionary: Annotated[DictionaryName | None, Argument("DICTIONARY")] = None
    """The name of an SAE in the workspace, or neurons:HOOK_POINT."""
    set: Annotated[str, Means("NAME")] | None = None
    """A set of transcoders instead: tables NAME-0, NAME-1 and so on for all its layers, in one pass."""
    recording: RecordingName | None = None
    """Recording whose activations are encoded. Default: the one that the SAE was trained on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.dictionary is None) == (self.set is None):
            raise ConfigError("features need a dictionary: the name of an SAE, neurons:HOOK_POINT, or --set NAME")

    def default_name(self) -> str:
        return self.set or slug(str(self.dictionary).removeprefix(NEURONS))

    def check_free(self, *folders: Path | None) -> None:
        if self.set is None:  # a set has a folder for each layer
            super().check_free(*folders)

    def measure(self, run: AnalysisRun) -> list[schema.Features]:
        from saes.features.build import Described

        if self.dictionary is None:
            return self._of_set(run, str(self.set))
        chosen = run.dictionary(self.dictionary, self.recording)
        model = run.recorded_model(chosen.recording)
        dictionary = chosen.load(model, allow_other_weights=self.allow_other_weights)
        described = Described(
            dictionary=dictionary,
            name=chosen.full_name,
            folder=run.folder,
            parents=chosen.parents,
            overwrite=self.overwrite,
        )
        return self._build(run, [described], chosen.recording, model, "features")

    def _of_set(self, run: AnalysisRun, name: str) -> list[schema.Features]:
        """Describe every layer of a set of transcoders, in one pass."""
        from saes.features.build import Described
        from saes.sets.set import KIND
        from saes.sets.stored import StoredSet

        stored = run.workspace.open(StoredSet, name)
        transcoders, recording = stored.load(), self.recording or stored.recording
        if recording is None:
            raise ConfigError(f"the set {name} was imported and has no recording of its own; add --recording NAME")
        opened = run.recording(recording)
        model = run.recorded_model(opened)
        transcoders.check_model(model, all_layers=False, allow_other_weights=self.allow_other_weights)
        layers = [
            Described(
                dictionary=transcoders.dictionary(layer),
                name=f"{KIND}:{name}:{layer}",
                folder=run.workspace.path("features", f"{self.name or name}-{layer}"),
                parents={stored.key: stored.about.content_hash},
                relations=False,
                overwrite=self.overwrite,
            )
            for layer in transcoders.layers
        ]
        super().check_free(*(layer.folder for layer in layers))
        return self._build(run, layers, opened, model, f"features of {len(layers)} layers")

    def _build(
        self, run: AnalysisRun, described: "Sequence[Described]", recording: "Recording", model: HookedModel, title: str
    ) -> list[schema.Features]:
        """Describe and store the features of each dictionary, in one pass."""
        from saes.features.build import build_together

        config, lens = settings_of(self, FeaturesConfig), run.jacobian_lens(recording.model)
        with run.progress(title, "tokens") as progress:
            return build_together(described, recording, model, config, lens=lens, seed=self.seed, progress=progress)


@dataclass(frozen=True, kw_only=True)
class DescribeNeurons(NeuronsConfig, Threaded, RunsModel, Analysis["NeuronLabels"]):
    """Describe the MLP neurons of all layers or some, to read attribution graphs in words.

    Example: workbench neurons my-recording

    One pass of the model over the text of a recording, whatever its hook points; 100,000 tokens are enough for most
    labels. Each neuron has two directions, its positive and its negative activations, with a label and short examples
    each. Labels use the words that a neuron makes the model say where the workspace has a Jacobian lens
    (`workbench lens MODEL --kind jacobian`). The pages of graphs read them.
    """

    words: ClassVar[tuple[str, ...]] = ("neurons",)
    makes: ClassVar[str] = "neurons"

    recording: Annotated[RecordingName, Argument("RECORDING")]
    """Recording whose text is read; its model is the one described."""

    def measure(self, run: AnalysisRun) -> "NeuronLabels":
        from interp.recording.live import LiveRecording
        from saes.features.describe_neurons import describe_neurons

        recording = run.recording(self.recording)
        model = run.recorded_model(recording)
        reader = recording.loaded_model if isinstance(recording, LiveRecording) else model
        lens = run.jacobian_lens(recording.model)
        with run.progress("neurons", "tokens") as progress:
            return describe_neurons(
                model,
                recording,
                settings_of(self, NeuronsConfig),
                lens=lens,
                reader=reader,
                progress=progress,
                report=say,
            )


DIRECTIONS = "directions/"
"""Beginning of the key of a direction."""
SHOWN = 5
"""Number of tokens shown with the largest rise in probability, and with the largest fall."""


@dataclass(frozen=True, kw_only=True)
class SteerFeatures(OverDevices, InWorkspace, Seeded, AppliesDictionary, Threaded, RunsModel):
    """Continue a prompt with and without a feature steered, and steered at random.

    Example: workbench steer demo --feature 540 --prompt "The walls of the room were"

    `add` adds the feature's direction (activation addition), `scale` multiplies its activation, `set` clamps it,
    `ablate` sets it to 0. Amounts are in units of the feature's largest activation: 1 is as strong as it was ever
    measured. `--write FILE` saves the intervention; the file then replaces SAE and feature, on this machine or another.
    A file for other weights is refused without --allow-other-weights.

    Directions: workbench steer directions/formal --prompt "I am writing to you" --write formal.gguf
    """

    words: ClassVar[tuple[str, ...]] = ("steer",)

    sae: Annotated[SAEName, Argument("SAE")]
    """Name of an SAE or transcoder in the workspace; or directions/NAME; or a recipe: recipe:NAME in the notes, or a
    file NAME.json, NAME.safetensors or NAME.gguf (a control vector)."""
    feature: int | None = None
    """Index of the feature; a recipe names its own."""
    prompt: str
    """Text to continue."""
    chat: bool = False
    """Put the prompt into the model's chat template, as the message of a user."""
    amount: float | None = None
    """Amount to add or to set, as a multiple of the feature's largest activation that `workbench features` measured (1
    where it is not given; `--activation`, and `Intervention.amount` in Python, are activations). For `scale`, the
    factor; for a direction, in units of its chosen strength."""
    activation: float | None = None
    """Activation to add or to set, in place of an amount, for a feature whose largest one was not measured."""
    action: Literal["add", "scale", "set", "ablate"] = "add"
    """Intervention on the feature, at every token but the BOS."""
    keep_error: bool = True
    """Keep the SAE's reconstruction error, so that only the feature changes; else the model runs on the
    reconstruction."""
    new_tokens: int = 30
    """Tokens to write."""
    samples: int = 2
    """Continuations sampled in addition to the most likely one; with, without and at random they share a seed."""
    temperature: float = 0.8
    """Temperature of the samples."""
    write: Path | None = None
    """File to write the intervention to: NAME.json, or for directions NAME.safetensors or NAME.gguf."""
    model: ModelName | None = None
    """Model to run. Default: the one that the SAE belongs to."""

    def __post_init__(self) -> None:
        check_least(self, {"new_tokens": 1, "samples": 0})
        if self.samples and self.temperature <= 0:
            raise ConfigError(f"temperature must be above 0 for samples, got {self.temperature}; or take --samples 0")
        for name, value in (("amount", self.amount), ("activation", self.activation)):
            if value is not None and not math.isfinite(value):
                raise ConfigError(f"{name} must be a finite number, got {value}")
        if self.amount is not None and self.activation is not None:
            raise ConfigError("give an amount or an activation, not both")
        if self.action == "scale" and self.amount is None:
            raise ConfigError("scale multiplies the activation; give the factor with --amount, such as 2")
        if (self.feature is None) != self._is_recipe:
            raise ConfigError("name a feature of the SAE with --feature; a recipe has its own")
        has_amount = self.amount is not None or self.activation is not None
        if self._is_recipe and (self.action != "add" or self.activation is not None or not self.keep_error):
            raise ConfigError("a recipe has its own actions and amounts; leave these options out")
        if self._is_recipe and has_amount and not self.sae.startswith(DIRECTIONS):
            raise ConfigError("a recipe has its own amounts; leave --amount out")

    @property
    def _is_recipe(self) -> bool:
        return self.sae.endswith(FILES) or self.sae.startswith(("recipe:", DIRECTIONS))

    def run(self) -> None:
        from interp.models.generation import Offset, prompt_tokens

        self.use_threads()
        run = Run(self.open_workspace(), device=self.use_device)
        model, loaded, between, done = self._recipe(run) if self._is_recipe else self._feature(run)
        runs: dict[str, Callable[[Offset], Hooks]] = {"without": lambda offset: []}
        for name, recipe in (("with", loaded), ("random", loaded.at_random(self.seed))):
            if recipe is not None:
                runs[name] = partial(self._hooks, recipe, model, between)
        tokens = prompt_tokens(model, self.prompt, chat=self.chat)
        say(done)
        for line in next_tokens(model, tokens, runs):
            say(line)
        for line in self._continuations(model, tokens, runs):
            say(line)

    def _hooks(self, recipe: "LoadedRecipe", model: HookedModel, between: "Hooks | None", offset: "Offset") -> "Hooks":
        return recipe.hooks(model, allow_other_weights=self.allow_other_weights, offset=offset, between=between)

    def _recipe(self, run: Run) -> "tuple[HookedModel, LoadedRecipe, Hooks | None, str]":
        """Return the model, a recipe, no hooks between its reading and writing, and a description."""
        loaded, origin = self._loaded(run.workspace)
        spec = self.model or loaded.model
        if not spec:
            raise ConfigError(f"{self.sae} does not say which model it belongs to; add --model NAME")
        model = run.model(spec)
        if self.write is not None:
            loaded.write(self.write, model, origin)
            say(f"wrote {self.write}")
        if self.allow_other_weights and (mismatch := loaded.mismatch(model)):
            say(f"overridden: {mismatch}")
        return model, loaded, None, f"recipe {loaded.recipe.name}: {len(loaded.recipe.steps)} interventions"

    def _loaded(self, workspace: Workspace) -> "tuple[LoadedRecipe, dict[str, object]]":
        """Return a recipe, of a direction where one is named, and what to keep with it in a file."""
        from interp.directions.study import DirectionGeometry
        from saes.features.recipes import load_recipe, recipe_of_direction

        if not self.sae.startswith(DIRECTIONS):
            return load_recipe(workspace, self.sae.removeprefix("recipe:")), {}
        geometry = workspace.open(DirectionGeometry, self.sae.removeprefix(DIRECTIONS))
        kept = {"direction": geometry.settings.direction, "choice": geometry.choice, "made": geometry.about.created}
        return recipe_of_direction(geometry, self.amount), as_json(kept)

    def _feature(self, run: Run) -> "tuple[HookedModel, LoadedRecipe, Hooks | None, str]":
        """Return the model, a recipe of one feature, hooks that put the reconstruction in, and a description."""
        from interp.models.adapter import unseen_positions
        from saes.evaluation.in_model import splice_hooks
        from saes.features.recipes import LoadedRecipe, recipe_for

        model, [sae] = run.saes([self.sae], self.model, allow_other_weights=self.allow_other_weights)
        assert self.feature is not None  # checked above
        known = known_features(run.workspace, self.sae).get(self.feature, KnownFeature())
        key, first = f"saes/{self.sae}", unseen_positions(model)
        target = Latent(dictionary=key, index=self.feature)
        step = Intervention(target=target, action=self.action, amount=self._value(known.largest))
        recipe = recipe_for(model, f"{self.sae} {self.feature} {self.action}", [step], {key: sae}, self.prompt)
        if self.write is not None:
            write_recipe(recipe, self.write)
            say(f"wrote {self.write}")
        done = {
            "add": f"{step.amount:+.3g} on every token",
            "scale": f"times {step.amount:.3g}",
            "set": f"set to {step.amount:.3g}",
            "ablate": "ablated",
        }
        if self.action in ("add", "set") and self.activation is None:
            done[self.action] += f", {1 if self.amount is None else self.amount:.3g} times its maximum"
        label = f"; {known.label}" if known.label else ""
        between = None if self.keep_error else splice_hooks(sae, first=first)
        description = f"feature {self.feature} of {self.sae}: {done[self.action]}{label}"
        return model, LoadedRecipe(recipe, {key: sae}), between, description

    def _value(self, largest: float) -> float:
        """Return what is added or set, or the factor. Raises `ConfigError` without a largest activation."""
        amount = 1.0 if self.amount is None else self.amount
        if self.action in ("scale", "ablate"):
            return amount if self.action == "scale" else 0.0
        if self.activation is not None:
            return self.activation
        if not largest:
            raise ConfigError(
                f"the largest activation of feature {self.feature} is not known, or 0; give --activation in place of "
                f"--amount, or run `workbench features {self.sae}` to measure it"
            )
        return amount * largest

    def _continuations(
        self, model: HookedModel, tokens: "Tensor", runs: "dict[str, Callable[[Offset], Hooks]]"
    ) -> Iterator[str]:
        import torch

        from interp.models.adapter import token_strings
        from interp.models.generation import NextToken, Offset, check_room, generate, sampled

        check_room(model, tokens, self.new_tokens)
        for number in range(1 + self.samples):
            yield "\nmost likely:" if not number else f"\nsample {number} (temperature {self.temperature}):"
            for name, hooks in runs.items():
                offset = Offset() if self.keep_error or name == "without" else None
                used = hooks(offset or Offset())
                draw = sampled(self.temperature, make_generator(self.seed, "continuation", number)) if number else None
                new = torch.cat([*generate(NextToken(model, used, offset=offset), tokens, self.new_tokens, draw)])
                text = "".join(token_strings(model, new)).replace("\n", "\\n")
                yield f"  {name:<7}  {self.prompt}|{text}"


def next_tokens(model: HookedModel, tokens: "Tensor", runs: "dict[str, Callable[[Offset], Hooks]]") -> list[str]:
    """Return the KL divergence of the next token from the unchanged model, and the tokens that rise and fall most.

    The KL divergence stands beside that of a random direction, where the change has one.
    """
    from interp.models.adapter import token_text
    from interp.models.generation import NextToken, Offset

    before, *others = (NextToken(model, hooks(Offset()))(tokens)[0].log_softmax(-1) for hooks in runs.values())
    kl = [float((before.exp() * (before - after)).sum()) for after in others]
    beside = f", of a random direction as long {kl[1]:.3f}" if len(kl) > 1 else ""
    change = others[0].exp() - before.exp()
    lines = [f"next token: KL of the distributions {kl[0]:.3f} nats{beside}"]
    for word, order in (("up", change.topk(SHOWN).indices), ("down", (-change).topk(SHOWN).indices)):
        chances = ((token, before[token].exp(), others[0][token].exp()) for token in order.tolist())
        moved = ", ".join(f"{token_text(model, token)!r} {was:.3f} to {now:.3f}" for token, was, now in chances)
        lines.append(f"  {word:<5} {moved}")
    return lines


@dataclass(frozen=True, kw_only=True)
class Prove(ProofConfig, Seeded, AppliesDictionary, Threaded, RunsModel, Resumable["Proof"]):
    """Prove a feature: steer and ablate it, against random directions and other features.

    Example: workbench prove demo --feature 540

    Takes half a minute to two minutes on one core for a model of 135M parameters; an interrupted command resumes. Its
    words are the tokens on which it peaks in one half of its examples. Four tests: it fires on them in other documents;
    steering along it raises them; ablating it on other examples lowers them; and through the Jacobian lens its
    direction says them, so that it says what it reads. Each is compared with random directions of the same norm and
    with features of like density, on the same words, the last with untrained latents on their own words, too. Holm's
    correction covers the tests. The page of the feature in the dashboard shows the result.
    """

    makes: ClassVar[str] = "proof"

    features: Annotated[FeaturesName, Argument("FEATURES")]
    """Name of a features artefact in the workspace."""
    feature: FeatureNumber
    """Index of the feature."""

    def default_name(self) -> str:
        return slug(f"{self.features}-{self.feature}")

    def measure(self, run: AnalysisRun) -> Proof:
        from saes.features.measure_proof import FinishedParts, prove

        features = run.open(schema.Features, self.features)
        config, spec = settings_of(self, ProofConfig), features.settings.model
        model = run.model(spec)
        dictionary = run.described_dictionary(self.features, allow_other_weights=self.allow_other_weights)
        lens = run.jacobian_lens(spec)
        settings = settings_of(self, ProofSettings, features=self.features, feature=self.feature, model=spec)
        draft = run.draft(settings)
        parts = FinishedParts(run.training(settings), run.parents)
        try:
            with run.progress("proof", "tokens") as progress:

                def report(done: int, total: int, info: dict) -> None:
                    draft.update(done=done, total=total, **info)
                    progress(done, total, info)

                return prove(
                    model,
                    dictionary,
                    features.folder,
                    self.feature,
                    config,
                    lens=lens,
                    seed=self.seed,
                    progress=report,
                    remembered=parts,
                )
        except WorkbenchError:  # a mistake: nothing to resume
            draft.discard()
            raise


@dataclass(frozen=True, kw_only=True)
class Search(InWorkspace):
    """Find features by meaning, the best first.

    Example: workbench search cooking

    Texts: "January April August", "cooking AND french", "bank NOT river".

    One list combines the words on which a feature fires, those that it makes the model say (where the workspace has a
    Jacobian lens), related words, labels and your own names. The strength, 0 to 1, is the probability that a hit is
    right, fitted on measured concepts. Hits within their null come last. The first search through a new lens loads the
    model. `like demo:12` finds features of similar direction. The page Search of the dashboard shows the same, with
    examples and statistics.
    """

    text: Annotated[str, Argument("TEXT")]
    """A word, several words, texts joined by AND and NOT, or `like NAME:NUMBER`."""
    features: FeaturesName | None = None
    """Name of a features artefact in the workspace, or of a set of transcoders: all its layers. Default: all but the
    layers of sets."""
    hook_point: HookPoint | None = None
    """Features of this hook point only."""
    top: int = 12
    """Features to show."""

    def run(self) -> None:
        from saes.features.search import search_features

        hits = search_features(
            self.open_workspace(),
            self.text,
            features=self.features,
            hook_point=self.hook_point,
            limit=self.top,
            examples=False,
        )
        say(str(hits))
