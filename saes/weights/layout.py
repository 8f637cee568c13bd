"""Tools shared by all formats of dictionaries on disk: read arrays without running code, and check them.

A `Format` knows how to recognise its files and how to read them into a `Conversion`. A conversion holds the SAE and the
source's own forward pass on the source's own arrays, written out in float64; `read.py` compares the two, so that a
transposed matrix or a forgotten bias cannot pass.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVarTuple
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp.errors import ConfigError, CorruptError, MissingError, NonFiniteError
from saes.kinds.base import SAE

Settings = TypeVarTuple("Settings")

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""`x [n, d_in]` in float64 -> (feature activations `[n, d_sae]`, reconstruction `[n, d_out]`)."""

Axes = tuple[str, ...]
MAX_SIZE = 1 << 40
"""Largest length of an axis that is accepted."""
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A dictionary read from a foreign layout."""

    sae: SAE
    forward: Forward


@dataclass(frozen=True, kw_only=True)
class Format:
    """One layout on disk."""

    name: str
    files: str
    """its files, for error messages"""
    recognises: Callable[[Path], bool]
    """recognise by names of files and keys of the config, never by values of arrays"""
    read: Callable[[Path], Conversion]


@dataclass(frozen=True)
class Arrays:
    """Named arrays of one file, and the sizes that their shapes agree on."""

    tensors: dict[str, Tensor]
    sizes: dict[str, int]

    def __getitem__(self, name: str) -> Tensor:
        """Return the array in float32, the dtype of the SAE."""
        return self.tensors[name].float()

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    @cached_property
    def double(self) -> dict[str, Tensor]:
        """All arrays in float64, for the self-check."""
        return {name: tensor.double() for name, tensor in self.tensors.items()}

    def forward(
        self, formula: Callable[[Tensor, dict[str, Tensor], *Settings], tuple[Tensor, Tensor]], *settings: *Settings
    ) -> Forward:
        """Return the forward pass `formula(x, arrays, *settings)` on the arrays in float64."""
        return lambda x: formula(x, self.double, *settings)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all arrays of a file. Raises `CorruptError` naming the file when it is missing or cannot be read."""
    with _safetensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)


def read_row(path: Path, name: str, row: int) -> Tensor:
    """Read one row of a matrix in a file. Raises `CorruptError`, also where the file has no such row."""
    with _safetensors(path) as file:
        if name not in file.keys() or not 0 <= row < file.get_slice(name).get_shape()[0]:  # noqa: SIM118
            raise CorruptError(f"{path} holds no row {row} of {name}; it was cut short: copy it again")
        return file.get_slice(name)[row]


@contextmanager
def _safetensors(path: Path) -> Iterator["safe_open"]:
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise CorruptError(f"{path} is missing, though the rest of its folder is there; copy it again") from None
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError) as error:
        raise CorruptError(f"{path} cannot be read ({first_line(error)}); it was cut short: copy it again") from None


