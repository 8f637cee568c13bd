"""The contract between `explain` and whatever answers it: a request, a reply, a provider. Torch-free."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol

from interp.artifacts import hash_json


@dataclass(frozen=True)
class Request:
    """One user message with what decides its reply."""

    content: str
    max_tokens: int
    temperature: float = 0.0
    start: str = ""
    """words that the reply is made to begin with; only for providers that can (`starts`)"""
    bits: int = 0
    """with a `start`: what follows is so many zeros and ones, at each place the likelier one"""

    def key(self, identity: dict[str, str]) -> str:
        """sha256 over message, settings and provider."""
        return hash_json({**identity, **asdict(self)})


@dataclass(frozen=True)
class Reply:
    """What came back."""

    text: str
    tokens_in: int
    tokens_out: int
    cut: bool = False
    """it ran into the limit of tokens"""


class Provider(Protocol):
    """Something that continues a chat of one user message."""

    model: str
    """its name, as shown beside a label"""
    where: str
    """for people: the address, or `this machine`"""
    remote: bool
    """whether text leaves this process"""
    concurrency: int
    """requests that it takes at a time"""
    starts: bool
    """whether it can be made to begin a reply with given words, which keeps a small model to the form asked for"""

    @property
    def identity(self) -> dict[str, str]:
        """What decides a reply besides the prompt and its settings; a part of the key of the cache. No secrets."""
        ...

    def complete(self, request: Request, *, before_send: Callable[[], None]) -> Reply:
        """The reply to a request. `before_send` is called before every attempt and may raise.

        Raises `ConfigError` (refused for good), `MissingError` (nothing there), `ResourceError` (tried in vain).
        """
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of a text; an estimate where the tokenizer is not at hand."""
        ...
