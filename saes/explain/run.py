"""Labels of features by a language model, scored on held-out contexts, as an artefact.

1. *explain*: the model reads contexts on which a feature fires and writes one phrase (Bills et al. 2023);
2. *detect* and *fuzz*: given the phrase, the model says in which held-out contexts the feature fires, and in which
   contexts the marked tokens are right (Paulo et al. 2024, arXiv 2410.13928);
3. *null*: the same questions with another feature's phrase. Only the difference from this null counts, since a scorer
   can be right because some texts are simply more likely to contain something.

The requests are counted before anything is sent (`ExplanationRun.plan`). Simulation of activation values (Bills et al.)
is left out, as it costs one request per token.

Scores of labels: agreement of answers with the truth, by feature and over features.

The score is balanced accuracy: the mean of the true positive rate and the true negative rate, with intervals. 1 is
always right, 0.5 is chance. It does not depend on the proportion of positive trials: answering always yes, always no or
at random scores 0.5. A question without a readable answer counts as a no, which scores 0.5 as well.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from interp.artifacts import Table, partial_path
from interp.errors import ConfigError
from interp.progress import Progress
from interp.seeds import derive_seed
from interp.statistics import Interval, balanced_accuracy, bootstrap_interval
from saes.explain._contexts import HARD, RANDOM
from saes.explain.asking import (
    REPLIES,
    UNKNOWN_LABEL,
    Asker,
    Budget,
    Lines,
    Provider,
    ProviderRequest,
    RequestPlan,
    Transcript,
    count,
    read_lines,
    reply_of,
)
from saes.explain.cases import Case, ContextTrial, explanation_prompt, read_answers, read_explanation, scoring_prompt
from saes.features.schema import STATISTICS
from saes.features.written_labels import (
    SCORES,
    ContextJudgement,
    ExplainConfig,
    FeatureLabel,
    LabelRequest,
    Labels,
    LabelScore,
    LabelsSettings,
    MeanScore,
    MeanScores,
    ReplyCounts,
    ScoreName,
    Scorer,
)

RESAMPLES = 4000


class AnswerScore(NamedTuple):
    """Balanced accuracy of one set of answers."""

    accuracy: Interval[float]
    """Balanced accuracy, 0 to 1, with a 95 % interval."""
    f1: float
    """Harmonic mean of precision and recall of the yes answers; 0 if none is right."""
    n: int
    """Number of trials."""


def score_answers(
    truth: Sequence[bool] | np.ndarray, answers: Sequence[bool] | np.ndarray, *, generator: np.random.Generator
) -> AnswerScore | None:
    """Return the score of the answers; None unless there are positive and negative trials."""
    yes, answered = np.array(truth, bool), np.array(answers, bool)
    n_yes, n_no = int(yes.sum()), int((~yes).sum())
    if not n_yes or not n_no:
        return None
    right = (int((answered & yes).sum()), int((~answered & ~yes).sum()))
    interval = balanced_accuracy(right, (n_yes, n_no), generator=generator)
    return AnswerScore(interval, f1_of_answers(yes, answered), len(yes))


def f1_of_answers(truth: np.ndarray, answers: np.ndarray) -> float:
    """Return F1 of answers, bool arrays `[n]`; 0 where none is right."""
    right = int((answers & truth).sum())
    return 2 * right / (int(truth.sum()) + int(answers.sum())) if right else 0.0


def mean_over_features(values: Sequence[float], *, generator: np.random.Generator) -> MeanScore | None:
    """Return the mean with the 95 % bootstrap interval over features; None without values."""
    if not values:
        return None
    interval = bootstrap_interval(np.mean, np.array(values, np.float64), rng=generator, n_resamples=RESAMPLES)
    return MeanScore(Interval(*map(float, interval)), len(values))


def other_features(n: int, *, generator: np.random.Generator) -> list[int] | None:
    """Return for each of `n` features another one, each used once: a random cycle. None for fewer than two."""
    if n < 2:
        return None
    order = generator.permutation(n)
    partner = np.empty(n, int)
    partner[order] = np.roll(order, -1)
    return partner.tolist()


class Answered(NamedTuple):
    """A trial with the scorer's answer."""

    feature: int
    scorer: Scorer
    label_of: int
    """The feature whose label was used: another one under the null."""
    trial: ContextTrial
    answer: bool | None
    """True for yes, False for no; None when the reply could not be read."""


def judgements(answered: Sequence[Answered]) -> list[ContextJudgement]:
    """Return the rows of answers, from which every score can be recomputed."""
    return [
        ContextJudgement(
            feature=answer.feature,
            scorer=answer.scorer,
            label_of=answer.label_of,
            row=answer.trial.context.row,
            group=answer.trial.context.group,
            truth=answer.trial.truth,
            answer=answer.answer,
        )
        for answer in answered
    ]


