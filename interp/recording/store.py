"""The recording folder: its layout, and readers in order, shuffled, by document, or around given rows.

    recordings/<name>/
      manifest.json                    model, weight hash, hook points, corpus, BOS policy, dtype, checksums
      tokens/00000.safetensors         tokens, document, position: int32 [n_rows]
      documents/00000.parquet          document (int), id, label: the documents that begin in this shard
      <hook_point>/00000.safetensors   activations [n_rows, d], and mean, m2, norm_sum (float64) of its real rows;
                                       of int8 also row_scale, column_scale (float32) and error (`rows`)
      shards.jsonl                     one line per shard: rows, real rows, documents, files (what a resumed run reads)
      <hook_point>/stats.safetensors   mean, variance: float64 [d]; mean_norm: float64 []; n: int64 []  (real rows only)

A *row* is one token of one context. Contexts have a fixed length, so row `r` is position `r % context_length` of
context `r // context_length`, and a shard has whole contexts. `document` is the running number of the document a
token came from and `position` its token index in that document; both are -1 for BOS and padding. Rows with
`document == -1` are stored (the model saw them) and skipped by every reader unless requested: they are not text, and
the norm of the BOS residual is hundreds of times that of the others.

**Shuffled** rows come in a seeded global order over shards, in bounded memory, that can start at any batch. An epoch is
planned in groups (`plan_epoch`), which are read one ahead (`read_plan`). Shards are permuted and taken `WINDOW_SHARDS`
at a time. The contexts of a window are dealt into groups, and the rows of a group are mixed in memory. Contexts are
dealt singly, because neighbouring contexts of a recording are alike, and batches of too few documents train a worse
dictionary (`docs/log.md`). The order is planned from tokens alone, so batch 1,000 is found without reading the
activations of the 999 before it. The next group is read while the current one is used (of a live recording only where
its model does not run on the CPU that the reader needs). Memory: the rows of two groups, as stored (150 MB of 576
bfloat16 numbers at the defaults; twice that of int8), plus less than one batch carried over from the group before.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int32, Int64
from torch import Tensor

from interp.artifacts import Manifest, open_artefact, read_table, verify
from interp.errors import CorruptError, UnknownNameError
from interp.names import canonical_hook_point
from interp.ranks import ALONE, Ranks
from interp.recording.recorded import Recorded
from interp.recording.rows import load_tensors, memory_dtype, read_rows
from interp.seeds import derive_seed, make_generator
from interp.text.tokens import ShardText


class RowBatch(NamedTuple):
    """Rows in the order drawn."""

    activations: dict[str, Float[Tensor, "n d"]]
    """hook point -> `[n, d]` in the requested dtype"""
    rows: Int64[Tensor, " n"]
    """`[n]` int64: global row numbers in the recording"""


WINDOW_SHARDS = 8
GROUP_ROWS = 65_536


class RowGroup(NamedTuple):
    """Rows that are read together, and the order in which they are drawn."""

    shards: list[int]
    local_rows: list[Int64[Tensor, " n"]]
    """per shard `[n]` int64, ascending: rows of the split, of whole contexts"""
    order: Int64[Tensor, " n_group"]
    """`[sum n]`: permutation over the concatenated rows"""


def plan_epoch(
    recording: "Recording", *, seed: int, epoch: int, group_rows: int, split: str, fraction: float
) -> Iterator[RowGroup]:
    """Yield the groups of one epoch, in order."""
    generator = make_generator(seed, "shuffle", epoch)
    shards = torch.randperm(recording.n_shards, generator=generator).tolist()
    for first in range(0, len(shards), WINDOW_SHARDS):
        window = shards[first : first + WINDOW_SHARDS]
        local = [recording.real_rows(shard, split, fraction) for shard in window]
        for chosen in _deal(recording, window, local, group_rows, generator):
            yield RowGroup(window, chosen, torch.randperm(sum(map(len, chosen)), generator=generator))


def _deal(
    recording: "Recording", shards: list[int], local: list[Tensor], group_rows: int, generator: torch.Generator
) -> Iterator[list[Tensor]]:
    """Deal the rows `local` of some shards into groups of about `group_rows`, each of randomly chosen contexts."""
    length = recording.context_length
    sizes = [recording.shard_rows[shard] // length for shard in shards]
    n_groups = max(1, -(-sum(sizes) * length // max(group_rows, length)))
    group_of = (torch.randperm(sum(sizes), generator=generator) * n_groups // sum(sizes)).split(sizes)
    groups = [of[rows // length] for of, rows in zip(group_of, local, strict=True)]  # of every row
    for number in range(n_groups):
        yield [rows[group == number] for rows, group in zip(local, groups, strict=True)]


def read_plan(
    recording: "Recording",
    plan: Iterator[RowGroup],
    names: list[str],
    *,
    batch_size: int,
    skip: int,
    dtype: torch.dtype,
    ranks: Ranks,
) -> Iterator["RowBatch"]:
    """Yield the batches of a plan, from batch number `skip` on.

    A remainder shorter than a batch is carried into the next group; it is read only when it is needed.
    """
    carried: RowBatch | None = None
    spare: list[dict[str, Tensor]] = []
    groups = _read_groups(recording, plan, names, skip * batch_size, ranks, spare)
    for mixed, order in read_ahead(groups) if recording.reads_ahead(ranks) else groups:
        for part in _cuts(order, batch_size, first=batch_size - (len(carried.rows) if carried else 0)):
            batch = _take(mixed, part, dtype)
            if carried is not None:
                batch, carried = _join(carried, batch), None
            if len(batch.rows) < batch_size:
                carried = batch
            else:
                yield batch
        spare.append(mixed.activations)  # batches are copies
        del mixed  # free it before the next group but one is read
    if carried is not None:
        yield carried


def planned_rows(recording: "Recording", plan: Iterator[RowGroup], batch_size: int) -> Iterator[Int64[Tensor, " n"]]:
    """Yield the row numbers of every full batch of a plan; activations are not read."""
    carried = torch.empty(0, dtype=torch.int64)
    for group in plan:
        parts = zip(group.shards, group.local_rows, strict=True)
        rows = torch.cat([local + int(recording.shard_starts[shard]) for shard, local in parts])
        carried = torch.cat([carried, rows[group.order]])
        whole = len(carried) // batch_size * batch_size
        if whole:
            yield from carried[:whole].split(batch_size)
        carried = carried[whole:]


def _read_groups(
    recording: "Recording",
    plan: Iterator[RowGroup],
    names: list[str],
    to_skip: int,
    ranks: Ranks,
    spare: list[dict[str, Tensor]],
) -> Iterator[tuple["RowBatch", Tensor]]:
    """Yield the rows of every group with the order in which they are drawn, from row number `to_skip` on.

    Rows are in the order of the group's shards, as stored. They are read into the memory of a group that was used up
    (`spare`), since the system clears each page of new memory, which takes as long as reading; so more may follow them.
    """
    for group in plan:
        if to_skip >= len(group.order):
            to_skip -= len(group.order)
            continue
        parts = list(zip(group.shards, group.local_rows, strict=True))
        rows = torch.cat([local + int(recording.shard_starts[shard]) for shard, local in parts])
        acts = spare.pop() if spare else {}
        if not acts or len(acts[names[0]]) < len(rows):
            acts = recording.room(names, len(rows) + len(rows) // 16)  # groups are of nearly the same size
        recording.read_parts(parts, acts, ranks)
        yield RowBatch(acts, rows), group.order[to_skip:]
        to_skip = 0


def _cuts(order: Tensor, size: int, first: int) -> Iterator[Tensor]:
    """Split `order` into pieces: the first of length `first`, then of length `size`; the last may be shorter."""
    yield order[:first]
    if len(order) > first:
        yield from order[first:].split(size)


def _take(mixed: "RowBatch", where: Tensor, dtype: torch.dtype) -> "RowBatch":
    acts = {name: a.index_select(0, where).to(dtype) for name, a in mixed.activations.items()}
    return RowBatch(acts, mixed.rows[where])


def _join(first: "RowBatch", second: "RowBatch") -> "RowBatch":
    acts = {name: torch.cat([first.activations[name], second.activations[name]]) for name in second.activations}
    return RowBatch(acts, torch.cat([first.rows, second.rows]))


Item = TypeVar("Item")
_END = object()


def read_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items of an iterator in order, with one more being made meanwhile.

    So one item more than before is in memory. An error of the iterator is raised where its item would have come. When
    the reader stops early, the item being made is waited for and dropped, and the iterator is closed.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        coming: Future[Item | object] = thread.submit(next, items, _END)
        try:
            while (item := coming.result()) is not _END:
                coming = thread.submit(next, items, _END)
                yield item  # pyright: ignore[reportReturnType]
        finally:
            if not coming.cancel():
                coming.exception()
            if close := getattr(items, "close", None):
                close()


Split = str  # "all", "train" or "heldout"
_READ_ROWS, _READ_GAP = 4096, 64


class TokenShard(NamedTuple):
    """The tokens of one shard, all `[n_rows]` int32."""

    tokens: Int32[Tensor, " n_rows"]
    document: Int32[Tensor, " n_rows"]
    position: Int32[Tensor, " n_rows"]


class Stats(NamedTuple):
    """Moments of the real rows of one hook point."""

    mean: Float64[Tensor, " d"]
    """`[d]` float64"""
    variance: Float64[Tensor, " d"]
    """`[d]` float64, population"""
    mean_norm: float
    """mean Euclidean norm of a row"""
    n: int


@dataclass(frozen=True)
class SourceDocument:
    """One source document of a recording."""

    document: int
    id: str
    label: str


class Recording:
    """Read-only view of a recording folder; opening it reads the manifest only."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.artefact = open_artefact(Recorded, self.folder)
        """Content and origin of the recording."""
        settings = self.artefact.settings
        self.hook_points = list(settings.hook_points)
        self.context_length, self.bos, self.dtype = settings.context_length, settings.bos, settings.dtype
        self.model, self.weight_hash = settings.model, settings.weight_hash
        self.shard_rows, self.n_rows, self.n_real = self.artefact.shard_rows, self.artefact.n_rows, self.artefact.n_real
        whole = all(rows % self.context_length == 0 for rows in self.shard_rows)
        if not whole or set(self.artefact.widths) != set(self.hook_points):
            raise CorruptError(f"{self.folder}: shards hold whole contexts of its hook points; the manifest was edited")

    def __repr__(self) -> str:
        return f"Recording({str(self.folder)!r}, {self.n_rows:,} rows of {self.model}, {', '.join(self.hook_points)})"

    @property
    def key(self) -> str:
        """Name under which children list this recording as their parent."""
        return f"recordings/{self.folder.name}"

    @property
    def manifest(self) -> Manifest:
        """The manifest, whose content hash children keep."""
        return self.artefact.about

    @property
    def live(self) -> bool:
        """True when the folder has text only, and activations are computed when they are read (`live.py`)."""
        return self.artefact.live

    @property
    def planted(self) -> bool:
        """True for planted features, which have no text and no model."""
        return self.artefact.settings.text is None

    def reads_ahead(self, ranks: Ranks = ALONE) -> bool:
        """Return True when reading takes little of what a step needs: the next group is read while one is used."""
        return True

    @property
    def row_dtype(self) -> torch.dtype:
        """Dtype of rows as they are read: that in which they are stored, or float32 for int8."""
        return memory_dtype(self.dtype)

    @property
    def n_shards(self) -> int:
        return len(self.shard_rows)

    @cached_property
    def shard_starts(self) -> Int64[np.ndarray, " {self.n_shards}+1"]:
        """`[n_shards + 1]` first global row of each shard, and the total."""
        return np.concatenate([[0], np.cumsum(self.shard_rows)]).astype(np.int64)

    def check_hook_point(self, hook_point: str) -> str:
        """Return the canonical name. Raises `UnknownNameError` when it was not recorded."""
        name = canonical_hook_point(hook_point)
        if name not in self.hook_points:
            raise UnknownNameError("recorded hook point", hook_point, self.hook_points)
        return name

    def d(self, hook_point: str) -> int:
        """Return the width of the activations at a hook point."""
        return self.artefact.widths[self.check_hook_point(hook_point)]

    def stats(self, hook_point: str) -> Stats:
        """Return mean, variance and mean norm over the real rows."""
        tensors = load_tensors(self.folder / self.check_hook_point(hook_point) / "stats.safetensors")
        return Stats(tensors["mean"], tensors["variance"], float(tensors["mean_norm"]), int(tensors["n"]))

    def token_shard(self, shard: int) -> TokenShard:
        """Return tokens, documents and positions of one shard."""
        path = self.folder / "tokens" / f"{shard:05d}.safetensors"
        tensors = load_tensors(path, list(TokenShard._fields))
        if any(tuple(tensor.shape) != (self.shard_rows[shard],) for tensor in tensors.values()):
            raise CorruptError(f"{path} should hold {self.shard_rows[shard]:,} rows; `workbench verify` checks it")
        return TokenShard(**tensors)

    def activation_shard(self, hook_point: str, shard: int, rows: slice | None = None) -> Float[Tensor, "n_rows d"]:
        """Return activations `[n_rows, d]` as stored (int8 as float32); with `rows` only that range is read."""
        return read_rows(_file_of(self, hook_point, shard), self.shard_rows[shard], rows)

    def read_local(
        self,
        hook_points: list[str],
        shard: int,
        local: Int64[Tensor, " n"],
        out: dict[str, Float[Tensor, "n _"]] | None = None,
    ) -> dict[str, Float[Tensor, "n _"]]:
        """Return chosen rows of one shard, `[len(local), d]` by hook point, in ascending order, as stored.

        With `out` they are written there. They are read in runs, so that a whole shard is never in memory as well.
        """
        values = out or self.room(self._names(hook_points), len(local))
        for name in self._names(hook_points):
            start = 0
            for rows in _runs(local):
                span, part = slice(int(rows[0]), int(rows[-1]) + 1), values[name][start : start + len(rows)]
                read_rows(_file_of(self, name, shard), self.shard_rows[shard], span, rows - rows[0], out=part)
                start += len(rows)
        return values

    def read_parts(
        self, parts: list[tuple[int, Int64[Tensor, " _"]]], out: dict[str, Float[Tensor, "n _"]], ranks: Ranks = ALONE
    ) -> None:
        """Read chosen rows of several shards, `(shard, local rows)` one after the other; see `read_local`.

        `ranks` ask for the same parts: where rows are computed (`live`), each computes some of them and all get all.
        """
        start = 0
        for shard, local in parts:
            stop = start + len(local)
            self.read_local(list(out), shard, local, out={name: a[start:stop] for name, a in out.items()})
            start = stop

    def room(self, hook_points: list[str], n: int) -> dict[str, Float[Tensor, "{n} _"]]:
        """Allocate `[n, d]` by hook point, uninitialised, in the dtype of the rows."""
        return {name: torch.empty(n, self.d(name), dtype=self.row_dtype) for name in hook_points}

    def real_rows(self, shard: int, split: Split = "all", heldout_fraction: float = 0.1) -> Int64[Tensor, " n"]:
        """Return local row numbers of the real tokens of a split, `[n]` int64.

        The split is by document (a hash of its number): no document has tokens on both sides.
        """
        document = self.token_shard(shard).document
        keep = document >= 0
        if split != "all":
            if split not in ("train", "heldout"):
                raise UnknownNameError("split", split, ["all", "train", "heldout"])
            keep &= heldout_mask(document, heldout_fraction) == (split == "heldout")
        return keep.nonzero().squeeze(1)

    def sequential(
        self,
        hook_points: list[str] | None = None,
        *,
        batch_size: int = 4096,
        split: Split = "all",
        heldout_fraction: float = 0.1,
        dtype: torch.dtype = torch.float32,
    ) -> Iterator[RowBatch]:
        """Yield real rows in order. Batches do not cross shards, so the last of each shard may be short."""
        names = self._names(hook_points)
        for shard in range(self.n_shards):
            local = self.real_rows(shard, split, heldout_fraction)
            if not len(local):
                continue
            acts, start = self.read_local(names, shard, local), int(self.shard_starts[shard])
            for part in torch.arange(len(local)).split(batch_size):
                yield RowBatch({name: a[part].to(dtype) for name, a in acts.items()}, local[part] + start)

    def shuffled(
        self,
        hook_points: list[str] | None = None,
        *,
        batch_size: int = 4096,
        seed: int = 0,
        epoch: int = 0,
        skip: int = 0,
        group_rows: int = GROUP_ROWS,
        split: Split = "all",
        heldout_fraction: float = 0.1,
        dtype: torch.dtype = torch.float32,
        ranks: Ranks = ALONE,
    ) -> Iterator[RowBatch]:
        """Yield one epoch in a seeded global shuffle.

        Contexts from all over the recording are read in groups of about `group_rows`, which are mixed in memory. Every
        batch is full except the last. Same `(seed, epoch)`, same batches; `skip` starts at that
        batch number without reading the activations before it. All `ranks` get every row, see `read_parts`.
        """
        names = self._names(hook_points)
        plan = plan_epoch(self, seed=seed, epoch=epoch, group_rows=group_rows, split=split, fraction=heldout_fraction)
        yield from read_plan(self, plan, names, batch_size=batch_size, skip=skip, dtype=dtype, ranks=ranks)

    def documents(self) -> list[SourceDocument]:
        """Return every document of the recording, by number. Raises `CorruptError` naming the damaged file."""
        folder, documents = self.folder / "documents", []
        files = sorted(folder.glob("*.parquet"))
        if not files:
            raise CorruptError(f"{folder} holds no tables; `workbench verify` lists what is missing")
        for table in map(read_table, files):
            columns = (table[name].to_pylist() for name in ("document", "id", "label"))
            documents += [SourceDocument(*row) for row in zip(*columns, strict=True)]
        return sorted(documents, key=lambda document: document.document)

    def document_rows(self, document: int) -> Int64[Tensor, " n"]:
        """Return the global rows of one document's tokens, `[n]` int64, in reading order (random access)."""
        rows = []
        for shard in range(self.n_shards):
            documents = self.token_shard(shard).document
            hit = (documents == document).nonzero().squeeze(1)
            if len(hit):
                rows.append(hit + int(self.shard_starts[shard]))
            elif rows:
                break
        if not rows:
            raise UnknownNameError("document", str(document), [])
        return torch.cat(rows)

    def read_rows(
        self, hook_point: str, rows: Int[Tensor, " n"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "n d"]:
        """Read activations `[len(rows), d]` of any global rows; each shard is opened once."""
        shard_of = np.searchsorted(self.shard_starts, rows.numpy(), side="right") - 1
        out = torch.empty(len(rows), self.d(hook_point), dtype=dtype)
        for shard in np.unique(shard_of):
            mine = torch.from_numpy(shard_of == shard)
            local = rows[mine] - int(self.shard_starts[shard])
            low, high = int(local.min()), int(local.max()) + 1
            out[mine] = self.activation_shard(hook_point, int(shard), slice(low, high))[local - low].to(dtype)
        return out

    def contexts(
        self, *, split: Split = "all", limit: int | None = None, heldout_fraction: float = 0.1
    ) -> Int64[Tensor, "n {self.context_length}"]:
        """Return the contexts whose real tokens all belong to the split, in order: tokens `[n, context_length]` int64.

        Contexts with padding are left out; BOS is included. At most `limit` of them.
        """
        return self.contexts_and_documents(split=split, limit=limit, heldout_fraction=heldout_fraction)[0]

    def contexts_and_documents(
        self, *, split: Split = "all", limit: int | None = None, heldout_fraction: float = 0.1
    ) -> tuple[Int64[Tensor, "n pos"], Int64[Tensor, "n pos"]]:
        """Return `contexts`, and the document of each token; `[n, context_length]` int64 both, -1 for BOS."""
        parts = [torch.empty(2, 0, self.context_length, dtype=torch.int64)]
        for shard in range(self.n_shards):
            if limit is not None and sum(part.shape[1] for part in parts) >= limit:
                break
            tokens, document, _ = (t.reshape(-1, self.context_length) for t in self.token_shard(shard))
            chosen = torch.zeros(document.numel(), dtype=torch.bool)
            chosen[self.real_rows(shard, split, heldout_fraction)] = True
            real = document >= 0
            whole = (chosen.reshape(document.shape) == real).all(1) & real[:, -1]
            parts.append(torch.stack([tokens[whole], document[whole]]).long())
        tokens, documents = torch.cat(parts, dim=1)[:, :limit]
        return tokens, documents

    def verify(self) -> list[str]:
        """Return problems found by checksum, one line each, naming the file; empty when there are none."""
        return verify(self.folder)

    def _names(self, hook_points: list[str] | None) -> list[str]:
        return [self.check_hook_point(name) for name in (hook_points or self.hook_points)]


def _file_of(recording: Recording, hook_point: str, shard: int) -> Path:
    return recording.folder / recording.check_hook_point(hook_point) / f"{shard:05d}.safetensors"


def context_of(recording: Recording, row: int) -> tuple[TokenShard, int]:
    """Return the context that holds a row, and the row's position in it."""
    shard = int(np.searchsorted(recording.shard_starts, row, side="right") - 1)
    local = row - int(recording.shard_starts[shard])
    start = local - local % recording.context_length
    tokens = recording.token_shard(shard)
    stop = start + recording.context_length
    return TokenShard(*(t[start:stop] for t in tokens)), local - start


def text_of(
    number: int, columns: TokenShard, context_length: int, contexts: Int[Tensor, " n"] | None = None
) -> ShardText:
    """Return a shard's text from disk, as the model reads it: all contexts, or the chosen ones."""
    whole = (column.view(-1, context_length) for column in columns)
    return ShardText(number, *((c if contexts is None else c[contexts]).numpy() for c in whole), begins=[], last=False)


def heldout_mask(document: Int[Tensor, " n"], fraction: float) -> Bool[Tensor, " n"]:
    """Mark tokens of held-out documents, by a hash of the document number alone."""
    numbers = document.unique()
    cut = int(fraction * 2**32)
    heldout = torch.tensor([derive_seed(int(n), "heldout") % 2**32 < cut for n in numbers], dtype=torch.bool)
    return heldout[torch.searchsorted(numbers, document)]


def _runs(rows: Tensor) -> list[Tensor]:
    """Split ascending rows into runs that are read at once: `_READ_ROWS` rows at most, and across small gaps only."""
    if not len(rows):
        return []
    cut = (rows.diff() > _READ_GAP) | (rows[1:] // _READ_ROWS != rows[:-1] // _READ_ROWS)
    return list(rows.tensor_split(cut.nonzero().squeeze(1) + 1))


NO_TOKEN = -1


class Passages(NamedTuple):
    """Tokens around some rows."""

    token_ids: np.ndarray
    """`[n, before + 1 + after]` int64; `NO_TOKEN` outside the context, and from BOS or padding on"""
    document: np.ndarray
    position: np.ndarray


def read_passages(recording: Recording, rows: np.ndarray, *, before: int, after: int) -> Passages:
    """Return the tokens around each row of `rows [n]`; shards are read one by one, so memory does not grow."""
    token_ids = np.full((len(rows), before + 1 + after), NO_TOKEN, np.int64)
    document, position = np.full(len(rows), -1, np.int32), np.full(len(rows), -1, np.int32)
    shard_of = np.searchsorted(recording.shard_starts, rows, side="right") - 1
    for shard in np.unique(shard_of):
        mine = np.flatnonzero(shard_of == shard)
        tokens = recording.token_shard(int(shard))
        local = rows[mine] - recording.shard_starts[shard]
        real = tokens.document.numpy() >= 0
        token_ids[mine] = _cut(tokens.tokens.numpy(), real, local, before, after, recording.context_length)
        document[mine], position[mine] = tokens.document.numpy()[local], tokens.position.numpy()[local]
    return Passages(token_ids, document, position)


def _cut(
    tokens: np.ndarray, real: np.ndarray, local: np.ndarray, before: int, after: int, context_length: int
) -> np.ndarray:
    """Cut `[n, before + 1 + after]` tokens, with `NO_TOKEN` beyond the ends of a passage."""
    offsets = np.arange(-before, after + 1)
    place = local[:, None] + offsets
    inside = (place // context_length == local[:, None] // context_length) & (place >= 0) & (place < len(tokens))
    place = np.clip(place, 0, len(tokens) - 1)
    inside &= real[place]
    # A gap (BOS, padding) ends the passage: another text follows it.
    inside[:, before:] = np.logical_and.accumulate(inside[:, before:], axis=1)
    inside[:, : before + 1] = np.logical_and.accumulate(inside[:, before::-1], axis=1)[:, ::-1]
    return np.where(inside, tokens[place], NO_TOKEN)


def document_names(recording: Recording) -> tuple[list[str], list[str]]:
    """Return ids and labels of the documents, by document number."""
    documents = recording.documents()
    size = documents[-1].document + 1 if documents else 0
    ids, labels = [""] * size, [""] * size
    for document in documents:
        ids[document.document], labels[document.document] = document.id, document.label
    return ids, labels
