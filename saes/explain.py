"""A short plain label for every feature, from token statistics alone.

The rule, in order:

1. never fired: `dead`; active on more than half of all tokens: `dense (73 % of tokens)`; fewer than five firings:
   `rare: ` and its tokens;
2. of five readings of its sampled firings, those that hold for at least half of them and at least three times as often
   as among all tokens compete, and the one with the most information wins, `share * log2(share / base)` bits:
   the token itself `" the" (84 %)`, the token in any case and spacing `"the" in any form (90 %)`, the token that
   follows `before " of" (70 %)`, the one before `after " of" (70 %)`, the document's label `in numpy docs (80 %)`;
3. else, up to three tokens that make up half of the firings together: `" a", " an", " any" (61 %)`;
4. else, the tokens its direction promotes: `promotes " and", " or"`;
5. else its most frequent tokens: `mixed: " the", " of", "."`.

A label is a reading of where a feature fires, not a claim about what it means.
"""

import json
from typing import NamedTuple

import numpy as np

from interp.recording.store import Recording
from saes.examples import NO_TOKEN, document_names, read_passages
from saes.statistics import FeatureStatistics

LABEL_SOURCE = "token statistics"
MIN_FIRINGS = 5
MIN_SHARE = 0.5
MIN_LIFT = 3.0
VERY_DENSE = 0.5
LONGEST_TOKEN = 24


class BaseRates(NamedTuple):
    """Shares among all real tokens of a recording, each summing to 1."""

    tokens: np.ndarray
    """`[d_vocab]`"""
    labels: np.ndarray
    """`[n_labels]`"""
    label_of_document: np.ndarray
    """`[n_documents]` int64"""
    label_names: list[str]


class Reading(NamedTuple):
    """One way to describe some firings: the share for which it holds, here and at large."""

    text: str
    share: float
    base: float

    @property
    def information(self) -> float:
        """Bits per firing."""
        return self.share * float(np.log2(self.share / self.base))

    @property
    def holds(self) -> bool:
        return self.share >= MIN_SHARE and self.share >= MIN_LIFT * self.base


def measure_base_rates(recording: Recording, d_vocab: int) -> BaseRates:
    """Token and document-label shares, one read over the token shards."""
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
    statistics: FeatureStatistics, recording: Recording, vocabulary: list[str], promoted: list[list[str]]
) -> list[str]:
    """One label per feature; `promoted[f]` are its promoted tokens, best first (may be empty)."""
    base = measure_base_rates(recording, len(vocabulary))
    folded_names, folded = np.unique([token.strip().lower() for token in vocabulary], return_inverse=True)
    folded_base = np.bincount(folded, weights=base.tokens, minlength=len(folded_names))
    feature, slot = np.nonzero(statistics.sample.keys >= 0)
    passages = read_passages(recording, statistics.sample.rows[feature, slot], before=1, after=1)
    bounds = np.searchsorted(feature, np.arange(statistics.d_sae + 1))
    labels = []
    for f in range(statistics.d_sae):
        mine = slice(bounds[f], bounds[f + 1])
        before, token, after = passages.token_ids[mine].T
        first = early_label(int(statistics.totals.n_fired[f]), float(statistics.density[f]), token, vocabulary)
        if first is not None:
            labels.append(first)
            continue
        readings = [
            most_telling(token, base.tokens, lambda i: quoted(vocabulary[i])),
            most_telling(folded[token], folded_base, lambda i: f"{quoted(str(folded_names[i]))} in any form"),
            most_telling(after, base.tokens, lambda i: f"before {quoted(vocabulary[i])}"),
            most_telling(before, base.tokens, lambda i: f"after {quoted(vocabulary[i])}"),
            most_telling(
                base.label_of_document[passages.document[mine]], base.labels, lambda i: f"in {base.label_names[i]} docs"
            ),
        ]
        labels.append(choose_label([r for r in readings if r is not None], token, vocabulary, promoted[f]))
    return labels


def early_label(n_fired: int, density: float, tokens: np.ndarray, vocabulary: list[str]) -> str | None:
    """The label of a feature that fires never, hardly ever, or nearly always; None for the others."""
    if n_fired == 0:
        return "dead"
    if n_fired < MIN_FIRINGS:
        return "rare: " + ", ".join(quoted(vocabulary[i]) for i in dict.fromkeys(tokens.tolist()))
    if density > VERY_DENSE:
        return f"dense ({density:.0%} of tokens)".replace("%", " %")
    return None


def most_telling(ids: np.ndarray, base: np.ndarray, name) -> Reading | None:
    """The reading with the most information among the values of `ids [n]`; `NO_TOKEN` counts as a miss."""
    found, counts = np.unique(ids[ids != NO_TOKEN], return_counts=True)
    if not len(found):
        return None
    share = counts / len(ids)
    best = int(np.argmax(share * np.log2(share / base[found])))
    return Reading(name(int(found[best])), float(share[best]), float(base[found[best]]))


def choose_label(readings: list[Reading], tokens: np.ndarray, vocabulary: list[str], promoted: list[str]) -> str:
    """Steps 2 to 5 of the rule."""
    holding = [reading for reading in readings if reading.holds]
    if holding:
        best = max(holding, key=lambda reading: reading.information)
        return f"{best.text} ({best.share * 100:.0f} %)"
    found, counts = np.unique(tokens, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:3]
    names = ", ".join(quoted(vocabulary[i]) for i in found[order])
    share = counts[order].sum() / len(tokens)
    if share >= MIN_SHARE:
        return f"{names} ({share * 100:.0f} %)"
    if promoted:
        return "promotes " + ", ".join(map(quoted, promoted[:2]))
    return f"mixed: {names}"


def quoted(token: str) -> str:
    """A token in double quotes, line breaks written as `\\n`, cut when very long.

    >>> quoted(" the")
    '" the"'
    """
    short = token if len(token) <= LONGEST_TOKEN else token[: LONGEST_TOKEN - 1] + "…"
    return json.dumps(short, ensure_ascii=False)
