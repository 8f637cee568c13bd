"""CPU threads. Blocks of work run on several, each block on one: a result does not depend on their number.

Compiled loops (numba) run on as many threads as torch uses. Both are imported by the functions that need them.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from interp.errors import ConfigError

B = TypeVar("B")
V = TypeVar("V")


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


def in_blocks(blocks: Iterable[B], work: Callable[[B], V], consume: Callable[[B], None] | None = None) -> list[V]:
    """Return `[work(block) for block in blocks]`, computed on as many threads as torch uses.

    `consume(block)` is called in order as results arrive; an exception in it stops the work within a block. A matrix
    product spread over threads may round differently than on one thread; a product within a block does not.
    """
    import torch

    todo, threads = list(blocks), torch.get_num_threads()
    results = []
    with one_thread(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for block, result in zip(todo, pool.map(work, todo), strict=True):
                results.append(result)
                if consume is not None:
                    consume(block)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def run_compiled(kernel: Callable[..., V], *arguments: object, at_most: int | None = None) -> V:
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
