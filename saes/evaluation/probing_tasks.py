"""Yes-or-no questions about tokens, for probes: from a recording, from its vocabulary, or from a table of labels.

The label of a task is a function of a *key*: the token, the next token, the document, or the position in the context.
Its control task (Hewitt and Liang 2019, arXiv 1909.03368) is a random function of the same key, with the same share of
yes. A probe can solve the control only by memorising keys, so only accuracy above it is evidence of a representation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int, Int8, Int64, Shaped
from torch import Tensor

from interp.artifacts import table_errors
from interp.errors import ConfigError, MissingError
from interp.recording.store import Recording
from interp.seeds import derive_seed

Key = Literal["token", "next token", "document", "place", "row"]
"""Property of a token that determines its label; `place` is the position in the context."""
LEFT_OUT = -1
"""Label of a row to which a question does not apply."""

N_LABELS = 3
"""Number of document labels (packages, files) that become tasks: the most frequent ones."""
MAX_VALUES = 8
"""Largest number of values of a label in a file; each is a task against the others."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of some rows of a recording, `[n]` int64 each."""

    row: Int64[np.ndarray, " n"]
    """global row in the recording"""
    token: Int64[np.ndarray, " n"]
    """token id"""
    next_token: Int64[np.ndarray, " n"]
    """id of the next token; -1 where the context ends or no text follows"""
    document: Int64[np.ndarray, " n"]
    """running number of the document"""
    position: Int64[np.ndarray, " n"]
    """position in the context"""

    def key(self, kind: Key) -> Int64[np.ndarray, " n"]:
        """Return the values `[n]` of a key."""
        return getattr(self, {"next token": "next_token", "place": "position"}.get(kind, kind))

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Task:
    """One yes-or-no question about tokens."""

    name: str
    yes: str
    """description of a positive token"""
    key: Key
    """property that determines the label"""
    label: Callable[[Tokens], Int8[np.ndarray, " n"]]
    """function that returns labels `[n]` int8: 1 yes, 0 no, -1 does not apply"""


def tokens_at(recording: Recording, rows: Int[Tensor, " n"]) -> Tokens:
    """Read token, document and position of the global `rows [n]`, one token shard at a time."""
    rows = rows.cpu()
    starts, length = recording.shard_starts, recording.context_length
    shard_of = np.searchsorted(starts, rows.numpy(), side="right") - 1
    columns = np.empty((3, len(rows)), np.int64)
    for shard in np.unique(shard_of):
        mine = shard_of == shard
        part = recording.token_shard(int(shard))
        local = rows.numpy()[mine] - int(starts[shard])
        token, document = part.tokens.numpy(), part.document.numpy()
        after = np.minimum(local + 1, len(token) - 1)
        follows = ((local + 1) % length != 0) & (document[after] >= 0)
        columns[:, mine] = token[local], np.where(follows, token[after], -1), document[local]
    position = (rows.numpy() - starts[shard_of]) % length
    return Tokens(rows.numpy(), columns[0], columns[1], columns[2], position)


def text_tasks(vocabulary: Sequence[str]) -> list[Task]:
    """Return tasks about the text of a token or of the next token; `vocabulary` is the text of every token id."""
    flags = {name: np.array([flag(text) for text in vocabulary], np.int8) for name, flag in _FLAGS.items()}
    return [
        Task("capital", "the token's first letter is a capital", "token", _lookup("token", flags["capital"])),
        Task("digit", "the token holds a digit", "token", _lookup("token", flags["digit"])),
        Task("word start", "the token begins a word", "token", _lookup("token", flags["word start"])),
        Task("punctuation", "the token is punctuation", "token", _lookup("token", flags["punctuation"])),
        Task("next capital", "the next token's first letter is a capital", "next token", _next(flags["capital"])),
        Task("next word start", "the next token begins a word", "next token", _next(flags["word start"])),
        Task("next punctuation", "the next token is punctuation", "next token", _next(flags["punctuation"])),
    ]


def recording_tasks(recording: Recording) -> list[Task]:
    """Return tasks about the position of a token in its context, and about the label of its document."""
    half = recording.context_length // 2
    late = Task(
        "late", f"the token is at position {half} or later", "place", lambda t: (t.position >= half).astype(np.int8)
    )
    documents = recording.documents()
    labels = np.array([document.label for document in documents])
    number = np.array([document.document for document in documents])
    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2:
        return [late]
    chosen = names[np.argsort(-counts, kind="stable")][:N_LABELS]
    return [
        late,
        *(
            Task(f"in {name}", f"the document is labelled {str(name)!r}", "document", _members(number[labels == name]))
            for name in chosen
        ),
    ]


def row_task(name: str, yes: str, labels: Shaped[np.ndarray, " n_rows"]) -> Task:
    """Return a task with a given label for every row of the recording: `labels [n_rows]`, 1, 0 or -1."""
    labels = np.asarray(labels, np.int8)
    return Task(name, yes, "row", lambda tokens: labels[tokens.row])


