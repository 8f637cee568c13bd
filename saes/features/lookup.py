"""Labels of features by number, and the share of recorded activations below one. Torch-free."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from interp.artifacts import query
from interp.artifacts.files import file_version
from interp.workspace import Workspace
from saes.features.schema import Features

if TYPE_CHECKING:
    import pyarrow as pa


def labels(workspace: Workspace, name: str, features: Iterable[int]) -> dict[int, str]:
    """Return the labels of some features of an artefact; a number without a row is left out."""
    path = workspace.table_path("features", name, "features")
    table = _all_labels(path, file_version(path))
    numbers, wanted = np.asarray(table["feature"]), np.asarray(sorted(set(features)), int)
    rows: list[int] = np.searchsorted(numbers, wanted).tolist()
    return {
        feature: table["label"][row].as_py()
        for feature, row in zip(wanted.tolist(), rows, strict=True)
        if row < len(numbers) and numbers[row] == feature
    }


@lru_cache(maxsize=4)
def _all_labels(path: Path, version: tuple[int, ...]) -> "pa.Table":
    return query("select feature, label from t order by feature", t=path)


def shares_below(features: Features, fired: Sequence[tuple[int, float]]) -> list[float | None]:
    """Return, for pairs of feature and activation, the fraction of recorded activations of the feature below it.

    Within a bin of its histogram, activations are taken to be spread evenly in their logarithm. None for a feature
    that never fired.
    """
    edges = np.log(np.array(features.histogram_edges))
    sql = "select feature, histogram from t where feature in (select unnest(?::int[]))"
    rows = features.features.query(sql, sorted({feature for feature, _ in fired})).to_pylist()
    counts = {row["feature"]: np.concatenate([[0], np.cumsum(row["histogram"])]) for row in rows}
    return [
        float(np.interp(float(np.log(max(value, 1e-30))), edges, at) / at[-1]) if at is not None and at[-1] else None
        for value, at in ((activation, counts.get(feature)) for feature, activation in fired)
    ]
