"""Columns of a map as the browser reads them: arrays of bytes with their meaning, and the regions with their colours.

Arrays are read once and cached for the last few maps, by content hash: a map that was built again is read again.
Columns:

    region     `level_0` ...: 0 for none, else 1 + the region's number
    category   text such as `group`: 0 for none, else 1 + the rank of its text by frequency
    number     `density`, `value`, `kept` and any other number of the table, NaN for none
"""

from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dashboard.figures.theme import DARK, LIGHT, Theme
from interp.artifacts import Manifest, read_table, table_errors
from interp.errors import CorruptError, UnknownNameError, form_errors
from interp.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

MAX_CATEGORIES = 4096
_NO_COLOURING = {"point", "x", "y", "item", "label", "context", "cluster"}  # `cluster`: in maps of before regions
_ABOUT = {
    "density": "fraction of points with a lower local density, 0 to 1",
    "kept": "fraction of its nearest neighbours in the full space that are near it on the map, 0 to 1",
}


@dataclass(frozen=True)
class Column:
    """One way to colour points."""

    name: str
    kind: str
    """`region`, `category` or `number`"""
    title: str
    dtype: str
    """of the array on its way: `uint16`, `int32` or `float32`"""
    about: str = ""
    names: list[str] = field(default_factory=list)
    """of categories, most frequent first"""
    counts: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """`points.parquet` of one map, a column at a time."""

    path: Path
    content_hash: str

    @property
    def n(self) -> int:
        """Number of points."""
        return _shape(self.path, self.content_hash)[0]

    @property
    def schema(self) -> "pa.Schema":
        """Names and types of the columns."""
        return _shape(self.path, self.content_hash)[1]

    def column(self, name: str) -> "pa.Array":
        """One column by point number. Raises `UnknownNameError`."""
        if name not in self.schema.names:
            raise UnknownNameError("column", name, self.schema.names)
        return _column(self.path, self.content_hash, name)

    def numbers(self, name: str) -> np.ndarray:
        """One column of numbers, float32 or int32, `[n]`."""
        return _numbers(self.path, self.content_hash, name)


def table(workspace: Workspace, name: str) -> Table:
    """The points of the map `name`. Raises `UnknownNameError`."""
    return Table(workspace.table_path("atlas", name, "points"), workspace.manifest("atlas", name).content_hash)


def columns(workspace: Workspace, name: str) -> list[Column]:
    """Return the columns that points can be coloured by, regions first."""
    manifest, points = workspace.manifest("atlas", name), table(workspace, name)
    with form_errors(f"the manifest of the atlas {name}"):
        levels = int(manifest.summary.get("n_levels") or 0)
        n_regions = sum(manifest.summary.get("regions_per_level") or [])
    return list(_columns(points, levels, "uint16" if n_regions < 65_535 else "int32", _value_name(manifest)))


def array(workspace: Workspace, name: str, column: str) -> np.ndarray:
    """Return the array of `xy`, `frame_0` ... (float32 `[n, 2]`) or a column `[n]`. Raises `UnknownNameError`."""
    points = table(workspace, name)
    if column == "xy":
        return np.stack([points.numbers("x"), points.numbers("y")], axis=1).astype(np.float32)
    frames = frame_names(workspace, name)
    if column in (f"frame_{at}" for at in range(len(frames))):
        return frame_positions(workspace, name, int(column.removeprefix("frame_")))
    known = {each.name: each for each in columns(workspace, name)}
    if column not in known:
        raise UnknownNameError("colouring", column, list(known))
    one = known[column]
    if one.kind == "number":
        return points.numbers(column).astype(np.float32)
    if one.kind == "region":
        return (points.numbers(column) + 1).astype(one.dtype)
    return _codes(points, column, tuple(one.names))


