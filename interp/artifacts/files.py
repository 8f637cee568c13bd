"""Files of artefacts: atomic writes, JSON, parquet tables, users' arrays, checksums. Torch-free."""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from interp.errors import CorruptError, MissingError, disk_errors

if TYPE_CHECKING:
    import pyarrow as pa


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`: renamed to it when the block succeeds, removed when it fails."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "rb") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # on a disk that can only be read it stays, and the next try replaces it
            temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(dump_json(value) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises `MissingError`, and `CorruptError` when the file does not hold one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingError(f"no file at {path}") from None
    except (ValueError, RecursionError) as error:  # not JSON, not text, a number of thousands of digits, too deep
        raise CorruptError(f"{path} is not valid JSON ({error}); it was edited or cut short") from None
    if not isinstance(value, dict):
        raise CorruptError(f"{path} should hold a JSON object, found {type(value).__name__}")
    return value


def write_table(path: Path, table: "pa.Table") -> None:
    """Write a pyarrow table as parquet, atomically, in small row groups, so that one feature is one short read."""
    import pyarrow.parquet as pq

    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=8192)


def read_table(
    path: Path, columns: list[str] | None = None, filters: Sequence[tuple[str, str, object]] | None = None
) -> "pa.Table":
    """Read a parquet file as a pyarrow table. Raises `CorruptError`."""
    import pyarrow.parquet as pq

    with table_errors(path):
        return pq.read_table(path, columns=columns, filters=filters)


@contextlib.contextmanager
def table_errors(path: Path, advice: str = "`workbench verify` checks it") -> Iterator[None]:
    """Turn errors in reading a table into a one-line `CorruptError` that names its file and ends in the next move."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        raise CorruptError(f"cannot read {path}: {reason}; {advice}") from error


def sha256_file(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


class FileSum(TypedDict):
    """Checksum and size of a file, as in a manifest."""

    sha256: str
    bytes: int


def file_entry(path: Path) -> FileSum:
    return {"sha256": sha256_file(path), "bytes": path.stat().st_size}


def hash_json(value: object) -> str:
    return hashlib.sha256(dump_json(value).encode()).hexdigest()


def dump_json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=_plain, allow_nan=False)


def _plain(value: Any) -> object:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")


def read_npy(path: Path) -> np.ndarray:
    """Return the array of integers or floats in a `.npy` file.

    Raises `CorruptError` on any other content; pickled objects are not loaded.
    """
    try:
        array = np.load(path, allow_pickle=False)
    # headers are Python literals; a false one may ask for any memory
    except (ValueError, OSError, EOFError, SyntaxError, TokenError, MemoryError) as error:
        raise CorruptError(f"{path} cannot be read as .npy ({error}); pickled arrays are not loaded") from None
    if not isinstance(array, np.ndarray):
        raise CorruptError(f"{path} holds several arrays (.npz), expected one; save that one with numpy.save")
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise CorruptError(f"{path} should hold numbers, found {array.dtype}")
    return array


def as_json(value: Any) -> Any:
    """Return a frozen dataclass, tensor, array or container as plain JSON values; NaN and infinity become None.

    >>> as_json({"beta": 0.125, "heads": (1, 2), "slope": float("nan")})
    {'beta': 0.125, 'heads': [1, 2], 'slope': None}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): as_json(content) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    if not isinstance(value, type) and hasattr(value, "tolist"):  # tensors, arrays, numpy's numbers
        return as_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def save_json(value: object, path: Path | str) -> None:
    """Write a value atomically as one JSON file."""
    write_json(Path(path), as_json(value))


def file_version(path: Path) -> tuple[int, ...]:
    """Return numbers that change when a file is written again. Raises `CorruptError` where it is missing."""
    if not path.is_file():
        raise CorruptError(f"{path} is missing from the artefact; `workbench verify` lists what else is")
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size
