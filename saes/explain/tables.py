"""From answers to the two tables of a labels artefact, and to what it says in its manifest."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from saes.explain.negatives import HARD, RANDOM
from saes.explain.scores import Score, mean_over_features, score_answers
from saes.explain.trials import Case, Scorer, Trial
from saes.schema import SCORES, labels_schema, trials_schema

if TYPE_CHECKING:
    import pyarrow as pa


class Answered(NamedTuple):
    """A trial and what the scorer said."""

    feature: int
    scorer: Scorer
    label_of: int
    """the feature whose label was used: another one under the null"""
    trial: Trial
    answer: bool | None
    """None: the reply could not be read"""


def trials_table(answered: Sequence[Answered]) -> "pa.Table":
    """The rows of `trials.parquet`: every score can be computed again from them."""
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
    """The rows of `labels.parquet`, one per case."""
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
            row |= {
                name: found and found.value,
                f"{name}_low": found and found.low,
                f"{name}_high": found and found.high,
            }
            row |= {f"{name}_f1": found and found.f1, f"{name}_n": found and found.n}
            row[f"{name}_null"] = baseline and baseline.value
        rows.append(row)
    return rows


def labels_table(rows: Sequence[dict[str, Any]]) -> "pa.Table":
    """The rows of `labels.parquet`."""
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows), schema=labels_schema())


def summarise(rows: Sequence[dict[str, Any]], *, generator: np.random.Generator) -> dict[str, Any]:
    """Means over features with intervals: each score, its null, and the gain of the label over the null."""
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
    """One of `SCORES` of some answers."""
    scorer = "fuzzing" if name == "fuzzing" else "detection"
    silent = HARD if name == "detection_hard" else (RANDOM,)
    chosen = [
        a for a in answered
        if a.scorer == scorer and (scorer == "fuzzing" or a.trial.truth or a.trial.context.group in silent)
    ]  # fmt: skip
    return score_answers([a.trial.truth for a in chosen], [bool(a.answer) for a in chosen], generator=generator)
