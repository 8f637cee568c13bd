"""Classes of words: `Lexicon().classes_of("walked")` gives "verb of motion", "past form" and more. Torch-free.

A word's classes, each a name as labels show it:

1. closed classes from `words.toml` (pronouns, conjunctions, forms of be), which end the search for all but their forms,
   and other lists (given names, weekdays);
2. WordNet's classes of its base form, from `lexicon.txt.xz`: hypernyms ("calendar month", "country", 'way to say'),
   parts of speech, attributes of adjectives. They follow the usual sense of a word, by its count in tagged texts;
3. its form ("plural", "past form", "-ing form", "comparative"), and form with class ("verb of motion, past form");
4. its spelling: capitals, digits, scripts, kinds of punctuation, endings and beginnings.

`spelling_of_chunk` names the kind of text between two spaces: an address, a date, an identifier.

`python -m tools.lexicon` makes the file from WordNet 3.1, whose licence is `lexicon.LICENSE`.
"""

import lzma
import re
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

LEXICON = Path(__file__).with_name("lexicon.txt.xz")
WORDS = Path(__file__).with_name("words.toml")
USUAL, MAIN = 3, 6
"""Fewest ninths of a word's senses that a part of speech needs: for its classes to count, and to be named itself."""
_POS = {"n": "noun", "v": "verb", "a": "adjective", "r": "adverb"}
PAST, ING, THIRD, PLURAL, COMPARATIVE, SUPERLATIVE = (
    "past form", "-ing form", "third person", "plural", "comparative", "superlative"
)  # fmt: skip
_ENDINGS = (
    (PLURAL, "n", (("ies", "y"), ("es", ""), ("s", ""))),
    (THIRD, "v", (("ies", "y"), ("es", ""), ("s", ""))),
    (PAST, "v", (("ied", "y"), ("ed", "e"), ("ed", ""))),
    (ING, "v", (("ing", "e"), ("ing", ""))),
    (COMPARATIVE, "a", (("ier", "y"), ("er", "e"), ("er", ""))),
    (SUPERLATIVE, "a", (("iest", "y"), ("est", "e"), ("est", ""))),
)
"""Form, part of speech, and endings with what they replace; a doubled consonant before one is also undone."""

