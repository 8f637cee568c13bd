"""How good dictionaries are: beside each other at one hook point, inside the model, feature by feature, and by size."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dashboard.views.sae import Entry
from dashboard.views.sae_log import number
from interp.artifacts import Manifest, read_json
from interp.errors import WorkbenchError
from interp.workspace import Workspace

BINS_PER_DECADE = 5
SCALING, COMPARISON = "scaling.json", "comparison.json"


@dataclass(frozen=True)
class Point:
    """One dictionary on the plane of sparsity and error, on held-out tokens."""

    name: str
    kind: str
    l0: float
    fvu: float
    d_sae: int | None = None
    k: int | None = None
    recording: str = ""
    """whose held-out documents it was scored on: scores compare only on the same ones"""
    baseline: bool = False
    """learned nothing: principal components, coordinates, an untrained dictionary"""


@dataclass(frozen=True)
class Densities:
    """How often features fire: `counts[i]` of them on a share of tokens from `10**edges[i]` to `10**edges[i + 1]`."""

    edges: list[float]
    counts: list[int]
    dead: int
    """that never fired"""
    dense: int
    """that fire on more than a tenth of the tokens"""
    n_tokens: int


def points(workspace: Workspace, entry: Entry, found: Iterable[Entry]) -> list[Point]:
    """Every finished dictionary of the entry's model and hook point that has scores, and baselines from comparisons."""
    place = (entry.summary.get("model"), entry.hook_point)
    there = [e for e in found if e.state == "finished" and (e.summary.get("model"), e.hook_point) == place]
    evaluations = workspace.artifacts("evaluation")
    shown = [point for e in there if (point := _point(e, evaluations))]
    return shown + _baselines(workspace, {e.name for e in there}, evaluations)


def in_the_model(workspace: Workspace, name: str) -> dict[str, Any]:
    """Scores inside the model from the newest evaluation of this dictionary and `artefact`, its name; empty without."""
    for manifest in _newest(workspace.artifacts("evaluation")):
        if manifest.config.get("sae") == name and isinstance(manifest.summary.get("model"), dict):
            return manifest.summary["model"] | {"artefact": manifest.name}
    for manifest, comparison in _read_all(workspace, COMPARISON):
        for row in _rows(comparison):
            if row.get("name") == name and isinstance(row.get("model"), dict):
                return row["model"] | {"artefact": manifest.name}
    return {}


def described(workspace: Workspace, name: str) -> list[Manifest]:
    """Feature tables and maps made from this dictionary."""
    key = f"sae:{name}"
    return [
        m
        for kind in ("features", "atlas")
        for m in workspace.artifacts(kind)
        if f"saes/{name}" in m.parents or key in (m.config.get("dictionary"), m.config.get("source"))
    ]


def densities(workspace: Workspace, features: str) -> Densities:
    """Features per fifth of a decade of firing density."""
    import numpy as np

    from saes.schema import DENSE

    path = workspace.table_path("features", features, "features")
    sql = """select floor(log10(density) * ?)::int as bin, count(*)::int as n
             from f where density > 0 group by 1 order by 1"""
    filled = workspace.query(sql, BINS_PER_DECADE, f=path).to_pylist()
    rest = workspace.query(
        "select count(*) filter (density = 0)::int as dead, count(*) filter (density > ?)::int as dense from f",
        DENSE,
        f=path,
    ).to_pylist()[0]
    low, high = (filled[0]["bin"], filled[-1]["bin"]) if filled else (0, -1)
    counts = np.zeros(high - low + 1, int)
    for row in filled:
        counts[row["bin"] - low] = row["n"]
    edges = (np.arange(low, high + 2) / BINS_PER_DECADE).tolist()
    n_tokens = int(workspace.manifest("features", features).summary.get("n_tokens") or 0)
    return Densities(edges, counts.tolist(), rest["dead"], rest["dense"], n_tokens)


def scaling(workspace: Workspace, name: str) -> dict[str, Any] | None:
    """The newest scaling fit that this dictionary is part of, with `artefact` its name; None without."""
    for manifest, found in _read_all(workspace, SCALING):
        if name in [run.get("name") for run in _rows(found, "runs")]:
            return found | {"artefact": manifest.name}
    return None


def _point(entry: Entry, evaluations: list[Manifest]) -> Point | None:
    scores, recording = entry.heldout, str(entry.config.get("recording") or "")
    if not scores:  # an imported one has none of its own
        mine = next((m for m in _newest(evaluations) if m.config.get("sae") == entry.name), None)
        scores, recording = (mine.summary, str(mine.config.get("recording") or "")) if mine else ({}, "")
    l0, fvu = number(scores.get("l0")), number(scores.get("fvu"))
    if l0 is None or fvu is None or l0 <= 0 or fvu <= 0:
        return None
    return Point(entry.name, entry.kind, l0, fvu, entry.d_sae, entry.k, recording)


def _baselines(workspace: Workspace, names: set[str], evaluations: list[Manifest]) -> list[Point]:
    """Of the newest comparison that any of these dictionaries stands in."""
    for manifest, comparison in _read_all(workspace, COMPARISON, evaluations):
        rows = _rows(comparison)
        if names.isdisjoint(str(row.get("name")) for row in rows):
            continue
        recording, shown = str(manifest.config.get("recording") or ""), []
        for row in rows:
            own = row.get("own") if row.get("baseline") else None
            l0, fvu = (number(own.get("l0")), number(own.get("fvu"))) if isinstance(own, dict) else (None, None)
            if l0 and fvu:
                shown.append(Point(str(row.get("name")), "baseline", l0, fvu, recording=recording, baseline=True))
        return shown
    return []


def _newest(manifests: list[Manifest]) -> list[Manifest]:
    return sorted(manifests, key=lambda m: m.created, reverse=True)


def _read_all(
    workspace: Workspace, file: str, evaluations: list[Manifest] | None = None
) -> Iterable[tuple[Manifest, dict[str, Any]]]:
    """Evaluations that hold `file`, newest first; one that cannot be read is passed over (the overview lists it)."""
    for manifest in _newest(workspace.artifacts("evaluation") if evaluations is None else evaluations):
        if file in manifest.files:
            try:
                yield manifest, read_json(workspace.path("evaluation", manifest.name) / file)
            except WorkbenchError:
                continue


def _rows(found: dict[str, Any], key: str = "rows") -> list[dict[str, Any]]:
    rows = found.get(key)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
