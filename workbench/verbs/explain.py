"""`workbench explain FEATURES`: labels of features by a language model, scored on held-out text."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from interp.errors import ConfigError
from interp.options import Argument, ArtefactName, Corpus, FeaturesName, Means, ModelName
from interp.recording.recorded import Recorded
from saes.features.schema import Features
from saes.features.written_labels import ExplainConfig, Labels
from workbench.analysis import AnalysisRun, Resumable
from workbench.terminal import AppliesDictionary, Heading, RunsModel, Seeded, Threaded, say, settings_of, slug

if TYPE_CHECKING:
    from saes.explain.asking import Provider, RequestPlan
    from saes.explain.run import ExplanationRun

HEADING = Heading.FEATURES


@dataclass(frozen=True, kw_only=True)
class Explain(ExplainConfig, Seeded, AppliesDictionary, Threaded, RunsModel, Resumable["Labels | Features"]):
    """Label features with a language model, and score the labels on held-out text.

    Example: workbench explain demo --provider http://localhost:8000/v1 --model my-model --top 50

    On this machine: workbench explain demo --provider local:smollm2-135m --features 12 57

    Labels of Neuronpedia: workbench explain gpt2-res-jb --neuronpedia explanations.jsonl

    Labels of another dictionary: workbench explain mine --like demo --text docstrings --into mine-labelled

    An endpoint receives excerpts of the recorded text. Requests and tokens are counted first, and nothing is sent
    before you agree. An interrupted command continues when it is repeated, and no answered request is sent again.
    """

    makes: ClassVar[str] = "labels"
    on_page: ClassVar[bool] = False

    source: Annotated[FeaturesName, Argument("FEATURES")]
    """Name of a features artefact in the workspace."""
    provider: Annotated[str, Means("PROVIDER")] | None = None
    """Base URL of an OpenAI-compatible endpoint, or local:MODEL."""
    model: ModelName | None = None
    """Name of the model at the endpoint. With --neuronpedia: take only explanations by this model."""
    neuronpedia: Path | None = None
    """Instead of asking a model: take the labels of an explanations export of Neuronpedia (JSON or JSONL, plain or
    gzipped), with their source and scores."""
    like: FeaturesName | None = None
    """Instead: take the written labels of these features, of any model, for those that fire on the same words."""
    text: Corpus | None = None
    """With --like: text that both models read. Default: that of the recording of FEATURES."""
    n_words: int = 60_000
    """With --like: words of the text."""
    features: tuple[int, ...] = ()
    """Features to explain, by index."""
    top: int | None = None
    """Explain this many of the most frequent features that are not dense."""
    sample: int | None = None
    """Explain this many features drawn at random. Only a random sample estimates the scores of the whole dictionary."""
    into: ArtefactName | None = None
    """Also write a features artefact of this name with the new labels."""
    dry_run: bool = False
    """Count requests and tokens, and stop."""
    yes: bool = False
    """Send without asking."""
    max_requests: int = 1000
    """Largest number of requests, failed attempts included."""
    price_in: float | None = None
    """Price per million input tokens."""
    price_out: float | None = None
    """Price per million output tokens."""
    key_variable: Annotated[str, Means("VARIABLE")] = "WORKBENCH_API_KEY"
    """Environment variable with the key. The key is never written to disk."""
    concurrency: int = 4
    """Concurrent requests."""
    timeout: float = 60.0
    """Seconds to wait for a reply."""
    retries: int = 5
    """Further attempts when the endpoint is busy or fails."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (n := sum(source is not None for source in (self.provider, self.neuronpedia, self.like))) != 1:
            raise ConfigError(
                "explain takes one of --provider, a model to ask, --neuronpedia, a file, and --like, other features; "
                f"got {n}"
            )
        if self.n_words < 1:
            raise ConfigError(f"n-words must be at least 1, got {self.n_words}")

    def default_name(self) -> str:
        model = self.model or (self.provider or "").partition(":")[2]
        return slug(f"{self.source}-{'neuronpedia' if self.neuronpedia else self.like or model}")

    def check_free(self, *folders: Path | None) -> None:
        if not self.dry_run:
            super().check_free(*folders)

    def measure(self, run: AnalysisRun) -> list[Labels | Features]:
        target = run.workspace.path("features", self.into) if self.into else None
        self.check_free(target)  # before anything is paid for
        labels = self._ask(run, self.provider) if self.provider else self._taken(run)
        if labels is None:
            return []
        labels = run.save(labels)
        if target is not None:
            from saes.explain.adopt import adopt_labels

            source = run.workspace.open(Features, self.source)
            return [labels, adopt_labels(labels, source, target, overwrite=self.overwrite)]
        return [labels]

    def _taken(self, run: AnalysisRun) -> Labels:
        return self._carry(run) if self.like else self._import(run)

    def _import(self, run: AnalysisRun) -> Labels:
        """Return the labels of an export."""
        from saes.explain.imported import read_labels

        assert self.neuronpedia is not None
        run.open(Features, self.source)
        return read_labels(run.workspace, self.source, self.neuronpedia, model=self.model)

    def _carry(self, run: AnalysisRun) -> Labels:
        """Return the labels of the features that fire on the same words."""
        from saes.evaluation.by_word import words_in
        from saes.explain.carried import carry_labels, written_labels

        assert self.like is not None
        own, giver = run.open(Features, self.source), run.open(Features, self.like)
        written_labels(giver)  # before models are loaded
        text = words_in(self.text or recorded_text(run, own), self.n_words, seed=self.seed)
        mine, other = (run.described(features) for features in (own, giver))
        with run.progress("reading words", "contexts") as progress:
            return carry_labels(own, giver, mine, other, text, seed=self.seed, progress=progress)

    def _ask(self, run: AnalysisRun, where: str) -> Labels | None:
        """Ask a model for labels, and score them; None where only the requests were to be counted."""
        from saes.explain.asking import REPLIES
        from saes.explain.providers import open_provider
        from saes.explain.run import explain

        provider = open_provider(
            where,
            self.model,
            key_variable=self.key_variable,
            concurrency=self.concurrency,
            timeout=self.timeout,
            retries=self.retries,
            device=run.device,
        )
        explanation = self._prepare(run, provider)
        for feature, why in explanation.skipped.items():
            say(f"feature {feature} is skipped: it {why}")
        plan = explanation.plan()
        say(describe_plan(plan, provider.where, self.price_in, self.price_out))
        if self.dry_run:
            return None
        plan.check(self.max_requests)
        if provider.remote and plan.total and not self.yes:
            ask_first(provider.where)
        draft = run.draft(explanation.settings)
        with run.progress("explaining", "requests") as progress:

            def report(done: int, total: int, info: dict) -> None:
                draft.update(done=done, total=total, **info)
                progress(done, total, info)

            return explain(explanation, plan, draft.path / REPLIES, max_requests=self.max_requests, progress=report)

    def _prepare(self, run: AnalysisRun, provider: "Provider") -> "ExplanationRun":
        """Return the features to explain with their contexts."""
        from interp.models.adapter import token_strings
        from saes.explain.cases import ContextSource, build_cases, choose_features
        from saes.explain.run import ExplanationRun, known_replies

        features = run.open(Features, self.source)
        chosen_features = choose_features(
            features.folder, features=self.features, top=self.top, sample=self.sample, seed=self.seed
        )
        settings, described = settings_of(self, ExplainConfig), features.settings
        chosen = run.dictionary(features.sae or features.dictionary, described.recording)
        model = run.recorded_model(chosen.recording)
        source = ContextSource(
            features.folder,
            described.window,
            chosen.load(model, allow_other_weights=self.allow_other_weights),
            chosen.recording,
            described.hook_point,
            token_strings(model, list(range(model.cfg.d_vocab))),
        )
        cases, skipped = build_cases(source, chosen_features, settings, seed=self.seed)
        others = [run.workspace.path("labels", name) for name in run.workspace.names("labels")]
        return ExplanationRun(
            cases=cases,
            skipped=skipped,
            provider=provider,
            config=settings,
            seed=self.seed,
            known=known_replies(run.folder, others),
            features=self.source,
            features_hash=features.about.content_hash,
        )