_SPELLING = {
    "capitalised word": r"[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ'’]+",
    "word in capitals": r"[A-Z]{2,}",
    "single letter": r"[A-Za-z]",
    "capital letter": r"[A-Z]",
    "capitals inside a word": r"[A-Za-z]*[a-z][A-Z][A-Za-z]*",
    "Roman numeral": r"(?=[IVXLC]{2})L?(X{0,3}|XC|XL)(IX|IV|V?I{0,3})|(?=[ivx]{2})x{0,3}(ix|iv|v?i{0,3})",
    "number": r"\d+",
    "one digit": r"\d",
    "two-digit number": r"\d\d",
    "three-digit number": r"\d{3}",
    "year": r"1[5-9]\d\d|20\d\d",
    "long number": r"\d{5,}",
    "accented word": r"[^\W\d_]*[À-ÖØ-öø-ž][^\W\d_]*",
    "Greek": r"[\u0370-\u03ff]+",
    "Cyrillic": r"[\u0400-\u04ff]+",
    "Chinese or Japanese": r"[\u3040-\u30ff\u4e00-\u9fff]+",
    "Arabic or Hebrew": r"[\u0590-\u06ff]+",
    "end of a sentence": r"[.!?]+[\"”’')\]]*",
    "question mark": r"[\"”]?\?.*",
    "exclamation mark": r"!.*",
    "comma": r",",
    "colon or semicolon": r"[:;]",
    "quotation mark": r"[\"“”«»„`'‘’]+",
    "opening bracket": r".*[(\[{<]",
    "closing bracket": r"[)\]}>].*",
    "dash or hyphen": r"[-–—]+",
    "mathematical sign": r"[=+*/^<>≤≥±×÷≈∑∫√|%-]+",
    "currency sign": r"[$€£¥]",
    "underscore": r"_+",
    "punctuation": r"[^\w\s]+",
    "-tion": r"[a-z]{2,}[st]ions?",
    "-ness": r"[a-z]{3,}ness",
    "-ment": r"[a-z]{3,}ments?",
    "-ity": r"[a-z]{3,}(ity|ities)",
    "-able": r"[a-z]{3,}[ai]ble",
    "-ism or -ist": r"[A-Za-z]{3,}is[mt]s?",
    "-logy": r"[A-Za-z]{2,}olog(y|ies|ist|ists|ical)",
    "-ful or -less": r"[a-z]{3,}(ful|less)",
    "-ous": r"[a-z]{3,}ous",
    "-ly": r"[a-z]{3,}ly",
    "un- or in-": r"(un|in|im|non)[a-z]{4,}",
    "re-": r"re[a-z]{4,}",
}
_CHUNKS = {
    "web address": r".*(https?:|www\.|\.(com|org|net|edu|gov)\b).*",
    "e-mail address": r"[^@\s]+@[^@\s]+\.\w+.*",
    "file path": r"[\w.~-]*(/[\w.-]+){2,}/?|.*\w\.(py|txt|json|csv|html|js|md|c|h|cpp|xml|yml|png|jpg)\W*",
    "identifier_with_underscores": r"\W*\w*[a-zA-Z]_[a-zA-Z]\w*.*|\W*__\w+__.*",
    "dotted name": r"\W*[A-Za-z_]\w+(\.[A-Za-z_]\w+)+.*",
    "function call": r".*\w\(.*",
    "decimal number": r"\W*\d[\d,]*\.\d+\W*",
    "number with commas": r"\W*\d{1,3}(,\d{3})+\b.*",
    "numbered item": r"\(?\d{1,2}[.):]",
    "date": r"\W*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\W*",
    "time of day": r"\W*\d{1,2}:\d\d(:\d\d)?([ap]m)?\W*",
    "chapter and verse": r"\W*\d{1,3}:\d{1,3}(-\d+)?\W*",
    "amount of money": r"\W*[$€£¥]\s?\d.*",
    "percentage": r"\W*[\d.,]+%\W*",
    "ordinal number": r"\W*\d+(st|nd|rd|th)\W*",
    "decade": r"\W*\d{2,4}'?s\W*",
    "hyphenated word": r"\W*[A-Za-z]+(-[A-Za-z]+)+\W*",
    "number-word compound": r"\W*\d+-[A-Za-z]+\W*",
    "possessive": r"\W*\w+(['’]s|s['’])\W*",
    "contraction": r"\W*\w+(n['’]t|['’](re|ve|ll|d|m))\W*",
    "initials": r"\W*([A-Z]\.){1,4}\W*",
    "abbreviation with a full stop": r"\W*(e\.g|i\.e|etc|vs|cf|al|pp?|vol|figs?|eqs?|no|approx|[A-Z][a-z]{1,3})\.,?",
    "HTML tag": r".*</?[a-zA-Z][^>]*>?.*",
    "LaTeX": r".*\\[a-zA-Z]+.*|\${1,2}[^\s\d].*",
    "Markdown emphasis": r"\*{1,2}\w.*|.*\w\*{1,2}\W*",
    "Markdown code": r".*`.*",
    "hexadecimal": r"\W*(0x[0-9a-fA-F]+|[0-9a-f]{8,})\W*",
    "version number": r"\W*v?\d+\.\d+\.\d+\S*",
    "formula": r".*\w\s?[=+*^]\s?\w.*",
}
_spelling = {name: re.compile(pattern) for name, pattern in _SPELLING.items()}
_chunks = {name: re.compile(pattern) for name, pattern in _CHUNKS.items()}


def spelling_of_chunk(text: str) -> list[str]:
    """Return the kinds of a text between two spaces.

    >>> spelling_of_chunk("(https://example.org/x)")
    ['web address']
    """
    bare = text.strip()
    return [name for name, pattern in _chunks.items() if pattern.fullmatch(bare)] if 1 < len(bare) < 200 else []


