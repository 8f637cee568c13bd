"""Exact resume: everything a run needs to go on as if it had not stopped, in one file written atomically.

The file holds the weights, Adam's moments, the firing counters, the step and the data position. The generators need no
state: initial weights are drawn once, and the order of epoch `e` is a function of `(seed, e)`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from interp.artifacts import atomic_file
from interp.errors import CorruptError
from saes.batches import Position
from saes.kernels.state import TrainState

FILE = "checkpoint/state.safetensors"


@dataclass
class Checkpoint:
    """Where a run stands."""

    state: TrainState
    position: Position
    seconds: float
    """Time spent training so far."""


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint."""
    numbers = {
        "step": checkpoint.state.step,
        "epoch": checkpoint.position.epoch,
        "batch": checkpoint.position.batch,
        "seconds": checkpoint.seconds,
    }
    tensors = {name: tensor.contiguous().cpu() for name, tensor in checkpoint.state.tensors().items()}
    with atomic_file(folder / FILE) as temporary:
        save_file(tensors, temporary, metadata={"numbers": json.dumps(numbers)})


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The folder's checkpoint; None before the first. Raises `CorruptError` when it cannot be read."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(str(path), framework="pt") as handle:
            numbers = json.loads(handle.metadata()["numbers"])
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
        state = TrainState.from_tensors(tensors, numbers["step"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{path} cannot be read ({error}); start over with --overwrite") from None
    return Checkpoint(state, Position(numbers["epoch"], numbers["batch"]), numbers["seconds"])
