"""Several processes on one task, as started by `torchrun`. Torch-free until there is more than one.

A single process is the case of world size 1, in which every operation returns its input: there is one code path. Two
rules keep ranks together:

- what may fail on one rank alone (reading, checking, opening a folder) happens inside `checked`: the failure of one
  ends all, with one message;
- a rank that is gone (killed, out of memory) is noticed by the next exchange of numbers, which raises `LostRankError`:
  at once where its connection closed, after `TIMEOUT` where it hangs.

What `torchrun` puts into the environment is read in `join` and `refuse_ranks`, and nowhere else.
"""

import contextlib
import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from interp.artifacts import Draft
from interp.errors import ConfigError, LostRankError, OtherRankError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup

TIMEOUT = timedelta(minutes=10)
"""Longest wait for another rank inside an exchange: longer than a checkpoint takes to write."""

PATIENCE = timedelta(days=7)
"""Longest wait of the other ranks while the first finishes an artefact."""

_MESSAGE_BYTES = 1024


@dataclass(frozen=True)
class Ranks:
    """Rank and world size of this process, and exchanges between ranks."""

    rank: int = 0
    world: int = 1
    local: int = 0
    """rank within this machine: the number of its GPU"""
    group: "ProcessGroup | None" = field(default=None, repr=False, compare=False)
    """process group for CPU tensors, where the default group is for GPU memory; None: the default serves both"""

    @property
    def first(self) -> bool:
        """True for the rank that writes files that are written once."""
        return self.rank == 0

    def device(self, name: str | None = None) -> str | None:
        """Return the requested device; for none or plain `cuda` on a machine with GPUs, this rank's own GPU."""
        import torch

        from interp.devices import pick_device

        if self.world == 1 or name not in (None, "cuda") or not torch.cuda.is_available():
            return name
        if name is None and pick_device() == "cpu":  # the GPU does not give the numbers of the CPU
            return "cpu"
        return f"cuda:{self.local}"

    def share(self, n: int, what: str) -> slice:
        """Return this rank's equal slice of `n` items. Raises `ConfigError` when they cannot be divided evenly."""
        share, left = divmod(n, self.world)
        if left:
            near = share * self.world or self.world
            raise ConfigError(f"{what} must divide over {self.world} ranks, got {n:,}; {near:,} would, for example")
        return slice(self.rank * share, (self.rank + 1) * share)

    def add(self, *tensors: "Tensor") -> "Tensor":
        """Replace each tensor, in place, by its sum over ranks, the same bits on all; returns the first."""
        if self.world > 1:
            import torch.distributed as dist

            with self.in_touch():
                sums = [dist.all_reduce(t, group=self._group(t), async_op=True) for t in tensors]
                for work in sums:
                    work.wait()  # type: ignore[union-attr]
        return tensors[0]

    def total(self, number: float) -> float:
        """Return the sum of the ranks' numbers."""
        return sum(self._numbers(number))

    def least(self, number: float) -> float:
        """Return the smallest of the ranks' numbers."""
        return min(self._numbers(number))

    def gather(self, tensor: "Tensor") -> "list[Tensor]":
        """Return every rank's tensor, in order of rank; all have the same shape."""
        if self.world == 1:
            return [tensor]
        import torch
        import torch.distributed as dist

        parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(self.world)]
        with self.in_touch():
            dist.all_gather(parts, tensor.contiguous(), group=self._group(tensor))
        return parts

    def fill(self, whole: "Tensor", starts: Sequence[int]) -> None:
        """Fill in, in place, the rows of a CPU tensor that other ranks have; rank `r` has those from `starts[r]` to
        `starts[r + 1]`. Any dtype: bytes are sent.
        """
        if self.world == 1 or not whole.numel():
            return
        import torch
        import torch.distributed as dist

        flat = whole.view(len(whole), -1).view(torch.uint8)
        parts = [(rank, flat[starts[rank] : starts[rank + 1]]) for rank in range(self.world)]
        with self.in_touch():
            sent = [dist.broadcast(part, rank, self.group, async_op=True) for rank, part in parts if len(part)]
            for work in sent:
                work.wait()  # type: ignore[union-attr]

    def first_bytes(self, mine: bytes) -> bytes:
        """Return the bytes of the first rank, on every rank."""
        if self.world == 1:
            return mine
        import torch
        import torch.distributed as dist

        with self.in_touch():
            size = torch.tensor([len(mine)])
            dist.broadcast(size, 0, group=self.group)
            content = torch.empty(int(size), dtype=torch.uint8)
            if self.first:
                content = torch.frombuffer(bytearray(mine), dtype=torch.uint8)
            dist.broadcast(content, 0, group=self.group)
        return content.numpy().tobytes()

    def collect(self, tensor: "Tensor") -> "Tensor":
        """Concatenate the ranks' rows on the CPU of the first rank. All ranks have the same number; the others get
        their own rows back.
        """
        if self.world == 1:
            return tensor
        import torch
        import torch.distributed as dist

        rows = tensor.cpu().contiguous()
        if not self.first:
            with self.in_touch():
                dist.send(rows, 0, group=self.group)
            return tensor
        whole = torch.empty(self.world * len(rows), *rows.shape[1:], dtype=rows.dtype)
        parts = whole.split(len(rows))
        parts[0].copy_(rows)
        with self.in_touch():
            for rank in range(1, self.world):
                dist.recv(parts[rank], rank, group=self.group)
        return whole

    def wait(self) -> None:
        """Wait for every rank, without time limit."""
        if self.world > 1:
            import torch.distributed as dist

            with self.in_touch():
                dist.monitored_barrier(group=self.group, timeout=PATIENCE)

    @contextlib.contextmanager
    def checked(self, *, patient: bool = False) -> Iterator[None]:
        """Run a block that all ranks leave together: normally, or by an exception.

        The lowest rank that failed raises its own exception, the others `OtherRankError`. Blocks may be nested; a
        failure is reported once. `patient`: wait for the others without limit.
        """
        if self.world == 1:
            yield
            return
        try:
            yield
        except (LostRankError, OtherRankError):
            raise  # the others have been notified, or cannot be reached
        except BaseException as error:
            if getattr(error, "reported", False):
                raise
            self._tell(error, patient=patient)
        else:
            self._tell(None, patient=patient)

    def common(self, error: Exception) -> Exception:
        """Return the exception to raise where every rank has found the same error: it is reported once."""
        if self.first:
            error.reported = True  # type: ignore[attr-defined]
            return error
        return OtherRankError(f"rank 0 stopped: {error}")

    def _tell(self, error: BaseException | None, *, patient: bool) -> None:
        """Report to the others how a checked block ended; raises when any of them failed."""
        if patient:
            self.wait()
        failed = self._numbers(float(error is not None))
        if not any(failed):
            return
        first = failed.index(1.0)
        messages = self._messages("" if error is None else f"{type(error).__name__}: {error}")
        if error is not None and self.rank == first:
            error.reported = True  # type: ignore[attr-defined]
            raise error
        raise OtherRankError(f"rank {first} stopped: {messages[first]}") from error

    def _group(self, tensor: "Tensor") -> "ProcessGroup | None":
        return None if tensor.is_cuda else self.group

    def _numbers(self, number: float) -> list[float]:
        """Return every rank's number."""
        if self.world == 1:
            return [number]
        import torch

        return [float(value) for value in self.gather(torch.tensor([number], dtype=torch.float64))]

    def _messages(self, text: str) -> list[str]:
        import torch

        content = text.encode()[:_MESSAGE_BYTES].ljust(_MESSAGE_BYTES, b"\0")
        parts = self.gather(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        return [bytes(part.numpy()).rstrip(b"\0").decode(errors="replace") for part in parts]

    @contextlib.contextmanager
    def in_touch(self) -> Iterator[None]:
        """Raise `LostRankError` where an exchange between ranks fails within the block."""
        try:
            yield
        except RuntimeError as error:  # torch has no narrower class for a closed connection
            if type(error).__name__ == "OutOfMemoryError" or isinstance(error, NotImplementedError):
                raise
            stay_for_the_end()
            raise LostRankError(
                f"rank {self.rank} of {self.world} lost another rank ({_reason(error)}); what was written is kept, and "
                "the same torchrun command resumes it"
            ) from error


ALONE = Ranks()


@contextlib.contextmanager
def join(timeout: timedelta = TIMEOUT) -> Iterator[Ranks]:
    """Join the ranks that `torchrun` started; `ALONE` without it.

    Numbers on the CPU are exchanged over gloo, those on a GPU over NCCL. Blocks may be nested. When `torchrun` has
    lost a rank it ends the others by SIGTERM: inside the block that is a `KeyboardInterrupt`, so that a checkpoint is
    written.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    import torch
    import torch.distributed as dist
    import torch.distributed.nn.functional

    # Imported before there is a group, because its default arguments are the group there is at that moment: imported
    # later (transformers does so) it keeps gloo's threads alive after `destroy_process_group`, and one that still held
    # a tensor when the interpreter ended would abort the process.
    ranks = Ranks(int(os.environ["RANK"]), world, int(os.environ.get("LOCAL_RANK", "0")))
    cuda, outer = torch.cuda.is_available(), dist.is_initialized()
    if cuda:
        torch.cuda.set_device(ranks.local)
    with ranks.in_touch():
        if not outer:
            dist.init_process_group("nccl" if cuda else "gloo", timeout=timeout)
        if cuda:
            ranks = replace(ranks, group=dist.new_group(backend="gloo", timeout=timeout))
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield ranks
    finally:
        restore({signal.SIGTERM: before})
        if not outer:
            dist.destroy_process_group()


def refuse_ranks() -> None:
    """Raise `ConfigError` in the first of several processes, and end the others: for work that one process does."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if os.environ.get("RANK", "0") != "0":
            raise SystemExit(ConfigError.exit_code)
        raise ConfigError("processes share a model in `record` alone; leave torchrun out")


def stay_for_the_end() -> None:
    """Ignore SIGTERM from now on: `torchrun` sends it to remaining ranks, and this one is already ending. It would
    interrupt the last checkpoint, or replace the message.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def restore(handlers: Mapping[signal.Signals, "signal._HANDLER"]) -> None:
    """Restore signal handlers, except for a SIGTERM that is ignored since another rank was lost."""
    for number, handler in handlers.items():
        if number != signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def open_draft(
    ranks: Ranks, folder: Path, *, kind: str, config: Mapping[str, object], seed: int | None, overwrite: bool
) -> Draft:
    """Open a draft on the first rank; the others get a view of it that writes nothing.

    Every rank must see the same file system.
    """
    with ranks.checked():
        if ranks.first:
            return Draft.open(folder, kind=kind, config=config, seed=seed, overwrite=overwrite)
    return Draft(folder, kind, config, seed, None)


def _reason(error: RuntimeError) -> str:
    """Return the first sentence of torch's message, without the location in its source."""
    text = re.sub(r"^\[[^]]*\]\s*", "", str(error).strip())
    return text.split(". ")[0].splitlines()[0] if text else type(error).__name__


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
