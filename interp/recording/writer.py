"""Write shards to disk on a separate thread, and keep the log that a resumed run reads.

A shard is activations checked for finiteness, as the bytes of its files, with the moments of its real rows. It is done
when all its files are in place and its line is in `shards.jsonl`. Files of an unfinished shard are overwritten by the
same bytes when the run is resumed.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.artifacts import Draft, atomic_file, disk_errors
from interp.errors import MismatchError, NonFiniteError
from interp.ranks import ALONE, Ranks
from interp.recording.recorded import Rounding, ShardEntry, ShardFile
from interp.recording.rows import INT8, encode, load_tensors, squared_error
from interp.text.tokens import ShardText

_ROWS_AT_ONCE = 256  # a block in float64 stays in the processor's cache


class ComputedShard(NamedTuple):
    """A computed shard, ready to be written."""

    text: ShardText
    activations: dict[str, Tensor]
    """hook point -> `[n_rows, d]` in the storage dtype; float32 where that is int8"""


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
    """Return the stem of a shard's files, such as `00000`."""
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
    """Return the moments of the rows `real` (bool `[n_rows]`) of `activations [n_rows, d]`, as stored.

    Blocks of rows are merged by Chan, Golub and LeVeque, "Updating formulae" (1979), eq. 2.1. numpy, not torch: this
    runs in parallel with the model, and torch's small operations would wait for the threads that the model keeps busy.
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
    """Convert to numpy float64. numpy has no bfloat16, whose bits are the upper half of a float32's."""
    if rows.dtype == torch.bfloat16:
        bits = rows.view(torch.int16).numpy().view(np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).astype(np.float64)
    return rows.numpy().astype(np.float64)


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Return the moments of the union of two sets of rows."""
    n = a.n + b.n
    if n == 0:
        return a
    delta = b.mean - a.mean
    mean = a.mean + delta * (b.n / n)
    return Moments(n, mean, a.m2 + b.m2 + delta**2 * (a.n * b.n / n), a.norm_sum + b.norm_sum)


def text_files(text: ShardText) -> dict[str, bytes]:
    """Return the files of a shard that need no model: tokens, and the documents that begin in it."""
    from safetensors.torch import save

    columns = {name: torch.from_numpy(getattr(text, name).reshape(-1)) for name in ("tokens", "document", "position")}
    stem = shard_name(text.number)
    return {f"tokens/{stem}.safetensors": save(columns), f"documents/{stem}.parquet": _documents_table(text)}


def activation_file(shard: ComputedShard, hook_point: str, *, int8: bool = False) -> tuple[str, bytes]:
    """Return (relative path, bytes) of one hook point's file; with `int8` as codes (`rows`)."""
    from safetensors.torch import save

    activations, real = shard.activations[hook_point], shard.text.document.reshape(-1) >= 0
    stored = {"activations": activations}
    if int8:
        coded = encode(activations, real)
        decoded = coded.decode()
        error = torch.tensor(squared_error(activations, decoded, real), dtype=torch.float64)
        stored, activations = coded._asdict() | {"error": error}, decoded
    stats = moments(activations, real)
    tensors = stored | {
        "mean": torch.from_numpy(stats.mean),
        "m2": torch.from_numpy(stats.m2),
        "norm_sum": torch.tensor(stats.norm_sum, dtype=torch.float64),
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
    # attention spreads a NaN to every row of its context: a row of text is more informative than its BOS
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


LOG = "shards.jsonl"
_RANK_LOGS = "shards-*.jsonl"


class ShardLog:
    """Finished shards, one JSON object a line: `{shard, rows, real, documents, files: {path: {sha256, bytes}}}`.

    Every rank appends to its own log. The first rank joins them when a run starts, so that each shard is computed once
    whatever the former number of ranks, and when it ends.
    """

    def __init__(self, draft: Draft, ranks: Ranks = ALONE):
        self.draft, self.ranks = draft, ranks
        self.path = draft.path / (LOG if ranks.first else _RANK_LOGS.replace("*", str(ranks.rank)))
        self._elsewhere = (0, 0)
        if ranks.first and not draft.resumed:
            for stale in draft.path.glob("shards*.jsonl"):
                stale.unlink()
        self.join()
        self._before = set(self._entries)

    @property
    def entries(self) -> list[ShardEntry]:
        """Shards that this rank knows to be finished, in order."""
        return [self._entries[number] for number in sorted(self._entries)]

    def __contains__(self, number: int) -> bool:
        return number in self._entries

    @property
    def done(self) -> tuple[int, int]:
        """Numbers of (real tokens, shards) finished on all ranks, as of the last exchange."""
        tokens, shards = self._elsewhere
        return tokens + sum(entry["real"] for entry in self._entries.values()), shards + len(self._entries)

    def tell(self) -> None:
        """Report this rank's progress to the other ranks."""
        if self.ranks.world > 1:
            mine = [entry for number, entry in list(self._entries.items()) if number not in self._before]
            tokens, shards = sum(entry["real"] for entry in mine), len(mine)
            total = self.ranks.total(tokens), self.ranks.total(shards)
            self._elsewhere = int(total[0]) - tokens, int(total[1]) - shards

    def join(self) -> None:
        """Join the logs of all ranks into one, in shard order, and read its entries on every rank."""
        with self.ranks.checked():
            if self.ranks.first:
                join_logs(self.draft.path)
        whole = self.draft.path / LOG
        self._entries = {entry["shard"]: entry for entry in _whole_entries(whole)}
        self._elsewhere = (0, 0)
        for entry in self._entries.values():
            self._register(entry)
        with self.ranks.checked():
            pass  # no rank writes before all have read

    def append(self, entry: ShardEntry) -> None:
        """Add the line of a shard whose files are all in place."""
        with disk_errors(self.path), open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(entry) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        self._entries[entry["shard"]] = entry
        self._register(entry)

    def check_text(self, text: ShardText) -> None:
        """Raise `MismatchError` when a finished shard was made from other text than the corpus has now."""
        recorded = self._entries[text.number]["files"]
        for relative, content in text_files(text).items():
            if recorded[relative]["sha256"] != hashlib.sha256(content).hexdigest():
                raise MismatchError(
                    f"shard {text.number} of {self.draft.path} was recorded from other text: the corpus has changed; "
                    "--overwrite to start again, or choose another --name"
                )

    def _register(self, entry: ShardEntry) -> None:
        for relative, known in entry["files"].items():
            self.draft.add_known(relative, known["sha256"], known["bytes"])


def join_logs(folder: Path) -> None:
    """Write the complete entries of all ranks' logs into one, in shard order, and remove the ranks' own logs."""
    logs = [folder / LOG, *sorted(folder.glob(_RANK_LOGS))]
    entries = {entry["shard"]: entry for log in logs if log.exists() for entry in _whole_entries(log)}
    with atomic_file(folder / LOG) as temporary:
        temporary.write_text("".join(json.dumps(entries[n]) + "\n" for n in sorted(entries)), encoding="utf-8")
    for log in logs[1:]:
        log.unlink()


def _whole_entries(path: Path) -> list[ShardEntry]:
    """Return entries that are complete and whose files all exist in full size."""
    entries: list[ShardEntry] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError, AttributeError, OSError):
            entry: ShardEntry = json.loads(line)
            sizes = {relative: known["bytes"] for relative, known in entry["files"].items()}
            if isinstance(entry["shard"], int) and all(
                (path.parent / relative).stat().st_size == size for relative, size in sizes.items()
            ):
                entries.append(entry)
    return entries


