"""Ctrl-C and SIGTERM while a dictionary is trained: they take effect between steps."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from interp.ranks import restore


class DelayedStop:
    """Delay Ctrl-C and SIGTERM until a step is complete: a checkpoint of half a step could not be resumed exactly.

    With several ranks the request waits for the next batch, when all of them learn of it and stop at the same step. It
    is delayed between steps too, as the others would wait for the numbers of a rank that left alone.
    """

    def __init__(self) -> None:
        self._asked = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            restore(before)

    def raise_if_asked(self) -> None:
        if self._asked:
            raise KeyboardInterrupt

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True
