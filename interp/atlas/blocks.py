"""Blocks of work on several threads, each block on one: what a block computes then depends on no number of threads."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from interp.runtime import one_thread


def in_blocks(
    blocks: Iterable[Any], work: Callable[[Any], Any], each: Callable[[Any], None] | None = None
) -> list[Any]:
    """`[work(block) for block in blocks]`, as many at a time as torch has threads; `each(block)` as results come in
    order, and what it raises stops the work within a block. A matrix product spread over threads may round differently
    than on one; a product within a block does not.
    """
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
