"""Exact resume: the state from which a run continues to the same bits, in files that are written atomically.

A checkpoint holds the weights, Adam's moments, the firing counters, the step and the data position. The generators need
no state: initial weights are drawn once, and the order of epoch `e` is a function of `(seed, e)`.

    checkpoint/state.safetensors            the whole state: written by one process, or the first of ranks
    checkpoint/rank-1.safetensors           the whole state, written by another rank after the first was lost
    checkpoint/00000200-1-of-2.safetensors  step 200, where ranks share the latents: each writes its own rows

A run resumes from the latest step whose files are complete. The files of a step are removed only when those of a later
step are complete, so a rank that dies while others write costs some steps, never the run. Any number of ranks, sharing
tokens or latents, can resume the checkpoint of any other number.
"""

import json
import re
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp.artifacts import atomic_file
from interp.errors import CorruptError
from saes.kernels.spread import UNSHARED, Spread
from saes.kernels.state import BY_LATENT, RunState, TrainState
from saes.training.data import Position

FOLDER = "checkpoint"
FILE = f"{FOLDER}/state.safetensors"
_PART = re.compile(r"(\d+)-(\d+)-of-(\d+)\.safetensors")


@dataclass
class Checkpoint:
    """State of a run at one step."""

    state: RunState
    position: Position
    seconds: float
    """Time spent training so far."""


def write_checkpoint(folder: Path, checkpoint: Checkpoint, spread: Spread = UNSHARED, *, alone: bool = False) -> None:
    """Replace the folder's checkpoint, together with the other ranks.

    Ranks that share the tokens hold the same state, so the first of them writes. With `alone` (another rank was lost)
    every remaining rank writes.
    """
    latents, tokens, step = spread.latents, spread.tokens, checkpoint.state.step
    if latents.world > 1:
        name = f"{FOLDER}/{step:08d}-{latents.rank}-of-{latents.world}.safetensors"
    elif tokens.first:
        name = FILE
    elif alone:
        name = f"{FOLDER}/rank-{tokens.rank}.safetensors"
    else:
        return
    numbers = {
        "step": step,
        "epoch": checkpoint.position.epoch,
        "batch": checkpoint.position.batch,
        "seconds": checkpoint.seconds,
    }
    tensors = {name: tensor.contiguous().cpu() for name, tensor in checkpoint.state.tensors().items()}
    with atomic_file(folder / name) as temporary:
        save_file(tensors, temporary, metadata={"numbers": json.dumps(numbers)})
    if spread.ranks.first:
        _remove_older(folder)


def read_checkpoint(folder: Path, spread: Spread = UNSHARED, *, kind: type[RunState] = TrainState) -> Checkpoint | None:
    """Return the folder's latest checkpoint, with this rank's share of the latents; None when there is none yet.

    `kind` is the class of its state.

    Raises `CorruptError` when it cannot be read.
    """
    by_step = _whole_sets(folder)
    if not by_step:
        return None
    paths = by_step[max(by_step)]
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(safe_open(str(path), framework="pt")) for path in paths]
            numbers = json.loads(files[0].metadata()["numbers"])
            # copies are aligned as in a run that was never interrupted: products round by alignment
            tensors = {name: _read(files, name, spread).clone() for name in files[0].keys()}  # noqa: SIM118 (not a dict)
        state = kind.from_tensors(tensors, numbers["step"])
        return Checkpoint(state, Position(numbers["epoch"], numbers["batch"]), numbers["seconds"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{paths[0]} cannot be read ({error}); start over with --overwrite") from None


def remove_checkpoint(folder: Path) -> None:
    """Remove everything that was written to resume from."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _read(files: list[safe_open], name: str, spread: Spread) -> Tensor:
    """Read one tensor; where it has a row per latent, this rank's rows only, whichever rank wrote them."""
    if name.split(".")[0] not in BY_LATENT:
        return files[0].get_tensor(name)
    slices = [file.get_slice(name) for file in files]
    n_rows = slices[0].get_shape()[0]
    mine = spread.latents.share(n_rows * len(files), "the number of latents")
    parts = []
    for number, part in enumerate(slices):
        low, high = max(mine.start - number * n_rows, 0), min(mine.stop - number * n_rows, n_rows)
        if low < high:
            parts.append(part[low:high])
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _whole_sets(folder: Path) -> dict[int, list[Path]]:
    """Map a step to the files that together hold its state. Whole states take precedence over parts."""
    by_step: dict[int, list[Path]] = {}
    parts: dict[tuple[int, int], dict[int, Path]] = {}
    for path in (folder / FOLDER).glob("*.safetensors"):
        if part := _PART.fullmatch(path.name):
            step, rank, world = map(int, part.groups())
            parts.setdefault((step, world), {})[rank] = path
        else:
            by_step[_step(path)] = [path]
    for (step, world), ranks in parts.items():
        if len(ranks) == world:
            by_step.setdefault(step, [ranks[rank] for rank in range(world)])
    return by_step


def _remove_older(folder: Path) -> None:
    """Remove files of steps before the latest complete one."""
    by_step = _whole_sets(folder)
    latest = max(by_step, default=-1)
    for path in (folder / FOLDER).glob("*.safetensors"):
        if path not in by_step.get(latest, []) and _step(path) <= latest:
            path.unlink(missing_ok=True)


def _step(path: Path) -> int:
    if part := _PART.fullmatch(path.name):
        return int(part[1])
    try:
        with safe_open(str(path), framework="pt") as handle:
            return json.loads(handle.metadata()["numbers"])["step"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{path} cannot be read ({error}); start over with --overwrite") from None
