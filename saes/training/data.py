"""What a dictionary is trained on: the places it reads, side by side, and the place it is to reconstruct.

    one recording, one hook point              an SAE
    one recording, a hook point and a target   a transcoder
    several hook points, or several recordings of the same tokens (of other models, say)    a crosscoder

Recordings are read in step: the same seed gives the same rows in the same order, because their tokens are the same.

Taking the training scale back out of the weights, so that a saved SAE eats activations as the model gives them.

Training sees `input * x - shift` and reconstructs `output * y`. With `f' = f / unit` the same reconstruction of `y`
from `x` comes from `W_enc' = W_enc * input / unit`, `b_enc' = (b_enc - shift @ W_enc) / unit`,
`W_dec' = W_dec * unit / output` and `b_dec' = b_dec / output`. An SAE has one scale for all three and no shift: `W_enc`
and `W_dec` stay as they are, decoder rows keep length 1 and activations are in the units of the model's. A threshold on
`f` is divided by `unit` as well.

Training batches from a recording, over as many epochs as the run takes, from any position.

Each epoch has its own order, drawn from `(seed, epoch)` alone, so a position is two numbers and nothing else needs
saving. What is left at the end of an epoch, less than one batch, is not used in that epoch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from interp.errors import ConfigError, MismatchError, NonFiniteError
from interp.recording.store import Batch, Recording, Split, Stats
from saes.kernels.state import TrainState
from saes.kinds.base import Weights


class Scales(NamedTuple):
    """What training multiplied by."""

    input: Tensor
    """`[d_in]` float64"""
    output: Tensor
    """`[d_out]` float64"""
    unit: float
    """one unit of a saved activation in training units"""
    shift: Tensor | None = None
    """`[d_in]` float64, taken from the scaled input; None where `b_dec` is subtracted from it anyway"""


def input_scale(stats: Stats) -> float:
    """Brings the mean norm of a row to `sqrt(d)`."""
    return sqrt(len(stats.mean)) / stats.mean_norm


def same_scale(scale: float, d: int) -> Scales:
    """The scales of an SAE that reconstructs its own input."""
    each = torch.full((d,), scale, dtype=torch.float64)
    return Scales(each, each, scale)


def fold(state: TrainState, scales: Scales) -> Weights:
    """The weights for unscaled input, `W_enc` as `[d_in, d_sae]`."""
    W_enc, W_dec, b_enc = state.W_enc.T.contiguous(), state.W_dec.clone(), state.b_enc
    if scales.shift is not None:
        b_enc = b_enc - scales.shift.to(W_enc.dtype) @ W_enc
    return Weights(
        W_enc=W_enc * (scales.input / scales.unit).to(W_enc.dtype)[:, None],
        b_enc=b_enc / scales.unit,
        W_dec=W_dec * (scales.unit / scales.output).to(W_dec.dtype),
        b_dec=state.b_dec / scales.output.to(state.b_dec.dtype),
    )


@dataclass(frozen=True)
class Place:
    """One hook point of one recording."""

    recording: Recording
    hook_point: str

    @cached_property
    def stats(self) -> Stats:
        return self.recording.stats(self.hook_point)

    @property
    def d(self) -> int:
        return self.recording.d(self.hook_point)

    def __str__(self) -> str:
        return f"{self.recording.folder.name}:{self.hook_point}"


class Rows(NamedTuple):
    """Rows of a source, in the order read."""

    x: Tensor
    """`[n, d_in]` float32, as recorded: the places side by side"""
    target: Tensor | None
    """`[n, d_out]`; None: `x` itself"""
    rows: Tensor
    """`[n]` global row numbers"""


class Source:
    """The places that a dictionary reads and reconstructs."""

    def __init__(
        self,
        recordings: Recording | Sequence[Recording],
        hook_points: str | Sequence[str],
        *,
        target: str = "",
    ):
        """Every hook point of every recording, recordings outermost; `target` is a hook point of the first recording.

        Raises `UnknownNameError` (not recorded), `MismatchError` (recordings of different tokens).
        """
        self.recordings = [recordings] if isinstance(recordings, Recording) else list(recordings)
        names = [hook_points] if isinstance(hook_points, str) else list(hook_points)
        self.inputs = [Place(r, r.check_hook_point(name)) for r in self.recordings for name in names]
        first = self.recordings[0]
        self.target = Place(first, first.check_hook_point(target)) if target else None
        for other in self.recordings[1:]:
            check_same_tokens(first, other)

    @property
    def recording(self) -> Recording:
        """The first recording: the one whose tokens and model are named where only one can be."""
        return self.recordings[0]

    @property
    def places(self) -> list[Place]:
        """All that is read from disk."""
        return [*self.inputs, *([self.target] if self.target else [])]

    @property
    def outputs(self) -> list[Place]:
        """What is reconstructed."""
        return [self.target] if self.target else self.inputs

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the places that are read."""
        return tuple(place.d for place in self.inputs)

    @property
    def d_in(self) -> int:
        return sum(self.widths)

    @property
    def d_out(self) -> int:
        return sum(place.d for place in self.outputs)

    @cached_property
    def scales(self) -> Scales:
        """Every place is brought to a mean norm of `sqrt(d)` of its own.

        Activations are saved in the units of what they add up to; where several places are read there is no such unit,
        and they stay as trained. The input of a transcoder is centred: along an uncentred mean every latent's encoder
        would be pushed at once.
        """
        each = [input_scale(place.stats) for place in self.places]
        if len(self.inputs) == 1 and not self.target:
            return same_scale(each[0], self.d_in)
        columns = [same_scale(s, place.d).input for s, place in zip(each, self.places, strict=True)]
        if self.target:
            return Scales(torch.cat(columns[:-1]), columns[-1], each[-1], torch.cat(columns[:-1]) * self.mean)
        return Scales(torch.cat(columns), torch.cat(columns), 1.0)

    @cached_property
    def mean(self) -> Tensor:
        """`[d_in]` float64, of what is read"""
        return torch.cat([place.stats.mean for place in self.inputs])

    @cached_property
    def mean_out(self) -> Tensor:
        """`[d_out]` float64, of what is reconstructed"""
        return torch.cat([place.stats.mean for place in self.outputs])

    @cached_property
    def variance(self) -> float:
        """Of the scaled target, summed over its coordinates: the loss of a dictionary that outputs the mean is 1."""
        variance = torch.cat([place.stats.variance for place in self.outputs])
        return float((variance * self.scales.output**2).sum())

    def scaled(self, x: Tensor) -> Tensor:
        """What training sees of `x [n, d_in]`."""
        x = x * self.scales.input.to(x)
        return x if self.scales.shift is None else x - self.scales.shift.to(x)

    def shuffled(self, *, batch_size: int, seed: int, epoch: int, skip: int, heldout_fraction: float) -> Iterator[Rows]:
        """One epoch of training rows; see `Recording.shuffled`."""
        read = {"batch_size": batch_size, "seed": seed, "epoch": epoch, "skip": skip, "split": "train"}
        streams = [
            recording.shuffled(self._names(recording), heldout_fraction=heldout_fraction, **read)
            for recording in self.recordings
        ]
        return map(self._rows, zip(*streams, strict=True))

    def sequential(self, *, batch_size: int, split: Split, heldout_fraction: float) -> Iterator[Rows]:
        """All rows of a split in order; see `Recording.sequential`."""
        streams = [
            recording.sequential(
                self._names(recording), batch_size=batch_size, split=split, heldout_fraction=heldout_fraction
            )
            for recording in self.recordings
        ]
        return map(self._rows, zip(*streams, strict=True))

    def _names(self, recording: Recording) -> list[str]:
        return list(dict.fromkeys(place.hook_point for place in self.places if place.recording is recording))

    def _rows(self, batches: tuple[Batch, ...]) -> Rows:
        found = {id(recording): batch for recording, batch in zip(self.recordings, batches, strict=True)}
        assert all(torch.equal(batch.rows, batches[0].rows) for batch in batches[1:])

        def at(place: Place) -> Tensor:
            return found[id(place.recording)].activations[place.hook_point]

        x = at(self.inputs[0]) if len(self.inputs) == 1 else torch.cat([at(place) for place in self.inputs], dim=1)
        return Rows(x, at(self.target) if self.target else None, batches[0].rows)


def check_same_tokens(one: Recording, other: Recording) -> None:
    """Raise `MismatchError` unless two recordings hold the same tokens of the same documents in the same shards."""
    same = one.shard_rows == other.shard_rows and all(
        all(torch.equal(a, b) for a, b in zip(one.token_shard(s), other.token_shard(s), strict=True))
        for s in range(one.n_shards)
    )
    if not same:
        raise MismatchError(
            f"{one.folder} and {other.folder} hold different tokens; a crosscoder compares the same text: "
            "record both with the same corpus, context length, BOS policy and shard size"
        )


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
