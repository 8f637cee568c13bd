"""Labels that travel: a written label is carried to the feature of another dictionary that fires on the same words.

    labels = carry_labels(workspace, "mine", "demo", corpus)

Both models read the same words, each with its own tokenizer; a feature's activation on a word is the largest on its
tokens. One half of the documents pairs each feature with the one whose activations correlate most. The other half
judges the pair, both ways: does the other fire where one fires strongly, and is it silent where that is? The smaller of
the two balanced accuracies is the score. No language model is asked, and no reader.

**Nulls**: the label of another pair (its score is stored beside each), and words shifted between documents, which leave
no pair (`n_shifted`). A feature that fires in fewer than `LEAST_DOCUMENTS` documents of a half is not judged: two rare
features that meet in one document would agree.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.artifacts import Table
from interp.errors import ConfigError
from interp.progress import Progress
from interp.seeds import derive_seed
from interp.text.corpora import open_corpus
from interp.workspace import Workspace
from saes.explain.run import AnswerScore, mean_scores, other_features, score_answers
from saes.features.schema import SOURCES, WRITTEN, Features
from saes.features.written_labels import (
    HOLDS,
    CarriedLabels,
    ContextJudgement,
    FeatureLabel,
    Labels,
    LabelScore,
    LabelsSettings,
)

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from interp.dictionary import Dictionary
    from interp.models.hooked import HookedModel

CONTEXT, BATCH = 128, 16
LEAST_WORDS, MOST_SHARE, LEAST_DOCUMENTS = 10, 0.2, 3
"""A feature is paired if it fires on so many words, on at most this share, in so many documents of each half."""
STRONG = 0.5
"""Fraction of the largest activation from which a firing is strong."""
_ROWS = 512


@dataclass(frozen=True)
class ActivationsByWord:
    """Largest activation of each feature on each word."""

    values: "csr_matrix"
    """`[features, words]`"""
    document: np.ndarray
    """`[words]` document of each word"""


@dataclass(frozen=True)
class FeaturePairs:
    """For each feature of one dictionary its counterpart in another, chosen on one half and judged on the other."""

    counterpart: np.ndarray
    """`[features]` feature of the other dictionary; -1 for none"""
    correlation: np.ndarray
    """`[features]` on the half that chose it"""
    scores: dict[int, AnswerScore]
    """of each feature that could be judged: 0.5 by chance, 1 for the same words"""
    null: dict[int, AnswerScore]
    """the same with another feature's counterpart"""

    @property
    def n_hold(self) -> int:
        """Number of pairs that agree well enough to share a label."""
        return sum(score.accuracy.estimate >= HOLDS for score in self.scores.values())


