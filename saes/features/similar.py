"""Features by the cosine similarity of their decoder directions, to a feature or to any vector. Torch-free.

**p** of a cosine: the probability that one of as many isotropic random directions reaches it (Holm-adjusted tail of the
Beta distribution). Directions of a dictionary share directions of large variance, so its nearest neighbours pass this
null easily; the baseline of `like` is the usual nearest neighbour of a feature. Weights in bfloat16 need torch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from interp.errors import ConfigError, CorruptError, MissingError, UnknownNameError
from interp.workspace import Workspace
from saes.features.found import Filter, Found, Hit, Kind, columns_of
from saes.features.schema import Features

_ROWS = 8192
MAX_FILE = 16_000_000
"""Bytes of a file with a vector."""


def load_vector(path: Path | str) -> np.ndarray:
    """Return the vector `[d]` of a `.npy` file, float64; `[1, d]` is taken too.

    Raises `MissingError` where there is no file, `ConfigError` for one that holds no finite vector or pickled objects.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingError(f"no file at {path}; numpy.save writes a vector to one")
    if path.stat().st_size > MAX_FILE:
        raise ConfigError(f"{path} has {path.stat().st_size:,} bytes; a vector has at most {MAX_FILE:,}")
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        why = "it holds pickled objects, which can run code" if "allow_pickle" in str(error) else str(error)
        raise ConfigError(f"{path} cannot be read as an array of numbers: {why}; save it with numpy.save") from None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        kind = f"an array of {found.dtype}" if isinstance(found, np.ndarray) else "several arrays (.npz)"
        raise ConfigError(f"{path} holds {kind}, expected one array of real numbers; save it with numpy.save")
    vector = found[0] if found.ndim == 2 and len(found) == 1 else found
    if vector.ndim != 1 or not len(vector):
        raise ConfigError(f"{path} holds an array of shape {list(found.shape)}, expected a vector [d]; choose a row")
    return vector.astype(np.float64)


def search_vector(
    workspace: Workspace, vector: np.ndarray, *, name: str = "the vector", features: str | None = None,
    hook_point: str | None = None, density: tuple[float, float] = (0.0, 1.0), min_strength: float = 0.0,
    kind: Kind | None = None, limit: int = 20,
) -> Found:  # fmt: skip
    """Return the features whose decoder directions have the largest cosine similarity to `vector [d]`.

    SAEs of another width are left out, and so are neurons. Raises `ConfigError` for a vector that is zero or not
    finite, or whose width no SAE has.
    """
    vector = np.asarray(vector, np.float64)
    if vector.ndim != 1 or not np.isfinite(vector).all() or not vector.any():
        bad = int((~np.isfinite(vector)).sum())
        what = (
            f"{bad} of {vector.size} numbers are NaN or infinite" if bad else f"shape {list(vector.shape)}, or all zero"
        )
        raise ConfigError(f"expected a vector [d] of finite numbers, not all zero, got {what}; compute it again")
    within = Filter(features=features, hook_point=hook_point, density=density, min_strength=min_strength,
                    kind=kind)  # fmt: skip
    hits, widths = [], {}
    for made in within.artefacts(workspace)[0]:
        path = _weights(workspace, made)
        if path is None:
            continue
        widths[made.name] = _width(path)
        if widths[made.name] == len(vector):
            hits += _nearest(workspace, made, path, vector, within, limit)
    if len(vector) not in widths.values():
        known = ", ".join(f"{each} {width}" for each, width in widths.items()) or "no SAE whose weights are here"
        raise ConfigError(f"the vector has {len(vector)} numbers; decoder directions have: {known}")
    best = sorted(hits, key=lambda hit: -(hit.strength or 0))[:limit]
    return Found(query=f"like {name}", hits=tuple(best), covers={})


