"""Kinds of claim that the referee has cases of: each is a module here, named for its subject, that offers `KIND`."""

import hashlib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from interp.errors import UnknownNameError
from interp.packages import code_version
from workbench.referee.cases import KINDS, KindOfCase


def offered_kinds() -> list[str]:
    """Return the kinds that have a module, in the order of `KINDS`; none is loaded."""
    return [kind for kind in KINDS if find_spec(f"{__package__}.{kind}") is not None]


def check_kind(kind: str) -> None:
    """Raise `UnknownNameError` for a kind without a module."""
    if kind not in offered_kinds():
        raise UnknownNameError("kind of claim", kind, offered_kinds())


def made_by(kind: str) -> str:
    """Return the version of the workbench, and a hash of the modules that make a kind of case."""
    check_kind(kind)
    found = hashlib.sha256()
    for name in (kind, "planted_models", "_small_models"):
        found.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return f"{code_version()} {found.hexdigest()[:16]}"


def how_of(kind: str) -> KindOfCase:
    """Return how cases of a kind are made and answered. Raises `UnknownNameError` for one without a module."""
    check_kind(kind)
    return import_module(f"{__package__}.{kind}").KIND
