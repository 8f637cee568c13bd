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
   there is a Jacobian lens (`views.py` here): the token is one of them (`said`, 'words like "eat", "cook" (90 %)'), or
   one is near (`said_near`, 'near words like "team", "game" (66 %)');
3. a reading whose score on held-out firings is not above 95 % of the scores that other features' readings reach there
   is dropped. Of the rest, the one with the most information per firing is the label, if it holds for at least half of
   the firings and three times as often as anywhere; the best of the other kinds go with it (`others`). A class that
   holds no more often than for one other feature in twenty (on many dictionaries: noun, adjective, punctuation) comes
   after all readings that say more;
4. else, for a feature active on more than half of all tokens: `dense`, 'dense (73 % of tokens)';
5. else, a remaining reading with a share of at least one fifth and at least ten times the base: its kind, with a share
   below one half, 'often before " of" (35 %)';
6. else `none`, 'no label; fires on " the", " of", "."': the tokens are the plain fact, and no meaning is claimed.

Promoted tokens count only where they do follow: in early and middle layers, most tokens that a direction promotes never
occur next. A label describes the contexts in which a feature fires; it is not a claim about its meaning.

Readings of firings: predicates of the text, counted, chosen on one half of the documents and judged on the other.

A *reading* is a predicate of a token in its text, such as "the word is a calendar month", "the next token is ' of'",
"inside quotation marks". Its `share` is the fraction of a feature's firings for which it holds, its `base` the fraction
of all tokens. Its *score* is the balanced accuracy `(share + 1 - base) / 2` on held-out firings: 0.5 at chance, 1 where
it holds for every firing and for no other token.

1. Each view of the text (`saes/features/_views.py`) has values of tokens, and predicates of values. Per feature, counts
   of values become counts of predicates by one sparse product.
2. Documents fall into two halves by a seed. On the first, each view's reading of the largest
   `share ** 2 * log2(share / base)` is chosen, among those whose number of firings is improbable by chance: a Chernoff
   bound of the binomial tail below `ALPHA`, divided by the number of predicates tried.
3. On the second half it is scored; and so are the readings of `OTHER_LABELS` other features from the same source. Their
   mean and 95th percentile (of fewer than 19, their largest) are its null.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from interp.nulls import OTHER_LABELS
from interp.recording.store import Recording
from saes.features._firings import FeatureStatistics
from saes.features._views import NEAR, OWN, Nearby, Sets, TokenView, Views, read_text
from saes.features.schema import MIN_HELDOUT, SAID, SAYS, SOURCES, STATISTICS, quoted

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MIN_SHARE, MIN_LIFT, OFTEN_SHARE, OFTEN_LIFT = 0.5, 3.0, 0.2, 10.0
MIN_CHOOSE = 3
"""Fewest firings on which a reading is chosen; it is judged on at least `MIN_HELDOUT`."""
ALPHA, NULL_QUANTILE = 0.01, 0.95
MIN_WORDS, STEM = 2.0, 5
"""Fewest words, as the inverse of the sum of their squared fractions, for a class to be more than one word.
Words of the same `STEM` first letters count as one."""
BITS_OF_SET, BITS_OF_PAIR, BITS_OF_NEAR = 2.0, 1.0, 3.0
"""Bits per firing that a reading by several tokens, by a token and a class next to it, or by words nearby must gain to
be preferred."""
WORD_SETS = {"said": OWN, "said_near": NEAR}
"""Kinds of readings by a set of words, and where one of them is looked for (`saes/features/_views.py`)."""


class Counted(NamedTuple):
    """One view of all features: how many firings of each feature satisfy each predicate."""

    view: TokenView
    base: np.ndarray
    """fraction of all tokens, `[n_predicates]`"""
    usual: np.ndarray
    """`usual_shares` of classes, `[n_predicates]`; 0 for tokens, which say much however many features they have"""
    choose: "csr_array"
    """`[n_features, n_predicates]`, on the documents where readings are chosen"""
    judge: "csr_array"
    """the same on those where they are judged"""
    varied: np.ndarray
    """for the entries of `choose`: made up of at least `MIN_WORDS` words, `[n_entries]` bool"""


