"""Which points are meant: a selection, a search and a filter, short texts that the browser reads the same way.

    selection   `lasso:x0,y0,x1,y1,...`   `box:x0,y0,x1,y1`   `region:12`   `points:3,14,15`
    filter      `density:0.2,0.8` (a range)   `group=1,4` (categories, by number)

A point counts when it meets all that is given. See dashboard/assets/atlas/choice.mjs for the other reader.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dashboard.views.atlas_columns import Table, array, columns, regions, table
from interp.errors import UsageError
from interp.workspace import Workspace

MAX_CORNERS = 400
_FILTER = re.compile(r"^(.+)(:|=)([^:=]+)$")


@dataclass(frozen=True)
class Choice:
    """What narrows the points; empty texts narrow nothing."""

    search: str = ""
    selection: str = ""
    filter: str = ""


def chosen(workspace: Workspace, name: str, choice: Choice) -> np.ndarray:
    """Numbers of the points that meet the choice, ascending. Raises `UsageError` when it cannot be read."""
    return np.flatnonzero(brightness(workspace, name, choice) == 2)


def brightness(workspace: Workspace, name: str, choice: Choice) -> np.ndarray:
    """`[n]` uint8: 2 shown bright, 1 dimmed (not selected or not found), 0 left out by the filter."""
    n = table(workspace, name).n
    marked = _selected(workspace, name, choice.selection) if choice.selection else np.ones(n, bool)
    if choice.search.strip():
        marked = marked & matches(workspace, name, choice.search)
    kept = _filtered(workspace, name, choice.filter) if choice.filter else np.ones(n, bool)
    return np.where(kept, 1 + marked, 0).astype(np.uint8)


def matches(workspace: Workspace, name: str, text: str) -> np.ndarray:
    """`[n]` bool: points whose label contains `text`, whatever the case; none for an empty text."""
    needle = text.strip()
    points = table(workspace, name)
    return _matches(points, needle.lower()) if needle else np.zeros(points.n, bool)


def inside(corners: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Even-odd rule for points against `corners [k, 2]`, in the operations and order of polygon.mjs: the same bits.

    >>> square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], float)
    >>> inside(square, np.array([1.0, 3.0]), np.array([1.0, 1.0])).tolist()
    [True, False]
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    within = np.zeros(len(x), bool)
    (low_x, low_y), (high_x, high_y) = corners.min(0), corners.max(0)
    near = np.flatnonzero((x >= low_x) & (x <= high_x) & (y >= low_y) & (y <= high_y))
    px, py, flips = x[near], y[near], np.zeros(len(near), bool)
    for (xi, yi), (xj, yj) in zip(corners, np.roll(corners, 1, axis=0), strict=True):
        if yi == yj:
            continue
        crosses = (yi > py) != (yj > py)
        flips ^= crosses & (px < ((xj - xi) * (py - yi)) / (yj - yi) + xi)
    within[near] = flips
    return within


def corners_of(selection: str) -> np.ndarray | None:
    """`[k, 2]` of a lasso or box, None for other kinds. Raises `UsageError` when its numbers cannot be read."""
    kind, _, rest = selection.partition(":")
    if kind not in ("lasso", "box"):
        return None
    values = np.array(_numbers(rest, float))
    if kind == "box" and len(values) == 4:
        x0, y0, x1, y1 = values
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    if kind == "lasso" and 6 <= len(values) <= 2 * MAX_CORNERS and len(values) % 2 == 0:
        return values.reshape(-1, 2)
    raise UsageError(
        f"a {kind} has x and y of its corners, 3 to {MAX_CORNERS} of them (a box: two); got {len(values)} numbers"
    )


def _selected(workspace: Workspace, name: str, selection: str) -> np.ndarray:
    points = table(workspace, name)
    corners = corners_of(selection)
    if corners is not None:
        return inside(corners, points.numbers("x"), points.numbers("y"))
    kind, _, rest = selection.partition(":")
    found = np.zeros(points.n, bool)
    if kind == "points":
        at = np.array(_numbers(rest, int), np.int64)
        found[at[(at >= 0) & (at < points.n)]] = True
        return found
    if kind != "region":
        raise UsageError(f"a selection is lasso:, box:, region: or points: with numbers; got {selection[:40]!r}")
    known = regions(workspace, name)
    for number in _numbers(rest, int):
        if not 0 <= number < len(known):
            raise UsageError(f"region {number} is not on the map {name!r}: its regions are 0 to {len(known) - 1}")
        found |= points.numbers(f"level_{known[number]['level']}") == number
    return found


def _filtered(workspace: Workspace, name: str, text: str) -> np.ndarray:
    match = _FILTER.match(text)
    if match is None:
        raise UsageError(f"a filter is column:low,high or column=1,2; got {text[:40]!r}")
    column, how, rest = match.groups()
    kind = next((c.kind for c in columns(workspace, name) if c.name == column), None)
    values = array(workspace, name, column)
    if how == "=" and kind != "number":
        return np.isin(values, _numbers(rest, int))
    limits = _numbers(rest, float)
    if len(limits) != 2:
        raise UsageError(f"a range has two numbers, low and high; got {rest[:40]!r}")
    return (values >= limits[0]) & (values <= limits[1])


def _numbers(text: str, kind: type) -> list:
    try:
        values = [kind(part) for part in text.split(",") if part]
    except ValueError:
        raise UsageError(f"numbers with commas between them were expected, got {text[:40]!r}") from None
    if not np.isfinite(np.array(values, float)).all():
        raise UsageError(f"finite numbers were expected, got {text[:40]!r}")
    return values


@lru_cache(maxsize=32)
def _matches(points: Table, needle: str) -> np.ndarray:
    import pyarrow.compute as compute

    found = compute.call_function("match_substring", [_lowered(points)], compute.MatchSubstringOptions(needle))
    return compute.fill_null(found, False).to_numpy(zero_copy_only=False).astype(bool)


@lru_cache(maxsize=4)
def _lowered(points: Table):
    import pyarrow.compute as compute

    return compute.call_function("utf8_lower", [points.column("label")])
