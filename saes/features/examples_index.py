"""The index of the text in `examples.parquet`, kept in the user's cache: for features described without one.

It covers the text of the examples: `seen` then counts the tokens in the examples of that feature. Torch-free.
"""

import os
import shutil
import tempfile
from pathlib import Path
from threading import Lock

import numpy as np

from interp.artifacts import table_errors
from interp.errors import CorruptError, ResourceError
from saes.features.token_index import TABLES, Spelling, TokenIndex, spell

_building = Lock()


def cache_folder() -> Path:
    """Return the cache folder for indexes of examples: below `$INTERP_CACHE`, else `~/.cache/interp-workbench`."""
    return Path(os.environ.get("INTERP_CACHE") or "~/.cache/interp-workbench").expanduser() / "token-index"


def indexed_examples(examples: Path, content_hash: str, n_features: int) -> Path:
    """Return the folder with the index of an examples table; it is built on first use and kept in the user's cache.

    Where the cache cannot be written, it lies in a temporary folder, and is built again by the next process.
    """
    with _building:
        for parent in (cache_folder(), Path(tempfile.gettempdir()) / f"interp-token-index-{os.getpid()}"):
            folder = parent / f"{content_hash[:32]}-2"  # the format of the index
            if all((folder / f"{table}.parquet").is_file() for table in TABLES):
                return folder
            try:
                parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=parent) as draft:
                    _index(examples, Path(draft) / "new", n_features)
                    shutil.rmtree(folder, ignore_errors=True)
                    os.replace(Path(draft) / "new", folder)
                return folder
            except OSError:
                continue
    raise OSError(f"neither {cache_folder()} nor {tempfile.gettempdir()} can be written")


def _index(examples: Path, folder: Path, n_features: int) -> None:
    """Index a table that may be damaged: numbers out of range reach numpy and DuckDB."""
    import duckdb

    try:
        index_examples(examples, folder, n_features)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise CorruptError(f"{examples} has a value of a wrong type ({error}); `workbench verify` checks it") from error
    except duckdb.Error as error:
        raise CorruptError(f"cannot index {examples} ({error}); `workbench verify` checks it") from error
    except MemoryError as error:
        raise ResourceError(
            f"an index of {examples} needs more memory than there is ({error}); `workbench verify` says whether the "
            "file is damaged"
        ) from error


def index_examples(examples: Path, folder: Path, n_features: int, *, batch: int = 16_384) -> None:
    """Write the index of the text in `examples.parquet`, a few features at a time."""
    index = TokenIndex(n_features, folder.with_name(folder.name + ".runs"))
    known: dict[str, int] = {}
    seen_rows = np.zeros(0, bool)
    spelling = spell([])
    for table in _whole_features(examples, batch):
        counts = table["tokens"].combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
        texts = table["tokens"].combine_chunks().flatten().dictionary_encode()
        local = texts.dictionary.to_pylist()
        fresh = [text for text in local if text not in known]
        known |= {text: len(known) + i for i, text in enumerate(fresh)}
        spelling = _longer(spelling, spell(fresh))
        codes = np.array([known[text] for text in local], np.int64)[texts.indices.to_numpy(zero_copy_only=False)]
        starts = np.cumsum(counts) - counts
        within = np.arange(len(codes)) - np.repeat(starts, counts)
        row = np.repeat(table["row"].to_numpy() - table["peak"].to_numpy(), counts) + within
        feature = np.repeat(table["feature"].to_numpy().astype(np.int64), counts)
        value = table["activations"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        _, keep = np.unique(feature << np.int64(40) | np.maximum(row, 0), return_index=True)
        if len(row) and int(row.max()) >= len(seen_rows):
            seen_rows = np.concatenate([seen_rows, np.zeros(int(row.max()) + 1 - len(seen_rows), bool)])
        _, first = np.unique(row, return_index=True)
        new = first[~seen_rows[row[first]]]
        seen_rows[row] = True
        index.add_windows(feature, row, value, new, codes, within == 0, keep, spelling)
    index.write(folder, spelling)


def _longer(old: Spelling, new: Spelling) -> Spelling:
    arrays = (np.concatenate([a, b]) for a, b in zip(old[1:], new[1:], strict=True))
    return Spelling(old.texts + new.texts, *arrays)


def _whole_features(examples: Path, batch: int):
    """Yield tables of examples in which every feature is complete; the table on disk is sorted by feature."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["feature", "row", "peak", "tokens", "activations"]
    waiting: list[pa.Table] = []
    with table_errors(examples):
        parts = pq.ParquetFile(examples).iter_batches(batch_size=batch, columns=names)
    while True:
        with table_errors(examples):
            part = next(parts, None)
        if part is None:
            break
        table = pa.concat_tables([*waiting, pa.table(part)])
        feature = table["feature"].to_numpy()
        cut = int(np.searchsorted(feature, feature[-1])) if len(feature) else 0
        if cut:
            yield table.slice(0, cut)
        waiting = [table.slice(cut)]
    if waiting and waiting[0].num_rows:
        yield waiting[0]
