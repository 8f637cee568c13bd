"""Lists of words that have an order or a kinship, and the sentences in which a model reads them.

Every list is read in the same sentences, each of which ends with the word, so that a difference between lists is none
of sentences. The activation taken is the one at the word's *last* token: of a word of several tokens it is a word's end
that has seen its beginning. How many tokens each word has stands in the result.

`cyclic` says whether the order has no ends, and so whether a line through it may be cut anywhere. Colours are in the
order of hue. Where a list has a `successor`, that prompt asks for the item that follows: the output that turning around
a circle should move.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from interp.errors import ConfigError, UnknownNameError


def with_word(prompt: str, word: str) -> str:
    """The prompt with the word where `{word}` stands; other braces are text. Raises `ConfigError` unless it does once.

    >>> with_word("f({word}) = {", "x")
    'f(x) = {'
    """
    if prompt.count("{word}") != 1:
        raise ConfigError(f"a prompt or sentence names {{word}} once, got {prompt!r}; write it where the word goes")
    return prompt.replace("{word}", word)


@dataclass(frozen=True, kw_only=True)
class Concept:
    """One list, in order."""

    name: str
    words: tuple[str, ...]
    cyclic: bool
    """the last is followed by the first"""
    successors: tuple[str, ...] = ()
    """prompts with `{word}` that ask for the next item"""

    def __post_init__(self) -> None:
        if len(set(self.words)) != len(self.words):
            raise ConfigError(f"the words of {self.name!r} must differ, got {', '.join(self.words)}")
        if len(self.words) < 3:
            raise ConfigError(f"{self.name!r} has {len(self.words)} words; three are the least that can have a shape")
        for prompt in self.successors:
            with_word(prompt, "")


SENTENCES = (
    "The word is {word}",
    "She said {word}",
    "I was thinking of {word}",
    "They wrote about {word}",
    "The answer was {word}",
    "He asked me about {word}",
    "On the page it says {word}",
    "We talked about {word}",
    "Now we come to {word}",
    "The next one is {word}",
    "In her letter she mentioned {word}",
    "The first thing on the list is {word}",
    "My favourite is {word}",
    "It has something to do with {word}",
    "Please spell {word}",
    "The children shouted {word}",
)
"""Even-numbered ones (the first, third ...) choose the layer and fit the plane; odd-numbered ones judge."""

CONCEPTS: dict[str, Concept] = {
    concept.name: concept
    for concept in (
        Concept(
            name="weekdays",
            words=("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
            cyclic=True,
            successors=("Today is {word}. Tomorrow is", "Days of the week in order: {word},", "from {word} to"),
        ),
        Concept(
            name="months",
            words=(
                *("January", "February", "March", "April", "May", "June"),
                *("July", "August", "September", "October", "November", "December"),
            ),
            cyclic=True,
            successors=(
                "This month is {word}. Next month is",
                "Months of the year in order: {word},",
                "from {word} to",
            ),
        ),
        Concept(
            name="digits",
            words=tuple("0123456789"),
            cyclic=False,
            successors=("We counted {word}, ", "Numbers in order: {word}, ", "from {word} to "),
        ),
        Concept(
            name="number words",
            words=("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
            cyclic=False,
            successors=("We counted {word},", "Numbers in order: {word},", "from {word} to"),
        ),
        Concept(
            name="letters",
            words=tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
            cyclic=False,
            successors=("The next letter after {word} is", "Letters in order: {word},", "from {word} to"),
        ),
        Concept(name="colours", words=("red", "orange", "yellow", "green", "blue", "purple", "pink"), cyclic=True),
        Concept(
            name="compass points",
            words=("north", "east", "south", "west"),
            cyclic=True,
        ),
    )
}


def find_concepts(names: Sequence[str]) -> list[Concept]:
    """Lists by name; none named means all. Raises `UnknownNameError` with the nearest names."""
    for name in names:
        if name not in CONCEPTS:
            raise UnknownNameError("list of words", name, CONCEPTS)
    return [CONCEPTS[name] for name in names or CONCEPTS]


def own_concept(name: str, words: Sequence[str], *, cyclic: bool) -> Concept:
    """A list of your own."""
    return Concept(name=name, words=tuple(words), cyclic=cyclic)
