"""Scores of labels: agreement of answers with the truth, as the tables and the summary of a labels artefact.

The score is balanced accuracy: the mean of the true positive rate and the true negative rate, with intervals. 1 is
always right, 0.5 is chance. It does not depend on the proportion of positive trials: answering always yes, always no or
at random scores 0.5. A question without a readable answer counts as a no, which scores 0.5 as well.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from interp.statistics import Interval, bootstrap_interval, percentile_interval
from saes.explain.cases import Case, Scorer, Trial
from saes.explain.contexts import HARD, RANDOM
from saes.features.schema import SCORES, labels_schema, trials_schema

if TYPE_CHECKING:
    import pyarrow as pa


RESAMPLES = 4000


class Score(NamedTuple):
    """Balanced accuracy of one set of answers."""

    accuracy: Interval[float]
    """Balanced accuracy, 0 to 1, with a 95 % interval: both rates are drawn from their posterior under Jeffreys' prior.

    So the interval has a width even where all trials are answered right: .84 to 1 for ten of ten, twice."""
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


def mean_over_features(values: Sequence[float], *, generator: np.random.Generator) -> dict[str, float | int] | None:
    """Return `mean`, the 95 % bootstrap interval over features `low, high`, and `n`; None without values."""
    known = np.array([v for v in values if v is not None], np.float64)
    if not len(known):
        return None
    found = bootstrap_interval(np.mean, known, rng=generator, n_resamples=RESAMPLES)
    return {"mean": found.estimate, "low": found.low, "high": found.high, "n": len(known)}


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


def trials_table(answered: Sequence[Answered]) -> "pa.Table":
    """Return the rows of `trials.parquet`, from which every score can be recomputed."""
    import pyarrow as pa

    rows = [
        {
            "feature": each.feature,
            "scorer": each.scorer,
            "label_of": each.label_of,
            "row": each.trial.context.row,
            "group": each.trial.context.group,
            "truth": each.trial.truth,
            "answer": each.answer,
        }
        for each in answered
    ]
    return pa.Table.from_pylist(rows, schema=trials_schema())


def labels_rows(
    cases: Sequence[Case],
    labels: dict[int, str | None],
    partner: dict[int, int],
    answered: Sequence[Answered],
    source: str,
    *,
    generator: np.random.Generator,
) -> list[dict[str, Any]]:
    """Return the rows of `labels.parquet`, one per case, with `labels` and `partner` by feature."""
    by_feature: dict[tuple[int, bool], list[Answered]] = {}
    for each in answered:
        by_feature.setdefault((each.feature, each.label_of == each.feature), []).append(each)
    rows = []
    for case in cases:
        own, null = by_feature.get((case.feature, True), []), by_feature.get((case.feature, False), [])
        row: dict[str, Any] = {
            "feature": case.feature,
            "label": labels[case.feature],
            "label_source": source,
            "statistics_label": case.statistics_label,
            "null_feature": partner.get(case.feature),
            "unanswered": float(np.mean([a.answer is None for a in own])) if own else None,
            "shown_rows": [context.row for context in case.shown],
            "heldout_rows": sorted({t.context.row for request in case.detection for t in request if t.truth}),
        }
        for name in SCORES:
            found, baseline = (_score(side, name, generator) for side in (own, null))
            row |= found.accuracy.columns(name) if found else dict.fromkeys((name, f"{name}_low", f"{name}_high"))
            row |= {f"{name}_f1": found and found.f1, f"{name}_n": found and found.n}
            row[f"{name}_null"] = baseline and baseline.accuracy.estimate
        rows.append(row)
    return rows


def labels_table(rows: Sequence[dict[str, Any]]) -> "pa.Table":
    """Return the rows as the table of `labels.parquet`."""
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows), schema=labels_schema())


def summarise(rows: Sequence[dict[str, Any]], *, generator: np.random.Generator) -> dict[str, Any]:
    """Return means over features with intervals: each score, its null, and the gain of the score over the null."""
    summary: dict[str, Any] = {
        "n_features": len(rows),
        "n_labelled": sum(row["label"] is not None for row in rows),
        "unanswered": float(np.mean([row["unanswered"] for row in rows if row["unanswered"] is not None] or [0.0])),
    }
    for name in SCORES:
        pairs = [(row[name], row[f"{name}_null"]) for row in rows if row[name] is not None]
        nulls = [null for _, null in pairs if null is not None]
        gains = [value - null for value, null in pairs if null is not None]
        for key, values in ((name, [value for value, _ in pairs]), (f"{name}_null", nulls), (f"{name}_gain", gains)):
            summary[key] = mean_over_features(values, generator=generator)
    return summary


def _score(answered: Sequence[Answered], name: str, generator: np.random.Generator) -> Score | None:
    """Return the score called `name`, one of `SCORES`, of some answers; None when it has no trials."""
    scorer = "fuzzing" if name == "fuzzing" else "detection"
    silent = HARD if name == "detection_hard" else (RANDOM,)
    chosen = [
        a for a in answered
        if a.scorer == scorer and (scorer == "fuzzing" or a.trial.truth or a.trial.context.group in silent)
    ]  # fmt: skip
    return score_answers([a.trial.truth for a in chosen], [bool(a.answer) for a in chosen], generator=generator)
