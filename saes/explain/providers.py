"""Who answers: any OpenAI-compatible endpoint, or a model on this machine. Torch-free.

Ask one thing:

    provider = open_provider("http://localhost:8000/v1", "my-model")  # or open_provider("local:smollm2-135m")
    provider.complete(Request("What is 1 + 1?", max_tokens=20), before_send=budget.take)
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol

from interp.artifacts import hash_json
from interp.errors import ConfigError, UnknownNameError

LOCAL = "local:"
KEY_VARIABLE = "WORKBENCH_API_KEY"


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


def open_provider(
    spec: str,
    model: str | None = None,
    *,
    key_variable: str = KEY_VARIABLE,
    concurrency: int = 4,
    timeout: float = 60.0,
    retries: int = 5,
    device: str | None = None,
) -> Provider:
    """The provider that a spec names: a base URL with a model's name, or `local:MODEL`.

    The key is read from the environment variable `key_variable`, when that is set, and kept in memory alone.
    Raises `UnknownNameError`, `ConfigError` (no model named, an address with secrets in it).
    """
    if spec.startswith(LOCAL):
        if model is not None:
            raise ConfigError(f"{spec} names its model already; leave --model {model} out")
        from saes.explain.local import LocalModel

        return LocalModel(spec.removeprefix(LOCAL), device=device)
    if not spec.startswith(("http://", "https://")):
        raise UnknownNameError("provider", spec, ["local:smollm2-135m", "http://HOST/v1", "https://HOST/v1"])
    if not model:
        raise ConfigError(f"{spec} serves several models, perhaps; add --model NAME")
    from saes.explain.endpoint import Endpoint

    key = os.environ.get(key_variable) if key_variable else None
    return Endpoint(
        spec, model, key=key, key_variable=key_variable, concurrency=concurrency, timeout=timeout, retries=retries
    )
