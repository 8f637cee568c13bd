"""Passes through a part of the model: from a residual onwards, and no further than needed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from interp.models.adapter import Hook


class _Seen(Exception):
    """Raised inside a pass when nothing more is needed of it."""


@torch.no_grad()
def run_from(
    model: Any, value: Tensor, hooks: Sequence[tuple[str, Hook]] = (), *, layer: int = 0, until: str | None = None
) -> Tensor | None:
    """Logits of a pass with hooks, from block `layer` on.

    `value` is tokens `[batch, pos]` when `layer` is 0 and it holds integers, else the residual before that block
    `[batch, pos, d_model]`. With `until`, the name of a hook point, the pass ends there and the result is None.
    Hooks run in the order given, those on one hook point too.
    """
    hooks = list(hooks)
    if until is not None:
        hooks.append((until, _stop))
    start = {} if not value.is_floating_point() else {"start_at_layer": layer}
    try:
        return model.run_with_hooks(value, fwd_hooks=hooks, **start)
    except _Seen:
        return None


def capture(
    model: Any, value: Tensor, names: Sequence[str], *, layer: int = 0, hooks: Sequence[tuple[str, Hook]] = ()
) -> dict[str, Tensor]:
    """The values at hook points, by a pass that ends at the last of them to fire."""
    seen: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: Any, name: str) -> None:
        seen[name] = value.detach()
        if len(seen) == len(set(names)):
            raise _Seen

    run_from(model, value, [*hooks, *((name, _named(keep, name)) for name in names)], layer=layer)
    return {name: seen[name] for name in names}


def reader(store: dict[str, Tensor], name: str) -> Hook:
    """A hook that keeps the value that passes under `name`."""

    def keep(value: Tensor, hook: Any) -> None:
        store[name] = value.detach()

    return keep


def _named(keep: Any, name: str) -> Hook:
    return lambda value, hook: keep(value, hook, name)


def _stop(value: Tensor, hook: Any) -> None:
    raise _Seen
