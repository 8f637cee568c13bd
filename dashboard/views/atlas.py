"""Points of a map, search in their labels, and the true neighbours of one. Tables are kept for the last few maps."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dashboard.figures.atlas import Points
from interp.artifacts import Manifest
from interp.errors import MissingError, UnknownNameError, UsageError
from interp.workspace import Workspace

MAX_MATCHES = 2000
MAX_NEIGHBOURS = 15


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


def points(workspace: Workspace, name: str) -> Points:
    """Every point of the map."""
    return _points(*_key(workspace, name))


def clusters(workspace: Workspace, name: str, limit: int = 60) -> list[dict[str, Any]]:
    """The largest regions of the level that suits the whole map, with their label, size, place and bounds."""
    path = workspace.table_path("atlas", name, "regions")
    sql = "select region as cluster, * from r where level = ? order by size desc, region limit ?"
    return workspace.query(sql, _level(workspace.manifest("atlas", name)), limit, r=path).to_pylist()


def search(workspace: Workspace, name: str, text: str) -> tuple[list[int], int]:
    """Indices of points whose label contains `text` (at most `MAX_MATCHES`), and how many there are."""
    needle = text.strip().casefold()
    if not needle:
        return [], 0
    found = [i for i, label in enumerate(_folded(*_key(workspace, name))) if needle in label]
    return found[:MAX_MATCHES], len(found)


def point(workspace: Workspace, name: str, index: int) -> dict[str, Any]:
    """One point: label, cluster label, value, item, and its nearest neighbours in the full space.

    Raises `UsageError` when the map has no such point.
    """
    all_points = points(workspace, name)
    if not 0 <= index < len(all_points.labels):
        raise UsageError(f"point {index} is not on the map {name!r}: its points are 0 to {len(all_points.labels) - 1}")
    table = workspace.query(
        "select neighbours, cosines from n where point = ?",
        index,
        n=workspace.table_path("atlas", name, "neighbours"),
    ).to_pylist()
    row = table[0] if table else {"neighbours": [], "cosines": []}
    near = list(zip(row["neighbours"], row["cosines"], strict=True))[:MAX_NEIGHBOURS]
    cluster = int(all_points.cluster[index])
    return {
        "point": index,
        "label": all_points.labels[index],
        "item": int(all_points.item[index]),
        "value": float(all_points.value[index]),
        "cluster": cluster,
        "cluster_label": _cluster_label(workspace, name, cluster),
        "neighbours": [(n, all_points.labels[n], int(all_points.item[n]), cosine) for n, cosine in near],
    }


def check_colour(colour_by: str, known: tuple[str, ...]) -> str:
    """`colour_by` when it is a way to colour. Raises `UnknownNameError`."""
    if colour_by not in known:
        raise UnknownNameError("colouring", colour_by, known)
    return colour_by


def _cluster_label(workspace: Workspace, name: str, cluster: int) -> str:
    if cluster < 0:
        return "between clusters"
    path = workspace.table_path("atlas", name, "regions")
    found = workspace.query("select label from r where region = ?", cluster, r=path)["label"].to_pylist()
    return found[0] if found else f"cluster {cluster}"


def _level(manifest: Manifest) -> int:
    """The zoom level that suits the whole map; without regions, none: -1."""
    level = manifest.summary.get("whole_map_level")
    return -1 if level is None else int(level)


def _key(workspace: Workspace, name: str) -> tuple[Path, str, int]:
    manifest = workspace.manifest("atlas", name)
    return workspace.table_path("atlas", name, "points"), manifest.content_hash, _level(manifest)


@lru_cache(maxsize=4)
def _points(path: Path, content_hash: str, level: int) -> Points:
    """`content_hash` is in the key so that a rebuilt map is read anew."""
    table = Workspace(path.parent).query("select * from p order by point", p=path)
    column = {name: table[name].to_numpy() for name in ("x", "y", "density", "value", "item")}
    cluster = table[f"level_{level}"].to_numpy() if level >= 0 else np.full(len(table), -1, np.int32)
    unknown = np.full(len(table), np.nan, np.float32)
    column["kept"] = table["kept"].to_numpy() if "kept" in table.column_names else unknown
    floats = {name: column[name].astype(np.float32) for name in ("x", "y", "density", "value", "kept")}
    labels = [label or "" for label in table["label"].to_pylist()]
    return Points(**floats, cluster=cluster, item=column["item"], labels=labels)


@lru_cache(maxsize=4)
def _folded(path: Path, content_hash: str, level: int) -> list[str]:
    return [label.casefold() for label in _points(path, content_hash, level).labels]
