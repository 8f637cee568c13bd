"""Vectors of phrases, by which a query finds labels that share no word with it: "baking" finds "recipes and dishes".

A phrase is the mean of the vectors of its tokens. The table (32,000 tokens, 256 dimensions) and its tokenizer lie in
the package `wordllama`, which is optional (`pip install '.[search]'`; MIT, the table made from embeddings of other
models, Llama 2 70B among them). Its files are read and checked; its code is never imported. Torch-free.

**Null**: words that mean nothing. The cosine of a label counts as far as it lies above the largest cosine that
generated nonsense reaches over all labels of the dictionary.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
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


@dataclass(frozen=True)
class LabelVectors:
    """Vectors of the labels of one dictionary, with their null."""

    vectors: PhraseVectors
    names: Sequence[tuple[int, str]]
    """the feature and the text of each label"""
    labels: np.ndarray
    """`[labels, dimensions]` unit vectors"""

    @classmethod
    def of(cls, vectors: PhraseVectors, labels: Sequence[tuple[int, str]]) -> "LabelVectors":
        """Return the vectors of pairs (feature, label)."""
        return cls(vectors, labels, vectors.of([label for _, label in labels]))

    @cached_property
    def null(self) -> np.ndarray:
        """Largest cosine over all labels of each nonsense word, `[N_NONSENSE]`, ascending."""
        cosines = self.vectors.of(nonsense(N_NONSENSE)) @ self.labels.T
        return np.sort(cosines.max(1))

    def like(self, text: str) -> dict[tuple[int, str], tuple[float, float]]:
        """Return `(feature, label): (likeness, p)` for the labels beyond the null.

        Likeness is 0 at the 95th percentile of the null and 1 for a label that is the text itself; p is the share of
        nonsense words with a label at least as near.
        """
        cosines = self.labels @ self.vectors.of([text])[0]
        limit = float(np.quantile(self.null, 1 - ALPHA))
        at = np.flatnonzero(cosines > limit)
        p = (1 + len(self.null) - np.searchsorted(self.null, cosines[at])) / (1 + len(self.null))
        pairs = zip(((cosines[at] - limit) / (1 - limit)).tolist(), p.tolist(), strict=True)
        return dict(zip([self.names[i] for i in at.tolist()], pairs, strict=True))


@lru_cache(maxsize=1)
def nonsense(n: int) -> list[str]:
    """Return `n` words of two to four syllables that mean nothing, the same each time."""
    rng = np.random.default_rng(derive_seed(0, "nonsense"))
    syllables = [c + v + e for c in _CONSONANTS for v in _VOWELS for e in ("", "", "n", "r", "k")]
    return ["".join(rng.choice(syllables, rng.integers(2, 5))) for _ in range(n)]
