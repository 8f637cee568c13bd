"""A map's points as people read them: which map, texts of points, rows of the table, neighbours of one point."""

import csv
import io
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np

from dashboard.views.atlas_columns import Column, columns, regions, table
from dashboard.views.atlas_selection import Choice, chosen
from interp.artifacts import Manifest
from interp.errors import MissingError, UnknownNameError, UsageError
from interp.workspace import Workspace

MAX_NEIGHBOURS = 15
MAX_TEXTS = 512
MAX_CONTEXT = 400
MAX_CELL_TEXTS = 6
_CHUNK = 20_000


def choose(workspace: Workspace, name: str | None) -> Manifest:
    """The atlas called `name`, else one of features, else the first. Raises `UnknownNameError`, `MissingError`."""
    if name:
        return workspace.manifest("atlas", name)
    found = workspace.artifacts("atlas")
    if not found:
        raise MissingError("no atlas here yet; `workbench atlas embeddings:smollm2-135m` makes one")
    return next((m for m in found if m.summary.get("features")), found[0])


def choices(workspace: Workspace) -> list[dict[str, str]]:
    """`{"value": name, "label": "name · source"}` of every atlas."""
    return [
        {"value": m.name, "label": f"{m.name} · {m.config.get('source', '?')}"} for m in workspace.artifacts("atlas")
    ]


def colourings(workspace: Workspace, name: str) -> list[str]:
    """What the map can be coloured by: `regions` (the level that fits the zoom), columns, `none`."""
    found = columns(workspace, name)
    by_zoom = ["regions"] if any(c.kind == "region" for c in found) else []
    return [*by_zoom, *(c.name for c in found), "none"]


def check_colour(workspace: Workspace, name: str, colour_by: str) -> str:
    """`colour_by` when it is a way to colour, or empty. Raises `UnknownNameError`."""
    known = colourings(workspace, name)
    if colour_by and colour_by not in known:
        raise UnknownNameError("colouring", colour_by, known)
    return colour_by


def texts(workspace: Workspace, name: str, ids: list[int]) -> list[dict[str, Any]]:
    """Label, finest region, context and values of some points, in the order asked; unknown numbers are left out."""
    points, found = table(workspace, name), columns(workspace, name)
    at = np.array([i for i in ids[:MAX_TEXTS] if 0 <= i < points.n], np.int64)
    shown = [c for c in found if c.kind != "region"]
    names = ["label", *(c.name for c in shown)] + (["context"] if "context" in points.schema.names else [])
    taken = {each: points.column(each).take(at).to_pylist() for each in names}
    places = _region_names(workspace, name, found, at)
    return [
        {
            "point": int(i),
            "label": taken["label"][k] or "",
            "region": places[k],
            "context": (taken.get("context", [None] * len(at))[k] or "")[:MAX_CONTEXT],
            "values": [[c.title, _plain(taken[c.name][k])] for c in shown],
        }
        for k, i in enumerate(at)
    ]


def rows(
    workspace: Workspace,
    name: str,
    choice: Choice,
    *,
    sort: str = "",
    descending: bool = False,
    start: int = 0,
    end: int = 100,
) -> tuple[list[dict[str, Any]], int]:
    """A slice of the table of the chosen points, sorted by a column, and how many there are."""
    at = ordered(workspace, name, chosen(workspace, name, choice), sort, descending)
    part = at[max(start, 0) : max(start, 0) + max(0, min(end - start, MAX_TEXTS))]
    found = texts(workspace, name, part.tolist())
    item = table(workspace, name).numbers("item")
    names = [c.name for c in columns(workspace, name) if c.kind != "region"]
    lines = [
        {"point": row["point"], "item": int(item[row["point"]]), "label": row["label"], "region": row["region"]}
        | {column: value for column, (_, value) in zip(names, row["values"], strict=True)}
        for row in found
    ]
    return lines, len(at)


