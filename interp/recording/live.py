"""A recording that stores the text and computes activations whenever they are read.

`record(..., live=True)` writes tokens, documents and the moments of the first shards, about a hundredth of the bytes.
Every reader of recordings can read it: shuffle, splits and resumed runs are the same, and a shard that is read whole
has exactly the numbers that would have been stored. The price is a forward pass in every epoch, so it suits text that
is seen once, or a disk that is too small.

Training reads activations a group of contexts at a time, and a held-out split those of some documents; the model runs
only on contexts that hold a requested row. Ranks that train together divide the passes of a group and exchange the rows
(`read_parts`): the model runs once on each context, whatever the number of ranks.

A recording that was made with vLLM is read by vLLM, in the same version and on as many processes: it starts when rows
are first read, and ends with the recording. The next group is computed while training uses the last. Under several
ranks the first one has the engine.
"""

import contextlib
import threading
import weakref
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from interp.engines.bridge import Bridge
from interp.engines.engine import Engine
from interp.errors import MismatchError
from interp.models.adapter import weight_hash
from interp.models.hooked import HookedModel
from interp.names import canonical_hook_point
from interp.ranks import ALONE, Ranks
from interp.recording.recorded import RecordedText
from interp.recording.store import Recording, text_of


def open_recording(folder: str | Path, *, device: str | None = None) -> Recording:
    """Open the recording of a folder, live or stored.

    Args:
        folder: that of the recording.
        device: where a live one loads its model when it is first read.
    Returns: the recording; its activations are read when they are asked for.
    Raises:
        MissingError: no recording is there.
        CorruptError: another kind, or a manifest that was edited.

    >>> open_recording(folder / "recording").hook_points[0]
    'blocks.0.hook_resid_post'
    """
    recording = Recording(folder)
    return LiveRecording(folder, device=device) if recording.live else recording


class LiveRecording(Recording):
    """`Recording` whose rows come from the model."""

    def __init__(
        self,
        folder: str | Path,
        *,
        model: HookedModel | None = None,
        device: str | None = None,
        widths: dict[str, int] | None = None,
    ) -> None:
        """Use `model` if given; raises `MismatchError` when its weights are not those of the recording.

        `widths` are hook points of the model to be read in place of the recorded ones, each with its width.
        """
        super().__init__(folder)
        self._device, self._widths, self._one_at_a_time = device, widths, threading.Lock()
        self._in_vllm = model is None and self._text.engine.startswith("vllm ")
        if model is not None:
            self._model = self._checked(model)

    def check_hook_point(self, hook_point: str) -> str:
        """Return the canonical name. Raises `UnknownNameError` for one that is not read."""
        name = canonical_hook_point(hook_point)
        return name if self._widths and name in self._widths else super().check_hook_point(name)

    def d(self, hook_point: str) -> int:
        """Return the width of the activations at a hook point."""
        name = self.check_hook_point(hook_point)
        return self._widths[name] if self._widths and name in self._widths else super().d(name)

    @cached_property
    def _model(self) -> HookedModel:
        from interp.models.loading import load_model

        text = self._text
        model = load_model(self.model, dtype=text.compute_dtype, attention=text.attention, device=self._device)
        return self._checked(model)

    @cached_property
    def _engine(self) -> Engine:
        """The program that computes the rows: the one that the recording names, or the given model."""
        if not self._in_vllm:
            return Bridge(self._model)
        from interp.engines.vllm import ranks_of, start_vllm

        with contextlib.ExitStack() as stack:
            about = self._text.engine
            engine = stack.enter_context(
                start_vllm(self.model, ranks=ranks_of(about), dtype=self._text.compute_dtype, n_ctx=self.context_length)
            )
            if (engine.about, engine.weight_hash) != (about, self.weight_hash):
                raise MismatchError(
                    f"{self.folder} was recorded with {about}, here is {engine.about}; or its model has other weights "
                    "now; record it again"
                )
            weakref.finalize(self, stack.pop_all().close)
        return engine

    @property
    def _text(self) -> RecordedText:
        return self.artefact.settings.text_read

    def reads_ahead(self, ranks: Ranks = ALONE) -> bool:
        """Return True when the model is not on the CPU; there its pass and the step would only slow each other down.

        False for several ranks, whose exchanges in the reader and in the step must have one order.
        """
        return ranks.world == 1 and (self._in_vllm or str(self._model.cfg.device) != "cpu")

    @property
    def loaded_model(self) -> HookedModel:
        """The model, which is loaded when first needed."""
        return self._model

    def activation_shard(self, hook_point: str, shard: int, rows: slice | None = None) -> Tensor:
        """Compute activations `[n_rows, d]`; with `rows` the model runs only on the contexts that hold them."""
        local = torch.arange(self.shard_rows[shard])[rows or slice(None)]
        return self.read_local([hook_point], shard, local)[self.check_hook_point(hook_point)]

    def read_local(
        self, hook_points: list[str], shard: int, local: Tensor, out: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Compute chosen rows in one pass of the model for all hook points; see `Recording.read_local`."""
        values = self._compute(self._names(hook_points), shard, local)
        for name, target in (out or {}).items():
            target.copy_(values[name])
        return out or values

    def read_parts(self, parts: list[tuple[int, Tensor]], out: dict[str, Tensor], ranks: Ranks = ALONE) -> None:
        """Compute chosen rows of several shards; see `Recording.read_parts`.

        Each rank takes whole passes of the model, the same as one process would run, so the rows are the same bits.
        """
        starts, at = self._first_rows(parts, ranks.world), 0
        with ranks.checked():
            for shard, local in parts:
                low, high = (min(max(n - at, 0), len(local)) for n in starts[ranks.rank : ranks.rank + 2])
                mine = {name: a[at + low : at + high] for name, a in out.items()}
                self.read_local(list(out), shard, local[low:high], out=mine)
                at += len(local)
        for rows in out.values():
            ranks.fill(rows[:at], starts)

    def _first_rows(self, parts: list[tuple[int, Tensor]], world: int) -> list[int]:
        """Return the first row of every rank's passes, and the number of rows."""
        if self._in_vllm:
            return [0] + [sum(len(local) for _, local in parts)] * world
        passes, at = [], 0
        for _, local in parts:
            _, n_rows = torch.unique_consecutive(local // self.context_length, return_counts=True)
            first = at + n_rows.cumsum(0) - n_rows
            passes += first[:: self._text.batch_size].tolist()
            at += len(local)
        return [passes[len(passes) * rank // world] if passes else 0 for rank in range(world)] + [at]

    def _compute(self, hook_points: list[str], shard: int, local: Tensor) -> dict[str, Tensor]:
        from interp.recording.record import batch_size_of, compute_activations

        if not len(local):
            return self.room(hook_points, 0)
        length = self.context_length
        contexts = torch.div(local, length, rounding_mode="floor").unique()
        with self._one_at_a_time, self._engine.reading(hook_points) as reader:
            values = compute_activations(
                reader,
                text_of(shard, self.token_shard(shard), length, contexts),
                batch_size=batch_size_of(self._engine, self._text),
                dtype=self.row_dtype,
            )
        whole = len(local) == len(contexts) * length and bool((local.diff() == 1).all())
        if whole:
            return values
        computed = (
            torch.searchsorted(contexts, torch.div(local, length, rounding_mode="floor")) * length + local % length
        )
        return {name: value[computed] for name, value in values.items()}

    def _checked(self, model: HookedModel) -> HookedModel:
        if weight_hash(model) != self.weight_hash:
            raise MismatchError(
                f"{self.folder} belongs to {self.model!r} with other weights than the model has now; record it again"
            )
        return model