class LabelReading(NamedTuple):
    """A predicate, or a set of those that exclude each other, and for how many of a feature's firings it holds."""

    kind: str
    columns: tuple[int, ...]
    """predicates of the view, any of which holds"""
    share: float
    """fraction of the feature's firings on which it was chosen, 0 to 1"""
    base: float
    """fraction of all tokens, 0 to 1"""
    usual: float = 0.0
    """share that it exceeds in at most a twentieth of all features, 0 to 1; of classes"""

    @property
    def holds(self) -> bool:
        return self.share >= MIN_SHARE and self.share >= MIN_LIFT * self.base

    @property
    def holds_often(self) -> bool:
        return self.share >= OFTEN_SHARE and self.share >= OFTEN_LIFT * self.base

    @property
    def value(self) -> float:
        """Return `share ** 2 * log2(share / base)`, less the bits of a set or pair; readings that hold come first.

        Where the usual share of features is larger, it is the base. Below it the value is negative and comes last: of
        two nouns, features of *recipes* and of *bolts*, it does not tell which.
        """
        if WORD_SETS.get(self.kind) == NEAR:
            price = BITS_OF_NEAR
        else:
            price = BITS_OF_SET if len(self.columns) > 1 else BITS_OF_PAIR if self.kind.startswith("token_") else 0.0
        bits = np.log2(self.share / max(self.base, self.usual)) - price
        return float(self.share**2 * bits) + (100.0 if self.holds and self.share > self.usual else 0.0)


class ScoredReading(NamedTuple):
    """A reading with its score on held-out firings, and those of other features' readings from the same source."""

    reading: LabelReading
    share: float
    """fraction of all strong firings for which it holds"""
    heldout: float
    """the same of the held-out ones"""
    score: float
    null_mean: float
    null_high: float
    """95th percentile of the null, the largest of fewer than 19; 0.5 without other readings"""

    @property
    def confirmed(self) -> bool:
        """It holds on the held-out firings as it must on the others, and its score exceeds 95 % of the null."""
        seen = self.reading._replace(share=self.heldout)
        return self.score > self.null_high and (seen.holds or (seen.holds_often and not self.reading.holds))


Numbers = float | np.ndarray


def improbable(share: Numbers, base: Numbers, n: Numbers, n_tried: int) -> np.ndarray:
    """Return where a share this far above the base, of `n` firings, is improbable after `n_tried` predicates.

    Shares and bases are 0 to 1; numbers, or arrays of one shape. The Chernoff bound of the binomial tail is below
    `ALPHA / n_tried`.
    """
    miss = np.maximum(1 - share, 1e-12)
    divergence = share * np.log(share / base) + miss * np.log(miss / np.maximum(1 - base, 1e-12))
    return (share > base) & (n * divergence >= np.log(max(n_tried, 1) / ALPHA))


