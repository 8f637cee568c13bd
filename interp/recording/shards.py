"""One shard: its activations, checked for finiteness, as the bytes of its files, with the moments of its real rows."""

import io
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.errors import NonFiniteError
from interp.recording.contexts import ShardText

_ROWS_AT_ONCE = 256  # a block in float64 stays in the processor's cache


class Shard(NamedTuple):
    """A computed shard, ready to be written."""

    text: ShardText
    activations: dict[str, Tensor]
    """hook point -> `[n_rows, d]` in the storage dtype"""


class Moments(NamedTuple):
    """Running moments of rows, in float64; `m2` is the sum of squared deviations from the mean."""

    n: int
    mean: np.ndarray
    """`[d]`"""
    m2: np.ndarray
    """`[d]`"""
    norm_sum: float
    """sum of Euclidean row norms"""


def shard_name(number: int) -> str:
    """`00000`, the stem of a shard's files."""
    return f"{number:05d}"


def store(values: Tensor, out: Tensor, hook_point: str, text: ShardText, first_context: int) -> None:
    """Write `values [batch, pos, ...]` into `out [batch * pos, d]`, which has the storage dtype.

    Raises `NonFiniteError` naming hook point, shard and document when a value is NaN or infinite, or becomes so.
    """
    flat = values.reshape(out.shape).cpu()
    out.copy_(flat)
    low, high = torch.aminmax(flat)
    limit = torch.finfo(out.dtype).max
    # one pass decides the usual case; NaN fails both comparisons
    if not (bool(low >= -limit) and bool(high <= limit)):
        finite = out.isfinite()
        if not finite.all():
            raise _non_finite(flat, finite, out.dtype, hook_point, text, first_context)


def moments(activations: Tensor, real: np.ndarray) -> Moments:
    """Moments of the rows `real` (bool `[n_rows]`) of `activations [n_rows, d]`, as stored.

    Blocks of rows are merged by Chan, Golub and LeVeque, "Updating formulae" (1979), eq. 2.1. numpy, not torch: this
    runs beside the model, and torch's small operations would wait for the threads that the model keeps busy.
    """
    d = activations.shape[1]
    total = Moments(0, np.zeros(d), np.zeros(d), 0.0)
    for first in range(0, len(activations), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        rows = as_float64(activations[part])[real[part]]
        if len(rows):
            norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))
            mean = rows.mean(0)
            rows -= mean
            total = merge_moments(
                total, Moments(len(rows), mean, np.einsum("nd,nd->d", rows, rows), float(norms.sum()))
            )
    return total


def as_float64(rows: Tensor) -> np.ndarray:
    """The same numbers in numpy, which has no bfloat16: its bits are the upper half of a float32's."""
    if rows.dtype == torch.bfloat16:
        bits = rows.view(torch.int16).numpy().view(np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).astype(np.float64)
    return rows.numpy().astype(np.float64)


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the two sets of rows together."""
    n = a.n + b.n
    if n == 0:
        return a
    delta = b.mean - a.mean
    mean = a.mean + delta * (b.n / n)
    return Moments(n, mean, a.m2 + b.m2 + delta**2 * (a.n * b.n / n), a.norm_sum + b.norm_sum)


def text_files(text: ShardText) -> dict[str, bytes]:
    """The files of a shard that need no model: tokens, and the documents that begin in it."""
    from safetensors.torch import save

    columns = {name: torch.from_numpy(getattr(text, name).reshape(-1)) for name in ("tokens", "document", "position")}
    stem = shard_name(text.number)
    return {f"tokens/{stem}.safetensors": save(columns), f"documents/{stem}.parquet": _documents_table(text)}


def activation_file(shard: Shard, hook_point: str) -> tuple[str, bytes]:
    """(relative path, bytes) of one hook point's file."""
    from safetensors.torch import save

    activations = shard.activations[hook_point]
    found = moments(activations, shard.text.document.reshape(-1) >= 0)
    tensors = {
        "activations": activations,
        "mean": torch.from_numpy(found.mean),
        "m2": torch.from_numpy(found.m2),
        "norm_sum": torch.tensor(found.norm_sum, dtype=torch.float64),
    }
    return f"{hook_point}/{shard_name(shard.text.number)}.safetensors", save(tensors)


def _documents_table(text: ShardText) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers, ids, labels = zip(*text.begins, strict=True) if text.begins else ((), (), ())
    table = pa.table(
        {
            "document": pa.array(numbers, pa.int32()),
            "id": pa.array(ids, pa.string()),
            "label": pa.array(labels, pa.string()),
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _non_finite(
    flat: Tensor, finite: Tensor, dtype: torch.dtype, hook_point: str, text: ShardText, first_context: int
) -> NonFiniteError:
    bad = (~finite).any(dim=1).nonzero().squeeze(1)
    documents = torch.from_numpy(text.document[first_context:].reshape(-1))[bad]
    # attention carries a NaN to every row of its context: a row of text says more than its BOS
    first = int((documents >= 0).int().argmax())
    row, document = int(bad[first]), int(documents[first])
    where = f"{hook_point}, shard {text.number}, " + (
        f"document {document}" if document >= 0 else "a BOS or padding row"
    )
    if flat[row].isfinite().all():
        largest = float(flat[row].abs().max())
        short = str(dtype).removeprefix("torch.")
        return NonFiniteError(
            f"{where}: {largest:.4g} does not fit into {short} (largest {torch.finfo(dtype).max:.4g}); "
            "record with --dtype bfloat16"
        )
    return NonFiniteError(
        f"{where}: the model gave NaN or infinity; check its weights, or run it in float32 (it ran in "
        f"{str(flat.dtype).removeprefix('torch.')})"
    )
