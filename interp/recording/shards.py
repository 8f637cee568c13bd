"""One shard: its activations, checked for finiteness, as the bytes of its files, with the moments of its real rows."""

import io
from typing import NamedTuple

import torch
from torch import Tensor

from interp.errors import NonFiniteError
from interp.recording.contexts import ShardText

_ROWS_AT_ONCE = 2048


class Shard(NamedTuple):
    """A computed shard, ready to be written."""

    text: ShardText
    activations: dict[str, Tensor]
    """hook point -> `[n_rows, d]` in the storage dtype"""


class Moments(NamedTuple):
    """Running moments of rows, in float64; `m2` is the sum of squared deviations from the mean."""

    n: int
    mean: Tensor
    """`[d]`"""
    m2: Tensor
    """`[d]`"""
    norm_sum: float
    """sum of Euclidean row norms"""


def shard_name(number: int) -> str:
    """`00000`, the stem of a shard's files."""
    return f"{number:05d}"


def to_storage(values: Tensor, dtype: torch.dtype, hook_point: str, text: ShardText, first_context: int) -> Tensor:
    """`[batch, pos, ...]` -> `[batch * pos, d]` in the storage dtype, on the CPU.

    Raises `NonFiniteError` naming hook point, shard and document when a value is NaN or infinite, or becomes so.
    """
    flat = values.reshape(values.shape[0] * values.shape[1], -1).cpu()
    stored = flat.to(dtype)
    low, high = torch.aminmax(flat)
    limit = torch.finfo(dtype).max
    # one pass decides the usual case; NaN fails both comparisons
    if not (bool(low >= -limit) and bool(high <= limit)):
        finite = stored.isfinite()
        if not finite.all():
            raise _non_finite(flat, finite, dtype, hook_point, text, first_context)
    return stored


def moments(activations: Tensor, real: Tensor) -> Moments:
    """Moments of the rows `real` (bool `[n_rows]`), as stored.

    Blocks of rows are merged by Chan, Golub and LeVeque, "Updating formulae" (1979), eq. 2.1.
    """
    d = activations.shape[1]
    total = Moments(0, torch.zeros(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64), 0.0)
    for block, keep in zip(activations.split(_ROWS_AT_ONCE), real.split(_ROWS_AT_ONCE), strict=True):
        rows = block[keep].double()
        if len(rows):
            mean = rows.mean(0)
            part = Moments(len(rows), mean, (rows - mean).square().sum(0), float(rows.norm(dim=1).sum()))
            total = merge_moments(total, part)
    return total


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the two sets of rows together."""
    n = a.n + b.n
    if n == 0:
        return a
    delta = b.mean - a.mean
    mean = a.mean + delta * (b.n / n)
    return Moments(n, mean, a.m2 + b.m2 + delta.square() * (a.n * b.n / n), a.norm_sum + b.norm_sum)


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
    found = moments(activations, torch.from_numpy(shard.text.document.reshape(-1) >= 0))
    tensors = {
        "activations": activations,
        "mean": found.mean,
        "m2": found.m2,
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
