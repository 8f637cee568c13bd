"""Every firing in nine views of its text: its token, the tokens next to it, classes of words, surroundings.

`read_text` goes through the token shards once. It joins tokens to words and to the chunks between spaces, and gives
every token a value in each view: token, any form, next and preceding token, document, the word and its neighbours, the
chunk, and flags of its surroundings (first of a document, inside quotation marks, in French text). Values are counted
over at most about `BASE_ROWS` tokens. Classes are looked up once per distinct word (`saes/features/lexicon.py`).

Sets of words at a firing and near it: readings such as 'words like "oven", "chef", "kitchen" (64 %)'.

A set is what a feature's direction makes the model say, read through the Jacobian lens (`saes/features/meaning.py`): it
is chosen without looking at any text, so it may be large. Words are compared in any case and spacing. A reading holds
where the token itself is in the set, or where one of the `REACH` tokens on either side in the same passage is.
Fractions of all tokens are estimated from `SAMPLED` tokens.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from interp.recording.store import Recording, document_names
from saes.features._token_index import Spelling, mix_bits, spell
from saes.features.lexicon import Lexicon, spelling_of_chunk
from saes.features.schema import CLASSES, CONTEXT, STATISTICS

if TYPE_CHECKING:
    from scipy.sparse import csr_array

REACH = 16
SAMPLED = 1 << 15
OWN, NEAR = "own", "near"
"""Tokens at which a set of words is looked for: the token itself, or its neighbours."""
LEAST_LETTERS = 3
"""Fewest letters of a word of a set."""
_BLOCK = 1 << 15

Sets = Mapping[int, np.ndarray]
"""Numbers of words by feature, each an array without repetitions."""


class Windows(NamedTuple):
    """Numbers of the words around tokens."""

    own: np.ndarray
    """number of the token's own text, `[n]` int32"""
    near: np.ndarray
    """those around it, `[n, 2 * REACH]` int32; -1 outside its passage and for white space"""

    @classmethod
    def join(cls, parts: "Sequence[Windows]") -> "Windows":
        """Return the windows of several shards as one."""
        empty = cls(np.zeros(0, np.int32), np.zeros((0, 2 * REACH), np.int32))
        return cls(*map(np.concatenate, zip(empty, *parts, strict=True)))

    def of(self, where: str) -> np.ndarray:
        """Return the numbers to look in, `[n, width]`."""
        return self.own[:, None] if where == OWN else self.near


def windows_at(folded: np.ndarray, passage: np.ndarray, at: np.ndarray) -> Windows:
    """Return the windows of the tokens `at [n]`; `folded` and `passage` are word and passage of all tokens."""
    offsets = np.concatenate([np.arange(-REACH, 0), np.arange(1, REACH + 1)])
    places = at[:, None] + offsets
    inside = (places >= 0) & (places < len(folded))
    places = np.clip(places, 0, max(len(folded) - 1, 0))
    inside &= passage[places] == passage[at][:, None]
    return Windows(folded[at].astype(np.int32), np.where(inside, folded[places], -1).astype(np.int32))


