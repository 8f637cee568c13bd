"""The atlas view for Python: a component of a page, or a page of its own that needs no server.

    view = atlas_view(workspace, "tokens", colour="density")     # a map of a workspace
    view = atlas_view(xy, labels=words, columns={"norm": norms}) # or arrays: xy [n, 2]
    view                                                         # in a notebook: shows itself
    view.save("map.html")                                        # one file; opens anywhere, asks nobody for anything
    view.component("atlas-map")                                  # in the dashboard

A page of its own carries its numbers (base64), its texts and the modules of assets/atlas, with an import map. In the
dashboard the view is a Dash component (`AtlasMap`), whose other half is assets/atlas.mjs. Properties flow
both ways: changes by the visitor arrive in callbacks, and callbacks set them.
"""

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from dash.development.base_component import Component, _explicitize_args

from dashboard.components.modules import ASSETS, import_map, inert
from dashboard.figures.theme import DARK, LIGHT
from dashboard.maps import columns as data
from dashboard.maps import data as view
from dashboard.maps.columns import Column
from interp.errors import ConfigError, UnknownNameError
from interp.workspace import Workspace

STATE = ("colour", "search", "filter", "selection", "point", "at", "overlays")
"""Properties that an address can set; dashboard/assets/atlas/view.mjs explains each."""
_PROPERTIES = ["id", "source", *STATE, "neighbours", "opened"]


class AtlasMap(Component):
    """A map to pan, zoom, search, colour and select on.

    `source`: where its data is served, `/atlas-data/<name>`. `neighbours`: numbers of points to join to the chosen one.
    `opened`: the point on which Enter was pressed, or that was double-clicked.
    """

    _children_props: list[str] = []  # noqa: RUF012 - as Dash declares it
    _base_nodes = ["children"]  # noqa: RUF012
    _namespace = "workbench_atlas"
    _type = "AtlasMap"
    _prop_names = _PROPERTIES
    _valid_wildcard_attributes: list[str] = []  # noqa: RUF012
    available_properties = _PROPERTIES
    available_wildcard_properties: list[str] = []  # noqa: RUF012

    @_explicitize_args
    def __init__(
        self,
        id: Any = None,
        source: str = "",
        colour: str = "",
        search: str = "",
        filter: str = "",
        selection: str = "",
        point: int | None = None,
        at: str = "",
        overlays: list[str] | None = None,
        neighbours: list[int] | None = None,
        opened: int | None = None,
        **extra: Any,
    ):
        names = extra.pop("_explicit_args")
        values = locals()
        super().__init__(**{name: values[name] for name in names if name in _PROPERTIES}, **extra)


MODULES = (*sorted((ASSETS / "atlas").glob("*.mjs")), *(ASSETS / f"{name}.mjs" for name in ("dom", "http", "taken")))
"""Modules of the view, and those shared with other pages."""
MAX_LABEL = 120


@dataclass(frozen=True)
class AtlasView:
    """A map and what is shown of it."""

    about: dict[str, Any]
    state: dict[str, Any]
    height: int
    origin: tuple[Workspace, str] | None = None
    """workspace and name of a served map"""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    labels: Sequence[str] = ()

    def component(self, id: str) -> AtlasMap:
        """The view in a page of the dashboard. Raises `ConfigError` for arrays, which no route serves."""
        if self.origin is None:
            raise ConfigError("a view of arrays has no server: use to_html(), or save the map in a workspace")
        properties = {name: value for name, value in self.state.items() if value is not None}
        return AtlasMap(id=id, source=f"/atlas-data/{quote(self.origin[1])}", **properties)

    def to_html(self, *, scheme: str = "light") -> str:
        """One self-contained page, which makes no requests."""
        page = _PAGE.replace("$SCHEME", "dark" if scheme == "dark" else "light")
        css = (ASSETS / "atlas.css").read_text(encoding="utf-8")
        parts = {
            "$TITLE": html.escape(str(self.about["name"])),
            "$IMPORTS": import_map(MODULES),
            "$CSS": css + _VARIABLES,
            "$DATA": inert(json.dumps(self._page(), separators=(",", ":"))),
            "$STATE": inert(json.dumps({k: v for k, v in self.state.items() if v is not None})),
        }
        return re.sub("|".join(map(re.escape, parts)), lambda match: parts[match.group()], page)

    def save(self, path: str | Path, *, scheme: str = "light") -> Path:
        """Write the page to a file."""
        Path(path).write_text(self.to_html(scheme=scheme), encoding="utf-8")
        return Path(path)

    def _repr_html_(self) -> str:
        """A frame for notebooks; its content cannot reach the notebook."""
        inner = html.escape(self.to_html(), quote=True)
        return (
            f'<iframe srcdoc="{inner}" sandbox="allow-scripts allow-downloads" title="Map of {self.about["n"]:,} points'
            f'" style="width: 100%; height: {self.height}px; border: 1px solid #dfe3e8; border-radius: 8px"></iframe>'
        )

    def _page(self) -> dict[str, Any]:
        description, arrays, labels, regions, cells = self.about, dict(self.arrays), list(self.labels), [], []
        if self.origin is not None:
            workspace, name = self.origin
            frames = [f"frame_{at}" for at in range(len(description["frames"]))]
            names = ("xy", "rank", *frames, *(c["name"] for c in description["columns"]))
            arrays = {column: data.array(workspace, name, column) for column in names}
            labels = [text or "" for text in data.points_of(workspace, name).column("label").to_pylist()]
            regions, cells = data.regions(workspace, name), view.cells(workspace, name)
        return {
            "about": description,
            "regions": regions,
            "cells": cells,
            "labels": [label[:MAX_LABEL] for label in labels],
            "arrays": {name: base64.b64encode(values.tobytes()).decode() for name, values in arrays.items()},
        }


