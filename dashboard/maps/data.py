"""The points of a map as the page reads them: texts, table rows, nearest neighbours of one point.

Points are chosen by a selection, a search and a filter, short texts that the browser reads in the same way.

    selection   `lasso:x0,y0,x1,y1,...`   `box:x0,y0,x1,y1`   `region:12`   `points:3,14,15`
    filter      `density:0.2,0.8` (a range)   `group=1,4` (categories, by number)

A point is chosen if it meets all conditions given. dashboard/assets/atlas/choice.mjs is the reader in the browser.
"""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from dashboard.maps.columns import Column, Points, array, columns, opened, points_of, region_text, regions
from dashboard.sources import open_artefact
from interp.atlas.vector_map import Cell, VectorMap
from interp.errors import UnknownNameError, UsageError
from interp.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

_Number = TypeVar("_Number", int, float)
MAX_CORNERS = 400
_FILTER = re.compile(r"^(.+)(:|=)([^:=]+)$")


@dataclass(frozen=True)
class PointFilter:
    """A choice of points; an empty text restricts nothing."""

    search: str = ""
    selection: str = ""
    filter: str = ""


def chosen(workspace: Workspace, name: str, choice: PointFilter) -> np.ndarray:
    """Return the numbers of the points that meet the choice, ascending. Raises `UsageError` when it is malformed."""
    met = np.ones(points_of(workspace, name).n, bool)
    if choice.selection:
        met = met & _selected(workspace, name, choice.selection)
    if choice.search.strip():
        met = met & matches(workspace, name, choice.search)
    if choice.filter:
        met = met & _filtered(workspace, name, choice.filter)
    return np.flatnonzero(met)


def matches(workspace: Workspace, name: str, text: str) -> np.ndarray:
    """Return `[n]` bool: points whose label contains `text` in any case; none for an empty text."""
    needle = text.strip()
    points = points_of(workspace, name)
    return _matches(points, needle.lower()) if needle else np.zeros(points.n, bool)


def neighbours(workspace: Workspace, name: str, found: np.ndarray) -> np.ndarray | None:
    """Return `[n]` bool: nearest neighbours in the full space of the points `found`; None for none or many points."""
    at = np.flatnonzero(found)
    if not 0 < len(at) <= FEW_FOUND:
        return None
    rows = opened(workspace, name).neighbours.rows(f"point in ({', '.join(map(str, at.tolist()))})")
    near = np.zeros(len(found), bool)
    for row in rows:
        near[row.neighbours[:MAX_NEIGHBOURS]] = True
    return near


