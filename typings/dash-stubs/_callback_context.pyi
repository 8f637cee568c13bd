"""Part of the context of a callback that pages read: the component that caused it."""

from typing import Any

class CallbackContext:
    @property
    def triggered(self) -> list[dict[str, Any]]: ...
    @property
    def triggered_id(self) -> Any: ...  # None, a name, or the fields of a component's id
    @property
    def triggered_prop_ids(self) -> dict[str, Any]: ...

callback_context: CallbackContext

def set_props(component_id: str | dict[str, Any], props: dict[str, Any]) -> None: ...