def write_shard(draft: Draft, log: ShardLog, shard: ComputedShard) -> None:
    """Write every file of a shard, hashed in memory and written atomically, then its line in the log."""
    files: dict[str, ShardFile] = {}
    for relative, content in text_files(shard.text).items():
        files[relative] = _write(draft.path / relative, content)
    for hook_point in shard.activations:
        relative, content = activation_file(shard, hook_point, int8=draft.config.get("dtype") == INT8)
        files[relative] = _write(draft.path / relative, content)
    text = shard.text
    log.append(
        {
            "shard": text.number,
            "rows": text.n_rows,
            "real": text.n_real,
            "documents": len(text.begins),
            "files": files,
        }
    )


def _write(path: Path, content: bytes) -> ShardFile:
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def write_stats(draft: Draft, log: ShardLog, hook_points: Sequence[str]) -> dict[str, Rounding] | None:
    """Merge the shards' moments, in shard order, into `<hook point>/stats.safetensors`; return what int8 costs, if so.

    Rounding is compared with the moments of the stored rows, which it hardly moves.
    """
    costs = {}
    for name in hook_points:
        total: Moments | None = None
        for part in _shard_moments(draft, log, name):
            total = part if total is None else merge_moments(total, part)
        assert total is not None, "a corpus without text raises before this"
        save_stats(draft.path, name, total)
        if draft.config.get("dtype") == INT8:
            error = sum(float(load_tensors(path, ["error"])["error"]) for path in _shard_files(draft, log, name))
            variance = float(total.m2.sum())
            power = variance + total.n * float(np.square(total.mean).sum())
            costs[name] = Rounding(
                relative_error=math.sqrt(error / power) if power else 0.0, fvu=error / variance if variance else 0.0
            )
    return costs or None


