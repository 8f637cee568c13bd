"""Values in the form that JSON allows, for the routes of pages and of the API."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Protocol, TypeGuard

import flask
import numpy as np

from interp.artifacts import Table
from interp.errors import CorruptError

MOST_ROWS = 200
"""Rows of a table or list per answer."""


class NumberArray(Protocol):
    """A tensor or an array of numbers."""

    def tolist(self) -> Any: ...


def lists(values: NumberArray) -> Any:
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
    """Return a value in the form that JSON allows: dataclasses as objects, numbers that are not finite as null.

    Arrays are lists of lists; those of unsigned integers, which are pictures, `{"shape", "dtype", "base64"}`. What says
    of itself in a sentence (`headline()`) has that sentence too.
    """
    if isinstance(value, np.ndarray):
        array: np.ndarray[Any, np.dtype[Any]] = value
        return _picture(array) if array.dtype.kind == "u" else plain(array.tolist())
    if isinstance(value, Table):
        return plain(value.rows(limit=MOST_ROWS))
    if is_dataclass(value) and not isinstance(value, type):
        values = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        headline = getattr(value, "headline", None)
        return values | ({"headline": headline()} if callable(headline) else {})
    if isinstance(value, Mapping):
        entries: Mapping[Any, Any] = value
        return {str(key): plain(entry) for key, entry in entries.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(element) for element in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    number: Any = value  # of numpy
    return plain(number.item()) if hasattr(number, "item") else str(number)


def _picture(values: np.ndarray) -> dict[str, Any]:
    raw = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    return {"shape": [*values.shape], "dtype": values.dtype.name, "base64": base64.b64encode(raw).decode()}


def finite_json(value: object) -> str:
    """Return a value as JSON text. Raises `CorruptError` for a number that is not finite."""
    try:
        return flask.json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise CorruptError(
            "the answer contains a number that is not finite, so a file is damaged; `workbench verify` finds it"
        ) from None
