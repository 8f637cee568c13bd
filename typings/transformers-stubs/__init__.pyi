# Names of `transformers` itself. Reading its own index of all models takes a type checker 15 seconds in each thread.

from typing import Any

def __getattr__(name: str) -> Any: ...
