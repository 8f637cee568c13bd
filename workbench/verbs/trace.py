"""Attribution of a prediction: the graph of one prompt, and effects of features of SAEs."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

from interp.artifacts import Table, open_artefact, partial_path
from interp.errors import ConfigError, MismatchError, PromptError, UsageError, WorkbenchError
from interp.models.hooked import HookedModel
from interp.options import Argument, Derived, ModelName, SAEName
from interp.tracing.graph import AttributionGraph, Flow, GraphSettings, TraceConfig
from saes.acts.run import Run
from saes.attribution.config import AttributionConfig
from saes.features.schema import known_features
from workbench.analysis import AnalysisRun, Resumable
from workbench.terminal import (
    AppliesDictionary,
    Heading,
    InWorkspace,
    ModelArgument,
    RunsModel,
    Threaded,
    say,
    settings_of,
    slug,
)

if TYPE_CHECKING:
    from interp.tracing.replacement import Replacement
    from interp.tracing.trace import Labels
    from saes.attribution.attribution import FeatureAttribution
    from saes.attribution.sites import MeasuredPrompts

HEADING = Heading.CIRCUITS


@dataclass(frozen=True, kw_only=True)
class TracePrompt(TraceConfig, AppliesDictionary, Threaded, RunsModel, Resumable[AttributionGraph]):
    """Trace why a model says what it says: the attribution graph of one prompt.

    Example: workbench trace smollm2-135m --prompt "The capital of France is" --target " Paris" --contrast " Rome"

    Nodes are active latents, tokens, reconstruction errors and next tokens; an edge is the direct effect of one on
    another with attention patterns and norms frozen (Ameisen et al. 2025). The effect of a node on the target freezes
    nothing. With `--set` the latents are those of a set of transcoders (`workbench train --set`). Without it they are
    MLP neurons, which need no training and have names where the workspace has their labels (`workbench neurons`).

    The replacement score is the share of influence that reaches the tokens through latents and not through errors: 1 is
    perfect. Its nulls: the same prompt without latents, and with untrained transcoders. A sample of latents is ablated
    in the model itself, to measure how well effects of nodes, and effects along edges, predict it. Prints these checks
    with their nulls, and the largest nodes whose labels hold. Opens on the page *Graph*, where a first picture is there
    before the tests. Interrupted? The same command resumes.
    """

    words: ClassVar[tuple[str, ...]] = ("trace",)
    makes: ClassVar[str] = "attribution_graph"

    model: ModelArgument
    prompt: str
    """Text whose next token is explained."""
    set: str | None = None
    """Set of transcoders that replaces the MLPs. Default: MLP neurons."""
    target: str | None = None
    """Explain this token (one token, often with a leading space), or a latent, feature:LAYER:POSITION:LATENT. Default:
    the likeliest content word against the next likely one; with --max-logits 10 the ten likeliest tokens at once."""
    contrast: str | None = None
    """Explain the difference between the target and this token. Default: the next likely word."""
    template: tuple[str, ...] = ()
    """At least three WORD=TARGET pairs; each WORD replaces {} in --prompt. The graph is that of the first; flows
    between groups of nodes get an interval over the words."""
    paraphrase: tuple[str, ...] = ()
    """Other wordings, traced with the same target and contrast as NAME-2, NAME-3 and on. Says which latents return."""
    chat: bool = False
    """Put the prompt into the model's chat template, as the message of a user."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.paraphrase and (self.template or self.max_logits > 1 or (self.target or "").startswith("feature:")):
            raise ConfigError(
                "--paraphrase needs one token to explain; leave out --template, --max-logits and a latent"
            )
        if len({self.prompt, *self.paraphrase}) <= len(self.paraphrase):
            raise ConfigError("two of the wordings are the same; give each once")
        if self.template and (self.chat or self.target is not None or self.contrast is not None):
            raise ConfigError("--template names the targets itself; leave out --target, --contrast and --chat")
        if self.template and "{}" not in self.prompt:
            raise ConfigError("with --template the prompt has {} where the words go, such as 'The capital of {} is'")

    def targets(self) -> dict[str, str]:
        """Return the words of the template, with their targets."""
        words: dict[str, str] = {}
        for pair in self.template:
            word, _, words[word] = pair.partition("=")
            if not word or not words[word]:
                raise ConfigError(f"a word of a template is WORD=TARGET, such as 'France= Paris'; got {pair!r}")
        return words

    def default_name(self) -> str:
        return slug(f"{self.prompt}-{self.set or 'neurons'}")

    def measure(self, run: AnalysisRun) -> AttributionGraph | Sequence[AttributionGraph]:
        return self._wordings(run) if self.paraphrase else self._traced(run)

    def _wordings(self, run: AnalysisRun) -> list[AttributionGraph]:
        """Trace the prompt and its paraphrases, and print which latents return; graphs that are stored are kept."""
        from interp.tracing.returning import returning

        prompts, started = (self.prompt, *self.paraphrase), perf_counter()
        say(f"{len(prompts)} graphs, one after another: {len(prompts)} times the time and the disk of one")
        graphs = [replace(self, paraphrase=())._traced_once(run)]
        if (seconds := perf_counter() - started) > 1:
            say(f"the first took {seconds:.0f} s; about {seconds * len(self.paraphrase) / 60:.1f} min for the others")
        target, contrast = graphs[0].targets[0].sides
        for number, prompt in enumerate(self.paraphrase, start=2):
            verb = replace(
                self, prompt=prompt, paraphrase=(), name=f"{run.folder.name}-{number}",
                target=self.target or target, contrast=self.contrast or contrast or None,
            )  # fmt: skip
            graphs.append(verb._traced_once(run.of_another(verb, run.folder.with_name(str(verb.name)))))
        say(returning(graphs[0], run.workspace.values(AttributionGraph)).headline())
        return graphs

    def _traced_once(self, run: AnalysisRun) -> AttributionGraph:
        """Return the graph of these settings in the run's folder, traced and stored where it is not there yet."""
        dictionary = self._dictionary(run)
        known = None if self.overwrite else _stored(run.folder)
        if known is None or known.first_picture or known.settings != self._settings(run, dictionary):
            return run.save(self._traced(run))
        say(f"{run.folder} has this graph already")
        return known

    def _settings(self, run: AnalysisRun, dictionary: "TracedDictionary") -> GraphSettings:
        """Return what determines the graph of the prompt, of a template that of its first word."""
        from interp.models.generation import prompt_tokens
        from interp.tracing.trace import trace_settings

        model, words = run.model(self.model), self.targets()
        return trace_settings(
            model,
            prompt_tokens(model, self._first_prompt(), chat=self.chat),
            dictionary.replacement,
            settings_of(self, TraceConfig),
            target=next(iter(words.values()), self.target),
            contrast=self.contrast,
            words=words,
        )

    def _first_prompt(self) -> str:
        return self.prompt.replace("{}", next(iter(words))) if (words := self.targets()) else self.prompt

    def _traced(self, run: AnalysisRun) -> AttributionGraph:
        from dashboard.graph.named import named_lines
        from interp.tracing.trace import open_traced, trace_system, trace_variants
        from saes.features.neurons import newest_labels
        from saes.features.raised_words import with_raised_words

        dictionary = self._dictionary(run)
        model, replacement = run.model(self.model), dictionary.replacement
        words, config = self.targets(), settings_of(self, TraceConfig)
        settings = self._settings(run, dictionary)
        labels = newest_labels(run.workspace, settings.weight_hash) if self.set is None else None
        known = _first_picture(run.folder)
        run.replaces = known is not None and known.settings == settings
        if not run.replaces:  # it is that of another trace
            super().check_free(run.folder)
        new = not (run.folder.exists() or partial_path(run.folder).exists() or words)

        def show(graph: AttributionGraph) -> None:
            run.show(graph)
            say(f"drawn in {run.folder}; its tests follow")

        try:
            with run.progress("tracing", "latents") as progress:
                system = open_traced(model, settings, replacement)
                graph = trace_system(
                    system,
                    settings,
                    None if self.chat else self._first_prompt(),
                    labels=dictionary.labels,
                    untrained=dictionary.untrained,
                    show=show if new else None,
                    folder=lambda: run.draft(settings).path,
                    progress=progress,
                    report=say,
                )
            if labels is not None:
                run.made_from(labels.about)
                graph = labels.named(graph)
            if (lens := run.jacobian_lens(settings.model)) is not None:
                graph = with_raised_words(graph, system, lens)
            for line in named_lines(run.workspace, graph):
                say(line)
            if not words:
                return graph
            with run.progress("tracing words", "words") as progress:
                variants = trace_variants(model, self.prompt, words, replacement, config, progress=progress)
        except (UsageError, MismatchError):  # nothing was computed that could be resumed
            run.discard()
            raise
        for line in str(variants).splitlines():
            say(f"      {line}")
        return replace(graph, flows=Table.of(Flow, variants.rows()))

    def check_free(self, *folders: Path | None) -> None:
        """Let the same command continue where the first picture of a trace is there without its tests."""
        taken = (folder for folder in folders if folder is not None and _first_picture(folder) is None)
        super().check_free(*(() if self.paraphrase else taken))  # each wording is checked when its turn comes

    def _dictionary(self, run: AnalysisRun) -> "TracedDictionary":
        """Return the dictionary, its null and its labels."""
        if self.set is None:
            from interp.tracing.replacement import Neurons

            return TracedDictionary(Neurons(self.max_neurons))
        from saes.sets.replacement import SetReplacement, labels_of, untrained_set
        from saes.sets.stored import StoredSet

        stored = run.open(StoredSet, self.set)
        allow, transcoders = self.allow_other_weights, stored.load()
        fresh = untrained_set(transcoders, self.seed)
        null = SetReplacement(fresh, "untrained", as_many_as=transcoders, allow_other_weights=allow)
        replacement = SetReplacement(transcoders, self.set, allow_other_weights=allow)
        return TracedDictionary(replacement, null if self.nulls else None, labels_of(run.workspace, self.set))


