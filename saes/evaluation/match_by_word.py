"""Counterparts: features of two dictionaries that fire on the same words, chosen on one half, judged on the other.

    pairs = pair_features(mine, theirs, seed=0)

Even documents pair each feature with the one that agrees best: of the strong firings of one, the share on which the
other fires, the smaller of two ways. Odd documents judge the pair: the correlation of activations, and the *agreement*,
both ways: does the other fire where one fires strongly, and is it silent where that is? The smaller of the two balanced
accuracies counts.

**Nulls**: another feature's counterpart, and documents in another order, which leave no pair but by chance. A feature
that fires in fewer than `LEAST_DOCUMENTS` documents of a half is left out: two rare features that meet in one document
would agree.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from interp.artifacts import Table
from interp.names import parse_hook_point
from interp.seeds import derive_seed
from interp.statistics import Interval, balanced_accuracy
from saes.evaluation.by_word import ActivationsByWord, WordText, read_words
from saes.evaluation.counterparts import (
    ALIKE,
    NEURONS,
    SAME,
    SHUFFLED,
    UNTRAINED,
    CounterpartRow,
    Counterparts,
    CounterpartSettings,
    CounterpartShare,
)
from saes.features.written_labels import HOLDS

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from interp.dictionary import Dictionary
    from interp.models.hooked import HookedModel
    from interp.progress import Progress
    from saes.kinds.base import SAE

LEAST_WORDS, MOST_SHARE, LEAST_DOCUMENTS = 10, 0.2, 3
"""A feature is paired if it fires on so many words, on at most this share, in so many documents of each half."""
STRONG = 0.5
"""Fraction of the largest activation from which a firing is strong."""
_ROWS = 512


@dataclass(frozen=True, eq=False)
class DictionaryIn:
    """A dictionary in its model."""

    model: "HookedModel"
    dictionary: "SAE"
    l0: float
    """Mean number of active features per token."""


@dataclass(frozen=True)
class PairAgreement:
    """Agreement of two features on words, the worse of two ways."""

    accuracy: Interval[float]
    """Balanced accuracy, 0.5 at chance, with a 95 % interval."""
    n: int
    """Number of words judged."""


@dataclass(frozen=True)
class WordPairs:
    """For each feature of one dictionary its counterpart in another, chosen on one half and judged on the other."""

    counterpart: np.ndarray
    """`[features]` feature of the other dictionary; -1 for none"""
    correlation: np.ndarray
    """`[features]` of activations, on the half that did not choose it"""
    usable: np.ndarray
    """`[features]` True where a feature fires often enough, and not too often, to be paired"""
    agreements: dict[int, PairAgreement]
    """of each feature that could be judged"""
    null: dict[int, PairAgreement]
    """the same with another feature's counterpart"""

    @property
    def n_hold(self) -> int:
        """Number of pairs that agree well enough to share a label."""
        return sum(agreement.accuracy.estimate >= HOLDS for agreement in self.agreements.values())


def pair_features(mine: ActivationsByWord, theirs: ActivationsByWord, *, seed: int) -> WordPairs:
    """Pair each feature with the one that agrees best on even documents, and judge on odd ones."""
    even = mine.document % 2 == 0
    (mine_chosen, mine_judged), (theirs_chosen, theirs_judged) = (
        [side.words(np.flatnonzero(half)) for half in (even, ~even)] for side in (mine, theirs)
    )
    usable = np.zeros(mine.values.shape[0], bool)
    usable[_usable(mine_chosen)] = True
    counterpart = _best(mine_chosen, theirs_chosen)
    shuffled, paired = np.full(len(counterpart), -1), np.flatnonzero(counterpart >= 0)
    shuffled[paired] = counterpart[paired[_cycle(len(paired), seed)]]
    correlation = np.zeros(len(counterpart))
    correlation[paired] = _correlations(mine_judged.values[paired], theirs_judged.values[counterpart[paired]])
    paired_agreements, null = (
        _agreements(mine_judged, theirs_judged, which, seed) for which in (counterpart, shuffled)
    )
    return WordPairs(counterpart, correlation, usable, paired_agreements, null)


