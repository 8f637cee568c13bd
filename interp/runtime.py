"""Device, dtype, threads and seeds are decided here and nowhere else.

A seed enters at the command line, becomes `torch.Generator`s here, and leaves in the manifest.

Blocks of work run on several threads, each block on one, so that a result does not depend on the number of threads;
compiled loops (numba) run on as many threads as torch uses. torch and numba are imported by the functions that need
them, and so are the public names of the packages (`lazily`).
"""

import contextlib
import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

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
    """Use one CPU thread in torch within the block: on small products threads mostly wait for each other.

    On a busy machine a step of a toy model takes ten times as long with two threads as with one. With one thread the
    numbers do not depend on the machine's number of cores either.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pick_device(device: str | None = None) -> str:
    """Return the requested device, or the first available of `cuda`, `mps`, `cpu`."""
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
    """Return the torch dtype of a name; only the three in `DTYPES`."""
    import torch

    short = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}.get(name, name)
    if short not in DTYPES:
        raise UnknownNameError("dtype", name, DTYPES)
    return getattr(torch, short)


def make_generator(seed: int, *streams: str | int, device: str = "cpu") -> "torch.Generator":
    """Return a generator for one named stream of randomness.

    Streams with different names are independent, so an additional draw in one stream changes no other.
    """
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(seed, *streams))


def derive_seed(seed: int, *streams: str | int) -> int:
    """Return a 63-bit seed from `(seed, *streams)`, the same on every machine and Python."""
    text = "/".join(str(part) for part in (seed, *streams))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def in_blocks(
    blocks: Iterable[Any], work: Callable[[Any], Any], each: Callable[[Any], None] | None = None
) -> list[Any]:
    """Return `[work(block) for block in blocks]`, computed on as many threads as torch uses.

    `each(block)` is called in order as results arrive; an exception in it stops the work within a block. A matrix
    product spread over threads may round differently than on one thread; a product within a block does not.
    """
    import torch

    todo, threads = list(blocks), torch.get_num_threads()
    results = []
    with one_thread(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for block, result in zip(todo, pool.map(work, todo), strict=True):
                results.append(result)
                if each is not None:
                    each(block)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def run_compiled(kernel: Callable[..., Any], *arguments: Any, at_most: int | None = None) -> Any:
    """Call a compiled kernel with tensors as arrays, on as many threads as torch uses, or `at_most`.

    Numba starts its threads at first use and resets OpenMP's number, which torch shares; it is restored.
    """
    import numba
    import torch

    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    threads = torch.get_num_threads()
    numba.set_num_threads(max(1, min(threads, most, at_most or most)))
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return kernel(*(a.numpy() if isinstance(a, torch.Tensor) else a for a in arguments))


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], list[str]]:
    """Return `__getattr__` and `__all__` of a package that imports its public names when they are first asked for.

    `homes` says where they come from: module -> names with a space between them, `own:public` where the public name is
    another than the module's own.
    """
    found = {
        public or own: (module, own)
        for module, names in homes.items()
        for own, _, public in (name.partition(":") for name in names.split())
    }

    def find(name: str) -> Any:
        if name not in found:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, own = found[name]
        value = getattr(importlib.import_module(module), own)
        setattr(sys.modules[package], name, value)
        return value

    return find, list(found)
