"""Small pictures of points: texts lie inside and on no other, and points of a null are grey."""

import math
from itertools import combinations
from typing import Any

from dashboard.components.dots import GAP, HEIGHT, LETTER, LINE, WIDTH, dots
from interp.view import Dots

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November")


def marks(shown: Dots) -> list[Any]:
    return [each for each in dots(shown, "words").children if each.__class__.__name__ == "I"]


def boxes(shown: Dots) -> list[tuple[float, float, float, float]]:
    """Return left, right, bottom and top of every text, pixels."""
    found: list[tuple[float, float, float, float]] = []
    for mark in marks(shown):
        x, y = (float(mark.style[side].rstrip("%")) / 100 for side in ("left", "bottom"))
        kinds, wide = (getattr(mark, "className", None) or "").split(), LETTER * len(mark.children.children)
        left = WIDTH * x - GAP - wide if "wb-dots-left" in kinds else WIDTH * x + GAP
        middle = HEIGHT * y + LINE * 0.7 * (("wb-dots-above" in kinds) - ("wb-dots-below" in kinds))
        found.append((left, left + wide, middle - LINE / 2, middle + LINE / 2))
    return found


def test_texts_of_a_ring_lie_inside_the_picture_and_on_no_other():
    angles = [2 * math.pi * n / len(MONTHS) for n in range(len(MONTHS))]
    near = [angle if n % 2 else angle - 0.4 for n, angle in enumerate(angles)]  # pairs that lie close together
    for turns in (angles, near):
        shown = Dots(tuple(map(math.cos, turns)), tuple(map(math.sin, turns)), texts=MONTHS, alike=True)
        found = boxes(shown)
        assert all(left >= -0.5 and right <= WIDTH + 0.5 for left, right, *_ in found)
        for a, b in combinations(found, 2):
            assert a[1] <= b[0] + 0.5 or b[1] <= a[0] + 0.5 or a[3] <= b[2] + 0.5 or b[3] <= a[2] + 0.5


def test_the_last_points_are_of_the_null():
    found = marks(Dots((0.1, 0.7, 0.05, 0.06), (2, 1, 2, 1), texts=("a", "b", "", ""), null=2))
    assert ["wb-dots-null" in (getattr(each, "className", None) or "") for each in found] == [False, False, True, True]
