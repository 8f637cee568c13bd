"""Training data of a dictionary: the sites that it reads, concatenated, and the site that it reconstructs.

A site is one hook point of one recording.

    one recording, one hook point              an SAE
    one recording, a hook point and a target   a transcoder
    several hook points, or several recordings of the same tokens (of other models, say)    a crosscoder

Several recordings are read in step: their tokens are the same, so the same seed gives the same rows in the same order.

**Scale.** Training sees `input * x - shift` and reconstructs `output * y`. `fold` removes these scales from the
weights, so that a saved SAE takes raw activations. With `f' = f / unit` the same reconstruction of `y` from `x`
results from `W_enc' = W_enc * input / unit`, `b_enc' = (b_enc - shift @ W_enc) / unit`, `W_dec' = W_dec * unit /
output` and `b_dec' = b_dec / output`. An SAE has one scale for all three and no shift: `W_enc` and `W_dec` do not
change, decoder rows keep norm 1, and feature activations are in the units of the model's activations. A threshold on
`f` is divided by `unit` as well.

**Order.** Batches run over as many epochs as the run takes, and can start at any position. Each epoch has its own
order, a function of `(seed, epoch)`, so a position is two numbers and no other state is saved. The remainder of an
epoch, less than one batch, is not used in that epoch.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from math import sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor

from interp.errors import ConfigError, MismatchError, NonFiniteError
from interp.ranks import ALONE, Ranks
from interp.recording.store import GROUP_ROWS, Recording, RowBatch, Split, Stats
from saes.kernels.state import TrainState
from saes.kinds.base import RecordedSite, Scales, Weights


def input_scale(stats: Stats) -> float:
    """Return the factor that brings the mean norm of a row to `sqrt(d)`."""
    return sqrt(len(stats.mean)) / stats.mean_norm


def same_scale(scale: float, d: int) -> Scales:
    """Return the scales of an SAE that reconstructs its own input."""
    factors = torch.full((d,), scale, dtype=torch.float64)
    return Scales(factors, factors, scale)


def fold(state: TrainState, scales: Scales) -> Weights:
    """Return the weights for raw input, `W_enc` as `[d_in, d_sae]`."""
    W_enc, W_dec, b_enc = state.W_enc.T.contiguous(), state.W_dec.clone(), state.b_enc
    if scales.shift is not None:
        b_enc = b_enc - scales.shift.to(W_enc.dtype) @ W_enc
    return Weights(
        W_enc=W_enc * (scales.input / scales.unit).to(W_enc.dtype)[:, None],
        b_enc=b_enc / scales.unit,
        W_dec=W_dec * (scales.unit / scales.output).to(W_dec.dtype),
        b_dec=state.b_dec / scales.output.to(state.b_dec.dtype),
    )


class SourceRows(NamedTuple):
    """Rows of a source, in the order read."""

    x: Tensor
    """`[n, d_in]` float32, as recorded: the sites concatenated"""
    target: Tensor | None
    """`[n, d_out]`; None: `x` itself"""
    rows: Tensor
    """`[n]` global row numbers"""


class RowSource:
    """The sites that a dictionary reads and reconstructs."""

    def __init__(
        self,
        recordings: Recording | Sequence[Recording],
        hook_points: str | Sequence[str],
        *,
        target: str = "",
    ):
        """Take every hook point of every recording, recordings outermost; `target` is a hook point of the first one.

        Raises `UnknownNameError` (not recorded), `MismatchError` (recordings of different tokens).
        """
        self.recordings = [recordings] if isinstance(recordings, Recording) else list(recordings)
        names = [hook_points] if isinstance(hook_points, str) else list(hook_points)
        self.inputs = [RecordedSite(r, r.check_hook_point(name)) for r in self.recordings for name in names]
        first = self.recordings[0]
        self.target = RecordedSite(first, first.check_hook_point(target)) if target else None
        for recording in self.recordings[1:]:
            check_same_tokens(first, recording)

    n_layers = 1
    """Sources that are stacked in this one."""

    @property
    def recording(self) -> Recording:
        """The first recording; its tokens and model are reported where only one can be."""
        return self.recordings[0]

    @property
    def sites(self) -> list[RecordedSite]:
        """All sites that are read from disk."""
        return [*self.inputs, *([self.target] if self.target else [])]

    @property
    def outputs(self) -> list[RecordedSite]:
        """The sites that are reconstructed."""
        return [self.target] if self.target else self.inputs

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the sites that are encoded."""
        return tuple(site.d for site in self.inputs)

    @property
    def d_in(self) -> int:
        return sum(self.widths)

    @property
    def d_out(self) -> int:
        return sum(site.d for site in self.outputs)

    @cached_property
    def scales(self) -> Scales:
        """Factors that bring every site to mean norm `sqrt(d)`.

        Feature activations are saved in the units of the reconstruction. With several sites there is no such unit, and
        they stay in training units. The input of a transcoder is centred: gradients of all encoder rows would otherwise
        share the direction of the mean.
        """
        factors = [input_scale(site.stats) for site in self.sites]
        if len(self.inputs) == 1 and not self.target:
            return same_scale(factors[0], self.d_in)
        columns = [same_scale(s, site.d).input for s, site in zip(factors, self.sites, strict=True)]
        if self.target:
            return Scales(torch.cat(columns[:-1]), columns[-1], factors[-1], torch.cat(columns[:-1]) * self.mean)
        return Scales(torch.cat(columns), torch.cat(columns), 1.0)

    @cached_property
    def mean(self) -> Tensor:
        """Mean of the input, `[d_in]` float64."""
        return torch.cat([site.stats.mean for site in self.inputs])

    @cached_property
    def mean_out(self) -> Tensor:
        """Mean of the target, `[d_out]` float64."""
        return torch.cat([site.stats.mean for site in self.outputs])

    @cached_property
    def variances(self) -> tuple[float, ...]:
        """Variance of the scaled target of every layer, summed over coordinates.

        Losses are divided by it: outputting the mean costs 1.
        """
        variance = torch.cat([site.stats.variance for site in self.outputs])
        return (float((variance * self.scales.output**2).sum()),)

    def sequential(self, *, batch_size: int, split: Split, heldout_fraction: float) -> Iterator[SourceRows]:
        """Yield all rows of a split in order; see `Recording.sequential`."""
        together = Together([self])
        return (rows[0] for rows in together.sequential(batch_size, split=split, heldout_fraction=heldout_fraction))

    def rows(self, batches: tuple[RowBatch, ...]) -> SourceRows:
        by_recording = {id(recording): batch for recording, batch in zip(self.recordings, batches, strict=True)}
        assert all(torch.equal(batch.rows, batches[0].rows) for batch in batches[1:])

        def at(site: RecordedSite) -> Tensor:
            return by_recording[id(site.recording)].activations[site.hook_point]

        x = at(self.inputs[0]) if len(self.inputs) == 1 else torch.cat([at(site) for site in self.inputs], dim=1)
        return SourceRows(x, at(self.target) if self.target else None, batches[0].rows)


