"""Features as the page reads them: one feature, its examples and labels, or a slice of the sorted list."""

from dataclasses import dataclass
from typing import Any

from dashboard.components.pages import open_artefact
from interp.artifacts import Manifest
from interp.errors import UnknownNameError, UsageError
from interp.workspace import Workspace

MAX_ROWS = 200
"""rows of the list per request"""
MAX_EXAMPLES = 12
"""examples per group"""
MAX_EXPLANATIONS = 12
"""labels artefacts shown for one feature"""
_LIST_COLUMNS = ("feature", "label", "density", "mean_activation", "max_activation", "n_fired")


@dataclass(frozen=True)
class Slice:
    """Rows `start` to `start + len(rows)` of the filtered and sorted list, and how many there are in all."""

    rows: list[dict[str, Any]]
    total: int


@dataclass(frozen=True)
class Query:
    """What to list: label text, a range of density (0 to 1), and an order."""

    text: str = ""
    density_low: float = 0.0
    density_high: float = 1.0
    sort: str = "feature"
    descending: bool = False

    def __post_init__(self) -> None:
        if self.sort not in _LIST_COLUMNS:
            raise UnknownNameError("column", self.sort, _LIST_COLUMNS)


def choose(workspace: Workspace, name: str | None) -> str:
    """Return `name` when there are features of this name; without one, the newest features of an SAE, else the newest.

    Raises `UnknownNameError` with the nearest names, and `NothingYetError` when there are no features.
    """
    return open_artefact(workspace, ("features",), name, prefer=_of_sae).name


def _of_sae(manifest: Manifest) -> bool:
    return str(manifest.config.get("dictionary", "")).startswith("sae:")


def choices(workspace: Workspace) -> list[dict[str, str]]:
    """`{"value": name, "label": "name · sae:demo"}` of every features artefact."""
    return [
        {"value": m.name, "label": f"{m.name} · {m.config.get('dictionary', '?')}"}
        for m in workspace.newest("features")
    ]


def one(workspace: Workspace, name: str, index: int) -> dict[str, Any]:
    """The row of `features.parquet`, its `histogram_edges` and `n_features`. Raises `UsageError` out of range."""
    manifest = workspace.manifest("features", name)
    table = workspace.query(
        "select * from f where feature = ?", index, f=workspace.table_path("features", name, "features")
    )
    n = int(manifest.summary["n_features"])
    if table.num_rows == 0:
        raise UsageError(f"feature {index} is not in {name!r}: its features are 0 to {n - 1}")
    edges = manifest.summary["histogram_edges"]
    return table.to_pylist()[0] | {
        "histogram_edges": edges,
        "n_features": n,
        "dictionary": manifest.config["dictionary"],
    }


def examples(workspace: Workspace, name: str, index: int) -> list[dict[str, Any]]:
    """Token windows on which the feature fires, by group (`top`, `q4` ... `q1`), strongest first."""
    path = workspace.table_path("features", name, "examples")
    sql = "select * from e where feature = ? and rank < ? order by group_order, rank"
    return workspace.query(sql, index, MAX_EXAMPLES, e=path).to_pylist()


def explanations(workspace: Workspace, name: str, index: int) -> list[dict[str, Any]]:
    """What labels artefacts say of a feature: rows of `labels.parquet` with the artefact's name as `artefact`.

    Only those that were made for these features as they are now, or that these features took their labels from.
    """
    features = workspace.manifest("features", name)
    found = []
    for made in workspace.artifacts("labels"):
        for_these = made.parents.get(f"features/{name}") == features.content_hash
        taken_in = features.parents.get(f"labels/{made.name}") == made.content_hash
        if (for_these or taken_in) and len(found) < MAX_EXPLANATIONS:
            path = workspace.table_path("labels", made.name, "labels")
            rows = workspace.query("select * from l where feature = ?", index, l=path).to_pylist()
            found += [row | {"artefact": made.name, "scorer": made.summary.get("judge", "")} for row in rows]
    return found


def labels(workspace: Workspace, name: str, indices: list[int]) -> dict[int, str]:
    """Labels of a few features."""
    path = workspace.table_path("features", name, "features")
    sql = "select feature, label from f where list_contains(?::int[], feature)"
    found = workspace.query(sql, indices[:MAX_ROWS], f=path)
    return dict(zip(found["feature"].to_pylist(), found["label"].to_pylist(), strict=True))


def listing(workspace: Workspace, name: str, query: Query, start: int = 0, end: int = 100) -> Slice:
    """At most `MAX_ROWS` rows of the list, and the number of all that match."""
    path = workspace.table_path("features", name, "features")
    where = "density between ? and ? and (? = '' or contains(lower(label), lower(?)))"
    values = (query.density_low, query.density_high, query.text, query.text)
    order = f"{query.sort} {'desc' if query.descending else 'asc'}, feature"
    limit = max(0, min(end - start, MAX_ROWS))
    sql = f"select {', '.join(_LIST_COLUMNS)} from f where {where} order by {order} limit ? offset ?"
    rows = [
        row | {"id": str(row["feature"])}
        for row in workspace.query(sql, *values, limit, max(0, start), f=path).to_pylist()
    ]
    total = workspace.query(f"select count(*) as n from f where {where}", *values, f=path)["n"][0].as_py()
    return Slice(rows, total)


def random_live(workspace: Workspace, name: str, *, seed: int) -> int:
    """A feature that fires, drawn by `seed`; 0 when none does."""
    path = workspace.table_path("features", name, "features")
    live = workspace.query("select feature from f where n_fired > 0 order by feature", f=path)["feature"]
    return live[seed % len(live)].as_py() if len(live) else 0


def most_telling(workspace: Workspace, name: str) -> int:
    """The feature to open first: labelled, neither rare nor dense, and strong where it fires."""
    path = workspace.table_path("features", name, "features")
    sql = """select feature from f where n_fired > 0 order by density between 2e-4 and 2e-2 desc,
             max_activation / greatest(mean_activation, 1e-9) desc, feature limit 1"""
    rows = workspace.query(sql, f=path)["feature"].to_pylist()
    return rows[0] if rows else 0
