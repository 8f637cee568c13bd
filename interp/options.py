"""Types of options: the meaning of their text, stated once for help, menus, page checks and completion.

    recording: RecordingName | None = None
    lists: tuple[Word, ...] = ()

`Means` and the other marks are metadata of the type (`typing.Annotated`): nothing changes where the value is used.
`Option` is what a command, a form and the reference make of such a field. Torch-free.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar, get_args

from annotated_types import Interval, MaxLen


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


class _Mark:
    """A mark without a value."""


BASIC = _Mark()
"""Marks an inherited setting that a form shows at once; others are folded."""
DERIVED = _Mark()
"""Marks a setting that follows from others and is no option."""

T = TypeVar("T")
Derived = Annotated[T, DERIVED]
ModelName = Annotated[str, Means("MODEL", "model")]
RecordingName = Annotated[str, Means("NAME", "recording")]
SAEName = Annotated[str, Means("SAE", "sae")]
DictionaryName = Annotated[str, Means("DICTIONARY", "dictionary")]
FeaturesName = Annotated[str, Means("FEATURES", "features")]
FeatureName = Annotated[str, Means("SAE:NUMBER", "feature")]
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
Temperature = Annotated[float, Interval(ge=0, le=5)]
"""0 for the likeliest token, 1 for the model's own probabilities."""
Strength = Annotated[float, Interval(ge=-1000, le=1000)]
"""In units of the largest activation of a feature that was measured; below 0 against its direction."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of a verb, or an argument without a flag: as it is typed, explained and shown in a form."""

    name: str
    """Field of the verb."""
    kind: Literal["text", "path", "whole", "number", "switch", "choice"]
    label: str
    """The option as it is typed (`--tokens`), or the name of an argument (`MODEL`)."""
    help: str
    """Meaning and default."""
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


def meaning(hint: Any) -> Means | None:
    """Return what the text of an option means, from its annotation with extras; None for one without.

    >>> meaning(tuple[HookPoint, ...] | None)
    Means(metavar='HOOK-POINT', menu='hook point')
    """
    return next((mark for mark in marks(hint) if isinstance(mark, Means)), None)


def marks(hint: Any) -> Iterator[Any]:
    """Yield the metadata of an annotation and of the types inside it."""
    yield from getattr(hint, "__metadata__", ())
    for each in get_args(hint):
        if each is not hint and not isinstance(each, str):
            yield from marks(each)


@cache
def field_texts(kind: type) -> dict[str, str]:
    """Return the text under each field of a dataclass in its source, by field; inherited ones too."""
    found: dict[str, str] = {}
    for each in reversed([each for each in kind.__mro__ if is_dataclass(each)]):
        try:
            source = inspect.getsource(each)
        except (OSError, TypeError):  # a class that was made without source, as by a notebook
            continue
        definition = ast.parse(textwrap.dedent(source)).body[0]
        assert isinstance(definition, ast.ClassDef)
        for field, text in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found
