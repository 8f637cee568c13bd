"""The options of a verb: read off its dataclass, off the words of a command, and typed again. Torch-free.

Help, reference, forms of the page *Runs* and commands are made from the list that `options_of` returns. `read_command`
and `words_of` are each other's inverse. `value_of` and `made` check what was typed, or entered in a form.
"""

import argparse
import inspect
import math
import re
import shlex
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_type_hints

from interp.errors import ConfigError, UnknownNameError, as_typed, program
from interp.options import BASIC, DERIVED, Option, marks, option_of
from workbench.terminal import InWorkspace, OnDevice, RunsModel, Seeded, Threaded, Verb, Writes

WIDEST = 100
"""Largest number of columns of a line of help."""


def about(verb: type[Verb]) -> str:
    """Return the docstring of a verb, and whether an interrupted command continues, which its class says."""
    text = inspect.getdoc(verb) or ""
    return f"{text}\n\nResumable: after an interruption, the same command continues." if verb.resumes else text


def wrap(text: str, width: int, *, indent: int = 0) -> list[str]:
    """Return the lines of a text, the later ones indented. A word, and code in backquotes, is not broken."""
    whole = re.sub(r"`[^`]{,40}`", lambda code: code[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(whole, width, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False)
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


V = TypeVar("V", bound=Verb)
_SHARED = (Writes, InWorkspace, Seeded, Threaded, OnDevice, RunsModel)
"""Classes whose options verbs share; the help lists them last."""
_INDENT = 24


def options_of(verb: type) -> list[Option]:
    """Return the options of a verb: its own, then inherited settings, then those that all verbs share."""
    marked, annotations = get_type_hints(verb, include_extras=True), inspect.get_annotations(verb)
    shared = {name for cls in _SHARED for name in inspect.get_annotations(cls)} - {*annotations}
    options = []
    for field in fields(verb):
        name, markers = field.name, list(marks(marked[field.name]))
        if DERIVED in markers:
            continue
        option = option_of(verb, name)
        advanced = not (option.required or name in annotations or BASIC in markers)
        options.append(replace(option, advanced=advanced, shared=name in shared))
    return sorted(options, key=lambda option: (option.shared, option.name not in annotations, not option.required))


def value_of(option: Option, value: object) -> object:
    """Return a value of an option in the type of its field; texts of numbers, paths and choices are read.

    Raises `ConfigError`, and `UnknownNameError` for a choice that is none.
    """
    if isinstance(value, list | tuple):
        return tuple(value_of(option, entry) for entry in value)
    if option.kind in ("whole", "number"):
        return _number(option, value)
    if option.kind == "switch":
        if not isinstance(value, bool):
            raise ConfigError(f"{option.label} is yes or no, got {value!r}")
        return value
    if option.kind == "choice" and value not in option.choices:
        raise UnknownNameError(f"value of {option.label}", str(value), option.choices)
    return Path(str(value)) if option.kind == "path" else value


def _number(option: Option, value: object) -> int | float:
    whole = option.kind == "whole"
    try:
        number = math.nan if isinstance(value, bool) else float(str(value))
        if whole and number == int(number):
            return int(str(value)) if isinstance(value, int) or str(value).isdecimal() else int(number)
        if not whole and math.isfinite(number):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConfigError(f"{option.label} takes a {'whole' if whole else 'finite'} number, got {value!r}")


def made(verb: type[V], values: Mapping[str, object]) -> V:
    """Return a verb with these values, which it checks itself. Raises `ConfigError` where a required one is missing."""
    for option in options_of(verb):
        if option.required and option.name not in values:
            raise ConfigError(f"{' '.join(verb.typed_words())} needs {option.label}: {option.help}")
    return verb(**values)


def read_command(verb: type[V], words: Sequence[str], command: str = "") -> V:
    """Return the verb with the options in the words of a command; print its help, and exit, where that is asked for.

    `command` is what was typed before the words. Raises `ConfigError` and `UnknownNameError`.
    """
    options, ends = options_of(verb), words.index("--") if "--" in words else len(words)
    flat = [re.sub("^--[^=]+", lambda flag: flag[0].replace("_", "-"), word) for word in words[:ends]]
    namespace, left = _parser(verb, command).parse_known_intermixed_args([*flat, *words[ends:]])
    if left:
        raise _refusal(verb, left, command or " ".join(["workbench", *verb.typed_words()]))
    values = {}
    for option in options:
        value = getattr(namespace, option.name, None)
        if value is not None and (value or option.flags):
            unset = option.optional and value in ("None", ["None"])
            values[option.name] = None if unset else value_of(option, value)
    return made(verb, values)


def help_of(verb: type[Verb]) -> str:
    """Return what `workbench VERB --help` prints, wrapped to the terminal and to `WIDEST` columns at most."""
    return _parser(verb).format_help().rstrip()


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are errors of ours."""

    def error(self, message: str) -> NoReturn:
        hint = f"`{self.prog} --help` explains it; a value that begins with - is typed --option=VALUE"
        raise ConfigError(f"{message.removeprefix('argument ')}; {hint}")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help with a second column whose commands are not broken."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrap(text, width)


def _parser(verb: type[Verb], command: str = "") -> _Parser:
    """Return a parser that sorts words by option; it leaves their values as texts."""
    options, width = options_of(verb), max(60, min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns))
    arguments = [option for option in options if not option.flags]
    needed = [f"{option.label} {option.metavar}".rstrip() for option in options if option.required and option.flags]
    shown = [option.label if option.required else f"[{option.label}]" for option in arguments]
    start = command or f"{program()} {' '.join(verb.typed_words())}"
    usage = [start, *shown, *needed, *["[OPTIONS]"] * bool(options)]
    parser = _Parser(
        prog=command or " ".join(["workbench", *verb.typed_words()]),
        usage="\n".join(wrap(" ".join(usage), width - 7, indent=7)),
        description=paragraphs(as_typed(about(verb)), width),
        formatter_class=partial(_Formatter, max_help_position=_INDENT, width=width),
        allow_abbrev=False,
    )
    parser._negative_number_matcher = re.compile(r"-\.?\d")  # -1e-3 is a value too
    shared = parser.add_argument_group("common options")
    for option in options:
        text = as_typed(f"Required. {option.help}" if option.required and option.flags else option.help)
        form: dict[str, Any] = {"help": text.replace("%", "%%")}
        if not option.flags:
            parser.add_argument(option.name, metavar=option.metavar, nargs="*" if option.many else "?", **form)
            continue
        flags, form = option.flags, {"dest": option.name, "default": argparse.SUPPRESS, **form}
        if option.kind == "switch":
            flags, form["action"] = flags[:-1], argparse.BooleanOptionalAction
        elif option.many:  # given twice, all values count
            form |= {"metavar": option.metavar.removesuffix(" ..."), "nargs": "*", "action": "extend"}
        else:
            form["metavar"] = option.metavar
        (shared if option.shared else parser).add_argument(*flags, **form)
    return parser


def _refusal(verb: type[Verb], left: Sequence[str], command: str) -> ConfigError | UnknownNameError:
    """Return the error for words that a verb does not take."""
    word = next((word.partition("=")[0] for word in left if word.startswith("--")), left[0])
    options, hint = options_of(verb), f"`{command} --help` lists them"
    for option in options:
        if not option.flags and word == f"--{option.name.replace('_', '-')}":
            without = f"`{command}` takes {option.label} without {word}"
            return ConfigError(f"{without}: `{command} {option.label}`")
    if word == "--engine" and command.endswith(" train"):
        recorded = "a live recording is read by the engine that it was recorded with"
        return ConfigError(f"{recorded}: leave {word} out here, and give it to `workbench record --live`")
    if word == "--engine":
        return ConfigError(f"`{command}` reads weights of the model, which only the default engine holds; leave it out")
    if not word.startswith("--"):
        return ConfigError(f"`{command}` does not take {word!r}; `{command} --help` shows what it takes")
    known = [flag for option in options for flag in option.flags]
    return UnknownNameError(f"option of {command}", word, known, hint)


def words_of(verb: type[Verb], values: Mapping[str, object]) -> list[str]:
    """Return the words that are typed for a verb with values; those at their default are left out."""
    words, last = [*verb.typed_words()], []
    for option in options_of(verb):
        value = values.get(option.name, option.default)
        if value == option.default:
            continue
        texts = [str(entry) for entry in (value if isinstance(value, list | tuple) else [value])]
        if not option.flags:
            words += texts
        elif option.kind == "switch":
            last.append(option.label if value else option.aliases[-1])
        elif texts[0].startswith("-"):
            last.append(f"{option.label}={texts[0]}")
        else:
            last += [option.label, *texts]
    return [*words, *last]


def typed(words: Sequence[str]) -> str:
    """Return words after the command that runs `workbench`, as a shell reads them."""
    return shlex.join([*shlex.split(program()), *words])


def command_line(verb: Verb) -> str:
    """Return the command that makes a verb with these options, without those at their defaults."""
    return typed(words_of(type(verb), vars(verb)))