class Nearby:
    """Windows of all firings and of sampled tokens, sorted by feature, in which sets of words are looked for."""

    def __init__(self, names: Sequence[str], firings: Windows, tokens: Windows, feature: np.ndarray, n_features: int):
        order = np.argsort(feature, kind="stable")
        self.order, self.feature, self.n_features = order, feature[order], n_features
        self.firings = Windows(firings.own[order], firings.near[order])
        self.tokens, self.names = tokens, names
        self.bounds = np.searchsorted(self.feature, np.arange(n_features + 1))
        self.letters = np.array([len(name) >= LEAST_LETTERS and name.isalpha() for name in names])

    def holds(self, sets: Sets, where: str) -> np.ndarray:
        """Return for each firing whether a word of its feature's set is there, `[n]` bool in the order given."""
        size = len(self.names)
        keys = np.sort(np.concatenate([np.zeros(0, np.int64), *(f * size + words for f, words in sets.items())]))
        mask = np.zeros(len(self.feature), bool)
        windows = self.firings.of(where)
        for start in range(0, len(windows), _BLOCK):
            block = windows[start : start + _BLOCK].astype(np.int64)
            queries = np.where(block >= 0, self.feature[start : start + _BLOCK, None] * size + block, -1)
            at = np.searchsorted(keys, queries).clip(max=max(len(keys) - 1, 0))
            mask[start : start + _BLOCK] = (keys[at] == queries).any(1) if len(keys) else False
        out = np.empty_like(mask)
        out[self.order] = mask
        return out

    def counts(self, sets: Sets, where: str, chosen: np.ndarray) -> np.ndarray:
        """Return for every feature the number of its firings in `chosen` for which its set holds, `[n_features]`."""
        mask = (self.holds(sets, where) & chosen)[self.order]
        return np.bincount(self.feature[mask], minlength=self.n_features)

    def most_frequent(self, feature: int, words: np.ndarray, where: str, k: int = 3) -> tuple[str, ...]:
        """Return the names of the `k` words of a set that are there for most firings of a feature."""
        windows = self.firings.of(where)[self.bounds[feature] : self.bounds[feature + 1]]
        counts: dict[int, int] = {word: int((windows == word).any(1).sum()) for word in words.tolist()}
        best = sorted(counts, key=lambda word: (-counts[word], word))[:k]
        return tuple(self.names[word] for word in best if counts[word])

    def fractions(self, sets: Sets, where: str) -> dict[int, float]:
        """Return for each set the fraction of all tokens for which it holds."""
        listed = list(sets)
        counts = np.zeros(len(listed))
        for start, masks in self._blocks(self.tokens.of(where), [sets[f] for f in listed]):
            counts[start : start + masks.shape[1]] += masks.sum(0)
        return dict(zip(listed, (counts / max(len(self.tokens.own), 1)).tolist(), strict=True))

    def shares(self, sets: Sequence[np.ndarray], where: str, chosen: np.ndarray) -> np.ndarray:
        """Return for every feature the fraction of its firings in `chosen` for which each set holds,
        `[n_features, len(sets)]`."""
        inside = chosen[self.order]
        feature, windows = self.feature[inside], self.firings.of(where)[inside]
        n = np.maximum(np.bincount(feature, minlength=self.n_features), 1)
        counts = np.zeros((self.n_features, len(sets)))
        for start, masks in self._blocks(windows, sets):
            for column in range(masks.shape[1]):
                counts[:, start + column] = np.bincount(feature[masks[:, column]], minlength=self.n_features)
        return counts / n[:, None]

    def _blocks(self, windows: np.ndarray, sets: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield for some sets at a time the first one's index, and where they hold, `[n, n_sets]` bool."""
        for start in range(0, len(sets), 64):
            part = sets[start : start + 64]
            member = np.zeros(len(self.names) + 1, np.uint64)
            for bit, chosen in enumerate(part):
                member[chosen] |= np.uint64(1) << np.uint64(bit)
            bits = np.bitwise_or.reduce(member[windows], axis=1)
            yield start, (bits[:, None] >> np.arange(len(part), dtype=np.uint64) & np.uint64(1)).astype(bool)


BASE_ROWS = 1 << 22

FLAGS = (
    "first token of a document", "first tokens of a document", "start of a sentence", "start of a line",
    "first piece of a longer word", "middle piece of a word", "last piece of a longer word", "in parentheses",
    "in quotation marks", "in code or formulas", "in a list item", "in a heading",
    "a token that came before in the passage", "a pair of tokens that came before in the passage",
    "in French text", "in German text", "in Spanish text", "in Italian text", "in Portuguese text", "in Latin text",
)  # fmt: skip
_LANGUAGES = tuple(name.split()[1] for name in FLAGS if name.endswith(" text"))
_REACH, _CODE_REACH = 16, 8
OFTEN = 64
"""Number of the most frequent tokens for which the class of the word next to them is a predicate of its own."""


class Names:
    """Distinct texts of runs of tokens, numbered as they come."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._of_hash: dict[int, int] = {}

    def number(self, codes: np.ndarray, starts: np.ndarray, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the run of each token, and the number of each run's text; a run begins where `starts` is True."""
        first = np.flatnonzero(starts)
        run = np.cumsum(starts) - 1
        place = (np.arange(len(codes)) - first[run]).astype(np.uint64)
        hashes = np.add.reduceat(mix_bits(codes.astype(np.uint64) + (place << np.uint64(32)) + np.uint64(1)), first)
        distinct, where, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        ends = np.append(first[1:], len(codes))
        numbers = np.empty(len(distinct), np.int64)
        for i, (key, at) in enumerate(zip(distinct.tolist(), where.tolist(), strict=True)):
            known = self._of_hash.get(key)
            if known is None:
                known = self._of_hash[key] = len(self.texts)
                self.texts.append("".join(texts[c] for c in codes[first[at] : ends[at]][:64].tolist()).strip(" "))
            numbers[i] = known
        return run, numbers[inverse]


@dataclass
class TokenView:
    """One way to look at a token: a value of every firing, the values of all tokens, and predicates of values."""

    kind: str
    """kind of a label by this view"""
    source: str
    names: Sequence[str | tuple[str, str]] = ()
    """name of every predicate; of a pair `(token, class)`"""
    values: list[np.ndarray] = field(default_factory=list)
    """value of each firing, by shard; -1 where there is none"""
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """tokens with each value, `[n_values]`"""
    texts: Sequence[str] = ()
    """words of the values, where a predicate is a class of them"""
    holds: "csr_array | None" = None
    """`[n_values, n_predicates]`: the predicates of each value; None where values are predicates"""

    def count(self, values: np.ndarray) -> None:
        """Add the values of tokens to the counts; -1 is passed over."""
        counts = np.bincount(values[values >= 0], minlength=len(self.counts))
        counts[: len(self.counts)] += self.counts
        self.counts = counts


class ShardTokens(NamedTuple):
    """One shard of tokens, each array `[n_rows]`."""

    codes: np.ndarray
    document: np.ndarray
    position: np.ndarray
    begins: np.ndarray
    """a passage begins: a context, a document, or text after a gap"""

    @classmethod
    def read(cls, recording: Recording, number: int) -> "ShardTokens":
        part = recording.token_shard(number)
        codes, document = part.tokens.numpy().astype(np.int64), part.document.numpy()
        begins = np.arange(len(codes)) % recording.context_length == 0
        begins[1:] |= document[1:] != document[:-1]
        return cls(codes, document, part.position.numpy(), begins)


class TokenProperties(NamedTuple):
    """Properties of the tokens of a vocabulary, each array `[d_vocab]`."""

    spelling: Spelling
    ends_in_space: np.ndarray
    blank: np.ndarray
    line_break: np.ndarray
    sentence_end: np.ndarray
    brackets: np.ndarray
    """opening minus closing parentheses"""
    quotes: np.ndarray
    """double quotation marks"""
    code: np.ndarray
    bullet: np.ndarray
    heading: np.ndarray

    @classmethod
    def of(cls, texts: list[str]) -> "TokenProperties":
        def each(predicate: Callable[[str], bool | int], kind: type = bool) -> np.ndarray:
            return np.array([predicate(text) for text in texts], kind)

        signs, keywords = set("{}=_;<>()[]\\|^$&*+/"), {"def", "return", "import", "self", "int", "const", "print"}
        return cls(
            spell(texts),
            each(lambda t: t[-1:].isspace()),
            each(lambda t: not t.strip() and "\n" not in t),
            each(lambda t: "\n" in t),
            each(lambda t: t.strip().rstrip("\"”’')]").endswith((".", "!", "?"))),
            each(lambda t: t.count("(") - t.count(")"), int),
            each(lambda t: sum(map(t.count, '"“”')), int),
            each(lambda t: bool(signs & set(t)) or t.strip() in keywords),
            each(lambda t: t.strip() in ("-", "*", "•", "+") or (t.strip().isdigit() and len(t) < 3)),
            each(lambda t: t.strip()[:1] == "#"),
        )


class Views(NamedTuple):
    """Every firing in every view."""

    views: dict[str, TokenView]
    document: np.ndarray
    """document of each firing, `[n]`"""
    n_tokens: int
    """tokens from which base rates were counted"""
    folded: list[str]
    """the texts of tokens, in lower case and without spaces around"""
    of_token: np.ndarray
    """number of each token's text among them, `[d_vocab]`; -1 for white space"""
    firings: Windows
    """the words around each firing"""
    sampled: Windows
    """the same of sampled tokens"""


def read_text(recording: Recording, rows: np.ndarray, texts: list[str]) -> Views:
    """Return the views of the firings at `rows [n]`, sorted by shard; `texts` are the tokens of the vocabulary.

    Memory grows with the number of distinct words and of firings, not with that of tokens.
    """
    vocabulary, words, chunks = TokenProperties.of(texts), Names(), Names()
    folded, of_token = np.unique([text.strip().lower() for text in texts], return_inverse=True)
    of_token = np.where(folded[of_token] == "", -1, of_token)  # white space has no other form
    _, labels = document_names(recording)
    label_names, of_document = np.unique(labels or [""], return_inverse=True)
    views = [
        TokenView("token", STATISTICS, texts),
        TokenView("any_form", STATISTICS, folded.tolist()),
        TokenView("before", STATISTICS, texts), TokenView("after", STATISTICS, texts),
        TokenView("document", CONTEXT, label_names.tolist()), TokenView("word", STATISTICS),
        TokenView("class", CLASSES), TokenView("chunk", CLASSES),
        TokenView("before_class", CONTEXT), TokenView("after_class", CONTEXT),
        TokenView("surroundings", CONTEXT, FLAGS),
    ]  # fmt: skip
    shard_of = np.searchsorted(recording.shard_starts, rows, side="right") - 1
    every = max(1, -(-int(recording.shard_starts[-1]) // BASE_ROWS))
    document, n_tokens = [], 0
    near, sampled = [], []
    n_sampled = SAMPLED // max(1, len(range(0, recording.n_shards, every)))
    rng = np.random.default_rng(0)
    pairs = {"before": Pairs(), "after": Pairs()}
    for number in range(recording.n_shards):
        local = rows[shard_of == number] - recording.shard_starts[number]
        if number % every and not len(local):
            continue
        shard = ShardTokens.read(recording, number)
        real = shard.document >= 0
        of_words = _words(shard, vocabulary, words)
        chunk = _chunks(shard, vocabulary, chunks)
        flags = surroundings(shard, vocabulary, of_words, _language_of(words))
        token = np.where(real, shard.codes, -1)
        after = np.where(np.append(shard.begins[1:], True), -1, np.append(token[1:], -1))
        before = np.where(shard.begins, -1, np.insert(token[:-1], 0, -1))
        label = of_document[np.maximum(shard.document, 0)]
        # "before" names a feature that fires before a token, so its value is the token after; "after" likewise
        values = {
            "token": token, "any_form": of_token[shard.codes], "before": after, "after": before, "document": label,
            "word": of_words.own, "class": of_words.own, "chunk": chunk, "before_class": of_words.after,
            "after_class": of_words.before, "surroundings": flags,
        }  # fmt: skip
        for view in views:
            view.values.append(values[view.kind][local])
            if number % every == 0:
                view.count(values[view.kind][real])
        for side, beside in (("before", of_words.after), ("after", of_words.before)):
            pairs[side].add(np.where(beside >= 0, token << 32 | beside, -1), local, counted=number % every == 0)
        word_ids, passage = of_token[shard.codes], np.cumsum(shard.begins)
        near.append(windows_at(word_ids, passage, local))
        if number % every == 0:
            drawn = np.flatnonzero(real)
            sampled.append(windows_at(word_ids, passage, rng.permutation(drawn)[: max(n_sampled, 1)]))
        document.append(shard.document[local])
        n_tokens += int(real.sum()) if number % every == 0 else 0
    by_kind = {view.kind: view for view in views}
    _name_predicates(by_kind, words, chunks)
    for side, collector in pairs.items():
        by_kind[f"token_{side}_class"] = collector.view(f"token_{side}_class", by_kind["token"], by_kind["class"])
    documents = np.concatenate([np.zeros(0, int), *document])
    return Views(
        by_kind, documents, max(n_tokens, 1), folded.tolist(), of_token, Windows.join(near), Windows.join(sampled)
    )


class Pairs:
    """A frequent token with the word next to it, as `token << 32 | word`; -1: none."""

    def __init__(self) -> None:
        self.values: list[np.ndarray] = []
        self.counted: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, codes: np.ndarray, rows: np.ndarray, *, counted: bool) -> None:
        """Add one shard: the pairs of all tokens, and the rows of the firings."""
        self.values.append(codes[rows])
        if counted:
            self.counted.append(np.unique(codes[codes >= 0], return_counts=True))

    def view(self, kind: str, tokens: TokenView, classes: TokenView) -> TokenView:
        """Return the view whose predicates are a frequent token and the class of the word next to it."""
        from scipy.sparse import csr_array

        assert classes.holds is not None
        often = np.argsort(-tokens.counts, kind="stable")[:OFTEN]
        rank = np.full(len(tokens.counts), -1)
        rank[often] = np.arange(len(often))
        codes, where = np.unique(
            np.concatenate([c for c, _ in self.counted] or [np.zeros(0, int)]), return_inverse=True
        )
        counts = np.bincount(where, np.concatenate([n for _, n in self.counted] or [np.zeros(0)]), len(codes))
        kept = rank[codes >> 32] >= 0
        codes, counts = codes[kept], counts[kept].astype(np.int64)
        word = codes & 0xFFFFFFFF
        of_word = csr_array(classes.holds[word])
        shift = np.repeat(rank[codes >> 32] * len(classes.names), np.diff(of_word.indptr))
        shape = (len(codes), len(often) * len(classes.names))
        holds = csr_array((of_word.data, of_word.indices + shift, of_word.indptr), shape=shape)
        names = [(str(tokens.names[token]), str(name)) for token in often for name in classes.names]
        at = [np.searchsorted(codes, column).clip(max=max(len(codes) - 1, 0)) for column in self.values]
        values = [
            np.where(codes[i] == v, i, -1) if len(codes) else v * 0 - 1 for i, v in zip(at, self.values, strict=True)
        ]
        return TokenView(kind, CONTEXT, names, values, counts, [str(classes.texts[i]) for i in word], holds)


class WordNumbers(NamedTuple):
    """Number of the word at each token, and of the words next to it; -1: none, each `[n_rows]`."""

    own: np.ndarray
    before: np.ndarray
    after: np.ndarray
    place: np.ndarray
    """index of the token within its word"""
    last: np.ndarray
    """it ends its word"""


def _words(shard: ShardTokens, vocabulary: TokenProperties, names: Names) -> WordNumbers:
    spelling, codes = vocabulary.spelling, shard.codes
    first, last = spelling.first[codes], spelling.last[codes]
    starts = shard.begins | spelling.spaced[codes] | (first == 0)
    starts[1:] |= first[1:] != last[:-1]
    run, number = names.number(codes, starts, spelling.texts)
    begin = np.flatnonzero(starts)
    passage = np.cumsum(shard.begins)[begin]
    seen = np.flatnonzero(~vocabulary.blank[codes[begin]])  # spaces alone are no neighbours
    at = np.arange(len(begin))
    neighbours = []
    for where in (np.searchsorted(seen, at, side="left") - 1, np.searchsorted(seen, at, side="right")):
        inside = (where >= 0) & (where < len(seen))
        beside = seen[np.clip(where, 0, max(len(seen) - 1, 0))] if len(seen) else at
        inside &= passage[beside] == passage
        neighbours.append(np.where(inside, number[beside], -1)[run])
    place = np.arange(len(codes)) - begin[run]
    return WordNumbers(number[run], neighbours[0], neighbours[1], place, np.append(starts[1:], True))


def _chunks(shard: ShardTokens, vocabulary: TokenProperties, names: Names) -> np.ndarray:
    starts = shard.begins | vocabulary.spelling.spaced[shard.codes]
    starts[1:] |= vocabulary.ends_in_space[shard.codes[:-1]]
    run, number = names.number(shard.codes, starts, vocabulary.spelling.texts)
    return number[run]


def _language_of(words: Names) -> np.ndarray:
    """Return for each word the bits of the languages of which it is a frequent word."""
    lists = _lexicon().words
    bits = {name: 1 << i for i, name in enumerate(_LANGUAGES)}
    return np.array([sum(bits[language] for language in lists.languages_of(word)) for word in words.texts], np.int64)


def surroundings(
    shard: ShardTokens, vocabulary: TokenProperties, words: WordNumbers, language: np.ndarray
) -> np.ndarray:
    """Return the flags of every token as bits, in the order of `FLAGS`."""
    codes, begins, at = shard.codes, shard.begins, np.arange(len(shard.codes))
    broken = np.insert(vocabulary.line_break[codes[:-1]], 0, False)
    new_line = (broken & ~begins) | (shard.position == 0)
    ended = np.insert(vocabulary.sentence_end[codes[:-1]], 0, False) & ~begins
    text = ~vocabulary.line_break[codes] & ~vocabulary.blank[codes]
    passage = np.maximum.accumulate(np.where(begins, at, 0))
    line = np.maximum.accumulate(np.where(begins | broken, at, 0))
    letters = vocabulary.spelling.first[codes] == 1

    def open_since_line(steps: np.ndarray) -> np.ndarray:
        before = np.cumsum(steps) - steps
        return before - before[line]

    def around(mask: np.ndarray, reach: int) -> np.ndarray:
        total = np.insert(np.cumsum(mask), 0, 0)
        return total[np.minimum(at + reach + 1, len(at))] - total[np.maximum(at - reach, passage)]

    number = np.cumsum(begins)
    earlier = _came_before(number, codes)
    pair = np.insert(codes[:-1], 0, -1)
    flags = [
        shard.position == 0,
        (shard.position >= 0) & (shard.position < 4),
        (new_line | ended) & letters,
        new_line & text,
        (words.place == 0) & ~words.last,
        (words.place > 0) & ~words.last,
        (words.place > 0) & words.last,
        (open_since_line(vocabulary.brackets[codes]) > 0) & text,
        (open_since_line(vocabulary.quotes[codes]) % 2 == 1) & (vocabulary.quotes[codes] == 0),
        around(vocabulary.code[codes], _CODE_REACH) >= 6,
        (vocabulary.bullet[codes] & new_line)[line],
        (vocabulary.heading[codes] & new_line)[line],
        earlier,
        earlier & ~begins & _came_before(number, codes, pair),
        *(around((language[words.own] >> i & 1).astype(bool) & (words.place == 0), _REACH) >= 4
          for i in range(len(_LANGUAGES))),
    ]  # fmt: skip
    return sum(flag.astype(np.int64) << i for i, flag in enumerate(flags))  # type: ignore[return-value]


def _came_before(*keys: np.ndarray) -> np.ndarray:
    """Return where the same keys occurred at an earlier index."""
    order = np.lexsort(keys[::-1])
    same = np.all([key[order][1:] == key[order][:-1] for key in keys], axis=0)
    mask = np.zeros(len(order), bool)
    mask[order[1:]] = same
    return mask


def _name_predicates(views: dict[str, TokenView], words: Names, chunks: Names) -> None:
    """Give the views of words, chunks and surroundings their predicates, and all of them counts of every value."""
    lexicon = _lexicon()
    views["word"].names, views["word"].holds = _membership(
        [[lexicon.base_form(text)] if text.isalpha() else [] for text in words.texts]
    )
    names, holds = _membership([lexicon.classes_of(text) for text in words.texts])
    for kind in ("class", "before_class", "after_class"):
        views[kind].names, views[kind].holds, views[kind].texts = names, holds, words.texts
    views["chunk"].names, views["chunk"].holds = _membership([spelling_of_chunk(text) for text in chunks.texts])
    seen = views["surroundings"]
    distinct = np.unique(np.concatenate([np.flatnonzero(seen.counts), *seen.values]))
    seen.values = [np.searchsorted(distinct, column) for column in seen.values]
    seen.counts = np.pad(seen.counts, (0, max(0, int(distinct.max(initial=0)) + 1 - len(seen.counts))))[distinct]
    seen.names, seen.holds = _membership([[FLAGS[i] for i in range(len(FLAGS)) if code >> i & 1] for code in distinct])
    for view in views.values():
        n_values = len(view.names) if view.holds is None else view.holds.shape[0]
        view.counts = np.pad(view.counts, (0, n_values - len(view.counts)))


def _membership(classes: Sequence[Iterable[str]]) -> "tuple[list[str], csr_array]":
    """Return the names of all classes, the deepest last, and `[n_values, n_classes]`: the classes of each value."""
    from scipy.sparse import csr_array

    names = sorted({name for group in classes for name in group}, key=lambda name: (_lexicon().depth(name), name))
    number = {name: i for i, name in enumerate(names)}
    columns = [number[name] for group in classes for name in sorted(set(group))]
    ends = np.cumsum([0, *(len(set(group)) for group in classes)])
    shape = (len(classes), max(len(number), 1))
    return names or [""], csr_array((np.ones(len(columns), np.float32), columns, ends), shape=shape)


@cache
def _lexicon() -> Lexicon:
    return Lexicon()
