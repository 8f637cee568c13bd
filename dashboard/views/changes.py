"""What one model has that another has not, as evaluations have it: the table of changes, or a crosscoder's latents."""

from typing import Any

from interp.artifacts import Manifest, read_json
from interp.errors import CorruptError, MissingError, UnknownNameError
from interp.workspace import Workspace

CHANGES, DIFFERENCE = "changes.json", "difference.json"
_PARTS = {"findings": list, "weights": list, "representations": dict, "heads": list, "transplants": list}
MAX_LATENTS = 200_000


def comparisons(workspace: Workspace) -> list[Manifest]:
    """Every comparison of two models, the newest first."""
    found = [m for m in workspace.artifacts("evaluation") if CHANGES in m.files or DIFFERENCE in m.files]
    return sorted(found, key=lambda manifest: manifest.created, reverse=True)


def choose(workspace: Workspace, name: str | None) -> Manifest:
    """The comparison called `name`, else the newest. Raises `UnknownNameError`, `MissingError`."""
    found = comparisons(workspace)
    if not found:
        raise MissingError("no two models were compared here yet; `workbench changes BASE TUNED` does")
    if not name:
        return found[0]
    known = {manifest.name: manifest for manifest in found}
    if name not in known:
        raise UnknownNameError("comparison of two models", name, known)
    return known[name]


def changes(workspace: Workspace, manifest: Manifest) -> dict[str, Any]:
    """`changes.json`. Raises `CorruptError` where it is missing or lacks a part."""
    path = workspace.path("evaluation", manifest.name) / CHANGES
    try:
        raw = read_json(path)
    except MissingError:
        raise CorruptError(f"{path} is missing from the artefact; `workbench verify` lists what else is") from None
    wrong = [key for key, kind in _PARTS.items() if not isinstance(raw.get(key), kind)]
    if wrong:
        raise CorruptError(f"{path} has no readable {wrong[0]!r}; it was edited or cut short")
    return raw


def latents(workspace: Workspace, manifest: Manifest) -> dict[str, list[Any]]:
    """Columns `latent, kind, relative_norm, cosine, n_fired, error_ratio, recons_ratio, confirmed` of a crosscoder."""
    path = workspace.table_path("evaluation", manifest.name, "latents")
    return workspace.query(f"select * from l limit {MAX_LATENTS}", l=path).to_pydict()


def own_latents(workspace: Workspace, manifest: Manifest, limit: int = 60) -> list[dict[str, Any]]:
    """Latents of one model only, confirmed ones first, then the most used."""
    path = workspace.table_path("evaluation", manifest.name, "latents")
    sql = (
        "select latent, kind, confirmed, n_fired, relative_norm, error_ratio, recons_ratio from l "
        "where kind in ('first only', 'second only') order by confirmed desc, n_fired desc limit ?"
    )
    return workspace.query(sql, limit, l=path).to_pylist()
