"""A recording that keeps the text and computes the activations whenever they are read.

`record(..., live=True)` writes tokens, documents and the moments of the first shards, about a hundredth of the bytes.
Everything that reads a recording reads this one: the shuffle, the splits and a resumed run are the same, and where a
shard is read whole the numbers are the ones that would have been stored, to the bit. The price is the model's pass,
paid again in every epoch; so it is for text that is seen once, or for a disk that is too small.

Training needs activations a group of contexts at a time (`shuffle.py`), a held-out split those of some documents: only
contexts that hold a wanted row are run.
"""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.errors import MismatchError
from interp.recording.store import Recording, text_of
from interp.runtime import parse_dtype

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def open_recording(folder: str | Path, *, device: str | None = None) -> Recording:
    """The recording of a folder, live or stored. `device`: where a live one runs its model, loaded when first read."""
    recording = Recording(folder)
    return LiveRecording(folder, device=device) if recording.live else recording


class LiveRecording(Recording):
    """`Recording` whose rows come from the model."""

    def __init__(
        self, folder: str | Path, *, model: "TransformerBridge | None" = None, device: str | None = None
    ) -> None:
        """`model`: one that is loaded already; `MismatchError` when its weights are not those of the recording."""
        super().__init__(folder)
        self._device = device
        if model is not None:
            self._model = self._checked(model)

    @cached_property
    def _model(self) -> "TransformerBridge":
        from interp.models.loading import load_model

        config = self.manifest.config
        model = load_model(
            self.model, dtype=config["compute_dtype"], attention=config["attention"], device=self._device
        )
        return self._checked(model)

    def activation_shard(self, hook_point: str, shard: int, rows: slice | None = None) -> Tensor:
        """`[n_rows, d]`, computed now; with `rows` only the contexts that hold them are run."""
        local = torch.arange(self.shard_rows[shard])[rows or slice(None)]
        return self.read_local([hook_point], shard, local)[self.check_hook_point(hook_point)]

    def read_local(
        self, hook_points: list[str], shard: int, local: Tensor, out: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """See `Recording.read_local`: one pass of the model for all hook points."""
        found = self._compute(self._names(hook_points), shard, local)
        for name, place in (out or {}).items():
            place.copy_(found[name])
        return out or found

    def _compute(self, hook_points: list[str], shard: int, local: Tensor) -> dict[str, Tensor]:
        from interp.models.capture import Capture
        from interp.recording.record import compute_activations

        if not len(local):
            return self.room(hook_points, 0)
        config, length = self.manifest.config, self.context_length
        contexts = torch.div(local, length, rounding_mode="floor").unique()
        with Capture(self._model, hook_points) as capture:
            values = compute_activations(
                capture,
                text_of(shard, self.token_shard(shard), length, contexts),
                batch_size=config["batch_size"],
                dtype=parse_dtype(config["dtype"]),
            )
        whole = len(local) == len(contexts) * length and bool((local.diff() == 1).all())
        if whole:
            return values
        places = torch.searchsorted(contexts, torch.div(local, length, rounding_mode="floor")) * length + local % length
        return {name: value[places] for name, value in values.items()}

    def _checked(self, model: "TransformerBridge") -> "TransformerBridge":
        from interp.models.adapter import weight_hash

        if weight_hash(model) != self.weight_hash:
            raise MismatchError(
                f"{self.folder} belongs to {self.model!r} with other weights than the model has now; record it again"
            )
        return model