def atlas_view(
    source: Workspace | np.ndarray,
    name: str = "map",
    *,
    labels: Sequence[str] | None = None,
    columns: Mapping[str, np.ndarray] | None = None,
    height: int = 640,
    **state: Any,
) -> AtlasView:
    """A view of a stored map, or of points of one's own.

    Args:
        source: the workspace of the map, or points `xy [n, 2]`.
        name: of the map.
        labels: texts of the points.
        columns: numbers of the points by name, `[n]` each.
        height: in pixels.
        state: what is shown at first: `colour, search, filter, selection, point, at, overlays`
            (dashboard/assets/atlas/choice.mjs explains each).
    Returns: what a notebook displays.
    Raises:
        UnknownNameError: no such map.
        ConfigError: arrays that do not fit together.

    >>> view = atlas_view(np.random.default_rng(0).normal(size=(5, 2)), labels=list("abcde"))
    >>> view.height
    640
    """
    unknown = [key for key in state if key not in STATE]
    if unknown:
        raise UnknownNameError("part of a view", unknown[0], STATE)
    if isinstance(source, Workspace):
        return AtlasView(data.about(source, name), state, height, origin=(source, name))
    return _of_arrays(np.asarray(source), name, labels, columns or {}, state, height)


def _of_arrays(
    xy: np.ndarray,
    name: str,
    labels: Sequence[str] | None,
    numbers: Mapping[str, np.ndarray],
    state: dict[str, Any],
    height: int,
) -> AtlasView:
    if xy.ndim != 2 or xy.shape[1] != 2 or not np.isfinite(xy).all():
        raise ConfigError(f"points are finite x and y, [n, 2]; got an array {list(xy.shape)}")
    arrays: dict[str, np.ndarray] = {"xy": np.ascontiguousarray(xy, np.float32)}
    for key, values in numbers.items():
        if key in arrays or np.ndim(values) != 1 or np.asarray(values).dtype.kind not in "biuf":
            raise ConfigError(f"a column is a list of numbers under a name of its own, not 'xy'; see {key!r}")
        arrays[key] = np.ascontiguousarray(values, np.float32)
    words = [str(label) for label in labels] if labels is not None else [""] * len(xy)
    wrong = [key for key, values in arrays.items() if len(values) != len(xy)] + (
        ["labels"] if len(words) != len(xy) else []
    )
    if wrong:
        raise ConfigError(f"{wrong[0]} must have one entry per point, {len(xy)} of them")
    columns = [Column(key, "number", key, "float32") for key in numbers]
    description = {
        "name": name,
        "n": len(xy),
        "levels": 0,
        "whole_map_level": 0,
        "colour": data.default_colour(columns),
        "columns": [asdict(column) for column in columns],
        "cells": False,
        "features": None,
        "themes": {theme.name: data.colours_of(theme) for theme in (LIGHT, DARK)},
    }
    return AtlasView(description, state, height, arrays=arrays, labels=words)


_VARIABLES = """
html, body { margin: 0; height: 100%; }
html[data-scheme="dark"] { color-scheme: dark; --wb-surface: #171a1f; --wb-raised: #1e2228; --wb-line: #2f353e;
  --wb-line-soft: #242931; --wb-text: #e6e9ed; --wb-muted: #9aa4b0; --wb-accent: #6aa7ff; --wb-accent-soft: #1b2a42;
  --wb-warn-bg: #2a2114; --wb-warn-line: #6b5225; }
"""

_PAGE = """<!doctype html>
<html data-scheme="$SCHEME"><head><meta charset="utf-8"><title>$TITLE</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; img-src data: blob:">
<style>$CSS</style><script type="importmap">$IMPORTS</script></head>
<body><div id="map"></div>
<script type="application/json" id="data">$DATA</script><script type="application/json" id="state">$STATE</script>
<script type="module">
import { AtlasView, EmbeddedSource } from "page/view";
const read = (id) => JSON.parse(document.getElementById(id).textContent);
new AtlasView(document.getElementById("map"), new EmbeddedSource(read("data")), read("state"));
</script></body></html>
"""
