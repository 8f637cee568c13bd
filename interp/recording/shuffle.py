"""A seeded global shuffle over shards, in bounded memory, that can start anywhere.

Shards are permuted and taken `WINDOW_SHARDS` at a time. The contexts of a window are dealt into groups, and the rows of
a group are mixed in memory. Single contexts, not runs of them: what lies together in a recording is alike, and batches
of too few documents train a worse dictionary (`docs/log.md`).

The order is planned from tokens alone (no activations are read), so batch 1,000 is found without reading the 999 before
it. Memory: the rows of one group, as stored (75 MB of 576 bfloat16 numbers at the defaults), and less than one batch
that the group before left over.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from interp.runtime import make_generator

if TYPE_CHECKING:
    from interp.recording.store import Batch, Recording

WINDOW_SHARDS = 8
GROUP_ROWS = 65_536


class Group(NamedTuple):
    """Rows read together, and the order in which they are drawn."""

    shards: list[int]
    local_rows: list[Tensor]
    """per shard `[n]` int64, ascending: rows of the split, of whole contexts"""
    order: Tensor
    """`[sum n]`: permutation over the concatenated rows"""


def plan_epoch(
    recording: "Recording", *, seed: int, epoch: int, group_rows: int, split: str, fraction: float
) -> Iterator[Group]:
    """The groups of one epoch, in order."""
    generator = make_generator(seed, "shuffle", epoch)
    shards = torch.randperm(recording.n_shards, generator=generator).tolist()
    for first in range(0, len(shards), WINDOW_SHARDS):
        window = shards[first : first + WINDOW_SHARDS]
        local = [recording.real_rows(shard, split, fraction) for shard in window]
        for chosen in _deal(recording, window, local, group_rows, generator):
            yield Group(window, chosen, torch.randperm(sum(map(len, chosen)), generator=generator))


def _deal(
    recording: "Recording", shards: list[int], local: list[Tensor], group_rows: int, generator: torch.Generator
) -> Iterator[list[Tensor]]:
    """The rows `local` of some shards in groups of about `group_rows`, each of randomly chosen contexts."""
    length = recording.context_length
    sizes = [recording.shard_rows[shard] // length for shard in shards]
    n_groups = max(1, -(-sum(sizes) * length // max(group_rows, length)))
    group_of = (torch.randperm(sum(sizes), generator=generator) * n_groups // sum(sizes)).split(sizes)
    groups = [of[rows // length] for of, rows in zip(group_of, local, strict=True)]  # of every row
    for number in range(n_groups):
        yield [rows[group == number] for rows, group in zip(local, groups, strict=True)]


def read_plan(
    recording: "Recording", plan: Iterator[Group], names: list[str], *, batch_size: int, skip: int, dtype: torch.dtype
) -> Iterator["Batch"]:
    """Batches of a plan, from batch number `skip` on.

    A remainder shorter than a batch is carried into the next group; it is read only when it is needed.
    """
    to_skip = skip * batch_size
    carried: Batch | None = None
    for group in plan:
        n = len(group.order)
        if to_skip >= n:
            to_skip -= n
            continue
        order, to_skip = group.order[to_skip:], 0
        mixed = _read_group(recording, group, names)
        for part in _cuts(order, batch_size, first=batch_size - (len(carried.rows) if carried else 0)):
            batch = _take(mixed, part, dtype)
            if carried is not None:
                batch, carried = _join(carried, batch), None
            if len(batch.rows) < batch_size:
                carried = batch
            else:
                yield batch
        del mixed  # before the next group is read: two of them would double the memory
    if carried is not None:
        yield carried


def _read_group(recording: "Recording", group: Group, names: list[str]) -> "Batch":
    """The rows of a group in the order of its shards, as stored: batches are drawn from it and converted one by one."""
    from interp.recording.store import Batch

    places = list(zip(group.shards, group.local_rows, strict=True))
    rows = torch.cat([local + int(recording.shard_starts[shard]) for shard, local in places])
    acts, start = recording.room(names, len(rows)), 0
    for shard, local in places:
        stop = start + len(local)
        recording.read_local(names, shard, local, out={name: a[start:stop] for name, a in acts.items()})
        start = stop
    return Batch(acts, rows)


def _cuts(order: Tensor, size: int, first: int) -> Iterator[Tensor]:
    """`order` in pieces: `first` long, then `size` long; the last may be shorter."""
    yield order[:first]
    if len(order) > first:
        yield from order[first:].split(size)


def _take(mixed: "Batch", where: Tensor, dtype: torch.dtype) -> "Batch":
    from interp.recording.store import Batch

    return Batch({name: a[where].to(dtype) for name, a in mixed.activations.items()}, mixed.rows[where])


def _join(first: "Batch", second: "Batch") -> "Batch":
    from interp.recording.store import Batch

    acts = {name: torch.cat([first.activations[name], second.activations[name]]) for name in second.activations}
    return Batch(acts, torch.cat([first.rows, second.rows]))
