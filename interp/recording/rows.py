"""Rows of activations in files: in a floating dtype, or as int8 codes with scales.

**int8.** A value is `code * row_scale * column_scale`. The scale of a column is the root mean square of the shard's
real rows there; that of a row is its largest value in units of these, divided by 127. So the error of a value is at
most half a step, `row_scale * column_scale / 2`. Residual streams have a few columns that are a hundred times the
others (massive activations, 2402.17762): with a scale per row alone, most values of Gemma 3 270M would become 0
(`docs/log.md`). A shard takes `d + 4` bytes a row and `4 d` more.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, cast, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int8, Int64
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp.devices import parse_dtype
from interp.errors import CorruptError, UnknownNameError
from interp.recording.recorded import StoredType

INT8: Final = "int8"
_LEVELS = 127
_FLOOR = 1e-3
"""Smallest scale of a column, as a share of the mean: one that is 0 in all real rows may not be in a BOS row."""
_DECODED_AT_ONCE = 512
_ROWS_AT_ONCE = 256  # a block in float64 stays in the processor's cache


class CodedRows(NamedTuple):
    """Rows as int8."""

    activations: Int8[Tensor, "n d"]
    row_scale: Float32[Tensor, " n"]
    column_scale: Float32[Tensor, " d"]

    def decode(self, out: Float32[Tensor, "n d"] | None = None) -> Float32[Tensor, "n d"]:
        """Return the values; with `out` they are written there."""
        values = torch.empty(self.activations.shape) if out is None else out
        parts = (t.split(_DECODED_AT_ONCE) for t in (values, self.activations, self.row_scale[:, None]))
        for value, code, scale in zip(*parts, strict=True):
            value.copy_(code).mul_(self.column_scale).mul_(scale)
        return values


def encode(rows: Float[Tensor, "n d"], real: Bool[np.ndarray, " n"]) -> CodedRows:
    """Return finite rows as int8, with columns scaled by the rows `real`.

    numpy, not torch: this runs in parallel with the model, and torch's small operations would wait for the threads that
    the model keeps busy.
    """
    x = rows.numpy()
    parts = [slice(first, first + _ROWS_AT_ONCE) for first in range(0, len(x), _ROWS_AT_ONCE)]
    squares = sum((np.square(x[part][real[part]], dtype=np.float64).sum(0) for part in parts), np.zeros(x.shape[1]))
    columns = np.sqrt(squares / max(int(real.sum()), 1))
    columns = np.maximum(columns, _FLOOR * columns.mean()).astype(np.float32)
    columns[columns == 0] = 1
    codes, scales = np.empty(x.shape, np.int8), np.empty(len(x), np.float32)
    for part in parts:
        units = x[part] / columns.astype(np.float64)
        # the smallest normal number: a row of zeros has codes 0, whatever its scale
        scales[part] = np.maximum(np.abs(units).max(1) / _LEVELS, np.finfo(np.float32).tiny)
        codes[part] = np.rint(units / scales[part, None]).clip(-_LEVELS, _LEVELS)
    return CodedRows(torch.from_numpy(codes), torch.from_numpy(scales), torch.from_numpy(columns))


def memory_dtype(stored: str) -> torch.dtype:
    """Return the dtype of rows in memory, before they are written and as they are read: float32 for int8."""
    return torch.float32 if stored == INT8 else parse_dtype(stored)


def stored_type(name: str) -> StoredType:
    """Return the full name of a dtype of stored rows. Raises `UnknownNameError`."""
    try:
        return INT8 if name == INT8 else cast("StoredType", str(parse_dtype(name)).removeprefix("torch."))
    except UnknownNameError:
        raise UnknownNameError("dtype", name, get_args(StoredType)) from None


def squared_error(rows: Float[Tensor, "n d"], stored: Float[Tensor, "n d"], real: Bool[np.ndarray, " n"]) -> float:
    """Return the sum of squared differences over the rows `real`, in float64."""
    parts = (slice(first, first + _ROWS_AT_ONCE) for first in range(0, len(rows), _ROWS_AT_ONCE))
    x, y = rows.numpy(), stored.numpy()
    return float(sum(np.square(x[p][real[p]].astype(np.float64) - y[p][real[p]]).sum() for p in parts))


def read_rows(
    path: Path,
    n_rows: int,
    span: slice | None = None,
    chosen: Int64[Tensor, " n_chosen"] | None = None,
    out: Float[Tensor, "n d"] | None = None,
) -> Float[Tensor, "n d"]:
    """Return the rows of a file as floating numbers, int8 as float32: all, a `span`, or those `chosen` of the span.

    With `out` they are written there. Raises `CorruptError` where the file does not hold `n_rows`, or cannot be read.
    """
    with open_tensors(path) as handle, reading(path):
        values = handle.get_slice("activations")
        if values.get_shape()[:1] != [n_rows]:
            raise CorruptError(f"{path} should hold {n_rows:,} rows; `workbench verify` checks it")
        stored = handle.get_tensor("activations") if span is None else values[span]
        coded = stored.dtype == torch.int8
        if chosen is not None:  # rows are copied whole, which an index `[chosen]` does four times slower
            stored = torch.index_select(stored, 0, chosen, out=None if coded else out)
        if not coded:
            return stored
        scales = handle.get_tensor("row_scale")[span or slice(None)]
        scales = scales if chosen is None else scales[chosen]
        return CodedRows(stored, scales, handle.get_tensor("column_scale")).decode(out)


def load_tensors(path: Path, names: list[str] | None = None) -> dict[str, Tensor]:
    """Load the tensors of a safetensors file, all or those named. Raises `CorruptError` naming the file."""
    with open_tensors(path) as handle, reading(path):
        return {name: handle.get_tensor(name) for name in names or handle.keys()}


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise CorruptError(f"{path} holds other tensors ({error}); `workbench verify` checks it") from None


def open_tensors(path: Path) -> safe_open:
    try:
        return safe_open(os.fspath(path), framework="pt")
    except FileNotFoundError:
        raise CorruptError(f"{path} is missing; `workbench verify` lists what else is") from None
    except (SafetensorError, OSError) as error:
        raise CorruptError(f"{path} cannot be read ({error}); it was cut short or edited: record it again") from None
