"""Labels into a features folder: a copy of it in which the labelled features carry their new label and its source."""

import os
import shutil
from pathlib import Path

from interp.artifacts import Draft, Manifest, read_manifest, write_table
from interp.errors import MismatchError


def adopt_labels(labels: Path, features: Path, folder: Path, *, overwrite: bool = False) -> Manifest:
    """Write a features artefact like `features`, with the labels of `labels`; the others stay as they are.

    The labels artefact becomes a parent, so the page of a feature still shows the label from token statistics, and the
    scores, beside the new one. Raises `MismatchError` when the labels were made for other features.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    source, made = read_manifest(features), read_manifest(labels)
    key = f"features/{features.name}"
    if made.parents.get(key) != source.content_hash:
        raise MismatchError(f"{labels} was not made for {features} as it is now; explain it again")
    config = {**source.config, "labels": labels.name}
    draft = Draft.open(folder, kind="features", config=config, seed=source.seed, overwrite=overwrite)
    table = pq.read_table(features / "features.parquet")
    columns = {name: table[name].to_pylist() for name in ("feature", "label", "label_source")}
    place = {feature: i for i, feature in enumerate(columns["feature"])}
    for row in pq.read_table(labels / "labels.parquet", columns=["feature", "label", "label_source"]).to_pylist():
        if row["label"] is not None:
            columns["label"][place[row["feature"]]] = row["label"]
            columns["label_source"][place[row["feature"]]] = row["label_source"]
    for name in ("label", "label_source"):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(columns[name], pa.string()))
    write_table(draft.path / "features.parquet", table)
    _link_or_copy(features / "examples.parquet", draft.path / "examples.parquet")
    parents = {**source.parents, f"labels/{labels.name}": made.content_hash}
    return draft.finish(summary=source.summary, parents=parents, threads=source.threads)


def _link_or_copy(source: Path, target: Path) -> None:
    """The same file under another name where the disk allows it: artefacts are never written into."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