def _first_picture(folder: Path) -> AttributionGraph | None:
    """Return the graph in a folder if it is the first picture of a trace that did not end."""
    return graph if (graph := _stored(folder)) is not None and graph.first_picture else None


def _stored(folder: Path) -> AttributionGraph | None:
    """Return the graph in a folder; None without one."""
    with contextlib.suppress(WorkbenchError):
        return open_artefact(AttributionGraph, folder)
    return None


class TracedDictionary(NamedTuple):
    """Dictionary of a graph, its untrained null, and labels of its latents by layer."""

    replacement: "Replacement"
    untrained: "Replacement | None" = None
    labels: "Labels | None" = None


@dataclass(frozen=True, kw_only=True)
class Attribute(AttributionConfig, InWorkspace, AppliesDictionary, Threaded, RunsModel):
    """Attribute a prediction to the features of one or more SAEs.

    Example: workbench attribute demo --prompt "The capital of France is" --target " Paris"

    An attribution above 0 raises the prediction. Attributions of the features and of the reconstruction error sum, up
    to a remainder, to the fall of the prediction when all of them are ablated at the SAE's hook point (with --corrupt:
    replaced by those of another prompt). The number in brackets is the measured effect of ablating that feature alone.
    It can be far smaller than the attribution, because other features compensate; --method gradient ranks by an
    estimate of it.
    """

    saes: Annotated[tuple[SAEName, ...], Argument("SAE")]
    """Names of SAEs or transcoders in the workspace, all of one model."""
    prompt: str
    """The text before the prediction."""
    target: str | None = None
    """Predicted token, with its leading space. Default: the model's most likely one."""
    wrong: str | None = None
    """Explain the difference of two logits, target minus this, instead of a log-probability."""
    corrupt: str | None = None
    """Corrupted prompt of the same number of tokens, as the baseline. Default: all features and the error ablated."""
    chat: bool = False
    """Put the prompts into the model's chat template, as the message of a user."""
    steps: int = 16
    """Gradients for ig."""
    first: Derived[int] = 0
    batch_size: Derived[int] = 8
    top: int = 15
    """Features to show for each SAE."""
    model: ModelName | None = None
    """Model to run. Default: the one that the SAE belongs to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top < 1:
            raise ConfigError(f"top must be at least 1, got {self.top}")

    def run(self) -> None:
        from interp.models.adapter import unseen_positions
        from saes.attribution.attribution import attribute, exact_effects

        self.use_threads()
        run = Run(self.open_workspace(), device=self.use_device)
        model, saes = run.saes(self.saes, self.model, allow_other_weights=self.allow_other_weights)
        prompts = self._prompts(model)
        first = unseen_positions(model)
        config = settings_of(self, AttributionConfig, first=first)
        attributions = attribute(model, saes, prompts, config)
        names = {id(sae): name for sae, name in zip(saes, self.saes, strict=True)}
        for attribution in attributions:
            name = names[id(attribution.site.sae)]
            labels = {number: known.label for number, known in known_features(run.workspace, name).items()}
            features = [feature for feature, _ in attribution.top(self.top)]
            alone = exact_effects(model, attribution.site.sae, prompts, features, config).tolist()
            measured = dict(zip(features, alone, strict=True))
            say("\n".join(describe_attribution(attribution, name, token_texts(model, prompts), labels, measured)))

    def _prompts(self, model: HookedModel) -> "MeasuredPrompts":
        """Return the prompt with its answer, and print both before the long work."""
        from interp.models.adapter import token_text
        from interp.models.generation import NextToken, prompt_tokens
        from saes.attribution.sites import MeasuredPrompts

        target = self.target
        if target is None:
            best = int(NextToken(model)(prompt_tokens(model, self.prompt, chat=self.chat)).argmax())
            target = token_text(model, best)
        try:
            prompts = MeasuredPrompts.of_text(
                model, self.prompt, target, self.wrong, corrupt=self.corrupt, chat=self.chat
            )
        except PromptError as error:
            if self.target is None:
                raise PromptError(f"the most likely token cannot be typed ({error}); name one with --target") from error
            raise
        against = "" if self.wrong is None else f" against {self.wrong!r}"
        say(f"{prompts.metric.name} of {target!r}{against} after {self.prompt!r}")
        return prompts


def token_texts(model: HookedModel, prompts: "MeasuredPrompts") -> list[str]:
    """Return the tokens of the first prompt as text."""
    from interp.models.adapter import token_strings

    return token_strings(model, prompts.tokens[0])


def describe_attribution(
    attribution: "FeatureAttribution", name: str, tokens: list[str], labels: dict[int, str], alone: dict[int, float]
) -> list[str]:
    """Return a heading, a line per feature in `alone` (its measured effect when ablated), and the terms of the sum."""
    settings = attribution.settings
    head = f"{name} at {attribution.site.writes}: {float(attribution.metric.mean()):+.3f}, with {settings['baseline']} "
    lines = ["", head + f"{float(attribution.baseline.mean()):+.3f}; to explain: {attribution.total:+.3f}"]
    shown = attribution.top(len(alone))
    for feature, effect in shown:
        mine = attribution.feature == feature
        position = int(attribution.position[mine][attribution.effect[mine].abs().argmax()])
        where = f"at {tokens[position]!r}" if position < len(tokens) else f"at position {position}"
        line = f"  {effect:+8.3f}  (alone {alone[feature]:+7.3f})  feature {feature:<6}  {where:<18} "
        lines.append((line + labels.get(feature, "")).rstrip())
    rest = attribution.explained - sum(effect for _, effect in shown)
    n_rest = int((attribution.by_feature != 0).sum()) - len(shown)
    lines += [
        f"  {rest:+8.3f}  the other {n_rest} active features",
        f"  {attribution.error_effect:+8.3f}  reconstruction error of the SAE",
        f"  {attribution.gap:+8.3f}  remainder: the error of the gradient estimate",
    ]
    bypass = attribution.total - attribution.explained - attribution.error_effect - attribution.gap
    if abs(bypass) > 5e-4:
        lines.insert(-1, f"  {bypass:+8.3f}  paths past the features (skip connection, scale of a token)")
    return lines
