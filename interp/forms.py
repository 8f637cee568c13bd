"""JSON checked against a dataclass: a value of a wrong type is refused, with the file and the path inside it.

`from_json` decodes and checks (pydantic): nested and frozen dataclasses, named tuples, literals, unions, dictionaries
with numbers as keys. Unknown and missing fields, other types, and NaN where a field does not allow it are errors; the
`Origin` of the JSON says how strictly.
Limits are those of `annotated_types`: `Annotated[int, Interval(ge=0, lt=100)]`, `Annotated[str, MaxLen(80)]`.
Forms that pydantic does not know are given here (and `Interval` of `interp.statistics` gives its own):

- `Measured`: a number, NaN where it was not measured (null in JSON);
- `Float[np.ndarray, "n d"]`: an array, as nested lists in JSON;
- `Annotated[str, matches(pattern, "a name")]`: a text of this pattern, and `Passes(check)` a value that a function
  checks.

`interp.artifacts.as_json` is the inverse. Torch-free; pydantic is imported when something is read.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar, cast, get_type_hints, overload

import numpy as np
from jaxtyping import AbstractArray

from interp.errors import ConfigError, CorruptError, WorkbenchError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import GetCoreSchemaHandler, TypeAdapter
    from pydantic_core import CoreSchema

T = TypeVar("T")
MAX_DEPTH = 200
"""Levels of lists and objects that are decoded."""


class _NanIsNull:
    """Marks a number, or an array of them, that is NaN in memory and null in JSON where it was not measured."""

    def __get_pydantic_core_schema__(self, source: object, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        return array_schema() if source is np.ndarray else measured_schema() if source is float else handler(source)


NAN_IS_NULL = _NanIsNull()
Measured = Annotated[float, NAN_IS_NULL]
"""A number, NaN where it was not measured or has no bound."""


def measured_schema() -> "CoreSchema":
    """Return pydantic's schema of a number or null, which is read as NaN."""
    from pydantic_core import core_schema

    schema = core_schema.nullable_schema(core_schema.float_schema(strict=True, allow_inf_nan=False))
    return core_schema.no_info_after_validator_function(lambda value: math.nan if value is None else value, schema)


def array_schema(dtype: str = "float64", fits: Callable[[np.ndarray], bool] = lambda _: True) -> "CoreSchema":
    """Return pydantic's schema of nested lists of numbers, read as an array of `dtype`, with NaN for null."""
    from pydantic_core import core_schema

    def read(nested: list[object]) -> np.ndarray:
        if any(isinstance(leaf, str | dict) for leaf in _leaves(nested)):
            raise ValueError("should be numbers in lists of equal length")
        try:
            array = np.array(nested, dtype="float64") if dtype == "float64" else np.array(nested)
        except (ValueError, TypeError, OverflowError):
            raise ValueError("should be lists of equal length") from None
        array = array.astype(dtype) if not array.size else array  # an empty list says nothing of its type
        if array.dtype != dtype or not fits(array):
            raise ValueError(f"should be an array of another shape or type, found {array.dtype} {array.shape}")
        return array

    return core_schema.no_info_after_validator_function(read, core_schema.list_schema())


def _leaves(nested: list[object]) -> Iterator[object]:
    for part in nested:
        if isinstance(part, list):
            yield from _leaves(part)
        else:
            yield part


def _of_annotation(source: type[AbstractArray], _source: object, _handler: object) -> "CoreSchema":
    """Return the schema of `Float[np.ndarray, "n d"]`, with its type and shape checked."""
    dtype = next((name for name in ("float64", "int64", "bool") if name in source.dtypes), "float64")
    return array_schema(dtype, lambda array: isinstance(array, source))


# jaxtyping's annotations are classes, so that pydantic asks them for their schema
setattr(AbstractArray, "__get_pydantic_core_schema__", classmethod(_of_annotation))  # noqa: B010 - jaxtyping's own class