@dataclass(frozen=True, eq=False)
class MatchedDictionaries:
    """Two dictionaries on the same words, their pairs, and pairs where there should be none or fewer."""

    first: ActivationsByWord
    second: ActivationsByWord
    pairs: WordPairs
    """Of the features of the first."""
    back: WordPairs
    """Of the features of the second."""
    nulls: dict[str, WordPairs]
    """Pairs of the first with documents of the second shuffled; of an untrained dictionary and of neurons, in place of
    the first: both with as many active features per token."""


def match_dictionaries(
    first: DictionaryIn, second: DictionaryIn, documents: Sequence[Sequence[str]], *,
    wanted: np.ndarray | None = None, seed: int, progress: "Progress | None" = None,
) -> MatchedDictionaries:  # fmt: skip
    """Read documents `[n][words]` with two dictionaries, and pair their features; with `wanted`, these of the second.

    A model that both belong to reads them once.
    """
    nulls = _null_dictionaries(first, seed)
    ours = [first.dictionary, *nulls.values()]
    if first.model is second.model:
        *read, theirs = read_words(first.model, [*ours, second.dictionary], documents, progress=progress)
    else:
        read = read_words(first.model, ours, documents, progress=progress)
        (theirs,) = read_words(second.model, [second.dictionary], documents, progress=progress)
    mine, compared = read[0], theirs if wanted is None else theirs.features(wanted)
    pairs = {name: pair_features(side, compared, seed=seed) for name, side in zip(nulls, read[1:], strict=True)}
    shuffled = pair_features(mine, shuffle_documents(compared, seed=seed), seed=seed)
    return MatchedDictionaries(
        mine, compared, pair_features(mine, compared, seed=seed), pair_features(compared, mine, seed=seed),
        {SHUFFLED: shuffled, **pairs},
    )  # fmt: skip


def _null_dictionaries(of: DictionaryIn, seed: int) -> "dict[str, Dictionary]":
    """Return what should have fewer counterparts: an untrained dictionary, and where there are some, neurons."""
    import torch

    from saes.evaluation.baselines import random_dictionary_like
    from saes.kinds.base import SAEMetadata, Weights
    from saes.kinds.topk import TopKSAE

    k = max(1, min(round(of.l0), of.dictionary.d_sae))
    nulls: dict[str, Dictionary] = {UNTRAINED: random_dictionary_like(of.dictionary, k=k, seed=seed)}
    layer, width = parse_hook_point(of.dictionary.hook_point).layer, of.model.cfg.d_mlp
    if layer is not None and width and not of.model.cfg.attn_only:
        eye, zero = torch.eye(width, device=of.model.cfg.device), torch.zeros(width, device=of.model.cfg.device)
        at = SAEMetadata(hook_point=f"blocks.{layer}.mlp.hook_post")
        nulls[NEURONS] = TopKSAE(Weights(eye, zero, eye, zero), k=min(k, width), metadata=at)
    return nulls


def shuffle_documents(side: ActivationsByWord, *, seed: int) -> ActivationsByWord:
    """Return the words with the documents in another order: each stands where another one was."""
    n = int(side.document.max(initial=-1)) + 1
    starts: np.ndarray = np.searchsorted(side.document, np.arange(n + 1))
    parts = np.split(np.arange(len(side.document)), starts[1:-1])
    return side.words(np.concatenate([parts[at] for at in _cycle(n, seed)]))


def _cycle(n: int, seed: int) -> np.ndarray:
    """Return for each of `n` another one, each once: a random cycle."""
    order = np.random.default_rng(derive_seed(seed, "null pairs")).permutation(n)
    partner = np.empty(n, int)
    partner[order] = np.roll(order, -1)
    return partner


