"""Kinds of head on any text: for each query the keys that a head of the kind attends to, and what it writes about them.

    kinds = TEXT_KINDS | {"question_mark": TextKind(lambda p: keys_where(p, lambda piece: "?" in piece))}
    measure_heads(model, tokens, documents, kinds=kinds)

A kind is a function of tokens and words (`HeadPrompts`) that returns its targets; `writes` adds a condition on the
head's OV circuit: it must raise (`copies`) or lower (`suppresses`) the logit of the token it attends to, do neither
(`other`), or raise the next word of an order (`succeeds`). `control` returns targets that a head of the kind attends to
less: where position and key alone would give the same score.

No parser finds subjects. Verbs are a list of forms, subjects the pronouns that are nothing else, two tokens before with
a word between ("he often was", "they had been"): a head that looks one token back does not score. One that looks two
tokens back, or at pronouns, attends from other words ("he saw the") alike, which is the control. Of the first forty
pairs in WikiText four were no verb with its subject ("the songs he wrote were").

Names are capitalised words; one that only ever opens a sentence is none, nor is a day or a month. So the kinds of names
measure what name movers, duplicate-name and S-inhibition heads of Wang et al. (2022, arXiv 2211.00593) attend to and
write on any text; that a head takes part in indirect object identification only patching shows (`workbench circuit
find`). Copy suppression is that of McDougall et al. (2023, arXiv 2310.04625), without the model's prediction. Successor
heads are those of Gould et al. (2023, arXiv 2312.09230).
"""

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.circuits.head_kinds import (
    PREVIOUS,
    HeadPrompts,
    PromptWord,
    Targets,
    current_token,
    duplicate_token,
    first_token,
    induction,
    previous_token,
)
from interp.text.corpora import NUMBER_WORDS

Writes = Literal["", "copies", "suppresses", "other", "succeeds"]
ORDERED = tuple(dict.fromkeys([*PREVIOUS, *PREVIOUS.values()]))
"""Words of all orders."""


class TextKind(NamedTuple):
    """Targets of a kind on text, its condition on what a head writes, and targets that it must not attend to alike."""

    targets: Callable[[HeadPrompts], Targets]
    writes: Writes = ""
    control: Callable[[HeadPrompts], Targets] | None = None


def keys_where(prompts: HeadPrompts, wanted: Callable[[str], bool]) -> Targets:
    """Return as targets of every query the earlier tokens, and its own, whose text is wanted.

    Args:
        prompts: have the texts of tokens.
        wanted: says of a token's text whether it is a target.

    >>> prompts = HeadPrompts(torch.arange(3)[None], torch.zeros(1, 3, dtype=torch.bool), [["a", "?", "b"]])
    >>> keys_where(prompts, lambda piece: piece == "?")[0].sum(0).tolist()
    [0, 2, 0]
    """
    known = {piece: wanted(piece) for pieces in prompts.pieces for piece in set(pieces)}
    rows = torch.tensor([[known[piece] for piece in pieces] for pieces in prompts.pieces])
    return _earlier(rows & ~sink_positions(prompts.is_bos), 0)


def names(words: list[PromptWord], pieces: "list[str] | tuple[str, ...]") -> list[PromptWord]:
    """Return the words of a prompt that are names."""
    opening = {word for word in words if _opens_sentence(pieces, word)}
    title = [word for word in words if re.fullmatch(r"[A-Z][a-z]+", word.text) and word.text not in ORDERED]
    inside = {word.text for word in title if word not in opening}
    return [word for word in title if word.text in inside]


def _opens_sentence(pieces: "list[str] | tuple[str, ...]", word: PromptWord) -> bool:
    before = "".join(pieces[max(0, word.first - 3) : word.first]).rstrip(" \"'([*#>-")
    current = pieces[word.first].split(word.text[:1])[0]
    return not before or before[-1] in ".!?:\n" or "\n" in current


def delimiter(prompts: HeadPrompts) -> Targets:
    """Return the targets of a head that attends to punctuation and line ends."""
    return keys_where(prompts, lambda piece: bool(piece) and not re.search(r"\w", piece))


def duplicate_name(prompts: HeadPrompts) -> Targets:
    """Return the targets of a duplicate-name head: at a name, its earlier mentions."""
    return _by_words(prompts, lambda words, pieces: _mentions(names(words, pieces)))


def name_mover(prompts: HeadPrompts) -> Targets:
    """Return the targets of a name mover: outside names, the last token of every earlier name."""
    at_name, last = _name_tokens(prompts)
    return _earlier(last, 1) & ~at_name[:, :, None]


def s_inhibition(prompts: HeadPrompts) -> Targets:
    """Return the targets of an S-inhibition head: outside names, every earlier mention of a name but its first."""
    at_name, _ = _name_tokens(prompts)
    repeats = torch.zeros_like(at_name)
    for prompt, words in enumerate(prompts.words):
        for later, _ in _mentions(names(words, list(prompts.pieces[prompt]))):
            repeats[prompt, later] = True
    return _earlier(repeats, 1) & ~at_name[:, :, None]


def any_key(prompts: HeadPrompts) -> Targets:
    """Return every earlier token outside BOS."""
    return _earlier(~sink_positions(prompts.is_bos), 1)


def ordered_word(prompts: HeadPrompts) -> Targets:
    """Return the targets of a successor head: days, months and numbers in words, at their last token."""
    return _earlier(_tokens_of(prompts, lambda word: word.text in ORDERED), 0)


