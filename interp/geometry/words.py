"""Word lists, and a model's activations on their words in fixed sentences, at every layer.

A list has an order or a common kind. All lists are read in the same sentences, each of which ends with the word, so
that lists do not differ by their sentences. The activation is taken at the word's *last* token; for a word of several
tokens it has attended to the earlier ones. The result reports the number of tokens of each word.

`cyclic` marks an order without ends, so that a line through it may be cut anywhere. Colours are in the order of hue.
Where a list has `successors`, those prompts ask for the next item: the answer that rotation around a circle should
change.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Float64

from interp.errors import ConfigError, PromptError, UnknownNameError
from interp.geometry.points import check_count
from interp.models.hooked import HookedModel
from interp.names import canonical_hook_point, check_hook_points
from interp.text.corpora import MONTHS, NUMBER_WORDS, WEEKDAYS


def with_word(prompt: str, word: str) -> str:
    """Replace `{word}` in a prompt; other braces are text. Raises `ConfigError` unless it occurs exactly once.

    >>> with_word("f({word}) = {", "x")
    'f(x) = {'
    """
    if prompt.count("{word}") != 1:
        raise ConfigError(f"a prompt or sentence names {{word}} once, got {prompt!r}; write it where the word goes")
    return prompt.replace("{word}", word)


@dataclass(frozen=True, kw_only=True)
class WordList:
    """A list of words, in order."""

    name: str
    words: tuple[str, ...]
    cyclic: bool
    """True when the first word follows the last"""
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
"""Even-numbered sentences (the first, third ...) choose the layer and fit the plane; odd-numbered ones test."""

CONCEPTS: dict[str, WordList] = {
    concept.name: concept
    for concept in (
        WordList(
            name="weekdays",
            words=WEEKDAYS,
            cyclic=True,
            successors=("Today is {word}. Tomorrow is", "Days of the week in order: {word},", "from {word} to"),
        ),
        WordList(
            name="months",
            words=MONTHS,
            cyclic=True,
            successors=(
                "This month is {word}. Next month is",
                "Months of the year in order: {word},",
                "from {word} to",
            ),
        ),
        WordList(
            name="digits",
            words=tuple("0123456789"),
            cyclic=False,
            successors=("We counted {word}, ", "Numbers in order: {word}, ", "from {word} to "),
        ),
        WordList(
            name="number words",
            words=NUMBER_WORDS,
            cyclic=False,
            successors=("We counted {word},", "Numbers in order: {word},", "from {word} to"),
        ),
        WordList(
            name="letters",
            words=tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
            cyclic=False,
            successors=("The next letter after {word} is", "Letters in order: {word},", "from {word} to"),
        ),
        WordList(name="colours", words=("red", "orange", "yellow", "green", "blue", "purple", "pink"), cyclic=True),
        WordList(
            name="compass points",
            words=("north", "east", "south", "west"),
            cyclic=True,
        ),
    )
}


def find_concepts(names: Sequence[str]) -> list[WordList]:
    """Return lists of words by name.

    Args:
        names: of the lists; all lists for no names.
    Raises:
        UnknownNameError: no such list; the message has the nearest names.

    >>> find_concepts(["weekdays"])[0].words[:2]
    ('Monday', 'Tuesday')
    """
    for name in names:
        if name not in CONCEPTS:
            raise UnknownNameError("list of words", name, CONCEPTS)
    return [CONCEPTS[name] for name in names or CONCEPTS]


def own_concept(name: str, words: Sequence[str], *, cyclic: bool) -> WordList:
    """Return a user-defined list."""
    return WordList(name=name, words=tuple(words), cyclic=cyclic)


@dataclass(frozen=True, kw_only=True)
class WordActivations:
    """Activations of one list of words in fixed sentences."""

    concept: WordList
    sentences: tuple[str, ...]
    hook_points: tuple[str, ...]
    values: dict[str, Float32[np.ndarray, "n_sentences n_words d"]] = field(repr=False)
    """hook point -> `[n_sentences, n_words, d]` float32, at the last token of each word"""
    n_tokens: tuple[int, ...]
    """number of tokens of each word, with its leading space"""
    last_tokens: tuple[int, ...]
    """token id at which each word is read"""
    prefix: tuple[int, ...] | None
    """token ids before it, where all words share them (such as a lone space); None where they differ"""

    @property
    def note(self) -> str:
        """Caveat about words of several tokens; empty without any."""
        if max(self.n_tokens) == 1:
            return ""
        longer = [word for word, n in zip(self.concept.words, self.n_tokens, strict=True) if n > 1]
        text = f"read at the last of several tokens: {', '.join(longer)}"
        if len(set(self.n_tokens)) > 1:
            text += "; numbers of tokens differ, and may be the cause of a separation"
        if len(set(self.last_tokens)) < len(self.last_tokens):
            text += "; some share that token, and differ only in the tokens before it"
        return text

    def points(self, hook_point: str, *, half: int | None = None) -> Float64[np.ndarray, "n_words d"]:
        """Return the mean over sentences, `[n_words, d]` float64; `half` 0: those that fit, 1: that test, None: all.

        Raises `UnknownNameError` for a hook point that was not read.
        """
        if half not in (None, 0, 1):
            raise ConfigError(f"half is 0 (sentences that fit), 1 (that test) or None (all), got {half!r}")
        name = canonical_hook_point(hook_point)
        if name not in self.values:
            raise UnknownNameError(
                "hook point of these words", name, self.values, "read_words(hook_points=...) adds it."
            )
        values = self.values[name]
        chosen = values if half is None else values[half::2]
        return chosen.astype(np.float64).mean(0)


def residual_hook_points(model: HookedModel) -> list[str]:
    """Return the embedding and the residual stream after every block."""
    return ["hook_embed", *(f"blocks.{layer}.hook_resid_post" for layer in range(model.cfg.n_layers))]


def read_words(
    model: HookedModel,
    concept: WordList,
    *,
    sentences: Sequence[str] = SENTENCES,
    hook_points: Sequence[str] | None = None,
    batch_size: int = 64,
) -> WordActivations:
    """Run every word of the list `concept` in every sentence, in batches of one length, so without padding.

    Values are those at `hook_points` (default: the embedding and the residual stream after every block) at the last
    token of the word.

    Raises `ConfigError` for sentences that do not end in `{word}` or are fewer than four, for attention patterns, or a
    model without text; `UnknownNameError` for a hook point that it does not have; `PromptError` for a sentence longer
    than its context.
    """
    import torch

    from interp.models.adapter import available_hook_points
    from interp.models.identity import tokenizer_of
    from interp.models.passes import Capture

    if len(sentences) < 4 or not all(sentence.endswith(" {word}") for sentence in sentences):
        raise ConfigError("expected four or more sentences that end in ' {word}': half fit, half test")
    names = check_hook_points(
        list(hook_points or residual_hook_points(model)), available_hook_points(model), model.cfg.n_layers
    )
    if square := [name for name in names if name.endswith(("hook_pattern", "hook_attn_scores"))]:
        raise ConfigError(f"words are read at one position, {square[0]} has two; read a residual hook point, or hook_z")
    prompts = encode(model, [with_word(sentence, word) for sentence in sentences for word in concept.words])
    words = [list(ids) for ids in tokenizer_of(model).encode_batch([" " + word for word in concept.words])]
    rows: dict[str, list[np.ndarray | None]] = {name: [None] * len(prompts) for name in names}
    with Capture(model, names) as capture:
        for group in by_length(prompts, batch_size):
            tokens = torch.tensor([prompts[i] for i in group], device=model.cfg.device)
            for name, value in capture(tokens).items():
                for i, row in zip(group, value[:, -1].flatten(1).float().cpu().numpy(), strict=True):
                    rows[name][i] = row
    shape = (len(sentences), len(concept.words), -1)
    return WordActivations(
        concept=concept,
        sentences=tuple(sentences),
        hook_points=tuple(names),
        values={name: np.stack(parts).reshape(shape) for name, parts in rows.items()},  # pyright: ignore[reportCallIssue, reportArgumentType]
        n_tokens=tuple(len(ids) for ids in words),
        last_tokens=tuple(ids[-1] for ids in words),
        prefix=tuple(words[0][:-1]) if len({tuple(ids[:-1]) for ids in words}) == 1 else None,
    )


def encode(model: HookedModel, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text, BOS first when the model has one. Raises `PromptError` beyond the context."""
    from interp.models.identity import tokenizer_of

    tokenizer, n_ctx = tokenizer_of(model), model.cfg.n_ctx
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    prompts = [start + list(ids) for ids in tokenizer.encode_batch(list(texts))]
    for text, ids in zip(texts, prompts, strict=True):
        if len(ids) > n_ctx:
            raise PromptError(
                f"{text[:40]!r} has {len(ids)} tokens, the model's context holds {n_ctx}; shorten the prompt"
            )
    return prompts


def by_length(prompts: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Group the indices of prompts by length, at most `batch_size` in each group."""
    check_count("batch_size", batch_size, 1, "prompts run in groups of that size")
    groups: dict[int, list[int]] = {}
    for number, prompt in enumerate(prompts):
        groups.setdefault(len(prompt), []).append(number)
    return [group[i : i + batch_size] for group in groups.values() for i in range(0, len(group), batch_size)]
