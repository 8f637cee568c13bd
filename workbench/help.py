"""The options of a verb as they are typed and explained, read off its dataclass, and the help printed from them.

Torch-free.
"""

import ast
import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from interp.errors import as_typed, program
from interp.options import Means, meaning
from workbench.terminal import InWorkspace, OnDevice, RunsModel, Seeded, Threaded, Verb, Writes

_COMMON = (Writes, InWorkspace, Seeded, Threaded, OnDevice, RunsModel)
"""Classes whose options verbs share; the help lists them last."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of a verb, or an argument without a flag, as it is typed and explained."""

    name: str
    """Field of the verb."""
    flags: tuple[str, ...]
    """Words that set it, `("--live", "--no-live")`; empty for an argument."""
    metavar: str
    """Its value as the help writes it: N, TEXT, NAME ...; empty for a switch."""
    text: str
    """Meaning and default."""
    required: bool
    common: bool
    """True for the options that verbs share, --workspace for example."""

    @property
    def typed(self) -> str:
        """Flags and value as they are typed, `--live/--no-live` or `--tokens N`."""
        return f"{(', ' if self.metavar else '/').join(self.flags)} {self.metavar}".strip()


WIDEST = 100
"""Largest number of columns of a line of help."""
_INDENT = 24
_POSITIONAL = get_args(tyro.conf.Positional[str])[1]


def options_of(verb: type) -> list[Option]:
    """Return the options of a verb: its own, then inherited settings, then those that all verbs share."""
    hints, marks = get_type_hints(verb), get_type_hints(verb, include_extras=True)
    own, texts, found = inspect.get_annotations(verb), field_texts(verb), []
    for field in fields(verb):
        mark = getattr(marks[field.name], "__metadata__", ())
        if tyro.conf.Fixed in mark:
            continue
        given = {key: value for each in mark for key, value in getattr(each, "__dict__", {}).items() if value}
        metavar = given.get("metavar") or _metavar(field.name, hints[field.name], meaning(marks[field.name]))
        flags = (f"--{field.name.replace('_', '-')}", *given.get("aliases", ()))
        if is_switch(hints[field.name]):
            flags, metavar = (*flags, flags[0].replace("--", "--no-", 1)), ""
        if _POSITIONAL in mark:
            flags, metavar = (), given.get("metavar") or field.name.upper().replace("_", "-")
        required = field.default is MISSING and field.default_factory is MISSING
        text = _with_default(given.get("help") or texts.get(field.name, ""), field.default)
        common = field.name not in own and any(field.name in inspect.get_annotations(each) for each in _COMMON)
        found.append(Option(name=field.name, flags=flags, metavar=metavar, text=text, required=required, common=common))
    return sorted(found, key=lambda option: (option.common, option.name not in own, not option.required))


def is_switch(hint: Any) -> bool:
    """Return True for the type of an option without a value: `bool`, or `bool | None`."""
    return hint is bool or set(get_args(hint)) == {bool, type(None)}


LONGEST = 60
"""Longest list of choices that is shown, in characters; a longer one is left to the option's text."""


def _metavar(name: str, hint: Any, means: Means | None) -> str:
    """Return the value of an option by its type: N, FRACTION, NUMBER, PATH, its choices, or the word for its text."""
    inner = [each for each in get_args(hint) if each not in (type(None), ...)]
    if get_origin(hint) in (Union, UnionType):
        return _metavar(name, inner[0], means)
    if get_origin(hint) is tuple:
        return " ".join(_metavar(name, each, means) for each in inner) + (" ..." if ... in get_args(hint) else "")
    if get_origin(hint) is Literal:
        choices = "{" + ",".join(map(str, inner)) + "}"
        return choices if len(choices) <= LONGEST else name.upper().replace("_", "-")  # its text names them
    fraction = hint is float and re.search("fraction|faithfulness|sparsity_warmup", name)
    by_type = {int: "N", float: "FRACTION" if fraction else "NUMBER", Path: "PATH"}
    return by_type.get(hint) or (means.metavar if means else "TEXT")