def planted_tasks(recording: Recording, n: int = 8) -> list[Task]:
    """Return tasks that ask whether a planted feature is on, for `n` features from the most to the least frequent.

    Raises `MismatchError` for a recording of a model, which has no planted features.
    """
    from saes.evaluation.synthetic import read_synthetic

    data = read_synthetic(recording)
    chosen = np.unique(np.linspace(0, data.config.n_features - 1, n).astype(int))
    on = np.zeros((recording.n_rows, len(chosen)), np.int8)
    for shard, start in enumerate(recording.shard_starts[:-1]):
        rows = next(data.batches(recording.shard_rows[shard], start=shard))  # the rows that were written
        on[start : start + len(rows.x)] = (rows.strengths[:, torch.from_numpy(chosen)] > 0).numpy()
    return [row_task(f"feature {f}", f"planted feature {f} is on", on[:, i]) for i, f in enumerate(chosen)]


def file_tasks(path: Path, recording: Recording, vocabulary: Sequence[str] | None) -> list[Task]:
    """Read tasks from a table of labels: a .csv, .jsonl or .parquet file.

    Its columns are `label` and one of `document` (an id of the recording) or `token` (its exact text). Two values of
    `label` give one task; three to eight give one task each, against the others. `vocabulary` is the text of every
    token id, for labels of tokens. Raises `MissingError` (no file), `CorruptError` (not a table), `ConfigError`
    (missing columns, no row that was recorded, too many values).
    """
    table = _read_table(Path(path))
    keys = [key for key in ("document", "token") if key in table]
    if "label" not in table or len(keys) != 1:
        raise ConfigError(f"{path} needs the columns label and either document or token; it has {', '.join(table)}")
    kind: Key = "document" if keys[0] == "document" else "token"
    known = (
        {document.id: document.document for document in recording.documents()}
        if kind == "document"
        else {text: number for number, text in reversed(list(enumerate(vocabulary or [])))}
    )
    values = {
        known[str(k)]: str(label) for k, label in zip(table[kind], table["label"], strict=True) if str(k) in known
    }
    if not values:
        raise ConfigError(f"{path} names no {kind} of {recording.folder}; `document` is its id, `token` its exact text")
    names = sorted(set(values.values()))
    if not 2 <= len(names) <= MAX_VALUES:
        raise ConfigError(
            f"{path} has {len(names)} different labels for the recorded text; tasks need 2 to {MAX_VALUES}"
        )
    positive = names[1:] if len(names) == 2 else names
    return [
        Task(f"{Path(path).stem}: {n}", f"{kind} labelled {n!r}", kind, _from_table(kind, values, n)) for n in positive
    ]


def control_labels(
    key: Int64[np.ndarray, " n"], label: Int[np.ndarray, " n"], *, seed: int, task: str
) -> Int8[np.ndarray, " n"]:
    """Draw a random label for each value of `key [n]`, with the share of yes of `label [n]`.

    Keys are labelled yes in random order until that share is reached. Rows labelled `LEFT_OUT` retain that label.
    """
    values, index, counts = np.unique(key, return_inverse=True, return_counts=True)
    used = label != LEFT_OUT
    counts = np.bincount(index[used], minlength=len(values))
    wanted = int((label == 1).sum())
    yes = np.zeros(len(values), np.int8)
    order = np.random.default_rng(derive_seed(seed, "control labels", task)).permutation(len(values))
    for value in order:
        if counts[value] and counts[value] <= wanted:
            yes[value] = 1
            wanted -= counts[value]
    return np.where(used, yes[index], LEFT_OUT).astype(np.int8)


def _lookup(kind: Key, flags: np.ndarray) -> Callable[[Tokens], np.ndarray]:
    return lambda tokens: flags[tokens.key(kind)]


def _next(flags: np.ndarray) -> Callable[[Tokens], np.ndarray]:
    return lambda tokens: np.where(tokens.next_token >= 0, flags[tokens.next_token], LEFT_OUT).astype(np.int8)


def _members(documents: np.ndarray) -> Callable[[Tokens], np.ndarray]:
    return lambda tokens: np.isin(tokens.document, documents).astype(np.int8)


def _from_table(kind: Key, values: dict[int, str], yes: str) -> Callable[[Tokens], np.ndarray]:
    def label(tokens: Tokens) -> np.ndarray:
        answers = {number: int(value == yes) for number, value in values.items()}
        return np.array([answers.get(int(key), LEFT_OUT) for key in tokens.key(kind)], np.int8)

    return label


def _read_table(path: Path) -> dict[str, list[Any]]:
    from pyarrow import csv, json, parquet

    readers = {".csv": csv.read_csv, ".jsonl": json.read_json, ".parquet": parquet.read_table}
    if path.suffix not in readers:
        raise ConfigError(f"labels are read from .csv, .jsonl and .parquet files, got {path}")
    if not path.exists():
        raise MissingError(f"no file at {path}; check the path of the labels")
    with table_errors(path, "write or copy the file again"):
        return readers[path.suffix](str(path)).to_pydict()


def _capital(text: str) -> int:
    first = next((c for c in text if c.isalpha()), "")
    return int(first.isupper()) if first else LEFT_OUT


def _word_start(text: str) -> int:
    return int(text.startswith(" ")) if any(c.isalpha() for c in text) else LEFT_OUT


def _punctuation(text: str) -> int:
    return int(bool(text.strip()) and not any(c.isalnum() for c in text))


_FLAGS: dict[str, Callable[[str], int]] = {
    "capital": _capital,
    "digit": lambda text: int(any(c.isdigit() for c in text)),
    "word start": _word_start,
    "punctuation": _punctuation,
}