def carry_labels(
    workspace: Workspace, features: str, source: str, corpus: str, *, n_words: int = 20_000, seed: int = 0,
    progress: Progress | None = None,
) -> Labels:  # fmt: skip
    """Return the written labels of `source` for the features that fire on the same words, with their scores.

    `corpus` names the text that both read, `n_words` words of it. Raises `ConfigError` where `source` has no written
    labels, or the text too few words.
    """
    target, giver = workspace.open(Features, features), workspace.open(Features, source)
    for made in (target, giver):
        if not made.sae:
            raise ConfigError(f"{made.name} describes {made.dictionary}; labels are carried between SAEs")
    sql = "select feature, label, label_source from t where label_kind = ?"
    written = {row["feature"]: row for row in giver.features.query(sql, WRITTEN).to_pylist()}
    if not written:
        raise ConfigError(f"{source} has no written labels; `workbench explain {source} --into NAME` asks for some")
    documents = words_of((document.text for document in open_corpus(corpus, seed=seed)), n_words)
    if len(documents) < 4 * LEAST_DOCUMENTS:
        raise ConfigError(f"{corpus} has {len(documents)} documents of words; choose a text with more")
    mine, theirs = (_read(workspace, made, documents, progress) for made in (target, giver))
    kept = np.array(sorted(written))
    theirs = ActivationsByWord(theirs.values[kept], theirs.document)
    pairs = pair_features(mine, theirs, seed=seed)
    shift = np.roll(np.arange(len(mine.document)), len(mine.document) // 2)
    shifted = ActivationsByWord(theirs.values[:, shift], theirs.document)
    n_shifted = pair_features(mine, shifted, seed=seed).n_hold
    return _labels(target, giver, written, kept, pairs, corpus, n_words, n_shifted, seed)


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


def _read(
    workspace: Workspace, made: Features, documents: list[list[str]], progress: Progress | None
) -> ActivationsByWord:
    from interp.models.loading import load_model
    from saes.weights.folder import load_sae

    model, dictionary = load_model(made.settings.model), load_sae(workspace.path("sae", made.sae))
    return word_activations(model, dictionary, documents, progress=progress)


def word_activations(
    model: "HookedModel", dictionary: "Dictionary", documents: Sequence[Sequence[str]], *,
    progress: Progress | None = None,
) -> ActivationsByWord:  # fmt: skip
    """Return the largest activation of each feature on the tokens of each word, of documents `[n][words]`.

    Words are read in contexts of `CONTEXT` tokens, a space before each but the first of a document. A word that fits in
    no context is cut.
    """
    import torch
    from scipy.sparse import csr_matrix

    from interp.models.adapter import bos_token_id
    from interp.models.passes import Capture

    bos = bos_token_id(model)
    start = [] if bos is None else [bos]
    contexts = list(_contexts(model, documents, len(start)))
    rows, columns, values = [], [], []
    with torch.no_grad(), Capture(model, [dictionary.hook_point]) as capture:
        for at in range(0, len(contexts), BATCH):
            batch = contexts[at : at + BATCH]
            width = max(len(ids) for ids, _ in batch)
            tokens = torch.tensor([start + ids + [ids[-1]] * (width - len(ids)) for ids, _ in batch])
            word = torch.tensor([[-1] * len(start) + words + [-1] * (width - len(words)) for _, words in batch])
            x = capture(tokens.to(model.cfg.device))[dictionary.hook_point][word.to(model.cfg.device) >= 0]
            sparse = dictionary.encode_sparse(x.float())
            row, slot = (sparse.values > 0).nonzero(as_tuple=True)
            rows.append(word[word >= 0][row.cpu()].numpy())
            columns.append(sparse.indices[row, slot].cpu().numpy())
            values.append(sparse.values[row, slot].cpu().numpy())
            if progress is not None:
                progress(min(at + BATCH, len(contexts)), len(contexts), {})
    n = sum(map(len, documents))
    document = np.repeat(np.arange(len(documents)), [len(words) for words in documents])
    width = dictionary.decoder_directions.shape[0]
    flat = np.concatenate(columns).astype(np.int64) * n + np.concatenate(rows)
    order = np.lexsort((-np.concatenate(values), flat))
    flat, first = np.unique(flat[order], return_index=True)
    largest = np.concatenate(values)[order][first]
    return ActivationsByWord(csr_matrix((largest, (flat // n, flat % n)), shape=(width, n)), document)


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


def pair_features(mine: ActivationsByWord, theirs: ActivationsByWord, *, seed: int) -> FeaturePairs:
    """Pair each feature with the one whose activations correlate most on even documents, and judge on odd ones."""
    chosen, judging = (
        [ActivationsByWord(side.values[:, rows], side.document[rows]) for side in (mine, theirs)]
        for rows in (mine.document % 2 == 0, mine.document % 2 == 1)
    )
    counterpart, correlation = _best(chosen[0], chosen[1])
    n = len(counterpart)
    shuffled = np.full(n, -1)
    paired = np.flatnonzero(counterpart >= 0)
    order = other_features(len(paired), generator=np.random.default_rng(derive_seed(seed, "null pairs")))
    if order is not None:
        shuffled[paired] = counterpart[paired[order]]
    scores, null = (_agreements(judging[0], judging[1], which, seed) for which in (counterpart, shuffled))
    return FeaturePairs(counterpart, correlation, scores, null)


def _usable(side: ActivationsByWord) -> np.ndarray:
    """Return the features `[n]` that fire on enough words and documents, and on few enough words."""
    count = np.diff(side.values.indptr)
    words = np.split(side.values.indices, side.values.indptr[1:-1])
    n_documents = np.array([len(np.unique(side.document[at])) for at in words])
    most = MOST_SHARE * len(side.document)
    return np.flatnonzero((count >= LEAST_WORDS) & (count <= most) & (n_documents >= LEAST_DOCUMENTS))


def _best(mine: ActivationsByWord, theirs: ActivationsByWord) -> tuple[np.ndarray, np.ndarray]:
    """Return the feature of `theirs` that correlates most with each of `mine`, and the correlation; -1 and 0: none."""
    best, value = np.full(mine.values.shape[0], -1), np.zeros(mine.values.shape[0])
    usable, candidates = _usable(mine), _usable(theirs)
    if not len(candidates):
        return best, value
    y = theirs.values[candidates]
    y_mean, y_std = _moments(y)
    for at in range(0, len(usable), _ROWS):
        block = usable[at : at + _ROWS]
        x = mine.values[block]
        mean, std = _moments(x)
        products = (x @ y.T).toarray() / x.shape[1]
        correlations = (products - np.outer(mean, y_mean)) / np.outer(std, y_std)
        best[block], value[block] = candidates[correlations.argmax(1)], correlations.max(1)
    best[value <= 0] = -1
    return best, value


def _moments(x: "csr_matrix") -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each row."""
    mean = np.asarray(x.mean(1)).ravel()
    return mean, np.sqrt(np.maximum(np.asarray(x.multiply(x).mean(1)).ravel() - mean**2, 1e-24))


def _agreements(
    mine: ActivationsByWord, theirs: ActivationsByWord, counterpart: np.ndarray, seed: int
) -> dict[int, AnswerScore]:
    """Return how well each pair agrees, the worse of two ways; those that fire in too few documents are left out."""
    generator = np.random.default_rng(derive_seed(seed, "agreement"))
    scores: dict[int, AnswerScore] = {}
    for feature in np.flatnonzero(counterpart >= 0).tolist():
        sides = [_firings(mine, feature), _firings(theirs, int(counterpart[feature]))]
        if min(len(np.unique(mine.document[strong])) for _, strong in sides) < LEAST_DOCUMENTS:
            continue
        ways = [
            score_answers(strong[strong | ~fires], other[strong | ~fires], generator=generator)
            for (fires, strong), (other, _) in (sides, sides[::-1])
        ]
        judged = [score for score in ways if score is not None]
        if len(judged) == len(ways):
            scores[feature] = min(judged, key=lambda score: score.accuracy.estimate)
    return scores


def _firings(side: ActivationsByWord, feature: int) -> tuple[np.ndarray, np.ndarray]:
    """Return on which words a feature fires, and on which strongly, both `[words]` bool."""
    size = side.values[feature].toarray()[0]
    return size > 0, (size > 0) & (size >= STRONG * size.max(initial=0.0))


def _labels(
    target: Features, giver: Features, written: dict[int, dict[str, Any]], kept: np.ndarray, pairs: FeaturePairs,
    corpus: str, n_words: int, n_shifted: int, seed: int,
) -> Labels:  # fmt: skip
    by_rule = target.features.query("select feature, label, label_source from t").to_pylist()
    rule = {row["feature"]: row["label"] for row in by_rule if row["label_source"] in SOURCES}
    judged = sorted(pairs.scores)
    labels, scores = [], []
    for feature in judged:
        counterpart = written[int(kept[pairs.counterpart[feature]])]
        labels.append(
            FeatureLabel(
                feature=feature, label=counterpart["label"],
                label_source=f"{counterpart['label_source']}, carried from {giver.name}",
                statistics_label=rule.get(feature, ""), null_feature=None, unanswered=0.0, shown_rows=[],
                heldout_rows=[], given_names=[f"correlation with #{counterpart['feature']}"],
                given_scores=[float(pairs.correlation[feature])],
            )
        )  # fmt: skip
        score, null = pairs.scores[feature], pairs.null.get(feature)
        accuracy, low, high = map(float, score.accuracy)
        scores.append(
            LabelScore(
                feature=feature, name="detection", accuracy=accuracy, low=low, high=high,
                null=None if null is None else float(null.accuracy.estimate), f1=score.f1, n=score.n,
            )
        )  # fmt: skip
    source = CarriedLabels(
        features=giver.name, features_hash=giver.about.content_hash, corpus=corpus, n_words=n_words, n_shifted=n_shifted
    )
    settings = LabelsSettings(
        features=target.name, features_hash=target.about.content_hash, explained=tuple(judged), source=source
    )
    return Labels(
        settings=settings, labels=Table.of(FeatureLabel, labels), scores=Table.of(LabelScore, scores),
        trials=Table.of(ContextJudgement, []),
        means=mean_scores(scores, generator=np.random.default_rng(derive_seed(seed, "bootstrap"))),
        skipped={}, replies=None, n_read=None,
    )  # fmt: skip