def _usable(side: ActivationsByWord) -> np.ndarray:
    """Return the features `[n]` that fire on enough words and documents, and on few enough words."""
    count, most = np.diff(side.values.indptr), MOST_SHARE * len(side.document)
    n_documents = _n_documents(side.values, side.document)
    return np.flatnonzero((count >= LEAST_WORDS) & (count <= most) & (n_documents >= LEAST_DOCUMENTS))


def _n_documents(values: "csr_matrix", document: np.ndarray) -> np.ndarray:
    """Return the number of documents of the words in each row."""
    row = np.repeat(np.arange(values.shape[0]), np.diff(values.indptr))
    width = int(document.max(initial=0)) + 1
    return np.bincount(np.unique(row * width + document[values.indices]) // width, minlength=values.shape[0])


def _best(mine: ActivationsByWord, theirs: ActivationsByWord) -> np.ndarray:
    """Return the feature of `theirs` that agrees best with each of `mine`; -1 for none."""
    best = np.full(mine.values.shape[0], -1)
    usable, candidates = _usable(mine), _usable(theirs)
    if not len(candidates):
        return best
    x, y = mine.values[usable], theirs.values[candidates]
    strong, fires = (_strong(x), _strong(y).T), (_fires(x), _fires(y).T)
    of_mine, of_theirs = _sums(strong[0])[:, None], _sums(strong[1].T)[None]
    for at in range(0, len(usable), _ROWS):
        block = slice(at, at + _ROWS)
        shares = np.minimum(
            (strong[0][block] @ fires[1]).toarray() / of_mine[block],
            (fires[0][block] @ strong[1]).toarray() / of_theirs,
        )
        best[usable[block]] = np.where(shares.max(1) > 0, candidates[shares.argmax(1)], -1)
    return best


def _correlations(x: "csr_matrix", y: "csr_matrix") -> np.ndarray:
    """Return the correlation of each row with the same row of the other; 0 for a constant one."""
    (x_mean, x_std), (y_mean, y_std) = _moments(x), _moments(y)
    return (np.asarray(x.multiply(y).mean(1)).ravel() - x_mean * y_mean) / (x_std * y_std)


def _moments(x: "csr_matrix") -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each row."""
    mean = np.asarray(x.mean(1)).ravel()
    return mean, np.sqrt(np.maximum(np.asarray(x.multiply(x).mean(1)).ravel() - mean**2, 1e-24))


def _fires(values: Any) -> Any:
    """Return 1 where a row is above 0, as a sparse matrix of float32."""
    return (values > 0).astype(np.float32)


def _strong(values: Any) -> Any:
    """Return 1 at the strong firings of each row, in the same form."""
    least = STRONG * np.repeat(values.max(1).toarray().ravel(), np.diff(values.indptr))
    strong = values.copy()
    strong.data = (values.data >= least).astype(np.float32)
    strong.eliminate_zeros()
    return strong


def _agreements(
    mine: ActivationsByWord, theirs: ActivationsByWord, counterpart: np.ndarray, seed: int
) -> dict[int, PairAgreement]:
    """Return how well each pair agrees; those that fire strongly in too few documents are left out."""
    features = np.flatnonzero(counterpart >= 0)
    sides = [mine.values[features], theirs.values[counterpart[features]]]
    fires, strong = [_fires(values) for values in sides], [_strong(values) for values in sides]
    judged = np.minimum(*(_n_documents(rows, mine.document) for rows in strong)) >= LEAST_DOCUMENTS
    both = _sums(fires[0].multiply(fires[1]))
    counts = []
    for giver, reader in ((0, 1), (1, 0)):
        yes, silent = _sums(strong[giver]), len(mine.document) - _sums(fires[giver])
        counts.append(
            np.stack([_sums(strong[giver].multiply(fires[reader])), yes, silent - _sums(fires[reader]) + both, silent])
        )
    hits, yes, quiet, silent = np.stack(counts, 1)
    accuracy = (hits / np.maximum(yes, 1) + quiet / np.maximum(silent, 1)) / 2
    generator = np.random.default_rng(derive_seed(seed, "agreement"))
    agreements: dict[int, PairAgreement] = {}
    for at in np.flatnonzero(judged & (silent.min(0) > 0)):
        way = int(accuracy[:, at].argmin())
        hit, n_yes, right, n_no = (int(part[way, at]) for part in (hits, yes, quiet, silent))
        interval = balanced_accuracy((hit, right), (n_yes, n_no), generator=generator)
        agreements[int(features[at])] = PairAgreement(interval, n_yes + n_no)
    return agreements


def _sums(rows: "csr_matrix") -> np.ndarray:
    return np.asarray(rows.sum(1)).ravel().astype(np.int64)


def main_forms(side: ActivationsByWord, feature: int, n: int = 5) -> tuple[list[str], float]:
    """Return the forms that a feature reads most often where it fires strongly, and the share of one.

    That is the share of the first form, or of the first token where that is larger: "1" in many numbers is no number.
    """
    start, end = side.values.indptr[feature : feature + 2]
    assert side.read is not None
    values, read = side.values.data[start:end], side.read.data[start:end]
    strong = [side.forms[form - 1] for form in read[values >= STRONG * values.max(initial=0.0)].tolist()]
    forms, tokens = (Counter(part) for part in zip(*strong, strict=True)) if strong else (Counter(), Counter())
    most = max((counts.most_common(1)[0][1] for counts in (forms, tokens) if counts), default=0)
    return [form for form, _ in forms.most_common(n)], most / max(len(strong), 1)


def counterparts(matched: MatchedDictionaries, first: str, second: str, text: WordText) -> Counterparts:
    """Return the pairs of two dictionaries, by the names of their features artefacts, with their nulls."""
    rows: list[CounterpartRow] = []
    shares: list[CounterpartShare] = []
    sides: dict[Literal["first", "second"], tuple[ActivationsByWord, WordPairs, str]] = {
        "first": (matched.first, matched.pairs, first),
        "second": (matched.second, matched.back, second),
    }
    for side, (activations, pairs, name) in sides.items():
        of_side = [_row(side, activations, pairs, at) for at in np.flatnonzero(pairs.counterpart >= 0).tolist()]
        shares.append(_share(name, pairs, sum(row.wide for row in of_side if row.correlation > ALIKE)))
        rows += of_side
    shares += [_share(name, pairs, None) for name, pairs in matched.nulls.items()]
    null = matched.nulls[SHUFFLED]
    high = float(np.quantile(null.correlation[null.usable], 0.95)) if null.usable.any() else 0.0
    settings = CounterpartSettings(first=first, second=second, corpus=text.corpus, n_words=text.n_words)
    return Counterparts(settings=settings, shares=tuple(shares), null_high=high, pairs=Table.of(CounterpartRow, rows))


def _row(side: Literal["first", "second"], activations: ActivationsByWord, pairs: WordPairs, at: int) -> CounterpartRow:
    words, share = main_forms(activations, at)
    agreement, null = pairs.agreements.get(at), pairs.null.get(at)
    return CounterpartRow(
        side=side, feature=at, counterpart=int(pairs.counterpart[at]),
        correlation=float(pairs.correlation[at]), agreement=agreement and agreement.accuracy.estimate,
        null=null and null.accuracy.estimate, words=words, share=share,
    )  # fmt: skip


def _share(features: str, pairs: WordPairs, wide: int | None) -> CounterpartShare:
    alike, same = (int((pairs.correlation > least).sum()) for least in (ALIKE, SAME))
    n = int(pairs.usable.sum())
    return CounterpartShare(features=features, n=n, alike=alike, same=same, hold=pairs.n_hold, wide=wide)
