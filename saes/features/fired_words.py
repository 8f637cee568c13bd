"""Words in the index of a text, and the features that fire on them. Torch-free.

    index = FiringIndex.open(workspace, features)
    sought = index.sought("countries in Europe")      # the words that the index has, without the frequent ones
    firings = index.read(sought.words)                 # the firings on them, from one reading of the index
    firings.fired(sought.words, inside)                # score of every feature that fires, with its null and p

**Score**, 0 to 1: the mean over the words of `sqrt(a)`, where `a` is the feature's mean activation on the tokens of the
word over its largest in the text: 0 where it never fires, 1 where it always fires as strongly as anywhere. The root
favours features that fire on all of the words: "January April August" finds the feature of months before one of April
(docs/log.md compares twelve scores). Words are weighted by their information, `log2(1 / frequency)`; those that make up
more than `FREQUENT` of the text are left out when there are rarer ones. A word is found in any case, with or without a
leading space, and as several tokens (its last one counts).
**Null**: the root of the feature's mean activation on all tokens over its largest; a feature that fires as often, on
random tokens, has at most that.

**p**: the probability that it fires on at least as many of the matching tokens (binomial tail), Holm-adjusted for all
features searched. Tokens of one document are not independent, so p is optimistic where a word occurs in few documents.

The numbers come from the index that `workbench features` writes (`saes/features/_token_index.py`). Of features without
one, the text of their examples is indexed on first use, and the index is kept in the user's cache: `seen` then counts
the tokens in the examples of that feature.
"""

import math
import os
import shutil
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from interp.artifacts import table_errors
from interp.artifacts.tables import query
from interp.cache import cache_folder
from interp.errors import CorruptError, ResourceError
from interp.workspace import Workspace
from saes.features._token_index import FOLDER, TABLES, Spelling, TokenIndex, query_words, spell
from saes.features.found import Columns, TextMatch, columns_of
from saes.features.schema import Features

if TYPE_CHECKING:
    import pyarrow as pa


_building = Lock()


def indexed_examples(examples: Path, content_hash: str, n_features: int) -> Path:
    """Return the folder with the index of an examples table; it is built on first use and kept in the user's cache.

    Where the cache cannot be written, it lies in a temporary folder, and is built again by the next process.
    """
    with _building:
        for parent in (
            cache_folder() / "token-index",
            Path(tempfile.gettempdir()) / f"interp-token-index-{os.getpid()}",
        ):
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


FREQUENT = 0.005
"""A word that makes up more than this fraction of all tokens is left out where the query has rarer ones."""
MAX_WORDS = 12
MAX_MATCHES = 6
"""Matching tokens given per hit."""
IN_MEMORY = 2_000_000
"""Rows of an index up to which it is kept in memory, 24 bytes each; reading some takes 0.02 s."""
AT_ONCE = 4
"""Indexes kept in memory. A search of more artefacts keeps none, as each would displace another."""


@dataclass(frozen=True)
class IndexedWord:
    """A word in the index: its units, `low` to `high - 1`, its tokens in the text, and its longest unit in tokens."""

    word: str
    low: int
    high: int
    n: int
    pieces: int


@dataclass(frozen=True, kw_only=True)
class Sought:
    """The words of a text in one index."""

    words: tuple[IndexedWord, ...] = ()
    """Those to search, the rarest first."""
    missing: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Fired:
    """Features that fire on some words, `[n]` each; `score` and its `null` as the head of the module says."""

    feature: np.ndarray
    score: np.ndarray
    null: np.ndarray
    fired: np.ndarray
    tries: np.ndarray
    rate: np.ndarray
    """Fraction of all tokens on which the feature fires."""
    p: np.ndarray


@dataclass(frozen=True, eq=False)
class _Units:
    """The units of an index by number, in memory, and how often the features of an index of examples fire."""

    text: "pa.Array"
    folded: "pa.Array"
    """Sorted."""
    pieces: np.ndarray
    before: np.ndarray
    """Occurrences of the units before each, and of all; `[n_units + 1]`."""
    rate: np.ndarray
    """Fraction of the tokens of its examples on which a feature fires, `[n_features]`; empty for a complete index."""

    @cached_property
    def n_text(self) -> int:
        """Tokens in the text, at least 1."""
        return int(np.diff(self.before)[self.pieces == 1].sum()) or 1

    def span(self, low: str, high: str) -> tuple[int, int]:
        """Return the first unit whose folded text is `low` or later, and the first one after `high`."""
        every = range(len(self.folded))
        return bisect_left(every, low, key=self._folded), bisect_right(every, high, key=self._folded)

    def _folded(self, unit: int) -> str:
        return self.folded[unit].as_py()


