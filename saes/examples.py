"""From the firings kept in a pass to the example table: which are shown, and the text around them."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from interp.recording.passages import NO_TOKEN, document_names, read_passages
from interp.recording.store import Recording
from saes.schema import GROUPS, examples_schema
from saes.statistics import FeatureStatistics

if TYPE_CHECKING:
    import pyarrow as pa


class Examples(NamedTuple):
    """Chosen firings, sorted by feature, group and rank."""

    feature: np.ndarray
    group: np.ndarray
    """place in `GROUPS`"""
    rank: np.ndarray
    activation: np.ndarray
    row: np.ndarray
    windows: np.ndarray
    """`[n, 2 * window + 1]` float32"""


def choose_examples(statistics: FeatureStatistics, *, n_per_quantile: int) -> Examples:
    """The strongest firings, and `n_per_quantile` drawn from each quarter of every feature's sampled firings.

    Quarters are quarters of the sample by rank: exact for a feature that fired no more often than the sample is large,
    an estimate otherwise (with 64 samples the borders are right to about 6 percentage points).
    """
    top, sample = statistics.top, statistics.sample
    feature, slot = np.nonzero(top.keys >= 0)
    group = np.zeros(len(feature), np.int64)
    parts = [(feature, slot, group, top)]
    feature, slot = np.nonzero(sample.keys >= 0)
    values, keys = sample.values[feature, slot], sample.keys[feature, slot]
    order = np.lexsort((sample.rows[feature, slot], -values, feature))
    place, size = _place_in_run(feature[order])
    quarter = np.empty(len(order), np.int64)
    quarter[order] = 1 + 4 * place // size
    order = np.lexsort((-keys, quarter, feature))
    place, _ = _place_in_run(feature[order] * len(GROUPS) + quarter[order])
    kept = order[place < n_per_quantile]
    parts.append((feature[kept], slot[kept], quarter[kept], sample))
    return _sorted_examples(parts)


def _sorted_examples(parts) -> Examples:
    feature, group = (np.concatenate([part[i] for part in parts]) for i in (0, 2))
    value, row, windows = (
        np.concatenate([getattr(slots, name)[f, s] for f, s, _, slots in parts])
        for name in ("values", "rows", "windows")
    )
    order = np.lexsort((row, -value, group, feature))
    rank, _ = _place_in_run(feature[order] * len(GROUPS) + group[order])
    return Examples(feature[order], group[order], rank, value[order], row[order], windows[order])


def _place_in_run(sorted_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every entry of a sorted array: its place among equal ones, and how many equal ones there are."""
    _, first, counts = np.unique(sorted_ids, return_index=True, return_counts=True)
    return np.arange(len(sorted_ids)) - np.repeat(first, counts), np.repeat(counts, counts)


def examples_table(recording: Recording, examples: Examples, vocabulary: list[str], *, window: int) -> "pa.Table":
    """The rows of `examples.parquet`. Token text is kept exactly as it is, HTML or not."""
    import pyarrow as pa

    passages = read_passages(recording, examples.row, before=window, after=window)
    present = passages.token_ids != NO_TOKEN
    offsets = pa.array(np.concatenate([[0], np.cumsum(present.sum(1))]), pa.int32())
    flat = pa.array(passages.token_ids[present], pa.int32())
    ids, labels = document_names(recording)
    columns = {
        "feature": examples.feature,
        "group": pa.array(np.array(GROUPS, dtype=object)[examples.group], pa.string()),
        "group_order": examples.group,
        "rank": examples.rank,
        "activation": examples.activation,
        "row": examples.row,
        "document": passages.document,
        "position": passages.position,
        "document_id": pa.array(ids, pa.string()).take(pa.array(passages.document)),
        "document_label": pa.array(labels, pa.string()).take(pa.array(passages.document)),
        "tokens": pa.ListArray.from_arrays(offsets, pa.array(vocabulary, pa.string()).take(flat)),
        "token_ids": pa.ListArray.from_arrays(offsets, flat),
        "activations": pa.ListArray.from_arrays(offsets, pa.array(examples.windows[present], pa.float32())),
        "peak": present[:, :window].sum(1),
    }
    schema = examples_schema()
    return pa.table({field.name: _typed(columns[field.name], field.type) for field in schema}, schema=schema)


def _typed(column, kind):
    import pyarrow as pa

    return column if isinstance(column, (pa.Array, pa.ChunkedArray)) else pa.array(column, kind)
