"""`workbench explain FEATURES`: labels of features by a language model, scored on held-out text."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from interp.errors import ConfigError
from interp.options import Argument, ArtefactName, Corpus, FeaturesName
from interp.recording.recorded import Recorded
from saes.features.schema import Features
from saes.features.written_labels import ExplainConfig, Labels
from workbench.analysis import AnalysisRun, Resumable
from workbench.terminal import Heading, RunsModel, Seeded, Threaded, say, settings_of, slug

if TYPE_CHECKING:
    from saes.explain.asking import RequestPlan
    from saes.explain.run import ExplanationRun

HEADING = Heading.FEATURES
N_WORDS = 60_000
"""Words of the text that carries labels."""


@dataclass(frozen=True, kw_only=True)
class Explain(ExplainConfig, Seeded, Threaded, RunsModel, Resumable["Labels | Features"]):
    """Label features with a language model, and score the labels on held-out text.

    Example: workbench explain demo --top 50 --dry-run

    Labels of Neuronpedia: workbench explain gpt2-res-jb --neuronpedia explanations.jsonl

    Labels of another dictionary: workbench explain mine --like demo --text docstrings --into mine-labelled

    The model is that of $WORKBENCH_ENDPOINT, an OpenAI-compatible base URL, and $WORKBENCH_ENDPOINT_MODEL; its key, if
    any, is in $WORKBENCH_API_KEY. It receives excerpts of the recorded text. Requests and tokens are counted first, and
    nothing is sent before you agree. An interrupted command continues when it is repeated, and no answered request is
    sent again.
    """

    makes: ClassVar[str] = "labels"

    source: Annotated[FeaturesName, Argument("FEATURES")]
    """Name of a features artefact in the workspace."""
    features: tuple[int, ...] = ()
    """Features to explain, by index."""
    top: int | None = None
    """Explain this many of the most frequent features that are not dense."""
    neuronpedia: Path | None = None
    """Instead of asking a model: take the labels of an explanations export of Neuronpedia (JSON or JSONL, plain or
    gzipped), with their source and scores."""
    like: FeaturesName | None = None
    """Instead: take the written labels of these features, of any model, for those that fire on the same words."""
    text: Corpus | None = None
    """With --like: text that both models read. Default: that of the recording of FEATURES."""
    into: ArtefactName | None = None
    """Also write a features artefact of this name with the new labels."""
    dry_run: bool = False
    """Count requests and tokens, and stop."""
    yes: bool = False
    """Send without asking."""
    max_requests: int = 1000
    """The budget: largest number of requests, failed attempts included."""
    price_in: float = 0.0
    """Price per million input tokens."""
    price_out: float = 0.0
    """Price per million output tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum([bool(self.features or self.top), self.neuronpedia is not None, self.like is not None]) != 1:
            raise ConfigError(
                "explain takes one of --features or --top, which a model labels, --neuronpedia, a file, and --like, "
                "other features"
            )

    def default_name(self) -> str:
        if self.neuronpedia or self.like:
            return slug(f"{self.source}-{'neuronpedia' if self.neuronpedia else self.like}")
        if self.top:
            return slug(f"{self.source}-top-{self.top}")
        more = f"-and-{len(self.features) - 1}-more" if len(self.features) > 1 else ""
        return slug(f"{self.source}-{min(self.features)}{more}")

    def check_free(self, *folders: Path | None) -> None:
        if not self.dry_run:
            super().check_free(*folders)

    def measure(self, run: AnalysisRun) -> list[Labels | Features]:
        target = run.workspace.path("features", self.into) if self.into else None
        self.check_free(target)  # before anything is paid for
        made = self._import(run) if self.neuronpedia else self._carry(run) if self.like else self._ask(run)
        if made is None:
            return []
        labels = run.save(made)
        if target is None:
            return [labels]
        from saes.explain.adopt import adopt_labels

        source = run.workspace.open(Features, self.source)
        return [labels, adopt_labels(labels, source, target, overwrite=self.overwrite)]

    def _import(self, run: AnalysisRun) -> Labels:
        """Return the labels of an export."""
        from saes.explain.imported import read_labels

        assert self.neuronpedia is not None
        return read_labels(run.open(Features, self.source), self.neuronpedia)

    def _carry(self, run: AnalysisRun) -> Labels:
        """Return the labels of the features that fire on the same words."""
        from saes.evaluation.by_word import words_in
        from saes.explain.carried import carry_labels, written_labels

        assert self.like is not None
        own, giver = run.open(Features, self.source), run.open(Features, self.like)
        written_labels(giver)  # before models are loaded
        text = words_in(self.text or recorded_text(run, own), N_WORDS, seed=self.seed)
        mine, other = (run.described(features) for features in (own, giver))
        with run.progress("reading words", "contexts") as progress:
            return carry_labels(own, giver, mine, other, text, seed=self.seed, progress=progress)

    def _ask(self, run: AnalysisRun) -> Labels | None:
        """Ask a model for labels, and score them; None where only the requests were to be counted."""
        from interp.artifacts import partial_path
        from saes.explain.asking import REPLIES, read_replies
        from saes.explain.run import explain

        explanation = self._prepare(run)
        for feature, why in explanation.skipped.items():
            say(f"feature {feature} is skipped: it {why}")
        known, where = read_replies(partial_path(run.folder) / REPLIES), explanation.endpoint.where
        plan = explanation.plan(known)
        say(self._described(plan, where))
        if self.dry_run:
            return None
        if plan.requests > self.max_requests:
            raise ConfigError(
                f"this takes {plan.requests:,} requests, the budget is {self.max_requests:,}; choose fewer features, "
                "or raise --max-requests"
            )
        if plan.requests and not self.yes:
            ask_first(where)
        draft = run.draft(explanation.settings)
        with run.progress("explaining", "requests") as progress:

            def report(done: int, total: int) -> None:
                draft.update(done=done, total=total)
                progress(done, total, {})

            return explain(explanation, plan, known, draft.path / REPLIES, report)

    def _prepare(self, run: AnalysisRun) -> "ExplanationRun":
        """Return the features to explain with their examples."""
        from saes.explain.cases import build_cases, choose_features
        from saes.explain.endpoint import chosen_endpoint
        from saes.explain.run import ExplanationRun

        features, config = run.open(Features, self.source), settings_of(self, ExplainConfig)
        cases, skipped = build_cases(
            features, choose_features(features, self.features, self.top), config, seed=self.seed
        )
        return ExplanationRun(
            cases=cases, skipped=skipped, endpoint=chosen_endpoint(self.max_requests), config=config, seed=self.seed,
            features=self.source, features_hash=features.about.content_hash,
        )  # fmt: skip

    def _described(self, plan: "RequestPlan", where: str) -> str:
        """Return the number of requests and tokens, their destination, and the cost when prices are given."""
        cost = (plan.tokens_in * self.price_in + plan.tokens_out_most * self.price_out) / 1e6
        price = f"; at most {cost:,.2f} at the prices given" if self.price_in or self.price_out else ""
        return f"{plan}; to {where}{price}" if plan.requests else str(plan)


def recorded_text(run: AnalysisRun, features: Features) -> str:
    """Return the corpus that features were described on. Raises `ConfigError` where it is not known here."""
    if features.settings.recording in run.workspace.names("recording"):
        recorded = run.workspace.open(Recorded, features.settings.recording).settings.text
        if recorded is not None:
            return recorded.corpus
    raise ConfigError(f"the text of {features.name} is not known here; name one with --text")


def ask_first(where: str) -> None:
    """Ask for consent. Raises `ConfigError` where the input is not a terminal, and when the answer is no."""
    if not sys.stdin.isatty():
        raise ConfigError(f"this sends recorded text to {where}; add --yes to agree, or --dry-run to only count")
    if input("send? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError("nothing was sent")
