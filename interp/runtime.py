"""Device, dtype, threads and seeds are decided here and nowhere else.

A seed enters at the command line, becomes `torch.Generator`s here, and leaves in the manifest.
"""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from interp.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")


def set_threads(threads: int | None) -> int:
    """Use `threads` CPU threads in torch and numba (None keeps the library's choice). Returns the number in use."""
    import torch

    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads must be at least 1, got {threads}; leave it out to use every core")
        torch.set_num_threads(threads)
        numba = sys.modules.get("numba")
        if numba is None:
            os.environ["NUMBA_NUM_THREADS"] = str(threads)  # read when numba is first imported
        else:  # numba compares the variable with its running threads at every compilation, and fails when they differ
            numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    return torch.get_num_threads()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One CPU thread in torch for the length of the block: small products only wait for each other's threads.

    On a busy machine a step of a toy model takes ten times as long with two threads as with one. The numbers do not
    depend on the machine's number of cores then, either.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pick_device(device: str | None = None) -> str:
    """The device asked for, or `cuda`, `mps`, `cpu` in that order of preference."""
    import torch

    if device is None:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind = device.split(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise UnknownNameError("device", device, ["cpu", "cuda", "mps"])
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r} was asked for but torch sees no CUDA device; use --device cpu")
    return device


def parse_dtype(name: str) -> "torch.dtype":
    """`"bfloat16"` -> `torch.bfloat16`; only the three dtypes in `DTYPES`."""
    import torch

    short = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}.get(name, name)
    if short not in DTYPES:
        raise UnknownNameError("dtype", name, DTYPES)
    return getattr(torch, short)


def make_generator(seed: int, *streams: str | int, device: str = "cpu") -> "torch.Generator":
    """A generator for one named stream of randomness.

    Streams with different names are independent, so adding a draw in one place moves no other number.
    """
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(seed, *streams))


def derive_seed(seed: int, *streams: str | int) -> int:
    """A 63-bit seed from `(seed, *streams)`; the same on every machine and Python."""
    text = "/".join(str(part) for part in (seed, *streams))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
