"""Labels of features from token statistics alone: a value with fields (`Label`), rendered as text here.

The evidence is a feature's strong firings, since weak ones are noisy: the strongest firing of each of 12 contexts, and
those of a uniform sample that reach at least half of its maximum. The rule, in order, with the kind of label and its
text:

1. never fired: `dead`, "dead"; fewer than five firings: `rare`, "rare: " and its tokens;
2. six readings are compared. Each has a `share`, the fraction of the firings for which it holds, and a `base`, the
   fraction of all tokens. Of those with a share of at least one half and at least three times the base, the one with
   the most information is chosen, `share * log2(share / base)` bits. The readings: the token itself (`token`,
   '" the" (84 %)'), the token in any case and spacing (`any_form`, '"the" in any form (90 %)'), the token that follows
   (`before`, 'before " of" (70 %)'), the preceding token (`after`, 'after " of" (70 %)'), the document's label
   (`document`, 'in numpy docs (80 %)'), and a following token among the ten that its direction promotes (`promotes`,
   'promotes " and", " or" (55 %)');
3. else, for a feature active on more than half of all tokens: `dense`, 'dense (73 % of tokens)';
4. else, up to three tokens that together make up half of the firings: `tokens`, '" a", " an", " any" (61 %)';
5. else, the best reading with a share of at least one fifth and at least ten times the base: its kind, with a share
   below one half, 'often before " of" (35 %)';
6. else its most frequent tokens: `mixed`, 'mixed: " the", " of", "."'.

Promoted tokens count only where they do follow: in early and middle layers, most tokens that a direction promotes never
occur next. A label describes the contexts in which a feature fires; it is not a claim about its meaning.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from interp.recording.store import NO_TOKEN, Recording, document_names, read_passages
from saes.features.firings import FeatureStatistics

LABEL_SOURCE = "token statistics"
STRONG = 0.5
MIN_FIRINGS = 5
MIN_SHARE = 0.5
MIN_LIFT = 3.0
OFTEN_SHARE = 0.2
OFTEN_LIFT = 10.0
VERY_DENSE = 0.5
LONGEST_TOKEN = 24


class BaseRates(NamedTuple):
    """Fractions among all real tokens of a recording, each array summing to 1."""

    tokens: np.ndarray
    """Fraction of each token, `[d_vocab]`."""
    labels: np.ndarray
    """Fraction of tokens in documents with each label, `[n_labels]`."""
    label_of_document: np.ndarray
    """Index of each document's label in `label_names`, `[n_documents]` int64."""
    label_names: list[str]


class Folded(NamedTuple):
    """The vocabulary in lower case without outer spaces."""

    names: list[str]
    of_token: np.ndarray
    """Index in `names` of each token, `[d_vocab]` int64."""
    base: np.ndarray
    """Fraction of each name among all tokens, `[n_names]`."""


READINGS = ("token", "any_form", "before", "after", "document", "promotes")
WRITTEN = "written"
"""Kind of a label written by a language model or a person: it has a text and no further fields."""


class Label(NamedTuple):
    """Label of one feature; `str(label)` is its text, and no code parses that text."""

    kind: str
    """One of `READINGS`, or `tokens`, `dense`, `mixed`, `rare`, `dead`."""
    names: tuple[str, ...] = ()
    """The tokens that it names, as in the vocabulary; for `document`, the label of the documents."""
    share: float | None = None
    """Fraction of the strong firings for which it holds, 0 to 1; for `dense`, the fraction of all tokens with the
    feature active."""

    def __str__(self) -> str:
        if self.kind == "dead":
            return "dead"
        percent = "" if self.share is None else f"{self.share * 100:.0f} %"
        if self.kind == "dense":
            return f"dense ({percent} of tokens)"
        names = ", ".join(map(quoted, self.names))
        if self.kind in ("mixed", "rare"):
            return f"{self.kind}: {names}"
        forms = {"any_form": f"{names} in any form", "document": f"in {', '.join(self.names)} docs"}
        forms |= {kind: f"{kind} {names}" for kind in ("before", "after", "promotes")}
        often = "often " if self.kind in READINGS and self.share is not None and self.share < MIN_SHARE else ""
        return f"{often}{forms.get(self.kind, names)} ({percent})"


class Reading(NamedTuple):
    """One description of some firings, with the fractions of firings and of all tokens for which it holds."""

    kind: str
    names: tuple[str, ...]
    share: float
    """Fraction of the firings for which it holds, 0 to 1."""
    base: float
    """Fraction of all tokens for which it holds, 0 to 1."""

    @property
    def label(self) -> Label:
        return Label(self.kind, self.names, self.share)

    @property
    def information(self) -> float:
        """Return `share * log2(share / base)`, in bits per firing."""
        return self.share * float(np.log2(self.share / self.base))

    @property
    def holds(self) -> bool:
        return self.share >= MIN_SHARE and self.share >= MIN_LIFT * self.base

    @property
    def holds_often(self) -> bool:
        return self.share >= OFTEN_SHARE and self.share >= OFTEN_LIFT * self.base


