"""Features that take over written labels: a copy of a features folder in which the labels that hold come first."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from interp.artifacts import Draft, Table, save_artefact
from interp.artifacts.artefact import settings_json
from interp.errors import MismatchError
from saes.features.schema import LABEL_FIELDS, LABEL_SCORES, WRITTEN, FeatureRow, Features, FeaturesSettings
from saes.features.written_labels import HOLDS, Labels, LabelScore

_FIELDS = ("label", "label_source", *LABEL_FIELDS, *LABEL_SCORES)
_OTHERS = ("other_labels", "other_sources", "other_scores")


def adopt_labels(labels: Labels, features: Features, folder: Path, *, overwrite: bool = False) -> Features:
    """Store a copy of features with the written labels that hold; the label by rule then stands among the others.

    A label holds when its accuracy of detection is at least `HOLDS`, and above the null where there is one; one that
    was never judged is taken over as it is. Other features retain their label. The labels artefact becomes a parent, so
    the page of a feature shows both. Raises `MismatchError` when the labels were made for other features,
    `CorruptError` for damaged tables.
    """
    if labels.settings.features_hash != features.about.content_hash:
        raise MismatchError(f"{labels.key} was not made for {features.folder} as it is now; explain it again")
    settings, parents = replace(features.settings, labels=labels.name), {labels.key: labels.about.content_hash}
    return replace_labels(features, _labels_that_hold(labels), folder, settings, parents, overwrite=overwrite)


def replace_labels(
    features: Features, new: Mapping[int, Mapping[str, Any]], folder: Path, settings: FeaturesSettings,
    parents: Mapping[str, str], *, overwrite: bool = False,
) -> Features:  # fmt: skip
    """Store a copy of features with other labels: of some features, the new columns.

    A label that was scored then stands among the others. `parents` are added to those of the features.
    """
    import pyarrow as pa

    source = features.about
    table = features.features.arrow()
    columns = {name: table[name].to_pylist() for name in ("feature", *_FIELDS, *_OTHERS)}
    row_of = {feature: i for i, feature in enumerate(columns["feature"])}
    for feature, values in new.items():
        at = row_of[feature]
        if columns["label_score"][at] is not None:
            for name, old in zip(_OTHERS, ("label", "label_source", "label_score"), strict=True):
                columns[name][at] = [columns[old][at], *columns[name][at]]
        for name in _FIELDS:
            columns[name][at] = values.get(name)
    for name in (*_FIELDS, *_OTHERS):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, pa.array(columns[name], table.schema.field(name).type))
    adopted = replace(features, settings=settings, features=Table.of_columns(FeatureRow, table))
    config = settings_json(settings)
    draft = Draft.open(folder, kind="features", config=config, seed=source.seed, overwrite=overwrite)
    for name in [file for file in source.files if "/" in file]:  # the index of the text
        (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(features.folder / name, draft.path / name)
    every = {**source.parents, **parents}
    return save_artefact(adopted, folder, draft=draft, parents=every, threads=source.threads)


def _labels_that_hold(labels: Labels) -> dict[int, dict[str, Any]]:
    """Return the new columns of each feature whose written label is taken over."""
    written = labels.labels.query("select feature, label, label_source from t where label is not null").to_pylist()
    scores: dict[int, LabelScore] = {row.feature: row for row in labels.scores.rows()}
    trials = labels.trials.query(
        "select feature, count(*) as n from t where truth and feature = label_of group by 1"
    ).to_pylist()
    firings = {row["feature"]: row["n"] for row in trials}
    null = np.array([score.null for score in scores.values() if score.null is not None])
    taken: dict[int, dict[str, Any]] = {}
    for row in written:
        score = scores.get(row["feature"])
        if score is not None and (score.accuracy < HOLDS or score.accuracy <= (score.null or 0)):
            continue
        new = {**row, "label_kind": WRITTEN, "label_names": []}
        if score is not None and len(null):
            high = np.quantile(null, 0.95) if len(null) >= 19 else null.max()
            new |= {"label_score": score.accuracy, "label_null": float(null.mean()), "label_null_high": float(high)}
            new |= {"label_heldout": firings.get(row["feature"], 0)}
        taken[row["feature"]] = new
    return taken
