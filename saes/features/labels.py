"""Labels of features by rules, without a language model: a value with fields (`Label`), rendered as text here.

The evidence is a feature's strong firings, since weak ones are noisy: the 12 strongest, each of another context, and
of 36 further contexts and of a uniform sample those that reach at least half of its maximum. The rule, in order, with
the kind of label and its text:

1. never fired: `dead`, "dead"; fewer than five firings: `rare`, "rare: " and its tokens;
2. readings from four sources are compared (`readings.py` here). *Token statistics*: the token itself (`token`,
   '" the" (84 %)'), in any case and spacing (`any_form`, '"the" in any form (90 %)'), the word that the token belongs
   to with its inflections (`word`, 'the word "store" (95 %)'), up to three tokens (`tokens`, '" a", " an", " any"
   (61 %)'), the next token (`before`, 'before " of" (70 %)'), the preceding one (`after`), and a next token among those
   that the direction promotes (`promotes`, 'promotes " and", " or" (55 %)'). *Word classes*: the class of the word
   (`class`, 'calendar month (94 %)') or of the text between two spaces (`chunk`, 'web address (80 %)'). *Context*: the
   class of the next word (`before_class`, 'before country (70 %)') and of the preceding one (`after_class`), both for a
   frequent token (`token_after_class`, '" to" after verb of motion (93 %)'), the document (`document`, 'in numpy docs
   (80 %)'), and the surroundings (`surroundings`, 'start of a sentence (92 %)'). *Words it makes the model say*, where
   there is a Jacobian lens (`nearby.py` here): the token is one of them (`said`, 'words like "eat", "cook" (90 %)'), or
   one is near (`said_near`, 'near words like "team", "game" (66 %)');
3. a reading whose score on held-out firings is not above 95 % of the scores that other features' readings reach there
   is dropped. Of the rest, the one with the most information per firing is the label, if it holds for at least half of
   the firings and three times as often as anywhere; the best of the other kinds go with it (`others`);
4. else, for a feature active on more than half of all tokens: `dense`, 'dense (73 % of tokens)';
5. else, a remaining reading with a share of at least one fifth and at least ten times the base: its kind, with a share
   below one half, 'often before " of" (35 %)';
6. else `none`, 'no label; fires on " the", " of", "."': the tokens are the plain fact, and no meaning is claimed.

Promoted tokens count only where they do follow: in early and middle layers, most tokens that a direction promotes never
occur next. A label describes the contexts in which a feature fires; it is not a claim about its meaning.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from interp.recording.store import Recording
from saes.features.firings import FeatureStatistics
from saes.features.readings import MIN_SHARE, WORD_SETS, Judge, Scored
from saes.features.schema import SAID, SOURCES, STATISTICS
from saes.features.views import read_text

STRONG, ALWAYS_STRONG = 0.5, 12
MIN_FIRINGS = 5
VERY_DENSE = 0.5
NAMES_IN_SET = 3
LEAST_OF_SET = 0.1
"""Fraction of firings that each token of a set has at least, and two firings."""
MAX_OTHERS = 4
LONGEST_TOKEN = 24

QUOTED = ("token", "any_form", "word", "tokens", "before", "after", "promotes", *WORD_SETS)
"""Kinds of readings that name tokens."""
READINGS = (*QUOTED, "class", "chunk", "before_class", "after_class", "document", "surroundings",
            "token_before_class", "token_after_class")  # fmt: skip
WRITTEN = "written"
"""Kind of a label written by a language model or a person: it has a text and no further fields."""


class Label(NamedTuple):
    """Label of one feature; `str(label)` is its text, and no code parses that text."""

    kind: str
    """One of `READINGS`, or `dense`, `none`, `rare`, `dead`."""
    names: tuple[str, ...] = ()
    """The tokens that it names, as in the vocabulary; else the name of the class, the surroundings or the documents."""
    share: float | None = None
    """Fraction of the strong firings for which it holds, 0 to 1; for `dense`, the fraction of all tokens with the
    feature active."""
    source: str = STATISTICS
    score: float | None = None
    """Balanced accuracy on held-out firings: 0.5 at chance, 1 without error."""
    null: float | None = None
    """Mean score there of other features' readings from the same source."""
    null_high: float | None = None
    """Their 95th percentile, which the score exceeds."""
    n_heldout: int | None = None
    """Number of held-out firings; also of `none`."""
    others: "tuple[Label, ...]" = ()
    """The best readings of other kinds that also exceed their null."""

    def __str__(self) -> str:
        if self.kind == "dead":
            return "dead"
        percent = "" if self.share is None else f"{self.share * 100:.0f} %"
        if self.kind == "dense":
            return f"dense ({percent} of tokens)"
        if self.kind in ("none", "rare"):
            said = {"none": "no label; fires on ", "rare": "rare: "}[self.kind]
            return said + ", ".join(map(quoted, self.names))
        names = ", ".join(map(quoted, self.names) if self.kind in QUOTED else self.names)
        forms = {"any_form": f"{names} in any form", "document": f"in {names} docs"}
        forms |= {kind: f"{kind.removesuffix('_class')} {names}" for kind in ("before", "after", "promotes")}
        forms |= {"said": f"words like {names}", "said_near": f"near words like {names}"}
        forms["word"] = f"the word {names}"
        forms |= {f"{side}_class": f"{side} {names}" for side in ("before", "after")}
        if self.kind.startswith("token_"):
            forms[self.kind] = f"{quoted(self.names[0])} {self.kind.split('_')[1]} {self.names[1]}"
        often = "often " if self.share is not None and self.share < MIN_SHARE else ""
        return f"{often}{forms.get(self.kind, names)} ({percent})"


