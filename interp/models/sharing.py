"""Models that the steps of a pipeline share, so that each is loaded once."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec

from interp.devices import model_dtype, model_sharded, pick_device
from interp.models.hooked import HookedModel

_shared: ContextVar[dict[object, HookedModel] | None] = ContextVar("shared models", default=None)


@contextlib.contextmanager
def sharing_models() -> Iterator[None]:
    """Load each model once inside: for steps that follow each other and leave its weights as they are."""
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


P = ParamSpec("P")


def loaded_once(load: Callable[P, HookedModel]) -> Callable[P, HookedModel]:
    """Return a function that loads models, and inside `sharing_models` hands out those that it has loaded."""

    @wraps(load)
    def loaded(*spec: P.args, **options: P.kwargs) -> HookedModel:
        models = _shared.get()
        if models is None:
            return load(*spec, **options)
        names: dict[str, Any] = {**options}
        dtype, device = names.get("dtype") or model_dtype(), pick_device(names.get("device"))
        key = (
            *spec,
            dtype,
            device,
            names.get("attention", "eager"),
            names.get("seed", 0),
            names.get("sharded", model_sharded()),
        )
        if key not in models:
            models[key] = load(*spec, **options)
        return models[key]

    return loaded
