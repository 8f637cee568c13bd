"""Arrays that a user brings along as `.npy` files."""

from pathlib import Path
from tokenize import TokenError

import numpy as np

from interp.errors import CorruptError


def read_npy(path: Path) -> np.ndarray:
    """The one array of a `.npy` file, of integers or floats. Raises `CorruptError`; pickled objects are not loaded."""
    try:
        array = np.load(path, allow_pickle=False)
    # Headers are Python literals, which fail to be read in several ways; a false one may ask for any amount of memory.
    except (ValueError, OSError, EOFError, SyntaxError, TokenError, MemoryError) as error:
        raise CorruptError(f"{path} cannot be read as .npy ({error}); pickled arrays are not loaded") from None
    if not isinstance(array, np.ndarray):
        raise CorruptError(f"{path} holds several arrays (.npz); save the one that is meant by numpy.save")
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise CorruptError(f"{path} should hold numbers, found {array.dtype}")
    return array
