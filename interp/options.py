"""Types of options: the meaning of their text, stated once for help, menus, page checks and completion.

    recording: RecordingName | None = None
    lists: tuple[Word, ...] = ()

`Means` and the other marks are metadata of the type (`typing.Annotated`): nothing changes where the value is used.
`Option` is what a command, a form and the reference make of such a field, be it of a verb, an act or other settings.
Torch-free.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Interval, MaxLen

from interp.errors import ConfigError


@dataclass(frozen=True)
class Means:
    """Meaning of the text of an option."""

    metavar: str
    """Its value as the help writes it."""
    menu: str = ""
    """Kind of thing that it names, which a page offers and checks; empty: any text."""


@dataclass(frozen=True)
class Argument:
    """Marks a value that is typed without a flag."""

    metavar: str
    """Its name in the help."""
    help: str = ""
    """Its meaning, where the field has no text."""


@dataclass(frozen=True)
class Alias:
    """A second flag of an option."""

    flag: str


@dataclass(frozen=True)
class FieldLabel:
    """Name of a field in the form of a page, where that of the field says too little."""

    text: str


@dataclass(frozen=True)
class Slider:
    """Usual values of a number, which a slider offers; more is allowed."""

    low: float
    high: float
    step: float


class ChoiceWords:
    """Words for the choices of a field; a form of a page offers those that have some."""

    def __init__(self, **words: str):
        self.words = words


class _Mark:
    """A mark without a value."""


BASIC = _Mark()
"""Marks an inherited setting that a form shows at once; others are folded."""
DERIVED = _Mark()
"""Marks a setting that is no option: it follows from others, or its default serves whoever types a command."""

T = TypeVar("T")
Derived = Annotated[T, DERIVED]
ModelName = Annotated[str, Means("MODEL", "model")]
RecordingName = Annotated[str, Means("NAME", "recording")]
SAEName = Annotated[str, Means("SAE", "sae")]
DictionaryName = Annotated[str, Means("DICTIONARY", "dictionary")]
FeaturesName = Annotated[str, Means("FEATURES", "features")]
FeatureName = Annotated[str, Means("SAE:NUMBER", "feature")]
FeatureNumber = Annotated[int, Means("N", "number of a feature")]
FEATURE_MENUS = ("feature", "number of a feature")
"""Of the options that a page fills from a menu of features."""
AtlasName = Annotated[str, Means("NAME", "atlas")]
ArtefactName = Annotated[str, Means("NAME", "name")]
AtlasSourceName = Annotated[str, Means("SOURCE", "source")]
HookPoint = Annotated[str, Means("HOOK-POINT", "hook point")]
Corpus = Annotated[str, Means("CORPUS", "corpus")]
Pairs = Annotated[str, Means("FILE", "pairs")]
TaskName = Annotated[str, Means("TASK", "task")]
Cells = Annotated[str, Means("CELLS", "cells")]
Device = Annotated[str, Means("DEVICE", "device")]
Word = Annotated[str, Means("WORD")]
Seed = Annotated[int, BASIC]
PromptText = Annotated[str, Means("TEXT"), MaxLen(100_000)]
"""A prompt; its tokens are counted when it is read."""
Count = Annotated[int, Interval(ge=0, le=2**31)]
"""A number from 0: a position, a layer, a head, a feature."""
Temperature = Annotated[float, Interval(ge=0, le=5), Slider(0, 2, 0.1)]
"""0 for the likeliest token, 1 for the model's own probabilities."""
Strength = Annotated[float, Interval(ge=-1000, le=1000), Slider(-2, 2, 0.25), FieldLabel("× its maximum")]
"""In units of the largest activation of a feature that was measured; below 0 against its direction."""


