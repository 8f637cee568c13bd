"""Time of a search for features by text, in 9,216 and in 100,000 features, against a full scan of the same tables.

`python -m benchmarks.search [--json]`. Synthetic features artefacts of both sizes fire on a Zipf distributed
vocabulary: an index of their firings, labels, and 16 example windows each. A search reads the row groups that hold the
words and their related words, the directions of all features, and the examples of its hits. The baseline reads all
pairs and sums them by feature, as a search without an index has to. What features say is synthetic: directions of 576
numbers, and a vocabulary of 49,152. The limits are for the server of a page, without a model.
"""

import tempfile
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.report import Result, interleaved, main

ALLOWED = {9_216: 0.2, 100_000: 0.4}
"""Seconds allowed for a search, by the number of features."""
N_UNITS, PER_FEATURE, N_EXAMPLES, WINDOW = 120_000, 100, 16, 21
REPEATS = 7
D_MODEL, D_VOCAB = 576, 49_152


def word(rank: int) -> str:
    """Return the word of a rank by frequency, in letters."""
    return "w" + "".join(chr(97 + int(digit)) for digit in str(rank))


QUERIES = (word(40), word(2000), word(90_000), " ".join(word(rank) for rank in (300, 3000, 30_000)))
"""A frequent word, a usual one, a rare one, and a list."""


def run() -> list[Result]:
    """Measure the seconds of searches, relative to a full scan and to the seconds allowed."""
    from interp.workspace import Workspace
    from saes.features import search as module
    from saes.features.search import search_features

    meanings = {f"of-{n}": synthetic_meaning(n) for n in ALLOWED}
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(module, "meaning_of", lambda _, made: meanings[made.name]),
    ):
        workspace = Workspace(Path(folder), create=True)
        for n in ALLOWED:
            build(workspace, n)
        scan = "select feature, sum(n) as n, max(share) as share from f group by feature order by share desc limit 20"

        def search(n: int) -> None:
            for query in QUERIES:
                assert search_features(workspace, query, features=f"of-{n}", limit=15).hits

        def full() -> None:
            workspace.query(scan, f=workspace.table_path("features", f"of-{n}", "index/firings"))

        results = []
        for n, allowed in ALLOWED.items():
            ours, scans = interleaved(lambda n=n: search(n), full, repeats=REPEATS)
            seconds, scanned = median(ours) / len(QUERIES), median(scans)
            detail = f"{1e3 * seconds:.0f} ms a search, {1e3 * scanned:.0f} ms a scan of {n * PER_FEATURE:,} pairs"
            results += [
                Result(question=f"search in {n:,} features", ratio=seconds / allowed, target=1.0,
                       against=f"{allowed * 1e3:g} ms", lower_is_better=True, detail=detail),
                Result(question=f"search in {n:,} features, with examples", ratio=seconds / scanned, target=1.0,
                       against="a full scan of the index", lower_is_better=True, detail=detail),
            ]  # fmt: skip
    return results


def synthetic_meaning(n_features: int, seed: int = 0) -> Any:
    """Return what the features say: random directions, and the 49,152 most frequent words as tokens."""
    from interp.lenses.vocabulary import Vocabulary
    from saes.features.meaning import KEPT, N_DIRECTIONS, Meaning

    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(D_VOCAB, D_MODEL)).astype(np.float16)
    vocabulary = Vocabulary(directions, np.eye(D_MODEL, dtype=np.float32), tuple(f" {word(i)}" for i in range(D_VOCAB)))
    carried = rng.normal(size=(n_features, D_MODEL)).astype(np.float32)
    lens = SimpleNamespace(settings=SimpleNamespace(weight_hash=f"synthetic-words-{seed}"))
    side, null = np.zeros((n_features, KEPT), np.float32), np.zeros(N_DIRECTIONS)
    fields: Any = {"lens": lens, "vocabulary": vocabulary, "carried": carried, "scale": vocabulary.scale(carried),
                  "raised": side, "raised_strength": side, "lowered": side, "lowered_strength": side}  # fmt: skip
    return Meaning(hook_point="blocks.0.hook_resid_post", null_high=null, null_low=null, **fields)


