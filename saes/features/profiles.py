"""Words that features read and say, as vectors: the source of a map on which features that mean alike lie together.

    source = words_source(workspace, "demo")
    profiles, says = word_profiles(workspace, features)      # [n_features, 2 * DIMENSIONS] float32

1. What a feature reads: the words on which it fires (`_token_index`), each weighted by the root of its share of the
   feature's activation, times `log((n + 1) / (features that fire on it + 1))`.
2. What it says: the tokens that it raises most through the Jacobian lens, in the same way, by their strength
   (`meaning`).
3. Both are reduced to `DIMENSIONS` by a truncated SVD, scaled to unit length, and set side by side, so that the cosine
   of two profiles is the mean of both cosines.

Measured on halves: a map of these preserves 15.3 % of the neighbours by the words of the other half of the text, and
1.2 % of those by the other half of the vocabulary; a map of decoder rows 0.9 % and 0.5 %, shuffled features 0.2 %.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.atlas.sources import AtlasSource
from interp.seeds import make_generator
from interp.workspace import Workspace
from saes.features.fired_words import FiringIndex
from saes.features.meaning import Meaning, meaning_of
from saes.features.schema import Features
from saes.features.sources import features_source

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

DIMENSIONS = 256
"""Dimensions that remain of either profile; fewer where there are fewer features or words."""


def word_profiles(workspace: Workspace, made: Features) -> tuple[Float[Tensor, "n d"], bool]:
    """Return a vector for every feature, and whether it also holds what the feature says, which needs a Jacobian lens.

    A feature that never fired and says nothing gets zeros.
    """
    meaning = meaning_of(workspace, made)
    read = _reduced(_read(workspace, made))
    return (read, False) if meaning is None else (torch.cat([read, _reduced(_said(meaning))], dim=1), True)


def words_source(workspace: Workspace, name: str) -> AtlasSource:
    """Return the features of an artefact by the words that they read and say as the source of an atlas."""
    made = workspace.open(Features, name)
    vectors, says = word_profiles(workspace, made)
    notes = () if says else ("no lens: by the words that features read alone, without those that they say",)
    source = f"features:{name}"
    return features_source(vectors, source, workspace.path("features", name), shown=source, notes=notes)


def _read(workspace: Workspace, made: Features) -> "csr_matrix":
    """Return the share of each feature's activation on each word, `[n_features, n_words]`."""
    index = FiringIndex.open(workspace, made)
    rows = workspace.query("select feature, unit, share from f", f=index.firings)
    words = index.units.folded.take(rows["unit"].combine_chunks()).to_pylist()
    return _matrix(made.n_features, rows["feature"].to_numpy(), words, rows["share"].to_numpy())


def _said(meaning: Meaning) -> "csr_matrix":
    """Return the strength with which each feature raises the tokens that it raises most, `[n_features, n_words]`."""
    n, k = meaning.raised.shape
    words = [meaning.vocabulary.texts[i].strip().lower() for i in meaning.raised.ravel().tolist()]
    return _matrix(n, np.repeat(np.arange(n), k), words, np.maximum(meaning.raised_strength, 0.0).ravel())


def _matrix(n: int, features: np.ndarray, words: list[str], weights: np.ndarray) -> "csr_matrix":
    """Return rows of unit length: the root of each weight's share in its row, times how rare the word is."""
    from scipy.sparse import csr_matrix

    number = {word: i for i, word in enumerate(dict.fromkeys(words))}
    columns = np.fromiter((number[word] for word in words), np.int64, len(words))
    counted = csr_matrix((np.asarray(weights, np.float64), (features, columns)), shape=(n, max(len(number), 1)))
    counted.sum_duplicates()
    seen = np.bincount(counted.indices, minlength=counted.shape[1])
    counted.data = np.sqrt(counted.data) * np.log((n + 1) / (seen + 1))[counted.indices]
    row = np.repeat(np.arange(n), np.diff(counted.indptr))
    lengths = np.sqrt(np.bincount(row, counted.data**2, n))
    counted.data /= np.maximum(lengths, 1e-12)[row]
    return counted


def _reduced(rows: "csr_matrix") -> Float[Tensor, "n d"]:
    """Return the rows on their first `DIMENSIONS` singular vectors, of unit length; zeros stay zeros."""
    from scipy.sparse.linalg import svds

    k = min(DIMENSIONS, min(rows.shape) - 1)
    if k < 1:
        return torch.from_numpy(rows.toarray()).float()
    start = torch.randn(min(rows.shape), generator=make_generator(0, "profiles"), dtype=torch.float64).numpy()
    left, scale, _ = svds(rows, k=k, v0=start)
    return torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(left * scale)).float(), dim=1)