def inside(corners: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Apply the even-odd rule to points and a polygon `corners [k, 2]`, bitwise as polygon.mjs does.

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
    points = points_of(workspace, name)
    corners = corners_of(selection)
    if corners is not None:
        return inside(corners, points.numbers("x"), points.numbers("y"))
    kind, _, rest = selection.partition(":")
    mask = np.zeros(points.n, bool)
    if kind == "points":
        at = np.array(_numbers(rest, int), np.int64)
        mask[at[(at >= 0) & (at < points.n)]] = True
        return mask
    if kind != "region":
        raise UsageError(f"a selection is lasso:, box:, region: or points: with numbers; got {selection[:40]!r}")
    known = regions(workspace, name)
    for number in _numbers(rest, int):
        if not 0 <= number < len(known):
            raise UsageError(f"region {number} is not on the map {name!r}: its regions are 0 to {len(known) - 1}")
        mask |= points.numbers(f"level_{known[number]['level']}") == number
    return mask


def _filtered(workspace: Workspace, name: str, text: str) -> np.ndarray:
    match = _FILTER.match(text)
    if match is None:
        raise UsageError(f"a filter is column:low,high or column=1,2; got {text[:40]!r}")
    column, operator, rest = match.groups()
    kind = next((c.kind for c in columns(workspace, name) if c.name == column), None)
    values = array(workspace, name, column)
    if operator == "=" and kind != "number":
        return np.isin(values, _numbers(rest, int))
    limits = _numbers(rest, float)
    if len(limits) != 2:
        raise UsageError(f"a range has two numbers, low and high; got {rest[:40]!r}")
    return (values >= limits[0]) & (values <= limits[1])


def _numbers(text: str, kind: type[_Number]) -> list[_Number]:
    try:
        values = [kind(part) for part in text.split(",") if part]
    except ValueError:
        raise UsageError(f"expected numbers separated by commas, got {text[:40]!r}") from None
    if not np.isfinite(np.array(values, float)).all():
        raise UsageError(f"expected finite numbers, got {text[:40]!r}")
    return values


@lru_cache(maxsize=32)
def _matches(points: Points, needle: str) -> np.ndarray:
    import pyarrow.compute as compute

    mask = compute.call_function("match_substring", [_lowered(points)], compute.MatchSubstringOptions(needle))
    return compute.fill_null(mask, False).to_numpy(zero_copy_only=False).astype(bool)


@lru_cache(maxsize=4)
def _lowered(points: Points) -> "pa.Array":
    import pyarrow.compute as compute

    return compute.call_function("utf8_lower", [points.column("label")])


MAX_NEIGHBOURS = 15
FEW_FOUND = 64
"""points found, at most, whose neighbours are shown too"""
MAX_TEXTS = 512
MAX_CONTEXT = 400
MAX_CELL_TEXTS = 6
NO_NAME = "a region without a name"
_CHUNK = 20_000


def choose(workspace: Workspace, name: str | None) -> VectorMap:
    """Return the map called `name`; without a name, the most trustworthy one, of equals the newest."""
    if name or not (maps := workspace.values(VectorMap)):
        return opened(workspace, open_artefact(workspace, ("atlas",), name).name)
    return max(maps, key=lambda made: made.trust)


def colourings(workspace: Workspace, name: str) -> list[str]:
    """Return the ways to colour the map: `regions` (the level that fits the zoom), columns, `none`."""
    cols = columns(workspace, name)
    by_zoom = ["regions"] if any(c.kind == "region" for c in cols) else []
    return [*by_zoom, *(c.name for c in cols), "none"]


def check_colour(workspace: Workspace, name: str, colour_by: str) -> str:
    """`colour_by` when it is a way to colour, or empty. Raises `UnknownNameError`."""
    known = colourings(workspace, name)
    if colour_by and colour_by not in known:
        raise UnknownNameError("colouring", colour_by, known)
    return colour_by


def texts(workspace: Workspace, name: str, ids: list[int]) -> list[dict[str, Any]]:
    """Return label, finest region, context and values of some points, in their order, without unknown numbers."""
    points, cols = points_of(workspace, name), columns(workspace, name)
    at = np.array([i for i in ids[:MAX_TEXTS] if 0 <= i < points.n], np.int64)
    shown = [c for c in cols if c.kind != "region"]
    names = ["label", *(c.name for c in shown), "context"]
    taken = {column: points.column(column).take(at).to_pylist() for column in names}
    region_of = _region_names(workspace, name, cols, at)
    return [
        {
            "point": int(i),
            "label": taken["label"][k] or "",
            "region": region_of[k],
            "context": (taken["context"][k] or "")[:MAX_CONTEXT],
            "values": [[c.title, _plain(taken[c.name][k])] for c in shown],
        }
        for k, i in enumerate(at)
    ]


def rows(
    workspace: Workspace,
    name: str,
    choice: PointFilter,
    *,
    sort: str = "",
    descending: bool = False,
    start: int = 0,
    end: int = 100,
) -> tuple[list[dict[str, Any]], int]:
    """Return a slice of the table of the chosen points, sorted by a column, and the number of all of them."""
    at = ordered(workspace, name, chosen(workspace, name, choice), sort, descending)
    part = at[max(start, 0) : max(start, 0) + max(0, min(end - start, MAX_TEXTS))]
    descriptions = texts(workspace, name, part.tolist())
    item = points_of(workspace, name).numbers("item")
    names = [c.name for c in columns(workspace, name) if c.kind != "region"]
    lines = [
        {"point": row["point"], "item": int(item[row["point"]]), "label": row["label"], "region": row["region"]}
        | {column: value for column, (_, value) in zip(names, row["values"], strict=True)}
        for row in descriptions
    ]
    return lines, len(at)


def ordered(workspace: Workspace, name: str, at: np.ndarray, sort: str, descending: bool) -> np.ndarray:
    """Sort the points `at` by a column, equal ones by number; by number when `sort` is no column.

    `rank` is the order in which points are named on the map: readable labels first.
    """
    points = points_of(workspace, name)
    if sort == "rank":
        return at[np.argsort(array(workspace, name, "rank")[at], kind="stable")]
    if sort not in points.names or sort == "point":
        return at[::-1] if descending and sort == "point" else at
    import pyarrow as pa

    keys = pa.table({"key": points.column(sort).take(at), "point": at})
    by = [("key", "descending" if descending else "ascending"), ("point", "ascending")]
    return keys.sort_by(by)["point"].to_numpy()


def csv_lines(workspace: Workspace, name: str, choice: PointFilter) -> Iterator[str]:
    """Yield the chosen points as CSV, some thousand rows at a time: every column of the points."""
    points = points_of(workspace, name)
    names = points.names
    at = chosen(workspace, name, choice)
    yield _csv([names])
    for start in range(0, len(at), _CHUNK):
        part = at[start : start + _CHUNK]
        yield _csv(zip(*(points.column(column).take(part).to_pylist() for column in names), strict=True))


def point(workspace: Workspace, name: str, index: int) -> dict[str, Any]:
    """Return one point: label, region, value, item, and its nearest neighbours in the full space.

    Raises `UsageError` when the map has no such point.
    """
    points = points_of(workspace, name)
    if not 0 <= index < points.n:
        raise UsageError(f"point {index} is not on the map {name!r}: its points are 0 to {points.n - 1}")
    neighbours = opened(workspace, name).neighbours.rows("point = ?", index)
    near = [pair for row in neighbours for pair in zip(row.neighbours, row.cosines, strict=True)][:MAX_NEIGHBOURS]
    words = {t["point"]: t for t in texts(workspace, name, [index, *(n for n, _ in near)])}
    items = points.numbers("item")
    return words[index] | {
        "item": int(items[index]),
        "neighbours": [(n, words[n]["label"], int(items[n]), cosine) for n, cosine in near],
    }


def largest_regions(workspace: Workspace, name: str, limit: int = 30) -> list[dict[str, Any]]:
    """Return the largest regions of the level that fits a view of the whole map."""
    level = opened(workspace, name).whole_map_level or 0
    level_regions = [region for region in regions(workspace, name) if region["level"] == level]
    return sorted(level_regions, key=lambda region: (-region["size"], region["region"]))[:limit]


def cells(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    """Return the grids of cells, coarse to fine: `{"grid", "side" (of a cell, in units of the map), "cells"}`."""
    table = opened(workspace, name).cells
    if table is None:
        return []
    grids: list[dict[str, Any]] = []
    for grid, group in groupby(table.rows(order='grid, "row", "column"'), key=lambda cell: cell.grid):
        rows = list(group)
        shown = [
            {"x": cell.x, "y": cell.y, "size": cell.size, "n": cell.n}
            | {"texts": cell.texts[:MAX_CELL_TEXTS], "coherence": _plain(cell.coherence)}
            for cell in rows
        ]
        grids.append({"grid": grid, "side": _side(rows), "cells": shown})
    return grids


def _side(rows: list[Cell]) -> float:
    """Return the side of a cell: the distance between the centres of neighbouring columns, or rows."""
    for along in ([(cell.column, cell.x) for cell in rows], [(cell.row, cell.y) for cell in rows]):
        (first, low), (last, high) = min(along), max(along)
        if last > first:
            return (high - low) / (last - first)
    return 1.0


def _region_names(workspace: Workspace, name: str, cols: list[Column], at: np.ndarray) -> list[str]:
    """Return the label of the finest region that each point is in, "" for none; one without a
    label is told by examples."""
    points, known = points_of(workspace, name), regions(workspace, name)
    number = np.full(len(at), -1)
    for column in (c for c in cols if c.kind == "region"):
        numbers = points.numbers(column.name)[at]
        number = np.where(numbers >= 0, numbers, number)
    return [region_text(known[i]) or NO_NAME if i >= 0 else "" for i in map(int, number)]


def _plain(value: Any) -> Any:
    """Return a value in the form that JSON allows: None for a number that is not finite."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _csv(lines: Any) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(lines)
    return out.getvalue()