class Lexicon:
    """Classes of words. Opening it reads two files, in a fifth of a second."""

    def __init__(self) -> None:
        self.words = _Words()
        with lzma.open(LEXICON, "rt", encoding="utf-8") as file:
            head, body = file.read().split("\n\n", 1)
        names, parents = zip(*(line.split("|") for line in head.split("\n")), strict=True)
        self.names: tuple[str, ...] = names
        self._parents = [[int(number) for number in line.split()] for line in parents]
        self._entries = dict(line.split(" ", 1) for line in body.splitlines())
        self._number = {name: i for i, name in enumerate(names)}
        self._wider = lru_cache(None)(self._closure)

    def classes_of(self, word: str) -> set[str]:
        """Return the names of the classes of a word; of a text without letters, those of its spelling."""
        names = {name for name, pattern in _spelling.items() if pattern.fullmatch(word)}
        lower = word.lower().replace("’", "'")
        if not lower.isalpha() and not re.fullmatch(r"[a-z]+(['-][a-z]+)*", lower):
            return names or {"other sign"} if word.strip() else {"line break" if "\n" in word else "spaces"}
        closed = self.words.functions.get(lower, ())
        names.update(closed, self.words.lists.get(lower, ()))
        names.update(self.words.names.get(lower, ()) if word[0].isupper() else ())
        names.update(f"{language} word" for language in self.words.languages_of(word))
        if closed and word not in self.words.also:
            return names | {form for form, _, _ in self._forms(lower) if form == PAST}
        entry = self._entry(word)
        for pos, (weight, classes) in entry.items():
            if weight >= USUAL:
                names.update(classes)
            if weight >= MAIN:
                names.add(_POS[pos])
        for form, pos, base in self._forms(lower):
            _, classes = self._entry(base).get(pos, (0, set()))
            names.add(form)
            names.add(_POS[pos])
            names.update(classes)
            names.update(f"{name}, {form}" for name in classes)
        return names

    def base_form(self, word: str) -> str:
        """Return the word that an inflected one is a form of, in lower case: "stored" is a form of "store"."""
        lower = word.lower()
        return next((base for _, _, base in self._forms(lower)), lower)

    def depth(self, name: str) -> float:
        """Return how specific a class is: where two have the same words in some text, the deeper is the better name.

        Forms, spellings and parts of speech have depth 0, WordNet's classes the number of classes above, and with a
        form one half more; the lists of `words.toml` come last.
        """
        bare, _, form = name.partition(", ")
        if name in self.words.all_lists:
            return 1000.0
        if bare in self._number:
            return len(self._wider(self._number[bare])) + (0.5 if form else 0)
        return 0.0

    def _closure(self, number: int) -> frozenset[int]:
        return frozenset({number}).union(*map(self._closure, self._parents[number]))

    @lru_cache(maxsize=1 << 14)  # noqa: B019  (one lexicon lives as long as the labels of a dictionary are made)
    def _entry(self, word: str) -> dict[str, tuple[int, set[str]]]:
        """Return by part of speech the weight in ninths, and the names of all classes."""
        capitalised = word.capitalize() if word[:1].isupper() else word
        text = self._entries.get(capitalised) or self._entries.get(word.lower(), "")
        entries: dict[str, tuple[int, set[str]]] = {}
        pos = ""
        for code in text.split():
            if code[0].isalpha():
                pos = code[0]
                entries[pos] = (int(code[1:]), set())
            else:
                entries[pos][1].update(self.names[i] for i in self._wider(int(code)))
        return entries

    def _forms(self, word: str) -> Iterator[tuple[str, str, str]]:
        """Yield forms of a word as `(form, part of speech, base form)`."""
        if word in self.words.irregular:
            yield self.words.irregular[word]
            return
        entry = self._entry(word)
        for form, pos, endings in _ENDINGS:
            if pos in entry and form in (PLURAL, THIRD, PAST, COMPARATIVE, SUPERLATIVE):
                continue  # a word of its own, such as "news" or "seed"
            for ending, instead in endings:
                base = self._base(word, ending, instead, pos)
                if base:
                    yield form, pos, base
                    break

    def _base(self, word: str, ending: str, instead: str, pos: str) -> str:
        stem = word.removesuffix(ending)
        if stem == word or len(stem) < 2 or (ending == "s" and stem[-1:] in "su"):
            return ""
        doubled = len(stem) > 2 and stem[-1] == stem[-2] and not instead and ending[0] in "ei"
        for base in (stem + instead, stem[:-1] if doubled else ""):
            weight = self._entry(base).get(pos, (0, set()))[0] if base else 0
            regular = pos != "v" or ending not in ("ed", "ied") or base not in self.words.irregular_verbs
            if weight >= USUAL and regular and base not in self.words.functions:
                return base
        return ""


class _Words:
    """The lists of `words.toml`, by word."""

    def __init__(self) -> None:
        read = tomllib.loads(WORDS.read_text(encoding="utf-8"))
        self.also = set(read["also"])
        self.functions, self.lists, self.names = (_by_word(read[key]) for key in ("functions", "lists", "names"))
        self.all_lists = {*read["functions"], *read["lists"], *read["names"]}
        self.languages = {name: set(words.split()) for name, words in read["languages"].items()}
        self.irregular: dict[str, tuple[str, str, str]] = {}
        self.irregular_verbs: set[str] = set()
        for line in read["forms"]["verbs"].replace("\n", " ").split(";"):
            base, past, participle = line.split()
            self.irregular_verbs.add(base)
            for word in [*past.split("/"), *participle.split("/")]:
                if word != base:
                    self.irregular.setdefault(word, (PAST, "v", base))
        for line in read["forms"]["nouns"].replace("\n", " ").split(";"):
            base, plural = line.split()
            self.irregular[plural] = (PLURAL, "n", base)

    def languages_of(self, word: str) -> list[str]:
        """Return the languages in which a word is frequent, if it is not an English word."""
        return [language for language, words in self.languages.items() if word.lower() in words]


def _by_word(lists: dict[str, str]) -> dict[str, set[str]]:
    names: dict[str, set[str]] = {}
    for name, words in lists.items():
        for word in words.split():
            names.setdefault(word, set()).add(name)
    return names
