"""A conversation with a model, steered and not: what was said, and how far steering moved each token. Torch-free."""

from dataclasses import dataclass
from typing import NamedTuple

UNSTEERED, STEERED, RANDOM = "unsteered", "steered", "random direction"
"""Names of the chats."""


class MovedToken(NamedTuple):
    """One token of a reply."""

    text: str
    shift: float
    """nats: its log-probability in the steered model, less that in the unsteered model after the same text"""


@dataclass(frozen=True, kw_only=True)
class ChatReply:
    """A reply in one chat."""

    text: str
    tokens: tuple[MovedToken, ...]
    cut: bool
    """it was cut at the limit"""
    shift: float
    """nats: mean size of the shift of a token; 0 unsteered"""
    scores: tuple[float, ...] = ()
    """log-odds above the threshold of a monitor, of each token; empty without one"""


@dataclass(frozen=True, kw_only=True)
class ChatTurn:
    """One message, and the reply in each chat by its name."""

    message: str
    replies: dict[str, str]
