from typing import Any

PAGE_REGISTRY: dict[str, dict[str, Any]]

def register_page(module: str, **settings: Any) -> None: ...