Kind = Literal["text", "path", "whole", "number", "switch", "choice"]
_KINDS: dict[object, Kind] = {bool: "switch", int: "whole", float: "number", Path: "path"}
LONGEST = 60
"""Longest list of choices that is shown, in characters; a longer one is left to the option's text."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of a verb, or an argument without a flag: as it is typed, explained and shown in a form."""

    name: str
    """Field of the verb or act."""
    kind: Kind
    label: str
    """The option as it is typed (`--tokens`), or the name of an argument (`MODEL`)."""
    help: str
    """Meaning and default."""
    title: str
    """Its name in a form."""
    aliases: tuple[str, ...] = ()
    """Other flags; of a switch the one that turns it off."""
    metavar: str = ""
    """Its value as the help writes it: N, TEXT, NAME ...; empty for a switch."""
    default: Any = None
    required: bool = False
    optional: bool = False
    """True where None is a value."""
    many: bool = False
    """True where several values may be given."""
    choices: tuple[str, ...] = ()
    words: tuple[tuple[str, str], ...] = ()
    """The choices that a form offers, each with its words."""
    least: float | None = None
    most: float | None = None
    slider: Slider | None = None
    menu: str = ""
    """Kind of thing that it names: `model`, `recording`, `sae` ... Empty: any text."""
    advanced: bool = False
    """True where a form folds it."""
    shared: bool = False
    """True for the options that verbs share, --workspace for example."""

    @property
    def flags(self) -> tuple[str, ...]:
        """Words that set it, `("--live", "--no-live")`; empty for an argument."""
        return (self.label, *self.aliases) if self.label.startswith("--") else ()

    @property
    def typed(self) -> str:
        """Flags and value as they are typed, `--live/--no-live` or `--tokens N`."""
        return f"{(', ' if self.metavar else '/').join(self.flags)} {self.metavar}".strip()


def meaning(hint: object) -> Means | None:
    """Return what the text of an option means, from its annotation with extras; None for one without.

    >>> meaning(tuple[HookPoint, ...] | None)
    Means(metavar='HOOK-POINT', menu='hook point')
    """
    return next((mark for mark in marks(hint) if isinstance(mark, Means)), None)


def marks(hint: object) -> Iterator[object]:
    """Yield the metadata of an annotation and of the types inside it."""
    yield from getattr(hint, "__metadata__", ())
    for argument in get_args(hint):
        if argument is not hint and not isinstance(argument, str):
            yield from marks(argument)


