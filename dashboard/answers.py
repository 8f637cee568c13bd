"""Values in the form that JSON allows, for the routes of pages and of the API."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, Protocol, TypeGuard

import flask

from interp.errors import CorruptError


class Listed(Protocol):
    """A tensor or an array of numbers."""

    def tolist(self) -> Any: ...


def lists(values: Listed) -> Any:
    """Return the values of a tensor, in lists of lists; torch does not say what its own `tolist` returns."""
    return values.tolist()


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Return True for an object of JSON."""
    return isinstance(value, dict)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Return True for a list of JSON."""
    return isinstance(value, list)


def is_sequence(value: Any) -> TypeGuard[Sequence[Any]]:
    """Return True for a list and a tuple."""
    return isinstance(value, list | tuple)


def plain(value: Any) -> Any:
    """Return a value in the form that JSON allows: dataclasses as objects, numbers that are not finite as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        entries: Mapping[Any, Any] = value
        return {str(key): plain(each) for key, each in entries.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    number: Any = value  # of numpy
    return plain(number.item()) if hasattr(number, "item") else str(number)


def finite_json(value: Any) -> str:
    """Return a value as JSON text. Raises `CorruptError` for a number that is not finite."""
    try:
        return flask.json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise CorruptError(
            "the answer contains a number that is not finite, so a file is damaged; `workbench verify` finds it"
        ) from None
