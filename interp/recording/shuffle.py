"""Rows of a recording in a seeded order: the plan of an epoch, and its groups, read one ahead.

A seeded global shuffle over shards, in bounded memory, that can start at any batch. Shards are permuted
and taken `WINDOW_SHARDS` at a time. The contexts of a window are dealt into groups, and the rows of a group are mixed
in memory. Contexts are dealt singly, because neighbouring contexts of a recording are alike, and batches of too few
documents train a worse dictionary (`docs/log.md`). The order is planned from tokens alone, so batch 1,000 is found
without reading the activations of the 999 before it. The next group is read while the current one is used (of a live
recording only where its model does not run on the CPU that the reader needs). Memory: the rows of two groups, as stored
(150 MB of 576 bfloat16 numbers at the defaults), plus less than one batch carried over from the group before.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from interp.seeds import make_generator


class Shards(Protocol):
    """Rows in shards, as far as a shuffle reads them; a `Recording` has these members."""

    shard_rows: list[int]
    context_length: int

    @property
    def n_shards(self) -> int: ...
    @property
    def shard_starts(self) -> Int64[np.ndarray, " n"]: ...
    @property
    def reads_ahead(self) -> bool: ...

    def real_rows(self, shard: int, split: str = "all", heldout_fraction: float = 0.1) -> Int64[Tensor, " n"]:
        """Return the local rows of the real tokens of a split."""
        ...

    def room(self, hook_points: list[str], n: int) -> dict[str, Float[Tensor, "{n} _"]]:
        """Allocate `[n, d]` by hook point."""
        ...

    def read_local(
        self, hook_points: list[str], shard: int, local: Int64[Tensor, " n"], out: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Read rows of a shard, into `out` where it is there."""
        ...


class Batch(NamedTuple):
    """Rows in the order drawn."""

    activations: dict[str, Float[Tensor, "n d"]]
    """hook point -> `[n, d]` in the requested dtype"""
    rows: Int64[Tensor, " n"]
    """`[n]` int64: global row numbers in the recording"""


WINDOW_SHARDS = 8
GROUP_ROWS = 65_536


class Group(NamedTuple):
    """Rows that are read together, and the order in which they are drawn."""

    shards: list[int]
    local_rows: list[Int64[Tensor, " n"]]
    """per shard `[n]` int64, ascending: rows of the split, of whole contexts"""
    order: Int64[Tensor, " n_group"]
    """`[sum n]`: permutation over the concatenated rows"""


def plan_epoch(
    recording: Shards, *, seed: int, epoch: int, group_rows: int, split: str, fraction: float
) -> Iterator[Group]:
    """Yield the groups of one epoch, in order."""
    generator = make_generator(seed, "shuffle", epoch)
    shards = torch.randperm(recording.n_shards, generator=generator).tolist()
    for first in range(0, len(shards), WINDOW_SHARDS):
        window = shards[first : first + WINDOW_SHARDS]
        local = [recording.real_rows(shard, split, fraction) for shard in window]
        for chosen in _deal(recording, window, local, group_rows, generator):
            yield Group(window, chosen, torch.randperm(sum(map(len, chosen)), generator=generator))


def _deal(
    recording: Shards, shards: list[int], local: list[Tensor], group_rows: int, generator: torch.Generator
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
    recording: Shards, plan: Iterator[Group], names: list[str], *, batch_size: int, skip: int, dtype: torch.dtype
) -> Iterator[Batch]:
    """Yield the batches of a plan, from batch number `skip` on.

    A remainder shorter than a batch is carried into the next group; it is read only when it is needed.
    """
    carried: Batch | None = None
    groups = _read_groups(recording, plan, names, skip * batch_size)
    for mixed, order in read_ahead(groups) if recording.reads_ahead else groups:
        for part in _cuts(order, batch_size, first=batch_size - (len(carried.rows) if carried else 0)):
            batch = _take(mixed, part, dtype)
            if carried is not None:
                batch, carried = _join(carried, batch), None
            if len(batch.rows) < batch_size:
                carried = batch
            else:
                yield batch
        del mixed  # free it before the next group but one is read
    if carried is not None:
        yield carried


def planned_rows(recording: Shards, plan: Iterator[Group], batch_size: int) -> Iterator[Int64[Tensor, " n"]]:
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
    recording: Shards, plan: Iterator[Group], names: list[str], to_skip: int
) -> Iterator[tuple[Batch, Tensor]]:
    """Yield the rows of every group with the order in which they are drawn, from row number `to_skip` on."""
    for group in plan:
        if to_skip >= len(group.order):
            to_skip -= len(group.order)
            continue
        yield _read_group(recording, group, names), group.order[to_skip:]
        to_skip = 0


def _read_group(recording: Shards, group: Group, names: list[str]) -> Batch:
    """Read the rows of a group in the order of its shards, as stored; batches are drawn from it one by one."""

    parts = list(zip(group.shards, group.local_rows, strict=True))
    rows = torch.cat([local + int(recording.shard_starts[shard]) for shard, local in parts])
    acts, start = recording.room(names, len(rows)), 0
    for shard, local in parts:
        stop = start + len(local)
        recording.read_local(names, shard, local, out={name: a[start:stop] for name, a in acts.items()})
        start = stop
    return Batch(acts, rows)


def _cuts(order: Tensor, size: int, first: int) -> Iterator[Tensor]:
    """Split `order` into pieces: the first of length `first`, then of length `size`; the last may be shorter."""
    yield order[:first]
    if len(order) > first:
        yield from order[first:].split(size)


def _take(mixed: Batch, where: Tensor, dtype: torch.dtype) -> Batch:
    return Batch({name: a[where].to(dtype) for name, a in mixed.activations.items()}, mixed.rows[where])


def _join(first: Batch, second: Batch) -> Batch:
    acts = {name: torch.cat([first.activations[name], second.activations[name]]) for name in second.activations}
    return Batch(acts, torch.cat([first.rows, second.rows]))


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
