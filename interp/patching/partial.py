"""Forward passes through a part of the model: from a residual onwards, and no further than needed."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from interp.models.adapter import Hook

_EXTRAS: "WeakKeyDictionary[Any, tuple[int | None]]" = WeakKeyDictionary()


class _Seen(Exception):
    """Raised inside a pass once all wanted values are captured."""


@torch.no_grad()
def run_from(
    model: Any, value: Tensor, hooks: Sequence[tuple[str, Hook]] = (), *, layer: int = 0, until: str | None = None
) -> Tensor | None:
    """Run the model with hooks from block `layer` on, and return the logits; earlier blocks do not run.

    `value` is either integer tokens `[batch, pos]`, with `layer` 0, or the residual before that block,
    `[batch, pos, d_model]`. With `until`, the name of a hook point, the pass ends there and the result is None.
    Hooks run in the order given, also those on one hook point.
    """
    hooks = list(hooks)
    if until is not None:
        hooks.append((until, _stop))
    options: dict[str, Any] = {}
    if hasattr(getattr(model.original_model, "config", None), "use_cache"):
        options["use_cache"] = False  # a plain forward of a Hugging Face model fills a key-value cache
    if value.is_floating_point():
        options["start_at_layer"] = layer
    with _skipping(model, layer) if value.is_floating_point() else contextlib.nullcontext():
        try:
            return model.run_with_hooks(value, fwd_hooks=hooks, **options)
        except _Seen:
            return None


@contextlib.contextmanager
def _skipping(model: Any, layer: int) -> Iterator[None]:
    """Replace blocks before `layer` by the identity; TransformerLens would run them on a dummy input."""
    extras = _block_extras(model) if layer else 0
    skipped = list(model.blocks)[:layer]

    def identity(*args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        return hidden if extras is None else (hidden, *[None] * extras)

    for block in skipped:
        object.__setattr__(block, "forward", identity)
    try:
        yield
    finally:
        for block in skipped:
            object.__delattr__(block, "forward")


def _block_extras(model: Any) -> int | None:
    """Return the number of values that a block returns besides its output; None when it returns a plain tensor.

    A pass over two tokens finds it.
    """
    known = _EXTRAS.get(model)
    if known is None:
        block, seen = model.blocks[0], []
        plain = block.forward

        def watch(*args: Any, **kwargs: Any) -> Any:
            out = plain(*args, **kwargs)
            seen.append(len(out) - 1 if isinstance(out, tuple) else None)
            raise _Seen

        object.__setattr__(block, "forward", watch)
        try:
            with contextlib.suppress(_Seen):
                model(torch.zeros(1, 2, dtype=torch.long, device=model.cfg.device))
        finally:
            object.__delattr__(block, "forward")
        known = _EXTRAS[model] = (seen[0],)
    return known[0]


def capture(
    model: Any, value: Tensor, names: Sequence[str], *, layer: int = 0, hooks: Sequence[tuple[str, Hook]] = ()
) -> dict[str, Tensor]:
    """Return the values at hook points, from a pass that ends once all of them have fired."""
    seen: dict[str, Tensor] = {}

    def save(value: Tensor, hook: Any, name: str) -> None:
        seen[name] = value.detach()
        if len(seen) == len(set(names)):
            raise _Seen

    run_from(model, value, [*hooks, *((name, _named(save, name)) for name in names)], layer=layer)
    return {name: seen[name] for name in names}


def storing_hook(store: dict[str, Tensor], name: str) -> Hook:
    """Return a hook that stores the value it sees as `store[name]`."""

    def save(value: Tensor, hook: Any) -> None:
        store[name] = value.detach()

    return save


def _named(save: Any, name: str) -> Hook:
    return lambda value, hook: save(value, hook, name)


def _stop(value: Tensor, hook: Any) -> None:
    raise _Seen