class FiringCounts:
    """Counts of all features, from which readings are chosen and judged.

    `feature [n]` is the feature of each firing in `views`; documents are divided by `seed`.
    """

    def __init__(self, views: Views, feature: np.ndarray, n_features: int, seed: int):
        self.n_features, self.seed = n_features, seed
        n_documents = int(views.document.max(initial=0)) + 1
        half = np.random.default_rng(seed).permutation(n_documents) % 2 == 0
        self.chooses = chooses = half[views.document]
        self.n_choose = np.bincount(feature[chooses], minlength=n_features)
        self.n_judge = np.bincount(feature[~chooses], minlength=n_features)
        self.counted: dict[str, Counted] = {}
        for kind, view in views.views.items():
            values, holds = np.concatenate([np.zeros(0, np.int64), *view.values]), view.holds
            counts = view.counts if holds is None else view.counts @ holds
            base = np.maximum(counts, 0.5) / views.n_tokens
            choose, judge = (self._count(feature, values, mask, len(view.counts)) for mask in (chooses, ~chooses))
            of_values = choose
            if holds is not None:
                choose, judge = ((counts @ holds).tocsr().sorted_indices() for counts in (choose, judge))
            varied = self._varied(of_values, choose, view) if view.texts else np.ones(choose.nnz, bool)
            usual = np.zeros(len(base)) if view.source == STATISTICS else usual_shares(choose, self.n_choose)
            self.counted[kind] = Counted(view, base, usual, choose, judge, varied)
        self.of_token = views.of_token
        self.nearby = Nearby(views.folded, views.firings, views.sampled, feature, n_features)
        self.n_tried = sum(int((counted.base * views.n_tokens >= 1).sum()) for counted in self.counted.values())

    def _count(self, feature: np.ndarray, values: np.ndarray, mask: np.ndarray, n_values: int) -> "csr_array":
        """Return the number of firings of each feature with each value, `[n_features, n_values]`."""
        from scipy.sparse import csr_array

        mask = mask & (values >= 0)
        shape = (self.n_features, n_values)
        counts = csr_array((np.ones(int(mask.sum()), np.float32), (feature[mask], values[mask])), shape=shape)
        counts.sum_duplicates()
        return counts

    def _varied(self, of_words: "csr_array", of_classes: "csr_array", view: TokenView) -> np.ndarray:
        """Return for each entry of `of_classes` whether at least `MIN_WORDS` words make it up."""
        from scipy.sparse import csr_array

        assert view.holds is not None
        _, stem = np.unique([text.lower()[:STEM] for text in view.texts], return_inverse=True)
        shape = (len(stem), int(stem.max(initial=0)) + 1)
        to_stem = csr_array((np.ones(len(stem), np.float32), (np.arange(len(stem)), stem)), shape=shape)
        squares = (of_words @ to_stem).power(2) @ (to_stem.T @ view.holds).sign()
        by_stem = squares.multiply(of_classes.sign()).tocsr().sorted_indices()
        return of_classes.data**2 >= MIN_WORDS * by_stem.data

    def names(self, reading: LabelReading, feature: int) -> tuple[str, ...]:
        """Return the names of a reading's predicates; of a set of words, those most frequent at the firings."""
        if reading.kind in WORD_SETS:
            return self.nearby.most_frequent(feature, np.array(reading.columns), WORD_SETS[reading.kind])
        names = self.counted[_view(reading.kind)].view.names
        predicates = [names[column] for column in reading.columns]
        first = predicates[0]
        return first if isinstance(first, tuple) else tuple(map(str, predicates))

    def best(self, kind: str) -> dict[int, LabelReading]:
        """Return the best reading of each feature in one view; between equal ones, the deeper class."""
        counted = self.counted[kind]
        row = np.repeat(np.arange(self.n_features), np.diff(counted.choose.indptr))
        column, n = counted.choose.indices, self.n_choose[row]
        share, base, usual = counted.choose.data / np.maximum(n, 1), counted.base[column], counted.usual[column]
        holds = (share >= MIN_SHARE) & (share >= MIN_LIFT * base)
        often = (share >= OFTEN_SHARE) & (share >= OFTEN_LIFT * base)
        good = (holds | often) & counted.varied & (counted.choose.data >= MIN_CHOOSE)
        good &= improbable(share, base, n, self.n_tried)
        row, column, share, base, usual, holds = (array[good] for array in (row, column, share, base, usual, holds))
        value = share**2 * np.log2(share / np.maximum(base, usual)) + 100 * (holds & (share > usual))
        order = np.lexsort((value, row))
        last = order[np.append(np.diff(row[order]) > 0, True)] if len(order) else order
        numbers = zip(row[last], column[last], share[last], base[last], usual[last], strict=True)
        return {int(f): LabelReading(kind, (int(c),), float(s), float(b), float(u)) for f, c, s, b, u in numbers}

    def set_of(
        self, kind: str, view: str, columns: Callable[[int, np.ndarray, np.ndarray], np.ndarray]
    ) -> dict[int, LabelReading]:
        """Return for each feature the reading by several predicates of a view, where it holds.

        `columns(feature, predicates, counts)` chooses from those that the feature has.
        """
        counts, base, readings = self.counted[view].choose, self.counted[view].base, {}
        for f in np.flatnonzero(self.n_choose >= MIN_CHOOSE).tolist():
            row = slice(counts.indptr[f], counts.indptr[f + 1])
            predicates, n = counts.indices[row], counts.data[row]
            chosen = columns(f, predicates, n)
            share = float(n[np.isin(predicates, chosen)].sum() / self.n_choose[f])
            reading = LabelReading(kind, tuple(map(int, chosen)), share, float(base[chosen].sum()))
            if len(chosen) > 1 and reading.holds and improbable(share, reading.base, self.n_choose[f], self.n_tried):
                readings[f] = reading
        return readings

    def by_words(self, kind: str, sets: Sets) -> dict[int, LabelReading]:
        """Return for each feature the reading by its set of words, where it holds on the half where they are chosen."""
        readings, where = {}, WORD_SETS[kind]
        counts = self.nearby.counts(sets, where, self.chooses)
        base = self.nearby.fractions(sets, where)
        least = 0.5 / len(self.nearby.tokens.own)
        for f, words in sets.items():
            n = int(self.n_choose[f])
            if n < MIN_CHOOSE or counts[f] < MIN_CHOOSE:
                continue
            reading = LabelReading(kind, tuple(words.tolist()), float(counts[f] / n), max(base[f], least))
            if (reading.holds or reading.holds_often) and improbable(reading.share, reading.base, n, self.n_tried):
                readings[f] = reading
        return readings

    def shares(self, readings: dict[int, LabelReading], part: str) -> dict[int, float]:
        """Return the number of firings of each feature that its reading holds for, on one half of the documents."""
        n_firings = {}
        kinds = {reading.kind for reading in readings.values()} & WORD_SETS.keys()
        for kind in kinds:
            sets = {f: np.array(reading.columns) for f, reading in readings.items() if reading.kind == kind}
            counts = self.nearby.counts(sets, WORD_SETS[kind], self.chooses == (part == "choose"))
            n_firings |= {f: float(counts[f]) for f in sets}
        for f, reading in readings.items():
            if reading.kind in WORD_SETS:
                continue
            counts = getattr(self.counted[_view(reading.kind)], part)
            row = slice(counts.indptr[f], counts.indptr[f + 1])
            n_firings[f] = float(counts.data[row][np.isin(counts.indices[row], reading.columns)].sum())
        return n_firings

    def null(self, readings: Sequence[LabelReading]) -> np.ndarray:
        """Return the scores `[n_features, len(readings)]` of readings on the held-out firings of every feature."""
        from scipy.sparse import csr_array

        scores = np.full((self.n_features, len(readings)), 0.5)
        n = np.maximum(self.n_judge, 1)[:, None]
        for kind, counted in self.counted.items():
            numbers = [i for i, reading in enumerate(readings) if _view(reading.kind) == kind]
            if not numbers:
                continue
            rows = np.concatenate([readings[i].columns for i in numbers])
            columns = np.repeat(np.arange(len(numbers)), [len(readings[i].columns) for i in numbers])
            shape = (len(counted.base), len(numbers))
            chosen = csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
            share = (counted.judge @ chosen).toarray() / n
            scores[:, numbers] = (share + 1 - np.array([readings[i].base for i in numbers])) / 2
        for kind, where in WORD_SETS.items():
            numbers = [i for i, reading in enumerate(readings) if reading.kind == kind]
            if numbers:
                sets = [np.array(readings[i].columns) for i in numbers]
                share = self.nearby.shares(sets, where, ~self.chooses)
                scores[:, numbers] = (share + 1 - np.array([readings[i].base for i in numbers])) / 2
        return scores

    def score(self, readings: Sequence[dict[int, LabelReading]], source: str) -> dict[int, list[ScoredReading]]:
        """Return the readings of each feature from one source with their scores and null, the best first.

        Features with fewer than `MIN_HELDOUT` held-out firings have none.
        """
        best: dict[int, LabelReading] = {}
        for by_feature in readings:
            for f, reading in by_feature.items():
                best[f] = max(best.get(f, reading), reading, key=lambda candidate: candidate.value)
        rng = np.random.default_rng([self.seed, SOURCES.index(source)])
        drawn = rng.permutation(sorted(best))[: OTHER_LABELS + 1].tolist()
        others = [best[f] for f in drawn]
        null = self.null(others)
        ranking: dict[int, list[ScoredReading]] = {}
        for by_feature in readings:
            chosen, judged = (self.shares(by_feature, part) for part in ("choose", "judge"))
            for f, reading in by_feature.items():
                if self.n_judge[f] < MIN_HELDOUT:
                    continue
                heldout = judged[f] / int(self.n_judge[f])
                score = (heldout + 1 - reading.base) / 2
                mask = [g != f and o[:2] != reading[:2] for g, o in zip(drawn, others, strict=True)]
                theirs = null[f, mask] if any(mask) else np.full(1, 0.5)
                mean, high = float(theirs.mean()), upper_end(theirs)
                share = (chosen[f] + judged[f]) / int(self.n_choose[f] + self.n_judge[f])
                ranking.setdefault(f, []).append(ScoredReading(reading, share, heldout, score, mean, high))
        return {f: sorted(scores, key=lambda score: -score.reading.value) for f, scores in ranking.items()}


