"""Part of the class of all components of Dash that pages and their libraries use."""

from collections.abc import Callable
from typing import Any, TypeVar

_Init = TypeVar("_Init", bound=Callable[..., None])

class Component:
    children: Any
    _namespace: str
    _type: str
    def __init__(self, **properties: Any) -> None: ...
    def to_plotly_json(self) -> dict[str, Any]: ...

def _explicitize_args(func: _Init) -> _Init: ...
