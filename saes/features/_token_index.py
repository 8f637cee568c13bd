"""An index of the recorded text: the tokens and words on which each feature fires. Torch-free.

A *unit* is a text that ends at a token: the token itself, or the word up to it where a word has several tokens. Each
token of a text counts for one or two units. A word is a run of letters or of digits; a space before it, and any other
character, ends the word before. So " January", "january" and "Jan" + "uary" are three units. All are found by their
folded text "january": lower case, without outer spaces.

    index/units.parquet      unit, text, folded, pieces, n             sorted by folded text
    index/firings.parquet    unit, feature, n, seen, share, max_activation   sorted by unit
    index/features.parquet   feature, n_tokens, n_fired

`examples_index` makes the same index from the examples alone, for features that were described without one.

Steps of a build: (1) every token gets its units; (2) firings are summed per (unit, feature) within a block; (3) sums
are merged in memory, and spilled to disk beyond `BUFFERED`; (4) DuckDB merges the runs, keeps the `KEPT` units on
which each feature has the most activation, and sorts by unit. So memory depends on the number of distinct units, and
neither on the number of tokens nor on that of firings. A word that a feature loses in step 4 holds less than 1 / `KEPT`
of its activation.
"""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from interp.artifacts import disk_errors, write_table

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "index"
TABLES = ("units", "firings", "features")
KEPT = 512
"""Units stored per feature: those that hold most of its activation."""
PER_TOKEN = 128
"""Firings indexed per token: the strongest. Sparse dictionaries have fewer; of neurons, the weakest are left out."""
MAX_PIECES = 6
"""Longest word, in tokens."""
MAX_UNITS = 1 << 21
"""Distinct units; once there are so many, words of several tokens that are new are not indexed."""
BUFFERED = 1 << 22
"""Sums of (unit, feature) held in memory before they are written to a run."""
ROW_GROUP = 20_480


class Spelling(NamedTuple):
    """The texts of the vocabulary, and what decides where words begin; arrays of `[n_texts]`."""

    texts: list[str]
    spaced: np.ndarray
    """A space, or other white space, comes first."""
    first: np.ndarray
    """Class of the first character: 1 a letter, 2 a digit, 0 anything else."""
    last: np.ndarray


def spell(texts: list[str]) -> Spelling:
    """Return the texts with the classes of their first and last characters."""
    spaced = np.array([text[:1].isspace() for text in texts], bool)
    bare = [text.strip() for text in texts]
    first = np.array([_class(text[:1]) for text in bare], np.int8)
    ends = [_class(text[-1:]) if text == text.rstrip() else 0 for text in texts]
    return Spelling(texts, spaced, first, np.array(ends, np.int8))


def _class(character: str) -> int:
    return 1 if character.isalpha() else 2 if character.isdigit() else 0


def fold(text: str) -> str:
    """Return the text by which units are found: lower case, without outer spaces.

    >>> fold(" January")
    'january'
    """
    return text.strip().casefold()