def frame_names(workspace: Workspace, name: str) -> list[str]:
    """Return the names of the maps of a series, the one in `points` last; empty for a single map."""
    return [frame["name"] for frame in workspace.manifest("atlas", name).summary.get("frames") or []]


def frame_positions(workspace: Workspace, name: str, frame: int) -> np.ndarray:
    """Return the positions of the points on one map of a series, `[n, 2]` float32."""
    path = workspace.table_path("atlas", name, "frames")
    found = workspace.query("select x, y from f where frame = ? order by point", frame, f=path)
    return np.column_stack([found["x"].to_numpy(), found["y"].to_numpy()]).astype(np.float32)


def about(workspace: Workspace, name: str) -> dict[str, Any]:
    """Return everything about the map except its arrays and regions, as JSON."""
    manifest, found = workspace.manifest("atlas", name), columns(workspace, name)
    levels = sum(column.kind == "region" for column in found)
    return {
        "name": name,
        "n": table(workspace, name).n,
        "hash": manifest.content_hash,
        "levels": levels,
        "frames": frame_names(workspace, name),
        "whole_map_level": manifest.summary.get("whole_map_level") or 0,
        "colour": default_colour(found),
        "columns": [asdict(column) for column in found],
        "cells": (workspace.path("atlas", name) / "cells.parquet").is_file(),
        "features": manifest.summary.get("features"),
        "themes": {theme.name: colours_of(theme) for theme in (LIGHT, DARK)},
    }


def default_colour(found: list[Column]) -> str:
    """Return the colouring to begin with: regions if there are some, else the first column."""
    return "regions" if any(c.kind == "region" for c in found) else next((c.name for c in found), "none")


def colours_of(theme: Theme) -> dict[str, Any]:
    """Return the colours of a theme that the view uses."""
    dark = theme.name == "dark"
    return {
        "categories": theme.points,
        "scale": theme.points_scale,
        "noise": theme.noise,
        "surface": theme.surface,
        "text": theme.text,
        "muted": theme.muted,
        "accent": theme.accent,
        "opposite": theme.opposite,
        "veil": theme.veil,
        "halo": "rgba(23, 26, 31, 0.86)" if dark else "rgba(255, 255, 255, 0.88)",
        "tint": "rgba(106, 167, 255, 0.12)" if dark else "rgba(26, 102, 214, 0.08)",
        "contour": "#8b97a6" if dark else "#7c8794",
    }


