"""The models that a page may ask, as a protocol: pages and their tests need no torch."""

from collections.abc import Iterator
from typing import Protocol, TypeVar

from interp.acts import Act, Streamed
from saes.acts.session import Session

A = TypeVar("A")


class Live(Protocol):
    """Models that can be asked. `dashboard.live.LiveModel` is the real one; tests bring their own."""

    @property
    def state(self) -> str:
        """`cold` (nothing loaded), `loading` or `ready`."""
        ...

    def stage(self, visitor: str) -> str:
        """Return the progress of the requests of a page, in words."""
        ...

    def cancel(self, visitor: str) -> None:
        """Drop the requests of a page."""
        ...

    def ask(self, act: Act[Session, A]) -> A:
        """Answer an act, in its turn. Raises what `measure` of the act raises, and `SupersededError`."""
        ...

    def steps(self, act: Streamed[Session, A]) -> Iterator[A]:
        """Answer an act step by step; others take turns between two steps."""
        ...
