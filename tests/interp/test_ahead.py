"""Read-ahead: the same items in the same order, one made in advance, errors in their place."""

import threading
from collections.abc import Iterator

import pytest

from interp.recording.store import read_ahead


def test_items_come_in_order_and_one_is_made_in_advance():
    made: list[int] = []
    second = threading.Event()

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            if number == 1:
                second.set()
            yield number

    ahead = read_ahead(items())
    assert next(ahead) == 0
    assert second.wait(10), "the second item is made while the first is used"
    assert list(ahead) == [1, 2, 3, 4]
    assert made == [0, 1, 2, 3, 4]


def test_an_error_comes_after_the_items_before_it():
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)


def test_a_reader_that_stops_closes_the_iterator_and_its_thread():
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(True)

    ahead = read_ahead(items())
    assert next(ahead) == 0
    ahead.close()  # type: ignore[attr-defined]
    assert closed == [True]
    assert not [t for t in threading.enumerate() if t.name.startswith("read-ahead")]


def test_nothing_to_read():
    assert list(read_ahead(iter(()))) == []