def read_npz(path: Path) -> dict[str, Tensor]:
    """Read the arrays of a numpy archive; objects (which can hold code) are refused."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    except FileNotFoundError:
        raise MissingError(f"no file at {path}") from None
    except (ValueError, TypeError, OSError, EOFError, BadZipFile, AttributeError, KeyError, RuntimeError) as error:
        raise CorruptError(
            f"{path} is not an archive of plain arrays ({first_line(error)}); download it again"
        ) from None


def read_pt(path: Path) -> dict[str, object]:
    """Read the state dict of a `.pt` file as plain tensors: code that a pickle may hold is never run.

    Raises `CorruptError` when the file holds anything else.
    """
    if not path.exists():
        raise MissingError(f"no file at {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler can raise anything on a foreign file
        raise CorruptError(
            f"{path} does not hold plain tensors alone ({first_line(error)}); a .pt file can carry code, which is "
            "never run here: ask its maker for safetensors, or convert it where you trust it"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise CorruptError(f"{path} should hold named tensors, found {type(state).__name__}; is it a whole state dict?")
    return state


def check_arrays(
    tensors: Mapping[str, object],
    expected: Mapping[str, Axes],
    path: Path,
    *,
    optional: Mapping[str, Axes] | None = None,
    sizes: Mapping[str, object] | None = None,
    what: str = "this format",
    ignore: tuple[str, ...] = (),
) -> Arrays:
    """Return the arrays by name, with shapes, dtypes and values checked.

    `expected` and `optional` give each array's axes by name. The config (`sizes`) determines a size, else the first
    array that has the axis; all others must agree. Raises `CorruptError` (missing, unknown, wrong shape, not floats),
    `NonFiniteError`.
    """
    optional = optional or {}
    missing = [name for name in expected if name not in tensors]
    unknown = [name for name in tensors if name not in expected and name not in optional and name not in ignore]
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"holds {', '.join(unknown)} as well"
        raise CorruptError(f"{path} {problem}; {what} has {', '.join(expected)}")
    arrays: dict[str, Tensor] = {}
    bound = {axis: check_size(size, axis, path) for axis, size in (sizes or {}).items()}
    stated = set(bound)
    for name, axes in {**expected, **optional}.items():
        if name in tensors:
            arrays[name] = _check_array(name, tensors[name], axes, bound, stated, path)
    return Arrays(arrays, bound)


def _check_array(name: str, tensor: object, axes: Axes, bound: dict[str, int], stated: set[str], path: Path) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise CorruptError(f"{path}: {name} should be an array, found {type(tensor).__name__}")
    if tensor.dtype not in FLOATS:
        kinds = ", ".join(str(kind).removeprefix("torch.") for kind in FLOATS)
        raise CorruptError(f"{path}: {name} should be one of {kinds}, found {str(tensor.dtype).removeprefix('torch.')}")
    if tensor.layout != torch.strided or tensor.is_meta:
        layout = "one without numbers" if tensor.is_meta else tensor.layout
        raise CorruptError(f"{path}: {name} should be a dense array, found {layout}")
    if len(tensor.shape) == len(axes):
        for axis, size in zip(axes, tensor.shape, strict=True):
            bound.setdefault(axis, size)
    shape = [bound.get(axis, axis) for axis in axes]
    if list(tensor.shape) != shape or 0 in tensor.shape:
        where = "from the config" if stated & set(axes) else "as its other arrays have it"
        raise CorruptError(
            f"{path}: {name} should be {shape} ({' x '.join(axes) or 'one number'}, {where}), "
            f"found {list(tensor.shape)}"
        )
    check_finite(name, tensor, path)
    return tensor


def check_finite(name: str, tensor: Tensor, path: Path) -> None:
    """Raise `NonFiniteError` on NaN or infinity, or on numbers that float32 cannot hold."""
    finite = torch.isfinite(tensor.float())
    if not finite.all():
        raise NonFiniteError(
            f"{path}: {name} must be finite, {int((~finite).sum()):,} of its {tensor.numel():,} numbers are not; "
            "train it again, or download it again"
        )


def check_size(value: object, name: str, path: Path) -> int:
    """Return a whole number above 0 from a config. Raises `CorruptError`, also where no file could be that large."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIZE:
        raise CorruptError(f"{path}: {name} must be a whole number above 0, found {value!r:.80}")
    return value


def check_k(value: object, d_sae: int, path: Path) -> int:
    """Return `k` from a config or a tensor, at most `d_sae`. Raises `CorruptError`."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex() and not value.is_meta:
        number = value.item()
        value = int(number) if isinstance(number, float) and number.is_integer() else number
    k = check_size(value, "k", path)
    if k > d_sae:
        raise CorruptError(f"{path}: k = {k} active features do not fit {d_sae} features")
    return k


def section(config: Mapping[str, object], key: str, path: Path) -> dict[str, object]:
    """Return a part of a config that must be an object. Raises `CorruptError`."""
    value = config.get(key)
    if not isinstance(value, dict):
        kind = "nothing" if value is None else type(value).__name__
        raise CorruptError(f"{path}: {key} must be an object, found {kind}")
    return value


def text(config: Mapping[str, object], key: str, path: Path) -> str:
    """Return a string from a config, or "" where the key is missing.

    Raises `CorruptError` on anything else: a name of the wrong type must not count as missing.
    """
    value = config.get(key)
    if value is not None and not isinstance(value, str):
        raise CorruptError(f"{path}: {key} must be text, found {value!r:.80}")
    return value or ""


def flag(config: Mapping[str, object], key: str, path: Path, *, default: bool = False) -> bool:
    """Return a boolean from a config. Raises `CorruptError` on anything else: the word "false" would count as true."""
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CorruptError(f"{path}: {key} must be true or false, found {value!r:.80}")
    return value


def require(path: Path, names: Mapping[str, object] | set[str], *wanted: str) -> None:
    """Raise `CorruptError` when a config lacks keys."""
    missing = [key for key in wanted if key not in names]
    if missing:
        raise CorruptError(f"{path} lacks {', '.join(missing)}; it was edited, or is in another format")


def has_files(*names: str) -> Callable[[Path], bool]:
    """Return a test of a folder: are all these files in it?"""
    return lambda path: all((path / name).is_file() for name in names)


def one_file(path: Path, pattern: str) -> Path:
    """Return the file itself, or the only one of that pattern in the folder. Raises `MissingError`, `ConfigError`."""
    if path.is_file():
        return path
    files = sorted(path.glob(pattern))
    if not files:
        raise MissingError(f"no {pattern} in {path}")
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:4])
        raise ConfigError(f"{path} holds {len(files)} dictionaries ({names} ...); give the path of one")
    return files[0]


def first_line(error: BaseException) -> str:
    """Return the first line of an error, shortened for a message."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]


def as_relu_topk(pre: Tensor, k: int) -> Tensor:
    """Return TopK by sorting, as a reference: the `k` largest of each row where positive, else 0."""
    kept = torch.zeros_like(pre, dtype=torch.bool)
    kept.scatter_(-1, pre.argsort(dim=-1, descending=True)[..., :k], True)
    return torch.where(kept & (pre > 0), pre, torch.zeros_like(pre))