def score_labels(
    cases: Sequence[Case],
    labels: dict[int, str | None],
    partner: dict[int, int],
    answered: Sequence[Answered],
    source: str,
    *,
    generator: np.random.Generator,
) -> tuple[list[FeatureLabel], list[LabelScore]]:
    """Return one label per case, and its scores, with `labels` and `partner` by feature."""
    by_feature: dict[tuple[int, bool], list[Answered]] = {}
    for answer in answered:
        by_feature.setdefault((answer.feature, answer.label_of == answer.feature), []).append(answer)
    rows, scores = [], []
    for case in cases:
        answers, null = by_feature.get((case.feature, True), []), by_feature.get((case.feature, False), [])
        rows.append(
            FeatureLabel(
                feature=case.feature,
                label=labels[case.feature],
                label_source=source,
                statistics_label=case.statistics_label,
                null_feature=partner.get(case.feature),
                unanswered=float(np.mean([a.answer is None for a in answers])) if answers else None,
                shown_rows=[context.row for context in case.shown],
                heldout_rows=sorted({t.context.row for request in case.detection for t in request if t.truth}),
            )
        )
        for name in SCORES:
            score, baseline = (_score(side, name, generator) for side in (answers, null))
            if score:
                accuracy, low, high = map(float, score.accuracy)
                scores.append(
                    LabelScore(
                        feature=case.feature,
                        name=name,
                        accuracy=accuracy,
                        low=low,
                        high=high,
                        null=baseline and float(baseline.accuracy.estimate),
                        f1=score.f1,
                        n=score.n,
                    )
                )
    return rows, scores


def mean_scores(scores: Sequence[LabelScore], *, generator: np.random.Generator) -> dict[ScoreName, MeanScores]:
    """Return means over features with intervals: each score, its null, and the gain of the score over the null."""
    means: dict[ScoreName, MeanScores] = {}
    for name in SCORES:
        named = [score for score in scores if score.name == name]
        pairs = [(score.accuracy, score.null) for score in named if score.null is not None]
        values = [acc.accuracy for acc in named], [null for _, null in pairs], [acc - null for acc, null in pairs]
        mean, null, gain = (mean_over_features(column, generator=generator) for column in values)
        if mean is not None:
            means[name] = MeanScores(own=mean, null=null, gain=gain)
    return means


def _score(answered: Sequence[Answered], name: ScoreName, generator: np.random.Generator) -> AnswerScore | None:
    """Return the score called `name`, one of `SCORES`, of some answers; None when it has no trials."""
    scorer = "fuzzing" if name == "fuzzing" else "detection"
    silent = HARD if name == "detection_hard" else (RANDOM,)
    chosen = [
        a for a in answered
        if a.scorer == scorer and (scorer == "fuzzing" or a.trial.truth or a.trial.context.group in silent)
    ]  # fmt: skip
    return score_answers([a.trial.truth for a in chosen], [bool(a.answer) for a in chosen], generator=generator)


SCORERS: tuple[Scorer, ...] = ("detection", "fuzzing")


@dataclass(frozen=True)
class Question:
    """One scoring request, with the trials that it asks about."""

    case: Case
    scorer: Scorer
    label_of: int
    """The feature whose label is in the prompt: the case's own, or another one for the null."""
    trials: list[ContextTrial]
    request: ProviderRequest


