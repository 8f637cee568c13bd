"""Activations by word: what dictionaries of models with other tokenizers have in common.

    mine, untrained = read_words(model, [sae, random], documents)

Both models read the same words, each with its own tokenizer; a feature's activation on a word is the largest on its
tokens. With each goes the *form* that is read there: the base form of the letters around the token ("march" for
"Marching"), or the token itself where it has none (a comma). Features that fire on one form or one token alone know a
word, others more than a word.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from interp.errors import ConfigError
from interp.text.corpora import open_corpus
from saes.features.lexicon import Lexicon

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from interp.dictionary import Dictionary
    from interp.models.hooked import HookedModel
    from interp.progress import Progress

CONTEXT, BATCH = 128, 16
_RUN = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")


@dataclass(frozen=True, eq=False)
class ActivationsByWord:
    """Largest activation of each feature on each word."""

    values: "csr_matrix"
    """`[features, words]`"""
    document: np.ndarray
    """`[words]` document of each word"""
    read: "csr_matrix | None" = None
    """`[features, words]` int32: where `values` are, the number of the form that is read there, from 1"""
    forms: tuple[tuple[str, str], ...] = ()
    """Each form, with the token in which it is read"""

    def features(self, rows: np.ndarray) -> "ActivationsByWord":
        """Return some features."""
        return ActivationsByWord(
            self.values[rows], self.document, None if self.read is None else self.read[rows], self.forms
        )

    def words(self, columns: np.ndarray) -> "ActivationsByWord":
        """Return some words, or all in another order; the documents stay as they are where the number is the same."""
        document = self.document if len(columns) == len(self.document) else self.document[columns]
        return ActivationsByWord(self.values[:, columns], document)


@dataclass(frozen=True, eq=False)
class WordText:
    """Words of a text that two models read."""

    corpus: str
    documents: list[list[str]]

    @property
    def n_words(self) -> int:
        """Number of words."""
        return sum(map(len, self.documents))


def words_in(corpus: str, n_words: int, *, seed: int, least: int = 12) -> WordText:
    """Return the first words of a corpus by its name. Raises `ConfigError` for fewer than `least` documents."""
    documents = words_of((document.text for document in open_corpus(corpus, seed=seed)), n_words)
    if len(documents) < least:
        raise ConfigError(f"{corpus} has {len(documents)} documents of words; choose a text with more")
    return WordText(corpus, documents)


def words_of(texts: Iterable[str], n_words: int) -> list[list[str]]:
    """Return the words of each text, `n_words` in all, split at white space."""
    documents: list[list[str]] = []
    left = n_words
    for text in texts:
        words = text.split()[:left]
        if words:
            documents.append(words)
            left -= len(words)
        if left <= 0:
            break
    return documents


def read_words(
    model: "HookedModel", dictionaries: "Sequence[Dictionary]", documents: Sequence[Sequence[str]], *,
    progress: "Progress | None" = None,
) -> list[ActivationsByWord]:  # fmt: skip
    """Return the largest activation of the features of each dictionary on the tokens of each word.

    `documents [n][words]` are read once, in contexts of `CONTEXT` tokens, a space before each word but the first of a
    document. A word that fits in no context is cut.
    """
    import torch

    from interp.models.adapter import bos_token_id
    from interp.models.passes import Capture

    bos = bos_token_id(model)
    start = [] if bos is None else [bos]
    contexts = list(_contexts(model, documents, len(start)))
    forms = _Forms(model, documents)
    parts: list[list[tuple[np.ndarray, ...]]] = [[] for _ in dictionaries]
    points = list(dict.fromkeys(dictionary.hook_point for dictionary in dictionaries))
    with torch.no_grad(), Capture(model, points) as capture:
        for at in range(0, len(contexts), BATCH):
            batch = contexts[at : at + BATCH]
            width = max(len(ids) for ids, _ in batch)
            tokens = torch.tensor([start + ids + [ids[-1]] * (width - len(ids)) for ids, _ in batch])
            word = torch.tensor([[-1] * len(start) + words + [-1] * (width - len(words)) for _, words in batch])
            read, words = np.concatenate([forms.of(*context) for context in batch]), word[word >= 0].numpy()
            captured = capture(tokens.to(model.cfg.device))
            for dictionary, rows in zip(dictionaries, parts, strict=True):
                x = captured[dictionary.hook_point][word.to(model.cfg.device) >= 0]
                sparse = dictionary.encode_sparse(x.float())
                row, slot = (sparse.values > 0).nonzero(as_tuple=True)
                values, features = (kept[row, slot].cpu().numpy() for kept in sparse)
                row = row.cpu().numpy()
                rows.append((features.astype(np.int64), words[row], values, read[row]))
            if progress is not None:
                progress(min(at + BATCH, len(contexts)), len(contexts), {})
    document = np.repeat(np.arange(len(documents)), [len(words) for words in documents])
    return [
        _largest(rows, dictionary.decoder_directions.shape[0], document, tuple(forms.names))
        for dictionary, rows in zip(dictionaries, parts, strict=True)
    ]


def _largest(
    rows: list[tuple[np.ndarray, ...]], d_sae: int, document: np.ndarray, forms: tuple[tuple[str, str], ...]
) -> ActivationsByWord:
    """Return the largest of the activations (features, words, values, forms read) on each word."""
    from scipy.sparse import csr_matrix

    features, words, values, read = (np.concatenate(part) for part in zip(*rows, strict=True))
    n = len(document)
    order = np.lexsort((-values, features * n + words))
    features, words, values, read = features[order], words[order], values[order], read[order]
    first = np.ones(len(features), bool)
    first[1:] = (features[1:] != features[:-1]) | (words[1:] != words[:-1])
    ends = np.concatenate([[0], np.bincount(features[first], minlength=d_sae).cumsum()])
    columns = words[first].astype(np.int32)
    activations, where = (
        csr_matrix((kept[first], columns, ends), shape=(d_sae, n)) for kept in (values, read.astype(np.int32) + 1)
    )
    return ActivationsByWord(activations, document, where, forms)


def _contexts(
    model: "HookedModel", documents: Sequence[Sequence[str]], n_start: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield (tokens, the word of each token) of contexts, numbered through all documents."""
    from interp.models.identity import tokenizer_of

    tokenizer, room, number = tokenizer_of(model), CONTEXT - n_start, 0
    for words in documents:
        pieces = tokenizer.encode_batch([words[0], *(f" {word}" for word in words[1:])])
        ids: list[int] = []
        of: list[int] = []
        for piece in pieces:
            if ids and len(ids) + len(piece) > room:
                yield ids, of
                ids, of = [], []
            ids, of = ids + piece[:room], of + [number] * len(piece[:room])
            number += 1
        if ids:
            yield ids, of


