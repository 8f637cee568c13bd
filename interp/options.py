"""Types of options: the meaning of their text, stated once for help, menus, page checks and completion.

    recording: RecordingName | None = None
    lists: tuple[Word, ...] = ()

`Means` is metadata of the type (`typing.Annotated`): nothing changes where the value is used. Torch-free.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, get_args


@dataclass(frozen=True)
class Means:
    """Meaning of the text of an option."""

    metavar: str
    """Its value as the help writes it."""
    menu: str = ""
    """Kind of thing that it names, which a page offers and checks; empty: any text."""


class _Basic:
    """Marks an inherited setting that a form shows at once; others are folded."""


BASIC = _Basic()

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


def meaning(hint: Any) -> Means | None:
    """Return what the text of an option means, from its annotation with extras; None for one without.

    >>> meaning(tuple[HookPoint, ...] | None)
    Means(metavar='HOOK-POINT', menu='hook point')
    """
    return next((mark for mark in marks(hint) if isinstance(mark, Means)), None)


def is_basic(hint: Any) -> bool:
    """Return True for a setting that a form shows at once."""
    return any(mark is BASIC for mark in marks(hint))


def marks(hint: Any) -> Iterator[Any]:
    """Yield the metadata of an annotation and of the types inside it."""
    yield from getattr(hint, "__metadata__", ())
    for each in get_args(hint):
        if each is not hint and not isinstance(each, str):
            yield from marks(each)