def _nearest(
    workspace: Workspace, made: Features, path: Path, vector: np.ndarray, within: Filter, limit: int, *,
    leave_out: int | None = None, null: float | None = None,
) -> list[Hit]:  # fmt: skip
    """Return the features that pass the filter, by cosine to a vector, largest first."""
    cosines = np.concatenate([
        block @ vector / np.maximum(np.linalg.norm(block, axis=1), 1e-12) for block in _blocks(path)
    ]) / np.linalg.norm(vector)  # fmt: skip
    if leave_out is not None:
        cosines[leave_out] = -np.inf
    columns = columns_of(workspace, made)
    inside = within.mask(workspace, columns)
    among = np.flatnonzero(inside[: len(cosines)] & (cosines[: len(inside)] >= (within.min_strength or -1)))
    best = np.argsort(-cosines[among], kind="stable")[:limit]
    p = chance_of_cosine(cosines[among], len(vector), int(inside.sum()))
    rows = columns.rows(among[best])
    return [
        Hit(features=made.name, by="similar", strength=float(cosines[i]), null=null, p=float(each), **rows[i])
        for i, each in zip(among[best].tolist(), p[best], strict=True)
    ]


def chance_of_cosine(cosines: np.ndarray, d: int, n: int) -> np.ndarray:
    """Return the Holm-adjusted probability that a random direction in `d` dimensions reaches each of `cosines [m]`.

    `n >= m` directions were compared; those not given count with p = 1. The cosine of an isotropic random direction
    with a fixed one is distributed as `2 B - 1`, `B ~ Beta((d - 1) / 2, (d - 1) / 2)`.
    """
    from scipy.special import betainc

    from interp.nulls import holm

    if d < 2:
        return np.ones(len(cosines))
    p = np.ones(max(n, len(cosines)))
    half = (d - 1) / 2
    p[: len(cosines)] = betainc(half, half, np.clip((1 - cosines) / 2, 0.0, 1.0))
    return holm(p)[: len(cosines)]


def similar(workspace: Workspace, made: Features, index: int, within: Filter, limit: int) -> list[Hit]:
    """Return the features whose decoder directions have the largest cosine similarity to that of a feature.

    From the SAE's weights where they are in the workspace, else the nearest neighbours stored with the features.
    """
    table = workspace.table_path("features", made.name, "features")
    sql = """select neighbours, neighbour_cosines, (select median(neighbour_cosines[1]) from f) as usual
             from f where feature = ?"""
    rows = workspace.query(sql, index, f=table).to_pylist()
    if not rows:
        raise UnknownNameError("feature", str(index), [f"0 to {made.n_features - 1}"])
    usual, path = rows[0]["usual"], _weights(workspace, made)
    if path is not None:
        own = _row(path, index)
        return _nearest(workspace, made, path, own, within, limit, leave_out=index, null=usual)
    cosines = dict(zip(rows[0]["neighbours"], rows[0]["neighbour_cosines"], strict=True))
    columns = columns_of(workspace, made)
    inside = within.mask(workspace, columns)
    hits = [
        Hit(features=made.name, by="similar", strength=cosines[i], null=usual, **row)
        for i, row in columns.rows(sorted(cosines)).items()
        if inside[i] and cosines[i] >= within.min_strength
    ]
    return sorted(hits, key=lambda hit: -(hit.strength or 0))[:limit]


def _weights(workspace: Workspace, made: Features) -> Path | None:
    """Return the weights of the SAE that these features were made of; None where they are not here, or other ones."""
    name = made.sae
    if not name:
        return None
    path = workspace.path("sae", name) / "sae_weights.safetensors"
    same = path.is_file() and workspace.manifest("sae", name).content_hash == made.about.parents.get(f"saes/{name}")
    return path if same else None


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, kind) as file:
            yield file
    except SafetensorError as error:
        raise CorruptError(f"{path} is damaged ({error}); `workbench verify` checks the others") from None


def _width(path: Path) -> int:
    with _opened(path, "numpy") as file:
        return int(file.get_slice("W_dec").get_shape()[1])


def _row(path: Path, index: int) -> np.ndarray:
    """Return one decoder direction, `[d]`."""
    return next(_blocks(path, index, index + 1))[0].astype(np.float64)


def _blocks(path: Path, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
    """Yield the decoder directions from `start` to `stop`, `[n, d]` float32, some at a time."""
    with _opened(path, "numpy") as file:
        weights = file.get_slice("W_dec")
        end = stop or int(weights.get_shape()[0])
        wide = weights.get_dtype() == "BF16"  # no type of numpy
        for at in range(start, end, _ROWS):
            rows = slice(at, min(at + _ROWS, end))
            if wide:
                with _opened(path, "pt") as tensors:
                    yield tensors.get_slice("W_dec")[rows].float().numpy()
            else:
                yield weights[rows].astype(np.float32)
