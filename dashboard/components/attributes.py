"""HTML attributes whose names are no Python names: `html.Div(**attrs({"aria-label": "Pages"}))`."""

from typing import Any


def attrs(values: dict[str, Any]) -> dict[str, Any]:
    """The same values, of any type: a component takes `aria-*` and `data-*` next to its own typed properties."""
    return values