def ordered(workspace: Workspace, name: str, at: np.ndarray, sort: str, descending: bool) -> np.ndarray:
    """`at` by a column, equal ones by number; by number when `sort` is none."""
    points = table(workspace, name)
    if sort not in points.schema.names or sort == "point":
        return at[::-1] if descending and sort == "point" else at
    import pyarrow as pa

    keys = pa.table({"key": points.column(sort).take(at), "point": at})
    by = [("key", "descending" if descending else "ascending"), ("point", "ascending")]
    return keys.sort_by(by)["point"].to_numpy()


def csv_lines(workspace: Workspace, name: str, choice: Choice) -> Iterator[str]:
    """The chosen points as CSV, some thousand rows at a time: every column of `points.parquet` but the neighbours."""
    points = table(workspace, name)
    names = points.schema.names
    at = chosen(workspace, name, choice)
    yield _csv([names])
    for start in range(0, len(at), _CHUNK):
        part = at[start : start + _CHUNK]
        yield _csv(zip(*(points.column(each).take(part).to_pylist() for each in names), strict=True))


def point(workspace: Workspace, name: str, index: int) -> dict[str, Any]:
    """One point: label, region, value, item, and its nearest neighbours in the full space.

    Raises `UsageError` when the map has no such point.
    """
    points = table(workspace, name)
    if not 0 <= index < points.n:
        raise UsageError(f"point {index} is not on the map {name!r}: its points are 0 to {points.n - 1}")
    found = workspace.query(
        "select neighbours, cosines from n where point = ?",
        index,
        n=workspace.table_path("atlas", name, "neighbours"),
    ).to_pylist()
    row = found[0] if found else {"neighbours": [], "cosines": []}
    near = list(zip(row["neighbours"], row["cosines"], strict=True))[:MAX_NEIGHBOURS]
    words = {t["point"]: t for t in texts(workspace, name, [index, *(n for n, _ in near)])}
    items = points.numbers("item")
    return words[index] | {
        "item": int(items[index]),
        "neighbours": [(n, words[n]["label"], int(items[n]), cosine) for n, cosine in near],
    }


def largest_regions(workspace: Workspace, name: str, limit: int = 30) -> list[dict[str, Any]]:
    """The largest regions of the level that suits a view of the whole map."""
    level = workspace.manifest("atlas", name).summary.get("whole_map_level") or 0
    found = [region for region in regions(workspace, name) if region["level"] == level]
    return sorted(found, key=lambda region: (-region["size"], region["region"]))[:limit]


def cells(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    """Grids of an activation atlas, coarse to fine: `{"grid", "side" (of a cell, in units of the map), "cells"}`."""
    if not (workspace.path("atlas", name) / "cells.parquet").is_file():
        return []
    path = workspace.table_path("atlas", name, "cells")
    found = workspace.query('select * from c order by grid, "row", "column"', c=path).to_pylist()
    grids = []
    for grid, group in groupby(found, key=lambda cell: cell["grid"]):
        rows = list(group)
        shown = [
            {key: cell[key] for key in ("x", "y", "size", "n")}
            | {"texts": cell["texts"][:MAX_CELL_TEXTS], "coherence": _plain(cell.get("coherence", 1.0))}
            for cell in rows
        ]
        grids.append({"grid": grid, "side": _side(rows), "cells": shown})
    return grids


def _side(rows: list[dict[str, Any]]) -> float:
    """The side of a cell: how far apart the middles of two columns, or rows, are per step."""
    for step, place in (("column", "x"), ("row", "y")):
        first, last = min(rows, key=lambda c: c[step]), max(rows, key=lambda c: c[step])
        if last[step] > first[step]:
            return (last[place] - first[place]) / (last[step] - first[step])
    return 1.0


def _region_names(workspace: Workspace, name: str, found: list[Column], at: np.ndarray) -> list[str]:
    """The label of the finest region that each point is in, "" for none."""
    points, known = table(workspace, name), regions(workspace, name)
    number = np.full(len(at), -1)
    for column in (c for c in found if c.kind == "region"):
        here = points.numbers(column.name)[at]
        number = np.where(here >= 0, here, number)
    return [known[i]["label"] if i >= 0 else "" for i in number]


def _plain(value: Any) -> Any:
    """A value that JSON can hold."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _csv(lines: Any) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(lines)
    return out.getvalue()