@cache
def field_texts(kind: type) -> dict[str, str]:
    """Return the text under each field of a dataclass in its source, by field; inherited ones too."""
    texts: dict[str, str] = {}
    for base in reversed([base for base in kind.__mro__ if is_dataclass(base)]):
        try:
            source = inspect.getsource(base)
        except (OSError, TypeError):  # a class that was made without source, as by a notebook
            continue
        definition = ast.parse(textwrap.dedent(source)).body[0]
        assert isinstance(definition, ast.ClassDef)
        for field, text in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                texts[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return texts


class _Form(NamedTuple):
    """Form of the values of a field."""

    kind: Kind
    choices: tuple[str, ...] = ()
    many: bool = False
    optional: bool = False


@cache
def option_of(kind: type, name: str) -> Option:
    """Return a field of a dataclass as an option: its type, limits, default and text, which stand there alone."""
    field = next(field for field in fields(kind) if field.name == name)
    hint, marked = (get_type_hints(kind, include_extras=extras)[name] for extras in (False, True))
    metadata, (form, choices, many, optional) = list(marks(marked)), _form(hint)
    argument, label, words = _last(metadata, Argument), _last(metadata, FieldLabel), _last(metadata, ChoiceWords)
    limits = _last(metadata, Interval) or Interval()
    least, most = (float(bound) if isinstance(bound, int | float) else None for bound in (limits.ge, limits.le))
    flag, means = f"--{name.replace('_', '-')}", meaning(marked)
    aliases = tuple(mark.flag for mark in metadata if isinstance(mark, Alias))
    metavar = _metavar(name, form, choices, means.metavar if means else "TEXT") + (" ..." if many else "")
    if argument is not None:
        metavar = f"{argument.metavar} [{argument.metavar} ...]" if many else argument.metavar
    elif form == "switch":
        aliases, metavar = (*aliases, f"--no-{flag[2:]}"), ""
    required = field.default is MISSING and field.default_factory is MISSING
    return Option(
        name=name,
        kind=form,
        label=flag if argument is None else metavar,
        title=label.text if label else name.replace("_", " "),
        help=_with_default((argument and argument.help) or field_texts(kind).get(name, ""), field.default),
        aliases=aliases,
        metavar=metavar,
        default=None if required else field.default,
        required=required,
        optional=optional,
        many=many,
        choices=choices,
        words=tuple(words.words.items()) if words else tuple((choice, choice) for choice in choices),
        least=least,
        most=most,
        slider=_last(metadata, Slider),
        menu=means.menu if means else "",
    )


def _last(metadata: Sequence[object], kind: type[T]) -> T | None:
    """Return the last mark of a class: that of a field goes before those of its type."""
    return next((mark for mark in reversed(metadata) if isinstance(mark, kind)), None)


def check_limits(value: Any) -> None:
    """Check the numbers of a dataclass against the limits in the types of its fields. Raises `ConfigError`."""
    for option in (option_of(type(value), field.name) for field in fields(value)):
        number, least, most = getattr(value, option.name), option.least, option.most
        if isinstance(number, int | float) and least is not None and most is not None and not least <= number <= most:
            raise ConfigError(f"{option.name} should be {least:g} to {most:g}, found {number:g}")


def base_of(value: T, base: type[T]) -> T:
    """Return the part of a dataclass that it inherits from `base`, itself a dataclass."""
    return base(**{field.name: getattr(value, field.name) for field in fields(base)})  # pyright: ignore[reportArgumentType]


def check_least(settings: object, least: Mapping[str, float]) -> None:
    """Raise `ConfigError` for the first field that lies below its least value; None is allowed."""
    for name, bound in least.items():
        number = getattr(settings, name)
        if number is not None and not number >= bound:
            raise ConfigError(f"{name} must be at least {bound:g}, got {number}")


def check_positive(settings: object, *names: str) -> None:
    """Raise `ConfigError` for the first field that is not above 0."""
    for name in names:
        if not getattr(settings, name) > 0:
            raise ConfigError(f"{name} must be above 0, got {getattr(settings, name)}")


def _form(hint: object) -> _Form:
    """Return kind and choices of a type, and whether it takes several values, and None."""
    inner = [argument for argument in get_args(hint) if argument is not NoneType]
    if get_origin(hint) in (Union, UnionType):
        return _form(inner[0])._replace(optional=True)
    if get_origin(hint) is tuple:
        return _form(inner[0])._replace(many=True, optional=False)
    if get_origin(hint) is Literal:
        return _Form("choice", tuple(map(str, inner)))
    return _Form(_KINDS.get(hint, "text"))


def _metavar(name: str, kind: Kind, choices: tuple[str, ...], text: str) -> str:
    """Return the value of an option as the help writes it: N, FRACTION, NUMBER, PATH, its choices, or a word."""
    if kind == "choice":
        listed = "{" + ",".join(choices) + "}"
        return listed if len(listed) <= LONGEST else name.upper().replace("_", "-")  # its text names them
    fraction = re.search("fraction|faithfulness|sparsity_warmup", name)
    return {"whole": "N", "number": "FRACTION" if fraction else "NUMBER", "path": "PATH"}.get(kind, text)


def _with_default(text: str, default: object) -> str:
    """Return the text of an option with its default, unless the text states it or it has none."""
    if default in (MISSING, None, (), "") or re.search(r"\bDefault: ", text):
        return text
    if isinstance(default, bool):
        return f"{text} Default: {'yes' if default else 'no'}."
    values = default if isinstance(default, tuple) else (default,)
    return f"{text} Default: {' '.join(f'{value:g}' if isinstance(value, float) else str(value) for value in values)}."
