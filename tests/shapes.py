"""Check of the shapes in signatures, by beartype; `conftest.py` applies it to modules as they are imported."""

from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def check_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with the annotations that hold a shape checked at every call, and no others.

    The others are for pyright: some are protocols or generic tuples, which cannot be checked at run time.
    """
    function.__annotations__ = {
        name: hint if _holds_shape(hint) else Any for name, hint in function.__annotations__.items()
    }
    return beartype(function)


def _holds_shape(hint: Any) -> bool:
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_holds_shape, get_args(hint)))
