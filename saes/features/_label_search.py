"""Features by their labels and names, and words related to those of a query. Torch-free.

Labels are searched from the beginning of a word, a plural also as its singular: "months" finds "calendar month",
"sport" not "transport". Their strength is the balanced accuracy of the label above chance, `2 * score - 1`, times the
share of its letters that the query has: "month" finds a long label less strongly. Labels without a score count as a
little above chance.

**Related words** of a model's vocabulary are near some words in its unembedding.

    related_words(vocabulary, key, ["cooking"], 5)     # cooking, cook, baking, culinary, chefs

Cosine similarity of read directions (`interp.lenses.vocabulary`) after whitening: a few directions that all frequent
tokens share dominate the plain cosine, so each principal axis is divided by its standard deviation, plus a little noise
(`RIDGE`). Whole words alone are compared, in one spelling each. A word of several tokens is the mean of its pieces.

The whitened table is computed once per model (a second) and kept in the user's cache, memory-mapped.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from interp.artifacts import atomic_file
from interp.artifacts.tables import query as read
from interp.cache import cache_folder
from interp.errors import WorkbenchError, disk_errors
from interp.lenses.vocabulary import Vocabulary
from interp.notes import Notes
from interp.workspace import Workspace
from saes.features._token_index import fold
from saes.features.schema import Features

if TYPE_CHECKING:
    import pyarrow as pa


UNJUDGED = 0.05
"""Strength of a label without a score."""
NO_LABEL = "no label"
"""Beginning of a label that names no meaning: the tokens that it quotes do not count as one."""


@dataclass(frozen=True)
class Named:
    """A label that contains a query."""

    strength: float
    """0 to 1"""
    score: float | None = None
    """Balanced accuracy of the label on held-out text, 0.5 by chance."""
    null: float | None = None


def by_label(labels: "pa.Table", text: str, inside: np.ndarray) -> dict[int, Named]:
    """Return the features in the mask `inside [n_features]` that have `text` in their label (`labels_of`)."""
    forms = _forms(text)
    rows = [row for row in _with_any(labels, forms).to_pylist() if inside[row["feature"]]]
    return {row["feature"]: _named(row["label"], row["score"], row["null"], forms) for row in rows}


def labels_of(workspace: Workspace, made: Features) -> "pa.Table":
    """Return the labels of all features as `feature, label, score, null, words`, read once.

    `words` are those of the label in lower case, each after a space.
    """
    return _labels(workspace.table_path("features", made.name, "features"), made.about.content_hash)


@lru_cache(maxsize=32)
def _labels(path: Path, content_hash: str) -> "pa.Table":
    sql = f"""select feature, label, label_score as score, label_null as "null",
                     ' ' || regexp_replace(lower(label), '[^\\pL\\pN_]+', ' ', 'g') as words
              from f where not starts_with(label, '{NO_LABEL}')"""
    return read(sql, f=path)


def _with_any(labels: "pa.Table", forms: Sequence[str]) -> "pa.Table":
    """Return the labels in which any of the forms begins at a word; a form without words is found anywhere."""
    import pyarrow.compute as compute

    texts, before = labels["words"], " "
    if not re.search(r"\w", forms[0]):
        texts, before = compute.call_function("utf8_lower", [labels["label"]]), ""
    options = [compute.MatchSubstringOptions(before + form) for form in forms]
    masks = [compute.call_function("match_substring", [texts], option) for option in options]
    return labels.filter(np.any([compute.fill_null(mask, False) for mask in masks], axis=0))


def _named(label: str, score: float | None, null: float | None, forms: Sequence[str]) -> Named:
    bare = " ".join(re.findall(r"\w+", re.sub(r"\(\d+ %.*?\)", "", label.lower()))) or label
    covered = max((len(form) for form in forms if form in bare), default=0) / max(len(bare), 1)
    return Named(_above_chance(score) * min(1.0, 2 * covered), score, null)


def _above_chance(score: float | None) -> float:
    """Return a balanced accuracy as strength: 0 at chance, 1 for always right, little for a label never judged."""
    return UNJUDGED if score is None else max(2 * score - 1, 0.0)


def _forms(query: str) -> list[str]:
    """Return a query in lower case, words only if it has any, and as a singular where it may be a plural."""
    lower = query.strip().lower()
    words = " ".join(re.findall(r"\w+", lower)) or lower
    return [words, *singulars(words)]


def singulars(word: str) -> list[str]:
    """Return what a word may be the plural of.

    >>> singulars("cities")
    ['city', 'citi', 'citie']
    """
    endings = (("ies", "y"), ("es", ""), ("s", ""))
    forms = [word.removesuffix(end) + instead for end, instead in endings if word.endswith(end)]
    return [form for form in forms if len(form) > 2]


def names_of(workspace: Workspace) -> tuple[dict[str, str], str]:
    """Return the user's own names of features by key, or the reason why they cannot be read."""
    try:
        return Notes.open(workspace).titles(), ""
    except WorkbenchError as error:
        return {}, str(error)


def by_own_name(made: Features, query: str, names: Mapping[str, str]) -> set[int]:
    """Return the features with `query` in the name that the user gave them; `names` by key, `features/NAME#12`."""
    start, wanted = f"features/{made.name}#", query.strip().lower()
    parts = [
        key.removeprefix(start) for key, title in names.items() if key.startswith(start) and wanted in title.lower()
    ]
    return {int(part) for part in parts if part.isdigit() and int(part) < 2**31}


