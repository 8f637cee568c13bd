"""What a dictionary is trained on: the places it reads, side by side, and the place it is to reconstruct.

    one recording, one hook point              an SAE
    one recording, a hook point and a target   a transcoder
    several hook points, or several recordings of the same tokens (of other models, say)    a crosscoder

Recordings are read in step: the same seed gives the same rows in the same order, because their tokens are the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from interp.errors import MismatchError
from interp.recording.store import Batch, Recording, Split, Stats
from saes.folding import Scales, input_scale, same_scale


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
