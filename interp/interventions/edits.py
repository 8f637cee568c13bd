"""The two changes that every intervention is made of: add a tensor to a value, and insert other values into it.

A hook is `fn(value, hook) -> value` on values `[batch, pos, ...]`; it never changes a value in place.
"""

from collections.abc import Callable, Sequence
from types import EllipsisType

import torch
from torch import Tensor

from interp.interventions.intervention import Action
from interp.models.adapter import Hook

Edit = Callable[..., Tensor]
"""A hook that always returns a value."""
Slot = tuple[slice | int | Tensor | EllipsisType, ...]
"""Index into a value `[rows, pos, ...]`."""
EVERYTHING: Slot = (slice(None),)


def adding(added: Tensor | Callable[[Tensor], Tensor]) -> Edit:
    """Return a hook that adds a tensor, or what a function of the value returns. It broadcasts to the value."""

    def hook(value: Tensor, hook: object = None) -> Tensor:
        return value + (added(value) if callable(added) else added).to(value)

    return hook


def inserting(
    source: Tensor | float | Callable[[Tensor], Tensor], slots: Sequence[tuple[slice, Slot]] | None = None
) -> Edit:
    """Return a hook that inserts values: at each slot of some rows, `source[slot]`; without slots all of `source`.

    `source` is shaped as a row of the value or as all rows of a slot (it broadcasts), a number, or a function of the
    value.
    """

    def hook(value: Tensor, hook: object = None) -> Tensor:
        new = source(value) if callable(source) else source
        if slots is None:
            return new.to(value).expand_as(value) if isinstance(new, Tensor) else torch.full_like(value, new)
        value = value.clone()
        for rows, slot in slots:
            value[rows][slot] = new[slot].to(value) if isinstance(new, Tensor) else new
        return value

    return hook


def at_rows(inner: Hook, rows: slice) -> Hook:
    """Return a hook that applies `inner` to some rows of the batch."""

    def hook(value: Tensor, hook: object = None) -> Tensor | None:
        new = inner(value[rows], hook=hook)
        if new is None:
            return None
        value = value.clone()
        value[rows] = new
        return value

    return hook


def at_mask(inner: Hook, mask: Tensor | Callable[[Tensor], Tensor]) -> Edit:
    """Return a hook that changes a value only where `mask [batch or 1, pos]` (or a function of the value) is true."""

    def hook(value: Tensor, hook: object = None) -> Tensor:
        chosen = (mask(value) if callable(mask) else mask).to(value.device)
        changed = inner(value, hook=hook)
        if changed is None:
            return value
        return torch.where(chosen.view(*chosen.shape, *[1] * (value.ndim - 2)), changed, value)

    return hook


def from_position(inner: Edit, first: int) -> Edit:
    """Return a hook that leaves the `first` positions as they are (SAEs are trained without BOS)."""
    return at_mask(inner, lambda value: torch.arange(value.shape[1])[None] >= first)


def changed(value: Tensor, action: Action, amount: Tensor | float, replaced_by: Tensor | None = None) -> Tensor:
    """Return a value after an action; `replaced_by` is its value in the other run."""
    match action:
        case "add":
            return value + amount
        case "scale":
            return value * amount
        case "set":
            return torch.zeros_like(value) + amount
        case "ablate":
            return torch.zeros_like(value)
    assert replaced_by is not None  # an intervention that replaces has another run
    return replaced_by.expand_as(value)


def change_of(value: Tensor, action: Action, amount: Tensor | float, replaced_by: Tensor | None = None) -> Tensor:
    """Return the difference that an action makes to a value; that of `add` is exactly its amount."""
    if action == "add":
        return torch.zeros_like(value) + amount
    return changed(value, action, amount, replaced_by) - value
