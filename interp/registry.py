"""Kinds of artefact, each registered by the package that owns it.

    register(Kind("heads", "heads", "interp.circuits.head_scores:HeadScores"))     # in `interp/__init__.py`

A package lists its kinds in its `__init__.py`, and itself as an entry point `interp.kinds`, by which it is imported.
The class of a kind says the rest (`interp.artifacts.artefact`); it is imported when it is first needed, so that listing
a workspace imports no analysis. Torch-free.
"""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from interp.errors import ConfigError, UnknownNameError


@dataclass(frozen=True)
class Kind:
    """One kind of artefact."""

    name: str
    """Its name in manifests."""
    folder: str
    """Its folder in a workspace."""
    defined_in: str
    """`module:Class` of its class."""
    group: str = ""
    """Kinds of one group share a page, and a bare name opens an artefact of any of them; empty: a group of its own."""

    def load(self) -> type[Any]:
        """Return the class."""
        module, _, name = self.defined_in.partition(":")
        return getattr(import_module(module), name)


KINDS: dict[str, Kind] = {}
"""Every registered kind by name, in the order in which they were registered."""
FOLDERS: dict[str, str] = {}
"""Kind -> folder of the workspace."""


def register(*kinds: Kind) -> None:
    """Add kinds of artefact. Raises `ConfigError` where another class has the name or the folder of one."""
    for kind in kinds:
        for registered in KINDS.values():
            if kind != registered and (kind.name == registered.name or kind.folder == registered.folder):
                raise ConfigError(
                    f"{kind.defined_in} is registered as the kind {kind.name!r} in {kind.folder}/, which "
                    f"{registered.defined_in} has already; choose another name and folder"
                )
        KINDS[kind.name], FOLDERS[kind.name] = kind, kind.folder


@cache
def discover() -> None:
    """Import the packages that own kinds: those that installed distributions name as entry points `interp.kinds`.

    One that is only on the path, and not installed, has to be imported by whoever wants its kinds.
    """
    for point in entry_points(group="interp.kinds"):
        point.load()


def check_kind(kind: str) -> None:
    """Raise `UnknownNameError` for an unknown kind."""
    discover()
    if kind not in KINDS:
        raise UnknownNameError("artefact kind", kind, KINDS, "(a package registers its kinds when it is imported)")


def kinds_of(group: str) -> tuple[str, ...]:
    """Return the kinds of a group, or the kind of that name."""
    discover()
    return tuple(name for name, kind in KINDS.items() if group in (name, kind.group))


def kind_in(folder: str) -> str:
    """Return the kind whose artefacts lie in a folder of the workspace; empty when there is none."""
    discover()
    return next((kind for kind, known in FOLDERS.items() if known == folder), "")