@lru_cache(maxsize=32)
def _units(units: Path, seen: Path | None, content_hash: str) -> _Units:
    table = query("select text, folded, pieces, n from u order by unit", u=units)
    text, folded = (table[name].combine_chunks() for name in ("text", "folded"))
    before = np.concatenate([[0], np.cumsum(table["n"].to_numpy())])
    rate = np.zeros(0)
    if seen is not None:
        sql = "select n_fired / greatest(n_tokens, 1) as rate from s order by feature"
        rate = query(sql, s=seen)["rate"].to_numpy()
    return _Units(text, folded, table["pieces"].to_numpy(), before, rate)


@dataclass(frozen=True)
class FiringIndex:
    """The index of one features artefact."""

    workspace: Workspace
    made: Features
    columns: Columns
    firings: Path
    units: _Units
    complete: bool
    """True where it covers all of the text, else that of the examples."""
    keep: bool
    """Keep the firings in memory where they are few."""

    @classmethod
    def open(cls, workspace: Workspace, made: Features, *, keep: bool = False) -> "FiringIndex":
        """Open the index of features, or of their examples, which is built the first time."""
        complete = (workspace.path("features", made.name) / FOLDER).is_dir()
        if complete:
            units, firings = (
                workspace.table_path("features", made.name, f"{FOLDER}/{table}") for table in ("units", "firings")
            )
            seen = None
        else:
            examples = workspace.table_path("features", made.name, "examples")
            key = str((made.about.files.get("examples.parquet") or {}).get("sha256") or made.about.content_hash)
            folder = indexed_examples(examples, key, made.n_features)
            units, firings, seen = (folder / f"{table}.parquet" for table in ("units", "firings", "features"))
        known = _units(units, seen, made.about.content_hash)
        return cls(workspace, made, columns_of(workspace, made), firings, known, complete, keep)

    def sought(self, text: str) -> Sought:
        """Look up the words of a text."""
        readings = query_words(text)[: 4 * MAX_WORDS]
        known = self.look_up([form for reading in readings for form in reading])
        chosen: dict[str, IndexedWord] = {}
        missing = []
        for whole, *rest in readings:
            words = [known[whole]] if whole in known else [known[form] for form in rest if form in known]
            chosen |= {word.word: word for word in words}
            missing += [] if words else [whole]
        rare = [word for word in chosen.values() if self.is_rare(word)] or list(chosen.values())
        used = sorted(rare, key=lambda word: word.n)[:MAX_WORDS]
        return Sought(
            words=tuple(used),
            missing=tuple(missing),
            left_out=tuple(word for word, entry in chosen.items() if entry not in used),
        )

    def is_rare(self, word: IndexedWord) -> bool:
        """Return whether a word is no more frequent than `FREQUENT`."""
        return word.n <= FREQUENT * self.units.n_text

    def look_up(self, words: Sequence[str]) -> dict[str, IndexedWord]:
        """Return the words, folded, that the index has."""
        entries = {}
        for word in dict.fromkeys(words):
            low, high = self.units.span(word, word)
            if n := int(self.units.before[high] - self.units.before[low]):
                entries[word] = IndexedWord(word, low, high, n, int(self.units.pieces[low:high].max()))
        return entries

    def read(self, words: Sequence[IndexedWord]) -> "WordFirings":
        """Return the firings on some words, from one reading of the index; more than those, where it is in memory."""
        rows = _every_row(self.firings, self.made.about.content_hash) if self.keep else None
        if rows is None:
            units = np.unique(np.concatenate([np.zeros(0, np.int64), *(np.arange(w.low, w.high) for w in words)]))
            rows = _rows(self.firings, "unit in (select unnest(?::int[]))", units.tolist())
        return WordFirings(index=self, **rows)


@lru_cache(maxsize=AT_ONCE)
def _every_row(firings: Path, content_hash: str) -> dict[str, np.ndarray] | None:
    """Return all rows of an index; None where they are too many for the memory."""
    many = query("select count(*) as n from f", f=firings)["n"][0].as_py() > IN_MEMORY
    return None if many else _rows(firings, "true")


def _rows(firings: Path, condition: str, *parameters: list[int]) -> dict[str, np.ndarray]:
    """Return the columns of some rows of an index, sorted by unit."""
    sql = f"select unit, feature, n, seen, share, max_activation from f where {condition}"
    table = query(sql, *parameters, f=firings)
    order = np.argsort(table["unit"].to_numpy(), kind="stable")
    return {name: table[name].to_numpy()[order] for name in table.column_names}