class Units:
    """The units of a text, numbered as they come; a growing vocabulary of tokens is allowed."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, ...]] = []
        """Tokens of each unit, as indices into the vocabulary."""
        self._of_word: dict[int, int] = {}
        self._of_token = np.full(0, -1, np.int64)

    def read(self, codes: np.ndarray, begins: np.ndarray, spelling: Spelling) -> tuple[np.ndarray, np.ndarray]:
        """Return the unit of each token and of the word up to it, -1: none; each `[n]`.

        A word of one token is a token alone. `codes [n]` are indices into the vocabulary; `begins [n]` is True where a
        new passage begins.
        """
        spaced, first, last = spelling.spaced[codes], spelling.first[codes], spelling.last[codes]
        starts = begins | spaced | (first == 0)
        starts[1:] |= first[1:] != last[:-1]
        starts[:1] = True
        at = np.arange(len(codes))
        position = at - np.maximum.accumulate(np.where(starts, at, 0))
        hashes = self._hashes(codes, position)
        return self._tokens(codes, len(spelling.texts)), self._words(codes, position, hashes)

    def _tokens(self, codes: np.ndarray, n_texts: int) -> np.ndarray:
        if n_texts > len(self._of_token):
            grown = np.full(n_texts, -1, np.int64)
            grown[: len(self._of_token)] = self._of_token
            self._of_token = grown
        for code in np.unique(codes[self._of_token[codes] < 0]).tolist():
            self._of_token[code] = len(self.pieces)
            self.pieces.append((code,))
        return self._of_token[codes]

    @staticmethod
    def _hashes(codes: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Return the hash of the word up to each token."""
        hashes = mix_bits(codes.astype(np.uint64) + np.uint64(1))
        for depth in range(1, MAX_PIECES):
            rows = np.flatnonzero(position == depth)
            hashes[rows] = mix_bits(hashes[rows - 1] * _ODD ^ mix_bits(codes[rows].astype(np.uint64) + np.uint64(1)))
        return hashes

    def _words(self, codes: np.ndarray, position: np.ndarray, hashes: np.ndarray) -> np.ndarray:
        words = np.full(len(codes), -1, np.int64)
        within = np.flatnonzero((position > 0) & (position < MAX_PIECES))
        distinct, where, inverse = np.unique(hashes[within], return_index=True, return_inverse=True)
        numbers = np.full(len(distinct), -1, np.int64)
        for i, (key, row) in enumerate(zip(distinct.tolist(), within[where].tolist(), strict=True)):
            number = self._of_word.get(key)
            if number is None and len(self.pieces) < MAX_UNITS:
                number = self._of_word[key] = len(self.pieces)
                self.pieces.append(tuple(codes[row - position[row] : row + 1].tolist()))
            numbers[i] = -1 if number is None else number
        words[within] = numbers[inverse]
        return words


_ODD = np.uint64(0x9E3779B97F4A7C15)


