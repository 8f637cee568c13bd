"""Prompts of head kinds: their tokens and words, and texts in which words follow an order, each with a control.

A kind that is looked for on text has texts with its targets. Its null is the same texts with the words that make the
targets replaced by others with the same number of tokens, so that a target has the same position in both.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from random import Random
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.seeds import derive_seed
from interp.text.corpora import CYCLIC, MONTHS, NUMBER_WORDS, ORDINALS, WEEKDAYS


class Word(NamedTuple):
    """A word of a prompt, and the positions of its first and last token."""

    text: str
    first: int
    last: int


@dataclass(frozen=True)
class HeadPrompts:
    """Prompts in which a kind of head finds its targets."""

    tokens: Int[Tensor, "batch pos"]
    is_bos: Bool[Tensor, "batch pos"]
    pieces: Sequence[Sequence[str]] = ()
    """Text of every token, by prompt, with its spaces; empty for BOS. None for random tokens, which are not text."""

    @cached_property
    def words(self) -> list[list[Word]]:
        """Words of every prompt: runs of letters and digits, of one token or several."""
        return [list(_words(pieces)) for pieces in self.pieces]


def _words(pieces: Sequence[str]) -> Iterable[Word]:
    token_at = [token for token, piece in enumerate(pieces) for _ in piece]
    for found in re.finditer(r"[^\W_]+", "".join(pieces)):
        yield Word(found[0], token_at[found.start()], token_at[found.end() - 1])


DrawText = Callable[[Random, Callable[[str], int], int], tuple[str, str]]
"""Draws a text and its control from a generator, a counter of tokens and the least number of tokens of either."""


def draw_texts(
    model: HookedModel, draw: DrawText, n_prompts: int, context_length: int, seed: int
) -> tuple[HeadPrompts, Int64[Tensor, "{n_prompts} {context_length}"]]:
    """Draw texts of one seed, cut to `context_length` tokens with BOS first, and the tokens of their controls.

    Raises `MissingError` for a model without a tokenizer, `ConfigError` where texts are too short or a control cannot
    have the tokens of its text.
    """
    from interp.models.identity import tokenizer_of

    tokenizer = tokenizer_of(model)
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    random = Random(derive_seed(seed, "head texts"))
    kept = context_length - len(bos)
    n_tokens = cache(lambda text: len(tokenizer.encode_batch([text])[0]))
    rows, controls, pieces = [], [], []
    for _ in range(n_prompts):
        text, control = draw(random, n_tokens, kept)
        row, other = tokenizer.encode_batch([text, control])
        if len(row) != len(other) or len(row) < kept:
            raise ConfigError(
                f"expected a text and a control of at least {kept} tokens; the tokenizer of this model makes "
                f"{len(row)} and {len(other)}; choose other kinds"
            )
        rows.append([*bos, *row[:kept]])
        controls.append([*bos, *other[:kept]])
        pieces.append([""] * len(bos) + _pieces(text, [tokenizer.token_text(token) for token in row[:kept]]))
    tokens = torch.tensor(rows)
    is_bos = torch.zeros_like(tokens, dtype=torch.bool)
    is_bos[:, : len(bos)] = True
    return HeadPrompts(tokens, is_bos, pieces), torch.tensor(controls)


def _pieces(text: str, decoded: Iterable[str]) -> list[str]:
    """Return the part of a text that each token covers. A token decoded alone may lack its leading space."""
    found, at = [], 0
    for piece in decoded:
        start = text.find(piece.strip(), at)
        end = at if start < 0 else start + len(piece.strip())
        found.append(text[at:end])
        at = end
    return found


# Texts in order

PREVIOUS = {
    word: order[at - 1]
    for order in (WEEKDAYS, MONTHS, NUMBER_WORDS, ORDINALS)
    for at, word in enumerate(order)
    if at or order in CYCLIC
}
"""Word -> the word before it in its order."""
NAMES = (
    *("Tom", "Ben", "Ann", "Joe", "Anna", "Paul", "Mark", "Jane", "Maria", "Peter", "David", "Laura", "Susan"),
    *("Robert", "Albert", "Daniel", "Martin", "Hannah", "William", "Charles", "Richard", "Matthew", "Rebecca"),
    *("Benjamin", "Jonathan", "Margaret", "Nicholas", "Victoria", "Elizabeth", "Alexander", "Christian", "Katherine"),
)
NOUNS = (
    *("cat", "dog", "car", "box", "cup", "tree", "book", "fish", "bird", "door", "house", "table", "chair", "glass"),
    *("river", "stone", "garden", "window", "bottle", "letter", "bridge", "kitchen", "picture", "village", "morning"),
)
JOINTS = (", ", " and ", " then ")
REMARKS = (
    *("it rained", "nothing happened", "we stayed at home", "the shop was closed", "a letter came", "they called"),
    *("the train was late", "I slept well", "we had soup", "the lights went out", "a friend came", "we painted"),
)


def ordered_text(random: Random, n_tokens: Callable[[str], int], length: int) -> tuple[str, str]:
    """Draw a text with four orders, the words of each in a list or with a remark on each of them, and its control.

    In the control every such word is a name or a noun with the same number of tokens. Both end in the same remarks.
    """
    text = control = "Notes."
    for passage, order in enumerate(random.sample((WEEKDAYS, MONTHS, NUMBER_WORDS, ORDINALS), 4)):
        n = random.randint(4, 6)
        start = random.randrange(len(order) if order in CYCLIC else len(order) - n + 1)
        words = [order[(start + at) % len(order)] for at in range(n)]
        if passage == 0 or random.random() < 0.5:
            gaps = [random.choice(JOINTS)] * (n - 1) + ["."]
        else:
            gaps = [f": {random.choice(REMARKS)}." + " " * (at < n - 1) for at in range(n)]
        text += " " + "".join(map("".join, zip(words, gaps, strict=True)))
        control += " " + "".join(map("".join, zip(_others(words, n_tokens, random), gaps, strict=True)))
    remarks = random.choices(REMARKS, k=length // 3 + 1)  # each has at least three tokens
    end = "".join(f" {each[0].upper()}{each[1:]}." for each in remarks)
    return text + end, control + end


def _others(words: Sequence[str], n_tokens: Callable[[str], int], random: Random) -> list[str]:
    """Return a name or a noun with the same number of tokens for each word, no two alike."""
    made: list[str] = []
    for word in words:
        n, pool = n_tokens(f" {word}"), NAMES if word[0].isupper() else NOUNS
        fit = [each for each in pool if each not in made and n_tokens(f" {each}") == n]
        if not fit:
            raise ConfigError(f"no control word has the {n} tokens that the tokenizer of this model makes of {word!r}")
        made.append(random.choice(fit))
    return made
