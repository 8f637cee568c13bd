"""Bodies of requests: a route is a function, and the JSON that it takes are its keyword arguments.

    def move(asked: Asked, *, name: Name, by: int) -> Answer: ...

    answered(move)          # decodes and checks the body by the types of the arguments, then calls

The first argument has what all requests of a page share: its type is `RequestFields`, or a subclass. A body with a
wrong, unknown or missing field is refused with the path of the field and what it should be (status 400).
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, get_type_hints

import flask
from annotated_types import MaxLen

from dashboard.answers import finite_json, plain
from dashboard.turns import asking
from interp.errors import ConfigError
from interp.forms import from_json

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RequestFields:
    """Fields that every request may have."""

    visitor: Annotated[str, MaxLen(64)] = ""
    """Random name of the open page, in whose turn the model answers."""


def answered(answer: Callable[..., T], *more: Any) -> T:
    """Return the answer to the request; `more` are further arguments of the function. Raises `ConfigError`."""
    form, names = _form(answer)
    request = from_json(form, json_body(), "the request", "asked")
    with asking(request.visitor):
        return answer(request, *more, **{name: getattr(request, name) for name in names})


def add_routes(
    server: flask.Flask,
    prefix: str,
    reads: Mapping[str, Callable[..., Any]],
    asks: Mapping[str, Callable[..., Any]],
    opened: Callable[..., Any],
) -> None:
    """Add `GET <prefix>/<path>.json` for `reads`, which take the names in the prefix, and `POST` for `asks`.

    An ask takes what `opened` returns for these names, and the body.
    """

    def as_json(answer: Callable[..., Any]) -> Callable[..., flask.Response]:
        def reply(**names: str) -> flask.Response:
            body = finite_json(plain(answer(**names)))
            return flask.Response(body, mimetype="application/json", headers={"Cache-Control": "no-store"})

        return reply

    for path, read in reads.items():
        address = f"{prefix}/{path}.json"
        server.add_url_rule(address, f"GET {address}", as_json(read), methods=["GET"])
    for path, ask in asks.items():
        address = f"{prefix}/{path}.json"

        def asked(ask: Callable[..., Any] = ask, **names: str) -> Any:
            return answered(ask, opened(**names))

        server.add_url_rule(address, f"POST {address}", as_json(asked), methods=["POST"])


@cache
def _form(answer: Callable[..., Any]) -> tuple[type[RequestFields], list[str]]:
    """Return the dataclass of the body of a request, and the names of the keyword arguments in it."""
    first, *rest = inspect.signature(answer).parameters.values()
    options = [parameter for parameter in rest if parameter.kind is parameter.KEYWORD_ONLY]
    return form_of(answer, options, get_type_hints(answer)[first.name]), [parameter.name for parameter in options]


def form_of(function: Callable[..., Any], parameters: Sequence[inspect.Parameter], *bases: type) -> Any:
    """Return a frozen dataclass whose fields are some parameters of a function, and those of its `bases`."""
    hints = get_type_hints(function, include_extras=True)
    fields: list[Any] = [
        (parameter.name, hints[parameter.name], *(() if parameter.default is parameter.empty else (parameter.default,)))
        for parameter in parameters
    ]
    return make_dataclass(function.__name__, fields, bases=bases, frozen=True, kw_only=True)


def asked_by() -> tuple[str, dict[str, Any]]:
    """Return the visitor of a request, and the rest of its body. Raises `ConfigError` where it is no object."""
    body = from_json(dict[str, Any], json_body(), "the request", "asked")
    request = from_json(RequestFields, {"visitor": body.pop("visitor", "")}, "the request", "asked")
    return request.visitor, body


def json_body() -> Any:
    """Return the JSON that a request sends. Raises `ConfigError` where it is none."""
    try:
        body = flask.request.get_json(silent=True)
    except RecursionError:
        raise ConfigError("the request: it is nested too deeply") from None
    if body is None:
        raise ConfigError("the request should be a JSON object; send one as application/json")
    return body
