"""Features by the cosine similarity of their decoder directions, to a feature or to any vector. Torch-free."""

from interp.artifacts import Manifest
from interp.errors import UnknownNameError
from interp.workspace import Workspace
from saes.features.found import COLUMNS, Filter, Hit


def similar(workspace: Workspace, manifest: Manifest, index: int, within: Filter, limit: int) -> list[Hit]:
    """Return the features whose decoder directions have the largest cosine similarity to that of a feature.

    From the SAE's weights where they are in the workspace, else the nearest neighbours stored with the features.
    """
    path = workspace.table_path("features", manifest.name, "features")
    sql = """select neighbours, neighbour_cosines, (select median(neighbour_cosines[1]) from f) as usual
             from f where feature = ?"""
    rows = workspace.query(sql, index, f=path).to_pylist()
    if not rows:
        raise UnknownNameError("feature", str(index), [f"0 to {int(manifest.summary['n_features']) - 1}"])
    stored = dict(zip(rows[0]["neighbours"], rows[0]["neighbour_cosines"], strict=True))
    cosines = _cosines(workspace, manifest, index, 4 * limit) or stored
    condition, more = within.condition(workspace)
    sql = f"select {COLUMNS} from f where list_contains(?::int[], feature) and {condition}"
    known = workspace.query(sql, list(cosines), f=path, **more).to_pylist()
    hits = [
        Hit(features=manifest.name, by="similar", score=cosines[row["feature"]], null=rows[0]["usual"], **row)
        for row in known
    ]
    return sorted((hit for hit in hits if (hit.score or 0) >= within.min_score), key=lambda hit: -(hit.score or 0))[
        :limit
    ]


def _cosines(workspace: Workspace, manifest: Manifest, index: int, n: int, *, rows: int = 8192) -> dict[int, float]:
    """Return the `n` largest cosines to a feature's decoder direction; none where the weights cannot be read here."""
    import numpy as np
    from safetensors import SafetensorError, safe_open

    source = str(manifest.config.get("dictionary", ""))
    if not source.startswith("sae:"):
        return {}
    name = source.removeprefix("sae:")
    path = workspace.path("sae", name) / "sae_weights.safetensors"
    same = path.is_file() and workspace.manifest("sae", name).content_hash == manifest.parents.get(f"saes/{name}")
    if not same:
        return {}
    try:
        with safe_open(path, "numpy") as file:
            weights = file.get_slice("W_dec")
            n_rows = weights.get_shape()[0]
            own = weights[index : index + 1][0].astype(np.float32)
            parts = []
            for start in range(0, n_rows, rows):
                block = weights[start : start + rows].astype(np.float32)
                parts.append(block @ own / np.maximum(np.linalg.norm(block, axis=1), 1e-12))
    except (SafetensorError, TypeError, KeyError):  # bfloat16 is no type of numpy
        return {}
    cosines = np.concatenate(parts) / max(float(np.linalg.norm(own)), 1e-12)
    cosines[index] = -2
    best = np.argsort(-cosines, kind="stable")[:n]
    return {int(i): float(cosines[i]) for i in best if i != index}
