"""A model on this machine as a provider: nothing leaves it, and nothing costs but time."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

from saes.explain.providers import Reply, Request


class LocalModel:
    """A chat model by its name, loaded when it is first asked."""

    remote = False
    starts = True
    where = "this machine"
    concurrency = 1
    """one after the other: two would share the same cores"""

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
        """Exact, chat template included."""
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
