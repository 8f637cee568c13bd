"""Words and phrases in the index of a text, and the features that fire on them. Torch-free.

    index = FiringIndex.open(workspace, features)
    sought = index.sought("countries in Europe")      # the words that the index has, without the frequent ones
    index.fired(sought.words, within)                  # share, recall, strength and p of every feature that fires

**One word.** F1 of two fractions, 0 to 1:

- `share`, how selectively: the fraction of the feature's whole activation that falls on this word;
- `recall`, how reliably: the fraction of the word's tokens on which the feature fires.

A word is found in any case, with or without a leading space, and as several tokens (its last one counts). A word with a
space after it is found in its own case alone. **Null**: the same for one random feature that fires as often, on random
tokens.

**Several words.** The mean over the words of `sqrt(a)`, where `a` is the feature's mean activation on the tokens of the
word over its largest in the text: 0 where it never fires, 1 where it always fires as strongly as anywhere. The root
favours features that fire on all of the words: "January April August" finds the feature of months before one of April.
F1 does not, since the share of a few of its words is small (docs/log.md compares twelve scores). Words are weighted by
their information, `log2(1 / frequency)`; those that make up more than `FREQUENT` of the text are left out when there
are rarer ones. `share` is then the fraction that falls on any of them, `recall` the weighted mean. **Null**: the root
of the feature's mean activation on all tokens over its largest; a random feature has at most that.

**p**: the probability that it fires on at least as many of the matching tokens (binomial tail), Holm-adjusted for all
features searched. Tokens of one document are not independent, so p is optimistic where a word occurs in few documents.

**Phrases.** Of several words, adjacent pairs are looked up in their order: `New York` is found at "York" after "New".
The index holds pairs that occur at least `token_index.PHRASE_FROM` times.

The numbers come from the index that `workbench features` writes (`saes/features/token_index.py`). Features without one
are searched through their examples: then `share` and `recall` are fractions of the activation and of the tokens in
those. `recall` is then bounded by `share` times the feature's firings in all text, over the word's tokens.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from interp.workspace import Workspace
from saes.features.examples_index import indexed_examples
from saes.features.found import Filter, Match
from saes.features.schema import Features
from saes.features.token_index import FOLDER, TABLES, fold, query_words

FREQUENT = 0.005
"""A word that makes up more than this fraction of all tokens is left out where the query has rarer ones."""
MAX_WORDS = 12
MAX_MATCHES = 6
"""Matching tokens given per hit."""


@dataclass(frozen=True)
class Word:
    """A word in the index: its ranges of units, its tokens in the text, and its longest unit in tokens."""

    word: str
    ranges: tuple[tuple[int, int], ...]
    n: int
    pieces: int

    def condition(self, column: str = "unit") -> str:
        """Return the SQL condition on the number of a unit."""
        return "(" + " or ".join(f"{column} between {low} and {high}" for low, high in self.ranges) + ")"


@dataclass(frozen=True, kw_only=True)
class Sought:
    """The words of a text in one index."""

    words: tuple[Word, ...] = ()
    """Those to search, the rarest first."""
    phrases: tuple[Word, ...] = ()
    last: tuple[Word, ...] = ()
    """The last word of each phrase."""
    missing: tuple[str, ...] = ()
    missing_phrases: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    near: tuple[tuple[str, int], ...] = ()
    """Longer words that begin with a single word, and how often they occur."""


@dataclass(frozen=True, kw_only=True)
class Fired:
    """Features that fire on some words, `[n]` each; `share`, `recall` and `score` as the head of the module says."""

    feature: np.ndarray
    score: np.ndarray
    null: np.ndarray
    share: np.ndarray
    recall: np.ndarray
    strength: np.ndarray
    """The score of several words, of one word too."""
    fired: np.ndarray
    tries: np.ndarray
    rate: np.ndarray
    """Fraction of all tokens on which the feature fires."""
    p: np.ndarray


@dataclass(frozen=True)
class FiringIndex:
    """The index of one features artefact."""

    workspace: Workspace
    made: Features
    tables: dict[str, Path]
    complete: bool
    """True where it covers all of the text, else that of the examples."""
    n_text: int
    """Tokens in the text."""

    @classmethod
    def open(cls, workspace: Workspace, made: Features) -> "FiringIndex":
        """Open the index of features, or of their examples, which is built the first time."""
        folder = workspace.path("features", made.name) / FOLDER
        complete = folder.is_dir()
        if complete:
            paths = {t: workspace.table_path("features", made.name, f"{FOLDER}/{t}") for t in TABLES}
        else:
            examples = workspace.table_path("features", made.name, "examples")
            key = str((made.about.files.get("examples.parquet") or {}).get("sha256") or made.about.content_hash)
            folder = indexed_examples(examples, key, made.n_features)
            paths = {t: folder / f"{t}.parquet" for t in TABLES}
        tables = {"units": paths["units"], "firings": paths["firings"], "seen": paths["features"]}
        n_text = _tokens_of(workspace, paths["units"], made.about.content_hash)
        return cls(workspace, made, tables, complete, n_text)

    def sought(self, text: str) -> Sought:
        """Look up the words of a text, and its pairs of adjacent words."""
        readings = query_words(text)[: 4 * MAX_WORDS]
        pairs = [f"{a} {b}" for one, two in pairwise(readings) for a in one for b in two]
        known = self.look_up([*(each for reading in readings for each in reading), *pairs])
        if len(readings) == 1 and text != text.rstrip():
            known |= self._as_written(text)
        chosen: dict[str, Word] = {}
        missing = []
        for whole, *rest in readings:
            words = [known[whole]] if whole in known else [known[each] for each in rest if each in known]
            chosen |= {each.word: each for each in words}
            missing += [] if words else [whole]
        rare = [each for each in chosen.values() if self.is_rare(each)] or list(chosen.values())
        used = sorted(rare, key=lambda each: each.n)[:MAX_WORDS]
        phrases, absent = _phrases(readings, known)
        last = {word: known[word] for word in (each.word.rsplit(" ", 1)[1] for each in phrases) if word in known}
        return Sought(
            words=tuple(used),
            phrases=tuple(phrases),
            last=tuple(last.values()),
            missing=tuple(missing),
            missing_phrases=absent,
            left_out=tuple(word for word, each in chosen.items() if each not in used),
            near=self._longer_words(readings[0][0]) if len(readings) == 1 and text == text.rstrip() else (),
        )

    def is_rare(self, word: Word) -> bool:
        """Return whether a word is no more frequent than `FREQUENT`."""
        return word.n <= FREQUENT * self.n_text

    def look_up(self, words: Sequence[str]) -> dict[str, Word]:
        """Return the words, folded, that the index has."""
        sql = """select folded as word, min(unit) as low, max(unit) as high, sum(n)::bigint as n, max(pieces) as pieces
                 from u where folded in (select unnest(?::varchar[])) group by folded having sum(n) > 0"""
        rows = self.workspace.query(sql, list(dict.fromkeys(words)), u=self.tables["units"]).to_pylist()
        return {row["word"]: Word(row["word"], ((row["low"], row["high"]),), row["n"], row["pieces"]) for row in rows}

    def _as_written(self, text: str) -> dict[str, Word]:
        """Return a word that has a space after it: as a token with that space, else in its own case alone."""
        bare = text.strip()
        sql = "select unit, text, n, pieces from u where list_contains(?::varchar[], text) and n > 0 order by unit"
        rows = self.workspace.query(sql, [text, bare, f" {bare}"], u=self.tables["units"]).to_pylist()
        rows = [row for row in rows if row["text"] == text] or rows
        if not rows:
            return {}
        ranges = tuple((row["unit"], row["unit"]) for row in rows)
        word = Word(fold(text), ranges, sum(row["n"] for row in rows), max(row["pieces"] for row in rows))
        return {word.word: word}

    def _longer_words(self, word: str) -> tuple[tuple[str, int], ...]:
        sql = """select folded, sum(n)::bigint as n from u where folded > ? and folded < ? and starts_with(folded, ?)
                 and not contains(folded, ' ') group by folded order by n desc, folded limit 6"""
        rows = self.workspace.query(sql, word, word + "\U0010ffff", word, u=self.tables["units"]).to_pylist()
        return tuple((row["folded"], row["n"]) for row in rows)

    def fired(self, words: Sequence[Word], within: Filter, weights: Mapping[str, float] | None = None) -> Fired:
        """Return the features within a filter that fire on any of the words; `weights` by word, else by information."""
        condition, more = within.condition(self.workspace)
        given = [(weights or {}).get(w.word) or math.log2((self.n_text + 1) / w.n) for w in words]
        union = " union all ".join(
            f"select {weight / sum(given)!r} as weight, {w.n} as n_word, feature, sum(n) as n, sum(seen) as seen, "
            f"sum(share)::double as share from firings where {w.condition()} group by feature"
            for w, weight in zip(words, given, strict=True)
        )
        bound = "n / n_word" if self.complete else "least(n / seen, n_fired * share / n_word)"
        rate = "density" if self.complete else "(seen.n_fired / greatest(seen.n_tokens, 1))"
        fraction, tries = sum(w.n for w in words) / self.n_text, str(sum(w.n for w in words))
        if len(words) == 1:
            score = "2 * share * recall / (share + recall)"
            null = f"2 * {fraction!r} * {rate} / ({fraction!r} + {rate} + 1e-30)"
        else:
            score, null = "strength", "sqrt(density * mean_activation / max_activation)"
        sql = f"""with found as ({union}),
            chosen as (select feature, density, n_fired, mean_activation, max_activation from features
                       where {condition}),
            each_word as (select *, least(1.0, {bound}) as recall,
                least(1.0, share * n_fired * mean_activation / (n_word * max_activation)) as strong
                from found join chosen using (feature)),
            scored as (select feature, sum(share) as share, sum(weight * recall) as recall,
                sum(weight * sqrt(strong)) as strength, sum(n)::bigint as fired, sum(seen)::bigint as seen
                from each_word group by feature)
            select scored.feature, {score} as score, share, recall, strength, fired,
                {tries if self.complete else "scored.seen"}::bigint as tries, {rate} as rate,
                {null} as "null", (select count(*) from chosen) as searched
            from scored join chosen using (feature) {"" if self.complete else "join seen using (feature)"}
            order by feature"""
        paths = {"firings": self.tables["firings"], "seen": self.tables["seen"], **more}
        paths["features"] = self.workspace.table_path("features", self.made.name, "features")
        found = self.workspace.query(sql, **paths)
        columns = {name: found[name].to_numpy() for name in found.column_names}
        searched = int(columns.pop("searched").max(initial=0))
        p = chance_of_firings(columns["fired"], columns["tries"], columns["rate"], searched)
        return Fired(**columns, p=p)

    def matches(self, words: Sequence[Word], features: Sequence[int]) -> dict[int, tuple[Match, ...]]:
        """Return for some features the texts on which they fire, those with most activation first."""
        if not words or not features:
            return {}
        inside, outside = (" or ".join(w.condition(c) for w in words) for c in ("unit", "firings.unit"))
        sql = f"""select feature, text, sum(firings.n)::bigint as n, sum(seen)::bigint as seen,
                  max(max_activation) as largest
                  from firings join (select unit, text from units where {inside}) using (unit)
                  where ({outside}) and list_contains(?::int[], feature)
                  group by feature, text order by feature, sum(share) desc, text"""
        found: dict[int, tuple[Match, ...]] = {}
        paths = {name: self.tables[name] for name in ("firings", "units")}
        for row in self.workspace.query(sql, list(features), **paths).to_pylist():
            mine = found.get(row["feature"], ())
            if len(mine) < MAX_MATCHES:
                found[row["feature"]] = (*mine, Match(row["text"], row["n"], row["seen"], row["largest"]))
        return found


@lru_cache(maxsize=64)
def _tokens_of(workspace: Workspace, units: Path, content_hash: str) -> int:
    """Return the number of tokens of an indexed text, at least 1; counted once for the content of an artefact."""
    found = workspace.query("select sum(n)::bigint as n from u where pieces = 1", u=units)["n"][0].as_py()
    return found or 1


def _phrases(readings: list[tuple[str, ...]], known: dict[str, Word]) -> tuple[list[Word], tuple[str, ...]]:
    """Return the adjacent pairs of words that the index holds, and those that it does not."""
    found: dict[str, Word] = {}
    absent = []
    for one, two in pairwise(readings):
        here = next((known[pair] for a in one for b in two if (pair := f"{a} {b}") in known), None)
        if here is None:
            absent.append(f"{one[0]} {two[0]}")
        else:
            found[here.word] = here
    return list(found.values())[:MAX_WORDS], tuple(dict.fromkeys(absent))


def chance_of_firings(fired: np.ndarray, tries: np.ndarray, rate: np.ndarray, n_searched: int) -> np.ndarray:
    """Return the Holm-adjusted probability of `fired [n]` or more firings of `tries [n]` at chance `rate [n]`.

    The null fires on each token independently, as often as the feature does in all of the text (binomial tail; the
    hypergeometric one is smaller). Features of the `n_searched` that fire on none of the tokens have p = 1.
    """
    from scipy.special import bdtrc

    from interp.statistics import holm

    p = np.ones(max(n_searched, len(fired)))
    p[: len(fired)] = bdtrc(fired - 1.0, np.maximum(tries, fired), np.clip(rate, 0.0, 1.0))
    return holm(p)[: len(fired)]