def measure_base_rates(recording: Recording, d_vocab: int) -> BaseRates:
    """Measure the fractions of tokens and of document labels, in one read of the token shards."""
    _, labels = document_names(recording)
    names, label_of_document = np.unique(labels, return_inverse=True) if labels else (np.array([""]), np.zeros(1, int))
    tokens, label_counts = np.zeros(d_vocab, np.int64), np.zeros(len(names), np.int64)
    for shard in range(recording.n_shards):
        part = recording.token_shard(shard)
        document = part.document.numpy()
        real = document >= 0
        tokens += np.bincount(part.tokens.numpy()[real], minlength=d_vocab)
        label_counts += np.bincount(label_of_document[document[real]], minlength=len(names))
    n = max(int(tokens.sum()), 1)
    return BaseRates(tokens / n, label_counts / n, label_of_document, [str(name) for name in names])


def label_features(
    statistics: FeatureStatistics, recording: Recording, vocabulary: list[str], promoted: np.ndarray | None
) -> list[Label]:
    """Return the label of every feature.

    `promoted [d_sae, k]` are the ids of the tokens that each direction promotes most, the strongest first; None when
    the directions do not write to the residual stream.
    """
    base = measure_base_rates(recording, len(vocabulary))
    folded = fold(vocabulary, base.tokens)
    feature, row = strong_firings(statistics)
    passages = read_passages(recording, row, before=1, after=1)
    bounds = np.searchsorted(feature, np.arange(statistics.d_sae + 1))
    labels = []
    for f in range(statistics.d_sae):
        mine = slice(bounds[f], bounds[f + 1])
        before, token, after = passages.token_ids[mine].T
        n_fired, density = int(statistics.totals.n_fired[f]), float(statistics.density[f])
        if n_fired < MIN_FIRINGS:
            labels.append(label_without_evidence(token, vocabulary))
            continue
        readings = [
            most_telling("token", token, base.tokens, vocabulary),
            most_telling("any_form", folded.of_token[token], folded.base, folded.names),
            most_telling("before", after, base.tokens, vocabulary),
            most_telling("after", before, base.tokens, vocabulary),
            most_telling("document", base.label_of_document[passages.document[mine]], base.labels, base.label_names),
            None if promoted is None else promoted_reading(promoted[f], after, base.tokens, vocabulary),
        ]
        labels.append(choose_label([r for r in readings if r is not None], token, vocabulary, density))
    return labels


def strong_firings(statistics: FeatureStatistics) -> tuple[np.ndarray, np.ndarray]:
    """Return the features and rows `[n]` of strong firings, sorted and each once.

    Strong are the top firings, and those of the sample that reach at least half of the feature's maximum.
    """
    top, sample = statistics.top, statistics.sample
    strong = (sample.keys >= 0) & (sample.values >= STRONG * statistics.totals.maximum[:, None])
    pairs = [
        np.stack([np.nonzero(mask)[0], slots.rows[mask]]) for slots, mask in ((top, top.keys >= 0), (sample, strong))
    ]
    feature, row = np.unique(np.concatenate(pairs, axis=1), axis=1)
    return feature, row


def fold(vocabulary: list[str], token_base: np.ndarray) -> Folded:
    """Return the vocabulary in lower case without outer spaces, with the summed fractions of tokens."""
    names, of_token = np.unique([token.strip().lower() for token in vocabulary], return_inverse=True)
    return Folded([str(name) for name in names], of_token, np.bincount(of_token, token_base, len(names)))


def promoted_reading(ids: np.ndarray, after: np.ndarray, base: np.ndarray, vocabulary: list[str]) -> Reading | None:
    """Return the reading that the next token is one of those that the direction promotes; None if it never is."""
    share = float(np.isin(after, ids).mean())
    if share == 0:
        return None
    return Reading("promotes", tuple(vocabulary[i] for i in ids[:2]), share, float(base[ids].sum()))


def label_without_evidence(tokens: np.ndarray, vocabulary: list[str]) -> Label:
    """Return the label of a feature that fired fewer than `MIN_FIRINGS` times."""
    if not len(tokens):
        return Label("dead")
    return Label("rare", tuple(vocabulary[i] for i in dict.fromkeys(tokens.tolist())))


def most_telling(kind: str, ids: np.ndarray, base: np.ndarray, names: Sequence[str]) -> Reading | None:
    """Return the reading with the most information among the values of `ids [n]`, indices into `base` and `names`.

    `NO_TOKEN` counts as a miss.
    """
    found, counts = np.unique(ids[ids != NO_TOKEN], return_counts=True)
    if not len(found):
        return None
    share = counts / len(ids)
    best = int(np.argmax(share * np.log2(share / base[found])))
    return Reading(kind, (names[int(found[best])],), float(share[best]), float(base[found[best]]))


def choose_label(readings: list[Reading], tokens: np.ndarray, vocabulary: list[str], density: float) -> Label:
    """Return the label by steps 2 to 6 of the rule in the module's docstring."""
    holding = [reading for reading in readings if reading.holds]
    if holding:
        return max(holding, key=lambda reading: reading.information).label
    if density > VERY_DENSE:
        return Label("dense", share=density)
    found, counts = np.unique(tokens, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:3]
    names = tuple(vocabulary[i] for i in found[order])
    share = float(counts[order].sum() / len(tokens))
    if share >= MIN_SHARE:
        return Label("tokens", names, share)
    often = [reading for reading in readings if reading.holds_often]
    if often:
        return max(often, key=lambda reading: reading.information).label
    return Label("mixed", names)


def quoted(token: str) -> str:
    """Return a token in double quotes, with line breaks as `\\n`, truncated when very long.

    >>> quoted(" the")
    '" the"'
    """
    short = token if len(token) <= LONGEST_TOKEN else token[: LONGEST_TOKEN - 1] + "…"
    return json.dumps(short, ensure_ascii=False)
