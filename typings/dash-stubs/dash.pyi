"""Part of the class of Dash that the application uses."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import flask
from dash._no_update import NoUpdate
from dash.dependencies import ClientsideFunction, DashDependency
from dash.development.base_component import Component

_Callback = TypeVar("_Callback", bound=Callable[..., Any])

no_update: NoUpdate
page_container: Component

class Dash:
    server: flask.Flask
    config: Any
    layout: Component
    renderer: str
    callback_map: dict[str, dict[str, Any]]
    def __init__(self, name: str | None = None, **settings: Any) -> None: ...
    def callback(self, *parts: Any, **settings: Any) -> Callable[[_Callback], _Callback]: ...
    def clientside_callback(
        self, clientside_function: str | ClientsideFunction, *parts: DashDependency, prevent_initial_call: bool = False
    ) -> None: ...
    def interpolate_index(self, metas: str = "", *parts: str, scripts: str = "", **named: str) -> str: ...
    def get_asset_url(self, path: str) -> str: ...
    def csp_hashes(self, hash_algorithm: str = "sha256") -> Sequence[str]: ...