@dataclass(frozen=True, kw_only=True, eq=False)
class WordFirings:
    """Rows of an index, sorted by unit: the firings of each feature on each unit of some words; `[n]` each."""

    index: FiringIndex
    unit: np.ndarray
    feature: np.ndarray
    n: np.ndarray
    """Tokens on which the feature fires."""
    seen: np.ndarray
    """Tokens of the unit that were looked at."""
    share: np.ndarray
    """Fraction of the feature's whole activation that falls on the unit."""
    max_activation: np.ndarray

    def _rows(self, word: IndexedWord) -> np.ndarray:
        return np.arange(*self.unit.searchsorted(np.array((word.low, word.high), self.unit.dtype)))

    def fired(
        self, words: Sequence[IndexedWord], inside: np.ndarray, weights: Mapping[str, float] | None = None
    ) -> Fired:
        """Return the features of the mask `inside [n_features]` that fire on any of the words.

        `weights` by word; default: the information of each.
        """
        index, columns, n_features = self.index, self.index.columns, len(inside)
        word_weights = [(weights or {}).get(w.word) or math.log2((index.units.n_text + 1) / w.n) for w in words]
        sums = np.zeros((3, n_features))
        for word, weight in zip(words, word_weights, strict=True):
            feature, n, seen, share = self._summed(word, inside)
            largest, mean = columns.max_activation[feature], columns.mean_activation[feature]
            strong = np.minimum(share * columns.n_fired[feature] * mean / (word.n * largest), 1.0)
            sums[:, feature] += weight / sum(word_weights) * np.sqrt(strong), n, seen
        features = np.flatnonzero(sums[1])
        score, fired, seen = sums[:, features]
        density = columns.density[features]
        null = np.sqrt(density * columns.mean_activation[features] / columns.max_activation[features])
        rate = density if index.complete else index.units.rate[features]
        total = sum(word.n for word in words)
        tries = np.full(len(features), total) if index.complete else seen.astype(np.int64)
        p = chance_of_firings(fired, tries, rate, int(inside.sum()))
        return Fired(
            feature=features, score=score, null=null, fired=fired.astype(np.int64), tries=tries, rate=rate, p=p
        )

    def _summed(self, word: IndexedWord, inside: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the features that fire on a word, and of each the sums of n, seen and share; `[m]` each."""
        rows = self._rows(word)
        rows = rows[inside[self.feature[rows]]]
        feature, at = np.unique(self.feature[rows], return_inverse=True)
        return feature, *(np.bincount(at, column[rows], len(feature)) for column in (self.n, self.seen, self.share))

    def matches(self, words: Sequence[IndexedWord], features: Sequence[int]) -> dict[int, tuple[TextMatch, ...]]:
        """Return for some features the texts on which they fire, those with most activation first."""
        rows = np.concatenate([np.zeros(0, np.int64), *(self._rows(word) for word in words)])
        by_feature: dict[int, dict[str, list[int]]] = {}
        for row in np.unique(rows[np.isin(self.feature[rows], features)]).tolist():
            text = self.index.units.text[int(self.unit[row])].as_py()
            by_feature.setdefault(int(self.feature[row]), {}).setdefault(text, []).append(row)
        return {feature: self._best(rows) for feature, rows in by_feature.items()}

    def _best(self, rows: Mapping[str, list[int]]) -> tuple[TextMatch, ...]:
        """Return the matches of one feature by text, those with most activation first."""
        order = sorted(rows, key=lambda text: (-self.share[rows[text]].sum(dtype=np.float64), text))
        return tuple(
            TextMatch(text, int(self.n[at].sum()), int(self.seen[at].sum()), self.max_activation[at].max().item())
            for text in order[:MAX_MATCHES]
            for at in [rows[text]]
        )


def chance_of_firings(fired: np.ndarray, tries: np.ndarray, rate: np.ndarray, n_searched: int) -> np.ndarray:
    """Return the Holm-adjusted probability of `fired [n]` or more firings of `tries [n]` at chance `rate [n]`.

    The null fires on each token independently, as often as the feature does in all of the text (binomial tail; the
    hypergeometric one is smaller). Features of the `n_searched` that fire on none of the tokens have p = 1.
    """
    from scipy.special import betainc

    from interp.nulls import holm

    p = np.ones(max(n_searched, len(fired)))
    p[: len(fired)] = betainc(fired, np.maximum(tries, fired) - fired + 1, np.clip(rate, 0.0, 1.0))
    return holm(p)[: len(fired)]
