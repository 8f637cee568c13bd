"""Addresses of the pages: state lives in the path and the query, so every view can be linked to."""

from typing import Any
from urllib.parse import quote, urlencode

PAGES = {
    "Overview": "/",
    "Atlas": "/atlas",
    "Features": "/feature",
    "Prompt": "/prompt",
    "Heads": "/heads",
    "Circuit": "/circuit",
    "SAE": "/sae",
    "Geometry": "/geometry",
    "Dynamics": "/dynamics",
}


def feature_href(features: str, index: int) -> str:
    """Where a feature is shown."""
    return f"/feature/{quote(features)}/{index}"


def atlas_href(name: str, **query: Any) -> str:
    """Where a map is shown; `None` and empty values are left out."""
    return f"/atlas/{quote(name)}" + _query(query)


def heads_href(name: str, **query: Any) -> str:
    """Where head scores are shown."""
    return f"/heads/{quote(name)}" + _query(query)


def circuit_href(name: str, **query: Any) -> str:
    """Where a circuit is shown."""
    return f"/circuit/{quote(name)}" + _query(query)


def sae_href(name: str, **query: Any) -> str:
    """Where a dictionary is shown, in training or finished."""
    return "/sae" + _query({"name": name, **query})


def geometry_href(name: str, **query: Any) -> str:
    """Where the shapes of lists of words are shown."""
    return "/geometry" + _query({"name": name, **query})


def dynamics_href(name: str, **query: Any) -> str:
    """Where a training is shown."""
    return "/dynamics" + _query({"name": name, **query})


def changes_href(name: str) -> str:
    """Where two models are compared."""
    return "/changes" + _query({"name": name})


def prompt_href(**query: Any) -> str:
    """Where a prompt is read."""
    return "/prompt" + _query(query)


def _query(values: dict[str, Any]) -> str:
    given = {key: value for key, value in values.items() if value not in (None, "")}
    return f"?{urlencode(given)}" if given else ""


def whole_number(text: Any, default: int | None = None) -> int | None:
    """The number in an address, or `default` when there is none to read."""
    try:
        return int(str(text))
    except ValueError:
        return default