def last_number(prompts: HeadPrompts) -> Targets:
    """Return the last number before the query, in digits or words, at its last token."""
    is_number = _tokens_of(prompts, lambda word: word.text.isdigit() or word.text.lower() in _NUMBERS)
    n = is_number.shape[1]
    last = torch.where(is_number, torch.arange(n), -1).cummax(1).values
    before = torch.cat([torch.full((len(last), 1), -1), last[:, :-1]], 1)
    return before[:, :, None] == torch.arange(n)


def verb_subject(prompts: HeadPrompts) -> Targets:
    """Return as target of a verb its subject, a pronoun two tokens before."""
    return _by_words(prompts, lambda words, pieces: _after_pronoun(words, pieces, VERBS))


def subject_elsewhere(prompts: HeadPrompts) -> Targets:
    """Return as target of words that are no verbs such a pronoun two tokens before, the control of `verb_subject`."""
    return _by_words(prompts, lambda words, pieces: _after_pronoun(words, pieces, NO_VERBS))


def _after_pronoun(words: list[PromptWord], pieces: list[str], at: frozenset[str]) -> list[tuple[int, int]]:
    """Return (word, pronoun) where one of some words comes two tokens after a pronoun and a word between them."""
    return [
        (word.last, pronoun.last)
        for pronoun, between, word in zip(words, words[1:], words[2:], strict=False)
        if word.text.lower() in at and between.text.lower() not in CLOSING and pronoun.text.lower() in SUBJECTS
        and word.first == word.last == pronoun.last + 2
        and not re.search(r"[^\w\s]|\n", "".join(pieces[pronoun.last : word.last + 1]))
    ]  # fmt: skip


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


SUBJECTS = _listed("i he she we they")
"""Pronouns that are subjects alone; `it` and `you` are objects too."""
VERBS = _listed(
    "am are was were be been being have has had do does did will would can could shall should may might must said "
    "went made came took knew thought got gave found told became began kept wrote heard met ran led grew lost fell "
    "sent won wanted used tried asked played worked moved lived died returned received started continued"
)
"""Words that are verbs two tokens after such a pronoun."""
CLOSING = _listed("that which who whom because if when while where as than and but or to")
"""Words after which a verb may have another subject."""
NO_VERBS = _listed("the a an his her their its our my this of in on at from with by for into and or to as")


_NUMBERS = frozenset(word.lower() for word in NUMBER_WORDS)
TEXT_KINDS: dict[str, TextKind] = {
    "sink": TextKind(first_token),
    "current_token": TextKind(current_token),
    "previous_token": TextKind(previous_token),
    "same_token": TextKind(duplicate_token),
    "induction": TextKind(induction),
    "delimiter": TextKind(delimiter),
    "duplicate_name": TextKind(duplicate_name),
    "name_mover": TextKind(name_mover, "copies"),
    "s_inhibition": TextKind(s_inhibition, "other"),
    "last_number": TextKind(last_number),
    "copy_suppression": TextKind(any_key, "suppresses"),
    "successor": TextKind(ordered_word, "succeeds"),
    "verb_subject": TextKind(verb_subject, control=subject_elsewhere),
}
"""Kinds that are looked for by default; `interp.names.TEXT_HEAD_KINDS` has a sentence about each."""


def sink_positions(is_bos: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    """Return true at BOS and the first position, where attention goes that has no other target."""
    sink = is_bos.clone()
    sink[:, 0] = True
    return sink


def _earlier(keys: Bool[Tensor, "batch pos"], at_least: int) -> Targets:
    """Return the keys at least `at_least` positions before each query."""
    n = keys.shape[1]
    return keys[:, None, :] & torch.ones(n, n, dtype=torch.bool).tril(-at_least)


def _by_words(prompts: HeadPrompts, pairs: Callable[[list[PromptWord], list[str]], list[tuple[int, int]]]) -> Targets:
    """Return the targets of (query, key) pairs."""
    target = torch.zeros(*prompts.tokens.shape, prompts.tokens.shape[1], dtype=torch.bool)
    for prompt, words in enumerate(prompts.words):
        pairs_of = pairs(words, list(prompts.pieces[prompt]))
        if pairs_of:
            target[prompt, *torch.tensor(pairs_of).T] = True
    return target


def _mentions(named: list[PromptWord]) -> list[tuple[int, int]]:
    """Return the last token of every mention of a name, with that of each earlier one."""
    return [
        (later.last, earlier.last)
        for at, later in enumerate(named)
        for earlier in named[:at]
        if earlier.text == later.text and earlier.last < later.first
    ]


def _tokens_of(prompts: HeadPrompts, wanted: Callable[[PromptWord], bool]) -> Bool[Tensor, "batch pos"]:
    """Return true at the last token of each wanted word."""
    last = torch.zeros(prompts.tokens.shape, dtype=torch.bool)
    for prompt, words in enumerate(prompts.words):
        last[prompt, [word.last for word in words if wanted(word)]] = True
    return last


def _name_tokens(prompts: HeadPrompts) -> tuple[Bool[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
    """Return true at all tokens of names, and at the last of each."""
    at_name, last = (torch.zeros(prompts.tokens.shape, dtype=torch.bool) for _ in range(2))
    for prompt, words in enumerate(prompts.words):
        for word in names(words, list(prompts.pieces[prompt])):
            at_name[prompt, word.first : word.last + 1] = True
            last[prompt, word.last] = True
    return at_name, last
