"""Calling compiled loops: numba beside torch, on the threads that the caller chose. Imports numba: import it lazily."""

from collections.abc import Callable
from typing import Any

import numba
import torch
from torch import Tensor


def run_compiled(kernel: Callable[..., Any], *arguments: Any, at_most: int | None = None) -> Any:
    """Call a kernel, tensors passed as arrays, on as many threads as torch uses, or `at_most` so many.

    Numba starts its threads at first use and resets OpenMP's number, which torch shares; it is put back.
    """
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    threads = torch.get_num_threads()
    numba.set_num_threads(max(1, min(threads, most, at_most or most)))
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return kernel(*(a.numpy() if isinstance(a, Tensor) else a for a in arguments))
