"""Providers of replies: any OpenAI-compatible endpoint, or a model on this machine. Torch-free.

    provider = open_provider("http://localhost:8000/v1", "my-model")  # or open_provider("local:smollm2-135m")
    provider.complete(Request("What is 1 + 1?", max_tokens=20), before_send=budget.take)

With a model on this machine no text leaves it, and the only cost is time.
"""

import os
from collections.abc import Callable
from functools import cached_property
from typing import Any

from interp.errors import ConfigError, UnknownNameError
from saes.explain.asking import Provider, Reply, Request
from saes.explain.endpoint import Endpoint

LOCAL = "local:"
KEY_VARIABLE = "WORKBENCH_API_KEY"


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
    """Return the provider that a spec names: a base URL together with a model's name, or `local:MODEL`.

    The key is read from the environment variable `key_variable`, when that is set, and is never written to disk.
    Raises `UnknownNameError`, `ConfigError` (no model named, or an address that contains secrets).
    """
    if spec.startswith(LOCAL):
        if model is not None:
            raise ConfigError(f"{spec} names its model already; leave --model {model} out")

        return LocalModel(spec.removeprefix(LOCAL), device=device)
    if not spec.startswith(("http://", "https://")):
        raise UnknownNameError("provider", spec, ["local:smollm2-135m", "http://HOST/v1", "https://HOST/v1"])
    if not model:
        raise ConfigError(f"{spec} may serve several models and none was named; add --model NAME")
    key = os.environ.get(key_variable) if key_variable else None
    return Endpoint(
        spec, model, key=key, key_variable=key_variable, concurrency=concurrency, timeout=timeout, retries=retries
    )


class LocalModel:
    """A chat model on this machine, given by its name and loaded at the first request."""

    remote = False
    starts = True
    where = "this machine"
    concurrency = 1
    """One request at a time: two would share the same cores."""

    def __init__(self, spec: str, *, device: str | None = None):
        self.model, self._device = spec, device

    @cached_property
    def _loaded(self) -> Any:
        from interp.models.loading import load_model

        return load_model(self.model, device=self._device, attention="sdpa")

    @property
    def identity(self) -> dict[str, str]:
        from interp.models.adapter import weight_hash

        return {"local": self.model, "weight_hash": weight_hash(self._loaded)}

    def count_tokens(self, text: str) -> int:
        """Return the exact number of tokens, chat template included."""
        from interp.models.generation import chat_tokens

        return chat_tokens(self._loaded, text).shape[1]

    def complete(self, request: Request, *, before_send: Callable[[], None]) -> Reply:
        from interp.models.generation import complete_chat

        before_send()
        found = complete_chat(
            self._loaded,
            request.content,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            start=request.start,
            bits=request.bits,
        )
        return Reply(*found)