class Layers(RowSource):
    """Transcoder sources of several layers as one: `x [n, n_layers, d_in]`, `target [n, n_layers, d_out]`."""

    def __init__(self, layers: Sequence[RowSource]):
        """Raise `ConfigError` unless all layers have the same widths."""
        if len({(source.d_in, source.d_out) for source in layers}) > 1:
            raise ConfigError("all layers of a cross-layer transcoder must have the same widths")
        first = layers[0]
        self.layers, self.recordings, self.target = list(layers), first.recordings, first.target
        self.inputs = [site for source in layers for site in source.inputs]
        self.n_layers = len(self.layers)

    @property
    def sites(self) -> list[RecordedSite]:
        return [site for source in self.layers for site in source.sites]

    @property
    def outputs(self) -> list[RecordedSite]:
        return [site for source in self.layers for site in source.outputs]

    @property
    def d_in(self) -> int:
        return self.layers[0].d_in

    @property
    def d_out(self) -> int:
        return self.layers[0].d_out

    @cached_property
    def scales(self) -> Scales:
        """Factors of every layer, `[n_layers, d]`; activations have no unit of the model's that layers share."""
        scales = [source.scales for source in self.layers]
        shifts = [torch.zeros_like(scale.input) if scale.shift is None else scale.shift for scale in scales]
        stacked = (torch.stack(part) for part in ([s.input for s in scales], [s.output for s in scales], shifts))
        inner, outer, shift = stacked
        return Scales(inner, outer, 1.0, shift)

    @cached_property
    def mean_out(self) -> Tensor:
        return torch.stack([source.mean_out for source in self.layers])

    @cached_property
    def variances(self) -> tuple[float, ...]:
        return tuple(variance for source in self.layers for variance in source.variances)

    def rows(self, batches: tuple[RowBatch, ...]) -> SourceRows:
        by_layer = [source.rows(batches) for source in self.layers]
        targets = [rows.x if rows.target is None else rows.target for rows in by_layer]
        return SourceRows(torch.stack([rows.x for rows in by_layer], 1), torch.stack(targets, 1), by_layer[0].rows)


GROUP_BYTES = 1 << 30
"""Largest size of the rows that are mixed in memory, where several sources are read together."""