def usual_shares(counts: "csr_array", n_firings: np.ndarray) -> np.ndarray:
    """Return for each predicate the share of firings that at most a twentieth of the features exceeds.

    `counts [n_features, n_predicates]`, `n_firings [n_features]`; features with fewer than `MIN_CHOOSE` do not count,
    and of fewer than 20 the answer is 0: no share is then rare.
    """
    judged = n_firings >= MIN_CHOOSE
    rank = int((1 - NULL_QUANTILE) * judged.sum())
    usual = np.zeros(counts.shape[1])
    if rank:
        shares = counts[judged]
        shares.data = shares.data / np.repeat(n_firings[judged], np.diff(shares.indptr))
        shares = shares.T.tocsr()
        for column in np.flatnonzero(np.diff(shares.indptr) > rank).tolist():
            values = shares.data[shares.indptr[column] : shares.indptr[column + 1]]
            usual[column] = np.partition(values, -rank - 1)[-rank - 1]
    return usual


def upper_end(values: np.ndarray) -> float:
    """Return the 95th percentile of a null by Weibull's rule, the largest of fewer than 19 values.

    `np.quantile(values, 0.95, method="weibull")`, which takes some 200 microseconds, in 8: labels ask it often.
    """
    ordered = np.sort(values)
    at = min(max(NULL_QUANTILE * (len(ordered) + 1) - 1, 0.0), len(ordered) - 1.0)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (at - low) * (ordered[high] - ordered[low]))