def regions(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    """Return the regions by number, each with `colour` (an index of eight) so that neighbouring regions differ."""
    manifest = workspace.manifest("atlas", name)
    if not manifest.summary.get("n_levels"):
        return []
    return _regions(workspace.table_path("atlas", name, "regions"), manifest.content_hash)


def _value_name(manifest: Manifest) -> str:
    return str(manifest.summary.get("value_name") or "value")


@lru_cache(maxsize=16)
def _columns(points: Table, n_levels: int, width: str, value_name: str) -> tuple[Column, ...]:
    import pyarrow.types as types

    found = [Column(f"level_{k}", "region", f"regions, level {k + 1}", width) for k in range(n_levels)]
    titles: dict[str, str] = {"density": "local density (rank)", "kept": "neighbours preserved", "value": value_name}
    for column in points.schema:
        if column.name in _NO_COLOURING or column.name.startswith("level_"):
            continue
        key = str(column.name)
        title, words = titles.get(key, key), _ABOUT.get(key, "")
        if types.is_floating(column.type) or types.is_integer(column.type):
            found.append(Column(column.name, "number", title, "float32", words))
        elif types.is_string(column.type) or types.is_large_string(column.type):
            names, counts = _categories(points.column(column.name))
            if 0 < len(names) <= MAX_CATEGORIES:
                found.append(Column(column.name, "category", title, "uint16", words, names, counts))
    return tuple(found)


def _categories(texts: "pa.Array") -> tuple[list[str], list[int]]:
    """Return the distinct texts, most frequent first, and their counts."""
    found = [(row["values"], row["counts"]) for row in texts.value_counts().to_pylist() if row["values"]]
    found.sort(key=lambda row: (-row[1], row[0]))
    return [name for name, _ in found], [count for _, count in found]


@lru_cache(maxsize=8)
def _codes(points: Table, column: str, names: tuple[str, ...]) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as compute

    index = compute.call_function(
        "index_in", [points.column(column)], compute.SetLookupOptions(pa.array(names, pa.string()))
    )
    return (compute.fill_null(index, -1).to_numpy(zero_copy_only=False) + 1).astype(np.uint16)


@lru_cache(maxsize=16)
def _shape(path: Path, content_hash: str) -> "tuple[int, pa.Schema]":
    """Return the number of points, and the names and types of their columns."""
    import pyarrow.parquet as pq

    with table_errors(path), pq.ParquetFile(path) as footer:
        return footer.metadata.num_rows, footer.schema_arrow


@lru_cache(maxsize=48)
def _column(path: Path, content_hash: str, name: str) -> "pa.Array":
    """`content_hash` is in the key so that a rebuilt map is read anew."""
    read = _read(path, name).combine_chunks()
    order = _order(path, content_hash)
    return read if order is None else read.take(order)


@lru_cache(maxsize=8)
def _order(path: Path, content_hash: str) -> np.ndarray | None:
    """Return the row of each point; None when rows are in order, as ours are."""
    point = _read(path, "point").to_numpy()
    return None if np.array_equal(point, np.arange(len(point))) else np.argsort(point, kind="stable")


@lru_cache(maxsize=48)
def _numbers(path: Path, content_hash: str, name: str) -> np.ndarray:
    values = _column(path, content_hash, name).to_numpy(zero_copy_only=False)
    return values.astype(np.float32) if values.dtype.kind == "f" else values.astype(np.int32)


def _read(path: Path, name: str) -> "pa.ChunkedArray":
    read = read_table(path, [name])
    if name not in read.column_names:
        raise CorruptError(f"cannot read {path}: it has no column {name}; `workbench verify` checks it")
    return read[name]


@lru_cache(maxsize=4)
def _regions(path: Path, content_hash: str) -> list[dict[str, Any]]:
    rows = Workspace(path.parent).query("select * from r order by region", r=path).to_pylist()
    for row, colour in zip(rows, region_colours(rows), strict=True):
        row["label"] = (row["label"] or "")[:300]
        row["contour"] = [float(f"{v:.5g}") for v in row.get("contour") or []]
        row["colour"] = colour
    return rows


def region_colours(rows: list[dict[str, Any]], n_colours: int = len(LIGHT.points), near: int = 6) -> list[int]:
    """Return a colour for each region, different from those of the nearest regions on the same level.

    The largest region within a parent keeps the parent's colour if possible, so that zooming in does not repaint all.
    """
    colours = [0] * len(rows)
    at = np.array([[row["x"], row["y"]] for row in rows]).reshape(-1, 2)
    level = np.array([row["level"] for row in rows], int)
    inherited: set[int] = set()
    row_of = {row["region"]: i for i, row in enumerate(rows)}
    for i, row in enumerate(rows):
        earlier = np.flatnonzero(level[:i] == level[i])
        apart = ((at[earlier] - at[i]) ** 2).sum(1)
        around = [colours[j] for j in earlier[np.argsort(apart, kind="stable")[:near]]]
        parent = row_of.get(row["parent"])
        if parent is not None and parent not in inherited and colours[parent] not in around[:3]:
            colours[i] = colours[parent]
            inherited.add(parent)
        else:
            used = (
                np.bincount([colours[j] for j in earlier], minlength=n_colours) if len(earlier) else np.zeros(n_colours)
            )
            free = [c for c in range(n_colours) if c not in around] or list(range(n_colours))
            colours[i] = min(free, key=lambda c: (used[c], c))
    return colours