def label_features(
    statistics: FeatureStatistics,
    recording: Recording,
    vocabulary: list[str],
    promoted: np.ndarray | None,
    said: np.ndarray | None = None,
    *,
    seed: int = 0,
    dense: bool = True,
) -> list[Label]:
    """Return the label of every feature.

    `promoted [d_sae, k]` are the ids of the few tokens that each direction promotes most, the strongest first; None
    when the directions do not write to the residual stream. `said [d_sae, n]` are those of many that it makes the model
    say, read through the Jacobian lens; None without one. `seed` divides the documents and draws the null. Without
    `dense`, a feature active on most tokens does not get that label: for neurons, which are never exactly 0.
    """
    feature, row = strong_firings(statistics)
    order = np.argsort(row, kind="stable")
    feature, row = feature[order], row[order]
    views = read_text(recording, row, vocabulary)
    tokens = np.concatenate([np.zeros(0, np.int64), *views.views["token"].values])
    judge = Judge(views, feature, statistics.d_sae, seed)
    scored = score_readings(judge, promoted, said)
    order = np.argsort(feature, kind="stable")
    bounds = np.searchsorted(feature[order], np.arange(statistics.d_sae + 1))
    labels = []
    for f in range(statistics.d_sae):
        mine = tokens[order[bounds[f] : bounds[f + 1]]]
        if int(statistics.totals.n_fired[f]) < MIN_FIRINGS:
            labels.append(label_without_evidence(mine, vocabulary))
            continue
        found = [_label(each, judge, f, source) for source, each in scored.get(f, ())]
        label = choose_label(found, mine, vocabulary, float(statistics.density[f]) if dense else 0.0)
        labels.append(label._replace(n_heldout=int(judge.n_judge[f])) if label.kind == "none" else label)
    return labels


