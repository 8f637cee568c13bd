"""Words of a prompt: runs of tokens that are written without a break. Torch-free."""

from collections.abc import Sequence


def word_spans(texts: Sequence[str], *, joined: bool = True) -> list[tuple[range, str]]:
    """Return the positions and the text of each word.

    A token that begins with a letter or a digit belongs to the word before it where that ends with one. Without
    `joined` every token is a word, as in a model without a tokenizer.
    """
    starts = [
        at
        for at, text in enumerate(texts)
        if not (joined and at and text[:1].isalnum() and texts[at - 1][-1:].isalnum())
    ]
    runs = [range(first, stop) for first, stop in zip(starts, [*starts[1:], len(texts)], strict=True)]
    return [(run, shown("".join(texts[position] for position in run))) for run in runs]


def shown(text: str) -> str:
    """Return a word or token without the spaces around it; blanks alone as the signs for them."""
    return text.strip() or text.replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣")


def same_words(texts: Sequence[str], number: int) -> list[int]:
    """Return the numbers of the words before a word that have its text, in any case of letters; not of signs."""
    word = texts[number].casefold()
    return [i for i in range(number) if texts[i].casefold() == word and any(char.isalnum() for char in word)]
