"""Labels of features by a language model, scored on held-out contexts, as an artefact.

1. *explain*: the model reads contexts on which a feature fires and writes one phrase (Bills et al. 2023);
2. *detect*: given the phrase, the model says on which marked tokens of other text the feature fires (Paulo et al. 2024,
   arXiv 2410.13928);
3. *null*: the same questions with another feature's phrase. Only the difference from this null counts, since a judge
   can be right because some texts are simply more likely to contain something.

The requests are counted before anything is sent (`ExplanationRun.plan`).

The score is balanced accuracy: the mean of the true positive rate and the true negative rate, with intervals. 1 is
always right, 0.5 is chance. It does not depend on the proportion of positive trials: answering always yes, always no or
at random scores 0.5. A question without a readable answer counts as a no, which scores 0.5 as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from interp.artifacts import Table
from interp.errors import ConfigError
from interp.seeds import derive_seed
from interp.statistics import Interval, balanced_accuracy, bootstrap_interval
from saes.explain.asking import Replies, RequestPlan, ask, plan_of, write_replies
from saes.explain.cases import Case, ContextTrial, explanation_prompt, read_answers, read_explanation, scoring_prompt
from saes.explain.endpoint import Endpoint, EndpointReply, EndpointRequest
from saes.features.written_labels import (
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
)

RESAMPLES = 4000
RANDOM = "random"
"""Group of a trial in which another feature peaks."""
UNKNOWN_LABEL = "words that name a place, a person or a thing, right after a preposition or an article"
"""Placeholder of average length for a label that is not written yet, when the tokens of prompts are counted."""


def score_answers(
    truth: Sequence[bool] | np.ndarray, answers: Sequence[bool] | np.ndarray, *, generator: np.random.Generator
) -> Interval[float] | None:
    """Return the balanced accuracy of answers, with a 95 % interval; None unless there are both kinds of trials."""
    yes, answered = np.array(truth, bool), np.array(answers, bool)
    n_yes, n_no = int(yes.sum()), int((~yes).sum())
    if not n_yes or not n_no:
        return None
    right = (int((answered & yes).sum()), int((~answered & ~yes).sum()))
    return balanced_accuracy(right, (n_yes, n_no), generator=generator)


def mean_over_features(values: Sequence[float], *, generator: np.random.Generator) -> MeanScore | None:
    """Return the mean with the 95 % bootstrap interval over features; None without values."""
    if not values:
        return None
    interval = bootstrap_interval(np.mean, np.array(values, np.float64), rng=generator, n_resamples=RESAMPLES)
    return MeanScore(Interval(*map(float, interval)), len(values))


def mean_scores(scores: Sequence[LabelScore], *, generator: np.random.Generator) -> MeanScores | None:
    """Return means over features with intervals: the score, its null, and the gain of the score over the null."""
    pairs = [(score.accuracy, score.null) for score in scores if score.null is not None]
    values = [score.accuracy for score in scores], [null for _, null in pairs], [acc - null for acc, null in pairs]
    mean, null, gain = (mean_over_features(column, generator=generator) for column in values)
    return None if mean is None else MeanScores(own=mean, null=null, gain=gain)


def other_features(n: int, *, generator: np.random.Generator) -> list[int] | None:
    """Return for each of `n` features another one, each used once: a random cycle. None for fewer than two."""
    if n < 2:
        return None
    order = generator.permutation(n)
    partner = np.empty(n, int)
    partner[order] = np.roll(order, -1)
    return partner.tolist()


@dataclass(frozen=True)
class Question:
    """One scoring request, with the trials that it asks about."""

    feature: int
    label_of: int
    """The feature whose label is in the prompt: its own, or another one for the null."""
    trials: list[ContextTrial]
    request: EndpointRequest


@dataclass(frozen=True, kw_only=True)
class ExplanationRun:
    """One run of explanation and scoring: its cases, endpoint and settings."""

    cases: list[Case]
    skipped: dict[int, str]
    """Features without a case, and the reason."""
    endpoint: Endpoint
    config: ExplainConfig
    seed: int
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
            source=LabelRequest(endpoint=self.endpoint.where, model=self.endpoint.model, config=self.config),
        )

    @property
    def partner(self) -> dict[int, int]:
        """Return for each feature the one whose label is its null; empty for a single feature."""
        features = [case.feature for case in self.cases]
        order = other_features(len(features), generator=np.random.default_rng(derive_seed(self.seed, "null labels")))
        return {features[i]: features[j] for i, j in enumerate(order)} if order else {}

    def plan(self, known: Replies) -> RequestPlan:
        """Return the plan of requests still to be sent, with unwritten labels counted as phrases of average length.

        `known` are the replies of an interrupted run.
        """
        requests = [self.explanation_request(case) for case in self.cases]
        labels: dict[int, str | None] = {}
        for case, request in zip(self.cases, requests, strict=True):
            reply = known.get(self.endpoint.key_of(request))
            # the feature number makes prompts with two unwritten labels differ; equal ones would be counted once
            labels[case.feature] = read_explanation(reply.text) if reply else f"{UNKNOWN_LABEL} {case.feature}"
        requests += [question.request for question in self.questions(labels)]
        return plan_of(self.endpoint, requests, known)

    def explanation_request(self, case: Case) -> EndpointRequest:
        """Return the request for the label of a case."""
        return EndpointRequest(explanation_prompt(case.shown), self.config.max_tokens)

    def questions(self, labels: dict[int, str | None]) -> list[Question]:
        """Return every scoring question, with each feature's own label and with its partner's.

        A feature without a label gets none. A partner with exactly the same label gives no null.
        """
        partner, questions = self.partner, []
        for case in self.cases:
            for label_of in (case.feature, partner.get(case.feature)):
                text, label = labels[case.feature], None if label_of is None else labels[label_of]
                if text is None or label is None or label_of is None or (label_of != case.feature and label == text):
                    continue
                for trials in case.requests:
                    prompt = scoring_prompt(label, [trial.example for trial in trials])
                    request = EndpointRequest(prompt, self.config.max_tokens)
                    questions.append(Question(case.feature, label_of, trials, request))
        return questions


def explain(
    run: ExplanationRun, plan: RequestPlan, known: Replies, path: Path, progress: Callable[[int, int], None]
) -> Labels:
    """Ask for labels and score them.

    Every reply is written to the file `path` as it arrives, and is never asked for again: `known` are those of an
    interrupted run. `progress` is called with the number of replies and that of all. Raises `ResourceError` when
    retries exhaust the budget of requests.
    """
    write_replies(path, known, known)  # without the line that a killed process left torn

    def report() -> None:
        progress(len(known), max(plan.requests + plan.cached, len(known)))

    requests = [run.explanation_request(case) for case in run.cases]
    written = ask(run.endpoint, requests, path, known, report)
    labels = {case.feature: read_explanation(reply.text) for case, reply in zip(run.cases, written, strict=True)}
    questions = run.questions(labels)
    judged = ask(run.endpoint, [question.request for question in questions], path, known, report)
    trials = [row for question, reply in zip(questions, judged, strict=True) for row in _judgements(question, reply)]
    keys = dict.fromkeys(map(run.endpoint.key_of, [*requests, *(question.request for question in questions)]))
    write_replies(path, known, keys)
    generator = np.random.default_rng(derive_seed(run.seed, "bootstrap"))
    rows, scores = _score_labels(run, labels, trials, generator)
    answers = [known[key] for key in keys]
    return Labels(
        settings=run.settings,
        labels=Table.of(FeatureLabel, rows),
        scores=Table.of(LabelScore, scores),
        trials=Table.of(ContextJudgement, trials),
        means=mean_scores(scores, generator=generator),
        skipped=run.skipped,
        replies=ReplyCounts(
            requests=len(answers),
            tokens_in=sum(reply.tokens_in for reply in answers),
            tokens_out=sum(reply.tokens_out for reply in answers),
            cut=sum(reply.cut for reply in answers),
        ),
    )


def _judgements(question: Question, reply: EndpointReply) -> list[ContextJudgement]:
    """Return the rows of a reply, from which every score can be computed again."""
    answers = read_answers(reply.text, len(question.trials)) or [None] * len(question.trials)
    return [
        ContextJudgement(
            feature=question.feature, label_of=question.label_of, row=trial.example.row,
            group=trial.example.group if trial.truth else RANDOM, truth=trial.truth, answer=answer,
        )
        for trial, answer in zip(question.trials, answers, strict=True)
    ]  # fmt: skip


def _score_labels(
    run: ExplanationRun, labels: dict[int, str | None], trials: Sequence[ContextJudgement],
    generator: np.random.Generator,
) -> tuple[list[FeatureLabel], list[LabelScore]]:  # fmt: skip
    """Return one label per case, and its score where it was judged."""
    by_feature: dict[tuple[int, bool], list[ContextJudgement]] = {}
    for trial in trials:
        by_feature.setdefault((trial.feature, trial.label_of == trial.feature), []).append(trial)
    rows, scores = [], []
    for case in run.cases:
        own, wrong = (by_feature.get((case.feature, side), []) for side in (True, False))
        rows.append(
            FeatureLabel(
                feature=case.feature, label=labels[case.feature], label_source=run.endpoint.model,
                statistics_label=case.statistics_label, null_feature=run.partner.get(case.feature),
                unanswered=float(np.mean([trial.answer is None for trial in own])) if own else None,
                shown_rows=[example.row for example in case.shown],
                heldout_rows=sorted({t.example.row for request in case.requests for t in request if t.truth}),
            )
        )  # fmt: skip
        score, baseline = (
            score_answers([t.truth for t in side], [bool(t.answer) for t in side], generator=generator)
            for side in (own, wrong)
        )
        if score is not None:
            accuracy, low, high = map(float, score)
            null = None if baseline is None else float(baseline.estimate)
            scores.append(
                LabelScore(feature=case.feature, accuracy=accuracy, low=low, high=high, null=null, n=len(own))
            )
    return rows, scores