def _view(kind: str) -> str:
    """Return the view whose predicates a kind of reading consists of."""
    return {"tokens": "token", "promotes": "before"}.get(kind, kind)


STRONG, ALWAYS_STRONG = 0.5, 12
MIN_FIRINGS = 5
VERY_DENSE = 0.5
NAMES_IN_SET = 3
LEAST_OF_SET = 0.1
"""Fraction of firings that each token of a set has at least, and two firings."""
MAX_OTHERS = 4

QUOTED = ("token", "any_form", "word", "tokens", "before", "after", "promotes", *WORD_SETS)
"""Kinds of readings that name tokens."""
READINGS = (*QUOTED, "class", "chunk", "before_class", "after_class", "document", "surroundings",
            "token_before_class", "token_after_class")  # fmt: skip


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
        if self.kind == SAYS:
            return f"says {', '.join(name.strip() for name in self.names)}"
        percent = "" if self.share is None else f"{self.share * 100:.0f} %"
        if self.kind == "dense":
            return f"dense ({percent} of tokens)"
        if self.kind in ("none", "rare"):
            prefix = {"none": "no label; fires on ", "rare": "rare: "}[self.kind]
            return prefix + ", ".join(map(quoted, self.names))
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
    lens_ids: np.ndarray | None = None,
    *,
    seed: int = 0,
    dense: bool = True,
) -> list[Label]:
    """Return the label of every feature.

    `promoted [d_sae, k]` are the ids of the few tokens that each direction promotes most, the strongest first; None
    when the directions do not write to the residual stream. `lens_ids [d_sae, n]` are those of many that it makes the
    model say, read through the Jacobian lens; None without one. `seed` divides the documents and draws the null.
    Without `dense`, a feature active on most tokens does not get that label: for neurons, which are never exactly 0.
    """
    feature, row = strong_firings(statistics)
    order = np.argsort(row, kind="stable")
    feature, row = feature[order], row[order]
    views = read_text(recording, row, vocabulary)
    tokens = np.concatenate([np.zeros(0, np.int64), *views.views["token"].values])
    judge = FiringCounts(views, feature, statistics.d_sae, seed)
    scored = score_readings(judge, promoted, lens_ids)
    order = np.argsort(feature, kind="stable")
    bounds = np.searchsorted(feature[order], np.arange(statistics.d_sae + 1))
    labels = []
    for f in range(statistics.d_sae):
        fired = tokens[order[bounds[f] : bounds[f + 1]]]
        if int(statistics.totals.n_fired[f]) < MIN_FIRINGS:
            labels.append(label_without_evidence(fired, vocabulary))
            continue
        candidates = [_label(score, judge, f, source) for source, score in scored.get(f, ())]
        label = choose_label(candidates, fired, vocabulary, float(statistics.density[f]) if dense else 0.0)
        labels.append(label._replace(n_heldout=int(judge.n_judge[f])) if label.kind == "none" else label)
    return labels