def build(workspace: Any, n_features: int, *, seed: int = 0) -> None:
    """Write a features artefact, `of-100000` for 100,000 features."""
    from interp.artifacts import Draft, save_artefact
    from interp.artifacts.artefact import settings_json
    from saes.features.schema import ExampleRow, FeatureRow, Features, FeaturesSettings

    rng = np.random.default_rng(seed)
    name = f"of-{n_features}"
    settings = FeaturesSettings(
        dictionary=f"sae:{name}", sign=1, recording="wide", hook_point="blocks.0.hook_resid_post", model="smollm2-135m",
        window=WINDOW // 2, n_top=N_EXAMPLES, n_per_quantile=0, labels=None,
    )  # fmt: skip
    folder = workspace.path("features", name)
    draft = Draft.open(folder, kind="features", config=settings_json(settings), seed=seed)
    n_fired = rng.integers(200, 20_000, n_features)
    words = [word(i) for i in range(n_features)]
    columns: dict[str, Any] = {
        "feature": np.arange(n_features, dtype=np.int32), "density": n_fired / 1e7, "n_fired": n_fired,
        "label": [f'"{text}" (60 %)' for text in words], "label_score": np.full(n_features, 0.6),
        "other_labels": [[f"words like {text}"] for text in words], "other_scores": [[0.8]] * n_features,
        "mean_activation": np.full(n_features, 3.0, np.float32), "decoder_norm": np.ones(n_features, np.float32),
        "max_activation": np.full(n_features, 12.0, np.float32),
    }  # fmt: skip
    _index(draft.path / "index", n_fired, rng)
    features = Features(
        settings=settings, n_features=n_features, n_tokens=10**7, n_dead=0, n_dense=0, mean_l0=n_fired.sum() / 1e7,
        tokens_per_second=0.0, histogram_edges=[0.1, 12.0], relations=None, scales=None,
        features=_filled(FeatureRow, columns), examples=_filled(ExampleRow, _examples(n_features, rng)),
    )  # fmt: skip
    save_artefact(features, folder, draft=draft)


def _filled(row: type, columns: dict[str, Any]) -> Any:
    """Return a table of some columns; the others, which a search does not read, are null."""
    import pyarrow as pa

    from interp.artifacts import Table
    from interp.artifacts.tables import schema_of

    table = pa.table(columns)
    empty = {field.name: pa.nulls(len(table), field.type) for field in schema_of(row)}
    return Table.of_columns(row, pa.table(empty | {name: table[name] for name in columns}))


def _index(folder: Path, n_fired: np.ndarray, rng: np.random.Generator) -> None:
    import pyarrow as pa

    from interp.artifacts import write_table
    from saes.features.token_index import ROW_GROUP, index_schema

    folder.mkdir()
    n_features = len(n_fired)
    rank = np.array(sorted(range(N_UNITS), key=word))
    texts = [word(i) for i in rank.tolist()]
    counts = np.maximum(1, (1e7 / 12 / (rank + 2)).astype(np.int64))
    units = {"unit": np.arange(N_UNITS, dtype=np.int32), "text": [f" {t}" for t in texts], "folded": texts,
             "pieces": np.ones(N_UNITS, np.int16), "n": counts}  # fmt: skip
    write_table(folder / "units.parquet", pa.table(units, schema=index_schema("units")))
    number = np.empty(N_UNITS, np.int32)
    number[rank] = np.arange(N_UNITS)
    drawn = np.minimum(rng.zipf(1.15, (n_features, PER_FEATURE)), N_UNITS) - 1
    drawn[:, 0] = np.arange(n_features) % N_UNITS
    unit = number[drawn].ravel()
    feature = np.repeat(np.arange(n_features, dtype=np.int32), PER_FEATURE)
    order = np.lexsort((feature, unit))
    share = (rng.dirichlet(np.full(PER_FEATURE, 0.3), 1000)[rng.integers(0, 1000, n_features)]).astype(np.float32)
    n = np.minimum(counts[unit], np.maximum(1, share.ravel() * np.repeat(n_fired, PER_FEATURE))).astype(np.int32)
    columns = {"unit": unit[order], "feature": feature[order], "n": n[order],
               "seen": counts[unit][order].astype(np.int32), "share": share.ravel()[order],
               "max_activation": np.full(len(order), 9.0, np.float32)}  # fmt: skip
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table(columns, schema=index_schema("firings")), folder / "firings.parquet",
        compression="zstd", row_group_size=ROW_GROUP,
    )  # fmt: skip
    seen = {
        "feature": np.arange(n_features, dtype=np.int32),
        "n_tokens": np.full(n_features, 10**7),
        "n_fired": n_fired,
    }
    write_table(folder / "features.parquet", pa.table(seen, schema=index_schema("features")))


def _examples(n_features: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return columns of examples."""
    import pyarrow as pa

    n = n_features * N_EXAMPLES
    words = pa.array([f" {word(i)}" for i in range(5000)])
    flat = rng.integers(0, 5000, n * WINDOW).astype(np.int32)
    offsets = np.arange(0, n * WINDOW + 1, WINDOW, dtype=np.int32)
    acts = np.where(rng.random(n * WINDOW) < 0.1, rng.random(n * WINDOW), 0).astype(np.float32)
    return {
        "feature": np.repeat(np.arange(n_features, dtype=np.int32), N_EXAMPLES),
        "group_order": np.zeros(n, np.int8),
        "rank": np.tile(np.arange(N_EXAMPLES, dtype=np.int16), n_features),
        "activation": np.ones(n, np.float32),
        "row": np.arange(n),
        "tokens": pa.ListArray.from_arrays(pa.array(offsets), words.take(pa.array(flat))),
        "activations": pa.ListArray.from_arrays(pa.array(offsets), pa.array(acts)),
        "peak": np.full(n, WINDOW // 2, np.int16),
    }


if __name__ == "__main__":
    main(run)
