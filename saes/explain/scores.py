"""Scores of labels: agreement of answers with the truth, by feature and over features.

The score is balanced accuracy: the mean of the true positive rate and the true negative rate, with intervals. 1 is
always right, 0.5 is chance. It does not depend on the proportion of positive trials: answering always yes, always no or
at random scores 0.5. A question without a readable answer counts as a no, which scores 0.5 as well.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from interp.statistics import Interval, bootstrap_interval, percentile_interval
from saes.explain.cases import Case, Trial
from saes.explain.contexts import HARD, RANDOM
from saes.features.written_labels import (
    SCORES,
    FeatureLabel,
    Judgement,
    LabelScore,
    MeanScore,
    MeanScores,
    ScoreName,
    Scorer,
)

RESAMPLES = 4000


class Score(NamedTuple):
    """Balanced accuracy of one set of answers."""

    accuracy: Interval[float]
    """Balanced accuracy, 0 to 1, with a 95 % interval: both rates are drawn from their posterior under Jeffreys' prior.

    So the interval has a width even where all trials are answered right: 0.84 to 1 for ten of ten, twice."""
    f1: float
    """Harmonic mean of precision and recall of the yes answers; 0 if none is right."""
    n: int
    """Number of trials."""


def score_answers(truth: Sequence[bool], answers: Sequence[bool], *, generator: np.random.Generator) -> Score | None:
    """Return the score of the answers; None unless there are positive and negative trials."""
    yes, answered = np.array(truth, bool), np.array(answers, bool)
    n_yes, n_no = int(yes.sum()), int((~yes).sum())
    if not n_yes or not n_no:
        return None
    hit, refused = answered[yes].mean(), (~answered[~yes]).mean()
    counts = ((hit * n_yes, n_yes), (refused * n_no, n_no))
    draws = np.mean([generator.beta(right + 0.5, n - right + 0.5, RESAMPLES) for right, n in counts], axis=0)
    low, high = percentile_interval(0.0, draws)[1:]
    accuracy = float((hit + refused) / 2)
    interval = Interval(accuracy, 0.0 if accuracy == 0 else low, 1.0 if accuracy == 1 else high)
    right = int((answered & yes).sum())
    f1 = 2 * right / (n_yes + int(answered.sum())) if right else 0.0
    return Score(interval, f1, len(yes))


def mean_over_features(values: Sequence[float], *, generator: np.random.Generator) -> MeanScore | None:
    """Return the mean with the 95 % bootstrap interval over features; None without values."""
    if not values:
        return None
    found = bootstrap_interval(np.mean, np.array(values, np.float64), rng=generator, n_resamples=RESAMPLES)
    return MeanScore(Interval(*map(float, found)), len(values))


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
    trial: Trial
    answer: bool | None
    """True for yes, False for no; None when the reply could not be read."""


def judgements(answered: Sequence[Answered]) -> list[Judgement]:
    """Return the rows of answers, from which every score can be recomputed."""
    return [
        Judgement(
            feature=each.feature,
            scorer=each.scorer,
            label_of=each.label_of,
            row=each.trial.context.row,
            group=each.trial.context.group,
            truth=each.trial.truth,
            answer=each.answer,
        )
        for each in answered
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
    for each in answered:
        by_feature.setdefault((each.feature, each.label_of == each.feature), []).append(each)
    rows, scores = [], []
    for case in cases:
        own, null = by_feature.get((case.feature, True), []), by_feature.get((case.feature, False), [])
        rows.append(
            FeatureLabel(
                feature=case.feature,
                label=labels[case.feature],
                label_source=source,
                statistics_label=case.statistics_label,
                null_feature=partner.get(case.feature),
                unanswered=float(np.mean([a.answer is None for a in own])) if own else None,
                shown_rows=[context.row for context in case.shown],
                heldout_rows=sorted({t.context.row for request in case.detection for t in request if t.truth}),
                given_names=[],
                given_scores=[],
            )
        )
        for name in SCORES:
            found, baseline = (_score(side, name, generator) for side in (own, null))
            if found:
                accuracy, low, high = map(float, found.accuracy)
                ends = {"low": low, "high": high, "null": baseline and float(baseline.accuracy.estimate)}
                one = LabelScore(feature=case.feature, name=name, accuracy=accuracy, **ends, f1=found.f1, n=found.n)
                scores.append(one)
    return rows, scores


def mean_scores(scores: Sequence[LabelScore], *, generator: np.random.Generator) -> dict[ScoreName, MeanScores]:
    """Return means over features with intervals: each score, its null, and the gain of the score over the null."""
    means: dict[ScoreName, MeanScores] = {}
    for name in SCORES:
        mine = [each for each in scores if each.name == name]
        pairs = [(each.accuracy, each.null) for each in mine if each.null is not None]
        values = [each.accuracy for each in mine], [null for _, null in pairs], [own - null for own, null in pairs]
        own, null, gain = (mean_over_features(each, generator=generator) for each in values)
        if own is not None:
            means[name] = MeanScores(own=own, null=null, gain=gain)
    return means


def _score(answered: Sequence[Answered], name: ScoreName, generator: np.random.Generator) -> Score | None:
    """Return the score called `name`, one of `SCORES`, of some answers; None when it has no trials."""
    scorer = "fuzzing" if name == "fuzzing" else "detection"
    silent = HARD if name == "detection_hard" else (RANDOM,)
    chosen = [
        a for a in answered
        if a.scorer == scorer and (scorer == "fuzzing" or a.trial.truth or a.trial.context.group in silent)
    ]  # fmt: skip
    return score_answers([a.trial.truth for a in chosen], [bool(a.answer) for a in chosen], generator=generator)