class Together:
    """Sources that are read in one pass over the same recordings: a live recording runs its model once for all."""

    def __init__(self, sources: Sequence[RowSource]):
        """Raise `ConfigError` unless all sources read the same recordings."""
        self.sources, self.recordings = sources, sources[0].recordings
        if any([id(r) for r in s.recordings] != [id(r) for r in self.recordings] for s in sources):
            raise ConfigError("dictionaries trained together read the same recordings; train them one by one")

    def shuffled(
        self, batch_size: int, *, seed: int, epoch: int, skip: int, fraction: float, ranks: Ranks = ALONE
    ) -> Iterator[list[SourceRows]]:
        """Yield one epoch of training rows, those of every source; see `Recording.shuffled`.

        Several sources get values as stored, which take half the memory of float32, and smaller groups are mixed.
        """
        options: dict[str, Any] = {"seed": seed, "epoch": epoch, "skip": skip, "split": "train", "ranks": ranks}
        several = sum(source.n_layers for source in self.sources) > 1
        streams = []
        for recording in self.recordings:
            names, stored = self._names(recording), recording.row_dtype
            if several:
                row = sum(recording.d(name) for name in names) * stored.itemsize
                options |= {"dtype": stored, "group_rows": min(GROUP_ROWS, max(1, GROUP_BYTES // row))}
            streams.append(recording.shuffled(names, batch_size=batch_size, heldout_fraction=fraction, **options))
        return ([source.rows(batches) for source in self.sources] for batches in zip(*streams, strict=True))

    def sequential(self, batch_size: int, *, split: Split, heldout_fraction: float) -> Iterator[list[SourceRows]]:
        """Yield all rows of a split in order, those of every source; see `Recording.sequential`."""
        options: dict[str, Any] = {"batch_size": batch_size, "split": split, "heldout_fraction": heldout_fraction}
        streams = [recording.sequential(self._names(recording), **options) for recording in self.recordings]
        return ([source.rows(batches) for source in self.sources] for batches in zip(*streams, strict=True))

    def _names(self, recording: Recording) -> list[str]:
        sites = (site for source in self.sources for site in source.sites)
        return list(dict.fromkeys(site.hook_point for site in sites if site.recording is recording))


def check_same_tokens(first: Recording, second: Recording) -> None:
    """Raise `MismatchError` unless two recordings hold the same tokens of the same documents in the same shards."""
    same = first.shard_rows == second.shard_rows and all(
        all(torch.equal(a, b) for a, b in zip(first.token_shard(s), second.token_shard(s), strict=True))
        for s in range(first.n_shards)
    )
    if not same:
        raise MismatchError(
            f"{first.folder} and {second.folder} hold different tokens; a crosscoder compares the same text: "
            "record both with the same corpus, context length, BOS policy and shard size"
        )


class Position(NamedTuple):
    """Position of the next batch to read."""

    epoch: int = 0
    batch: int = 0


class TrainingBatch(NamedTuple):
    """One batch, and the position at which the next begins."""

    x: Tensor
    """`[n, d_in]` as recorded, float32 or the dtype in which it is stored"""
    target: Tensor | None
    """`[n, d_out]`; None: `x` itself"""
    next: Position
    rows: Tensor
    """`[n]` int64: row numbers in the recording"""


def training_batches(
    sources: Sequence[RowSource],
    *,
    batch_size: int,
    heldout_fraction: float,
    seed: int,
    start: Position = Position(),  # noqa: B008 (immutable)
    part: slice = slice(None),
    ranks: Ranks = ALONE,
) -> Iterator[list[TrainingBatch]]:
    """Yield full batches of training rows, one for each source, without end.

    Of each batch only the rows `part` are given, where ranks share it. All `ranks` read together, so that a live
    recording runs its model once for all of them. Raises `ConfigError` when the recording has less
    than one batch, `NonFiniteError` (naming row and hook point) on NaN or infinity.
    """
    together, (epoch, first) = Together(sources), start
    while True:
        read = 0
        options: dict[str, Any] = {"seed": seed, "epoch": epoch, "skip": first, "ranks": ranks}
        for rows in together.shuffled(batch_size, fraction=heldout_fraction, **options):
            if len(rows[0].x) < batch_size:
                break
            read += 1
            after = Position(epoch, first + read)
            yield [_training(source, batch, part, after) for source, batch in zip(sources, rows, strict=True)]
        if first + read == 0:
            raise ConfigError(
                f"{sources[0].recording.folder} has fewer than {batch_size:,} training tokens, which is one batch; "
                "record more tokens or lower batch_size"
            )
        epoch, first = epoch + 1, 0


def _training(source: RowSource, batch: SourceRows, part: slice, after: Position) -> TrainingBatch:
    x, rows, target = batch.x[part], batch.rows[part], batch.target
    check_finite(x, rows, ", ".join(site.hook_point for site in source.inputs))
    if target is not None:
        target = target[part]
        check_finite(target, rows, ", ".join(site.hook_point for site in source.outputs))
    return TrainingBatch(x, target, after, rows)


def check_finite(x: Tensor, rows: Tensor, hook_point: str) -> None:
    """Raise `NonFiniteError` naming the first bad row of `x [n, d]`, whose global numbers are `rows [n]`."""
    if torch.isfinite(x.sum(dtype=torch.float32)):  # NaN and infinity survive a sum: one pass, no copy
        return
    bad = (~torch.isfinite(x)).flatten(1).any(1)
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
