"""Where what a dictionary writes can be read as next-token logits."""

from interp.dictionary import Dictionary
from interp.names import RESIDUAL_SUFFIXES, parse_hook_point


def writes_to_residual(dictionary: Dictionary) -> bool:
    """Whether its decoder directions live in the residual stream."""
    own = getattr(dictionary, "writes_to_residual", None)
    return bool(own) if own is not None else parse_hook_point(dictionary.hook_point).suffix in RESIDUAL_SUFFIXES
