"""Vectors of phrases, by which a query finds labels that share no word with it: "baking" finds "recipes and dishes".

A phrase is the mean of the vectors of its tokens. The table (32,000 tokens, 256 dimensions) and its tokenizer lie in
the package `wordllama`, which is optional (`pip install '.[search]'`; MIT, the table made from embeddings of other
models, Llama 2 70B among them). Its files are read and checked; its code is never imported. Torch-free.

**Null**: words that mean nothing. The cosine of a label counts as far as it lies above the largest cosine that
generated nonsense reaches over all labels of the dictionary.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from interp.errors import CorruptError
from interp.nulls import ALPHA
from interp.seeds import derive_seed

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PACKAGE = "wordllama"
TABLE, TOKENIZER = "weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"
SHA256 = {
    TABLE: "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
    TOKENIZER: "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
}
N_NONSENSE = 200
"""Nonsense words of the null."""
SAME_WORD = 0.65
"""Cosine from which two words count as one: *cities* and *city*, *colours* and *colors*."""
_FUNCTION = frozenset(
    ["a", "an", "and", "as", "at", "before", "after", "by", "for", "from", "in", "not", "of", "on", "or", "the", "to",
     "used", "also", "often", "with", "such"]
)  # fmt: skip
_CONSONANTS, _VOWELS = "bcdfghjklmnpqrstvwxz", "aeiou"


@dataclass(frozen=True)
class PhraseVectors:
    """The table of tokens and its tokenizer."""

    table: np.ndarray
    """`[tokens, dimensions]` float16"""
    tokenizer: "Tokenizer"

    def of(self, phrases: Sequence[str]) -> np.ndarray:
        """Return a unit vector for each phrase, `[n, dimensions]` float32; zeros for one without a token."""
        vectors = np.zeros((len(phrases), self.table.shape[1]), np.float32)
        for row, encoding in enumerate(self.tokenizer.encode_batch(list(phrases), add_special_tokens=False)):
            if encoding.ids:
                vectors[row] = self.table[encoding.ids].astype(np.float32).mean(0)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


@lru_cache(maxsize=1)
def phrase_vectors() -> PhraseVectors | None:
    """Return the vectors; None where their package is not installed. Raises `CorruptError` for files of another."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    paths = {name: _file(name) for name in SHA256}
    if None in paths.values():
        return None
    for name, path in paths.items():
        if path is not None and hashlib.sha256(path.read_bytes()).hexdigest() != SHA256[name]:
            raise CorruptError(f"{path} is not the file that is pinned; install it again with: pip install '.[search]'")
    (table,) = load_file(str(paths[TABLE])).values()
    return PhraseVectors(table, Tokenizer.from_file(str(paths[TOKENIZER])))


def _file(name: str) -> Path | None:
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if str(file) == f"{PACKAGE}/{name}"), None)


Relatives = Callable[[str], Sequence[tuple[str, float]]]
"""Returns words near a query, each with its similarity, 0 to 1."""


@dataclass(frozen=True)
class Alike:
    """Likeness of a label and a query."""

    likeness: float
    """0 at the 95th percentile of the null, 1 for a label that is the query itself."""
    covered: float
    """Share of the words of the query that a word of the label is as near as `SAME_WORD`, 0 to 1."""


@dataclass(frozen=True, eq=False)
class LabelVectors:
    """Vectors of the labels of one dictionary, with their null."""

    vectors: PhraseVectors
    names: Sequence[tuple[int, str]]
    """the feature and the text of each label"""
    labels: np.ndarray
    """`[labels, dimensions]` unit vectors"""
    words: np.ndarray
    """the same of each different word in them, `[words, dimensions]`"""
    words_of: Sequence[Sequence[int]]
    """rows of `words` in each label"""
    nulls: dict[str, np.ndarray] = field(default_factory=dict)
    """by the name of what finds relatives"""

    @classmethod
    def of(cls, vectors: PhraseVectors, labels: Sequence[tuple[int, str]]) -> "LabelVectors":
        """Return the vectors of pairs (feature, label)."""
        numbers: dict[str, int] = {}
        words_of = [[numbers.setdefault(word, len(numbers)) for word in _content(label.lower())] for _, label in labels]
        of_labels = vectors.of([label for _, label in labels])
        return cls(vectors, labels, of_labels, vectors.of(list(numbers)), words_of)

    def null(self, relatives: Relatives | None = None, name: str = "") -> np.ndarray:
        """Return the largest cosine over all labels of each nonsense word, `[N_NONSENSE]`, ascending.

        Each has its `relatives`, as a query has; `name` tells them apart.
        """
        if name not in self.nulls:
            queries = np.stack([self._of(word, relatives) for word in nonsense(N_NONSENSE)])
            self.nulls[name] = np.sort((queries @ self.labels.T).max(1))
        return self.nulls[name]

    def _of(self, text: str, relatives: Relatives | None) -> np.ndarray:
        """Return the unit vector of a query and, as much as itself, of the words near it."""
        vector = self.vectors.of([text])[0]
        near = list(relatives(text)) if relatives is not None and vector.any() else []
        if not near:
            return vector
        mean = np.array([cosine for _, cosine in near], np.float32) @ self.vectors.of([word for word, _ in near])
        both = vector + mean / max(float(np.linalg.norm(mean)), 1e-12)
        return both / max(float(np.linalg.norm(both)), 1e-12)

    def like(self, text: str, relatives: Relatives | None = None, name: str = "") -> dict[tuple[int, str], Alike]:
        """Return `(feature, label)` and how they are like a text, for the labels beyond the null."""
        words = [word for word in _content(text.lower()) if word.isalpha() and len(word) > 1]
        if not words:
            return {}
        cosines = self.labels @ self._of(text, relatives)
        limit = float(np.quantile(self.null(relatives, name), 1 - ALPHA))
        same = np.isin([label.casefold() for _, label in self.names], [text.strip().casefold()])
        cosines = np.where(same, 1.0, cosines)
        at = np.flatnonzero(cosines > limit)
        likeness = np.clip((cosines[at] - limit) / max(1 - limit, 1e-6), 0.0, 1.0)
        near = self.vectors.of(words) @ self.words.T >= SAME_WORD
        covered = [float(near[:, self.words_of[i]].any(1).mean()) if self.words_of[i] else 0.0 for i in at.tolist()]
        pairs = zip(likeness.tolist(), covered, strict=True)
        return {self.names[i]: Alike(*numbers) for i, numbers in zip(at.tolist(), pairs, strict=True)}


def _content(text: str) -> list[str]:
    """Return the words of a text that carry a meaning of their own."""
    return [word for word in re.findall(r"[^\W_]+", text) if word not in _FUNCTION]


@lru_cache(maxsize=1)
def nonsense(n: int) -> list[str]:
    """Return `n` words of two to four syllables that mean nothing, the same each time."""
    rng = np.random.default_rng(derive_seed(0, "nonsense"))
    syllables = [c + v + e for c in _CONSONANTS for v in _VOWELS for e in ("", "", "n", "r", "k")]
    return ["".join(rng.choice(syllables, rng.integers(2, 5))) for _ in range(n)]
