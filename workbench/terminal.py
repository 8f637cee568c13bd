"""The terminal side of every verb: options in small dataclasses, help, lines of output, progress bar. Torch-free.

A verb is a frozen dataclass that inherits the options it uses, `InWorkspace`, `Writes`, `Seeded`, `Threaded`,
`OnDevice`, `RunsModel`, and, where an analysis has a settings dataclass, that one too: `settings_of` hands it on.
`options_of` reads the options off the dataclass, and `help_of` prints them.

Under `torchrun` a verb runs once per rank: the first rank prints, and a failure is reported once (`joined_ranks`).
"""

import ast
import contextlib
import inspect
import re
import shutil
import sys
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    NoReturn,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import tyro

from interp.errors import ConfigError, OtherRankError, WorkbenchError, as_typed, disk_errors, program
from interp.progress import Progress, report_made, reported
from interp.runtime import set_model_dtype

if TYPE_CHECKING:
    from interp.ranks import Ranks
    from interp.workspace import Workspace


def say(text: str) -> None:
    """Print a line. Token text is data, so it is printed without markup."""
    print(text, flush=True)


def wrote(path: Path, finding: str) -> None:
    """Print the folder that was written, and the main finding on a second line."""
    say(f"wrote {path}")
    say(f"      {finding}")
    report_made(path)


@contextlib.contextmanager
def bar(title: str, unit: str = "") -> Iterator[Progress]:
    """Show a progress bar with rate and time left; call it with `(done, total, info)`.

    Where the output is not a terminal (a log, CI), a line is printed at every quarter instead.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield reported(title, _plain_lines(title, unit))
        return
    columns = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[info]}", style="dim", markup=False),
    ]
    with RichProgress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None, rate="", info="")

        def report(done: int, total: int, info: dict) -> None:
            speed = progress.tasks[0].speed
            rate = f"{speed:,.0f} {unit}/s" if speed and unit else ""
            progress.update(task, completed=done, total=total, rate=rate, info=describe(info))

        yield report


def describe(info: dict) -> str:
    """Return the fields of a health line as text.

    >>> describe({"fvu": 0.1234, "step": 12})
    'fvu 0.123  step 12'
    """
    return "  ".join(
        f"{key} {value:,.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in info.items()
    )


def _plain_lines(title: str, unit: str) -> Progress:
    last = -1

    def report(done: int, total: int, info: dict) -> None:
        nonlocal last
        quarter = done * 4 // max(total, 1)
        if quarter > last:
            last = quarter
            say(f"  {title}: {done:,} of {total:,} {unit}  {describe(info)}".rstrip())

    return report


@dataclass(frozen=True, kw_only=True)
class Verb(ABC):
    """A command: the fields are its options, `run` does its work."""

    words: ClassVar[tuple[str, ...]] = ()
    """Words typed for the verb. Empty: the name of the class in lower case."""

    @abstractmethod
    def run(self) -> int | None:
        """Do the verb's work; return an exit code, or None for 0."""

    @classmethod
    def typed_words(cls) -> tuple[str, ...]:
        """Return the words typed for the verb, `("circuit", "find")` for example."""
        return cls.words or (cls.__name__.lower(),)


@dataclass(frozen=True, kw_only=True)
class InWorkspace(Verb):
    """Options of a verb that reads a workspace."""

    workspace: Path = Path("workspace")
    """The folder that holds all artefacts, or its URL in object storage: s3://BUCKET/PREFIX."""

    def open_workspace(self) -> "Workspace":
        """Return the workspace. Raises `MissingError` when there is none."""
        from interp.workspace import Workspace

        return Workspace(self.workspace)


@dataclass(frozen=True, kw_only=True)
class Writes(InWorkspace):
    """Options of a verb that writes an artefact."""

    name: str | None = None
    """Name of the artefact that is written. Default: derived from its input."""
    overwrite: bool = False
    """Replace an artefact of that name."""

    def open_workspace(self) -> "Workspace":
        """Return the workspace, created when missing."""
        from interp.workspace import Workspace

        return Workspace(self.workspace, create=True)

    def check_free(self, *folders: Path | None) -> None:
        """Raise `ConfigError`, before the long work and not after it, when a folder exists and may not be replaced."""
        for folder in folders:
            if folder is not None and folder.exists() and not self.overwrite:
                raise ConfigError(f"{folder} is already there; choose another --name, or --overwrite to replace it")


