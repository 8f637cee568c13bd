"""The score table of attention heads."""

from typing import Any

from interp.artifacts import Manifest
from interp.errors import MissingError, UnknownNameError
from interp.workspace import Workspace

KINDS = {
    "induction": "attends to the token after an earlier copy of the current one: the key step of copying a repeat",
    "previous_token": "attends to the token just before",
    "duplicate_token": "attends to an earlier copy of the current token",
    "first_token": "attends to the first token, where heads rest when they have nothing to do",
    "current_token": "attends to the token itself",
}


def choose(workspace: Workspace, name: str | None) -> Manifest:
    """The heads artefact called `name`, else the first. Raises `UnknownNameError`, `MissingError`."""
    if name:
        return workspace.manifest("heads", name)
    found = workspace.artifacts("heads")
    if not found:
        raise MissingError("no head scores here yet; `workbench heads smollm2-135m` makes them")
    return found[0]


def check_kind(kind: str) -> str:
    """`kind` when it is one of `KINDS`. Raises `UnknownNameError`."""
    if kind not in KINDS:
        raise UnknownNameError("head score", kind, KINDS)
    return kind


def scores(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    """Every row of `heads.parquet`, by layer and head (a model has hundreds, not thousands)."""
    path = workspace.table_path("heads", name, "heads")
    return workspace.query("select * from h order by layer, head limit 20000", h=path).to_pylist()


def found(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The heads found for a kind, strongest first."""
    return sorted((row for row in rows if row[f"{kind}_found"]), key=lambda row: -row[kind])


def name_of(row: dict[str, Any]) -> str:
    """`L5H1`"""
    return f"L{row['layer']}H{row['head']}"
