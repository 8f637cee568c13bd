"""Columns of a map as the browser reads them: arrays of bytes with their meaning, and the regions with their colours.

Arrays are read once and cached for the last few maps, by content hash: a map that was built again is read again.
Columns:

    region     `level_0` ...: 0 for none, else 1 + the region's number
    category   text such as `group`: 0 for none, else 1 + the rank of its text by frequency
    number     `density`, `value` and `kept`, NaN for none

`rank` is the order in which points are named on the map and listed: readable labels first.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from dashboard.figures.theme import DARK, LIGHT, Theme
from interp.artifacts import Table
from interp.atlas.vector_map import MapPoint, Region, VectorMap, levels_of
from interp.errors import UnknownNameError
from interp.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

MAX_CATEGORIES = 4096
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
    """of the transferred array: `uint16`, `int32` or `float32`"""
    about: str = ""
    names: list[str] = field(default_factory=list)
    """of categories, most frequent first"""
    counts: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Points:
    """Points of one map, a column at a time. Equal for the same content, so that it can be the key of a cache."""

    path: Path
    content_hash: str
    n: int
    n_levels: int

    @property
    def names(self) -> list[str]:
        """Columns, one of them for each zoom level; texts only if there are some."""
        texts = [name for name in ("context", "group") if self.column(name).null_count < self.n]
        levels = [f"level_{level}" for level in range(self.n_levels)]
        return ["point", "x", "y", "label", "density", "item", "value", "kept", *levels, *texts]

    def column(self, name: str) -> "pa.Array":
        """One column by point number, text as it is."""
        if name.startswith("level_"):
            return _levels(self)[name]
        return _column(self, name)

    def numbers(self, name: str) -> np.ndarray:
        """One column of numbers, float32 or int32, `[n]`."""
        return _numbers(self, name)


def opened(workspace: Workspace, name: str) -> VectorMap:
    """Return the map `name`. Raises `UnknownNameError`."""
    return workspace.open(VectorMap, name)


def points_of(workspace: Workspace, name: str) -> Points:
    """Return the points of the map `name`. Raises `UnknownNameError`."""
    made = opened(workspace, name)
    return Points(cast("Path", made.points.path), made.about.content_hash, made.n_points, len(made.regions_per_level))


def columns(workspace: Workspace, name: str) -> list[Column]:
    """Return the columns that points can be coloured by, regions first."""
    made = opened(workspace, name)
    width = "uint16" if made.n_regions < 65_535 else "int32"
    return list(_columns(points_of(workspace, name), width, made.value_name or "value"))


def array(workspace: Workspace, name: str, column: str) -> np.ndarray:
    """Return the array of `xy`, `frame_0` ... (float32 `[n, 2]`) or a column `[n]`. Raises `UnknownNameError`."""
    points, made = points_of(workspace, name), opened(workspace, name)
    if column == "xy":
        return np.stack([points.numbers("x"), points.numbers("y")], axis=1).astype(np.float32)
    if column == "rank":
        return _ranks(points, made.item_kind)
    if column in (f"frame_{at}" for at in range(len(made.settings.frames))):
        return made.frame_positions(int(column.removeprefix("frame_")))
    known = {c.name: c for c in columns(workspace, name)}
    if column not in known:
        raise UnknownNameError("colouring", column, list(known))
    colouring = known[column]
    if colouring.kind == "number":
        return points.numbers(column).astype(np.float32)
    if colouring.kind == "region":
        return (points.numbers(column) + 1).astype(colouring.dtype)
    return _codes(points, column, tuple(colouring.names))


def about(workspace: Workspace, name: str) -> dict[str, object]:
    """Return everything about the map except its arrays and regions, as JSON."""
    made, cols = opened(workspace, name), columns(workspace, name)
    return {
        "name": name,
        "n": made.n_points,
        "hash": made.about.content_hash,
        "levels": len(made.regions_per_level),
        "frames": list(made.settings.frames),
        "whole_map_level": made.whole_map_level or 0,
        "colour": default_colour(cols, made.item_kind),
        "columns": [asdict(column) for column in cols],
        "cells": made.cells is not None,
        "features": made.features,
        "themes": {theme.name: colours_of(theme) for theme in (LIGHT, DARK)},
    }


def default_colour(cols: list[Column], item_kind: str = "") -> str:
    """Return the initial colouring: regions if there are some, else groups, else the first column.

    Features are never coloured by their group, which is the kind of their label and not what they mean.
    """
    if any(c.kind == "region" for c in cols):
        return "regions"
    groups = [c.name for c in cols if c.kind == "category" and item_kind != "feature"]
    return next(iter([*groups, *(c.name for c in cols)]), "none")


def colours_of(theme: Theme) -> dict[str, object]:
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
    """Return the regions by number, each with `colour` (an index of eight) so that neighbouring regions differ, and
    `examples`: up to three of its points with a readable label. They also stand behind a name that is a form."""
    made = opened(workspace, name)
    if not made.regions_per_level:
        return []
    return _regions(cast("Path", made.regions.path), points_of(workspace, name), made.item_kind)


def region_text(region: dict[str, Any]) -> str:
    """Return the name of a region, else examples of what lies in it, "" without either."""
    return region["label"] or (f"like {', '.join(region['examples'])}" if region["examples"] else "")


@lru_cache(maxsize=16)
def _columns(points: Points, width: str, value_name: str) -> tuple[Column, ...]:
    cols = [Column(f"level_{k}", "region", f"regions, level {k + 1}", width) for k in range(points.n_levels)]
    titles = {"density": "local density (rank)", "value": value_name, "kept": "neighbours preserved"}
    cols += [Column(name, "number", title, "float32", _ABOUT.get(name, "")) for name, title in titles.items()]
    names, counts = _categories(points.column("group"))
    if 0 < len(names) <= MAX_CATEGORIES:
        cols.append(Column("group", "category", "group", "uint16", "", names, counts))
    return tuple(cols)


def _categories(texts: "pa.Array") -> tuple[list[str], list[int]]:
    """Return the distinct texts, most frequent first, and their counts."""
    pairs = [(row["values"], row["counts"]) for row in texts.value_counts().to_pylist() if row["values"]]
    pairs.sort(key=lambda row: (-row[1], row[0]))
    return [name for name, _ in pairs], [count for _, count in pairs]


UNREADABLE = 65_535
"""Rank of a point whose label says nothing, such as a part of a word; many of them may have it."""
_READABLE = {"token": ("^ \\p{L}{5,}$", "^ ?\\p{L}{3,}$")}
"""Patterns of labels by what a point is, the best first: of tokens whole words before parts of words."""


@lru_cache(maxsize=8)
def _ranks(points: Points, item_kind: str) -> np.ndarray:
    """Return `[n]` uint16: labels of the best pattern first; of equals tokens by number (frequent ones are low), other
    points by local density."""
    import pyarrow.compute as compute

    labels = points.column("label")
    group = points.column("group").fill_null("").to_numpy(zero_copy_only=False)
    told = ~np.isin(group, ["no label", "nearly every token"])  # groups of features: `saes.features.sources`
    worst = np.full(points.n, 2)
    for level, pattern in reversed(list(enumerate(_READABLE.get(item_kind, ("\\p{L}{3,}",))))):
        fits = compute.call_function("match_substring_regex", [labels], compute.MatchSubstringOptions(pattern))
        worst[compute.fill_null(fits, False).to_numpy(zero_copy_only=False).astype(bool) & told] = level
    worst[(worst == 0) & (item_kind == "feature") & (group != "a written label")] = 1
    within = points.numbers("item") if item_kind == "token" else -points.numbers("density")
    ranks = np.empty(points.n, np.int64)
    ranks[np.lexsort((within, worst))] = np.arange(points.n)
    ranks = ranks * (UNREADABLE - 1) // max(points.n - 1, UNREADABLE - 1)
    return np.where(worst == 2, UNREADABLE, ranks).astype(np.uint16)


@lru_cache(maxsize=8)
def _codes(points: Points, column: str, names: tuple[str, ...]) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as compute

    index = compute.call_function(
        "index_in", [points.column(column)], compute.SetLookupOptions(pa.array(names, pa.string()))
    )
    return (compute.fill_null(index, -1).to_numpy(zero_copy_only=False) + 1).astype(np.uint16)


@lru_cache(maxsize=48)
def _column(points: Points, name: str) -> "pa.Array":
    if name not in {field.name for field in fields(MapPoint)}:
        raise UnknownNameError("column", name, points.names)
    return Table(MapPoint, points.path).query(f'select "{name}" from t')[name].combine_chunks()


@lru_cache(maxsize=4)
def _levels(points: Points) -> "dict[str, pa.Array]":
    import pyarrow as pa

    rows = levels_of(cast("pa.ListArray", _column(points, "levels")), points.n_levels, points.path)
    return {f"level_{level}": pa.array(row) for level, row in enumerate(rows)}


@lru_cache(maxsize=48)
def _numbers(points: Points, name: str) -> np.ndarray:
    values = points.column(name).to_numpy(zero_copy_only=False)
    return values.astype(np.float32) if values.dtype.kind == "f" else values.astype(np.int32)


@lru_cache(maxsize=4)
def _regions(path: Path, points: Points, item_kind: str) -> list[dict[str, Any]]:
    """Return the regions with their colours; `points` has the map's hash, so that a rebuilt map is read anew."""
    rows = Table(Region, path).rows(order="region")
    examples = _examples(points, item_kind, len(rows))
    return [
        asdict(row)
        | {"label": _with_examples(row.label[:300], likes), "contour": [float(f"{v:.5g}") for v in row.contour]}
        | {"colour": colour, "examples": likes}
        for row, colour, likes in zip(rows, region_colours(rows), examples, strict=True)
    ]