@dataclass(frozen=True, kw_only=True)
class Seeded(Verb):
    """Option of a verb that draws random numbers."""

    seed: int = 0
    """Determines every random number."""

    def seed_range(self, n: int) -> tuple[int, ...]:
        """Return `n` consecutive seeds."""
        return tuple(range(self.seed, self.seed + n))


@dataclass(frozen=True, kw_only=True)
class Threaded(Verb):
    """Option of a verb that computes on several threads."""

    threads: int | None = None
    """CPU threads. Default: all cores."""

    def use_threads(self) -> int:
        """Set the thread count; return the number in use."""
        from interp.runtime import set_threads

        return set_threads(self.threads)


@dataclass(frozen=True, kw_only=True)
class OnDevice(Verb):
    """Option of a verb that computes with tensors: it trains, applies dictionaries, or reads a live recording."""

    device: str | None = None
    """cpu, cuda, cuda:1 or mps. Default: the fastest that is there and gives the numbers of the CPU."""

    def use_device(self, ranks: "Ranks | None" = None, *, mps: bool = True) -> str:
        """Return the device, and print it.

        Args:
            ranks: under torchrun, the ranks: each has its own device, and the first prints.
            mps: whether mps may be taken when no device was asked for.
        """
        return self._choose_device(ranks, mps)

    def _choose_device(self, ranks: "Ranks | None", mps: bool, remark: str = "") -> str:
        from interp.runtime import pick_device

        device = pick_device(self.device if ranks is None else ranks.device(self.device), mps=mps)
        if ranks is None or ranks.first:
            say(f"device: {device}{remark}")
        return device


@dataclass(frozen=True, kw_only=True)
class RunsModel(OnDevice):
    """Options of a verb that loads a model: its dtype too, which `load_model` takes from here."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type of the model's weights and of the values between its layers; sums and scores stay in float32."""

    def use_device(self, ranks: "Ranks | None" = None, *, mps: bool = True) -> str:
        """Return the device, print it, and load every model from here on in the dtype that was asked for."""
        set_model_dtype(self.dtype)
        return self._choose_device(ranks, mps, "" if self.dtype == "float32" else f", dtype: {self.dtype}")


S = TypeVar("S")
ModelArgument = Annotated[
    tyro.conf.Positional[str],
    tyro.conf.arg(
        metavar="MODEL", help="A known name (`workbench models`), a Hugging Face id or folder, or a .gguf file."
    ),
]
Derived = Annotated[S, tyro.conf.Fixed, tyro.conf.Suppress]
"""Type of an inherited setting that a verb derives from its other options: it is no option itself."""


def settings_of(verb: Any, kind: type[S], **changed: Any) -> S:
    """Return the settings of an analysis that a verb inherits, some of them `changed`.

    Args:
        verb: an instance of a subclass of `kind`.
        kind: the settings dataclass of the analysis.
        changed: fields whose value does not come from the option of the same name.
    """
    return kind(**{each.name: getattr(verb, each.name) for each in fields(kind)} | changed)  # type: ignore[arg-type]


def slug(text: str) -> str:
    """Return a usable artefact name made from any text.

    >>> slug("HuggingFaceTB/SmolLM2-135M")
    'HuggingFaceTB-SmolLM2-135M'
    """
    usable = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)
    return usable.strip("-.")[:64] or "unnamed"


STOPPED = """
workbench: stopped; the same command continues where the verb saves its progress (record, train, lens, patch, prove,
trace, explain, dynamics), else it starts again"""


