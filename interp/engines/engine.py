"""A program that runs a model, as a recording sees it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, Protocol

from interp.names import check_hook_points

if TYPE_CHECKING:
    from torch import Tensor

    from interp.models.loading import Attention
    from interp.text.tokens import Tokenizer

EngineName = Literal["bridge", "sharded", "vllm"]


class ReadsRows(Protocol):
    """Gives the values at the hook points `names` for tokens."""

    names: list[str]

    def __call__(self, tokens: "Tensor") -> "dict[str, Tensor]":
        """Return values `[batch, pos, ...]` by hook point for `tokens [batch, pos]`, in the engine's precision."""
        ...


class Engine(ABC):
    """A program with one model in it."""

    name: EngineName
    spec: str
    """The model, as `load_model` takes it."""
    precision: str
    """Data type of its computation, such as `float32`."""
    attention: "Attention"
    n_layers: int
    n_ctx: int
    """Tokens of the longest context."""
    whole_shards: bool
    """True for an engine that forms its batches itself: it is given all contexts of a shard at once."""
    together: bool = False
    """True where all ranks run every pass together, each with a part of the model."""

    @property
    @abstractmethod
    def about(self) -> str:
        """Name, version and devices, as manifests state them: `vllm 0.32.0 on 2 x cpu`."""

    @property
    @abstractmethod
    def weight_hash(self) -> str:
        """Hash of the weights as `interp.models.identity` takes it: one model has one, in every engine."""

    @property
    @abstractmethod
    def tokenizer(self) -> "Tokenizer": ...

    @property
    @abstractmethod
    def tokenizer_hash(self) -> str: ...

    @property
    @abstractmethod
    def hook_points(self) -> set[str]:
        """The hook points that it offers, by our names."""

    def check(self, hook_points: Sequence[str]) -> tuple[str, ...]:
        """Return the canonical names. Raises `UnknownNameError`, and `ConfigError` for one that cannot be read here."""
        return tuple(check_hook_points(hook_points, self.hook_points, self.n_layers))

    @abstractmethod
    def reading(self, hook_points: Sequence[str]) -> AbstractContextManager[ReadsRows]:
        """Return what reads these hook points within a `with` block."""