RIDGE = 0.1
"""Variance added to every axis, as a fraction of the mean variance."""
MAX_COMPARED = 60_000
"""Words of the vocabulary that are compared: the first ones, which are the most frequent."""
MAX_PIECES = 3
"""Words of more tokens have no relatives: the mean of so many pieces says nothing."""
_ROWS = 8192
_WORD = re.compile(r" [^\W\d_]{2,}")


def pieces_of(vocabulary: Vocabulary, word: str) -> list[int]:
    """Return the tokens that spell a word after a space, the longest first; none where a character has no token.

    It splits without the model's merges, so that no tokenizer has to be loaded.
    """
    text, tokens = f" {word.strip()}", []
    while text:
        size = next((k for k in range(len(text), 0, -1) if text[:k] in vocabulary.numbers), 0)
        if not size:
            return []
        tokens.append(vocabulary.numbers[text[:size]])
        text = text[size:]
    return tokens


def tokens_of(vocabulary: Vocabulary, word: str) -> list[int]:
    """Return the tokens that are a word, or what it may be the plural of, in any spelling; none for several tokens."""
    tokens = [token for form in (word, *singulars(word.lower())) for token in vocabulary.spelled(form)]
    return list(dict.fromkeys(tokens))


def related_words(vocabulary: Vocabulary, key: str, words: Sequence[str], n: int) -> dict[str, float]:
    """Return the `n` words nearest to the mean of some words, these among them, folded, with their cosine similarity.

    Words that are unknown have none. `key` names the weights of the model, for the cache.
    """
    table = _table(vocabulary, key)
    means = []
    for word in words:
        tokens = tokens_of(vocabulary, word) or pieces_of(vocabulary, word)[: MAX_PIECES + 1]
        if tokens and len(tokens) <= max(MAX_PIECES, len(tokens_of(vocabulary, word))):
            mean = _unit(vocabulary.directions[tokens].astype(np.float32) @ table.whitening).mean(0)
            means.append(_unit(mean[None])[0])
    return dict(_nearest(table, _unit(np.mean(means, 0)[None])[0].tobytes(), n)) if means else {}


def largest(values: np.ndarray, n: int) -> np.ndarray:
    """Return the positions of the `n` largest of some values `[m]`, the largest first, ties in their order."""
    least = np.partition(values, -n)[-n] if 0 < n < len(values) else -np.inf
    near = np.flatnonzero(values >= least)
    return near[np.argsort(-values[near], kind="stable")][:n]


@dataclass(frozen=True, eq=False)
class _Table:
    whitening: np.ndarray
    """`[d, d]` float32"""
    rows: np.ndarray
    """`[n, d]` float32, memory-mapped: whitened unit directions"""
    tokens: np.ndarray
    words: tuple[str, ...]


@lru_cache(maxsize=64)
def _nearest(table: _Table, wanted: bytes, n: int) -> tuple[tuple[str, float], ...]:
    """Return the `n` words nearest to a unit vector, float32: the same for every dictionary of a model."""
    cosines = table.rows @ np.frombuffer(wanted, np.float32)
    return tuple((table.words[i], float(cosines[i])) for i in largest(cosines, n))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)


@lru_cache(maxsize=4)
def _kept(folder: Path, texts: tuple[str, ...]) -> _Table:
    rows = np.load(folder / "rows.npy", mmap_mode="r", allow_pickle=False)
    tokens = np.load(folder / "tokens.npy", allow_pickle=False)
    whitening = np.load(folder / "whitening.npy", allow_pickle=False)
    return _Table(whitening, rows, tokens, tuple(fold(texts[i]) for i in tokens.tolist()))


def _table(vocabulary: Vocabulary, key: str) -> _Table:
    folder = cache_folder() / "related-words" / f"{key[:32]}-2"  # the format of the table
    try:
        return _kept(folder, vocabulary.texts)
    except (OSError, ValueError, EOFError):  # not there, or cut short: it is computed again
        pass
    whitening = whitening_of(vocabulary)
    tokens = _whole_words(vocabulary.texts)
    parts = [
        _unit(vocabulary.directions[tokens[at : at + _ROWS]].astype(np.float32) @ whitening)
        for at in range(0, len(tokens), _ROWS)
    ]
    rows = np.concatenate(parts) if parts else np.zeros((0, len(whitening)), np.float32)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in (("whitening", whitening), ("tokens", tokens), ("rows", rows)):
            with atomic_file(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
                np.save(file, value, allow_pickle=False)
    return _kept(folder, vocabulary.texts)


def whitening_of(vocabulary: Vocabulary) -> np.ndarray:
    """Return the matrix `[d, d]`, float32, that whitens read directions, with a ridge."""
    variance, axes = np.linalg.eigh(vocabulary.spread.astype(np.float64))
    scale = 1 / np.sqrt(np.maximum(variance, 0) + RIDGE * max(float(variance.mean()), 1e-12))
    return ((axes * scale) @ axes.T).astype(np.float32)


def _whole_words(texts: Sequence[str]) -> np.ndarray:
    """Return the tokens that are a word after a space, one of each folded text: in lower case where there is one."""
    tokens: dict[str, int] = {}
    for token, text in enumerate(texts):
        if _WORD.fullmatch(text) and (fold(text) not in tokens or text == text.lower()):
            tokens[fold(text)] = token
    return np.array(list(tokens.values())[:MAX_COMPARED], np.int64)