def exit_code(run: Callable[[], int | None]) -> int:
    """Run a command and return its exit code; errors are printed in one line."""
    try:
        with disk_errors():
            return run() or 0
    except WorkbenchError as error:
        print(f"workbench: {as_typed(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130
    except BrokenPipeError:  # `workbench models | head`
        return 0
    finally:
        set_model_dtype()  # what loads models later in this process was not asked for --dtype


def run_module(command: type[Verb]) -> NoReturn:
    """Run a command that is no verb of `workbench`, as `python -m MODULE`, and exit."""
    raise SystemExit(exit_code(lambda: tyro.cli(command, config=(tyro.conf.OmitArgPrefixes,)).run()))


@contextlib.contextmanager
def joined_ranks() -> Iterator["Ranks"]:
    """Join the ranks of this run. A rank that ends because another failed prints nothing."""
    from interp.ranks import join

    with join() as ranks:
        try:
            yield ranks
        except OtherRankError as error:
            raise SystemExit(error.exit_code) from None


@contextlib.contextmanager
def first_bar(ranks: "Ranks", title: str, unit: str = "") -> Iterator[Progress]:
    """Show a progress bar on the first rank, and nothing on the others."""
    if not ranks.first:
        yield lambda done, total, info: None
        return
    with bar(title, unit) as progress:
        yield progress


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
_METAVARS = {
    **dict.fromkeys(("name", "recording", "others", "into", "onto"), "NAME"),
    **dict.fromkeys(("model", "continuations"), "MODEL"),
    **dict.fromkeys(("hook_point", "hook_points", "hook_point_out", "at"), "HOOK-POINT"),
    **dict.fromkeys(("corpus", "control"), "CORPUS"),
    **dict.fromkeys(("lists", "targets", "towards", "away", "own_words"), "WORD"),
    **dict.fromkeys(("sae", "then"), "SOURCE"),
    **{name: name.upper() for name in ("cells", "provider", "kind", "format", "tracker", "task", "host", "device")},
    "key_variable": "VARIABLE",
}
"""Values of text options, by field; those of others are called TEXT."""


def options_of(verb: type) -> list[Option]:
    """Return the options of a verb: its own, then inherited settings, then those that all verbs share."""
    hints, marks = get_type_hints(verb), get_type_hints(verb, include_extras=True)
    own, texts, found = inspect.get_annotations(verb), _texts(verb), []
    for field in fields(verb):
        mark = getattr(marks[field.name], "__metadata__", ())
        if tyro.conf.Fixed in mark:
            continue
        given = {key: value for each in mark for key, value in getattr(each, "__dict__", {}).items() if value}
        metavar = given.get("metavar") or _metavar(field.name, hints[field.name])
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


def _metavar(name: str, hint: Any) -> str:
    """Return the value of an option by its type: N, FRACTION, NUMBER, PATH, its choices, or the word for its text."""
    inner = [each for each in get_args(hint) if each not in (type(None), ...)]
    if get_origin(hint) in (Union, UnionType):
        return _metavar(name, inner[0])
    if get_origin(hint) is tuple:
        return " ".join(_metavar(name, each) for each in inner) + (" ..." if ... in get_args(hint) else "")
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, inner)) + "}"
    fraction = hint is float and re.search("fraction|faithfulness|sparsity_warmup", name)
    by_type = {int: "N", float: "FRACTION" if fraction else "NUMBER", Path: "PATH"}
    return by_type.get(hint) or _METAVARS.get(name, "TEXT")


@cache
def _texts(kind: type) -> dict[str, str]:
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
    """Return the text of an option with its default, unless the text states it or there is none to state."""
    if default in (MISSING, None, (), "") or re.search(r"\bDefault: ", text):
        return text
    values = default if isinstance(default, tuple) else (default,)
    words = [f"{each:g}" if isinstance(each, float) else str(each) for each in values]
    return (
        f"{text} Default: { ({True: 'yes', False: 'no'}[default] if isinstance(default, bool) else ' '.join(words)) }."
    )


def help_of(verb: type[Verb]) -> str:
    """Return what `workbench VERB --help` prints, wrapped to the terminal and to `WIDEST` columns at most."""
    width = max(60, min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns))
    options = options_of(verb)
    needed = [" ".join([*option.flags, option.metavar]) for option in options if option.required and option.flags]
    arguments = [option.metavar if option.required else f"[{option.metavar}]" for option in options if not option.flags]
    usage = [f"usage: {program()}", *verb.typed_words(), *arguments, *needed, *["[OPTIONS]"] * bool(options)]
    lines = _wrap(" ".join(usage), width, indent=7)
    for paragraph in as_typed(inspect.getdoc(verb) or "").split("\n\n"):
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


_COMMON = (Writes, InWorkspace, Seeded, Threaded, OnDevice, RunsModel)