def score_readings(
    judge: FiringCounts, promoted: np.ndarray | None, lens_ids: np.ndarray | None
) -> dict[int, list[tuple[str, ScoredReading]]]:
    """Return the readings of each feature that exceed their null, with their source, the best first."""

    def most_frequent(feature: int, tokens: np.ndarray, counts: np.ndarray) -> np.ndarray:
        order = np.lexsort((tokens, -counts))[:NAMES_IN_SET]
        return tokens[order[counts[order] >= max(2, LEAST_OF_SET * counts.sum())]]

    best = {kind: judge.best(kind) for kind in judge.counted}
    best["tokens"] = judge.set_of("tokens", "token", most_frequent)
    if promoted is not None:
        best["promotes"] = judge.set_of("promotes", "before", lambda feature, *_: promoted[feature])
    if lens_ids is not None:
        words = {f: distinct_words(judge, ids) for f, ids in enumerate(lens_ids)}
        best |= {kind: judge.by_words(kind, words) for kind in ("said", "said_near")}
    sources = {kind: counted.view.source for kind, counted in judge.counted.items()}
    sources |= dict.fromkeys(WORD_SETS, SAID)
    scores: dict[int, list[tuple[str, ScoredReading]]] = {}
    for source in SOURCES:
        candidates = [readings for kind, readings in best.items() if sources.get(kind, STATISTICS) == source]
        for f, entries in judge.score(candidates, source).items():
            scores.setdefault(f, []).extend((source, score) for score in entries if score.confirmed)
    return {f: sorted(pairs, key=lambda pair: -pair[1].reading.value) for f, pairs in scores.items()}


def distinct_words(judge: FiringCounts, tokens: np.ndarray) -> np.ndarray:
    """Return the numbers of the words, in any case and spacing, that tokens are; those of few letters are left out."""
    words = np.unique(judge.of_token[tokens])
    words = words[words >= 0]
    return words[judge.nearby.letters[words]]


def _label(scored: ScoredReading, judge: FiringCounts, feature: int, source: str) -> Label:
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


def choose_label(candidates: Sequence[Label], tokens: np.ndarray, vocabulary: list[str], density: float) -> Label:
    """Return the label by steps 3 to 6 of the rule in the module's docstring; `candidates` come the best first."""
    best = next(iter(candidates), None)
    holds = best is not None and best.share is not None and best.share >= MIN_SHARE
    if density > VERY_DENSE and not holds:
        return Label("dense", share=density)
    if best is not None:
        kinds = {_family(label): label for label in reversed(candidates) if _family(label) != _family(best)}
        return best._replace(others=tuple(sorted(kinds.values(), key=candidates.index)[:MAX_OTHERS]))
    ids, counts = np.unique(tokens, return_counts=True)
    return Label("none", tuple(vocabulary[i] for i in ids[np.argsort(-counts, kind="stable")[:NAMES_IN_SET]]))


def _family(label: Label) -> str:
    """Return the kind of a label; the token itself, its other forms and its word are one."""
    return "token" if label.kind in ("token", "any_form", "word") else label.kind
