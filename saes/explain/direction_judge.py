"""A language model that writes as two characters, and that says yes or no about texts. Torch-free."""

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from interp.errors import ConfigError
from saes.explain.asking import REPLIES, Asker, Budget, Provider, Request, Transcript

WRITTEN_TOKENS = 40
"""Longest passage that is written for an opening."""
ANSWER_TOKENS = 16
_QUESTION = """\
A text begins:
<<<{prompt}>>>

It goes on:
<<<{text}>>>

Question about how it goes on: {question}
Answer with one word, yes or no."""
_WRITE = """\
Go on with a text in one sentence of at most fifteen words, as somebody who is very {trait} would. Reply with the \
words that follow and nothing else.

The text begins: {start}"""


def ask_all(provider: Provider, requests: Sequence[Request], report: Callable[[], None] | None = None) -> list[str]:
    """Return the replies to requests, several at a time; `report` is called after each. Raises as `Provider.complete`
    does."""
    with tempfile.TemporaryDirectory() as folder:
        asker = Asker(provider, Transcript(Path(folder) / REPLIES), Budget(2 * len(requests) + 10), report)
        return [reply.text for reply in asker.ask(requests)]


def answers_of(
    provider: Provider, question: str
) -> Callable[[Sequence[tuple[str, str]], Callable[[], None] | None], list[bool | None]]:
    """Return a function that asks a question about continuations of prompts, one request for each.

    The answer is True, False, or None for one that is neither yes nor no.
    """

    def answers(samples: Sequence[tuple[str, str]], report: Callable[[], None] | None = None) -> list[bool | None]:
        contents = [_QUESTION.format(prompt=prompt, text=text, question=question) for prompt, text in samples]
        requests = [Request(each, ANSWER_TOKENS) for each in contents]
        return [yes_or_no(reply) for reply in ask_all(provider, requests, report)]

    return answers


def yes_or_no(reply: str) -> bool | None:
    """Return the first yes or no of a reply; None without either."""
    found = re.search(r"\b(yes|no)\b", reply, re.IGNORECASE)
    return None if found is None else found[1].lower() == "yes"


def written_by(provider: Provider) -> Callable[[str, Sequence[str]], list[str]]:
    """Return a function that writes what follows some openings, as somebody with a trait."""

    def write(trait: str, starts: Sequence[str]) -> list[str]:
        asked = [Request(_WRITE.format(trait=trait, start=start), WRITTEN_TOKENS) for start in starts]
        return [_continuation(reply, start) for reply, start in zip(ask_all(provider, asked), starts, strict=True)]

    return write


def check_answers(provider: Provider) -> None:
    """Ask a trivial question before long work. Raises `ConfigError` for a provider that answers neither yes nor no."""
    [answer] = answers_of(provider, "Does it mention a colour?")([("The sky today is", " blue and clear.")], None)
    if answer is None:
        raise ConfigError(
            f"{provider.model} answered neither yes nor no to a simple question; choose a model that follows "
            "instructions"
        )


def _continuation(reply: str, start: str) -> str:
    """Return the first line of a reply without quotes and without the opening, after a space."""
    first = next((line for line in reply.splitlines() if line.strip()), "")
    return " " + first.strip(' "').removeprefix(start).strip(" .")