@dataclass(frozen=True)
class Passes(Generic[T]):
    """Marks a value that a function checks, and may return in another form; its error is that of the field."""

    check: Callable[[T], object]

    def __get_pydantic_core_schema__(self, source: object, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        from pydantic_core import core_schema

        def checked(value: T) -> object:
            try:
                return self.check(value)
            except WorkbenchError as error:
                raise ValueError(str(error)) from None

        return core_schema.no_info_after_validator_function(checked, handler(source))


def matches(pattern: str, says: str) -> Passes[str]:
    """Return the mark of a text that a regular expression describes; `says` is what such a text is called."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ConfigError(f"should be {says}")
        return text

    return Passes(check)


Origin = Literal["stored", "asked", "foreign"]
"""Writer of JSON: we, a person or a page that asks for something, or another tool."""


@cache
def _adapter(form: object, unknown: Literal["forbid", "ignore"] = "forbid") -> "TypeAdapter[tuple[object]]":
    from pydantic import ConfigDict, TypeAdapter

    wrapped = GenericAlias(tuple, (form,))  # in a tuple: dataclasses take a configuration from what holds them
    config = ConfigDict(extra=unknown, allow_inf_nan=False, strict=True)
    return TypeAdapter(wrapped, config=config)  # pyright: ignore[reportArgumentType] - a generic alias is a type


EDITED = "; it was edited or cut short, `workbench verify` checks it"
"""Advice on stored JSON that has another form."""


@overload
def from_json(form: type[T], raw: object, where: object, origin: Origin = "stored") -> T: ...
@overload
def from_json(form: object, raw: object, where: object, origin: Origin = "stored") -> Any: ...
def from_json(form: object, raw: object, where: object, origin: Origin = "stored") -> object:
    """Return plain JSON values as a value of `form`.

    A field with a default may be missing: an earlier version did not write it (decision 41). Of `foreign` JSON, unknown
    fields are ignored. Raises `CorruptError`, or `ConfigError` for what is `asked`, which names `where` the values come
    from and the path of the first wrong one.
    """
    from pydantic import ValidationError

    kind = ConfigError if origin == "asked" else CorruptError
    advice = EDITED if origin == "stored" else ""
    try:
        return _adapter(form, "ignore" if origin == "foreign" else "forbid").validate_json(json.dumps([raw]))[0]
    except ValidationError as error:
        raise kind(f"{where}: {_first_problem(error.errors(include_url=False), raw)}{advice}") from None
    except (WorkbenchError, ValueError, RecursionError) as error:  # of a value that checks itself
        raise kind(f"{where} holds an invalid value: {error}{advice}") from None


def check_fields(value: "DataclassInstance", where: object) -> None:
    """Put each field of a dataclass into the type of its annotation: a list into a tuple, an integer into a number.

    Raises `ConfigError` for the first field whose value is not what its annotation allows.
    """
    from pydantic import ValidationError

    hints = get_type_hints(type(value), include_extras=True)
    for field in fields(value):
        content = getattr(value, field.name)
        try:
            (checked,) = _adapter(hints[field.name]).validate_python((content,), strict=False)
        except ValidationError as error:
            problems = [problem | {"loc": (0, field.name, *problem["loc"][1:])} for problem in error.errors()]
            raise ConfigError(f"{where}: {_first_problem(problems, {field.name: content})}") from None
        object.__setattr__(value, field.name, checked)


def _first_problem(problems: Sequence[Mapping[str, Any]], raw: object) -> str:
    """Return the message of the deepest problem, which is that of the intended form of a union."""
    worst = max(problems, key=lambda problem: len(problem["loc"]))
    if worst["type"] == "json_invalid":
        half = _half_character(raw, ())
        return (
            "it is nested too deeply"
            if half is None
            else f"{_path(half)} holds half a character (a lone surrogate)".lstrip()
        )
    path = _path(_parts(worst["loc"][1:], raw, missing=worst["type"] == "missing"))
    fault = {"unexpected_keyword_argument": "is not a field of it", "missing": "is missing"}.get(worst["type"])
    if fault is None:
        text = repr(worst["input"])
        message = re.sub(r"^\w+ (?=should)", "", worst["msg"].removeprefix("Value error, "))
        fault = f"{message}, found {text if len(text) <= 60 else text[:57] + '...'}"
    return f"{path} {fault}" if path else fault


def _path(parts: Sequence[str]) -> str:
    """Return fields, keys and indices joined by dots, on one line and cut to 120 characters."""
    joined = ".".join(part if part.isprintable() else ascii(part) for part in parts)
    return joined if len(joined) <= 120 else f"{joined[:117]}..."


def _half_character(raw: object, path: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the path of the first text that UTF-8 cannot hold (of a key, that of its object); None without one."""
    if isinstance(raw, str):
        return None if raw.encode("utf-8", "ignore").decode() == raw else path
    pairs = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    for key, part in pairs if len(path) < MAX_DEPTH else ():
        for value, place in ((key, path), (part, (*path, str(key)))):
            if (half := _half_character(value, place)) is not None:
                return half
    return None


def _parts(loc: tuple[int | str, ...], raw: Any, *, missing: bool) -> list[str]:
    """Return the fields, keys and indices of a path; without the names of the forms of a union, which pydantic adds."""
    names = []
    for at, part in enumerate(loc):
        inside = (
            isinstance(part, int) and part < len(raw)
            if isinstance(raw, list)
            else isinstance(raw, dict) and part in raw
        )
        if inside:
            raw = cast("Any", raw)[part]
            names.append(str(part))
        elif missing and at == len(loc) - 1:
            names.append(str(part))
    return names


def json_schema(form: object) -> dict[str, Any]:
    """Return the JSON schema of a form, for the description of the API."""
    schema = _adapter(form).json_schema()
    return {**schema["prefixItems"][0], **({"$defs": schema["$defs"]} if "$defs" in schema else {})}
