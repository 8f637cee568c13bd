"""Addresses of the pages: the state of a page lives in its path and query, so every view can be linked to."""

from typing import Any
from urllib.parse import quote, urlencode


def feature_href(features: str, index: int) -> str:
    """Address of one feature."""
    return f"/feature/{quote(features)}/{index}"


def atlas_href(name: str, **query: Any) -> str:
    """Address of a map; `None` and empty values of the query are left out."""
    return f"/atlas/{quote(name)}" + _query(query)


def heads_href(name: str, **query: Any) -> str:
    """Address of the scores of attention heads."""
    return f"/heads/{quote(name)}" + _query(query)


def circuit_href(name: str, **query: Any) -> str:
    """Address of a circuit."""
    return f"/circuit/{quote(name)}" + _query(query)


def sae_href(name: str, **query: Any) -> str:
    """Address of a dictionary, in training or finished."""
    return "/sae" + _query({"name": name, **query})


def geometry_href(name: str, **query: Any) -> str:
    """Address of a geometry artefact: shapes of word lists, a direction, a space."""
    return "/geometry" + _query({"name": name, **query})


def dynamics_href(name: str, **query: Any) -> str:
    """Address of a study of training."""
    return "/dynamics" + _query({"name": name, **query})


def changes_href(name: str) -> str:
    """Address of a comparison of two models."""
    return "/changes" + _query({"name": name})


def prompt_href(**query: Any) -> str:
    """Address of a prompt."""
    return "/prompt" + _query(query)


def _query(values: dict[str, Any]) -> str:
    given = {key: value for key, value in values.items() if value not in (None, "")}
    return f"?{urlencode(given)}" if given else ""


def whole_number(text: Any, default: int | None = None) -> int | None:
    """Return the whole number in an address, or `default` when the text is none."""
    try:
        return int(str(text))
    except ValueError:
        return default