def save_stats(folder: Path, hook_point: str, total: Moments) -> None:
    """Write `<hook point>/stats.safetensors`."""
    from safetensors.torch import save_file

    n = max(total.n, 1)
    tensors = {
        "mean": torch.from_numpy(total.mean),
        "variance": torch.from_numpy(total.m2 / n),
        "mean_norm": torch.tensor(total.norm_sum / n, dtype=torch.float64),
        "n": torch.tensor(total.n, dtype=torch.int64),
    }
    with atomic_file(folder / hook_point / "stats.safetensors") as temporary:
        save_file(tensors, temporary)


def _shard_moments(draft: Draft, log: ShardLog, hook_point: str) -> Iterator[Moments]:
    for entry, path in zip(log.entries, _shard_files(draft, log, hook_point), strict=True):
        part = load_tensors(path, ["mean", "m2", "norm_sum"])
        yield Moments(entry["real"], part["mean"].numpy(), part["m2"].numpy(), float(part["norm_sum"]))


def _shard_files(draft: Draft, log: ShardLog, hook_point: str) -> list[Path]:
    return [draft.path / hook_point / f"{shard_name(entry['shard'])}.safetensors" for entry in log.entries]


class ShardWriter:
    """Write shards on a separate thread. Leaving the `with` block waits for all of them.

    At most one shard waits while another is written, so memory does not grow when the disk is slower than the model.
    """

    def __init__(self, draft: Draft, log: ShardLog):
        self._draft, self._log = draft, log
        self._queue: queue.Queue[ComputedShard | None] = queue.Queue(maxsize=1)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="shard-writer", daemon=True)

    def __enter__(self) -> "ShardWriter":
        self._thread.start()
        return self

    def put(self, shard: ComputedShard) -> None:
        """Queue a shard. Raises the error of an earlier shard, if there was one."""
        self._raise_error()
        self._queue.put(shard)

    def __exit__(self, kind: object, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()
        if kind is None:
            self._raise_error()

    def _work(self) -> None:
        while (shard := self._queue.get()) is not None:
            if self._error is not None:
                continue  # take what comes, or the other side would wait for ever
            try:
                write_shard(self._draft, self._log, shard)
                if self._log.ranks.first:
                    tokens, shards = self._log.done
                    self._draft.update(tokens=tokens, shards=shards)
            except BaseException as error:
                self._error = error

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
