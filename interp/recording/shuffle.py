"""A seeded global shuffle over shards, in bounded memory, that can start anywhere.

The order is planned from shard sizes alone (no activations are read), so batch 1,000 is found without reading the 999
before it. Memory: one group of shards plus what the group before left over (less than one batch).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from interp.runtime import make_generator

if TYPE_CHECKING:
    from interp.recording.store import Batch, Recording


class Group(NamedTuple):
    """Shards read together, and the order in which their rows are drawn."""

    shards: list[int]
    local_rows: list[Tensor]
    """per shard `[n]` int64: rows of the split"""
    order: Tensor
    """`[sum n]`: permutation over the concatenated rows"""


def plan_epoch(
    recording: "Recording", *, seed: int, epoch: int, buffer_shards: int, split: str, fraction: float
) -> Iterator[Group]:
    """The groups of one epoch, in order."""
    generator = make_generator(seed, "shuffle", epoch)
    shards = torch.randperm(recording.n_shards, generator=generator).tolist()
    for first in range(0, len(shards), buffer_shards):
        group = shards[first : first + buffer_shards]
        local = [recording.real_rows(shard, split, fraction) for shard in group]
        yield Group(group, local, torch.randperm(sum(map(len, local)), generator=generator))


def read_plan(
    recording: "Recording", plan: Iterator[Group], names: list[str], *, batch_size: int, skip: int, dtype: torch.dtype
) -> Iterator["Batch"]:
    """Batches of a plan, from batch number `skip` on.

    A remainder shorter than a batch is carried into the next group; it is read only when it is needed.
    """
    from interp.recording.store import Batch

    to_skip = skip * batch_size
    carried: Batch | None = None
    for group in plan:
        n = len(group.order)
        if to_skip >= n:
            to_skip -= n
            continue
        mixed = _read_group(recording, group, names, to_skip, dtype)
        to_skip = 0
        if carried is not None:
            mixed = _join(carried, mixed)
        whole = len(mixed.rows) // batch_size * batch_size
        for start in range(0, whole, batch_size):
            yield _take(mixed, slice(start, start + batch_size))
        carried = _take(mixed, slice(whole, None))
    if carried is not None and len(carried.rows):
        yield carried


def _read_group(recording: "Recording", group: Group, names: list[str], skip: int, dtype: torch.dtype) -> "Batch":
    from interp.recording.store import Batch

    order = group.order[skip:]
    parts = [
        recording.read_local(names, shard, local) for shard, local in zip(group.shards, group.local_rows, strict=True)
    ]
    acts = {name: torch.cat([part[name] for part in parts])[order].to(dtype) for name in names}
    starts = recording.shard_starts
    rows = torch.cat([local + int(starts[s]) for s, local in zip(group.shards, group.local_rows, strict=True)])
    return Batch(acts, rows[order])


def _join(first: "Batch", second: "Batch") -> "Batch":
    from interp.recording.store import Batch

    acts = {name: torch.cat([first.activations[name], second.activations[name]]) for name in second.activations}
    return Batch(acts, torch.cat([first.rows, second.rows]))


def _take(batch: "Batch", where: slice) -> "Batch":
    from interp.recording.store import Batch

    return Batch({name: a[where] for name, a in batch.activations.items()}, batch.rows[where])