def score_readings(
    judge: Judge, promoted: np.ndarray | None, said: np.ndarray | None
) -> dict[int, list[tuple[str, Scored]]]:
    """Return the readings of each feature that exceed their null, with their source, the best first."""

    def most_frequent(feature: int, tokens: np.ndarray, counts: np.ndarray) -> np.ndarray:
        order = np.lexsort((tokens, -counts))[:NAMES_IN_SET]
        return tokens[order[counts[order] >= max(2, LEAST_OF_SET * counts.sum())]]

    best = {kind: judge.best(kind) for kind in judge.counted}
    best["tokens"] = judge.set_of("tokens", "token", most_frequent)
    if promoted is not None:
        best["promotes"] = judge.set_of("promotes", "before", lambda feature, *_: promoted[feature])
    if said is not None:
        words = {f: distinct_words(judge, ids) for f, ids in enumerate(said)}
        best |= {kind: judge.by_words(kind, words) for kind in ("said", "said_near")}
    sources = {kind: each.view.source for kind, each in judge.counted.items()}
    sources |= dict.fromkeys(WORD_SETS, SAID)
    found: dict[int, list[tuple[str, Scored]]] = {}
    for source in SOURCES:
        mine = [readings for kind, readings in best.items() if sources.get(kind, STATISTICS) == source]
        for f, each in judge.score(mine, source).items():
            found.setdefault(f, []).extend((source, one) for one in each if one.confirmed)
    return {f: sorted(each, key=lambda one: -one[1].reading.value) for f, each in found.items()}


def distinct_words(judge: Judge, tokens: np.ndarray) -> np.ndarray:
    """Return the numbers of the words, in any case and spacing, that tokens are; those of few letters are left out."""
    words = np.unique(judge.of_token[tokens])
    words = words[words >= 0]
    return words[judge.nearby.letters[words]]


def _label(scored: Scored, judge: Judge, feature: int, source: str) -> Label:
    kind, named = scored.reading.kind, judge.names(scored.reading, feature)
    names = named[:2] if kind == "promotes" else named
    return Label(kind, names, scored.share, source, scored.score, scored.null_mean, scored.null_high,
                 int(judge.n_judge[feature]))  # fmt: skip


def strong_firings(statistics: FeatureStatistics) -> tuple[np.ndarray, np.ndarray]:
    """Return the features and rows `[n]` of strong firings, sorted and each once.

    Strong are the `ALWAYS_STRONG` largest ones, and those that reach at least half of the feature's maximum.
    """
    pairs = []
    for slots, always in ((statistics.top, ALWAYS_STRONG), (statistics.sample, 0)):
        place = np.argsort(np.argsort(-slots.keys, axis=1, kind="stable"), axis=1)
        strong = (slots.values >= STRONG * statistics.totals.maximum[:, None]) | (place < always)
        strong &= slots.keys >= 0
        pairs.append(np.stack([np.nonzero(strong)[0], slots.rows[strong]]))
    feature, row = np.unique(np.concatenate(pairs, axis=1), axis=1)
    return feature, row


def label_without_evidence(tokens: np.ndarray, vocabulary: list[str]) -> Label:
    """Return the label of a feature that fired fewer than `MIN_FIRINGS` times."""
    if not len(tokens):
        return Label("dead")
    return Label("rare", tuple(vocabulary[i] for i in dict.fromkeys(tokens.tolist())))


def choose_label(found: Sequence[Label], tokens: np.ndarray, vocabulary: list[str], density: float) -> Label:
    """Return the label by steps 3 to 6 of the rule in the module's docstring; `found` are readings, the best first."""
    for holds, density_to_beat in ((True, 1.0), (False, VERY_DENSE)):
        if density > density_to_beat:
            return Label("dense", share=density)
        good = [each for each in found if (each.share is not None and each.share >= MIN_SHARE) == holds]
        if good:
            kinds = {_family(each): each for each in reversed(found) if _family(each) != _family(good[0])}
            others = sorted(kinds.values(), key=found.index)[:MAX_OTHERS]
            return good[0]._replace(others=tuple(others))
    ids, counts = np.unique(tokens, return_counts=True)
    return Label("none", tuple(vocabulary[i] for i in ids[np.argsort(-counts, kind="stable")[:NAMES_IN_SET]]))


def _family(label: Label) -> str:
    """Return the kind of a label; the token itself, its other forms and its word are one."""
    return "token" if label.kind in ("token", "any_form", "word") else label.kind


def quoted(token: str) -> str:
    """Return a token in double quotes, with line breaks as `\\n`, truncated when very long.

    >>> quoted(" the")
    '" the"'
    """
    short = token if len(token) <= LONGEST_TOKEN else token[: LONGEST_TOKEN - 1] + "…"
    return json.dumps(short, ensure_ascii=False)