@dataclass(frozen=True, kw_only=True)
class ExplanationRun:
    """One run of explanation and scoring: its cases, provider, settings, and replies of earlier runs."""

    cases: list[Case]
    skipped: dict[int, str]
    """Features without a case, and the reason."""
    provider: Provider
    config: ExplainConfig
    seed: int
    known: Lines
    """Replies of earlier runs."""
    features: str
    """Name of the features artefact."""
    features_hash: str

    def __post_init__(self) -> None:
        if not self.cases:
            reasons = "; ".join(f"{feature} {why}" for feature, why in list(self.skipped.items())[:5])
            raise ConfigError(f"none of these features can be explained ({reasons}); choose others")

    @property
    def settings(self) -> LabelsSettings:
        """Return what determines the labels."""
        return LabelsSettings(
            features=self.features,
            features_hash=self.features_hash,
            explained=tuple(case.feature for case in self.cases),
            source=LabelRequest(provider=self.provider.identity, config=self.config),
        )

    @property
    def partner(self) -> dict[int, int]:
        """Return for each feature the one whose label is its null; empty without a null, or for a single feature."""
        features = [case.feature for case in self.cases]
        generator = np.random.default_rng(derive_seed(self.seed, "null labels"))
        order = other_features(len(features), generator=generator) if self.config.null else None
        return {features[i]: features[j] for i, j in enumerate(order)} if order else {}

    def plan(self) -> RequestPlan:
        """Return the plan of requests still to be sent, with unwritten labels counted as phrases of average length."""
        identity = self.provider.identity

        def known(request: ProviderRequest):
            return reply_of(self.known.get(request.key(identity)))

        wanted: list[tuple[str, ProviderRequest]] = []
        labels: dict[int, str | None] = {}
        for case in self.cases:
            if self.config.label_from != "provider":
                labels[case.feature] = case.statistics_label
                continue
            request = self.explanation_request(case)
            wanted.append(("explanation", request))
            reply = known(request)
            # the feature number makes prompts with two unwritten labels differ; equal ones would be counted once
            labels[case.feature] = read_explanation(reply.text) if reply else f"{UNKNOWN_LABEL} {case.feature}"
        wanted += [(question.scorer, question.request) for question in self.questions(labels)]
        return count(self.provider, wanted, known)

    def explanation_request(self, case: Case) -> ProviderRequest:
        """Return the request for the label of a case."""
        return self._request(explanation_prompt(case.shown, case.maximum), start="Explanation:")

    def questions(self, labels: dict[int, str | None]) -> list[Question]:
        """Return every scoring question, with each feature's own label and with its partner's.

        A feature without a label gets none. A partner with exactly the same label gives no null.
        """
        partner = self.partner
        questions = []
        for case in self.cases:
            for label_of in (case.feature, partner.get(case.feature)):
                text, label = labels[case.feature], None if label_of is None else labels[label_of]
                if text is None or label is None or label_of is None or (label_of != case.feature and label == text):
                    continue
                for scorer in SCORERS:
                    for trials in case.requests(scorer):
                        request = self._request(scoring_prompt(scorer, label, trials), start="[", bits=len(trials))
                        questions.append(Question(case, scorer, label_of, trials, request))
        return questions

    def _request(self, content: str, *, start: str, bits: int = 0) -> ProviderRequest:
        request = ProviderRequest(content, self.config.max_tokens, self.config.temperature)
        return replace(request, start=start, bits=bits) if self.provider.starts else request


def known_replies(folder: Path, others: Iterable[Path] = ()) -> Lines:
    """Return the replies of an unfinished run of `folder`, of the run that it replaces, and of other artefacts."""
    return read_lines([*(path / REPLIES for path in others), folder / REPLIES, partial_path(folder) / REPLIES])


def explain(
    run: ExplanationRun, plan: RequestPlan, replies: Path, *, max_requests: int = 1000, progress: Progress | None = None
) -> Labels:
    """Ask for labels and score them.

    Every reply is written to the file `replies` as it arrives, and is never asked for again. Raises `ResourceError`
    when retries exhaust the budget of requests.
    """
    transcript = Transcript(replies, run.known)
    budget = Budget(max_requests)
    asker = Asker(run.provider, transcript, budget, _Counted(plan.total + plan.cached, budget, progress))
    labels = _labels(run, asker)
    answered = _answers(run.questions(labels), asker)
    transcript.finish(asker.keys)
    generator = np.random.default_rng(derive_seed(run.seed, "bootstrap"))
    source = run.provider.model if run.config.label_from == "provider" else STATISTICS
    rows, scores = score_labels(run.cases, labels, run.partner, answered, source, generator=generator)
    answers = [reply for key in dict.fromkeys(asker.keys) if (reply := transcript.reply(key))]
    return Labels(
        settings=run.settings,
        labels=Table.of(FeatureLabel, rows),
        scores=Table.of(LabelScore, scores),
        trials=Table.of(ContextJudgement, judgements(answered)),
        means=mean_scores(scores, generator=generator),
        skipped=run.skipped,
        replies=ReplyCounts(
            requests=len(answers),
            tokens_in=sum(reply.tokens_in for reply in answers),
            tokens_out=sum(reply.tokens_out for reply in answers),
            cut=sum(reply.cut for reply in answers),
        ),
    )


class _Counted:
    """Count of replies, reported to the caller; safe to call from threads."""

    def __init__(self, total: int, budget: Budget, progress: Progress | None):
        self._total, self._budget, self._progress = total, budget, progress
        self._done, self._lock = 0, threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, max(self._total, self._done), {"sent": self._budget.sent})


def _labels(run: ExplanationRun, asker: Asker) -> dict[int, str | None]:
    if run.config.label_from != "provider":
        return {case.feature: case.statistics_label for case in run.cases}
    replies = asker.ask([run.explanation_request(case) for case in run.cases])
    return {case.feature: read_explanation(reply.text) for case, reply in zip(run.cases, replies, strict=True)}


def _answers(questions: Sequence[Question], asker: Asker) -> list[Answered]:
    answered = []
    for question, reply in zip(questions, asker.ask([q.request for q in questions]), strict=True):
        answers = read_answers(reply.text, len(question.trials)) or [None] * len(question.trials)
        answered += [
            Answered(question.case.feature, question.scorer, question.label_of, trial, answer)
            for trial, answer in zip(question.trials, answers, strict=True)
        ]
    return answered
