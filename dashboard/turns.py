"""A fair queue before the one model that a server has: visitors take turns, and a newer request replaces an older one.

A visitor is one open page. Requests of other pages, which replace nothing, share the turns of their browser (`guest`).
The visitor served longest ago is next, so that ten requests of one page do not delay another page. Long work takes its
turn again for each step. Within a page a new request replaces an older one of its kind, and a new prompt replaces all
requests about the last one. A waiting request is dropped; a running one stops at its next `Turn.check`. No request
waits or runs longer than `REQUEST_SECONDS`.

    turns = Turns()
    with asking("page-1"):                    # set once, where the request comes in
        with turns.take(ReadLayers) as turn:  # waits
            turn.check()                      # raises `SupersededError` when nobody waits for the answer any more
"""

import itertools
import json
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import flask

from dashboard.answers import plain
from dashboard.components.frame import explain, log
from interp.acts import Act
from interp.errors import ResourceError, SupersededError, WorkbenchError

_visitor: ContextVar[str] = ContextVar("visitor", default="")
_guest: ContextVar[str] = ContextVar("guest", default="")
REQUEST_SECONDS = 1200.0
"""Longest that a request waits for a turn, and that it runs, all its turns together."""
PAUSE = 0.3
"""Seconds that a request for a lower panel (`later`) waits before it queues, so that visible panels come first."""
_REMEMBERED = 1000
"""Visitors whose last turn is remembered."""


def guest(name: str) -> None:
    """Let `name` take the turns of this thread's requests that belong to no visitor."""
    _guest.set(name)


@contextmanager
def asking(visitor: str) -> Iterator[None]:
    """Take the turns of this thread in the name of `visitor`; an empty name is never superseded."""
    token = _visitor.set(visitor)
    try:
        yield
    finally:
        _visitor.reset(token)


def answered_in_lines(steps: Iterator[object], visitor: str) -> flask.Response:
    """Return an answer of a line of JSON per step, as it is made in the name of `visitor`; an error is the last line.

    No further step is made once the browser is gone.
    """

    def lines() -> Iterator[str]:
        try:
            while True:
                with asking(visitor):
                    step = next(steps, None)
                if step is None:
                    return
                yield json.dumps(plain(step)) + "\n"
        except Exception as error:  # the answer has begun, so its status is sent
            if not isinstance(error, WorkbenchError):
                log.exception("an answer in lines failed")
            yield json.dumps({"error": explain(error)}) + "\n"

    return flask.Response(flask.stream_with_context(lines()), mimetype="application/x-ndjson")


Kind = type[Act[Any, Any]]
"""Requests of one kind replace each other: the class of an act."""


class Turn:
    """One request that waits or runs."""

    def __init__(self, visitor: str, kind: Kind, number: int):
        self.visitor, self.kind, self.number = visitor, kind, number
        self.slot = f"page {visitor}" if visitor else f"guest {_guest.get()}"
        """whose turn it is in the queue"""
        self.stage = "waiting"
        self.dropped = False
        self.ran, self.began = 0.0, time.monotonic()
        """seconds that earlier turns took, and when this one began"""

    def check(self, stage: str = "") -> None:
        """Name the stage that begins.

        Raises `SupersededError` when the answer is not wanted any more, `ResourceError` after `REQUEST_SECONDS`.
        """
        if self.dropped:
            raise SupersededError(
                "this request was replaced by a newer one, or cancelled; ask again if you still need it"
            )
        if self.ran + time.monotonic() - self.began > REQUEST_SECONDS:
            raise ResourceError(
                f"this took longer than {REQUEST_SECONDS / 60:.0f} minutes, the most that a page gets of the model; "
                "ask with quicker nulls or a shorter text, or in a terminal with `workbench ask`, which has no limit"
            )
        self.stage = stage or self.stage


class Turns:
    """Turns on one resource, one at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Turn] = []
        self._running: Turn | None = None
        self._served: dict[str, int] = {}
        self._known: weakref.WeakSet[Turn] = weakref.WeakSet()
        """Turns in use, including those between two steps of long work."""
        self._numbers = itertools.count(1)

    @contextmanager
    def take(self, kind: Kind, again: Turn | None = None) -> Iterator[Turn]:
        """Wait for a turn and keep it for the block.

        Raises `SupersededError` if it is no longer wanted, `ResourceError` if it did not come within `REQUEST_SECONDS`.

        With `again`, an earlier turn, its work continues at the end of the queue unless it was dropped.
        """
        turn = again or Turn(_visitor.get(), kind, 0)
        if again is None:
            with self._changed:
                self._drop_older(turn)
                self._known.add(turn)
            if turn.visitor and kind.later:
                time.sleep(PAUSE)
        last = time.monotonic() + REQUEST_SECONDS
        with self._changed:
            turn.number = next(self._numbers)
            self._waiting.append(turn)
            try:
                while not turn.dropped and (self._running is not None or self._next() is not turn):
                    if not self._changed.wait(max(0.0, last - time.monotonic())) and time.monotonic() >= last:
                        raise ResourceError(
                            f"the model was busy with other questions for {REQUEST_SECONDS / 60:.0f} minutes; ask "
                            "again later, or in a terminal: `workbench ask`"
                        )
            finally:
                self._waiting.remove(turn)
            self._changed.notify_all()  # one who waits may be next now
            turn.began = time.monotonic()
            turn.check("running")
            self._running = turn
            self._served.pop(turn.slot, None)  # the dictionary keeps the order of service
            self._served[turn.slot] = turn.number
            while len(self._served) > _REMEMBERED:
                self._served.pop(next(iter(self._served)))
        try:
            yield turn
        finally:
            turn.ran += time.monotonic() - turn.began
            with self._changed:
                self._running = None
                self._changed.notify_all()

    def cancel(self, visitor: str) -> None:
        """Drop all requests of a visitor."""
        with self._changed:
            for turn in self._known:
                if visitor and turn.visitor == visitor:
                    turn.dropped = True
            self._changed.notify_all()

    @property
    def n_waiting(self) -> int:
        """Return the number of requests in the queue."""
        return len(self._waiting)

    def stage(self, visitor: str) -> str:
        """Return the progress of the requests of a visitor in words; empty without requests."""
        with self._changed:
            mine = self._of(visitor)
            if not mine:
                return ""
            if self._running in mine:
                return self._running.stage if self._running else ""
            ahead = len({turn.slot for turn in self._waiting if turn.visitor != visitor}) + (self._running is not None)
            return f"waiting; {ahead} other page{'s' * (ahead != 1)} may be served first"

    def _next(self) -> Turn | None:
        """Return the waiting request of the visitor served longest ago; of one visitor the oldest, those for lower
        panels last."""
        order = {slot: at for at, slot in enumerate(self._served, 1)}
        return min(
            self._waiting,
            key=lambda turn: (order.get(turn.slot, 0), turn.kind.later, turn.number),
            default=None,
        )

    def _of(self, visitor: str) -> list[Turn]:
        everyone = [*self._waiting, *([self._running] if self._running else [])]
        return [turn for turn in everyone if visitor and turn.visitor == visitor]

    def _drop_older(self, turn: Turn) -> None:
        for older_turn in self._known:
            same = turn.kind is older_turn.kind or turn.kind.replaces_all
            if turn.visitor and older_turn.visitor == turn.visitor and same:
                older_turn.dropped = True
        self._changed.notify_all()
