"""Training batches from a recording, over as many epochs as the run takes, from any position.

Each epoch has its own order, drawn from `(seed, epoch)` alone, so a position is two numbers and nothing else needs
saving. What is left at the end of an epoch, less than one batch, is not used in that epoch.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from interp.errors import ConfigError, NonFiniteError
from interp.recording.store import Recording
from saes.source import Source


class Position(NamedTuple):
    """The next batch to read."""

    epoch: int = 0
    batch: int = 0


class TrainingBatch(NamedTuple):
    """One batch and where the next one is."""

    x: Tensor
    """`[n, d_in]` float32, as recorded"""
    target: Tensor | None
    """`[n, d_out]`; None: `x` itself"""
    next: Position


def training_batches(
    source: Source,
    *,
    batch_size: int,
    heldout_fraction: float,
    seed: int,
    start: Position = Position(),  # noqa: B008 (immutable)
    part: slice = slice(None),
) -> Iterator[TrainingBatch]:
    """Full batches of training rows, without end; of each batch the rows `part`, where ranks share it.

    Raises `ConfigError` when the recording has less than one batch, `NonFiniteError` (naming row and hook point) on NaN
    or infinity.
    """
    epoch, first = start
    while True:
        read = 0
        batches = source.shuffled(
            batch_size=batch_size, seed=seed, epoch=epoch, skip=first, heldout_fraction=heldout_fraction
        )
        for batch in batches:
            if len(batch.x) < batch_size:
                break
            x, rows, target = batch.x[part], batch.rows[part], batch.target
            check_finite(x, rows, ", ".join(place.hook_point for place in source.inputs))
            if target is not None:
                target = target[part]
                check_finite(target, rows, source.outputs[0].hook_point)
            read += 1
            yield TrainingBatch(x, target, Position(epoch, first + read))
        if first + read == 0:
            raise ConfigError(
                f"{source.recording.folder} has fewer than {batch_size:,} training tokens, which is one batch; "
                "record more tokens or lower batch_size"
            )
        epoch, first = epoch + 1, 0


def check_finite(x: Tensor, rows: Tensor, hook_point: str) -> None:
    """Raise `NonFiniteError` naming the first bad row of `x [n, d]`, whose global numbers are `rows [n]`."""
    if torch.isfinite(x.sum()):  # NaN and infinity survive a sum: one pass, no copy
        return
    bad = (~torch.isfinite(x)).any(1)
    if bad.any():
        row = int(rows[bad].min())
        raise NonFiniteError(
            f"activations must be finite; row {row} at {hook_point} is not ({int(bad.sum())} such rows in its batch); "
            "record again in float32, or check the recording with `workbench verify`"
        )


def check_stats(recording: Recording, hook_point: str) -> None:
    """Raise `NonFiniteError` naming the first bad row when the recorded mean or variance is not finite."""
    stats = recording.stats(hook_point)
    if torch.isfinite(stats.mean).all() and torch.isfinite(stats.variance).all():
        return
    for batch in recording.sequential([hook_point]):
        check_finite(batch.activations[hook_point], batch.rows, hook_point)
