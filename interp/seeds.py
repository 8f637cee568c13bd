"""Seeds: one enters at the command line, becomes `torch.Generator`s here, and leaves in the manifest."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


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