@cache
def field_texts(kind: type) -> dict[str, str]:
    """Return the text under each field of a dataclass in its source, by field; inherited ones too."""
    found = {}
    for each in reversed([each for each in kind.__mro__ if is_dataclass(each)]):
        definition = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]
        assert isinstance(definition, ast.ClassDef)
        for field, text in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


def _with_default(text: str, default: Any) -> str:
    """Return the text of an option with its default, unless the text states it or it has none."""
    if default in (MISSING, None, (), "") or re.search(r"\bDefault: ", text):
        return text
    values = default if isinstance(default, tuple) else (default,)
    words = [f"{each:g}" if isinstance(each, float) else str(each) for each in values]
    return (
        f"{text} Default: { ({True: 'yes', False: 'no'}[default] if isinstance(default, bool) else ' '.join(words)) }."
    )


def about(verb: type[Verb]) -> str:
    """Return the docstring of a verb, and whether an interrupted command continues, which its class says."""
    text = inspect.getdoc(verb) or ""
    return f"{text}\n\nResumable: after an interruption, the same command continues." if verb.resumes else text


def help_of(verb: type[Verb]) -> str:
    """Return what `workbench VERB --help` prints, wrapped to the terminal and to `WIDEST` columns at most."""
    width = max(60, min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns))
    options = options_of(verb)
    needed = [" ".join([*option.flags, option.metavar]) for option in options if option.required and option.flags]
    arguments = [option.metavar if option.required else f"[{option.metavar}]" for option in options if not option.flags]
    usage = [f"usage: {program()}", *verb.typed_words(), *arguments, *needed, *["[OPTIONS]"] * bool(options)]
    lines = _wrap(" ".join(usage), width, indent=7)
    for paragraph in as_typed(about(verb)).split("\n\n"):
        lines += ["", *_paragraph(paragraph, width)]
    groups = {
        "arguments": [option for option in options if not option.flags],
        "options": [option for option in options if option.flags and not option.common],
        "common options": [option for option in options if option.flags and option.common],
    }
    for title, members in groups.items():
        lines += ["", title] if members else []
        for option in members:
            lines += _entry(option, width)
    return "\n".join(lines)


def _wrap(text: str, width: int, *, indent: int = 0) -> list[str]:
    """Return the lines of a text, the later ones indented. A word, and code in backquotes, is not broken."""
    whole = re.sub(r"`[^`]{,40}`", lambda code: code[0].replace(" ", "\0"), text)
    options: dict[str, Any] = {"break_on_hyphens": False, "break_long_words": False}
    lines = textwrap.wrap(whole, width, subsequent_indent=" " * indent, **options)
    return [line.replace("\0", " ") for line in lines]


def _entry(option: Option, width: int) -> list[str]:
    """Return the lines of one option: how it is typed, and its text in the second column."""
    typed = f"  {option.typed}"
    text = f"Required. {option.text}" if option.required and option.flags else option.text
    lines = _wrap(as_typed(text), width - _INDENT)
    if len(typed) > _INDENT - 2:
        return [typed, *(" " * _INDENT + line for line in lines)]
    return [typed.ljust(_INDENT) + (lines[0] if lines else ""), *(" " * _INDENT + line for line in lines[1:])]


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
        yield from _wrap(" ".join(plain), width)
        plain = []
        left = re.match(r" +\S.*?  +", line)
        yield from _wrap(line, width, indent=left.end() if left else 2)


def _command(first: str, command: str, width: int) -> Iterator[str]:
    """Yield a command on lines that a shell reads as one; an option stays with its values, quotes stay whole."""
    line = first
    for part in re.findall(r'(?:--)?(?:"[^"]*"|[^\s"])+(?: (?!--)(?:"[^"]*"|[^\s"])+)*', command):
        if line.strip() and line != first and len(line) + len(part) + 3 > width:
            yield line + " \\"
            line = " " * (len(first) + 3)
        line += part if line == first else f" {part}"
    yield line