N_EXAMPLES = 3


def _examples(points: Points, item_kind: str, n_regions: int) -> list[list[str]]:
    """Return the readable labels of lowest rank in every region, each in one case only."""
    ranks = _ranks(points, item_kind)
    order = np.argsort(ranks, kind="stable")
    order = order[ranks[order] < UNREADABLE]
    found: list[list[int]] = [[] for _ in range(n_regions)]
    for level in range(points.n_levels):
        region = points.numbers(f"level_{level}")[order]
        inside = np.flatnonzero(region >= 0)
        by_region = inside[np.argsort(region[inside], kind="stable")]
        numbers, starts = np.unique(region[by_region], return_index=True)
        for number, start, end in zip(numbers, starts, [*starts[1:], len(by_region)], strict=True):
            found[number] = order[by_region[start : min(end, start + 2 * N_EXAMPLES)]].tolist()
    texts = points.column("label").take(np.concatenate([np.array(ids, np.int64) for ids in found])).to_pylist()
    taken = iter(texts)
    words = [{text.casefold(): text for text in (next(taken).strip() for _ in ids)} for ids in found]
    return [[text[:40] for text in distinct.values()][:N_EXAMPLES] for distinct in words]


def _with_examples(label: str, examples: list[str]) -> str:
    """Return a name that is a form (`Capitalised: json, http`) with the region's own words as they are written."""
    form, mark, _ = label.partition(": ")
    of_words = form.startswith(("Capitalised", "CAPITALS", "lower case", "leading space", "no leading space", "-"))
    return f"{form}: {', '.join(examples)}" if mark and of_words and examples else label


def region_colours(rows: Sequence[Region], n_colours: int = len(LIGHT.points), near: int = 6) -> list[int]:
    """Return a colour for each region, different from those of the nearest regions on the same level.

    The largest region within a parent keeps the parent's colour if possible, so that zooming in does not repaint all.
    """
    colours = [0] * len(rows)
    at = np.array([[row.x, row.y] for row in rows]).reshape(-1, 2)
    level = np.array([row.level for row in rows], int)
    inherited: set[int] = set()
    row_of = {row.region: i for i, row in enumerate(rows)}
    for i, row in enumerate(rows):
        earlier = np.flatnonzero(level[:i] == level[i])
        apart = ((at[earlier] - at[i]) ** 2).sum(1)
        around = [colours[j] for j in earlier[np.argsort(apart, kind="stable")[:near]]]
        parent = row_of.get(row.parent)
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