class _Forms:
    """The forms that are read at tokens, each with a number."""

    def __init__(self, model: "HookedModel", documents: Sequence[Sequence[str]]):
        self._model, self._words = model, [word for words in documents for word in words]
        self._numbers: dict[tuple[str, str], int] = {}

    @property
    def names(self) -> list[tuple[str, str]]:
        """Every form with its token, by number."""
        return list(self._numbers)

    def of(self, ids: list[int], words: list[int]) -> np.ndarray:
        """Return the number of the form `[tokens]` read at each token of the given words."""
        from interp.models.adapter import token_strings

        numbers, at, last = [], 0, -1
        for text, word in zip(token_strings(self._model, ids), words, strict=True):
            at = at if word == last else 0
            bare = text.lstrip() if at == 0 else text
            sign = bare.strip().lower() or " "
            form = _form(self._words[word], at, at + len(bare)) if _RUN.search(bare) else sign
            numbers.append(self._numbers.setdefault((form, sign), len(self._numbers)))
            at, last = at + len(bare), word
        return np.array(numbers)


@cache
def _lexicon() -> Lexicon:
    return Lexicon()


@lru_cache(maxsize=1 << 16)
def _form(word: str, start: int, end: int) -> str:
    """Return the base form of the letters or digits of a word that a token covers, or touches."""
    runs = [run for run in _RUN.finditer(word) if run.start() < end and run.end() > start]
    return _lexicon().base_form(runs[-1].group()) if runs else word.lower()