def mix_bits(x: np.ndarray) -> np.ndarray:
    """Return 64-bit hashes (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class FiringSums(NamedTuple):
    """Firings summed per (unit, feature), sorted by the pair."""

    pair: np.ndarray
    """`unit << 32 | feature`, int64."""
    n: np.ndarray
    """Tokens on which the feature fires."""
    seen: np.ndarray
    """Tokens that were looked at; 0 where that is every token of the unit."""
    total: np.ndarray
    """Sum of activations, float64."""
    largest: np.ndarray

    @classmethod
    def of(cls, unit: np.ndarray, feature: np.ndarray, value: np.ndarray, *, seen: bool) -> "FiringSums":
        """Sum `value [n]`, activations of `feature [n]` on tokens of `unit [n]`."""
        counted = np.ones(len(unit), np.int64) if seen else np.zeros(len(unit), np.int64)
        pair = unit << np.int64(32) | feature.astype(np.int64)
        return cls(pair, (value > 0).astype(np.int64), counted, value.astype(np.float64), value).reduced()

    def reduced(self) -> "FiringSums":
        """Return one entry per pair, in order."""
        if not len(self.pair):
            return self
        order = np.argsort(self.pair, kind="stable")
        pair = self.pair[order]
        first = np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]])
        n, seen, total = (np.add.reduceat(column[order], first) for column in (self.n, self.seen, self.total))
        return FiringSums(pair[first], n, seen, total, np.maximum.reduceat(self.largest[order], first))

    def fired(self) -> "FiringSums":
        """Return the pairs with at least one firing."""
        return FiringSums(*(column[self.n > 0] for column in self))


class TokenIndex:
    """An index being built: add blocks of text, then write the tables."""

    def __init__(self, n_features: int, folder: Path, *, kept: int = KEPT, buffered: int = BUFFERED):
        """Keep `kept` units of every feature. Sums beyond `buffered` go to runs in `folder`, which `write` removes."""
        self.n_features, self.folder, self.kept, self.buffered = n_features, folder, kept, buffered
        self.units = Units()
        self._counts = np.zeros(0, np.int64)
        self._tokens, self._fired = np.zeros(n_features, np.int64), np.zeros(n_features, np.int64)
        self._total = np.zeros(n_features, np.float64)
        self._held: list[FiringSums] = []
        self._n_held = self._limit = 0
        self._n_runs = 0
        shutil.rmtree(folder, ignore_errors=True)  # of an interrupted build

    def add(
        self, values: np.ndarray, indices: np.ndarray, codes: np.ndarray, begins: np.ndarray, spelling: Spelling
    ) -> None:
        """Add a block: the activations `values [n, k]` of features `indices [n, k]` on tokens `codes [n]`."""
        units = self.units.read(codes, begins, spelling)
        self._count(units)
        self._tokens += len(codes)
        active = values > 0
        np.add.at(self._fired, indices[active], 1)
        np.add.at(self._total, indices[active], values[active])
        if values.shape[1] > PER_TOKEN:
            best = np.argpartition(-values, PER_TOKEN - 1, axis=1)[:, :PER_TOKEN]
            values, indices = (np.take_along_axis(array, best, 1) for array in (values, indices))
        row, column = np.nonzero(values > 0)
        self._hold([unit_ids[row] for unit_ids in units], indices[row, column], values[row, column], seen=False)

    def add_windows(
        self, feature: np.ndarray, row: np.ndarray, value: np.ndarray, new: np.ndarray,
        codes: np.ndarray, begins: np.ndarray, keep: np.ndarray, spelling: Spelling,
    ) -> None:  # fmt: skip
        """Add the windows of whole features: `value [n]` of `feature [n]` on tokens `codes [n]`.

        `keep` are the entries to count, each (feature, row) once; `new` those whose row no earlier feature has shown.
        """
        units = self.units.read(codes, begins, spelling)
        self._count([unit_ids[new] for unit_ids in units])
        feature, value = feature[keep], value[keep]
        self._tokens += np.bincount(feature, minlength=self.n_features)
        self._fired += np.bincount(feature[value > 0], minlength=self.n_features)
        self._total += np.bincount(feature, value, minlength=self.n_features)
        self._hold([unit_ids[keep] for unit_ids in units], feature, value, seen=True)

    def _count(self, units: Sequence[np.ndarray]) -> None:
        grown = np.zeros(len(self.units.pieces), np.int64)
        grown[: len(self._counts)] = self._counts
        self._counts = grown
        for unit_ids in units:
            self._counts += np.bincount(unit_ids[unit_ids >= 0], minlength=len(grown))

    def _hold(self, units: Sequence[np.ndarray], feature: np.ndarray, value: np.ndarray, *, seen: bool) -> None:
        inside = [unit_ids >= 0 for unit_ids in units]
        unit, feature, value = (
            np.concatenate([array[at] for array, at in zip(arrays, inside, strict=True)])
            for arrays in (units, [feature] * len(inside), [value] * len(inside))
        )
        sums = FiringSums.of(unit, feature, value, seen=seen).fired()
        self._held.append(sums)
        self._n_held += len(sums.pair)
        if self._n_held > max(self.buffered, self._limit):
            self._merge()
            self._limit = 2 * self._n_held  # merging again before that would reread almost the same sums
            if self._n_held > self.buffered // 2:
                self._spill()

    def _merge(self) -> None:
        if len(self._held) > 1:
            parts = zip(*self._held, strict=True)
            self._held = [FiringSums(*(np.concatenate(part) for part in parts)).reduced()]
        self._n_held = sum(len(sums.pair) for sums in self._held)

    def _spill(self) -> None:
        import pyarrow as pa

        self._merge()
        if not self._held:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        sums = self._held[0]
        columns = {"unit": (sums.pair >> 32).astype(np.int32), "feature": (sums.pair & 0xFFFFFFFF).astype(np.int32)}
        columns |= {"n": sums.n, "seen": sums.seen, "total": sums.total, "largest": sums.largest.astype(np.float32)}
        write_table(self.folder / f"{self._n_runs:05d}.parquet", pa.table(columns))
        self._n_runs += 1
        self._held, self._n_held, self._limit = [], 0, 0

    def write(self, folder: Path, spelling: Spelling) -> None:
        """Write the three tables into `folder`, and remove the runs."""
        import pyarrow as pa

        folder.mkdir(parents=True, exist_ok=True)
        units, order = self._unit_table(spelling)
        write_table(folder / "units.parquet", units)
        number = np.empty(len(order), np.int32)
        number[order] = np.arange(len(order), dtype=np.int32)
        old = np.arange(len(order), dtype=np.int32)
        numbers = pa.table({"old": old, "unit": number, "n_unit": self._counts})
        features = np.arange(self.n_features, dtype=np.int32)
        stats = pa.table({"feature": features, "n_tokens": self._tokens, "n_fired": self._fired})
        write_table(folder / "features.parquet", stats)
        self._spill()
        totals = pa.table({"feature": features, "whole": self._total})
        if self._n_runs:
            _write_firings(self.folder, folder / "firings.parquet", numbers, totals, self.kept)
        else:
            write_table(folder / "firings.parquet", index_schema("firings").empty_table())
        shutil.rmtree(self.folder, ignore_errors=True)

    def _unit_table(self, spelling: Spelling) -> tuple["pa.Table", np.ndarray]:
        """Return the table of units by folded text, and the order that sorts them."""
        import pyarrow as pa

        texts = ["".join(spelling.texts[code] for code in pieces) for pieces in self.units.pieces]
        folded = [fold(text) for text in texts]
        order = np.array(sorted(range(len(texts)), key=lambda i: (folded[i], texts[i], self.units.pieces[i])), np.int64)
        columns = {
            "unit": pa.array(np.arange(len(order)), pa.int32()),
            "text": pa.array([texts[i] for i in order], pa.string()),
            "folded": pa.array([folded[i] for i in order], pa.string()),
            "pieces": pa.array([len(self.units.pieces[i]) for i in order], pa.int16()),
            "n": pa.array(self._counts[order], pa.int64()),
        }
        return pa.table(columns, schema=index_schema("units")), order


def index_schema(table: str) -> "pa.Schema":
    """Return the schema of one table of the index."""
    import pyarrow as pa

    columns = {
        "units": (("unit", pa.int32()), ("text", pa.string()), ("folded", pa.string()), ("pieces", pa.int16()),
                  ("n", pa.int64())),
        "firings": (("unit", pa.int32()), ("feature", pa.int32()), ("n", pa.int32()), ("seen", pa.int32()),
                    ("share", pa.float32()), ("max_activation", pa.float32())),
        "features": (("feature", pa.int32()), ("n_tokens", pa.int64()), ("n_fired", pa.int64())),
    }  # fmt: skip
    return pa.schema(columns[table])


def _write_firings(runs: Path, path: Path, numbers: "pa.Table", totals: "pa.Table", kept: int) -> None:
    """Merge the runs, keep the main units of every feature, and write the pairs in order of unit."""
    import duckdb

    spill = runs / "spill"
    connection = duckdb.connect(config={"threads": 1, "memory_limit": "1GB", "temp_directory": str(spill)})
    try:
        connection.register("numbers", numbers)
        connection.register("totals", totals)
        quoted, target = (str(file).replace("'", "''") for file in (runs / "*.parquet", path.with_name("firings.tmp")))
        with disk_errors(path):
            connection.execute(
                f"""copy (
                with pairs as (
                    select unit as old, feature, sum(n) as n, sum(seen) as seen, sum(total) as total,
                           max(largest) as largest
                    from read_parquet('{quoted}') group by unit, feature),
                kept as (
                    select * from pairs join numbers using (old)
                    qualify row_number() over (partition by feature order by total desc, old) <= {kept})
                select unit, feature, n::int as n,
                       (case when seen > 0 then seen else n_unit end)::int as seen,
                       (total / greatest(whole, 1e-30))::float as share, largest::float as max_activation
                from kept join totals using (feature) order by unit, feature
                ) to '{target}' (format parquet, compression zstd, row_group_size {ROW_GROUP})"""
            )
            os.replace(path.with_name("firings.tmp"), path)
    finally:
        connection.close()


def word_positions(tokens: Sequence[str], wanted: dict[str, int]) -> list[int]:
    """Return the positions of `tokens` that end one of the `wanted` units, folded text to its number of tokens."""
    n, positions = len(tokens), set[int]()
    for size in set(wanted.values()):
        positions.update(i for i in range(size - 1, n) if fold("".join(tokens[i + 1 - size : i + 1])) in wanted)
    return sorted(positions)


def query_words(text: str) -> list[tuple[str, ...]]:
    """Return for every word of a query its readings: as written, without outer punctuation, and split like a text.

    >>> query_words("May 30th,")
    [('may',), ('30th,', '30th', '30', 'th')]
    """
    readings = []
    for chunk in text.split():
        bare = chunk.strip("\"'“”‘’.,;:!?()[]{}")
        split = re.findall(r"[^\W\d_]+|\d+", chunk)
        readings.append(tuple(dict.fromkeys(fold(form) for form in (chunk, bare, *split) if fold(form))))
    return [forms for forms in dict.fromkeys(readings) if forms]
