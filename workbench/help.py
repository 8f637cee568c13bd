"""The texts of a verb, read off its source: its docstring, wrapped, and those under its fields. Torch-free."""

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from interp.errors import program
from workbench.terminal import Verb

WIDEST = 100
"""Largest number of columns of a line of help."""


def about(verb: type[Verb]) -> str:
    """Return the docstring of a verb, and whether an interrupted command continues, which its class says."""
    text = inspect.getdoc(verb) or ""
    return f"{text}\n\nResumable: after an interruption, the same command continues." if verb.resumes else text


def wrap(text: str, width: int, *, indent: int = 0) -> list[str]:
    """Return the lines of a text, the later ones indented. A word, and code in backquotes, is not broken."""
    whole = re.sub(r"`[^`]{,40}`", lambda code: code[0].replace(" ", "\0"), text)
    options: dict[str, Any] = {"break_on_hyphens": False, "break_long_words": False}
    lines = textwrap.wrap(whole, width, subsequent_indent=" " * indent, **options)
    return [line.replace("\0", " ") for line in lines]


def paragraphs(text: str, width: int) -> str:
    """Return a text whose lines fit; examples are commands that a shell reads."""
    return "\n\n".join("\n".join(_paragraph(paragraph, width)) for paragraph in text.split("\n\n"))


def _paragraph(text: str, width: int) -> Iterator[str]:
    """Yield the lines of a paragraph: an example as commands, indented lines as a table, the rest wrapped."""
    example = re.match(r"([A-Z][\w ]*: )(?=workbench )", text)
    if example:
        commands = re.split(r";?\s+(?=workbench )", " ".join(text[example.end() :].split()))
        for number, command in enumerate(commands):
            first = example[1] if not number else " " * len(example[1])
            yield from _command(first, command.replace("workbench", program(), 1), width)
        return
    plain: list[str] = []
    for line in [*text.splitlines(), " "]:
        if not line.startswith(" "):
            plain.append(line)
            continue
        yield from wrap(" ".join(plain), width)
        plain = []
        left = re.match(r" +\S.*?  +", line)
        yield from wrap(line, width, indent=left.end() if left else 2)


def _command(first: str, command: str, width: int) -> Iterator[str]:
    """Yield a command on lines that a shell reads as one; an option stays with its values, quotes stay whole."""
    line = first
    for part in re.findall(r'(?:--)?(?:"[^"]*"|[^\s"])+(?: (?!--)(?:"[^"]*"|[^\s"])+)*', command):
        if line.strip() and line != first and len(line) + len(part) + 3 > width:
            yield line + " \\"
            line = " " * (len(first) + 3)
        line += part if line == first else f" {part}"
    yield line