@dataclass(frozen=True, kw_only=True)
class WriteLabels(Seeded, Threaded, Resumable["Labels | Features"]):
    """Ask the chosen endpoint for labels of some features.

    Example: workbench label demo --features 540

    The same as `workbench explain --yes` with the provider of $WORKBENCH_ENDPOINT and its model
    $WORKBENCH_ENDPOINT_MODEL. By setting them you agree that excerpts of the recorded text are sent there. The page of
    a feature has a button for this where they are set.
    """

    words: ClassVar[tuple[str, ...]] = ("label",)
    makes: ClassVar[str] = "labels"

    source: Annotated[FeaturesName, Argument("FEATURES")]
    """Name of a features artefact in the workspace."""
    features: tuple[int, ...]
    """Features to label, by index."""

    def default_name(self) -> str:
        more = f"-and-{len(self.features) - 1}-more" if len(self.features) > 1 else ""
        return slug(f"{self.source}-{self.features[0] if self.features else 'none'}{more}")

    def measure(self, run: AnalysisRun) -> list[Labels | Features]:
        from saes.explain.providers import required_endpoint

        where, model = required_endpoint()
        verb = Explain(source=self.source, provider=where, model=model, features=self.features, yes=True,
                       workspace=self.workspace, name=self.name, overwrite=self.overwrite, seed=self.seed,
                       threads=self.threads)  # fmt: skip
        return verb.measure(run)


def recorded_text(run: AnalysisRun, features: Features) -> str:
    """Return the corpus that features were described on. Raises `ConfigError` where it is not known here."""
    if features.settings.recording in run.workspace.names("recording"):
        recorded = run.workspace.open(Recorded, features.settings.recording).settings.text
        if recorded is not None:
            return recorded.corpus
    raise ConfigError(f"the text of {features.name} is not known here; name one with --text")


def describe_plan(plan: "RequestPlan", where: str, price_in: float | None, price_out: float | None) -> str:
    """Return the number of requests and tokens, their destination, and the cost when prices are given."""
    line = f"{plan}; to {where}" if plan.total else str(plan)
    if price_in is None and price_out is None:
        return line
    return f"{line}; at most {plan.cost(price_in or 0.0, price_out or 0.0):,.2f} at the prices given"


def ask_first(where: str) -> None:
    """Ask for consent. Raises `ConfigError` where the input is not a terminal, and when the answer is no."""
    if not sys.stdin.isatty():
        raise ConfigError(f"this sends recorded text to {where}; add --yes to agree, or --dry-run to only count")
    if input("send? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError("nothing was sent")
